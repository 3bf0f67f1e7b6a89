/*
 * The launcher: it finds the databases that have subscriptions and starts a sequence worker in each where
 * there may be work. It is connected to no database, reads shared catalogs alone and never loads the core.
 */
#include "replsync.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_subscription.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "sequence.h"
#include "sequence_shmem.h"

/* How often subscriptions are looked for; those who add sequences ask at once. */
#define RESCAN_MS 10000

/* Pauses after a worker that failed: from the first to the last, doubling. */
#define FIRST_PAUSE_MS 5000
#define LAST_PAUSE_MS  60000

/* How long a database in which there was nothing to do is left alone; a restore tells nobody of its rules. */
#define IDLE_MS 60000

PGDLLEXPORT void replsync_launcher_main(Datum arg);

/* Beside the entries in shared memory, index by index. */
static BackgroundWorkerHandle **handles;

/* Let the postmaster start the launcher once this server is not a standby */
void
replsync_register_launcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "replsync sequence launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "replsync sequence launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "replsync", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "replsync_launcher_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	RegisterBackgroundWorker(&worker);
}

/* Forget the launcher when it ends */
static void
detach_launcher(int code, Datum arg)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	replsync_sequences->launcher_pid = 0;
	replsync_sequences->launcher_latch = NULL;
	for (int i = 0; i < replsync_sequences->ndatabases; i++)
		replsync_sequences->databases[i].starting = false;
	LWLockRelease(replsync_sequences->lock);
	ConditionVariableBroadcast(&replsync_sequences->changed);
}

/* Make this process the launcher */
static void
attach_launcher(void)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	replsync_sequences->launcher_pid = MyProcPid;
	replsync_sequences->launcher_latch = MyLatch;
	LWLockRelease(replsync_sequences->lock);
	before_shmem_exit(detach_launcher, (Datum) 0);
	handles = MemoryContextAllocZero(TopMemoryContext,
									 sizeof(*handles) * replsync_sequences->ndatabases);
}

