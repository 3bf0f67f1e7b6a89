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

// Server is what every kind of worker asks of its server.
type Server interface {
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

	// Progress shows how far a pass has come. It does not wait until that is so.
	Progress(ctx context.Context, phase string, done, total int) error

	// Query runs one SQL statement in a transaction of its own, in the database of the worker.
	Query(ctx context.Context, sql string) (Rows, error)
}

// Host is the server that the slot worker runs in.
type Host interface {
	Server

	// EndNap ends the nap under way, or the next one.
	EndNap(ctx context.Context) error

	// Slots lists all replication slots. The list stays as it is: callers do not change it.
	Slots(ctx context.Context) ([]Slot, error)

	// ReserveWAL keeps WAL, snapshots and mapping files from lsn on, until it is called with another lsn or with
	// 0, which releases them. A valid catalogXmin asks the primary to keep catalog rows from there on, as a copy would.
	// It must be released before the pass ends.
	ReserveWAL(ctx context.Context, lsn LSN, catalogXmin XID) error

	// CreateSlots makes persistent logical slots, each with exactly these values, or not at all. Those that do not fail are on disk
	// when it returns. Each needs that something is reserved (ReserveWAL), and fails with
	// ErrCode "58P01" (undefined_file) if WAL from RestartLSN is not here, "3D000" if the database is not here
	// (yet), "42710" if the name is taken, "53400" if no slot is free, "55000" once this server is being promoted.
	CreateSlots(ctx context.Context, slots []Slot) []error

	// UpdateSlot gives a copy of ours exactly these values, except that a confirmed_flush_lsn
	// never goes back. It writes to disk only where something other than ConfirmedFlushLSN changes, and before the
	// change can have an effect on what is kept. A slot that has no marker is refused ("55006" if in use), but for
	// one that core's own synchronization left behind (17 and later: synced): it is adopted. On a server that is not in recovery
	// the marker alone is written, also of a slot in use.
	UpdateSlot(ctx context.Context, slot Slot) error

	// MoveSlots moves copies of ours, in memory alone: of each the three positions go forward, and nothing else differs from
	// what it was listed as. What the old position requires is kept until SaveSlots has brought the new one to
	// disk.
	MoveSlots(ctx context.Context, slots []Slot) ([]Move, error)

	// SaveSlots brings copies to disk that were to move, with what is left of the move. Without Unsaved one goes on to ask the
	// primary for the catalog rows that the old position required. Each fails with ErrCode "42704" where the
	// slot is not that copy any more, "55006" if it is in the way of what is left that it is in use.
	SaveSlots(ctx context.Context, slots []Slot) []error

	// DropSlots drops copies of ours, also synced ones in recovery. A slot that has no marker is refused unless it was made while
	// this server was a primary, as a failover slot (17 and later) or any slot on 15 must have been. So is any ("55000") once this
	// server is being promoted or was.
	DropSlots(ctx context.Context, names []string) []error

	// DropPromoted drops a copy on a server that was promoted.
	DropPromoted(ctx context.Context, name string) error

	// WALAvailable tells whether the segment of lsn is here and not being removed.
	WALAvailable(ctx context.Context, lsn LSN) (bool, error)

	// IsRunningXacts tells whether the WAL record at lsn, which has to be received, is a list of running transactions.
	IsRunningXacts(ctx context.Context, lsn LSN) (bool, error)

	// RequestFeedback makes the walreceiver send hot standby feedback at once, by a SIGHUP.
	RequestFeedback(ctx context.Context) error

	// PassDone publishes what a pass found, for the views and the callers of sync_slots().
	PassDone(ctx context.Context, pass Pass) error

	// CommandDone answers the command that the last Wakeup carried.
	CommandDone(ctx context.Context, value int64, err error) error

	// AwaitCheck waits until somebody calls failover_check(), whatever else the worker does meanwhile.
	AwaitCheck(ctx context.Context) error

	// CheckDone answers those who had called when AwaitCheck returned.
	CheckDone(ctx context.Context, rows []CheckRow) error
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
	Timeout, Reload, Sync, Cancel, News bool
	Command                             Command
	Argument                            string
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
	FeedbackLapses   uint32 // how often hot standby feedback was off since a worker before this one was last told
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
	// Unsaved slots have a RestartLSN or a CatalogXmin that disk has not. Given to UpdateSlot, the slot is written in any case.
	Unsaved bool
	Index   int32 // a hint for the shim

	// Marked slots are copies that replsync made. Marker is kept in the slot's directory, so that it
	// dies with the slot and is left out of base backups; at most 255 bytes.
	Marked bool
	Marker string
}

// Move is what became of a slot that was to move.
type Move uint8

// Moves, as in core_api.h.
const (
	MoveRefused   Move = iota // UpdateSlot does it, or says why not
	MoveConfirmed             // ConfirmedFlushLSN alone
	MoveAll
)

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

// SameButTime tells whether two rows say the same, but for the time.
func (s *SlotStatus) SameButTime(other *SlotStatus) bool {
	x := *s
	x.LastSyncAt = other.LastSyncAt
	return x == *other
}
