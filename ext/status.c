/*
 * The SQL functions behind the views: what the slot worker has published.
 */
#include "replsync.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "replication/slot.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "sequence.h"
#include "shmem.h"
#include "slot.h"
#include "status.h"

PG_FUNCTION_INFO_V1(replsync_slot_status);
PG_FUNCTION_INFO_V1(replsync_worker_status);
PG_FUNCTION_INFO_V1(replsync_progress);

/* Copy the rows of slot_status, so that no lock is held while they are formed */
static SlotStatusRow *
copy_rows(int *nrows)
{
	SlotStatusRow *rows = palloc(sizeof(SlotStatusRow) * replsync_shared->maxrows);

	LWLockAcquire(replsync_shared->lock, LW_SHARED);
	*nrows = replsync_shared->nrows;
	memcpy(rows, replsync_shared->rows, sizeof(SlotStatusRow) * *nrows);
	LWLockRelease(replsync_shared->lock);
	return rows;
}

/*
 * Make a text of the worker's one of this database. It is UTF-8; in a database of another encoding
 * what is not ASCII is shown as "?", so that looking at the state never fails.
 */
const char *
replsync_to_server(const char *text)
{
	char *copy;

	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return text;
	copy = pstrdup(text);
	for (char *at = copy; *at; at++)
	{
		if (IS_HIGHBIT_SET(*at))
			*at = '?';
	}
	return copy;
}

/* Form a text value, NULL where it is empty */
void
replsync_set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text[0] == '\0';
	if (!nulls[column])
		values[column] = CStringGetTextDatum(replsync_to_server(text));
}

/* Form a name value, NULL where it is empty */
void
replsync_set_name(Datum *values, bool *nulls, int column, const char *name)
{
	nulls[column] = name[0] == '\0';
	if (!nulls[column])
		values[column] = DirectFunctionCall1(namein, CStringGetDatum(replsync_to_server(name)));
}

/* Form an LSN value, NULL where it is invalid */
static void
set_lsn(Datum *values, bool *nulls, int column, XLogRecPtr lsn)
{
	nulls[column] = XLogRecPtrIsInvalid(lsn);
	values[column] = LSNGetDatum(lsn);
}

/* Form a timestamp value, NULL where it is zero */
static void
set_timestamp(Datum *values, bool *nulls, int column, TimestampTz at)
{
	nulls[column] = at == 0;
	values[column] = TimestampTzGetDatum(at);
}

/* The core's timestamps count from 1970, PostgreSQL's from 2000 */
static TimestampTz
from_unix_micros(int64 micros)
{
	return micros == 0 ? 0 : micros - ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * USECS_PER_SEC);
}

/* A ready row is one of the last pass: show what has become of the copy since */
static void
look_again(SlotStatus *status)
{
	ReplicationSlot *slot;
	ReplicationSlot copy;

	if (strcmp(status->state, "ready") != 0)
		return;
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(status->name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		copy = *slot;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);

	if (slot == NULL)
	{
		strlcpy(status->state, "waiting", sizeof(status->state));
		strlcpy(status->reason, "dropped_by_other", sizeof(status->reason));
		strlcpy(status->hint, "Find out who dropped the copy; the next cycle makes it again.",
				sizeof(status->hint));
	}
	else if (replsync_slot_invalidation(&copy) != NULL)
	{
		strlcpy(status->state, "invalidated", sizeof(status->state));
		strlcpy(status->reason, "slot_invalidated", sizeof(status->reason));
		snprintf(status->hint, sizeof(status->hint),
				 "The copy was invalidated here (%s); the next cycle makes it again.",
				 replsync_slot_invalidation(&copy));
	}
}

