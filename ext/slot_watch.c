/*
 * What a standby asks of its primary about logical slots: the slots, those that have moved since, and
 * to be told when one does.
 *
 * Nothing in the server tells when a consumer confirms a position. Where this library is preloaded it
 * hears of it (slot_news.c); else, and for what it does not hear of, waiting is looking at shared memory again
 * and again. It takes no lock but that of the array, and holds no snapshot.
 */
#include "postgres.h"

#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "replsync.h"
#include "slot.h"
#include "slot_news.h"

/* From libpq/libpq.h, which needs the headers of GSSAPI: what a backend waits on, the client's socket first */
extern PGDLLIMPORT WaitEventSet *FeBeWaitSet;
#define CLIENT_SOCKET 0
#if PG_VERSION_NUM >= 170000
extern ssize_t pq_buffer_remaining_data(void);
#define client_has_sent() (pq_buffer_remaining_data() > 0)
#else
extern bool pq_buffer_has_data(void);
#define client_has_sent() pq_buffer_has_data()
#endif

/* Milliseconds between two looks: half of it, and a pass, is how long a change takes to reach the standby. */
#define LOOK_PAUSE_MIN 20
#define LOOK_PAUSE_MAX 200

/* A pause is this many times as long as the look before it. */
#define LOOK_SHARE 500

/* The pause of one who is told of slots that move, for all that nobody tells. */
#define LOOK_PAUSE_TOLD 500

PG_FUNCTION_INFO_V1(replsync_logical_slots);
PG_FUNCTION_INFO_V1(replsync_wait_for_slot_change);

/* What is shown of a slot. An entry without a slot is all zero */
typedef struct ShownSlot
{
	NameData name;
	NameData plugin;
	XLogRecPtr restart_lsn;
	XLogRecPtr confirmed_flush;
	XLogRecPtr two_phase_at;
	TransactionId catalog_xmin;
	Oid database;
	const char *invalidation; /* a constant of the server */
	bool two_phase;
	bool failover;
} ShownSlot;

/* What this backend has shown last, by place in the array of slots, and how many places have been used */
static ShownSlot *shown = NULL;
static int shown_places = 0;

/* Describe the slot at a place as it is now; hold ReplicationSlotControlLock */
static void
look_at_slot(int place, ShownSlot *out)
{
	ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[place];

	memset(out, 0, sizeof(*out));
	if (!slot->in_use)
		return;
	SpinLockAcquire(&slot->mutex);
	if (SlotIsLogical(slot) && slot->data.persistency == RS_PERSISTENT)
	{
		out->name = slot->data.name;
		out->plugin = slot->data.plugin;
		out->restart_lsn = slot->data.restart_lsn;
		out->confirmed_flush = slot->data.confirmed_flush;
		out->two_phase = slot->data.two_phase;
		out->two_phase_at = slot->data.two_phase_at;
		out->catalog_xmin = slot->data.catalog_xmin;
		out->database = slot->data.database;
		out->invalidation = replsync_slot_invalidation(slot);
#if PG_VERSION_NUM >= 170000
		out->failover = slot->data.failover;
#endif
	}
	SpinLockRelease(&slot->mutex);
}

/* Is the slot at a place another one than was shown? Hold ReplicationSlotControlLock */
static bool
differs(ReplicationSlot *slot, const ShownSlot *was)
{
	bool differs;

	if (!slot->in_use)
		return NameStr(was->name)[0] != '\0';
	SpinLockAcquire(&slot->mutex);
	if (SlotIsPhysical(slot) || slot->data.persistency != RS_PERSISTENT)
		differs = NameStr(was->name)[0] != '\0';
	else
	{
		differs = slot->data.confirmed_flush != was->confirmed_flush ||
				  slot->data.restart_lsn != was->restart_lsn ||
				  slot->data.catalog_xmin != was->catalog_xmin ||
				  slot->data.two_phase != was->two_phase ||
				  slot->data.two_phase_at != was->two_phase_at ||
				  replsync_slot_invalidation(slot) != was->invalidation ||
				  strcmp(NameStr(slot->data.name), NameStr(was->name)) != 0;
#if PG_VERSION_NUM >= 170000
		differs = differs || slot->data.failover != was->failover;
#endif
	}
	SpinLockRelease(&slot->mutex);
	return differs;
}

/*
 * Has anything changed since it was shown? A new slot takes the first free place
 * (ReplicationSlotCreate(), slot.c), so one more than have been used is enough.
 */
static bool
something_changed(void)
{
	bool changed = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < Min(shown_places + 1, TOTAL_REPLICATION_SLOTS) && !changed; i++)
		changed = differs(&ReplicationSlotCtl->replication_slots[i], &shown[i]);
	LWLockRelease(ReplicationSlotControlLock);
	return changed;
}

/* Set an LSN, NULL if there is none */
static void
set_lsn(Datum *values, bool *nulls, int column, XLogRecPtr lsn)
{
	values[column] = LSNGetDatum(lsn);
	nulls[column] = lsn == InvalidXLogRecPtr;
}

