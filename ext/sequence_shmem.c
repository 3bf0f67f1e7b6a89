/*
 * The shared memory of the launcher, the sequence workers and client backends.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "storage/shmem.h"

#include "sequence_shmem.h"

SequencesShared *replsync_sequences = NULL;

/* There are never more workers than this; the rest is for databases that wait for one. */
static int
max_databases(void)
{
	return 2 * max_worker_processes + 16;
}

/* The size of the shared memory */
Size
replsync_sequences_shmem_size(void)
{
	return add_size(offsetof(SequencesShared, databases),
					mul_size(max_databases(), sizeof(SequenceDatabase)));
}

/* Create or attach to the shared memory; AddinShmemInitLock is held */
void
replsync_sequences_shmem_startup(LWLock *lock)
{
	bool found;

	replsync_sequences = ShmemInitStruct("replsync sequences", replsync_sequences_shmem_size(), &found);
	if (found)
		return;
	memset(replsync_sequences, 0, replsync_sequences_shmem_size());
	replsync_sequences->lock = lock;
	ConditionVariableInit(&replsync_sequences->changed);
	replsync_sequences->ndatabases = max_databases();
#if PG_VERSION_NUM >= 190000
	replsync_sequences->live_tranche = LWLockNewTrancheId("replsync_sequences");
#else
	replsync_sequences->live_tranche = LWLockNewTrancheId();
#endif
}

/* Find the entry of a database, NULL if there is none; called with the lock held */
SequenceDatabase *
replsync_find_database(Oid database)
{
	for (int i = 0; i < replsync_sequences->ndatabases; i++)
	{
		if (replsync_sequences->databases[i].database == database)
			return &replsync_sequences->databases[i];
	}
	return NULL;
}

/* Find or make the entry of a database, NULL if none is free; called with the lock held exclusively */
SequenceDatabase *
replsync_enter_database(Oid database)
{
	SequenceDatabase *entry = replsync_find_database(database);

	if (entry != NULL)
		return entry;
	entry = replsync_find_database(InvalidOid);
	if (entry != NULL)
	{
		SequenceDatabase empty = {.database = database, .area = entry->area, .table = entry->table};

		*entry = empty;
	}
	return entry;
}

/* Let the launcher look what is wanted; called with the lock held */
void
replsync_wake_launcher(void)
{
	if (replsync_sequences->launcher_latch)
		SetLatch(replsync_sequences->launcher_latch);
}

/* Does a request for this database wait for a worker to take it? */
bool
replsync_request_waiting(Oid database)
{
	bool waiting = false;

	LWLockAcquire(replsync_sequences->lock, LW_SHARED);
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS && !waiting; i++)
	{
		SequenceRequest *request = &replsync_sequences->requests[i];

		waiting = request->id != 0 && request->database == database && !request->taken;
	}
	LWLockRelease(replsync_sequences->lock);
	return waiting;
}
