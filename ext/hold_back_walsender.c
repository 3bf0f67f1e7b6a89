/*
 * How a walsender waits for standbys, and how it is woken.
 *
 * The loop of a walsender that answers the client, keeps timeouts and sends keepalives is walsender.c's own, and runs
 * while output is pending. To wait, a message is written that is thrown away, and output is said to be pending until
 * the standbys have confirmed. For that, the functions that walsender.c sends with are ours, which call the ones they
 * stand in front of. In a walsender of a standby they see each confirmation, and wake those who wait for it.
 */
#include "replsync.h"

#if PG_VERSION_NUM < 170000

/* Else libpq-be.h wants the headers of libraries whose fields nobody looks at here. */
#undef ENABLE_GSS
#undef USE_OPENSSL
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "hold_back.h"

/* A keepalive: 'k', walEnd, time, whether to reply */
#define KEEPALIVE_LENGTH (1 + sizeof(int64) + sizeof(int64) + 1)

/* How often to look again, as a slot may be moved or dropped by SQL, or become inactive */
#define LOOK_AGAIN_MS 1000

/* At shutdown, how long a standby may take that confirms nothing */
#define SHUTDOWN_PATIENCE_MS 1000

static const PQcommMethods *original;
static PQcommMethods ours;

static XLogRecPtr waiting_for; /* 0: for nothing */
static bool swallow;		   /* the next message is not to be sent */
static bool stream_over;	   /* the client has asked for the end, and was answered */
static XLogRecPtr capped;	   /* what the last keepalive did not tell; 0: it told all */

/* Is there still a reason to wait? */
static bool
must_go_on_waiting(void)
{
	return waiting_for != InvalidXLogRecPtr && !stream_over && replsync_must_wait(waiting_for);
}

/*
 * Is the server in the last stage of a shutdown, that of walsenders? What they are told is private to walsender.c; but
 * the WAL writer of a server that runs is never gone otherwise.
 */
static bool
server_is_stopping(void)
{
	Latch *latch = ProcGlobal->walwriterLatch;

	return latch != NULL && latch->owner_pid == 0;
}

/*
 * Shall this walsender exit, as the server is shutting down and what it waits for is not to be expected? A
 * shutdown waits for walsenders that have something to send, and standbys are served meanwhile. One that is here gets
 * the time it takes, as long as it confirms more.
 */
static bool
give_up(XLogRecPtr needed)
{
	static TimestampTz since = 0;
	static XLogRecPtr confirmed = InvalidXLogRecPtr;
	TimestampTz now;

	if (!server_is_stopping())
		return false;
	now = GetCurrentTimestamp();
	if (since == 0 || replsync_known_confirmed() > confirmed)
	{
		since = now;
		confirmed = replsync_known_confirmed();
	}
	if (replsync_may_confirm(needed) &&
		!TimestampDifferenceExceeds(since, now, SHUTDOWN_PATIENCE_MS))
		return false;
	ereport(LOG_SERVER_ONLY,
			(errmsg("terminating walsender process due to shutdown of the server"),
			 errdetail("Replication slot \"%s\" waits for %X/%X, and the slots in \"%s\" have confirmed %X/%X.",
					   NameStr(MyReplicationSlot->data.name), LSN_FORMAT_ARGS(needed), HOLD_BACK_PARAMETER,
					   LSN_FORMAT_ARGS(replsync_known_confirmed()))));
	return true;
}

/* How long to sleep; keepalives must go out in time */
static long
nap_time(void)
{
	if (server_is_stopping())
		return 100;
	if (wal_sender_timeout > 0)
		return Max(Min(LOOK_AGAIN_MS, wal_sender_timeout / 8), 1);
	return LOOK_AGAIN_MS;
}

/*
 * Sleep until a standby has confirmed enough, the client has sent something, or there is anything else to do. The
 * caller's loop would not: it waits until the socket is writable, which it is. And each flush of WAL sets the latch,
 * which is no reason for a round of that loop.
 */
static void
nap(void)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), nap_time());
	WaitEvent event;
	long timeout;

	ModifyWaitEvent(FeBeWaitSet, FeBeWaitSetSocketPos, WL_SOCKET_READABLE, NULL);
	for (;;)
	{
		COMPAT_PREPARE_AGAIN(replsync_standby_moved);
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		if (InterruptPending || ConfigReloadPending || timeout <= 0 || !must_go_on_waiting())
			break;
		if (WaitEventSetWait(FeBeWaitSet, timeout, &event, 1, PG_WAIT_EXTENSION) != 1)
			break;
		if (event.events & WL_POSTMASTER_DEATH)
			proc_exit(1);
		if (!(event.events & WL_LATCH_SET) || server_is_stopping())
			break;
		ResetLatch(MyLatch);
	}
	ConditionVariableCancelSleep();
	/* What it was set for may be of interest to walsender.c. */
	SetLatch(MyLatch);
}

