/*
 * What the physical standbys of replsync.synchronized_standby_slots have confirmed, and the messages about slots that
 * stop it. Several processes may wait, but each change of a slot is worth one line in the log: what was said is shared.
 */
#include "replsync.h"

#if PG_VERSION_NUM < 170000

#include "access/xlogrecovery.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"

#include "hold_back.h"

/* More slots than that in trouble at the same time go without a message. */
#define MAX_REPORTED 64

typedef struct HoldBackShared
{
	ConditionVariable moved; /* a slot of the list was moved */
	LWLock *lock;			 /* protects what was said */
	uint32 hash;			 /* of the list that it was said of */
	int nreported;
	struct
	{
		char name[NAMEDATALEN];
		StandbyTrouble trouble;
	} reported[MAX_REPORTED];
} HoldBackShared;

ConditionVariable *replsync_standby_moved;

static HoldBackShared *shared;

/* What the list is known to have confirmed; it only grows while the list is the same. */
static XLogRecPtr known;

/* How much shared memory is needed */
Size
replsync_hold_back_shmem_size(void)
{
	return sizeof(HoldBackShared);
}

/* Create or attach to the shared memory; the caller holds AddinShmemInitLock */
void
replsync_hold_back_shmem_startup(LWLock *lock)
{
	bool found;

	shared = ShmemInitStruct("replsync hold-back", sizeof(HoldBackShared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(HoldBackShared));
		ConditionVariableInit(&shared->moved);
		shared->lock = lock;
	}
	replsync_standby_moved = &shared->moved;
}

/* Forget what was confirmed: the list is another one */
void
replsync_forget_confirmed(void)
{
	known = InvalidXLogRecPtr;
}

/* What the list had confirmed when somebody last looked */
XLogRecPtr
replsync_known_confirmed(void)
{
	return known;
}

/* Look at a slot of the list; the caller holds ReplicationSlotControlLock */
static void
look_at(StandbySlot *standby)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(standby->name, false);
	bool invalidated;
	bool inactive;

	standby->confirmed = InvalidXLogRecPtr;
	if (slot == NULL)
		standby->trouble = STANDBY_MISSING;
	else if (SlotIsLogical(slot))
		standby->trouble = STANDBY_LOGICAL;
	else
	{
		SpinLockAcquire(&slot->mutex);
		standby->confirmed = slot->data.restart_lsn;
#if PG_VERSION_NUM >= 160000
		invalidated = slot->data.invalidated != RS_INVAL_NONE;
#else
		invalidated = XLogRecPtrIsInvalid(slot->data.restart_lsn) &&
					  !XLogRecPtrIsInvalid(slot->data.invalidated_at);
#endif
		inactive = slot->active_pid == 0;
		SpinLockRelease(&slot->mutex);

		if (invalidated)
		{
			standby->confirmed = InvalidXLogRecPtr;
			standby->trouble = STANDBY_INVALIDATED;
		}
		else
			standby->trouble = inactive ? STANDBY_INACTIVE : STANDBY_OK;
	}
}

/* Look at all slots of the list */
static void
look(StandbyList *list)
{
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < list->count; i++)
		look_at(&list->slots[i]);
	LWLockRelease(ReplicationSlotControlLock);

	/* The newest position that enough slots have reached */
	for (int i = 0; i < list->count; i++)
	{
		XLogRecPtr position = list->slots[i].confirmed;
		int reached = 0;

		if (position <= known)
			continue;
		for (int j = 0; j < list->count; j++)
			reached += list->slots[j].confirmed >= position;
		if (reached >= list->required)
			known = position;
	}
}

/* Does the slot stop somebody who needs this position? */
static bool
in_the_way(const StandbySlot *standby, XLogRecPtr needed)
{
	return standby->trouble != STANDBY_OK && standby->confirmed < needed;
}

/* Put a message on record, and say whether it is a new one */
static bool
record_trouble(const StandbySlot *standby, XLogRecPtr needed)
{
	int i = 0;

	while (i < shared->nreported && strcmp(shared->reported[i].name, standby->name) != 0)
		i++;
	if (i < shared->nreported && standby->trouble == STANDBY_OK)
		shared->reported[i] = shared->reported[--shared->nreported];
	if (!in_the_way(standby, needed) || i == MAX_REPORTED)
		return false;
	if (i < shared->nreported && shared->reported[i].trouble == standby->trouble)
		return false;
	if (i == shared->nreported)
		strlcpy(shared->reported[shared->nreported++].name, standby->name, NAMEDATALEN);
	shared->reported[i].trouble = standby->trouble;
	return true;
}

