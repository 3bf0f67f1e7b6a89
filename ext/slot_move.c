/*
 * Moving many copies at once, in memory, and bringing them to disk later. Neither takes a copy, so that nobody
 * finds it in use.
 *
 * Disk that is behind memory is an older state of the copy, and as good as any: it gives
 * again what was confirmed since. But all that it needs must be kept as long as a crash can bring it back:
 *
 * - catalog rows are kept by effective_catalog_xmin, which follows once disk has it;
 * - from 18 on, WAL, snapshots and mapping files are kept by last_saved_restart_lsn;
 * - before, they are kept by the restart_lsn in memory, but a restartpoint writes all
 *   slots first, and removes after that (CheckPointGuts(), xlog.c). So restart_lsn can be ahead of disk
 *   for any restartpoint that has yet to write the slots, and must not get ahead during one that may have.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "compat.h"
#include "slot.h"

#if PG_VERSION_NUM < 180000

/*
 * Does a restartpoint remove WAL by what was required before it wrote the slots? Older minors
 * go by what is required once it is about to remove.
 */
static bool
wal_is_kept_for_disk(void)
{
	int version = replsync_running_version();

	switch (version / 10000)
	{
		case 15:
			return version >= 150014;
		case 16:
			return version >= 160010;
		default:
			return version >= 170006;
	}
}

/*
 * See to it that restart_lsn can be ahead of disk until the lock is released: a
 * restartpoint takes it to write the slots, so one that has not begun now comes to that later.
 */
static bool
hold_off_restartpoints(void)
{
	if (!wal_is_kept_for_disk() ||
		!LWLockConditionalAcquire(ReplicationSlotAllocationLock, LW_EXCLUSIVE))
		return false;
	if (!replsync_restartpoint_is_running())
		return true;
	LWLockRelease(ReplicationSlotAllocationLock);
	return false;
}

#endif

/* Is this still the copy that spec was listed as, and free? Hold the mutex */
static bool
can_move(const ReplicationSlot *slot, const CoreSlot *spec)
{
	if (!SlotIsLogical(slot) || slot->data.persistency != RS_PERSISTENT ||
		slot->data.database != spec->database ||
		strcmp(NameStr(slot->data.plugin), spec->plugin) != 0 ||
		replsync_slot_owner(slot) != 0 || replsync_slot_invalidation(slot) != NULL)
		return false;
#if PG_VERSION_NUM >= 170000
	if (slot->data.failover != ((spec->flags & CORE_SLOT_FAILOVER) != 0) ||
		slot->data.synced != ((spec->flags & CORE_SLOT_SYNCED) != 0))
		return false;
#endif
	return slot->data.two_phase == ((spec->flags & CORE_SLOT_TWO_PHASE) != 0) &&
		   slot->data.two_phase_at == spec->two_phase_at &&
		   slot->data.restart_lsn <= spec->restart_lsn &&
		   slot->data.confirmed_flush <= spec->confirmed_flush_lsn &&
		   TransactionIdPrecedesOrEquals(slot->data.catalog_xmin, spec->catalog_xmin);
}

/* Move one slot that nobody can take or drop meanwhile */
static CoreMove
move_slot(const CoreSlot *spec, bool ahead)
{
	ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[spec->index];
	CoreMove result = CORE_MOVE_REFUSED;

	if (!slot->in_use || strcmp(NameStr(slot->data.name), spec->name) != 0)
		return result;
	SpinLockAcquire(&slot->mutex);
	if (can_move(slot, spec))
	{
		slot->data.confirmed_flush = spec->confirmed_flush_lsn;
		if (ahead)
		{
			slot->data.restart_lsn = spec->restart_lsn;
			slot->data.catalog_xmin = spec->catalog_xmin;
		}
		slot->candidate_catalog_xmin = InvalidTransactionId;
		slot->candidate_xmin_lsn = InvalidXLogRecPtr;
		slot->candidate_restart_valid = InvalidXLogRecPtr;
		slot->candidate_restart_lsn = InvalidXLogRecPtr;
		slot->just_dirtied = true;
		slot->dirty = true;
		result = ahead ? CORE_MOVE_ALL : CORE_MOVE_CONFIRMED;
	}
	SpinLockRelease(&slot->mutex);
	return result;
}

