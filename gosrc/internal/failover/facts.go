package failover

import (
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// Facts are what a check goes by.
type Facts struct {
	Now   time.Time
	Here  Here
	There *primary.Inspection // nil: the primary was not reached
	// ThereErr says why not; Elsewhere that what was reached is not the primary.
	ThereErr  *host.Message
	Elsewhere bool
	NoAccess  *host.Message // the connection's role may not read the files that copies need
	Passes    Passes
	// Lapsed says that there are signs of a lapse of hot standby feedback since what Passes.Rows shows was found.
	Lapsed bool

	// Kept are the names that are to be kept, of those on the primary.
	Kept map[string]bool
}

// Here is this server.
type Here struct {
	Recovery host.Recovery
	Slots    []host.Slot
	IsCopy   func(host.Slot) bool

	SyncSlots           bool
	CoreSync            bool // sync_replication_slots
	HotStandbyFeedback  bool
	StatusInterval      int // wal_receiver_status_interval, in seconds
	NaptimeMax          time.Duration
	PrimarySlotName     string // on the primary: that of the standby in between, if there is one
	Cascaded            bool   // there is one
	WALLevel            string
	MaxReplicationSlots int
	MaxSlotWALKeepSize  string // -1: no limit
	IdleTimeout         string // idle_replication_slot_timeout, "" before 18
	OutputPlugins       string // output_plugin_libraries, "" where the server has no such parameter
	HoldBack            string // the list of physical slots that logical walsenders will wait for
}

// Passes is what the worker's passes have found so far.
type Passes struct {
	Rows    []host.SlotStatus // as last shown
	Last    time.Time         // when the last good one began; zero: there was none
	Trying  time.Time         // since when they find no primary, or one is under way; zero: neither
	LastWAL time.Time         // when WAL was last seen to arrive, since the last good one
	Refused *host.Message     // why the worker does nothing, if so
	Failed  *host.Message     // why the last one failed, if so
}
