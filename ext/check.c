/*
 * failover_check(): the slot worker assembles the rows, in answer to its callers.
 *
 * A check does not wait for the pass under way, which may wait for a primary that is
 * gone: the core asks for the next check with a request of its own, which is answered
 * when somebody calls. Callers that come before it has begun share one.
 */
#include "replsync.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "check.h"
#include "core.h"
#include "shmem.h"
#include "status.h"

PG_FUNCTION_INFO_V1(replsync_failover_check);

/* What a caller adds to connect_timeout, by which the core bounds what it asks the primary. */
#define CHECK_WAIT_MS 2000

/* How often a caller looks whether the server has been promoted. */
#define PROMOTION_LOOK_MS 500

/* The texts of a row: ok ("t", "f" or empty), check_name, object, detail, hint. */
#define ROW_TEXTS 5

/* Room for the rows about the servers, and on the average for each slot's. */
#define SERVER_ROWS_SIZE 32768
#define SLOT_ROW_SIZE	 512

typedef struct CheckShared
{
	uint64 requested; /* a caller raises it, and waits for done to reach it */
	uint64 begun;
	uint64 done;
	int dropped; /* rows that did not fit */
	Size length;
	char rows[FLEXIBLE_ARRAY_MEMBER];
} CheckShared;

/* Protected by the lock of replsync_shared, whose condition variable tells of news. */
static CheckShared *check = NULL;

/* The request of the core that waits for a caller */
static bool waiting = false;
static uint64 wait_id;

/* The room for rows */
static Size
capacity(void)
{
	return SERVER_ROWS_SIZE + (Size) Max(2 * max_replication_slots, 64) * SLOT_ROW_SIZE;
}

/* The size of the shared memory */
Size
replsync_check_size(void)
{
	return add_size(offsetof(CheckShared, rows), capacity());
}

/* Create or attach to the shared memory */
void
replsync_check_init(void)
{
	bool found;

	check = ShmemInitStruct("replsync check", replsync_check_size(), &found);
	if (!found)
		memset(check, 0, offsetof(CheckShared, rows));
}

/* A new worker begins anew what the one before it has left; called with the lock held */
void
replsync_check_attach(void)
{
	check->begun = check->done;
}

/* Does anybody want a check? */
bool
replsync_check_requested(void)
{
	bool wanted;

	LWLockAcquire(replsync_shared->lock, LW_SHARED);
	wanted = check->requested > check->begun;
	LWLockRelease(replsync_shared->lock);
	return wanted;
}

/* The core waits for a caller */
void
replsync_check_wait(uint64 id)
{
	waiting = true;
	wait_id = id;
}

/* Let the core begin a check if somebody wants one */
void
replsync_check_attend(void)
{
	if (!waiting || !replsync_check_requested())
		return;
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	check->begun = check->requested;
	LWLockRelease(replsync_shared->lock);
	waiting = false;
	replsync_core_answer(wait_id, NULL, NULL, 0);
}

/* The length of a row's texts, or 0 if it is not whole */
static Size
row_length(const char *row, const char *end)
{
	const char *at = row;

	for (int i = 0; i < ROW_TEXTS; i++)
	{
		if (at >= end)
			return 0;
		at += strnlen(at, end - at) + 1;
	}
	return at - row;
}

/* Show rows to the callers of the check that has begun */
static void
publish_rows(const char *rows, Size length)
{
	const char *end = rows + length;
	Size row;

	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	check->length = 0;
	check->dropped = 0;
	for (const char *at = rows; (row = row_length(at, end)) != 0; at += row)
	{
		if (check->dropped > 0 || check->length + row > capacity())
		{
			check->dropped++;
			continue;
		}
		memcpy(check->rows + check->length, at, row);
		check->length += row;
	}
	check->done = check->begun;
	LWLockRelease(replsync_shared->lock);
	ConditionVariableBroadcast(&replsync_shared->done);
}

/* Show the rows that the core has assembled */
void
replsync_check_publish(const CoreRequest *request)
{
	publish_rows(request->data, request->len);
}

