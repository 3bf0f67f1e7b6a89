/*
 * Making a slot with three fsyncs.
 *
 * ReplicationSlotCreate() (slot.c) takes seven, for a slot that has no values yet and must be saved once more when it has. Here all that
 * is to be on disk is written once, into a directory whose name ends with ".tmp", which a restart removes
 * (StartupReplicationSlots(), slot.c), and is synced there. Then the slot gets its entry in shared memory, and the directory its
 * name when everything that the slot needs is known to be held: a crash brings back the whole slot or nothing of it.
 * The names of several slots are brought to disk together.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/builtins.h"

#include "compat.h"
#include "slot.h"

#define SLOTS_DIR "pg_replslot"
#define NEW_DIR	  SLOTS_DIR "/%s.new.tmp"

/* The slot that is being made: what it is to be. No name: none is */
static ReplicationSlotPersistentData making;

/* Names of directories that a crash may take back */
static bool names_unsynced = false;

/* Write the directory of a slot, durably but for its name */
void
replsync_slot_make_files(const CoreSlot *spec)
{
	ReplicationSlotPersistentData data;
	char dir[MAXPGPATH];
	struct stat st;

	COMPAT_VALIDATE_SLOT_NAME(spec->name);
	memset(&data, 0, sizeof(data));
	namestrcpy(&data.name, spec->name);
	data.persistency = RS_PERSISTENT;
	replsync_slot_set_data(&data, spec);
	replsync_slot_set_failover(&data, spec);

	snprintf(dir, sizeof(dir), NEW_DIR, spec->name);
	if (stat(dir, &st) == 0)
		(void) rmtree(dir, true); /* if it stays, the next step says so */
	making = data;
	if (MakePGDirectory(dir) < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", dir)));
	replsync_slot_write_new(dir, &data);
	replsync_marker_write_new(dir, spec->marker);
	fsync_fname(dir, true);
}

/* Find a free entry, and verify that no slot has the name; hold ReplicationSlotAllocationLock */
static ReplicationSlot *
find_free_entry(const char *name)
{
	ReplicationSlot *found = NULL;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < TOTAL_REPLICATION_SLOTS; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (slot->in_use && strcmp(name, NameStr(slot->data.name)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("replication slot \"%s\" already exists", name)));
		if (!slot->in_use && found == NULL && i < max_replication_slots)
			found = slot;
	}
	LWLockRelease(ReplicationSlotControlLock);
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("all replication slots are in use"),
				 errhint("Free one or increase \"%s\".", "max_replication_slots")));
	return found;
}

/* Give a free entry its values. Nobody looks at it, but who would allocate it, and those wait */
static void
fill_entry(ReplicationSlot *slot)
{
	slot->data = making;
	/* it is gone after an error, and nobody's copy, until its directory has its name */
	slot->data.persistency = RS_TEMPORARY;
	slot->just_dirtied = false;
	slot->dirty = false;
	slot->effective_xmin = InvalidTransactionId;
	slot->effective_catalog_xmin = InvalidTransactionId;
	slot->candidate_catalog_xmin = InvalidTransactionId;
	slot->candidate_xmin_lsn = InvalidXLogRecPtr;
	slot->candidate_restart_valid = InvalidXLogRecPtr;
	slot->candidate_restart_lsn = InvalidXLogRecPtr;
	replsync_slot_note_saved(slot, &making);
#if PG_VERSION_NUM >= 170000
	slot->data.failover = false;
	slot->data.synced = false;
	slot->inactive_since = 0;
#endif
#if PG_VERSION_NUM >= 190000
	slot->slotsync_skip_reason = SS_SKIP_NONE;
#endif
}

/* Set who owns an entry that nobody else can take: this process, or nobody */
static void
set_owner(ReplicationSlot *slot, bool own)
{
	SpinLockAcquire(&slot->mutex);
#if PG_VERSION_NUM >= 190000
	slot->active_proc = own ? MyProcNumber : INVALID_PROC_NUMBER;
#else
	slot->active_pid = own ? MyProcPid : 0;
#endif
	SpinLockRelease(&slot->mutex);
}

/*
 * Give the slot an entry in shared memory, as ReplicationSlotCreate() (slot.c) does, which holds what it requires from then on; and
 * take it.
 */
void
replsync_slot_make_entry(void)
{
	ReplicationSlot *slot;

	/*
	 * As ReplicationSlotReserveWal() (slot.c) does: a restartpoint takes this lock
	 * before it computes what to keep, so it sees the position, or it has begun
	 * and who asks for the WAL after this knows.
	 */
	LWLockAcquire(ReplicationSlotAllocationLock, LW_EXCLUSIVE);
	slot = find_free_entry(NameStr(making.name));
	fill_entry(slot);
	LWLockAcquire(ReplicationSlotControlLock, LW_EXCLUSIVE);
	slot->in_use = true;
	set_owner(slot, true);
	MyReplicationSlot = slot;
	LWLockRelease(ReplicationSlotControlLock);
	pgstat_create_replslot(slot);
	ReplicationSlotsComputeRequiredLSN();
	LWLockRelease(ReplicationSlotAllocationLock);
	ConditionVariableBroadcast(&slot->active_cv);
	replsync_slot_set_xmin(slot, making.catalog_xmin);
}

/* Give the directory its name: from here on the slot is there, with all that it is to be */
void
replsync_slot_make_name(void)
{
	ReplicationSlot *slot = MyReplicationSlot;
	char dir[MAXPGPATH];
	char path[MAXPGPATH];

	snprintf(dir, sizeof(dir), NEW_DIR, NameStr(making.name));
	snprintf(path, sizeof(path), SLOTS_DIR "/%s", NameStr(making.name));
	if (rename(dir, path) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rename file \"%s\" to \"%s\": %m", dir, path)));
	names_unsynced = true;
	SpinLockAcquire(&slot->mutex);
	slot->data = making;
	SpinLockRelease(&slot->mutex);
	memset(&making, 0, sizeof(making));
}

/* Free the entry of the slot, which has no files under its name, as ReplicationSlotDropPtr() (slot.c) does */
static void
free_entry(ReplicationSlot *slot)
{
	LWLockAcquire(ReplicationSlotAllocationLock, LW_EXCLUSIVE);
	LWLockAcquire(ReplicationSlotControlLock, LW_EXCLUSIVE);
	set_owner(slot, false);
	slot->in_use = false;
	MyReplicationSlot = NULL;
	LWLockRelease(ReplicationSlotControlLock);
	ConditionVariableBroadcast(&slot->active_cv);
	ReplicationSlotsComputeRequiredXmin(false);
	ReplicationSlotsComputeRequiredLSN();
	pgstat_drop_replslot(slot);
	LWLockRelease(ReplicationSlotAllocationLock);
}

/* Give up a slot that is being made */
void
replsync_slot_end_make(void)
{
	char dir[MAXPGPATH];

	if (NameStr(making.name)[0] == '\0')
		return;
	if (MyReplicationSlot != NULL)
		free_entry(MyReplicationSlot);
	snprintf(dir, sizeof(dir), NEW_DIR, NameStr(making.name));
	memset(&making, 0, sizeof(making));
	(void) rmtree(dir, true);
}

/* Bring the names of the slots that were made to disk */
void
replsync_slot_sync_names(void)
{
	if (!names_unsynced)
		return;

	/* After a failure nobody would know which of them a crash brings back (CreateSlotOnDisk(), slot.c). */
	START_CRIT_SECTION();
	fsync_fname(SLOTS_DIR, true);
	END_CRIT_SECTION();
	names_unsynced = false;
}
