/*
 * Requests to a sequence worker, on the caller's side: find the worker of this database, or have one
 * started, post the request and read its answer. All waits can be interrupted.
 */
#include "replsync.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "utils/memutils.h"

#include "sequence.h"
#include "sequence_request.h"
#include "status.h"

/* How long a caller waits for a worker to start, in milliseconds. */
#define WORKER_WAIT_MS 15000

/* How often a waiting caller looks whether the worker still runs, in milliseconds. */
#define POLL_MS 500

static bool notify_at_commit = false;
static bool callback_registered = false;

/* Error out: no worker can run */
static void
no_worker(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no background worker is free for the sequence worker"),
			 errhint("Raise max_worker_processes (now %d), which needs a restart.", max_worker_processes)));
}

/* Have a worker for this database; returns whether it runs */
static bool
ask_for_worker(bool first)
{
	SequenceDatabase *entry;
	bool running;
	bool hopeless;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	entry = replsync_enter_database(MyDatabaseId);
	if (entry == NULL)
	{
		LWLockRelease(replsync_sequences->lock);
		no_worker();
	}
	running = entry->worker.pid != 0 && !entry->leave;
	hopeless = !first && entry->no_slot;
	if (running)
		replsync_worker_wake(&entry->worker);
	else if (!hopeless)
	{
		entry->wanted = true;
		entry->no_slot = false;
		replsync_wake_launcher();
	}
	LWLockRelease(replsync_sequences->lock);
	if (hopeless)
		no_worker();
	return running;
}

/* Error out where a worker that ended has left a reason */
static void
raise_worker_error(void)
{
	CoreOutcome outcome = {0};
	SequenceDatabase *entry;

	LWLockAcquire(replsync_sequences->lock, LW_SHARED);
	entry = replsync_find_database(MyDatabaseId);
	if (entry != NULL)
		outcome = entry->worker.last_error;
	LWLockRelease(replsync_sequences->lock);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no sequence worker of replsync is running for this database"),
			 outcome.message[0] ? errdetail("The last one ended: %s", replsync_to_server(outcome.message)) : 0,
			 errhint("See the server log; max_worker_processes may be too low.")));
}

/* Put the request into the table; 0 if it is full */
static uint64
post(dsm_handle segment)
{
	uint64 id = 0;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS && id == 0; i++)
	{
		SequenceRequest *request = &replsync_sequences->requests[i];

		if (request->id != 0)
			continue;
		request->id = id = ++replsync_sequences->last_id;
		request->database = MyDatabaseId;
		request->taken = false;
		request->segment = segment;
	}
	LWLockRelease(replsync_sequences->lock);
	return id;
}

/* Find the request in the table; called with the lock held */
static SequenceRequest *
find_request(uint64 id)
{
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS; i++)
	{
		if (replsync_sequences->requests[i].id == id)
			return &replsync_sequences->requests[i];
	}
	return NULL;
}

/* Take the request out of the table, also when the caller gives up */
static void
withdraw(int code, Datum arg)
{
	SequenceRequest *request;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	request = find_request((uint64) DatumGetInt64(arg));
	if (request != NULL)
		request->id = 0;
	LWLockRelease(replsync_sequences->lock);
}

/* Was the request taken by a worker? */
static bool
is_taken(uint64 id)
{
	bool taken;

	LWLockAcquire(replsync_sequences->lock, LW_SHARED);
	taken = find_request(id)->taken;
	LWLockRelease(replsync_sequences->lock);
	return taken;
}

/* Wait until a worker has taken the request */
static void
await_worker(uint64 id)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WORKER_WAIT_MS);
	bool running = ask_for_worker(true);

	ConditionVariablePrepareToSleep(&replsync_sequences->changed);
	while (!is_taken(id))
	{
		/* A worker that runs takes it when its cycle is over; that has no other bound than the cycle's. */
		if (!running && GetCurrentTimestamp() >= deadline)
			raise_worker_error();
		(void) ConditionVariableTimedSleep(&replsync_sequences->changed, POLL_MS, PG_WAIT_EXTENSION);
		running = ask_for_worker(false);
		if (running)
			deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WORKER_WAIT_MS);
	}
	ConditionVariableCancelSleep();
}