/* Wake those who wait for a standby, if it has confirmed more through this walsender */
static void
announce_confirmation(void)
{
	static XLogRecPtr announced = InvalidXLogRecPtr;
	XLogRecPtr confirmed;

	if (replsync_standby_list == NULL || MyReplicationSlot == NULL || SlotIsLogical(MyReplicationSlot))
		return;
	/* Nobody else changes it. */
	confirmed = MyReplicationSlot->data.restart_lsn;
	if (confirmed == announced)
		return;
	announced = confirmed;
	for (int i = 0; i < replsync_standby_list->count; i++)
	{
		if (strcmp(replsync_standby_list->slots[i].name, NameStr(MyReplicationSlot->data.name)) == 0)
			ConditionVariableBroadcast(replsync_standby_moved);
	}
}

/*
 * Is output pending? walsender.c asks right after it has taken the messages of a standby, and
 * each time round while it waits for the client.
 */
static bool
is_send_pending(void)
{
	announce_confirmation();
	return original->is_send_pending() || must_go_on_waiting();
}

/* Send what can be sent, and sleep where there is a reason to wait. An error makes walsender.c exit. */
static int
flush_if_writable(void)
{
	int result = original->flush_if_writable();

	if (result != 0)
		return result;
	if (must_go_on_waiting())
	{
		if (give_up(waiting_for))
			return EOF;
		if (!original->is_send_pending())
			nap();
	}
	/* A client that was not told where it is will not confirm that, which walsender.c waits for. */
	else if (capped != InvalidXLogRecPtr && replsync_must_wait(capped) && give_up(capped))
		return EOF;
	return 0;
}

/*
 * Cap the position in a keepalive at what the standbys have confirmed. It is there already, except
 * where a slot came to be held back only after it was decoded.
 */
static void
put_keepalive(char msgtype, const char *message)
{
	char copy[KEEPALIVE_LENGTH];
	uint64 position;

	memcpy(copy, message, KEEPALIVE_LENGTH);
	memcpy(&position, copy + 1, sizeof(position));
	position = pg_ntoh64(position);
	capped = InvalidXLogRecPtr;
	if (replsync_must_wait(position))
	{
		capped = position;
		position = pg_hton64(replsync_known_confirmed());
		memcpy(copy + 1, &position, sizeof(position));
	}
	original->putmessage_noblock(msgtype, copy, KEEPALIVE_LENGTH);
}

/* Take a message to be sent */
static void
putmessage_noblock(char msgtype, const char *s, size_t len)
{
	if (msgtype == 'd' && swallow)
	{
		swallow = false;
		return;
	}
	/* CopyDone is the answer to that of the client. */
	if (msgtype == 'c')
		stream_over = true;
	if (msgtype == 'd' && len == KEEPALIVE_LENGTH && s[0] == 'k')
		put_keepalive(msgtype, s);
	else
		original->putmessage_noblock(msgtype, s, len);
}

/* Take a message to be sent, also where that waits */
static int
putmessage(char msgtype, const char *s, size_t len)
{
	/* CopyBothResponse: a stream begins. */
	if (msgtype == 'W')
		stream_over = false;
	return original->putmessage(msgtype, s, len);
}

/* Send through our functions in this walsender */
void
replsync_attach_walsender(void)
{
	if (original != NULL)
		return;
	original = PqCommMethods;
	ours = *original;
	ours.is_send_pending = is_send_pending;
	ours.flush_if_writable = flush_if_writable;
	ours.putmessage = putmessage;
	ours.putmessage_noblock = putmessage_noblock;
	stream_over = false;
	PqCommMethods = &ours;
}

/* Leave a walsender alone; where somebody else stands in front, ours stay and pass everything on */
void
replsync_detach_walsender(void)
{
	if (original == NULL || PqCommMethods != &ours)
		return;
	PqCommMethods = original;
	original = NULL;
}

/*
 * Wait in a walsender that streams until the position may be decoded. False if the client has
 * ended the stream instead: the record is then the last that the stream sees, and must not be decoded.
 */
bool
replsync_walsender_wait(LogicalDecodingContext *ctx, XLogRecPtr position)
{
	replsync_attach_walsender();
	while (!stream_over && replsync_must_wait(position))
	{
		PG_TRY();
		{
			waiting_for = position;
			swallow = true;
			ctx->prepare_write(ctx, InvalidXLogRecPtr, InvalidTransactionId, false);
			ctx->write(ctx, InvalidXLogRecPtr, InvalidTransactionId, false);
		}
		PG_FINALLY();
		{
			waiting_for = InvalidXLogRecPtr;
			swallow = false;
		}
		PG_END_TRY();
	}
	return !stream_over;
}

#endif
