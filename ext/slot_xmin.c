/*
 * Which catalog rows the slots hold: the xmin that the procarray gets to know.
 */
#include "postgres.h"

#include "access/transam.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/spin.h"

#include "compat.h"
#include "slot.h"

/*
 * Which lock is to be taken first? The commit "Fix a race condition in updating
 * procArray->replication_slot_xmin" turned the order round in 15.16, 16.12, 17.8 and
 * 18.2: with the wrong one a backend that creates a slot and this process wait for
 * each other for ever, and every new connection for them.
 */
static bool
control_lock_comes_first(void)
{
	int version = replsync_running_version();

	switch (version / 10000)
	{
		case 15:
			return version >= 150016;
		case 16:
			return version >= 160012;
		case 17:
			return version >= 170008;
		case 18:
			return version >= 180002;
		default:
			return true;
	}
}

/* Set the oldest xmin over all slots, with both locks held */
static void
publish_xmin_locked(void)
{
	TransactionId xmin = InvalidTransactionId;
	TransactionId catalog_xmin = InvalidTransactionId;

	for (int i = 0; i < TOTAL_REPLICATION_SLOTS; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		TransactionId slot_xmin;
		TransactionId slot_catalog_xmin;
		bool invalidated;

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		slot_xmin = slot->effective_xmin;
		slot_catalog_xmin = slot->effective_catalog_xmin;
		invalidated = replsync_slot_invalidation(slot) != NULL;
		SpinLockRelease(&slot->mutex);

		if (invalidated)
			continue;
		if (TransactionIdIsValid(slot_xmin) &&
			(!TransactionIdIsValid(xmin) || TransactionIdPrecedes(slot_xmin, xmin)))
			xmin = slot_xmin;
		if (TransactionIdIsValid(slot_catalog_xmin) &&
			(!TransactionIdIsValid(catalog_xmin) ||
			 TransactionIdPrecedes(slot_catalog_xmin, catalog_xmin)))
			catalog_xmin = slot_catalog_xmin;
	}
	ProcArraySetReplicationSlotXmin(xmin, catalog_xmin, true);
}

/*
 * Let slots of ours hold catalog rows from these on, and publish the oldest of all.
 * This is ReplicationSlotsComputeRequiredXmin(true) (slot.c),
 * which takes a lock itself or expects it to be held, depending on the minor.
 */
void
replsync_slot_set_xmins(ReplicationSlot *const *slots, const TransactionId *catalog_xmins, int n)
{
	LWLock *first = control_lock_comes_first() ? ReplicationSlotControlLock : ProcArrayLock;
	LWLock *second = first == ProcArrayLock ? ReplicationSlotControlLock : ProcArrayLock;

	LWLockAcquire(first, LW_EXCLUSIVE);
	LWLockAcquire(second, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		SpinLockAcquire(&slots[i]->mutex);
		slots[i]->effective_catalog_xmin = catalog_xmins[i];
		SpinLockRelease(&slots[i]->mutex);
	}
	publish_xmin_locked();
	LWLockRelease(second);
	LWLockRelease(first);
}

/* The same for one */
void
replsync_slot_set_xmin(ReplicationSlot *slot, TransactionId catalog_xmin)
{
	replsync_slot_set_xmins(&slot, &catalog_xmin, 1);
}
