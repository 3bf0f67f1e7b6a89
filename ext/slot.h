/*
 * Replication slots of this server, as the core sees them.
 *
 * All of it is for the main thread of a background worker without a database, outside a
 * transaction: what needs one brings its own. After an ERROR replsync_slot_error_cleanup()
 * must run before the transaction is aborted.
 */
#ifndef REPLSYNC_SLOT_H
#define REPLSYNC_SLOT_H

#include "access/xlogdefs.h"
#include "lib/stringinfo.h"
#include "replication/slot.h"

#include "core_api.h"

/* The slot that holds WAL, snapshots and mapping files during a pass. */
#define REPLSYNC_RESERVATION "replsync_reservation"

/* slot.c: making one copy, and what is common to all that is done to one */
extern void replsync_slot_create(const CoreSlot *spec);
extern void replsync_slot_error_cleanup(void);
extern void replsync_slot_register_exit(void);
extern void replsync_slot_begin(void);
extern void replsync_slot_lock_database(Oid database);
extern bool replsync_slot_is_copy(void);
extern void replsync_slot_set_data(ReplicationSlotPersistentData *data, const CoreSlot *spec);
extern void replsync_slot_set_failover(ReplicationSlotPersistentData *data, const CoreSlot *spec);
extern void replsync_slot_publish(ReplicationSlot *slot, const ReplicationSlotPersistentData *data);
extern void replsync_slot_release(void);

/* slot_update.c: giving one copy other values */
extern void replsync_slot_update(const CoreSlot *spec);
extern void replsync_slot_end_update(void);

/* slot_drop.c: dropping one */
extern void replsync_slot_drop(const CoreSlot *spec);
extern void replsync_slot_drop_acquired(void);

/* slot_make.c: a new one, step by step */
extern void replsync_slot_make_files(const CoreSlot *spec);
extern void replsync_slot_make_entry(void);
extern void replsync_slot_make_name(void);
extern void replsync_slot_end_make(void);
extern void replsync_slot_sync_names(void);

/* slot_move.c: many slots, in memory first */
extern void replsync_slot_move(const CoreSlot *specs, int n, StringInfo out);
extern void replsync_slot_save(const CoreSlot *specs, int n, StringInfo out);

/* slot_save.c: the files of slots */
extern void replsync_slot_write(ReplicationSlot **slots, int n);
extern void replsync_slot_write_new(const char *dir, const ReplicationSlotPersistentData *data);
extern void replsync_write_file(const char *path, const void *content, size_t len);
extern void replsync_slot_note_saved(ReplicationSlot *slot, const ReplicationSlotPersistentData *data);

/* slot_list.c: all slots, and what is known of each */
extern void replsync_slot_list(StringInfo out);
extern bool replsync_any_copy(void);
extern bool replsync_slot_unsaved(const ReplicationSlot *slot);
extern const char *replsync_slot_invalidation(const ReplicationSlot *slot);
extern void replsync_slot_set_inactive_since(ReplicationSlot *slot, TimestampTz since);
extern int replsync_slot_owner(const ReplicationSlot *slot);
extern bool replsync_marker_read(const char *slot, char *marker);
extern bool replsync_marker_look(int place, const char *slot, char *marker);
extern bool replsync_marker_write(const char *slot, const char *marker);
extern void replsync_marker_write_new(const char *dir, const char *marker);
extern void replsync_marker_sync(const char *slot);

/* slot_original.c: the slots of a primary */
extern void replsync_mark_originals(void);

/* slot_xmin.c: which catalog rows the slots hold */
extern void replsync_slot_set_xmin(ReplicationSlot *slot, TransactionId catalog_xmin);
extern void replsync_slot_set_xmins(ReplicationSlot *const *slots, const TransactionId *catalog_xmins, int n);

/* slot_wal.c: what the slots hold here, and where this server stands */
extern void replsync_slot_reserve(XLogRecPtr lsn, TransactionId catalog_xmin);
extern bool replsync_reservation_lost(void);
extern void replsync_reservation_give_up(void);
extern bool replsync_wal_available(XLogRecPtr lsn);
extern bool replsync_is_running_xacts(XLogRecPtr lsn);
extern XLogRecPtr replsync_flush_lsn(TimeLineID *tli);
extern bool replsync_restartpoint_is_running(void);
extern void replsync_check_standby(void);
extern bool replsync_logical_decoding_possible(void);
extern int replsync_running_version(void);
extern void replsync_recovery_state(CoreRecovery *out);
extern void replsync_request_feedback(void);

/* slot_feedback.c: lapses of feedback that nobody may have looked at */
extern void replsync_feedback_init(void);
extern Size replsync_feedback_size(void);
extern void replsync_feedback_startup(void);
extern void replsync_feedback_attach(void);
extern uint32 replsync_feedback_lapses(void);

#endif
