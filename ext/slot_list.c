/*
 * The list of slots, and the markers that tell our copies from other slots.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "slot.h"

/*
 * The marker of a copy, a file in the slot's directory: it dies with the slot, base backups
 * and pg_rewind leave it out, and RestoreSlotFromDisk() (slot.c) reads nothing but "state".
 */
#define MARKER_NAME "replsync"
#define MARKER_PATH "pg_replslot/%s/" MARKER_NAME

/* How long markers are taken to be what they were where nothing tells otherwise, in milliseconds */
#define LOOK_AGAIN_MS 1000

/* Return why a slot is invalid, in the words of pg_replication_slots, or NULL */
const char *
replsync_slot_invalidation(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 180000
	if (slot->data.invalidated != RS_INVAL_NONE)
		return GetSlotInvalidationCauseName(slot->data.invalidated);
#elif PG_VERSION_NUM >= 170000
	if (slot->data.invalidated != RS_INVAL_NONE)
		return SlotInvalidationCauses[slot->data.invalidated];
#elif PG_VERSION_NUM >= 160000
	/* 16 has no words for it; these are the ones of 17 */
	switch (slot->data.invalidated)
	{
		case RS_INVAL_NONE:
			break;
		case RS_INVAL_WAL_REMOVED:
			return "wal_removed";
		case RS_INVAL_HORIZON:
			return "rows_removed";
		case RS_INVAL_WAL_LEVEL:
			return "wal_level_insufficient";
	}
#else
	if (slot->data.invalidated_at != InvalidXLogRecPtr &&
		slot->data.restart_lsn == InvalidXLogRecPtr)
		return "wal_removed";
#endif
	return NULL;
}

/* Return the pid of the process that uses a slot, or 0 */
int
replsync_slot_owner(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 190000
	if (slot->active_proc == INVALID_PROC_NUMBER)
		return 0;
	return GetPGProcByNumber(slot->active_proc)->pid;
#else
	return slot->active_pid;
#endif
}

/*
 * Read the marker of a slot. A marker that can't be read counts as none: the slot
 * is then nobody's to touch.
 */
bool
replsync_marker_read(const char *slot, char *marker)
{
	char path[MAXPGPATH];
	int fd;
	ssize_t len;

	memset(marker, 0, CORE_MARKER_LEN);
	snprintf(path, sizeof(path), MARKER_PATH, slot);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		if (errno != ENOENT)
			ereport(WARNING,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", path)));
		return false;
	}
	len = read(fd, marker, CORE_MARKER_LEN - 1);
	if (len < 0)
	{
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", path)));
		memset(marker, 0, CORE_MARKER_LEN);
	}
	CloseTransientFile(fd);
	return len >= 0;
}

/* A marker as it was read, and the file that it was read from; inode 0: it was not */
typedef struct KnownMarker
{
	char slot[CORE_NAME_LEN];
	ino_t inode;
	struct timespec changed;
	char marker[CORE_MARKER_LEN];
} KnownMarker;

/* By place in the array of slots */
static KnownMarker *known = NULL;

/* This process has written a marker since all were looked at */
static bool marker_written = false;

/*
 * Read the marker of the slot at a place of the array, unless it is known. Markers are replaced and never
 * changed (replsync_marker_write()), so the file's inode and time tell.
 */
bool
replsync_marker_look(int place, const char *slot, char *marker)
{
	KnownMarker *last;
	char path[MAXPGPATH];
	struct stat st;

	if (known == NULL)
		known = MemoryContextAllocZero(TopMemoryContext, sizeof(KnownMarker) * TOTAL_REPLICATION_SLOTS);
	last = &known[place];
	snprintf(path, sizeof(path), MARKER_PATH, slot);
	if (stat(path, &st) != 0)
	{
		last->inode = 0; /* what is known is about a slot of the past */
		return replsync_marker_read(slot, marker);
	}
	if (last->inode != st.st_ino || last->changed.tv_sec != st.st_ctim.tv_sec ||
		last->changed.tv_nsec != st.st_ctim.tv_nsec || strcmp(last->slot, slot) != 0)
	{
		last->inode = 0;
		if (!replsync_marker_read(slot, last->marker))
			return false;
		strlcpy(last->slot, slot, sizeof(last->slot));
		last->inode = st.st_ino;
		last->changed = st.st_ctim;
	}
	memcpy(marker, last->marker, CORE_MARKER_LEN);
	return true;
}

