package slotsync

import (
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Catalog rows that decoding from a copy needs are those that a transaction from the copy's catalog_xmin on removed or
// replaced. On the primary two things keep them: its own slot, from that slot's catalog_xmin on, and the standby's
// physical slot, from the catalog_xmin P on that the standby's feedback last asked for. Nothing here keeps them by
// itself: what the primary's vacuum removes, replay removes.
//
// So a copy is proven when the primary showed first that P protects it, and then that its own slot still had kept
// everything until then. From there on P does: feedback carries at most the oldest catalog_xmin of this standby's
// slots, and the primary never takes P back (PhysicalReplicationSlotNewXmin, walsender.c). For the same reason a copy
// older than P is protected by the primary's own slot alone, until P is taken back there (keepRows).
//
// From 16 on replay invalidates a slot whose rows it removes (ResolveRecoveryConflictWithSnapshot, standby.c). It does not see
// what VACUUM FULL leaves out of a new copy of a catalog (copy_table_data, cluster.c), which is no removal. On 15 nobody would
// notice anything.

// settleTime is how long feedback that was sent before a copy existed may take to arrive. It could raise P above the
// new copy after P has been looked at.
const settleTime = 500 * time.Millisecond

// evidence is what is known of one copy after one read of the primary.
type evidence struct {
	major   int
	p       host.XID // catalog_xmin of the physical slot, 0 if NULL
	remote  host.XID // catalog_xmin of the primary's slot, read after p
	gone    bool     // that slot is no longer there
	copy    host.XID // catalog_xmin of the copy
	need    host.XID // the primary's catalog_xmin that the copy stands for
	proven  bool     // by an earlier read, and no lapse since
	usable  bool     // the copy carries the real plugin
	settled bool     // no feedback from before the copy existed can be under way
}

// verdict is what follows from it.
type verdict struct {
	proven bool // stays so as long as there is no lapse
	ready  bool // safe after a promotion at this moment
	usable bool // may carry the real plugin
	reason reason
}

// judge tells whether a copy is ready.
func judge(e evidence) verdict {
	v := e.protection()
	v.ready = v.ready || v.proven
	// A copy that became unsafe is invalidated by replay from 16 on; until then the primary's word is newer than this
	// server's, so there is no need to take it out of use.
	v.usable = v.ready || e.usable && e.major >= firstConflict
	if v.ready {
		v.reason = reasonNone
	}
	return v
}

// held tells whether the primary's own slot keeps what the copy needs.
func (e evidence) held() bool { return !e.gone && !e.need.Precedes(e.remote) }

// short tells whether the physical slot does not keep what the copy needs, and could, as the primary's own slot does.
func (e evidence) short() bool { return e.p != 0 && e.copy.Precedes(e.p) && e.held() }

func (e evidence) protection() verdict {
	switch {
	case e.p == 0:
		return verdict{reason: reasonFeedback}
	case e.copy.Precedes(e.p):
		return verdict{ready: e.held() && e.major >= firstConflict, reason: reasonNotProtected}
	case e.proven:
		return verdict{proven: true}
	case !e.held():
		return verdict{reason: reasonNotProtected}
	case !e.settled:
		return verdict{reason: reasonFeedback}
	}
	return verdict{proven: true}
}

// settledAtOnce tells whether feedback that is under way cannot raise P above a copy that is made at catalogXmin.
// floor is the oldest catalog_xmin of this server's slots before, 0 if none: the most that feedback could ask for. p is
// the physical slot's. With no slot here feedback carries no catalog_xmin, and a P that is there may still vanish.
func settledAtOnce(floor, p, catalogXmin host.XID) bool {
	if floor == 0 {
		return p == 0
	}
	return !catalogXmin.Precedes(floor)
}

// oldestXmin is the oldest catalog_xmin of this server's slots, physical ones included; 0 if none has one.
func oldestXmin(slots []host.Slot) host.XID {
	oldest := host.XID(0)
	for _, s := range slots {
		if s.CatalogXmin != 0 && !s.Invalidated && (oldest == 0 || s.CatalogXmin.Precedes(oldest)) {
			oldest = s.CatalogXmin
		}
	}
	return oldest
}
