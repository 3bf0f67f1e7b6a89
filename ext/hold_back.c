/*
 * Holding logical decoding back until physical standbys have confirmed.
 *
 * From 17 on, core waits before it decodes, so that nothing is known to a consumer that a standby might not have.
 * Before, the only code of an extension that is called before a record is decoded is the decode function of its
 * resource manager. While the parameter is set, a function of ours stands in front of all of them. Every way to decode
 * comes through there: walsenders, pg_logical_slot_get_changes() and pg_replication_slot_advance(). As the position that
 * a walsender tells in keepalives is the end of the record decoded last, nothing leaves in those either.
 */
#include "replsync.h"

#if PG_VERSION_NUM < 170000

/* Else libpq-be.h wants the headers of libraries whose fields nobody looks at here. */
#undef ENABLE_GSS
#undef USE_OPENSSL
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "libpq/auth.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "replication/decode.h"
#include "replication/reorderbuffer.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "utils/wait_event.h"

#include "hold_back.h"
#include "slot_patterns.h"

/* How often those look again whom nobody wakes: a slot may be moved or dropped by SQL, or become inactive */
#define LOOK_AGAIN_MS 1000

typedef void (*decode_function)(LogicalDecodingContext *ctx, XLogRecordBuffer *buf);

StandbyList *replsync_standby_list;

static ClientAuthentication_hook_type previous_authentication_hook;
static decode_function original[RM_MAX_ID + 1];

/* Is this the slot of a table's initial synchronization? Its name is of ReplicationSlotNameForTablesync. */
static bool
is_tablesync_slot(const char *name)
{
	unsigned int subscription;
	unsigned int relation;
	unsigned long long system;
	int length = 0;

	return sscanf(name, "pg_%u_sync_%u_%llu%n", &subscription, &relation, &system, &length) == 3 &&
		   name[length] == '\0';
}

/* The slot that was last judged, and whether it is held back */
static char judged[NAMEDATALEN];
static bool judgement;

/* Is the slot that this process uses one of those that are held back? */
bool
replsync_slot_is_held(void)
{
	const char *name;

	/* A slot that is still being made, or a temporary one, has no copy. */
	if (replsync_standby_list == NULL || MyReplicationSlot == NULL ||
		MyReplicationSlot->data.persistency != RS_PERSISTENT ||
		!SlotIsLogical(MyReplicationSlot) || RecoveryInProgress())
		return false;
	name = NameStr(MyReplicationSlot->data.name);
	if (strcmp(judged, name) != 0)
	{
		strlcpy(judged, name, NAMEDATALEN);
		judgement = replsync_slot_wanted(replsync_slots, PG_VERSION_NUM / 10000, name, false) &&
					!is_tablesync_slot(name);
	}
	return judgement;
}

/* Is the position one that must not be decoded yet? */
bool
replsync_must_wait(XLogRecPtr position)
{
	return position > replsync_known_confirmed() && replsync_slot_is_held() &&
		   replsync_confirmed(position) < position;
}

/* Wait in an SQL function until the position may be decoded */
static void
wait_in_session(XLogRecPtr position)
{
	for (int i = 0; i < replsync_standby_list->count; i++)
		replsync_standby_list->slots[i].told = STANDBY_OK;
	ConditionVariablePrepareToSleep(replsync_standby_moved);
	while (replsync_must_wait(position))
	{
		ConditionVariableTimedSleep(replsync_standby_moved, LOOK_AGAIN_MS, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	ConditionVariableCancelSleep();
}

/* Wait until the record may be decoded; false if it shall not be decoded at all */
static bool
wait_for_standbys(LogicalDecodingContext *ctx, XLogRecPtr position)
{
	/* A walsender may run SQL too, but not while it streams. */
	if (am_walsender && MyWalSnd->state >= WALSNDSTATE_CATCHUP)
		return replsync_walsender_wait(ctx, position);
	wait_in_session(position);
	return true;
}

/* Decode a record, once the standbys have confirmed it */
static void
decode_confirmed(LogicalDecodingContext *ctx, XLogRecordBuffer *buf)
{
	decode_function decode = original[XLogRecGetRmid(buf->record)];

	if (replsync_must_wait(buf->endptr) && !wait_for_standbys(ctx, buf->endptr))
		return;
	if (decode != NULL)
		decode(ctx, buf);
	else
		/* what LogicalDecodingProcessRecord does itself */
		ReorderBufferProcessXid(ctx->reorder, XLogRecGetXid(buf->record), buf->origptr);
}

/*
 * Stand in front of all decode functions while something is held back. To be called again when all libraries are
 * loaded: they may have brought resource managers.
 */
void
replsync_intercept_decoding(void)
{
	if (replsync_standby_list == NULL)
		return;
	for (int id = 0; id <= RM_MAX_ID; id++)
	{
		if (!RmgrIdExists(id) || RmgrTable[id].rm_decode == decode_confirmed)
			continue;
		original[id] = RmgrTable[id].rm_decode;
		RmgrTable[id].rm_decode = decode_confirmed;
	}
}

/* Put the decode functions back; one that somebody else stands in front of goes on through ours */
static void
release_decoding(void)
{
	for (int id = 0; id <= RM_MAX_ID; id++)
	{
		if (RmgrTable[id].rm_decode == decode_confirmed)
			RmgrTable[id].rm_decode = original[id];
	}
}

/* Put a new value of replsync.synchronized_standby_slots into effect in this process */
void
replsync_assign_standby_list(const char *newval, void *extra)
{
	replsync_standby_list = extra;
	replsync_forget_confirmed();
	if (extra != NULL)
	{
		replsync_intercept_decoding();
		if (am_walsender)
			replsync_attach_walsender();
	}
	else
	{
		release_decoding();
		replsync_detach_walsender();
	}
}

/* Note a new value of replsync.slots */
void
replsync_assign_slots(const char *newval, void *extra)
{
	judged[0] = '\0';
}

/* A connection begins: walsenders are attended from here */
static void
attend_connection(Port *port, int status)
{
	if (previous_authentication_hook)
		previous_authentication_hook(port, status);
	if (am_walsender && replsync_standby_list != NULL)
		replsync_attach_walsender();
}

/* Have walsenders attended; only while the postmaster preloads */
void
replsync_hold_back_init(void)
{
	previous_authentication_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = attend_connection;
}

#endif