/* Raise the error that an answer carries, if it does; else give its rows to the reader. True: it was the last */
static bool
read_answer(WireReader *in, SequenceRowReader reader, void *arg)
{
	bool last;
	char *sqlstate;
	char *message;
	char *detail;
	char *hint;
	int32 nrows;

	(void) wire_get_int64(in);
	last = wire_get_bool(in);
	sqlstate = wire_get_text(in);
	message = wire_get_text(in);
	detail = wire_get_text(in);
	hint = wire_get_text(in);
	if (strlen(sqlstate) == 5)
		ereport(ERROR,
				(errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4])),
				 errmsg("%s", message),
				 detail[0] ? errdetail("%s", detail) : 0,
				 hint[0] ? errhint("%s", hint) : 0));
	nrows = wire_get_int32(in);
	for (int32 i = 0; i < nrows; i++)
		reader(in, arg);
	return last;
}

/* Is there a worker of this database? */
static bool
worker_runs(void)
{
	SequenceDatabase *entry;
	bool runs;

	LWLockAcquire(replsync_sequences->lock, LW_SHARED);
	entry = replsync_find_database(MyDatabaseId);
	runs = entry != NULL && entry->worker.pid != 0;
	LWLockRelease(replsync_sequences->lock);
	return runs;
}

/* Error out: the worker that had taken the request is gone */
static void
worker_gone(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sequence worker of replsync has ended"),
			 errdetail("Another one is started when it is needed."),
			 errhint("Try again; see the server log for the reason.")));
}

/* Read the whole answer */
static void
read_answers(shm_mq_handle *queue, SequenceRowReader reader, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "replsync answer", ALLOCSET_DEFAULT_SIZES);
	bool last = false;

	while (!last)
	{
		Size len;
		void *data;
		shm_mq_result result = shm_mq_receive(queue, &len, &data, true);

		if (result == SHM_MQ_DETACHED)
			worker_gone();
		if (result == SHM_MQ_SUCCESS)
		{
			WireReader in = {data, (char *) data + len};
			MemoryContext old = MemoryContextSwitchTo(context);

			last = read_answer(&in, reader, arg);
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
			continue;
		}
		/* The queue tells of a worker that ends, but not of one that has taken the request and no more. */
		if (!worker_runs())
			worker_gone();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WORKER_WAIT_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextDelete(context);
}

/* Wait for the answer to a request that was posted */
static void
await_answer(uint64 id, shm_mq_handle *queue, SequenceRowReader reader, void *arg)
{
	PG_ENSURE_ERROR_CLEANUP(withdraw, Int64GetDatum((int64) id));
	{
		await_worker(id);
		read_answers(queue, reader, arg);
	}
	PG_END_ENSURE_ERROR_CLEANUP(withdraw, Int64GetDatum((int64) id));
	withdraw(0, Int64GetDatum((int64) id));
}

/* Make a request of the worker of this database and read its answer; raises the error that ends it */
void
replsync_sequence_request(const StringInfoData *text, SequenceRowReader reader, void *arg)
{
	dsm_segment *segment = dsm_create(SEQUENCE_SEGMENT_SIZE(text->len), 0);
	SequenceSegment *shared = dsm_segment_address(segment);
	shm_mq *queue = shm_mq_create(SEQUENCE_SEGMENT_QUEUE(shared), SEQUENCE_QUEUE_SIZE);
	shm_mq_handle *handle;
	uint64 id;

	shared->len = text->len;
	memcpy(SEQUENCE_SEGMENT_TEXT(shared), text->data, text->len);
	shm_mq_set_receiver(queue, MyProc);
	handle = shm_mq_attach(queue, segment, NULL);

	id = post(dsm_segment_handle(segment));
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many requests to sequence workers"),
				 errdetail("At most %d can wait at the same time.", MAX_SEQUENCE_REQUESTS),
				 errhint("Try again.")));
	await_answer(id, handle, reader, arg);
	dsm_detach(segment);
}

/* Let the worker, or the launcher, know of what this transaction has changed */
static void
notify(void)
{
	SequenceDatabase *entry;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	entry = replsync_enter_database(MyDatabaseId);
	if (entry != NULL)
	{
		entry->poked = true;
		if (entry->worker.pid != 0)
			replsync_worker_wake(&entry->worker);
		else
		{
			entry->next_start = 0;
			replsync_wake_launcher();
		}
	}
	LWLockRelease(replsync_sequences->lock);
}

/* At the end of a transaction */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (!notify_at_commit)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			notify();
			notify_at_commit = false;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			notify_at_commit = false;
			break;
		default:
			break;
	}
}

/* Have the worker begin a cycle once this transaction is committed */
void
replsync_sequence_notify_at_commit(void)
{
	if (!callback_registered)
		RegisterXactCallback(at_transaction_end, NULL);
	callback_registered = true;
	notify_at_commit = true;
}
