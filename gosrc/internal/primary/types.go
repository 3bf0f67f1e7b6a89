package primary

import "github.com/replsync/replsync/gosrc/internal/host"

// State is what one round trip shows. The physical slot was read before the logical ones: where it protects catalog
// rows from an xid on, and a logical slot read later still holds that xid, nothing was removed in between.
type State struct {
	InRecovery       bool
	VersionNum       int
	WALLevel         string // the effective one on 19 and later
	SystemIdentifier uint64
	Timeline         uint32   // that WAL is written on; 0 in recovery
	PostmasterStart  string   // identifies the run of the server
	PrimarySlotName  string   // what it streams from as a standby
	Feedback         bool     // it sends hot standby feedback as a standby
	OldestXmin       host.XID // the oldest xmin of all slots, this standby's included; 0: none has one
	Physical         PhysicalSlot
	Slots            []Slot // by name
	Files            Access // how files can be read
	KeepsRows        bool   // KeepRows is possible
}

// PhysicalSlot is the slot that the standby streams from.
type PhysicalSlot struct {
	Exists      bool
	Xmin        host.XID // 0: none
	CatalogXmin host.XID // 0: none
	// WalSender identifies the walsender process that uses the slot; "" if there is none.
	WalSender string
}

// Slot is a logical slot that is not temporary and not being made.
type Slot struct {
	Name              string
	Plugin            string
	Database          string
	DatabaseOID       uint32
	RestartLSN        host.LSN
	ConfirmedFlushLSN host.LSN
	CatalogXmin       host.XID
	TwoPhase          bool
	// TwoPhaseAt is 0 with TwoPhase set if it could not be read.
	TwoPhaseAt   host.LSN
	Failover     bool   // 17 and later
	Invalidation string // the server's word for the cause, "" for a valid slot
}

// Access is a way to read the files of pg_logical.
type Access int

// Ways to read files.
const (
	NoAccess Access = iota
	ByExtension
	ByReadBinaryFile
)

// Source names the mapping files that a slot needs: those of a database, and of the shared catalogs, from LSN on.
type Source struct {
	Database uint32
	From     host.LSN
}