/* The view slot_status */
Datum
replsync_slot_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SlotStatusRow *rows;
	int nrows;

	replsync_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	if (!RecoveryInProgress())
		return (Datum) 0;
	rows = copy_rows(&nrows);
	for (int i = 0; i < nrows; i++)
	{
		SlotStatus *status = &rows[i].status;
		Datum values[15];
		bool nulls[15] = {0};

		if (status->state[0] == '\0')
			continue; /* only sync_slots() shows what is gone */
		look_again(status);
		replsync_set_name(values, nulls, 0, status->name);
		replsync_set_name(values, nulls, 1, status->database);
		replsync_set_name(values, nulls, 2, status->plugin);
		replsync_set_text(values, nulls, 3, status->state);
		replsync_set_text(values, nulls, 4, status->reason);
		replsync_set_text(values, nulls, 5, status->hint);
		set_lsn(values, nulls, 6, status->remote_restart_lsn);
		set_lsn(values, nulls, 7, status->remote_confirmed_flush_lsn);
		set_lsn(values, nulls, 8, status->restart_lsn);
		set_lsn(values, nulls, 9, status->confirmed_flush_lsn);
		nulls[10] = nulls[7] || nulls[9];
		values[10] = Int64GetDatum((int64) (status->remote_confirmed_flush_lsn - status->confirmed_flush_lsn));
		set_timestamp(values, nulls, 11, from_unix_micros(status->last_sync_at));
		replsync_set_text(values, nulls, 12, rows[i].last_error);
		set_timestamp(values, nulls, 13, rows[i].last_error_at);
		values[14] = Int64GetDatum(rows[i].error_count);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* What worker_status calls the states */
static const char *
state_text(int state)
{
	switch ((CoreWorkerState) state)
	{
		case CORE_STATE_STARTING:
			return "starting";
		case CORE_STATE_NOT_STANDBY:
			return "not a standby";
		case CORE_STATE_OFF:
			return "off";
		case CORE_STATE_NAPPING:
			return "napping";
		case CORE_STATE_RUNNING:
			return "running";
		case CORE_STATE_BLOCKED:
			return "blocked";
	}
	return "unknown";
}

/* Copy the state of the slot worker, so that no lock is held while it is shown; false if none runs */
static bool
copy_slot_worker(WorkerState *copy)
{
	LWLockAcquire(replsync_shared->lock, LW_SHARED);
	*copy = replsync_shared->worker;
	LWLockRelease(replsync_shared->lock);
	return copy->pid != 0;
}

/* Copy that of a sequence worker; false if none runs there */
static bool
copy_sequence_worker(int i, WorkerState *copy, Oid *database)
{
	LWLockAcquire(replsync_sequences->lock, LW_SHARED);
	*copy = replsync_sequences->databases[i].worker;
	*database = replsync_sequences->databases[i].database;
	LWLockRelease(replsync_sequences->lock);
	return OidIsValid(*database) && copy->pid != 0;
}

/* Form the name of a database, NULL if it is gone */
static void
set_database(Datum *values, bool *nulls, int column, Oid database)
{
	char *name = get_database_name(database);

	nulls[column] = name == NULL;
	if (name != NULL)
		values[column] = DirectFunctionCall1(namein, CStringGetDatum(name));
}

/* Store the row of a worker */
static void
put_worker(ReturnSetInfo *rsinfo, const char *kind, const WorkerState *worker, Oid database)
{
	Datum values[11];
	bool nulls[11] = {0};

	values[0] = CStringGetTextDatum(kind);
	values[1] = Int32GetDatum(worker->pid);
	set_database(values, nulls, 2, database);
	values[3] = CStringGetTextDatum(state_text(worker->state));
	set_timestamp(values, nulls, 4, worker->started_at);
	values[5] = Int64GetDatum(worker->cycles);
	set_timestamp(values, nulls, 6, worker->last_cycle_at);
	nulls[7] = worker->last_cycle_at == 0;
	values[7] = Float8GetDatum(worker->last_cycle_us / 1000.0);
	set_timestamp(values, nulls, 8, worker->next_cycle_at);
	replsync_set_text(values, nulls, 9, worker->last_error.message);
	set_timestamp(values, nulls, 10, worker->last_error_at);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Store a row of progress, if something is under way */
static void
put_progress(ReturnSetInfo *rsinfo, const char *kind, const WorkerState *worker, Oid database)
{
	Datum values[6];
	bool nulls[6] = {0};

	if (worker->progress.phase[0] == '\0')
		return;
	values[0] = Int32GetDatum(worker->pid);
	values[1] = CStringGetTextDatum(kind);
	set_database(values, nulls, 2, database);
	values[3] = CStringGetTextDatum(worker->progress.phase);
	values[4] = Int64GetDatum(worker->progress.done);
	values[5] = Int64GetDatum(worker->progress.total);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Store a row for each worker that runs */
static Datum
put_workers(FunctionCallInfo fcinfo, void (*put)(ReturnSetInfo *, const char *, const WorkerState *, Oid))
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	WorkerState worker;
	Oid database;

	replsync_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	if (copy_slot_worker(&worker))
		put(rsinfo, KIND_SLOTS, &worker, InvalidOid);
	for (int i = 0; i < replsync_sequences->ndatabases; i++)
	{
		if (copy_sequence_worker(i, &worker, &database))
			put(rsinfo, KIND_SEQUENCES, &worker, database);
	}
	return (Datum) 0;
}

/* The view worker_status */
Datum
replsync_worker_status(PG_FUNCTION_ARGS)
{
	return put_workers(fcinfo, put_worker);
}

/* The view progress */
Datum
replsync_progress(PG_FUNCTION_ARGS)
{
	return put_workers(fcinfo, put_progress);
}