/* List the databases of a shared catalog's rows */
static List *
scan_catalog(Oid catalog, MemoryContext context, Oid (*database_of)(HeapTuple tuple))
{
	List *databases = NIL;
	Relation rel = table_open(catalog, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Oid database = database_of(tuple);

		if (OidIsValid(database))
			databases = list_append_unique_oid(databases, database);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return databases;
}

/* The database that a subscription is in */
static Oid
subscribed_database(HeapTuple tuple)
{
	return ((Form_pg_subscription) GETSTRUCT(tuple))->subdbid;
}

/* The database, if it can be connected to */
static Oid
usable_database(HeapTuple tuple)
{
	Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

	/* A limit of -2 marks what a DROP DATABASE that was interrupted has left behind. */
	return form->datallowconn && form->datconnlimit != -2 ? form->oid : InvalidOid;
}

/* Look into the shared catalogs */
static void
look_for_databases(MemoryContext context, List **subscribed, List **usable)
{
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	*subscribed = scan_catalog(SubscriptionRelationId, context, subscribed_database);
	*usable = scan_catalog(DatabaseRelationId, context, usable_database);
	CommitTransactionCommand();
}

/* Make entries for databases with subscriptions, and forget others */
static void
update_entries(List *subscribed, List *usable)
{
	ListCell *cell;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	foreach (cell, subscribed)
	{
		if (list_member_oid(usable, lfirst_oid(cell)))
			(void) replsync_enter_database(lfirst_oid(cell));
	}
	for (int i = 0; i < replsync_sequences->ndatabases; i++)
	{
		SequenceDatabase *entry = &replsync_sequences->databases[i];

		if (OidIsValid(entry->database) && entry->worker.pid == 0 && !entry->starting && entry->held == 0 &&
			(!list_member_oid(usable, entry->database) ||
			 (!list_member_oid(subscribed, entry->database) && !entry->wanted)))
			entry->database = InvalidOid;
	}
	LWLockRelease(replsync_sequences->lock);
}

/* Should a worker be started now? Otherwise sleep is shortened to when one should be; the lock is held */
static bool
worker_is_due(SequenceDatabase *entry, TimestampTz now, long *sleep_ms)
{
	if (!OidIsValid(entry->database) || entry->worker.pid != 0 || entry->starting || entry->held > 0)
		return false;
	if (entry->wanted)
		return true;
	if (!replsync_sync_sequences)
		return false;
	if (now >= entry->next_start)
		return true;
	*sleep_ms = Min(*sleep_ms, TimestampDifferenceMilliseconds(now, entry->next_start));
	return false;
}

/* Register a worker for a database; false where no slot is free */
static bool
start_worker(Oid database, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "replsync sequence worker for database %u", database);
	strlcpy(worker.bgw_type, "replsync sequence worker", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "replsync", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "replsync_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_extra, KIND_SEQUENCES, BGW_EXTRALEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
#if PG_VERSION_NUM >= 190000
	worker.bgw_flags |= BGWORKER_INTERRUPTIBLE;
#endif
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/* Notice workers that ended before they were here; the lock is held */
static void
check_start(int i)
{
	SequenceDatabase *entry = &replsync_sequences->databases[i];
	pid_t pid;

	if (handles[i] == NULL)
		return;
	switch (GetBackgroundWorkerPid(handles[i], &pid))
	{
		case BGWH_STOPPED:
			if (entry->starting)
			{
				entry->starting = false;
				/* Who waits for it asks again. */
				entry->wanted = false;
				replsync_worker_failed(entry);
			}
			break;
		case BGWH_STARTED:
			break;
		default:
			return;
	}
	pfree(handles[i]);
	handles[i] = NULL;
}

/* A worker has failed: the next one comes after a pause; the lock is held */
void
replsync_worker_failed(SequenceDatabase *entry)
{
	int64 pause = FIRST_PAUSE_MS;

	for (int i = 0; i < entry->failures && pause < LAST_PAUSE_MS; i++)
		pause *= 2;
	entry->failures++;
	entry->next_start = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Min(pause, LAST_PAUSE_MS));
}

/* A worker has found nothing to do; the lock is held */
void
replsync_worker_idle(SequenceDatabase *entry)
{
	entry->failures = 0;
	entry->next_start = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), IDLE_MS);
}

/* Let workers that are waiting for their time start now: what a reload has changed may be what they lacked */
static void
start_at_once(void)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	for (int i = 0; i < replsync_sequences->ndatabases; i++)
		replsync_sequences->databases[i].next_start = 0;
	LWLockRelease(replsync_sequences->lock);
}

/* Start what should run; returns how long nothing more will be due, in milliseconds */
static long
launch(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long sleep_ms = RESCAN_MS;
	bool news = false;

	for (int i = 0; i < replsync_sequences->ndatabases; i++)
	{
		SequenceDatabase *entry = &replsync_sequences->databases[i];
		Oid database;
		bool due;

		LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
		check_start(i);
		database = entry->database;
		due = worker_is_due(entry, now, &sleep_ms);
		if (due)
			entry->starting = true;
		LWLockRelease(replsync_sequences->lock);
		if (!due)
			continue;

		if (!start_worker(database, &handles[i]))
		{
			LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
			entry->starting = false;
			entry->wanted = false;
			entry->no_slot = true;
			entry->next_start = TimestampTzPlusMilliseconds(now, FIRST_PAUSE_MS);
			LWLockRelease(replsync_sequences->lock);
			news = true;
		}
	}
	if (news)
		ConditionVariableBroadcast(&replsync_sequences->changed);
	return sleep_ms;
}

/* The launcher's main function */
void
replsync_launcher_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	attach_launcher();
	context = AllocSetContextCreate(TopMemoryContext, "replsync launcher", ALLOCSET_SMALL_SIZES);

	for (;;)
	{
		List *subscribed;
		List *usable;
		long sleep_ms;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			start_at_once();
		}
		MemoryContextSwitchTo(context);
		look_for_databases(context, &subscribed, &usable);
		MemoryContextSwitchTo(TopMemoryContext);
		update_entries(subscribed, usable);
		sleep_ms = launch();
		MemoryContextReset(context);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, sleep_ms,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
