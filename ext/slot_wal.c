/*
 * What the slots hold here, the reservation of a pass among them, and where this
 * server stands in its recovery.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/stat.h>

#include "access/timeline.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "catalog/pg_database_d.h"
#include "common/controldata_utils.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#if PG_VERSION_NUM >= 190000
#include "replication/logicalctl.h"
#endif

#include "compat.h"
#include "slot.h"

/*
 * The database of the reservation: none can have this OID (createdb(), dbcommands.c, takes
 * no small one), so replay of DROP DATABASE never meets a slot in use.
 */
#define NO_DATABASE DatabaseRelationId

/* What this process has reserved, if anything */
static XLogRecPtr reserved = InvalidXLogRecPtr;

/* The reservation was given up before the pass gave it back */
static bool reservation_lost = false;

/* Refuse to touch a copy that may be in use as the slot itself any moment */
void
replsync_check_standby(void)
{
	if (!RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots can only be synchronized to a standby server")));
	if (PromoteIsTriggered())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots cannot be synchronized while the server is being promoted")));
}

/* Find the reservation if it is this process's */
static ReplicationSlot *
find_reservation(void)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(REPLSYNC_RESERVATION, true);

	/* nobody else can change or drop a temporary slot that is ours */
	if (slot == NULL || replsync_slot_owner(slot) != MyProcPid)
		return NULL;
	return slot;
}

/* Read pg_control, without a writer in between */
static ControlFileData *
read_control_file(void)
{
	ControlFileData *control;
	bool crc_ok;

	LWLockAcquire(ControlFileLock, LW_SHARED);
	control = get_controlfile(DataDir, &crc_ok);
	LWLockRelease(ControlFileLock);
	if (!crc_ok)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("calculated CRC checksum does not match value stored in file \"%s\"",
						XLOG_CONTROL_FILE)));
	return control;
}

/*
 * Is a restartpoint between its first and its last step, as far as can be seen? It moves the
 * redo pointer in shared memory when it begins, and the one in pg_control when it
 * has flushed everything and goes on to remove WAL (CreateRestartPoint(), xlog.c).
 */
bool
replsync_restartpoint_is_running(void)
{
	ControlFileData *control = read_control_file();
	bool running = control->checkPointCopy.redo != GetRedoRecPtr();

	pfree(control);
	return running;
}

/*
 * Return the position from which on every restartpoint keeps WAL whether it has begun
 * or not: the last redo pointer or the oldest slot, those of this pass left out.
 */
static XLogRecPtr
oldest_safe_lsn(void)
{
	XLogRecPtr oldest = GetRedoRecPtr();

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < TOTAL_REPLICATION_SLOTS; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		XLogRecPtr restart_lsn;

		if (!slot->in_use || slot == MyReplicationSlot ||
			strcmp(NameStr(slot->data.name), REPLSYNC_RESERVATION) == 0)
			continue;
		SpinLockAcquire(&slot->mutex);
		restart_lsn = slot->data.restart_lsn;
		if (replsync_slot_invalidation(slot) != NULL)
			restart_lsn = InvalidXLogRecPtr;
		SpinLockRelease(&slot->mutex);
		if (restart_lsn != InvalidXLogRecPtr && restart_lsn < oldest)
			oldest = restart_lsn;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return oldest;
}

/* Is there a file of this segment, of a timeline that replay has come along? */
static bool
segment_exists(XLogSegNo segno)
{
	TimeLineID tli;
	List *history;
	ListCell *cell;
	bool exists = false;

	(void) GetXLogReplayRecPtr(&tli);
	if (tli == 0)
		return false;
	history = readTimeLineHistory(tli);
	foreach (cell, history)
	{
		TimeLineHistoryEntry *entry = lfirst(cell);
		char path[MAXPGPATH];
		struct stat st;

		/* what an older timeline has after the switch is not our history */
		if (entry->end != InvalidXLogRecPtr && segno > entry->end / wal_segment_size)
			continue;
		XLogFilePath(path, entry->tli, segno, wal_segment_size);
		if (stat(path, &st) == 0)
		{
			exists = true;
			break;
		}
	}
	list_free_deep(history);
	return exists;
}

/*
 * Is WAL from a position on here, and not being removed? Without a reservation that
 * reaches as far back the answer holds for now only.
 */
bool
replsync_wal_available(XLogRecPtr lsn)
{
	XLogSegNo segno;
	XLogSegNo safe_segno;

	XLByteToSeg(lsn, segno, wal_segment_size);
	if (lsn == InvalidXLogRecPtr || segno <= XLogGetLastRemovedSegno() || !segment_exists(segno))
		return false;
	if (reserved != InvalidXLogRecPtr && reserved <= lsn && !replsync_reservation_lost())
		return true;

	XLByteToSeg(oldest_safe_lsn(), safe_segno, wal_segment_size);
	return segno >= safe_segno || !replsync_restartpoint_is_running();
}

/* Drop the reservation */
static void
drop_reservation(void)
{
	reserved = InvalidXLogRecPtr;
	if (find_reservation() != NULL)
		ReplicationSlotDrop(REPLSYNC_RESERVATION, true);
}

/*
 * Drop the reservation after an ERRCODE_T_R_SERIALIZATION_FAILURE, whatever it hit: where logical
 * decoding ends on the primary, replay asks for the slot once and then waits for it
 * (InvalidatePossiblyObsoleteSlot(), slot.c, 16 and later). Copies that would have
 * relied on the reservation are refused until there is another one.
 */
void
replsync_reservation_give_up(void)
{
	if (reserved == InvalidXLogRecPtr)
		return;
	reservation_lost = true;
	drop_reservation();
}

