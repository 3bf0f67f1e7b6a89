/*
 * What a primary keeps for a standby, beyond what the standby's feedback can ask for.
 *
 * Feedback moves the catalog_xmin of a standby's physical slot forward only (PhysicalReplicationSlotNewXmin(),
 * walsender.c). A logical slot can be older than that: then the rows that a copy of it needs are kept for
 * the logical slot alone, and go when it moves on, however soon feedback asks for them.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "compat.h"
#include "replsync.h"
#include "slot.h"

PG_FUNCTION_INFO_V1(replsync_keep_catalog_rows);

/* The oldest catalog_xmin of valid logical slots, 0 if there is none; hold ReplicationSlotControlLock */
static TransactionId
oldest_logical_xmin(void)
{
	TransactionId oldest = InvalidTransactionId;

	for (int i = 0; i < TOTAL_REPLICATION_SLOTS; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		TransactionId xmin = InvalidTransactionId;

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		if (SlotIsLogical(slot) && replsync_slot_invalidation(slot) == NULL)
			xmin = slot->effective_catalog_xmin;
		SpinLockRelease(&slot->mutex);
		if (TransactionIdIsValid(xmin) &&
			(!TransactionIdIsValid(oldest) || TransactionIdPrecedes(xmin, oldest)))
			oldest = xmin;
	}
	return oldest;
}

/*
 * Have a physical slot that keeps catalog rows keep them from wanted on, and return from where on it does. 0: it keeps
 * none. Hold ReplicationSlotControlLock.
 */
static TransactionId
keep_from(ReplicationSlot *slot, TransactionId wanted)
{
	TransactionId kept = InvalidTransactionId;

	SpinLockAcquire(&slot->mutex);
	if (SlotIsPhysical(slot) && replsync_slot_invalidation(slot) == NULL)
		kept = slot->data.catalog_xmin;
	if (TransactionIdIsNormal(kept) && TransactionIdPrecedes(wanted, kept))
	{
		kept = wanted;
		slot->data.catalog_xmin = wanted;
		slot->effective_catalog_xmin = wanted;
		slot->just_dirtied = true;
		slot->dirty = true;
	}
	SpinLockRelease(&slot->mutex);
	return kept;
}

/*
 * keep_catalog_rows(slot_name, catalog_xmin): have a standby's physical slot keep catalog rows from catalog_xmin on, or, where
 * no logical slot keeps them from there on, from where one does. Returns from where on it keeps them.
 *
 * The standby must ask for as much before, or its next feedback moves the slot forward again. The rows are there: a logical slot
 * has kept them since it was made. While the lock is held exclusively nobody looks for the oldest slot: who looks later sees this
 * one too, and who has seen the logical slot further on before has done so after it showed that here. The oldest of all does not
 * change, so there is nothing to publish.
 *
 * It is on disk before anybody counts on it: after a crash of the primary no feedback would bring it back. Nobody drops the slot
 * until then (CheckPointReplicationSlots(), slot.c).
 */
Datum
replsync_keep_catalog_rows(PG_FUNCTION_ARGS)
{
	Name name = PG_GETARG_NAME(0);
	TransactionId wanted = PG_GETARG_TRANSACTIONID(1);
	TransactionId kept = InvalidTransactionId;
	TransactionId there;
	ReplicationSlot *slot;

	replsync_require_replication();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("Catalog rows are kept by the slots of the primary.")));
	if (!TransactionIdIsNormal(wanted))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("transaction ID must be that of an ordinary transaction")));

	LWLockAcquire(ReplicationSlotAllocationLock, LW_SHARED);
	LWLockAcquire(ReplicationSlotControlLock, LW_EXCLUSIVE);
	slot = SearchNamedReplicationSlot(NameStr(*name), false);
	there = oldest_logical_xmin();
	if (slot != NULL && TransactionIdIsValid(there))
		kept = keep_from(slot, TransactionIdPrecedes(wanted, there) ? there : wanted);
	LWLockRelease(ReplicationSlotControlLock);
	if (TransactionIdIsValid(kept))
		replsync_slot_write(&slot, 1);
	LWLockRelease(ReplicationSlotAllocationLock);

	if (!TransactionIdIsValid(kept))
		PG_RETURN_NULL();
	PG_RETURN_TRANSACTIONID(kept);
}