/*
 * Move copies to the positions of specs, and append a CoreMove of each to out. Nothing else of
 * a copy changes, its marker included: by that it is known again, as it is not taken.
 */
void
replsync_slot_move(const CoreSlot *specs, int n, StringInfo out)
{
	uint8 *results = palloc0(n);
	bool ahead = true;

	replsync_check_standby();
	for (int i = 0; i < n; i++)
	{
		char marker[CORE_MARKER_LEN];

		results[i] = specs[i].index >= 0 && specs[i].index < TOTAL_REPLICATION_SLOTS &&
					 replsync_marker_look(specs[i].index, specs[i].name, marker) &&
					 strcmp(marker, specs[i].marker) == 0;
	}
#if PG_VERSION_NUM < 180000
	ahead = hold_off_restartpoints();
#endif

	/* Who takes a slot, or removes it, needs this lock; so no consumer has it after a promotion. */
	LWLockAcquire(ReplicationSlotControlLock, LW_EXCLUSIVE);
	replsync_check_standby();
	for (int i = 0; i < n; i++)
	{
		if (results[i])
			results[i] = move_slot(&specs[i], ahead);
	}
	LWLockRelease(ReplicationSlotControlLock);
#if PG_VERSION_NUM < 180000
	if (ahead)
		LWLockRelease(ReplicationSlotAllocationLock);
#endif
	appendBinaryStringInfo(out, (char *) results, n);
}

/* Find the copy that spec was listed as, moved to what spec says; hold ReplicationSlotAllocationLock */
static ReplicationSlot *
find_for_save(const CoreSlot *spec)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(spec->name, true);
	char marker[CORE_MARKER_LEN];
	CoreMove move = CORE_MOVE_REFUSED;
	bool behind = false;

	if (slot != NULL && replsync_marker_read(spec->name, marker) && strcmp(marker, spec->marker) == 0)
	{
		CoreSlot here = *spec;

		here.index = slot - ReplicationSlotCtl->replication_slots;
		LWLockAcquire(ReplicationSlotControlLock, LW_EXCLUSIVE);
		replsync_check_standby();
		SpinLockAcquire(&slot->mutex);
		here.confirmed_flush_lsn = Max(here.confirmed_flush_lsn, slot->data.confirmed_flush);
		behind = slot->data.restart_lsn < spec->restart_lsn ||
				 TransactionIdPrecedes(slot->data.catalog_xmin, spec->catalog_xmin);
		SpinLockRelease(&slot->mutex);
		if (behind)
			move = move_slot(&here, true);
		LWLockRelease(ReplicationSlotControlLock);
		if (!behind || move == CORE_MOVE_ALL)
			return slot;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("replication slot \"%s\" cannot be moved now", spec->name)));
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("replication slot \"%s\" is not the copy that it was", spec->name)));
}

/*
 * Bring a copy that was moved to disk, and then give up what only the old position required; of catalog rows
 * only with CORE_SLOT_UNSAVED. The
 * lock keeps the slot where it is, as when a restartpoint writes it (CheckPointReplicationSlots(), slot.c).
 */
void
replsync_slot_save(const CoreSlot *spec)
{
	ReplicationSlot *slot;
	TransactionId catalog_xmin;
	TransactionId effective;

	replsync_slot_register_exit();
	replsync_check_standby();
	LWLockAcquire(ReplicationSlotAllocationLock, LW_SHARED);
	slot = find_for_save(spec);
	SpinLockAcquire(&slot->mutex);
	catalog_xmin = slot->data.catalog_xmin;
	effective = slot->effective_catalog_xmin;
	SpinLockRelease(&slot->mutex);

	replsync_slot_write(slot);
	if ((spec->flags & CORE_SLOT_UNSAVED) != 0 && TransactionIdPrecedes(effective, catalog_xmin))
		replsync_slot_set_xmin(slot, catalog_xmin);
	LWLockRelease(ReplicationSlotAllocationLock);
	ReplicationSlotsComputeRequiredLSN();
}
