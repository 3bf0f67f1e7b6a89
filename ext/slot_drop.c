/*
 * Dropping a copy, or what the primary of the past has left here.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "compat.h"
#include "slot.h"

/* Drop the slot in use */
void
replsync_slot_drop_acquired(void)
{
#if PG_VERSION_NUM >= 190000

	/*
	 * In recovery the request to switch logical decoding off stays for the end of
	 * recovery (DisableLogicalDecodingIfNecessary(), logicalctl.c).
	 */
	ReplicationSlotDropAcquired(SlotIsLogical(MyReplicationSlot));
#elif PG_VERSION_NUM >= 170000
	ReplicationSlotDropAcquired();
#else
	NameData name = MyReplicationSlot->data.name;
	char path[MAXPGPATH];

	/*
	 * Up to 16 only ReplicationSlotDrop() is public, and it takes the slot itself. A
	 * temporary slot stays ours when it is released, so that nobody comes between.
	 */
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.persistency = RS_TEMPORARY;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotRelease();
	ReplicationSlotDrop(NameStr(name), true);

	/* A temporary slot is gone from memory even where its file could not be removed. */
	snprintf(path, sizeof(path), "pg_replslot/%s/state", NameStr(name));
	if (access(path, F_OK) == 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not remove the files of replication slot \"%s\"", NameStr(name)),
				 errhint("See the server log. The slot is back after a restart unless the directory \"pg_replslot/%s\" is removed.",
						 NameStr(name))));
#endif
}

/* Is the slot in use what the primary of the past has left here? */
static bool
slot_is_leftover(void)
{
	if (!RecoveryInProgress() || SlotIsPhysical(MyReplicationSlot) ||
		MyReplicationSlot->data.persistency != RS_PERSISTENT)
		return false;
		/* core refuses to make such a slot on a standby */
#if PG_VERSION_NUM >= 170000
	return MyReplicationSlot->data.failover && !MyReplicationSlot->data.synced;
#elif PG_VERSION_NUM >= 160000
	return false;
#else
	return true;
#endif
}

/* Find the database of a slot */
static Oid
slot_database(const char *name)
{
	ReplicationSlot *slot;
	Oid database = InvalidOid;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
		database = slot->data.database;
	LWLockRelease(ReplicationSlotControlLock);
	return database;
}

/*
 * Drop a copy, or a leftover. What was to be dropped on a standby may be a slot in its own
 * right once that is promoted, and is kept then.
 */
void
replsync_slot_drop(const CoreSlot *spec)
{
	const char *name = spec->name;
	Oid database;

	replsync_slot_begin();
	database = slot_database(name);
	if (OidIsValid(database))
		replsync_slot_lock_database(database);
	COMPAT_ACQUIRE_SLOT(name);
	if ((spec->flags & CORE_SLOT_PROMOTED) == 0)
		replsync_check_standby();
	if (MyReplicationSlot->data.database != database ||
		!(replsync_slot_is_copy() || slot_is_leftover()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slot \"%s\" is not a copy of a slot of the primary", name),
				 errdetail("Neither replsync nor the server's own slot synchronization made it.")));
	replsync_slot_drop_acquired();
	CommitTransactionCommand();
}
