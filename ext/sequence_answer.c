/*
 * Requests of SQL functions, on the worker's side. An answer that the caller is slow to read waits
 * beside the other work, and is given up after a while: nobody holds the worker up.
 */
#include "replsync.h"

#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "utils/memutils.h"

#include "core.h"
#include "sequence.h"
#include "sequence_request.h"

/* How long an answer waits for a caller that does not read, in milliseconds. */
#define SLOW_READER_MS 30000

/* A request that was taken. */
typedef struct TakenRequest
{
	uint64 id; /* 0: free */
	dsm_segment *segment;
	shm_mq_handle *queue;
	/* an answer that is on its way; core_id 0: none */
	uint64 core_id;
	void *data;
	Size len;
	bool last;
	TimestampTz give_up_at;
} TakenRequest;

static TakenRequest taken[MAX_SEQUENCE_REQUESTS];

/* Find the request with that id, 0 for a free place */
static TakenRequest *
find_taken(uint64 id)
{
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS; i++)
	{
		if (taken[i].id == id)
			return &taken[i];
	}
	return NULL;
}

/* Take the oldest request of this database; its segment, or 0 */
static uint64
next_request(dsm_handle *segment)
{
	SequenceRequest *oldest = NULL;
	uint64 id = 0;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS; i++)
	{
		SequenceRequest *request = &replsync_sequences->requests[i];

		if (request->id != 0 && request->database == MyDatabaseId && !request->taken &&
			(oldest == NULL || request->id < oldest->id))
			oldest = request;
	}
	if (oldest != NULL)
	{
		oldest->taken = true;
		*segment = oldest->segment;
		id = oldest->id;
	}
	LWLockRelease(replsync_sequences->lock);
	/* Its caller reads rows from now on. */
	if (id != 0)
		ConditionVariableBroadcast(&replsync_sequences->changed);
	return id;
}

/* Let a request that was taken wait again */
static void
put_back(uint64 id)
{
	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS; i++)
	{
		if (replsync_sequences->requests[i].id == id)
			replsync_sequences->requests[i].taken = false;
	}
	LWLockRelease(replsync_sequences->lock);
}

/* Attach to the queue of a request, and append its text; false if the caller is gone */
static bool
take(uint64 id, dsm_handle handle, StringInfo out)
{
	TakenRequest *request = find_taken(0);
	dsm_segment *segment = request ? dsm_attach(handle) : NULL;
	SequenceSegment *shared;
	MemoryContext old;

	if (segment == NULL)
		return false;
	shared = dsm_segment_address(segment);
	dsm_pin_mapping(segment);
	old = MemoryContextSwitchTo(TopMemoryContext);
	shm_mq_set_sender(SEQUENCE_SEGMENT_QUEUE(shared), MyProc);
	request->queue = shm_mq_attach(SEQUENCE_SEGMENT_QUEUE(shared), segment, NULL);
	MemoryContextSwitchTo(old);
	request->id = id;
	request->segment = segment;
	request->core_id = 0;

	wire_put_int64(out, (int64) id);
	appendBinaryStringInfo(out, SEQUENCE_SEGMENT_TEXT(shared), shared->len);
	/* It holds a connection string, which is nobody else's business. */
	explicit_bzero(SEQUENCE_SEGMENT_TEXT(shared), shared->len);
	return true;
}

/* As take(), and the request goes on waiting after an error */
static bool
take_or_put_back(uint64 id, dsm_handle segment, StringInfo out)
{
	bool done = false;

	PG_TRY();
	{
		done = take(id, segment, out);
	}
	PG_CATCH();
	{
		put_back(id);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return done;
}

/* Append the next request that waits, if there is one */
void
replsync_sequence_take_request(StringInfo out)
{
	dsm_handle segment;
	uint64 id;

	while ((id = next_request(&segment)) != 0)
	{
		if (take_or_put_back(id, segment, out))
			return;
	}
}

/* Forget a request */
static void
finish(TakenRequest *request)
{
	shm_mq_detach(request->queue);
	dsm_detach(request->segment);
	free(request->data);
	memset(request, 0, sizeof(*request));
}

/* Send on; the core hears when the answer is out, or cannot be sent any more */
static void
send_answer(TakenRequest *request)
{
	shm_mq_result result;
	uint8 there;

	result = shm_mq_send(request->queue, request->len, request->data, true, true);
	if (result == SHM_MQ_WOULD_BLOCK && GetCurrentTimestamp() < request->give_up_at)
		return;
	there = result == SHM_MQ_SUCCESS;
	replsync_core_answer(request->core_id, NULL, &there, sizeof(there));
	request->core_id = 0;
	free(request->data);
	request->data = NULL;
	if (!there || request->last)
		finish(request);
}

/* Hand an answer of the core to the caller; the core hears when that is done */
void
replsync_sequence_answer(CoreRequest *request)
{
	WireReader in = {request->data, (char *) request->data + request->len};
	uint64 id = (uint64) wire_get_int64(&in);
	TakenRequest *waiting = id != 0 ? find_taken(id) : NULL;
	uint8 gone = 0;

	if (waiting == NULL)
	{
		replsync_core_answer(request->id, NULL, &gone, sizeof(gone));
		return;
	}
	waiting->core_id = request->id;
	waiting->data = request->data;
	waiting->len = request->len;
	waiting->last = wire_get_bool(&in);
	waiting->give_up_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SLOW_READER_MS);
	request->data = NULL;
	send_answer(waiting);
}

/* Is an answer on its way? */
bool
replsync_sequence_answers_pending(void)
{
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS; i++)
	{
		if (taken[i].core_id != 0)
			return true;
	}
	return false;
}

/* Send on what is on its way */
void
replsync_sequence_answers_continue(void)
{
	for (int i = 0; i < MAX_SEQUENCE_REQUESTS; i++)
	{
		if (taken[i].core_id != 0)
			send_answer(&taken[i]);
	}
}
