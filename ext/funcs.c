/*
 * The SQL functions that do something; status.c has those that show something. None of
 * them loads the core: they ask the slot worker through shared memory.
 */
#include "replsync.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "sequence.h"
#include "shmem.h"
#include "status.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(replsync_version);
PG_FUNCTION_INFO_V1(replsync_sync_slots_sql);
PG_FUNCTION_INFO_V1(replsync_drop_slots_sql);
PG_FUNCTION_INFO_V1(replsync_reset_statistics);

/* How long a caller waits for a worker that is between two lives, in milliseconds. */
#define WORKER_WAIT_MS 15000

/* What a caller of sync_slots() adds to the bounds of the remote statements of a pass. */
#define PASS_WAIT_MS 60000

/* Error out where the library was not preloaded */
void
replsync_require_preload(void)
{
	if (replsync_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replsync is not loaded"),
				 errhint("Add replsync to shared_preload_libraries and restart the server.")));
}

/* Error out unless the caller may manage slots; as CheckSlotPermissions (slot.c) */
void
replsync_require_replication(void)
{
	if (!superuser() && !has_rolreplication(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to use replication slots"),
				 errdetail("Only a superuser or a role with the REPLICATION attribute may do this.")));
}

/* Error out on a server that keeps no copies: its worker waits and answers nobody */
static void
require_standby(void)
{
	if (!RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots can only be synchronized to a standby server")));
}

/* Raise the error that came from the worker, if it is one */
static void
raise_failure(const CoreOutcome *outcome)
{
	const char *code = outcome->sqlstate;

	if (code[0] == '\0')
		return;
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4])),
			 errmsg("%s", replsync_to_server(outcome->message)),
			 outcome->detail[0] ? errdetail("%s", replsync_to_server(outcome->detail)) : 0,
			 outcome->hint[0] ? errhint("%s", replsync_to_server(outcome->hint)) : 0));
}

/*
 * Sleep until the worker has news; error out at the deadline, or when the server is no
 * standby any more: then nobody answers.
 */
static void
wait_for_news(TimestampTz deadline, const char *what)
{
	long remaining = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	if (remaining <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("%s", what),
				 errhint("The view replsync.worker_status shows what the slot worker does.")));
	require_standby();
	(void) ConditionVariableTimedSleep(&replsync_shared->done, Min(remaining, PROMOTION_POLL_MS),
									   PG_WAIT_EXTENSION);
}

/* Find the running worker's incarnation, waiting for one that is being restarted */
static uint64
find_worker(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WORKER_WAIT_MS);
	uint64 incarnation = 0;

	ConditionVariablePrepareToSleep(&replsync_shared->done);
	for (;;)
	{
		LWLockAcquire(replsync_shared->lock, LW_SHARED);
		if (replsync_shared->worker.pid != 0)
			incarnation = replsync_shared->incarnation;
		LWLockRelease(replsync_shared->lock);
		if (incarnation != 0)
			break;
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("no slot worker of replsync is running"),
					 errhint("See the server log; max_worker_processes may be too low.")));
		require_standby();
		(void) ConditionVariableTimedSleep(&replsync_shared->done, PROMOTION_POLL_MS, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return incarnation;
}

/* Error out if the worker that was asked has ended; called with the lock held */
static void
check_worker(uint64 incarnation)
{
	if (replsync_shared->worker.pid != 0 && replsync_shared->incarnation == incarnation)
		return;
	LWLockRelease(replsync_shared->lock);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("slot worker of replsync has ended"),
			 errdetail("The postmaster starts it again within seconds."),
			 errhint("Try again; see the server log for the reason.")));
}

/* Wait until a pass that begins from now on is over; returns its rows, or raises its error */
static SyncRow *
run_pass(int *nrows)
{
	ReplsyncShared *s = replsync_shared;
	uint64 incarnation = find_worker();
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   (int64) replsync_connect_timeout + replsync_remote_timeout + PASS_WAIT_MS);
	SyncRow *rows = palloc(sizeof(SyncRow) * s->maxrows);
	CoreOutcome outcome;
	uint64 ticket;

	LWLockAcquire(s->lock, LW_EXCLUSIVE);

	/* Callers that come while none has been taken up yet share one pass. */
	if (s->sync_requested == s->sync_begun)
		s->sync_requested++;
	ticket = s->sync_requested;
	replsync_worker_wake(&s->worker);
	LWLockRelease(s->lock);

	ConditionVariablePrepareToSleep(&s->done);
	for (;;)
	{
		bool over;

		LWLockAcquire(s->lock, LW_SHARED);
		over = s->sync_done >= ticket;
		if (over)
		{
			outcome = s->sync_outcome;
			*nrows = s->sync_nrows;
			memcpy(rows, s->sync_rows, sizeof(SyncRow) * *nrows);
		}
		else
			check_worker(incarnation);
		LWLockRelease(s->lock);
		if (over)
			break;
		wait_for_news(deadline, "slot worker did not finish a pass in time");
	}
	ConditionVariableCancelSleep();
	raise_failure(&outcome);
	return rows;
}

