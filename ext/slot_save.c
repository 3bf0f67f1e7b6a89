/*
 * Bringing a slot to disk.
 *
 * It is what ReplicationSlotSave() (slot.c) does, with two fsyncs instead of four: of the new file before it gets its
 * name, and of the directory that then holds the name. The slot need not be taken for it, but must not be dropped
 * meanwhile: the caller has it, or holds ReplicationSlotAllocationLock.
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

/* Make a file with this content, which is on disk then; its name may not be */
void
replsync_write_file(const char *path, const void *content, size_t len)
{
	int fd = OpenTransientFile(path, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);

	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
	errno = 0;
	if (write(fd, content, len) != (ssize_t) len || pg_fsync(fd) != 0)
		fail_write(path, fd);
	if (CloseTransientFile(fd) != 0)
		fail_write(path, -1);
}

/* Write the file and make it durable, under its name too */
static void
write_state(const char *dir, const char *path, const StateFile *file)
{
	char tmppath[MAXPGPATH];

	snprintf(tmppath, sizeof(tmppath), "%s.tmp", path);
	replsync_write_file(tmppath, file, sizeof(*file));
	if (rename(tmppath, path) != 0)
		fail_write(tmppath, -1);

	/* After a failure nobody would know which of the files a crash brings back (CreateSlotOnDisk(), slot.c). */
	START_CRIT_SECTION();
	fsync_fname(dir, true);
	END_CRIT_SECTION();
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

/* Bring a slot to disk if it is dirty */
void
replsync_slot_write(ReplicationSlot *slot)
{
	char dir[MAXPGPATH];
	char path[MAXPGPATH];
	StateFile file;
	bool dirty;

	snprintf(dir, sizeof(dir), "pg_replslot/%s", NameStr(slot->data.name));
	snprintf(path, sizeof(path), "%s/state", dir);
	if (!read_state(path, &file))
	{
		save_by_core(slot);
		return;
	}

	LWLockAcquire(&slot->io_in_progress_lock, LW_EXCLUSIVE);
	SpinLockAcquire(&slot->mutex);
	dirty = slot->dirty;
	slot->just_dirtied = false;
	memcpy(&file.data, &slot->data, sizeof(file.data));
	SpinLockRelease(&slot->mutex);
	if (dirty)
	{
		file.checksum = checksum(&file);
		write_state(dir, path, &file);
		SpinLockAcquire(&slot->mutex);
		if (!slot->just_dirtied)
			slot->dirty = false;
		replsync_slot_note_saved(slot, &file.data);
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(&slot->io_in_progress_lock);
}