/* Was something reserved that is not held any more? */
bool
replsync_reservation_lost(void)
{
	ReplicationSlot *slot;

	if (reserved == InvalidXLogRecPtr)
		return reservation_lost;
	slot = find_reservation();
	return slot == NULL || replsync_slot_invalidation(slot) != NULL;
}

/* Take the reservation of this process, or make it */
static void
acquire_reservation(void)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(REPLSYNC_RESERVATION, true);

	if (slot == NULL)
	{
		COMPAT_CREATE_TEMPORARY_SLOT(REPLSYNC_RESERVATION, false);
		return;
	}
	if (find_reservation() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("replication slot \"%s\" is not this process's", REPLSYNC_RESERVATION),
				 errdetail("It is used by the process with PID %d.", replsync_slot_owner(slot)),
				 errhint("replsync needs this name for itself: drop the slot.")));
	COMPAT_ACQUIRE_SLOT(REPLSYNC_RESERVATION);
}

/*
 * Hold WAL, snapshots and mapping files from lsn on, as far as they are here, with a temporary
 * logical slot: restartpoints go by logical slots only when they remove snapshots and
 * mapping files (CheckPointSnapBuild(), CheckPointLogicalRewriteHeap()). Through feedback it also asks
 * the primary to keep catalog rows from catalog_xmin on, if that is valid. lsn 0 drops it.
 */
void
replsync_slot_reserve(XLogRecPtr lsn, TransactionId catalog_xmin)
{
	ReplicationSlot *slot;

	reservation_lost = false;
	if (lsn == InvalidXLogRecPtr)
	{
		drop_reservation();
		return;
	}
	replsync_check_standby();
	acquire_reservation();
	slot = MyReplicationSlot;

	/* a position whose WAL is not here would get the slot invalidated, and this process a SIGTERM */
	LWLockAcquire(ReplicationSlotAllocationLock, LW_EXCLUSIVE);
	reserved = InvalidXLogRecPtr;
	if (!replsync_wal_available(lsn))
		lsn = Max(lsn, oldest_safe_lsn());
	SpinLockAcquire(&slot->mutex);
	slot->data.database = NO_DATABASE;
	slot->data.restart_lsn = lsn;
	slot->data.catalog_xmin = catalog_xmin;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotsComputeRequiredLSN();
	LWLockRelease(ReplicationSlotAllocationLock);
	replsync_slot_set_xmin(slot, catalog_xmin);

	/* a temporary slot stays this process's */
	ReplicationSlotRelease();
	replsync_slot_set_inactive_since(slot, 0);
	reserved = lsn;
}

/* Could a logical slot work here, now or after a promotion? */
bool
replsync_logical_decoding_possible(void)
{
#if PG_VERSION_NUM >= 190000
	return IsLogicalDecodingEnabled();
#elif PG_VERSION_NUM >= 160000
	return wal_level >= WAL_LEVEL_LOGICAL &&
		   (!RecoveryInProgress() || GetActiveWalLevelOnStandby() >= WAL_LEVEL_LOGICAL);
#else
	/* what GetActiveWalLevelOnStandby() of 16 returns is in pg_control */
	ControlFileData *control = read_control_file();
	bool possible = wal_level >= WAL_LEVEL_LOGICAL &&
					(!RecoveryInProgress() || control->wal_level >= WAL_LEVEL_LOGICAL);

	pfree(control);
	return possible;
#endif
}

/* Return the version of the running server; behaviour can depend on the minor */
int
replsync_running_version(void)
{
	static int version = 0;

	if (version == 0)
		version = atoi(GetConfigOption("server_version_num", false, false));
	return version;
}

/* Where the WAL that is here ends, and the timeline of replay: as GetStandbyFlushRecPtr() (walsender.c), which is not for us */
XLogRecPtr
replsync_flush_lsn(TimeLineID *tli)
{
	TimeLineID receive_tli = 0;
	XLogRecPtr received = GetWalRcvFlushRecPtr(NULL, &receive_tli);
	XLogRecPtr replayed = GetXLogReplayRecPtr(tli);

	return receive_tli == *tli && received > replayed ? received : replayed;
}

/* Describe where this server stands */
void
replsync_recovery_state(CoreRecovery *out)
{
	TimeLineID replay_tli = 0;

	memset(out, 0, sizeof(*out));
	out->replay_lsn = GetXLogReplayRecPtr(NULL);
	out->flush_lsn = replsync_flush_lsn(&replay_tli);
	out->system_identifier = GetSystemIdentifier();
	out->feedback_lapses = replsync_feedback_lapses();
	out->in_recovery = RecoveryInProgress();
	out->promote_triggered = PromoteIsTriggered();
	out->logical_decoding = replsync_logical_decoding_possible();
	out->timeline = out->in_recovery ? replay_tli : GetWALInsertionTimeLine();
	out->wal_segment_size = wal_segment_size;

	/* what the walreceiver puts beside catalog_xmin (XLogWalRcvSendHSFeedback()) */
	out->next_xid = ReadNextTransactionId();
	out->server_version_num = replsync_running_version();
	out->reload_time = PgReloadTime +
					   (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

	SpinLockAcquire(&WalRcv->mutex);
	out->walreceiver_pid = WalRcv->pid;
	SpinLockRelease(&WalRcv->mutex);
}

/*
 * Let the walreceiver send hot standby feedback now: it does so when it has read the
 * configuration again, and at no other request.
 */
void
replsync_request_feedback(void)
{
	pid_t pid;

	SpinLockAcquire(&WalRcv->mutex);
	pid = WalRcv->pid;
	SpinLockRelease(&WalRcv->mutex);
	if (pid != 0)
		(void) kill(pid, SIGHUP);
}
