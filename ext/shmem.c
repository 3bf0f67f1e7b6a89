/*
 * The shared memory of the slot worker and client backends.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "check.h"
#include "hold_back.h"
#include "sequence_shmem.h"
#include "shmem.h"
#include "slot.h"
#include "slot_news.h"

#define TRANCHE_NAME "replsync"

/* Each part of the shared memory has its lock. */
#define WORKER_LOCK		0
#define SEQUENCES_LOCK	1
#define HOLD_BACK_LOCK	2
#define NUMBER_OF_LOCKS 3

ReplsyncShared *replsync_shared = NULL;

static shmem_request_hook_type previous_shmem_request_hook = NULL;
static shmem_startup_hook_type previous_shmem_startup_hook = NULL;

/*
 * The number of rows slot_status can hold. Copies take slots of this server, so
 * there are never more of those; the rest is for slots that cannot be kept.
 */
static int
max_status_rows(void)
{
	return Max(2 * max_replication_slots, 64);
}

/* The size of the shared memory */
static Size
shared_size(void)
{
	return add_size(offsetof(ReplsyncShared, rows),
					mul_size(max_status_rows(), sizeof(SlotStatusRow) + sizeof(SyncRow)));
}

/* Ask for shared memory and a lock */
static void
request_shmem(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	RequestAddinShmemSpace(add_size(add_size(shared_size(), replsync_check_size()), replsync_sequences_shmem_size()));
	RequestAddinShmemSpace(replsync_slot_news_size());
	RequestAddinShmemSpace(replsync_feedback_size());
#if PG_VERSION_NUM < 170000
	RequestAddinShmemSpace(replsync_hold_back_shmem_size());
#endif
	RequestNamedLWLockTranche(TRANCHE_NAME, NUMBER_OF_LOCKS);
}

/* Create or attach to the shared memory */
static void
startup_shmem(void)
{
	bool found;

	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	replsync_shared = ShmemInitStruct("replsync", shared_size(), &found);
	if (!found)
	{
		memset(replsync_shared, 0, shared_size());
		replsync_shared->lock = &GetNamedLWLockTranche(TRANCHE_NAME)[WORKER_LOCK].lock;
		ConditionVariableInit(&replsync_shared->done);
		replsync_shared->maxrows = max_status_rows();
		replsync_shared->sync_rows = (SyncRow *) &replsync_shared->rows[max_status_rows()];
	}
	replsync_check_init();
	replsync_slot_news_startup();
	replsync_feedback_startup();
	replsync_sequences_shmem_startup(&GetNamedLWLockTranche(TRANCHE_NAME)[SEQUENCES_LOCK].lock);
#if PG_VERSION_NUM < 170000
	replsync_hold_back_shmem_startup(&GetNamedLWLockTranche(TRANCHE_NAME)[HOLD_BACK_LOCK].lock);
	replsync_intercept_decoding();
#endif
	LWLockRelease(AddinShmemInitLock);
}

