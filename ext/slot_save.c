/*
 * Bringing a slot to disk.
 *
 * It is what ReplicationSlotSave() (slot.c) does, with two fsyncs instead of four: of the new file before it gets its
 * name, and of the directory that then holds the name. Those of several slots come together: a file system that keeps
 * a journal brings all to disk with the first. The slots need not be taken for it, but must not be dropped
 * meanwhile: the caller has them, or holds ReplicationSlotAllocationLock.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "slot.h"

/* ReplicationSlotOnDisk (slot.c), which is not public. What comes before the data is taken from the file itself */
typedef struct StateFile
{
	uint32 magic;
	pg_crc32c checksum;
	uint32 version;
	uint32 length;
	ReplicationSlotPersistentData data;
} StateFile;

/* A file of the server's that was as expected: what comes before the data is the same in all of them */
static StateFile sample;
static bool has_sample = false;

/* Let the server save a slot whose file is not as expected: it saves the one that is taken */
static void
save_by_core(ReplicationSlot *slot)
{
	ReplicationSlot *taken = MyReplicationSlot;

	MyReplicationSlot = slot;
	PG_TRY();
	{
		ReplicationSlotSave();
	}
	PG_FINALLY();
	{
		MyReplicationSlot = taken;
	}
	PG_END_TRY();
}

/* Compute the checksum of a file */
static pg_crc32c
checksum(const StateFile *file)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &file->version, sizeof(StateFile) - offsetof(StateFile, version));
	FIN_CRC32C(crc);
	return crc;
}

/* Read the file as it is; false if it is none that this server's headers describe */
static bool
read_state(const char *path, StateFile *file)
{
	int fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	ssize_t len;
	char more;

	if (fd < 0)
		return false;
	len = read(fd, file, sizeof(*file));
	if (len == sizeof(*file) && read(fd, &more, 1) != 0)
		len = -1;
	CloseTransientFile(fd);
	if (len != sizeof(*file) || file->length != sizeof(file->data) ||
		!EQ_CRC32C(checksum(file), file->checksum))
		return false;
	sample = *file;
	has_sample = true;
	return true;
}

/* Give up a new file, with errno as it is or, if there is none, no space left */
static void
fail_write(const char *path, int fd)
{
	int save_errno = errno != 0 ? errno : ENOSPC;

	if (fd >= 0)
		CloseTransientFile(fd);
	unlink(path);
	errno = save_errno;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", path)));
}

/* Make an empty file, and open it */
static int
create_file(const char *path)
{
	int fd = OpenTransientFile(path, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);

	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
	return fd;
}

/* Make a file with this content, which is on disk then; its name may not be */
void
replsync_write_file(const char *path, const void *content, size_t len)
{
	int fd = create_file(path);

	errno = 0;
	if (write(fd, content, len) != (ssize_t) len || pg_fsync(fd) != 0)
		fail_write(path, fd);
	if (CloseTransientFile(fd) != 0)
		fail_write(path, -1);
}

/* Write the file of a slot that is yet to be made */
void
replsync_slot_write_new(const char *dir, const ReplicationSlotPersistentData *data)
{
	char path[MAXPGPATH];
	StateFile file;

	/* The server has written that of the reservation, in the same pass. */
	if (!has_sample && !read_state("pg_replslot/" REPLSYNC_RESERVATION "/state", &file))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("cannot tell what the file of a replication slot looks like"),
				 errdetail("The one of replication slot \"%s\" is missing, or is not as expected.", REPLSYNC_RESERVATION)));
	file = sample;
	file.data = *data;
	file.checksum = checksum(&file);
	snprintf(path, sizeof(path), "%s/state", dir);
	replsync_write_file(path, &file, sizeof(file));
}

/* Take note of what a slot has on disk; hold its mutex */
void
replsync_slot_note_saved(ReplicationSlot *slot, const ReplicationSlotPersistentData *data)
{
#if PG_VERSION_NUM >= 170000
	slot->last_saved_confirmed_flush = data->confirmed_flush;
#endif
#if PG_VERSION_NUM >= 180000
	slot->last_saved_restart_lsn = data->restart_lsn;
#endif
}

/* Path of the file of a slot, or of the one that is to take its place */
static void
state_path(char *path, const ReplicationSlot *slot, const char *suffix)
{
	snprintf(path, MAXPGPATH, "pg_replslot/%s/state%s", NameStr(slot->data.name), suffix);
}

