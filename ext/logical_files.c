/*
 * What a standby needs besides WAL to go on with a logical slot: the primary's
 * serialized snapshot at the slot's restart_lsn, and the mapping files of its database
 * since then. Nothing else can be read here, unlike with pg_read_binary_file().
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/rewriteheap.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/tuplestore.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "slot.h"

#define SNAPSHOT_DIR "pg_logical/snapshots"
#define MAPPING_DIR	 "pg_logical/mappings"

/* Twice the size must be possible: as text each byte takes two characters. */
#define MAX_FILE_SIZE (MaxAllocSize / 2 - 1024)

/* How much is read between two looks at interrupts. */
#define READ_SIZE (1024 * 1024)

PG_FUNCTION_INFO_V1(replsync_logical_snapshot);
PG_FUNCTION_INFO_V1(replsync_logical_mappings);
PG_FUNCTION_INFO_V1(replsync_logical_slot_two_phase_at);

/* Refuse a caller who may not use replication slots */
static void
check_permission(void)
{
	if (superuser() || has_rolreplication(GetUserId()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to read files of logical decoding"),
			 errhint("Only superusers and roles with the REPLICATION attribute may read them.")));
}

/* Read a whole file; NULL if it is not there */
static bytea *
read_file(const char *path)
{
	int fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	struct stat st;
	bytea *content;
	size_t done = 0;

	if (fd < 0)
	{
		if (errno == ENOENT)
			return NULL;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	}
	if (fstat(fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	if (st.st_size > (off_t) MAX_FILE_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("file \"%s\" is too large", path),
				 errdetail("It has %lld bytes; the limit is %lld.",
						   (long long) st.st_size, (long long) MAX_FILE_SIZE)));

	content = palloc(VARHDRSZ + st.st_size);
	while (done < (size_t) st.st_size)
	{
		ssize_t len = read(fd, VARDATA(content) + done,
						   Min((size_t) st.st_size - done, READ_SIZE));

		CHECK_FOR_INTERRUPTS();
		if (len < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", path)));
		if (len == 0)
			break;
		done += len;
	}
	SET_VARSIZE(content, VARHDRSZ + done);
	CloseTransientFile(fd);
	return content;
}

/* Return the serialized snapshot at a position, NULL if there is none */
Datum
replsync_logical_snapshot(PG_FUNCTION_ARGS)
{
	XLogRecPtr restart_lsn = PG_GETARG_LSN(0);
	char path[MAXPGPATH];
	bytea *content;

	check_permission();

	/* SnapBuildSerialize() (snapbuild.c) never pads, whatever pg_lsn's text does */
	snprintf(path, sizeof(path), SNAPSHOT_DIR "/%X-%X.snap", LSN_FORMAT_ARGS(restart_lsn));
	content = read_file(path);
	if (content == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(content);
}

/* Is this the name of a mapping file of a database, or of shared catalogs, since a position? */
static bool
is_mapping_since(const char *name, Oid database, XLogRecPtr since)
{
	char exact[MAXPGPATH];
	Oid dboid;
	Oid relid;
	uint32 hi;
	uint32 lo;
	TransactionId rewrite_xid;
	TransactionId create_xid;

	if (sscanf(name, LOGICAL_REWRITE_FORMAT,
			   &dboid, &relid, &hi, &lo, &rewrite_xid, &create_xid) != 6)
		return false;
	snprintf(exact, sizeof(exact), LOGICAL_REWRITE_FORMAT,
			 dboid, relid, hi, lo, rewrite_xid, create_xid);
	return strcmp(name, exact) == 0 &&
		   (dboid == database || dboid == InvalidOid) &&
		   ((uint64) hi << 32 | lo) >= since;
}

/*
 * Return the mapping files that decoding in a database needs from a position on, each with its
 * name. One that vanishes meanwhile was not needed by any slot of this server.
 */
Datum
replsync_logical_mappings(PG_FUNCTION_ARGS)
{
	Oid database = PG_GETARG_OID(0);
	XLogRecPtr since = PG_GETARG_LSN(1);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DIR *dir;
	struct dirent *entry;

	check_permission();
	InitMaterializedSRF(fcinfo, 0);

	dir = AllocateDir(MAPPING_DIR);
	while ((entry = ReadDir(dir, MAPPING_DIR)) != NULL)
	{
		char path[MAXPGPATH * 2];
		bytea *content;
		Datum values[2];
		bool nulls[2] = {false, false};

		CHECK_FOR_INTERRUPTS();
		if (!is_mapping_since(entry->d_name, database, since))
			continue;
		snprintf(path, sizeof(path), MAPPING_DIR "/%s", entry->d_name);
		content = read_file(path);
		if (content == NULL)
			continue;
		values[0] = CStringGetTextDatum(entry->d_name);
		values[1] = PointerGetDatum(content);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		pfree(DatumGetPointer(values[0]));
		pfree(content);
	}
	FreeDir(dir);
	return (Datum) 0;
}

/*
 * Return from where on a logical slot decodes prepared transactions, NULL if it doesn't or
 * does not exist: pg_replication_slots shows it from 18 on only.
 */
Datum
replsync_logical_slot_two_phase_at(PG_FUNCTION_ARGS)
{
	Name name = PG_GETARG_NAME(0);
	ReplicationSlot *slot;
	XLogRecPtr two_phase_at = InvalidXLogRecPtr;

	check_permission();
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(NameStr(*name), false);
	if (slot != NULL && SlotIsLogical(slot))
	{
		SpinLockAcquire(&slot->mutex);
		two_phase_at = slot->data.two_phase_at;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	if (two_phase_at == InvalidXLogRecPtr)
		PG_RETURN_NULL();
	PG_RETURN_LSN(two_phase_at);
}