/*
 * Are all markers what they were when they were looked at last, not long ago? Only this process writes any, and a slot that
 * is made or dropped changes the directory of slots.
 */
static bool
markers_are_known(void)
{
	static struct timespec changed;
	static TimestampTz looked = 0;
	static bool settled = false;
	TimestampTz now = GetCurrentTimestamp();
	struct stat st;

	if (stat("pg_replslot", &st) != 0)
		return false;
	if (settled && !marker_written && changed.tv_sec == st.st_ctim.tv_sec &&
		changed.tv_nsec == st.st_ctim.tv_nsec && now >= looked &&
		!TimestampDifferenceExceeds(looked, now, LOOK_AGAIN_MS))
		return true;

	/* What changes after this look has another time, as the time of before is long over. */
	settled = time(NULL) - st.st_ctim.tv_sec > 1;
	changed = st.st_ctim;
	looked = now;
	marker_written = false;
	return false;
}

/*
 * Write the marker of a slot, if it is another one than before, and tell whether it was. The file
 * is on disk then, its name only after replsync_marker_sync() or the save of the slot, which
 * syncs the directory too (SaveSlotToPath(), slot.c).
 */
bool
replsync_marker_write(const char *slot, const char *marker)
{
	char path[MAXPGPATH];
	char tmppath[MAXPGPATH];
	char before[CORE_MARKER_LEN];
	size_t len = strnlen(marker, CORE_MARKER_LEN - 1);

	if (replsync_marker_read(slot, before) &&
		strlen(before) == len && memcmp(before, marker, len) == 0)
		return false;

	snprintf(path, sizeof(path), MARKER_PATH, slot);
	snprintf(tmppath, sizeof(tmppath), MARKER_PATH ".tmp", slot);
	marker_written = true;
	replsync_write_file(tmppath, marker, len);
	if (rename(tmppath, path) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rename file \"%s\" to \"%s\": %m", tmppath, path)));
	return true;
}

/* Write the marker of a slot that is yet to be made */
void
replsync_marker_write_new(const char *dir, const char *marker)
{
	char path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/" MARKER_NAME, dir);
	replsync_write_file(path, marker, strnlen(marker, CORE_MARKER_LEN - 1));
}

/* Make sure that the marker is found again after a crash */
void
replsync_marker_sync(const char *slot)
{
	char path[MAXPGPATH];

	snprintf(path, sizeof(path), "pg_replslot/%s", slot);
	fsync_fname(path, true);
}

/* Does disk lag behind what a slot has in memory, other than in confirmed_flush? */
bool
replsync_slot_unsaved(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 180000
	if (slot->last_saved_restart_lsn != slot->data.restart_lsn)
		return true;
#endif
	return slot->effective_catalog_xmin != slot->data.catalog_xmin;
}

