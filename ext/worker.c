/*
 * The background worker: it owns the main thread, serves the latch at all times and
 * carries out what the core asks for, one request after the other.
 */
#include "replsync.h"

#include "access/xlog.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "check.h"
#include "compat.h"
#include "core.h"
#include "sequence.h"
#include "shmem.h"
#include "slot.h"
#include "worker.h"

/* Seconds until the postmaster starts a worker again that has ended. */
#define RESTART_SECONDS 5

/* How often a primary marks slots that have been made meanwhile. */
#define MARK_ORIGINALS_MS 5000

PGDLLEXPORT void replsync_worker_main(Datum arg);

static bool slot_worker = false;
static bool sequence_worker = false;

/* Is this process the slot worker? */
bool
replsync_is_slot_worker(void)
{
	return slot_worker;
}

/* Is this process a sequence worker? */
bool
replsync_is_sequence_worker(void)
{
	return sequence_worker;
}

/* Let the postmaster start the slot worker once a standby can be read */
void
replsync_register_slot_worker(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "replsync slot worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "replsync slot worker", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "replsync", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "replsync_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_extra, KIND_SLOTS, BGW_EXTRALEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
}

/* Read the configuration again if the postmaster says so */
static void
reload_if_pending(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	replsync_nap_note_reload();
}

/* Wait on the latch alone, as long as there is no core; on a primary new slots are looked for now and then */
static void
wait_for_latch(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
					 RecoveryInProgress() ? PROMOTION_POLL_MS : MARK_ORIGINALS_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	(void) replsync_take_interrupts();
}

/*
 * Is there work for the core? On a server that was promoted while no worker ran to see
 * it, the copies are to be settled, once.
 */
static bool
core_is_wanted(bool standby)
{
	if (standby)
		return replsync_sync_slots || replsync_something_requested() || replsync_check_requested();
	if (!replsync_shared->copies_settled && !replsync_any_copy())
		replsync_shared->copies_settled = true;
	return !replsync_shared->copies_settled;
}

/*
 * Wait until this server is a standby that wants its slots synchronized. A primary
 * stays here, without the core: it costs nothing but the process.
 */
static void
wait_for_work(void)
{
	for (;;)
	{
		bool standby = RecoveryInProgress();

		if (core_is_wanted(standby))
			return;
		replsync_show_state(standby ? CORE_STATE_OFF : CORE_STATE_NOT_STANDBY, 0);
		if (!standby)
			replsync_mark_originals();
		wait_for_latch();
		reload_if_pending();
	}
}

/* Show why there is no core, and tell those who wait for one */
static void
refuse_work(const CoreOutcome *outcome)
{
	CoreWakeup wakeup = {0};
	CoreCommandResult result = {.value = 0, .outcome = *outcome};

	replsync_begin_cycle(&wakeup);
	if ((wakeup.reasons & CORE_WAKE_COMMAND) != 0)
		replsync_publish_command(&result);
	replsync_set_error(outcome);
}

/* Put an error into the form that is shown */
static void
describe_error(const ErrorData *edata, CoreOutcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	strlcpy(outcome->sqlstate, unpack_sql_state(edata->sqlerrcode), sizeof(outcome->sqlstate));
	strlcpy(outcome->message, edata->message, sizeof(outcome->message));
	strlcpy(outcome->detail, edata->detail ? edata->detail : "", sizeof(outcome->detail));
	strlcpy(outcome->hint, edata->hint ? edata->hint : "", sizeof(outcome->hint));
}

/*
 * Stay alive without a core, so that the reason can be seen, until the configuration is
 * read again or the server is promoted: then start anew.
 */
static void
stay_blocked(const ErrorData *edata)
{
	CoreOutcome outcome;
	bool standby = RecoveryInProgress();

	ereport(LOG,
			(errcode(edata->sqlerrcode),
			 errmsg("%s", edata->message),
			 edata->detail ? errdetail("%s", edata->detail) : 0,
			 edata->hint ? errhint("%s", edata->hint) : 0));
	describe_error(edata, &outcome);
	refuse_work(&outcome);
	while (!ConfigReloadPending && (!standby || RecoveryInProgress()))
	{
		replsync_check_refuse(&outcome);
		wait_for_latch();
		if (replsync_something_requested())
			refuse_work(&outcome);
	}
	proc_exit(1);
}