/* What helps where a slot is missing; a standby has the setting of the primary that it was copied from */
static int
missing_hint(const char *name)
{
	if (PrimarySlotName != NULL && strcmp(PrimarySlotName, name) == 0)
		return errhint("This server itself was the standby that used the slot: amend parameter \"%s\".", HOLD_BACK_PARAMETER);
	return errhint("Create the replication slot \"%s\" or amend parameter \"%s\".", name, HOLD_BACK_PARAMETER);
}

/* Say what is wrong with a slot, with the words that core uses from 17 on */
static void
report(const StandbySlot *standby, int level)
{
	const char *name = standby->name;

	switch (standby->trouble)
	{
		case STANDBY_MISSING:
			ereport(level,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("replication slot \"%s\" specified in parameter \"%s\" does not exist", name, HOLD_BACK_PARAMETER),
					 errdetail("Logical replication is waiting on the standby associated with replication slot \"%s\".", name),
					 missing_hint(name)));
			break;
		case STANDBY_LOGICAL:
			ereport(level,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("cannot specify logical replication slot \"%s\" in parameter \"%s\"", name, HOLD_BACK_PARAMETER),
					 errdetail("Logical replication is waiting for correction on replication slot \"%s\".", name),
					 errhint("Remove the logical replication slot \"%s\" from parameter \"%s\".", name, HOLD_BACK_PARAMETER)));
			break;
		case STANDBY_INVALIDATED:
			ereport(level,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("physical replication slot \"%s\" specified in parameter \"%s\" has been invalidated", name, HOLD_BACK_PARAMETER),
					 errdetail("Logical replication is waiting on the standby associated with replication slot \"%s\".", name),
					 errhint("Drop and recreate the replication slot \"%s\", or amend parameter \"%s\".", name, HOLD_BACK_PARAMETER)));
			break;
		case STANDBY_INACTIVE:
			ereport(level,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("replication slot \"%s\" specified in parameter \"%s\" does not have active_pid", name, HOLD_BACK_PARAMETER),
					 errdetail("Logical replication is waiting on the standby associated with replication slot \"%s\".", name),
					 errhint("Start the standby associated with the replication slot \"%s\", or amend parameter \"%s\".", name, HOLD_BACK_PARAMETER)));
			break;
		case STANDBY_OK:
			break;
	}
}

/*
 * Say what is wrong with a slot: to the log what has not been said of it, and to the client of a
 * session what this one has not been told. A walsender has no client that reads messages: one
 * that does not read at all would block it.
 */
static void
tell(StandbySlot *standby, XLogRecPtr needed, bool is_new)
{
	CommandDest dest = whereToSendOutput;
	bool client = !am_walsender && in_the_way(standby, needed) &&
				  standby->told != standby->trouble;

	standby->told = client ? standby->trouble : standby->told;
	if (!client)
	{
		if (!is_new)
			return;
		whereToSendOutput = DestNone;
	}
	PG_TRY();
	{
		report(standby, is_new ? WARNING : WARNING_CLIENT_ONLY);
	}
	PG_FINALLY();
	{
		whereToSendOutput = dest;
	}
	PG_END_TRY();
}

/* Say what has changed about the slots: of those in the way, where the others are too few */
static void
report_changes(StandbyList *list, XLogRecPtr needed)
{
	bool unmet = known < needed && !replsync_may_confirm(needed);
	bool is_new;

	for (int i = 0; i < list->count; i++)
	{
		StandbySlot *standby = &list->slots[i];

		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		if (shared->hash != list->hash)
		{
			shared->hash = list->hash;
			shared->nreported = 0;
		}
		is_new = record_trouble(standby, unmet ? needed : InvalidXLogRecPtr);
		LWLockRelease(shared->lock);
		if (unmet)
			tell(standby, needed, is_new);
	}
}

/*
 * The position up to which the list has confirmed everything. The slots are looked at only where what
 * is known is less than needed.
 */
XLogRecPtr
replsync_confirmed(XLogRecPtr needed)
{
	StandbyList *list = replsync_standby_list;

	if (known >= needed)
		return known;
	look(list);
	/* Without a message on record, there is none to take back. */
	if (known < needed || shared->nreported > 0)
		report_changes(list, needed);
	return known;
}

/* Can the list confirm a position, with the standbys that are here? As of the last look */
bool
replsync_may_confirm(XLogRecPtr needed)
{
	StandbyList *list = replsync_standby_list;
	int able = 0;

	for (int i = 0; i < list->count; i++)
		able += !in_the_way(&list->slots[i], needed);
	return able >= list->required;
}

#endif