/* Return a row for a slot */
static void
show_slot(ReturnSetInfo *rsinfo, ShownSlot *slot)
{
	Datum values[11];
	bool nulls[11] = {0};
	char *database = get_database_name(slot->database);

	values[0] = NameGetDatum(&slot->name);
	values[1] = NameGetDatum(&slot->plugin);
	nulls[2] = database == NULL;
	values[2] = database ? DirectFunctionCall1(namein, CStringGetDatum(database)) : (Datum) 0;
	values[3] = ObjectIdGetDatum(slot->database);
	set_lsn(values, nulls, 4, slot->restart_lsn);
	set_lsn(values, nulls, 5, slot->confirmed_flush);
	values[6] = TransactionIdGetDatum(slot->catalog_xmin);
	nulls[6] = !TransactionIdIsValid(slot->catalog_xmin);
	values[7] = BoolGetDatum(slot->two_phase);
	set_lsn(values, nulls, 8, slot->two_phase_at);
	values[9] = BoolGetDatum(slot->failover);
	nulls[10] = slot->invalidation == NULL;
	values[10] = slot->invalidation ? CStringGetTextDatum(slot->invalidation) : (Datum) 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Return a row that says that there is no slot of that name any more */
static void
show_gone(ReturnSetInfo *rsinfo, ShownSlot *slot)
{
	Datum values[11] = {0};
	bool nulls[11];

	memset(nulls, true, sizeof(nulls));
	values[0] = NameGetDatum(&slot->name);
	nulls[0] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * logical_slots(changed): the logical slots that are not temporary; if changed, only those that differ from what this
 * session was shown before, and, with nothing but the name, those that are gone.
 */
Datum
replsync_logical_slots(PG_FUNCTION_ARGS)
{
	bool changed = PG_GETARG_BOOL(0);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Size size = sizeof(ShownSlot) * Max(TOTAL_REPLICATION_SLOTS, 1);
	ShownSlot *now = palloc(size);

	replsync_require_replication();
	InitMaterializedSRF(fcinfo, 0);
	if (shown == NULL)
		shown = MemoryContextAllocZero(TopMemoryContext, size);

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < TOTAL_REPLICATION_SLOTS; i++)
	{
		look_at_slot(i, &now[i]);
		if (ReplicationSlotCtl->replication_slots[i].in_use)
			shown_places = Max(shown_places, i + 1);
	}
	LWLockRelease(ReplicationSlotControlLock);

	/* A name that has moved to another place is shown as gone first. */
	for (int i = 0; changed && i < TOTAL_REPLICATION_SLOTS; i++)
	{
		if (NameStr(shown[i].name)[0] != '\0' &&
			strcmp(NameStr(shown[i].name), NameStr(now[i].name)) != 0)
			show_gone(rsinfo, &shown[i]);
	}
	for (int i = 0; i < TOTAL_REPLICATION_SLOTS; i++)
	{
		if (NameStr(now[i].name)[0] != '\0' &&
			!(changed && memcmp(&now[i], &shown[i], sizeof(ShownSlot)) == 0))
			show_slot(rsinfo, &now[i]);
	}
	memcpy(shown, now, size);
	return (Datum) 0;
}

/* Wait for the latch, the client or the time; tells whether the client wants something */
static bool
rest(long timeout)
{
	WaitEvent event;

	ModifyWaitEvent(FeBeWaitSet, CLIENT_SOCKET, WL_SOCKET_READABLE, NULL);
	if (WaitEventSetWait(FeBeWaitSet, timeout, &event, 1, PG_WAIT_EXTENSION) == 1)
	{
		if (event.events & WL_POSTMASTER_DEATH)
			ereport(FATAL,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("terminating connection due to unexpected postmaster exit")));
		if (event.events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (event.events & WL_SOCKET_READABLE)
			return true;
	}
	CHECK_FOR_INTERRUPTS();
	return false;
}

/*
 * wait_for_slot_change(timeout): return as soon as logical_slots() has news for its caller, the time is
 * over, or the client sends something. To be called with the simple query protocol: the extended one sends more.
 */
Datum
replsync_wait_for_slot_change(PG_FUNCTION_ARGS)
{
	int timeout = PG_GETARG_INT32(0);
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Max(timeout, 0));

	replsync_require_replication();
	if (shown == NULL || MyProcPort == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is nothing to compare with"),
				 errhint("Call replsync.logical_slots() in the same session first.")));
	if (!IsA(fcinfo->context, CallContext) || castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("replsync.wait_for_slot_change() cannot run inside a transaction block"),
				 errdetail("Its snapshot would keep VACUUM from removing rows while it waits.")));

	/* The snapshot of CALL ends with its transaction, and nothing takes one in the next. */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	SPI_finish();

	/* What was read along with the statement does not make the socket readable. */
	while (!client_has_sent())
	{
		instr_time began;
		instr_time took;
		long pause = LOOK_PAUSE_TOLD;
		long remaining;
		bool told = replsync_slot_news_await();

		INSTR_TIME_SET_CURRENT(began);
		if (something_changed())
			break;
		INSTR_TIME_SET_CURRENT(took);
		INSTR_TIME_SUBTRACT(took, began);
		if (!told)
		{
			pause = (long) (INSTR_TIME_GET_MICROSEC(took) * LOOK_SHARE / 1000);
			pause = Min(Max(pause, LOOK_PAUSE_MIN), LOOK_PAUSE_MAX);
		}
		remaining = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (remaining <= 0 || rest(Min(remaining, pause)))
			break;
	}
	replsync_slot_news_end();
	PG_RETURN_VOID();
}
