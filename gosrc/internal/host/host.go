// Package host is what the core sees of the PostgreSQL server it runs in.
//
// A [Host] is implemented by the request queue to the shim (gosrc/cmd/core) and, for tests,
// by [github.com/replsync/replsync/gosrc/internal/host/hosttest.Fake]. Every method is
// synchronous, may be called from any goroutine, and returns when the server's main thread has
// carried the request out, or when ctx is done.
package host

import (
	"context"
	"time"
)

// Host is the server this core runs in.
type Host interface {
	// Log writes to the server log.
	Log(ctx context.Context, level Level, msg Message) error

	// Nap waits until the timeout is over or something wants the worker. A negative timeout waits
	// for ever. The end of a nap is the beginning of a pass: callers of sync_slots() that have come
	// until then are served by the pass that follows.
	Nap(ctx context.Context, timeout time.Duration, show State) (Wakeup, error)

	// Settings returns the values of server parameters in their base units, "" for an unknown one.
	Settings(ctx context.Context, names ...string) ([]string, error)

	// Environment returns the server's environment variables that begin with PG, HOME and USER of the account it
	// runs under, and libpq's compiled-in SOCKETDIR and SYSCONFDIR. Go's own environment is empty inside a server process.
	Environment(ctx context.Context) (map[string]string, error)

	// Recovery returns where this server stands.
	Recovery(ctx context.Context) (Recovery, error)

	// Slots lists all replication slots.
	Slots(ctx context.Context) ([]Slot, error)

	// ReserveWAL keeps WAL, snapshots and mapping files from lsn on, until it is called with another lsn or with
	// 0, which releases them. A valid catalogXmin asks the primary to keep catalog rows from there on, as a copy would.
	// It must be released before the pass ends.
	ReserveWAL(ctx context.Context, lsn LSN, catalogXmin XID) error

	// CreateSlot makes a persistent logical slot with exactly these values, or nothing. It fails with
	// ErrCode "58P01" (undefined_file) if WAL from RestartLSN is not here, "3D000" if the database is not here
	// (yet), "42710" if the name is taken, "53400" if no slot is free, "55000" once this server is being promoted.
	CreateSlot(ctx context.Context, slot Slot) error

	// UpdateSlot gives a copy of ours exactly these values, except that a confirmed_flush_lsn
	// never goes back. It writes to disk only where something other than ConfirmedFlushLSN changes, and before the
	// change can have an effect on what is kept. A slot that has no marker is refused ("55006" if in use), but for
	// one that core's own synchronization left behind (17 and later: synced): it is adopted. On a server that is not in recovery
	// the marker alone is written, also of a slot in use.
	UpdateSlot(ctx context.Context, slot Slot) error

	// DropSlot drops a copy of ours, also a synced one in recovery. A slot that has no marker and is not, on 17
	// and later, a failover slot on a standby is refused.
	DropSlot(ctx context.Context, name string) error

	// WALAvailable tells whether the segment of lsn is here and not being removed.
	WALAvailable(ctx context.Context, lsn LSN) (bool, error)

	// RequestFeedback makes the walreceiver send hot standby feedback at once, by a SIGHUP.
	RequestFeedback(ctx context.Context) error

	// Progress shows how far a pass has come.
	Progress(ctx context.Context, phase string, done, total int) error

	// PassDone publishes what a pass found, for the views and the callers of sync_slots().
	PassDone(ctx context.Context, pass Pass) error

	// CommandDone answers the command that the last Wakeup carried.
	CommandDone(ctx context.Context, value int64, err error) error

	// Query runs one SQL statement in a transaction of its own, in the database of the worker.
	Query(ctx context.Context, sql string) (Rows, error)
}

// Rows is a result in text form; nil is NULL.
type Rows [][]*string

// Level is the severity of a log line.
type Level int32

// Levels, as in core_api.h.
const (
	Debug   Level = 0
	Info    Level = 1 // LOG in PostgreSQL's words
	Warning Level = 2
)

// State is what worker_status shows.
type State int32

// States, as in core_api.h.
const (
	Starting State = iota
	NotStandby
	Off
	Napping
	Running
	Blocked
)

// Wakeup says why a nap ended.
type Wakeup struct {
	Timeout, Reload, Sync, Cancel bool
	Command                       Command
	Argument                      string
}

// Command is something a SQL function asked for, other than a pass.
type Command int32

// Commands, as in core_api.h.
const (
	NoCommand Command = 0
	DropSlots Command = 1 // Argument is a pattern
)

// Recovery is where a server stands.
type Recovery struct {
	SystemIdentifier uint64
	Timeline         uint32
	ReplayLSN        LSN
	FlushLSN         LSN // WAL up to here is on disk here: received or replayed, of the same timeline
	WALSegmentSize   uint64
	NextXID          XID // replayed
	WalReceiverPID   int32
	ServerVersionNum int // of the running server: behaviour depends on the minor version
	InRecovery       bool
	PromoteTriggered bool
	LogicalDecoding  bool // a logical slot could work here
	ReloadTime       time.Time
}

// Slot is a replication slot of this server.
type Slot struct {
	Name              string
	Plugin            string
	Database          uint32 // oid; the same on a primary and its standbys
	RestartLSN        LSN
	ConfirmedFlushLSN LSN
	TwoPhaseAt        LSN
	CatalogXmin       XID
	ActivePID         int32
	Logical           bool
	Temporary         bool
	TwoPhase          bool
	Failover          bool // 17 and later
	Synced            bool // 17 and later
	Invalidated       bool
	Invalidation      string // core's word for the cause

	// Marked slots are copies that replsync made. Marker is kept in the slot's directory, so that it
	// dies with the slot and is left out of base backups; at most 255 bytes.
	Marked bool
	Marker string
}

// Pass is the outcome of one pass over the slots.
type Pass struct {
	Duration time.Duration
	State    State
	Err      error        // nil: success
	Slots    []SlotStatus // replaces what is shown; nil with Err set: what is shown stays
}

// SlotStatus is a row of slot_status and of sync_slots().
type SlotStatus struct {
	Name, Database, Plugin  string
	State                   string // ready, waiting, invalidated, failed, foreign
	Action                  string // created, updated, unchanged, dropped, skipped, failed
	Reason, Hint            string
	Error                   string // of this pass
	RemoteRestartLSN        LSN
	RemoteConfirmedFlushLSN LSN
	RestartLSN              LSN
	ConfirmedFlushLSN       LSN
	LastSyncAt              time.Time
}