/* Show why a sequence worker has no core; the launcher starts another one after a pause */
static void
show_refusal(const ErrorData *edata)
{
	CoreOutcome outcome;

	describe_error(edata, &outcome);
	replsync_sequence_show_error(&outcome);
}

/* Load and start the core, or stay without it */
static void
start_core(const char *library, const char *kind, const char *argument)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		replsync_core_load(library);
		replsync_core_start(kind, argument);
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		if (sequence_worker)
			show_refusal(edata);
		if (!slot_worker)
			ThrowErrorData(edata);
		stay_blocked(edata);
	}
	PG_END_TRY();
}

/* Serve the interrupts that have come; true: what the core does is to end */
static bool
cancel_requested(void)
{
	if (!replsync_take_interrupts())
		return false;
	replsync_core_cancel();
	return true;
}

/* Serve the core until the process is told to end */
static void
serve(void)
{
	WaitEventSet *set = CreateWaitEventSet(COMPAT_WAIT_SET_OWNER, 3);
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "replsync request",
												  ALLOCSET_DEFAULT_SIZES);
	bool asked = true; /* a look into the queue is not free: it wakes Go's scheduler */

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, replsync_core_wakeup_fd(), NULL, NULL);

	for (;;)
	{
		WaitEvent event;
		CoreRequest request;
		uint64 ignored;
		bool cancel = cancel_requested();

		if (sequence_worker)
			replsync_sequence_worker_check();
		reload_if_pending();
		while (asked && replsync_core_next(&request))
		{
			MemoryContextSwitchTo(context);
			replsync_dispatch(&request);
			MemoryContextSwitchTo(TopMemoryContext);
			MemoryContextReset(context);
			cancel |= cancel_requested();
			if (sequence_worker)
				replsync_sequence_worker_check();
		}
		asked = false;
		replsync_nap_check(cancel);
		replsync_check_attend();
		if (sequence_worker)
			replsync_sequence_answers_continue();

		if (WaitEventSetWait(set, replsync_nap_timeout(), &event, 1, PG_WAIT_EXTENSION) != 1)
			continue;
		if (event.events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (read(replsync_core_wakeup_fd(), &ignored, sizeof(ignored)) >= 0)
			asked = true;
		else if (errno != EAGAIN)
			ereport(ERROR,
					(errcode_for_socket_access(),
					 errmsg("could not read from the event descriptor: %m")));
	}
}

/* The background worker's main function: bgw_extra is the kind, and after a colon its argument */
void
replsync_worker_main(Datum arg)
{
	char kind[BGW_EXTRALEN];
	char library[BGW_EXTRALEN + 32];
	char *argument;

	/* All handlers are there before the core is: it gives them its alternate stack. */
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	strlcpy(kind, MyBgworkerEntry->bgw_extra, sizeof(kind));
	argument = strchr(kind, ':');
	if (argument != NULL)
		*argument++ = '\0';
	slot_worker = (strcmp(kind, KIND_SLOTS) == 0);
	sequence_worker = (strcmp(kind, KIND_SEQUENCES) == 0);

	if (slot_worker)
	{
		/* Without a database: nothing here can stand in the way of DROP DATABASE. */
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);
		replsync_attach_worker();
		replsync_feedback_attach();
		wait_for_work();
		strlcpy(library, "replsync_core", sizeof(library));
	}
	else if (sequence_worker)
	{
		replsync_sequence_worker_begin(DatumGetObjectId(arg));
		strlcpy(library, "replsync_core", sizeof(library));
	}
	else
	{
		/* Kinds other than the product's come with a core of their own: tests. */
		BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
		snprintf(library, sizeof(library), "replsync_core_%s", kind);
	}
	start_core(library, kind, argument ? argument : "");
	serve();
}