/* Fill in a slot from a copy of its entry in shared memory */
static void
describe_slot(const ReplicationSlot *slot, CoreSlot *out)
{
	const char *invalidation = replsync_slot_invalidation(slot);

	strlcpy(out->name, NameStr(slot->data.name), sizeof(out->name));
	strlcpy(out->plugin, NameStr(slot->data.plugin), sizeof(out->plugin));
	out->restart_lsn = slot->data.restart_lsn;
	out->confirmed_flush_lsn = slot->data.confirmed_flush;
	out->two_phase_at = slot->data.two_phase_at;
	out->catalog_xmin = slot->data.catalog_xmin;
	out->database = slot->data.database;
	out->active_pid = replsync_slot_owner(slot);
	if (SlotIsLogical(slot))
		out->flags |= CORE_SLOT_LOGICAL;
	if (slot->data.persistency != RS_PERSISTENT)
		out->flags |= CORE_SLOT_TEMPORARY;
	if (slot->data.persistency == RS_PERSISTENT && replsync_slot_unsaved(slot))
		out->flags |= CORE_SLOT_UNSAVED;
	if (slot->data.two_phase)
		out->flags |= CORE_SLOT_TWO_PHASE;
#if PG_VERSION_NUM >= 170000
	if (slot->data.failover)
		out->flags |= CORE_SLOT_FAILOVER;
	if (slot->data.synced)
		out->flags |= CORE_SLOT_SYNCED;
#endif
	if (invalidation != NULL)
	{
		out->flags |= CORE_SLOT_INVALIDATED;
		strlcpy(out->invalidation, invalidation, sizeof(out->invalidation));
	}
}

/* Set since when a slot is idle; 0: it is not, for as long as nobody takes it */
void
replsync_slot_set_inactive_since(ReplicationSlot *slot, TimestampTz since)
{
#if PG_VERSION_NUM >= 170000
	SpinLockAcquire(&slot->mutex);
	slot->inactive_since = since;
	SpinLockRelease(&slot->mutex);
#endif
}

/*
 * A copy is as idle as the primary's slot, which is what counts. Core exempts those that carry
 * synced only (CanInvalidateIdleSlot(), slot.c, 18 and later), and a restart begins the time anew.
 */
static void
keep_from_idling(const CoreSlot *found)
{
	ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[found->index];

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	if (slot->in_use && strcmp(NameStr(slot->data.name), found->name) == 0 &&
		replsync_slot_owner(slot) == 0)
		replsync_slot_set_inactive_since(slot, 0);
	LWLockRelease(ReplicationSlotControlLock);
}

/* Put all slots of this server into out, which is empty, as an array of CoreSlot */
void
replsync_slot_list(StringInfo out)
{
	CoreSlot *slots;
	size_t size = sizeof(CoreSlot) * TOTAL_REPLICATION_SLOTS;
	int count = 0;
	bool markers_known = markers_are_known();

	if (TOTAL_REPLICATION_SLOTS <= 0)
		return;
	enlargeStringInfo(out, (int) size);
	slots = (CoreSlot *) out->data;
	memset(slots, 0, size);

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < TOTAL_REPLICATION_SLOTS; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		ReplicationSlot copy;

		/* cannot change while the lock is held */
		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		copy = *slot;
		SpinLockRelease(&slot->mutex);
		describe_slot(&copy, &slots[count]);
		slots[count++].index = i;
	}
	LWLockRelease(ReplicationSlotControlLock);

	/*
	 * Files are read without the lock. Where a slot is replaced meanwhile, its
	 * marker is read again before anything is done to it.
	 */
	for (int i = 0; i < count; i++)
	{
		const KnownMarker *last = known != NULL ? &known[slots[i].index] : NULL;

		if (markers_known && last != NULL && last->inode != 0 && strcmp(last->slot, slots[i].name) == 0)
			memcpy(slots[i].marker, last->marker, CORE_MARKER_LEN);
		else if (!replsync_marker_look(slots[i].index, slots[i].name, slots[i].marker))
			continue;
		slots[i].flags |= CORE_SLOT_MARKED;
		if (RecoveryInProgress())
			keep_from_idling(&slots[i]);
	}
	out->len = (int) (sizeof(CoreSlot) * count);
}

/* Is any slot of this server a copy, or was it one? */
bool
replsync_any_copy(void)
{
	StringInfoData list;
	bool found = false;

	initStringInfo(&list);
	replsync_slot_list(&list);
	for (const CoreSlot *slot = (CoreSlot *) list.data;
		 !found && (char *) (slot + 1) <= list.data + list.len; slot++)
		found = (slot->flags & CORE_SLOT_MARKED) != 0 && strcmp(slot->marker, CORE_MARKER_ORIGINAL) != 0;
	pfree(list.data);
	return found;
}