/* Append a row in the form that the core uses */
static void
append_row(StringInfo out, const char *ok, const char *name, const char *detail, const char *hint)
{
	const char *const texts[ROW_TEXTS] = {ok, name, "", detail, hint};

	for (int i = 0; i < ROW_TEXTS; i++)
		appendBinaryStringInfo(out, texts[i], strlen(texts[i]) + 1);
}

/* Show why there is no core to check anything */
void
replsync_check_refuse(const CoreOutcome *outcome)
{
	StringInfoData row;

	if (!replsync_check_requested())
		return;
	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	check->begun = check->requested;
	LWLockRelease(replsync_shared->lock);
	initStringInfo(&row);
	append_row(&row, "f", "worker", outcome->message, outcome->hint);
	publish_rows(row.data, row.len);
	pfree(row.data);
}

/* Ask the worker for a check; returns what to wait for */
static uint64
request_check(void)
{
	uint64 ticket;

	LWLockAcquire(replsync_shared->lock, LW_EXCLUSIVE);
	if (check->requested == check->begun)
		check->requested++;
	ticket = check->requested;
	replsync_worker_wake(&replsync_shared->worker);
	LWLockRelease(replsync_shared->lock);
	return ticket;
}

/* Copy the rows if the check is over */
static bool
take_rows(uint64 ticket, StringInfo out, int *dropped)
{
	bool over;

	enlargeStringInfo(out, capacity());
	LWLockAcquire(replsync_shared->lock, LW_SHARED);
	over = check->done >= ticket;
	if (over)
	{
		appendBinaryStringInfo(out, check->rows, check->length);
		*dropped = check->dropped;
	}
	LWLockRelease(replsync_shared->lock);
	return over;
}

/* What stands for a check that nobody answers */
static void
append_unanswered(StringInfo out)
{
	bool running;

	LWLockAcquire(replsync_shared->lock, LW_SHARED);
	running = replsync_shared->worker.pid != 0;
	LWLockRelease(replsync_shared->lock);
	if (running)
		append_row(out, "f", "worker", "The slot worker does not answer.",
				   "See replsync.worker_status and the server log.");
	else
		append_row(out, "f", "worker", "No slot worker of replsync is running.",
				   "See the server log; max_worker_processes may be too low.");
}

/* Have the worker make a check, or say why there is none */
static void
run_check(StringInfo out)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   (int64) replsync_connect_timeout + CHECK_WAIT_MS);
	uint64 ticket = request_check();
	int dropped = 0;

	ConditionVariablePrepareToSleep(&replsync_shared->done);
	while (!take_rows(ticket, out, &dropped))
	{
		long remaining = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (remaining <= 0)
		{
			append_unanswered(out);
			break;
		}
		if (!RecoveryInProgress())
			break;
		(void) ConditionVariableTimedSleep(&replsync_shared->done, Min(remaining, PROMOTION_LOOK_MS),
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	if (dropped > 0)
		append_row(out, "f", "rows", psprintf("%d more rows do not fit into shared memory.", dropped),
				   "Raise max_replication_slots, which the room for rows depends on.");
}

/* failover_check(): what must hold before this standby is promoted */
Datum
replsync_failover_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StringInfoData rows;
	const char *end;
	Size row;

	replsync_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	initStringInfo(&rows);
	if (RecoveryInProgress())
		run_check(&rows);
	if (!RecoveryInProgress())
	{
		resetStringInfo(&rows);
		append_row(&rows, "", "standby", "This server is not a standby.", "Run the check on the standby that is to be promoted.");
	}
	end = rows.data + rows.len;
	for (const char *at = rows.data; (row = row_length(at, end)) != 0; at += row)
	{
		const char *texts[ROW_TEXTS];
		const char *text = at;
		Datum values[5];
		bool nulls[5] = {0};

		for (int i = 0; i < ROW_TEXTS; i++)
		{
			texts[i] = text;
			text += strlen(text) + 1;
		}
		replsync_set_text(values, nulls, 0, texts[1]);
		replsync_set_text(values, nulls, 1, texts[2]);
		nulls[2] = texts[0][0] == '\0';
		values[2] = BoolGetDatum(texts[0][0] == 't');
		replsync_set_text(values, nulls, 3, texts[3]);
		replsync_set_text(values, nulls, 4, texts[4]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
