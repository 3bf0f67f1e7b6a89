package slotsync

import "fmt"

// Versions in which the server's behaviour changed.
const (
	firstConflict   = 16 // replay invalidates slots whose rows it removes
	firstCatChange  = 16 // snapshot files name the running transactions that changed catalogs
	firstFailover   = 17 // slots have the flags failover and synced
	firstTwoPhaseAt = 18 // pg_replication_slots shows two_phase_at
	firstDynamic    = 19 // logical decoding is switched on by the first slot
)

const nameLen = 64 // NAMEDATALEN

// placeholder is the plugin of a copy that is not proven. START_REPLICATION fails on loading it.
const placeholder = "replsync_not_ready"

// States and actions of a row.
const (
	stateReady       = "ready"
	stateWaiting     = "waiting"
	stateInvalidated = "invalidated"
	stateFailed      = "failed"
	stateForeign     = "foreign"

	actionCreated   = "created"
	actionUpdated   = "updated"
	actionUnchanged = "unchanged"
	actionDropped   = "dropped"
	actionSkipped   = "skipped"
	actionFailed    = "failed"
)

// reason says in one word why a slot is not ready, or not at the primary's position.
type reason string

// The first four are core's (pg_replication_slots.slotsync_skip_reason, 19).
const (
	reasonNone            reason = ""
	reasonRemoved         reason = "wal_or_rows_removed"
	reasonNotFlushed      reason = "wal_not_flushed"
	reasonNoSnapshot      reason = "no_consistent_snapshot"
	reasonInvalidated     reason = "slot_invalidated"
	reasonFeedback        reason = "feedback_pending"
	reasonNoFeedback      reason = "feedback_off"
	reasonNotProtected    reason = "catalog_xmin_not_protected"
	reasonDatabase        reason = "database_not_replayed"
	reasonDecoding        reason = "logical_decoding_off"
	reasonNoSlot          reason = "no_free_slot"
	reasonInUse           reason = "slot_in_use"
	reasonTwoPhase        reason = "two_phase_at_unknown"
	reasonNotWanted       reason = "not_wanted"
	reasonNotOurs         reason = "name_taken"
	reasonDropped         reason = "dropped_by_other"
	reasonAhead           reason = "ahead_of_primary"
	reasonGone            reason = "slot_dropped"
	reasonNotReached      reason = "primary_not_reached"
	reasonNotSynchronized reason = "not_synchronized"
	reasonError           reason = "error"
)

// hint says what to do about a reason, or what will happen.
func (r reason) hint(name string) string {
	switch r {
	case reasonRemoved:
		return "This standby does not have the WAL that the slot still needs. It will be copied once its consumer has confirmed more, or after a new base backup."
	case reasonNotFlushed:
		return "The consumer has confirmed more than this standby has received; see synchronized_standby_slots or replsync.synchronized_standby_slots on the primary."
	case reasonNoSnapshot:
		return "The slot moved on while its snapshot was read. It is tried again in the next pass."
	case reasonInvalidated:
		return "The slot is invalidated on the primary. Drop it there, and let its consumer make a new one."
	case reasonFeedback:
		return "The primary has not yet been seen to act on this standby's hot standby feedback; it is sent every wal_receiver_status_interval."
	case reasonNoFeedback:
		return "Set hot_standby_feedback to on and wal_receiver_status_interval above 0 here, and primary_slot_name to a physical slot that exists on the primary."
	case reasonNotProtected:
		return "The primary keeps the catalog rows that the slot needs for its own slot only. This ends when the worker's role may call replsync.keep_catalog_rows() there, or the consumer has confirmed more."
	case reasonDatabase:
		return "The slot's database is not here yet. The slot is copied once its creation has been replayed."
	case reasonDecoding:
		return "The change to logical decoding on the primary has not been replayed here yet, or wal_level does not permit it."
	case reasonNoSlot:
		return "Raise max_replication_slots on this standby: it needs one slot more than there are copies, while one is made."
	case reasonInUse:
		return "Another process uses the slot here. It is tried again in the next pass."
	case reasonTwoPhase:
		return "The slot decodes prepared transactions, and from where on it does cannot be read: grant EXECUTE on replsync.logical_slot_two_phase_at(name) on the primary."
	case reasonNotWanted:
		return fmt.Sprintf("replsync.slots no longer names the slot. Run SELECT replsync.drop_slots('%s') to drop the copy.", name)
	case reasonNotOurs:
		return fmt.Sprintf("If the slot is not needed on this standby, drop it with SELECT pg_drop_replication_slot('%s').", name)
	case reasonDropped:
		return "Something other than replsync dropped the copy. A high-availability tool may have to be told to leave it alone (Patroni: ignore_slots)."
	case reasonAhead:
		return "The slot on the primary stands behind the copy, as if it had been made anew, and it cannot be copied again: the WAL for that is not here, or the files of the primary may not be read. This ends when its consumer has confirmed more."
	case reasonGone:
		return "The slot was dropped on the primary while it was looked at. The next pass drops its copy."
	case reasonNotReached:
		return "The primary has not been reached since the worker started; see replsync.worker_status. The copy is as it was left."
	case reasonNotSynchronized:
		return "The worker is off (replsync.sync_slots) or cannot work; see replsync.worker_status. The copy is as it was left."
	case reasonNone, reasonError:
	}
	return ""
}
