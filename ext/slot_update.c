/*
 * Giving one copy other values.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "slot.h"

/* What the slot in use has on disk, while other values are on their way there */
static ReplicationSlotPersistentData saved_data;
static bool saving_slot = false;

/* Give the slot in use the values back that it has on disk, if others were on their way there */
void
replsync_slot_end_update(void)
{
	if (saving_slot && MyReplicationSlot != NULL)
		replsync_slot_publish(MyReplicationSlot, &saved_data);
	saving_slot = false;
}

/* Verify that the slot in use is one that spec may be applied to */
static void
check_update(const CoreSlot *spec)
{
	ReplicationSlot *slot = MyReplicationSlot;

	if (!replsync_slot_is_copy())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slot \"%s\" is not a copy of a slot of the primary", spec->name),
				 errdetail("Neither replsync nor the server's own slot synchronization made it.")));
	if (replsync_slot_invalidation(slot) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot update replication slot \"%s\"", spec->name),
				 errdetail("This replication slot has been invalidated due to \"%s\".",
						   replsync_slot_invalidation(slot))));
	if (slot->data.database != spec->database)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot update replication slot \"%s\"", spec->name),
				 errdetail("It belongs to the database with OID %u, not %u.",
						   slot->data.database, spec->database)));
}

/* A confirmed_flush that a crash takes back costs nothing but time */
static bool
differs_in_confirmed_flush_only(const ReplicationSlotPersistentData *data,
								const ReplicationSlotPersistentData *before)
{
	ReplicationSlotPersistentData same;

	memcpy(&same, data, sizeof(same));
	same.confirmed_flush = before->confirmed_flush;
	return memcmp(&same, before, sizeof(same)) == 0;
}

/*
 * Write the marker of what was a copy before the promotion. The slot is not taken: its
 * consumer may be using it. The lock keeps it from being dropped or made anew.
 */
static void
mark_promoted_slot(const CoreSlot *spec)
{
	char marker[CORE_MARKER_LEN];
	ReplicationSlot *slot;

	LWLockAcquire(ReplicationSlotAllocationLock, LW_SHARED);
	if (!replsync_marker_read(spec->name, marker))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slot \"%s\" is not a copy of a slot of the primary", spec->name)));
	if (replsync_marker_write(spec->name, spec->marker))
		replsync_marker_sync(spec->name);

	/* From now on it can be idle, as of the promotion (update_synced_slots_inactive_since(), slotsync.c). */
	slot = SearchNamedReplicationSlot(spec->name, true);
	if (slot != NULL && replsync_slot_owner(slot) == 0)
		replsync_slot_set_inactive_since(slot, GetCurrentTimestamp());
	LWLockRelease(ReplicationSlotAllocationLock);
}

/*
 * Give a copy these values. Only the plugin and the flags can be any others than before:
 * positions and catalog_xmin go forward or stay.
 */
void
replsync_slot_update(const CoreSlot *spec)
{
	ReplicationSlotPersistentData data;
	ReplicationSlot *slot;
	bool marker_changed;
	bool save;

	replsync_slot_begin();
	if (!RecoveryInProgress())
	{
		mark_promoted_slot(spec);
		CommitTransactionCommand();
		return;
	}
	replsync_slot_lock_database(spec->database);
	replsync_check_standby();
	COMPAT_ACQUIRE_SLOT(spec->name);
	replsync_check_standby();
	check_update(spec);
	slot = MyReplicationSlot;

	memcpy(&data, &slot->data, sizeof(data));
	replsync_slot_set_data(&data, spec);
	replsync_slot_set_failover(&data, spec);
	save = (spec->flags & CORE_SLOT_UNSAVED) != 0 ||
		   !differs_in_confirmed_flush_only(&data, &slot->data);
	marker_changed = replsync_marker_write(spec->name, spec->marker);
	if (marker_changed && !save)
		replsync_marker_sync(spec->name);
	memcpy(&saved_data, &slot->data, sizeof(saved_data));
	if (memcmp(&data, &slot->data, sizeof(data)) != 0)
	{
		replsync_slot_publish(slot, &data);
		ReplicationSlotMarkDirty();
	}
	if (save)
	{
		/*
		 * What is held by the values before may go only when a crash can't bring
		 * them back (LogicalConfirmReceivedLocation(), logical.c).
		 */
		saving_slot = true;
		replsync_slot_write(&slot, 1);
		saving_slot = false;
		replsync_slot_set_xmin(slot, data.catalog_xmin);
		ReplicationSlotsComputeRequiredLSN();
	}
	replsync_slot_release();
	CommitTransactionCommand();
}
