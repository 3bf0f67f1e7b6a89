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

/* What was found of a copy that is to be saved */
typedef enum Found
{
	FOUND,
	FOUND_OTHER, /* it is not the copy that it was */
	FOUND_IN_USE /* it cannot be moved now */
} Found;

/* Find a slot where it was listed, or else by its name */
static ReplicationSlot *
find_slot(const CoreSlot *spec)
{
	ReplicationSlot *slot = NULL;

	if (spec->index >= 0 && spec->index < TOTAL_REPLICATION_SLOTS)
	{
		slot = &ReplicationSlotCtl->replication_slots[spec->index];
		LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
		if (!slot->in_use || strcmp(NameStr(slot->data.name), spec->name) != 0)
			slot = NULL;
		LWLockRelease(ReplicationSlotControlLock);
	}
	return slot != NULL ? slot : SearchNamedReplicationSlot(spec->name, true);
}

/* Find the copy that spec was listed as, moved to what spec says; hold ReplicationSlotAllocationLock */
static Found
find_for_save(const CoreSlot *spec, ReplicationSlot **found)
{
	ReplicationSlot *slot = find_slot(spec);
	char marker[CORE_MARKER_LEN];
	CoreMove move = CORE_MOVE_REFUSED;
	bool behind = false;
	CoreSlot here = *spec;

	if (slot == NULL)
		return FOUND_OTHER;
	here.index = slot - ReplicationSlotCtl->replication_slots;
	if (!replsync_marker_look(here.index, spec->name, marker) || strcmp(marker, spec->marker) != 0)
		return FOUND_OTHER;
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
	if (behind && move != CORE_MOVE_ALL)
		return FOUND_IN_USE;
	*found = slot;
	return FOUND;
}

/* Say why a copy is not saved */
static void
fail_save(const CoreSlot *spec, Found found)
{
	if (found == FOUND_IN_USE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("replication slot \"%s\" cannot be moved now", spec->name)));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("replication slot \"%s\" is not the copy that it was", spec->name)));
}

/* Let slots that are on disk hold no more catalog rows than they require there; only with CORE_SLOT_UNSAVED */
static void
give_up_rows(const CoreSlot **specs, ReplicationSlot **slots, const TransactionId *catalog_xmins, int n)
{
	ReplicationSlot **lagging = palloc(sizeof(ReplicationSlot *) * n);
	TransactionId *xmins = palloc(sizeof(TransactionId) * n);
	int count = 0;

	for (int i = 0; i < n; i++)
	{
		TransactionId effective;

		SpinLockAcquire(&slots[i]->mutex);
		effective = slots[i]->effective_catalog_xmin;
		SpinLockRelease(&slots[i]->mutex);
		if ((specs[i]->flags & CORE_SLOT_UNSAVED) == 0 || !TransactionIdPrecedes(effective, catalog_xmins[i]))
			continue;
		lagging[count] = slots[i];
		xmins[count++] = catalog_xmins[i];
	}
	if (count > 0)
		replsync_slot_set_xmins(lagging, xmins, count);
}

/*
 * Bring copies that were moved to disk, and once all are there, give up what only the old positions required. The
 * lock keeps the slots where they are, as when a restartpoint writes them (CheckPointReplicationSlots(), slot.c).
 * Appends to out whether each was saved; one that is alone and was not is an error that says why.
 */
void
replsync_slot_save(const CoreSlot *specs, int n, StringInfo out)
{
	ReplicationSlot **slots = palloc0(sizeof(ReplicationSlot *) * Max(n, 1));
	TransactionId *catalog_xmins = palloc(sizeof(TransactionId) * Max(n, 1));
	const CoreSlot **found = palloc(sizeof(CoreSlot *) * Max(n, 1));
	int count = 0;

	if (n > CORE_SAVE_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many replication slots to be saved at once")));
	replsync_slot_register_exit();
	replsync_check_standby();
	LWLockAcquire(ReplicationSlotAllocationLock, LW_SHARED);
	for (int i = 0; i < n; i++)
	{
		Found what = find_for_save(&specs[i], &slots[count]);

		if (what != FOUND && n == 1)
			fail_save(&specs[i], what);
		appendStringInfoChar(out, what == FOUND);
		if (what != FOUND)
			continue;
		SpinLockAcquire(&slots[count]->mutex);
		catalog_xmins[count] = slots[count]->data.catalog_xmin;
		SpinLockRelease(&slots[count]->mutex);
		found[count++] = &specs[i];
	}
	replsync_slot_write(slots, count);
	give_up_rows(found, slots, catalog_xmins, count);
	LWLockRelease(ReplicationSlotAllocationLock);
	ReplicationSlotsComputeRequiredLSN();
}
