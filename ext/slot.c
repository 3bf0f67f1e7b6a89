/*
 * Making a copy of a slot of the primary, and what is common to making, moving and dropping one.
 *
 * Each operation takes the slot and gives it back before it returns, under a lock on
 * the slot's database: replay of DROP DATABASE ends the whole standby if it meets a
 * slot that is in use (ReplicationSlotsDropDBSlots(), slot.c), and waits for the lock.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "slot.h"

/* datconnlimit of a database whose DROP DATABASE has begun; since 15.4, so no older header has it */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

/* Give up the slots before the transaction and its database lock end with the process */
static void
slot_shmem_exit(int code, Datum arg)
{
	replsync_slot_error_cleanup();
	replsync_slot_sync_names();
}

/* See to it that nothing is left held when the process ends */
void
replsync_slot_register_exit(void)
{
	static bool registered = false;

	/*
	 * Callbacks run last in, first out, so this comes before the ones of
	 * InitPostgres(), which abort the transaction first and release slots later.
	 */
	if (!registered)
	{
		before_shmem_exit(slot_shmem_exit, (Datum) 0);
		registered = true;
	}
}

/* Begin a transaction, for the database lock */
void
replsync_slot_begin(void)
{
	replsync_slot_register_exit();
	StartTransactionCommand();
}

/* Keep replay of DROP DATABASE away until the end of the transaction */
void
replsync_slot_lock_database(Oid database)
{
	LockSharedObject(DatabaseRelationId, database, 0, AccessShareLock);
}

/*
 * Verify that a database is here. Its row is not enough: replay removes the files and
 * the slots of a dropped database before the row goes, with the commit.
 */
static void
check_database(Oid database)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool exists = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		char *path = GetDatabasePath(database, form->dattablespace);

		exists = form->datconnlimit != DATCONNLIMIT_INVALID_DB && access(path, F_OK) == 0;
		pfree(path);
		ReleaseSysCache(tuple);
	}
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_DATABASE),
				 errmsg("database with OID %u does not exist", database),
				 errdetail("Its creation has not been replayed here yet, or it has been dropped.")));
}

/* Put data into a slot of ours, without anything that decoding had in mind for it */
void
replsync_slot_publish(ReplicationSlot *slot, const ReplicationSlotPersistentData *data)
{
	SpinLockAcquire(&slot->mutex);
	memcpy(&slot->data, data, sizeof(slot->data));
	slot->candidate_catalog_xmin = InvalidTransactionId;
	slot->candidate_xmin_lsn = InvalidXLogRecPtr;
	slot->candidate_restart_valid = InvalidXLogRecPtr;
	slot->candidate_restart_lsn = InvalidXLogRecPtr;
	SpinLockRelease(&slot->mutex);
}

/*
 * Give up whatever an operation that failed holds, half-made slots included. Run it
 * before the transaction, and with it the database lock, is gone.
 */
void
replsync_slot_error_cleanup(void)
{
	/* Dropping takes locks that the failed operation may hold */
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	pgstat_report_wait_end();
	replsync_slot_end_update();
	replsync_slot_end_make();

	if (MyReplicationSlot != NULL)
	{
		if (MyReplicationSlot->data.persistency != RS_PERSISTENT)
			replsync_slot_drop_acquired();
		else
			ReplicationSlotRelease();
	}
}

/* Is the slot in use a copy that may be changed? */
bool
replsync_slot_is_copy(void)
{
	char marker[CORE_MARKER_LEN];

	if (SlotIsPhysical(MyReplicationSlot) || MyReplicationSlot->data.persistency != RS_PERSISTENT)
		return false;
#if PG_VERSION_NUM >= 170000
	/* made by core's slot synchronization: adopt it, but not once it has become the slot itself */
	if (MyReplicationSlot->data.synced && RecoveryInProgress())
		return true;
#endif
	return replsync_marker_read(NameStr(MyReplicationSlot->data.name), marker);
}

/* Set the marks by which core's own tools and guards know a copy; hold the mutex */
void
replsync_slot_set_failover(ReplicationSlotPersistentData *data, const CoreSlot *spec)
{
#if PG_VERSION_NUM >= 170000
	data->failover = (spec->flags & CORE_SLOT_FAILOVER) != 0;
	data->synced = (spec->flags & CORE_SLOT_SYNCED) != 0;
#endif
}

/*
 * Give a slot's data the values of spec. A position never goes back: what was
 * held from there on may be gone, and what was confirmed stays confirmed.
 */
void
replsync_slot_set_data(ReplicationSlotPersistentData *data, const CoreSlot *spec)
{
	data->database = spec->database;
	namestrcpy(&data->plugin, spec->plugin);
	data->restart_lsn = Max(data->restart_lsn, spec->restart_lsn);
	data->confirmed_flush = Max(data->confirmed_flush, spec->confirmed_flush_lsn);
	if (TransactionIdFollows(spec->catalog_xmin, data->catalog_xmin))
		data->catalog_xmin = spec->catalog_xmin;
	data->two_phase = (spec->flags & CORE_SLOT_TWO_PHASE) != 0;
	data->two_phase_at = spec->two_phase_at;
}

/* Give a copy back; it is not idle in the sense of idle_replication_slot_timeout (18) */
void
replsync_slot_release(void)
{
	ReplicationSlot *slot = MyReplicationSlot;

	ReplicationSlotRelease();
	replsync_slot_set_inactive_since(slot, 0);
}

/* Verify that the WAL that a copy requires is here, and is not being removed */
static void
require_wal(const CoreSlot *spec)
{
	if (!replsync_wal_available(spec->restart_lsn))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("WAL that replication slot \"%s\" requires is not available", spec->name),
				 errdetail("The WAL segment of position %X/%X is not on this server, or is being removed.",
						   LSN_FORMAT_ARGS(spec->restart_lsn))));
}

/* Make a copy with exactly these values, or nothing */
void
replsync_slot_create(const CoreSlot *spec)
{
	replsync_slot_begin();
	replsync_slot_lock_database(spec->database);
	check_database(spec->database);
	replsync_check_standby();
	if (replsync_reservation_lost())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("what replication slot \"%s\" requires is no longer reserved", spec->name),
				 errdetail("The reservation of this pass was in the way of replay.")));

	replsync_slot_make_files(spec);
	replsync_slot_make_entry();
	require_wal(spec);

	/*
	 * Replay that ends logical decoding invalidates the slots it finds, so it is
	 * asked once the slot can be found (EnsureLogicalDecodingEnabled(), logicalctl.c).
	 */
	if (!replsync_logical_decoding_possible())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("logical decoding is not possible on this server"),
				 errdetail("It requires \"wal_level\" to be \"logical\" here and on the primary, or what amounts to it from version 19 on.")));

	/*
	 * A promotion expects no synced slot in use (update_synced_slots_inactive_since(),
	 * slotsync.c), so the slot becomes one as late as can be.
	 */
	replsync_check_standby();

	/* A restartpoint that had begun before the slot may have gone on to remove WAL meanwhile. */
	require_wal(spec);
	replsync_slot_make_name();
	replsync_slot_release();
	CommitTransactionCommand();
}