/* Install the shared memory hooks; only while the postmaster preloads */
void
replsync_shmem_init(void)
{
	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

/* Tell waiting backends that this worker is gone */
static void
detach_worker(int code, Datum arg)
{
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	replsync_worker_leave(&replsync_shared->worker);
	LWLockRelease(replsync_shared->lock);
	ConditionVariableBroadcast(&replsync_shared->done);
}

/* Make this process the slot worker */
void
replsync_attach_worker(void)
{
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	replsync_worker_enter(&replsync_shared->worker);
	replsync_shared->incarnation++;
	replsync_shared->command_taken = false;
	replsync_check_attach();
	LWLockRelease(replsync_shared->lock);
	before_shmem_exit(detach_worker, (Datum) 0);
	ConditionVariableBroadcast(&replsync_shared->done);
}

/* Show why the worker cannot work; waiting callers of sync_slots() get it too */
void
replsync_set_error(const CoreOutcome *outcome)
{
	ReplsyncShared *s = replsync_shared;

	LWLockAcquire(s->lock, LW_EXCLUSIVE);
	replsync_worker_show_error(&s->worker, outcome);
	s->sync_outcome = *outcome;
	s->sync_begun = s->sync_done = s->sync_requested;
	s->worker.state = CORE_STATE_BLOCKED;
	LWLockRelease(s->lock);
	ConditionVariableBroadcast(&s->done);
}

/* Take a text that is shown as it is */
static void
get_text(WireReader *in, char *to, size_t size)
{
	char *text = wire_get_text(in);

	strlcpy(to, text ? text : "", size);
	if (text)
		pfree(text);
}

typedef char RowName[CORE_NAME_LEN];

/* Take the names of the rows */
static RowName *
get_names(WireReader *in, int nrows)
{
	RowName *names = palloc(sizeof(RowName) * Max(nrows, 1));

	for (int i = 0; i < nrows; i++)
		get_text(in, names[i], sizeof(RowName));
	return names;
}

/* Copy the rows of slot_status that have an error history */
static SlotStatusRow *
copy_history(int *n)
{
	ReplsyncShared *s = replsync_shared;
	SlotStatusRow *history;
	int count = 0;

	for (int i = 0; i < s->nrows; i++)
		count += s->rows[i].error_count > 0;
	history = palloc(sizeof(SlotStatusRow) * Max(count, 1));
	*n = 0;
	for (int i = 0; i < s->nrows; i++)
	{
		if (s->rows[i].error_count > 0)
			history[(*n)++] = s->rows[i];
	}
	return history;
}

/* Give the rows of slot_status new names, each keeping its error history */
static void
rename_rows(const RowName *names, int nrows)
{
	ReplsyncShared *s = replsync_shared;
	int nhistory;
	SlotStatusRow *history = copy_history(&nhistory);

	s->nrows = nrows;
	memset(s->rows, 0, sizeof(SlotStatusRow) * nrows);
	for (int i = 0; i < nrows; i++)
	{
		for (int j = 0; j < nhistory; j++)
		{
			if (strcmp(history[j].status.name, names[i]) == 0)
				s->rows[i] = history[j];
		}
		strlcpy(s->rows[i].status.name, names[i], sizeof(RowName));
	}
	pfree(history);
}

/* Are these the names of the rows that there are? That is the rule, and makes most of the work needless */
static bool
same_names(const RowName *names, int nrows)
{
	ReplsyncShared *s = replsync_shared;

	if (nrows != s->nrows)
		return false;
	for (int i = 0; i < nrows; i++)
	{
		if (strcmp(s->rows[i].status.name, names[i]) != 0)
			return false;
	}
	return true;
}

/* Take what is shown of a slot but its name */
static void
get_status(WireReader *in, SlotStatus *status)
{
	get_text(in, status->database, sizeof(status->database));
	get_text(in, status->plugin, sizeof(status->plugin));
	get_text(in, status->state, sizeof(status->state));
	get_text(in, status->action, sizeof(status->action));
	get_text(in, status->reason, sizeof(status->reason));
	get_text(in, status->hint, sizeof(status->hint));
	get_text(in, status->error, sizeof(status->error));
	status->remote_restart_lsn = wire_get_int64(in);
	status->remote_confirmed_flush_lsn = wire_get_int64(in);
	status->restart_lsn = wire_get_int64(in);
	status->confirmed_flush_lsn = wire_get_int64(in);
	status->last_sync_at = wire_get_int64(in);
}

/* Replace the rows of slot_status */
static void
replace_rows(WireReader *in, int nrows)
{
	ReplsyncShared *s = replsync_shared;
	TimestampTz now = GetCurrentTimestamp();
	RowName *names = get_names(in, nrows);

	nrows = Min(nrows, s->maxrows);
	if (!same_names(names, nrows))
		rename_rows(names, nrows);
	for (int i = 0; i < nrows; i++)
	{
		SlotStatusRow *row = &s->rows[i];

		get_status(in, &row->status);
		if (row->status.error[0] != '\0')
		{
			strlcpy(row->last_error, row->status.error, sizeof(row->last_error));
			row->last_error_at = now;
			row->error_count++;
		}
	}
	pfree(names);
}

/*
 * Keep what those see who asked for this pass, apart from what the views show: the
 * next pass may be over before they have looked.
 */
static void
answer_callers(const CorePass *pass)
{
	ReplsyncShared *s = replsync_shared;
	bool shown = pass->rows == CORE_ROWS_CONFIRMED;

	s->sync_outcome = pass->outcome;
	s->sync_nrows = shown ? s->nrows : Min((int) pass->nrows, s->maxrows);
	for (int i = 0; i < s->sync_nrows; i++)
	{
		const SlotStatus *from = &s->rows[i].status;
		SyncRow *row = &s->sync_rows[i];

		strlcpy(row->name, from->name, sizeof(row->name));
		strlcpy(row->database, from->database, sizeof(row->database));
		strlcpy(row->action, from->action, sizeof(row->action));
		row->ready = strcmp(from->state, "ready") == 0;
		strlcpy(row->reason, from->error[0] ? from->error : from->reason, sizeof(row->reason));
	}
	s->sync_done = s->sync_begun;
}

/* Show what a pass found and wake those who wait for it */
void
replsync_publish_pass(const CorePass *pass, WireReader *rows)
{
	ReplsyncShared *s = replsync_shared;

	LWLockAcquire(s->lock, LW_EXCLUSIVE);
	replsync_worker_cycle_done(&s->worker, pass->duration_us, &pass->outcome);
	s->worker.state = pass->state;
	switch ((CoreRows) pass->rows)
	{
		case CORE_ROWS_STAY:
			break;
		case CORE_ROWS_REPLACED:
			replace_rows(rows, (int) pass->nrows);
			break;
		case CORE_ROWS_CONFIRMED:
			for (int i = 0; i < s->nrows; i++)
				s->rows[i].status.last_sync_at = pass->last_sync_at;
			break;
	}
	if (s->sync_done != s->sync_begun)
		answer_callers(pass);
	LWLockRelease(s->lock);

	ConditionVariableBroadcast(&s->done);
}

/* Show how far a pass has come */
void
replsync_publish_progress(const CoreProgress *progress)
{
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	replsync_shared->worker.progress = *progress;
	LWLockRelease(replsync_shared->lock);
}

/* Hand the result of a command to its caller */
void
replsync_publish_command(const CoreCommandResult *result)
{
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	/* The caller of the command that was taken may have given up, and another have come. */
	if (replsync_shared->command_taken && !replsync_shared->command_done)
	{
		replsync_shared->command_result = *result;
		replsync_shared->command_done = true;
	}
	LWLockRelease(replsync_shared->lock);
	ConditionVariableBroadcast(&replsync_shared->done);
}

/* Does anybody want the worker? */
bool
replsync_something_requested(void)
{
	ReplsyncShared *s = replsync_shared;
	bool wanted;

	LWLockAcquire(s->lock, LW_SHARED);
	wanted = s->sync_requested > s->sync_begun ||
			 (s->command_busy && !s->command_taken && !s->command_done);
	LWLockRelease(s->lock);
	return wanted;
}

/*
 * Begin a cycle: take what is requested. Whoever asks from now on is served by
 * the next cycle.
 */
void
replsync_begin_cycle(CoreWakeup *wakeup)
{
	ReplsyncShared *s = replsync_shared;

	LWLockAcquire(s->lock, LW_EXCLUSIVE);
	if (s->sync_requested > s->sync_begun)
	{
		wakeup->reasons |= CORE_WAKE_SYNC;
		s->sync_begun = s->sync_requested;
	}
	if (s->command_busy && !s->command_taken && !s->command_done)
	{
		wakeup->reasons |= CORE_WAKE_COMMAND;
		wakeup->command = s->command;
		strlcpy(wakeup->argument, s->command_argument, sizeof(wakeup->argument));
		s->command_taken = true;
	}
	LWLockRelease(s->lock);
}

/* Show what the worker does, and when the next cycle is due; 0: when something happens */
void
replsync_show_state(CoreWorkerState state, TimestampTz next_cycle_at)
{
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	replsync_worker_show(&replsync_shared->worker, state, next_cycle_at);
	LWLockRelease(replsync_shared->lock);
}
