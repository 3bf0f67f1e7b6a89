/*
 * What the launcher, the sequence workers and client backends share.
 */
#ifndef REPLSYNC_SEQUENCE_SHMEM_H
#define REPLSYNC_SEQUENCE_SHMEM_H

#include "core_api.h"
#include "lib/dshash.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"

#include "worker_state.h"

/* Calls of SQL functions that can wait at the same time, of all databases. */
#define MAX_SEQUENCE_REQUESTS 64

/* A call of a SQL function: its text and the queue for the answer are in dynamic shared memory. */
typedef struct SequenceRequest
{
	uint64 id; /* 0: free */
	Oid database;
	bool taken;
	dsm_handle segment;
} SequenceRequest;

/* A database that has, had or wants a worker. */
typedef struct SequenceDatabase
{
	Oid database; /* InvalidOid: free */

	/* what is to happen */
	bool wanted;			/* somebody needs a worker now */
	bool leave;				/* the worker is to end at once */
	bool poked;				/* the worker is to begin a cycle at once */
	int held;				/* commands that need the database for themselves: no worker may start */
	bool no_slot;			/* the launcher found no free slot for a worker */
	bool starting;			/* registered, not here yet */
	int failures;			/* in a row */
	TimestampTz next_start; /* not before, after a failure; or to look again, after none was needed */

	WorkerState worker;

	/* what workers keep in memory for sequence_status; it stays with this place, whichever database has it */
	dsa_handle area;
	dshash_table_handle table;
} SequenceDatabase;

typedef struct SequencesShared
{
	LWLock *lock;			   /* protects all below */
	ConditionVariable changed; /* a worker has come or gone, or cannot come */
	pid_t launcher_pid;
	Latch *launcher_latch;
	uint64 last_id; /* of a request */
	int live_tranche;
	SequenceRequest requests[MAX_SEQUENCE_REQUESTS];
	int ndatabases;
	SequenceDatabase databases[FLEXIBLE_ARRAY_MEMBER];
} SequencesShared;

/* NULL where the library was not preloaded. */
extern SequencesShared *replsync_sequences;

extern Size replsync_sequences_shmem_size(void);
extern void replsync_sequences_shmem_startup(LWLock *lock);
extern SequenceDatabase *replsync_find_database(Oid database);
extern SequenceDatabase *replsync_enter_database(Oid database);
extern void replsync_wake_launcher(void);
extern bool replsync_request_waiting(Oid database);

#endif
