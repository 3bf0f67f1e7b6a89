/*
 * The core's naps: a request that the main thread answers only when its time is
 * over or something wants the worker.
 */
#include "replsync.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "core.h"
#include "sequence.h"
#include "shmem.h"
#include "worker.h"

static bool napping = false;
static uint64 nap_id;
static TimestampTz deadline; /* 0: none */
static bool began_in_recovery;
static bool reload_seen = false; /* since the last nap ended */
static bool wake_asked = false;

/* Begin a nap */
void
replsync_nap_begin(uint64 id, const CoreNap *nap)
{
	napping = true;
	nap_id = id;
	began_in_recovery = RecoveryInProgress();
	deadline = 0;
	if (nap->timeout_ms >= 0)
		deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), nap->timeout_ms);
	if (replsync_is_slot_worker())
		replsync_show_state((CoreWorkerState) nap->state, deadline);
	else if (replsync_is_sequence_worker())
		replsync_sequence_show_state((CoreWorkerState) nap->state, deadline);
}

/* How long the main thread may wait, in milliseconds; -1: until something happens */
long
replsync_nap_timeout(void)
{
	long remaining = -1;

	/* An answer that nobody reads is given up after a while. */
	if (replsync_is_sequence_worker() && replsync_sequence_answers_pending())
		return PROMOTION_POLL_MS;
	if (!napping)
		return -1;
	if (deadline != 0)
		remaining = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
	if (began_in_recovery && (remaining < 0 || remaining > PROMOTION_POLL_MS))
		remaining = PROMOTION_POLL_MS;
	return remaining;
}

/* Remember that the configuration was read, for a core that is busy now */
void
replsync_nap_note_reload(void)
{
	reload_seen = true;
}

/* End the nap, or the next one, for the core */
void
replsync_nap_wake(void)
{
	wake_asked = true;
}

/* Answer the nap if it is over */
void
replsync_nap_check(bool cancel)
{
	CoreWakeup wakeup = {0};

	if (!napping)
		return;
	if (reload_seen)
		wakeup.reasons |= CORE_WAKE_RELOAD;
	if (wake_asked)
		wakeup.reasons |= CORE_WAKE_NEWS;
	if (cancel)
		wakeup.reasons |= CORE_WAKE_CANCEL;
	if (deadline != 0 && GetCurrentTimestamp() >= deadline)
		wakeup.reasons |= CORE_WAKE_TIMEOUT;
	if (began_in_recovery && !RecoveryInProgress())
		wakeup.reasons |= CORE_WAKE_TIMEOUT;

	if (replsync_is_slot_worker() &&
		(wakeup.reasons != 0 || replsync_something_requested()))
	{
		replsync_begin_cycle(&wakeup);
		replsync_show_state(CORE_STATE_RUNNING, 0);
	}
	if (replsync_is_sequence_worker())
	{
		if (replsync_sequence_poked() || replsync_request_waiting(MyDatabaseId))
			wakeup.reasons |= CORE_WAKE_SYNC;
		if (wakeup.reasons != 0)
			replsync_sequence_show_state(CORE_STATE_RUNNING, 0);
	}
	if (wakeup.reasons == 0)
		return;

	napping = false;
	reload_seen = false;
	wake_asked = false;
	replsync_core_answer(nap_id, NULL, &wakeup, sizeof(wakeup));
}
