/*
 * Marking a primary's own slots, so that they are known for what they are if this server
 * becomes a standby: nothing else tells them from those that somebody makes on a
 * standby on purpose, but for the flag failover of version 17.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "slot.h"

#if PG_VERSION_NUM >= 160000

/* Mark a slot if it is still there and has no marker. The lock keeps it from being dropped or made anew. */
static void
mark_original(const char *name)
{
	char marker[CORE_MARKER_LEN];

	LWLockAcquire(ReplicationSlotAllocationLock, LW_SHARED);
	if (SearchNamedReplicationSlot(name, true) != NULL && !RecoveryInProgress() &&
		!replsync_marker_read(name, marker))
	{
		replsync_marker_write(name, CORE_MARKER_ORIGINAL);
		replsync_marker_sync(name);
	}
	LWLockRelease(ReplicationSlotAllocationLock);
}

/* Mark the slots of this primary that have no marker yet */
static void
mark_all(void)
{
	StringInfoData list;
	const CoreSlot *slot;

	initStringInfo(&list);
	replsync_slot_list(&list);
	for (slot = (CoreSlot *) list.data; (char *) (slot + 1) <= list.data + list.len; slot++)
	{
		if ((slot->flags & (CORE_SLOT_LOGICAL | CORE_SLOT_TEMPORARY | CORE_SLOT_MARKED)) == CORE_SLOT_LOGICAL)
			mark_original(slot->name);
	}
	pfree(list.data);
}

/* Mark the slots of this primary. What goes wrong is logged: it can be made good as long as this is a primary */
void
replsync_mark_originals(void)
{
	static bool failing = false;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		mark_all();
		failing = false;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (!failing)
			EmitErrorReport();
		failing = true;
		FlushErrorState();
		LWLockReleaseAll();
		AtEOXact_Files(false);
	}
	PG_END_TRY();
}

#else

/* Before 16 nobody makes a logical slot on a standby */
void
replsync_mark_originals(void)
{
}

#endif
