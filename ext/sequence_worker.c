/*
 * The life of a sequence worker: one for a database, started by the launcher, with an entry in shared
 * memory through which it is seen, woken and sent away.
 */
#include "replsync.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "sequence.h"
#include "sequence_list.h"

static SequenceDatabase *entry = NULL;
static bool nothing_to_do = false;

/* Tell waiting backends and the launcher that this worker is gone */
static void
detach_worker(int code, Datum arg)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	replsync_worker_leave(&entry->worker);
	entry->leave = false;
	if (entry->poked)
		entry->next_start = 0;
	else if (nothing_to_do)
		replsync_worker_idle(entry);
	else if (code != 0)
		replsync_worker_failed(entry);
	replsync_wake_launcher();
	LWLockRelease(replsync_sequences->lock);
	ConditionVariableBroadcast(&replsync_sequences->changed);
}

/* Make this process the worker of its database; false where it is not wanted */
static bool
attach_worker(Oid database)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	entry = replsync_enter_database(database);
	if (entry != NULL)
		entry->starting = false;
	if (entry == NULL || entry->worker.pid != 0 || entry->held > 0)
	{
		LWLockRelease(replsync_sequences->lock);
		ConditionVariableBroadcast(&replsync_sequences->changed);
		return false;
	}
	replsync_worker_enter(&entry->worker);
	entry->wanted = entry->leave = entry->no_slot = entry->poked = false;
	LWLockRelease(replsync_sequences->lock);
	before_shmem_exit(detach_worker, (Datum) 0);
	ConditionVariableBroadcast(&replsync_sequences->changed);
	return true;
}

/* What roles and databases are configured to must not disturb the worker */
static void
override_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", ""},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "1s"},
		{"idle_in_transaction_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
		{"transaction_timeout", "0"},
#endif
		/* A standby that does not answer must not hold it up: nobody leaves the database meanwhile. */
		{"synchronous_commit", "local"},
		{"jit", "off"},
		{"cursor_tuple_fraction", "1"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* Is the extension here, with tables for sequences? */
bool
replsync_sequence_has_tables(void)
{
	Oid schema = get_namespace_oid("replsync", true);

	return OidIsValid(schema) && OidIsValid(get_extension_oid("replsync", true)) &&
		   OidIsValid(get_relname_relid("sequence_selection", schema));
}

/* Is the extension here, with rules about sequences? */
static bool
database_has_rules(void)
{
	MemoryContext context = CurrentMemoryContext;
	bool found = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (replsync_sequence_has_tables())
	{
		SPI_connect();
		found = SPI_execute("SELECT FROM replsync.sequence_selection LIMIT 1", true, 1) == SPI_OK_SELECT &&
				SPI_processed > 0;
		SPI_finish();
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return found;
}

/* Is there something to do here, or somebody who asks? */
bool
replsync_sequence_worker_wanted(void)
{
	return replsync_request_waiting(MyDatabaseId) ||
		   (!RecoveryInProgress() && replsync_sync_sequences && database_has_rules());
}

/* End, as there is nothing to do */
void
replsync_sequence_worker_stop(void)
{
	nothing_to_do = true;
	proc_exit(0);
}

/* Begin to be the worker of a database. It ends at once, and quietly, where there is nothing to do */
void
replsync_sequence_worker_begin(Oid database)
{
	if (!attach_worker(database))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	override_settings();
	if (!replsync_sequence_worker_wanted())
		replsync_sequence_worker_stop();
}

/* End if somebody needs the database for himself */
void
replsync_sequence_worker_check(void)
{
	if (entry == NULL || !entry->leave)
		return;
	proc_exit(0);
}

/* Show what the worker does, and when the next cycle is due */
void
replsync_sequence_show_state(CoreWorkerState state, TimestampTz next_cycle_at)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	replsync_worker_show(&entry->worker, state, next_cycle_at);
	LWLockRelease(replsync_sequences->lock);
}

/* Is a cycle to begin at once? Taking that up ends it */
bool
replsync_sequence_poked(void)
{
	bool poked;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	poked = entry->poked;
	entry->poked = false;
	LWLockRelease(replsync_sequences->lock);
	return poked;
}

/* Show how far a cycle has come, of the sequences that are listed: the core hears of them little by little */
void
replsync_sequence_publish_progress(const CoreProgress *progress)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	entry->worker.progress = *progress;
	entry->worker.progress.total = Max(progress->total, replsync_list.count);
	LWLockRelease(replsync_sequences->lock);
}

/* Show the end of a cycle */
void
replsync_sequence_cycle_done(const CoreSequenceCycle *cycle)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	replsync_worker_cycle_done(&entry->worker, cycle->duration_us, &cycle->outcome);
	if (cycle->outcome.sqlstate[0] == '\0')
		entry->failures = 0;
	LWLockRelease(replsync_sequences->lock);
}

/* Show an error that keeps the worker from its work */
void
replsync_sequence_show_error(const CoreOutcome *outcome)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	replsync_worker_show_error(&entry->worker, outcome);
	LWLockRelease(replsync_sequences->lock);
}
