/*
 * Telling those who wait in wait_for_slot_change() that a slot may have moved.
 *
 * The server does not tell. But what moves slots passes by here: a walsender asks whether output is pending right after
 * it has taken a confirmation of its consumer, and an SQL function that moves a slot decodes before, and ends with its
 * transaction. What does not pass, as slots that are made and dropped, is found by looking.
 */
#include "replsync.h"

/* Else libpq-be.h wants the headers of libraries whose fields nobody looks at here. */
#undef ENABLE_GSS
#undef USE_OPENSSL
#include "access/xact.h"
#include "access/xlog_internal.h"
#include "libpq/auth.h"
#include "libpq/libpq.h"
#include "port/atomics.h"
#include "replication/decode.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/condition_variable.h"
#include "storage/shmem.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "slot_news.h"

typedef void (*decode_function)(LogicalDecodingContext *ctx, XLogRecordBuffer *buf);

typedef struct SlotNews
{
	pg_atomic_uint32 awaited; /* somebody has begun to wait since the last news */
	ConditionVariable moved;
} SlotNews;

static SlotNews *news = NULL;

static decode_function decode_original[RM_MAX_ID + 1];
static ClientAuthentication_hook_type previous_authentication_hook;
static const PQcommMethods *send_original = NULL;
static PQcommMethods send_ours;

/* This transaction decodes, so it may move a slot */
static bool decoding = false;

/* Wake those who wait. Most often nobody has begun to since the last time, and it costs next to nothing */
static void
announce(void)
{
	/* Whoever says that he waits looks after that, and we look here after the slot has moved. */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&news->awaited) != 0 && pg_atomic_exchange_u32(&news->awaited, 0) != 0)
		ConditionVariableBroadcast(&news->moved);
}

/* Begin to wait for news; whoever looks at the slots after this misses none. False where there will be none */
bool
replsync_slot_news_await(void)
{
	if (news == NULL)
		return false;
	COMPAT_PREPARE_AGAIN(&news->moved);
	(void) pg_atomic_exchange_u32(&news->awaited, 1);
	return true;
}

/* Wait no longer */
void
replsync_slot_news_end(void)
{
	if (news != NULL)
		ConditionVariableCancelSleep();
}

/* At the end of a transaction, slots are where it has brought them, also if it is aborted */
static void
transaction_ends(XactEvent event, void *arg)
{
	if (!decoding || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
		return;
	decoding = false;
	announce();
}

/* Decode a record; a walsender is heard of by its consumer's confirmation */
static void
decode(LogicalDecodingContext *ctx, XLogRecordBuffer *buf)
{
	static bool registered = false;

	if (!am_walsender && !decoding)
	{
		if (!registered)
			RegisterXactCallback(transaction_ends, NULL);
		registered = decoding = true;
	}
	decode_original[XLogRecGetRmid(buf->record)](ctx, buf);
}

/* Announce that the slot of this walsender has moved, if so. Nobody else moves it */
static void
announce_own_slot(void)
{
	static XLogRecPtr confirmed_flush = InvalidXLogRecPtr;
	static XLogRecPtr restart_lsn = InvalidXLogRecPtr;
	static TransactionId catalog_xmin = InvalidTransactionId;
	const ReplicationSlotPersistentData *now;

	/* Nobody is shown others. */
	if (MyReplicationSlot == NULL || SlotIsPhysical(MyReplicationSlot) ||
		MyReplicationSlot->data.persistency != RS_PERSISTENT)
		return;
	now = &MyReplicationSlot->data;
	if (now->confirmed_flush == confirmed_flush && now->restart_lsn == restart_lsn &&
		now->catalog_xmin == catalog_xmin)
		return;
	confirmed_flush = now->confirmed_flush;
	restart_lsn = now->restart_lsn;
	catalog_xmin = now->catalog_xmin;
	announce();
}

/* Is output pending? */
static bool
is_send_pending(void)
{
	announce_own_slot();
	return send_original->is_send_pending();
}

/* A connection begins: a walsender asks us from here on */
static void
attend_connection(Port *port, int status)
{
	if (previous_authentication_hook)
		previous_authentication_hook(port, status);
	if (!am_walsender || news == NULL || send_original != NULL)
		return;
	send_original = PqCommMethods;
	send_ours = *send_original;
	send_ours.is_send_pending = is_send_pending;
	PqCommMethods = &send_ours;
}

/* The size of the shared memory */
Size
replsync_slot_news_size(void)
{
	return sizeof(SlotNews);
}

/* Create or attach to the shared memory */
void
replsync_slot_news_startup(void)
{
	bool found;

	news = ShmemInitStruct("replsync slot news", sizeof(SlotNews), &found);
	if (found)
		return;
	pg_atomic_init_u32(&news->awaited, 0);
	ConditionVariableInit(&news->moved);
}

/*
 * Hear of slots that move; only while the postmaster preloads. To be called before the parameters are
 * defined, as one of them may put the functions of hold_back.c in front of these, and take them away again.
 */
void
replsync_slot_news_init(void)
{
	previous_authentication_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = attend_connection;
	for (int id = 0; id <= RM_MAX_ID; id++)
	{
		if (!RmgrIdExists(id) || RmgrTable[id].rm_decode == NULL)
			continue;
		decode_original[id] = RmgrTable[id].rm_decode;
		RmgrTable[id].rm_decode = decode;
	}
}