/* version() returns text */
Datum
replsync_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(REPLSYNC_VERSION));
}

/* sync_slots(): one pass now */
Datum
replsync_sync_slots_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SyncRow *rows;
	int nrows;

	replsync_require_preload();
	replsync_require_replication();
	require_standby();
	rows = run_pass(&nrows);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < nrows; i++)
	{
		Datum values[5];
		bool nulls[5] = {0};

		replsync_set_name(values, nulls, 0, rows[i].name);
		replsync_set_name(values, nulls, 1, rows[i].database);
		replsync_set_text(values, nulls, 2, rows[i].action);
		values[3] = BoolGetDatum(rows[i].ready);
		replsync_set_text(values, nulls, 4, rows[i].reason);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Put a command into the worker's mailbox, waiting for its turn */
static void
post_command(CoreCommand command, const char *argument, TimestampTz deadline)
{
	ReplsyncShared *s = replsync_shared;

	ConditionVariablePrepareToSleep(&s->done);
	for (;;)
	{
		bool posted = false;

		LWLockAcquire(s->lock, LW_EXCLUSIVE);
		if (!s->command_busy)
		{
			s->command_busy = true;
			s->command_taken = s->command_done = false;
			s->command = command;
			strlcpy(s->command_argument, argument, sizeof(s->command_argument));
			replsync_worker_wake(&s->worker);
			posted = true;
		}
		LWLockRelease(s->lock);
		if (posted)
			break;
		wait_for_news(deadline, "slot worker is busy with another command");
	}
	ConditionVariableCancelSleep();
}

/* Take the mailbox back, also when the caller gives up */
static void
release_command(int code, Datum arg)
{
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	replsync_shared->command_busy = false;
	LWLockRelease(replsync_shared->lock);
	ConditionVariableBroadcast(&replsync_shared->done);
}

/* Wait for the result of the command in the mailbox */
static CoreCommandResult
await_command(uint64 incarnation, TimestampTz deadline)
{
	ReplsyncShared *s = replsync_shared;
	CoreCommandResult result;
	bool over;

	ConditionVariablePrepareToSleep(&s->done);
	for (;;)
	{
		LWLockAcquire(s->lock, LW_SHARED);
		over = s->command_done;
		result = s->command_result;
		if (!over)
			check_worker(incarnation);
		LWLockRelease(s->lock);
		if (over)
			break;
		wait_for_news(deadline, "slot worker did not answer in time");
	}
	ConditionVariableCancelSleep();
	return result;
}

/* drop_slots(pattern): drop copies that are not wanted any more */
Datum
replsync_drop_slots_sql(PG_FUNCTION_ARGS)
{
	char *pattern = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TimestampTz deadline;
	uint64 incarnation;
	CoreCommandResult result;

	replsync_require_preload();
	replsync_require_replication();
	require_standby();
	if (strlen(pattern) >= CORE_TEXT_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pattern is too long"),
				 errdetail("A pattern has at most %d bytes.", CORE_TEXT_LEN - 1)));
	incarnation = find_worker();
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   (int64) replsync_connect_timeout + replsync_remote_timeout + PASS_WAIT_MS);
	post_command(CORE_COMMAND_DROP_SLOTS, pattern, deadline);
	PG_ENSURE_ERROR_CLEANUP(release_command, (Datum) 0);
	{
		result = await_command(incarnation, deadline);
	}
	PG_END_ENSURE_ERROR_CLEANUP(release_command, (Datum) 0);
	release_command(0, (Datum) 0);
	raise_failure(&result.outcome);
	PG_RETURN_INT32((int32) result.value);
}

/* Forget how often sequences of this database have failed, where the table can be written */
static void
reset_problem_counts(void)
{
	if (RecoveryInProgress() || XactReadOnly || !replsync_sequence_has_tables())
		return;
	replsync_spi_begin();
	(void) replsync_spi("UPDATE replsync.sequence_problem SET error_count = 0 WHERE error_count <> 0", 0, NULL, NULL);
	replsync_spi_end();
}

/* Forget counters and old errors of the sequence workers */
static void
reset_sequence_workers(void)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	for (int i = 0; i < replsync_sequences->ndatabases; i++)
		replsync_worker_reset(&replsync_sequences->databases[i].worker);
	LWLockRelease(replsync_sequences->lock);
}

/* reset_statistics(): forget counters and old errors */
Datum
replsync_reset_statistics(PG_FUNCTION_ARGS)
{
	ReplsyncShared *s = replsync_shared;

	replsync_require_preload();
	replsync_require_replication();
	replsync_live_forget_errors();
	reset_problem_counts();
	reset_sequence_workers();
	LWLockAcquire(s->lock, LW_EXCLUSIVE);
	replsync_worker_reset(&s->worker);
	for (int i = 0; i < s->nrows; i++)
	{
		s->rows[i].last_error[0] = '\0';
		s->rows[i].last_error_at = 0;
		s->rows[i].error_count = 0;
	}
	LWLockRelease(s->lock);
	PG_RETURN_VOID();
}
