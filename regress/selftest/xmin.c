/*
 * ext/slot_xmin.c with a release that is set by hand: the order of its locks goes by the running one. The names are others, as
 * before 16 libraries see each other's.
 */
#define replsync_running_version   selftest_running_version
#define replsync_slot_set_xmin	   selftest_set_xmin
#define replsync_slot_invalidation selftest_slot_invalidation

#include "../../ext/slot_xmin.c"

#include "fmgr.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(selftest_hold);

static int version_by_hand;

/* Return the release that was set */
int
replsync_running_version(void)
{
	return version_by_hand;
}

/* There are only valid slots */
const char *
replsync_slot_invalidation(const ReplicationSlot *slot)
{
	return NULL;
}

/*
 * Have a slot hold catalog rows from an xid on, again and again, as a release would; returns what the slots together
 * hold then, as vacuum sees it.
 */
Datum
selftest_hold(PG_FUNCTION_ARGS)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(NameStr(*PG_GETARG_NAME(0)), true);
	TransactionId xmin;
	TransactionId catalog_xmin;

	if (slot == NULL)
		elog(ERROR, "there is no such slot");
	version_by_hand = PG_GETARG_INT32(2);
	for (int i = 0; i < PG_GETARG_INT32(3); i++)
	{
		CHECK_FOR_INTERRUPTS();
		replsync_slot_set_xmin(slot, PG_GETARG_TRANSACTIONID(1));
	}
	ProcArrayGetReplicationSlotXmin(&xmin, &catalog_xmin);
	PG_RETURN_TRANSACTIONID(catalog_xmin);
}