/* A slot that is being written */
typedef struct SlotWrite
{
	ReplicationSlot *slot;
	StateFile file;
	int fd;		  /* of the new file, while it is open */
	bool written; /* there is a new file, which has not got its name yet */
} SlotWrite;

/* Write the new file of a slot, if it is dirty */
static void
write_new_state(SlotWrite *w)
{
	char path[MAXPGPATH];
	bool dirty;

	SpinLockAcquire(&w->slot->mutex);
	dirty = w->slot->dirty;
	w->slot->just_dirtied = false;
	memcpy(&w->file.data, &w->slot->data, sizeof(w->file.data));
	SpinLockRelease(&w->slot->mutex);
	if (!dirty)
		return;
	w->file.checksum = checksum(&w->file);
	state_path(path, w->slot, ".tmp");
	w->fd = create_file(path);
	w->written = true;
	errno = 0;
	if (write(w->fd, &w->file, sizeof(w->file)) != (ssize_t) sizeof(w->file))
		fail_write(path, -1);
	/* on its way, so that the fsync of another file finds it in its transaction */
	pg_flush_data(w->fd, 0, 0);
}

/* Make the new file of a slot durable, and give it its name */
static void
rename_new_state(SlotWrite *w)
{
	char tmppath[MAXPGPATH];
	char path[MAXPGPATH];
	int fd = w->fd;

	state_path(tmppath, w->slot, ".tmp");
	state_path(path, w->slot, "");
	w->fd = -1;
	if (pg_fsync(fd) != 0)
		fail_write(tmppath, fd);
	if (CloseTransientFile(fd) != 0 || rename(tmppath, path) != 0)
		fail_write(tmppath, -1);
	w->written = false;
}

/* Write the new files of slots whose locks are held, and make each durable, under its name too */
static void
write_states(SlotWrite *writes, int n)
{
	bool *renamed = palloc0(sizeof(bool) * n);

	for (int i = 0; i < n; i++)
		write_new_state(&writes[i]);
	for (int i = 0; i < n; i++)
	{
		renamed[i] = writes[i].written;
		if (renamed[i])
			rename_new_state(&writes[i]);
	}

	/* After a failure nobody would know which of the files a crash brings back (CreateSlotOnDisk(), slot.c). */
	START_CRIT_SECTION();
	for (int i = 0; i < n; i++)
	{
		char dir[MAXPGPATH];

		snprintf(dir, sizeof(dir), "pg_replslot/%s", NameStr(writes[i].slot->data.name));
		if (renamed[i])
			fsync_fname(dir, true);
	}
	END_CRIT_SECTION();
	for (int i = 0; i < n; i++)
	{
		ReplicationSlot *slot = writes[i].slot;

		if (!renamed[i])
			continue;
		SpinLockAcquire(&slot->mutex);
		if (!slot->just_dirtied)
			slot->dirty = false;
		replsync_slot_note_saved(slot, &writes[i].file.data);
		SpinLockRelease(&slot->mutex);
	}
	pfree(renamed);
}

/* Remove what a failure has left of the new files: the server would not save such a slot again */
static void
remove_new_states(SlotWrite *writes, int n)
{
	for (int i = 0; i < n; i++)
	{
		char path[MAXPGPATH];

		if (writes[i].fd >= 0)
			CloseTransientFile(writes[i].fd);
		state_path(path, writes[i].slot, ".tmp");
		if (writes[i].written)
			unlink(path);
	}
}

/*
 * Bring those of the slots to disk that are dirty. The locks of all are held at once; whoever else holds one holds no
 * second, and waits for nothing.
 */
void
replsync_slot_write(ReplicationSlot **slots, int n)
{
	SlotWrite *writes = palloc0(sizeof(SlotWrite) * n);
	int count = 0;

	for (int i = 0; i < n; i++)
	{
		char path[MAXPGPATH];

		state_path(path, slots[i], "");
		if (!read_state(path, &writes[count].file))
		{
			save_by_core(slots[i]);
			continue;
		}
		writes[count].slot = slots[i];
		writes[count++].fd = -1;
	}
	for (int i = 0; i < count; i++)
		LWLockAcquire(&writes[i].slot->io_in_progress_lock, LW_EXCLUSIVE);
	PG_TRY();
	{
		write_states(writes, count);
	}
	PG_CATCH();
	{
		remove_new_states(writes, count);
		PG_RE_THROW();
	}
	PG_END_TRY();
	for (int i = 0; i < count; i++)
		LWLockRelease(&writes[i].slot->io_in_progress_lock);
	pfree(writes);
}
