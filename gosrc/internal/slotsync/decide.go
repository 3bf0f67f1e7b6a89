package slotsync

import (
	"maps"
	"slices"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// step is what a pass does with a slot.
type step int

const (
	stepNone   step = iota // only shown
	stepCreate             // a copy is made, after an unusable one was dropped
	stepKeep               // a copy is there: moved if target differs from it
	stepDrop
)

// plan is what is to be done about one name, and what became of it.
type plan struct {
	name   string
	remote *primary.Slot // as the plan has it; nil: not on the primary
	readAt time.Time     // when remote was read
	seen   *primary.Slot // as read since; nil: not read again, or gone
	gone   bool          // it was read again and is gone
	local  *host.Slot    // as it is now; nil: not here
	mark   marker        // of local

	database uint32 // of local as it was at first

	step      step
	dropFirst bool      // local has to go before a copy can be made
	target    host.Slot // stepKeep: what local becomes; flags and plugin follow from readiness
	follows   bool      // target has the primary's catalog_xmin
	snapshot  host.LSN  // stepKeep: target needs the snapshot file there; 0: none
	start     bool      // stepKeep: the primary's slot begins where a server started, and local stays behind
	byOther   bool      // a copy was here, and somebody else dropped it
	ahead     bool      // stepKeep: local is ahead of the primary's slot

	state  string
	action string
	reason reason
	err    error

	saidReady bool // the log says that it is ready
}

// input is what decisions are made from.
type input struct {
	remote   []primary.Slot
	local    []host.Slot
	recovery host.Recovery
	flushed  host.LSN // positions up to here can be taken over
	wanted   func(name string, failover bool) bool
	listed   map[string]bool // copies that the last pass left here
}

// decide plans a pass, in the order of names. Slots that are none of its business are left out.
func decide(in input) []*plan {
	remote := make(map[string]*primary.Slot, len(in.remote))
	local := make(map[string]*host.Slot, len(in.local))
	names := map[string]bool{}
	for i := range in.remote {
		remote[in.remote[i].Name] = &in.remote[i]
		names[in.remote[i].Name] = true
	}
	for i := range in.local {
		local[in.local[i].Name] = &in.local[i]
		names[in.local[i].Name] = true
	}
	var plans []*plan
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p := &plan{name: name, remote: remote[name], local: local[name]}
		if p.local != nil {
			p.database = p.local.Database
		}
		if p.decide(in) {
			plans = append(plans, p)
		}
	}
	return plans
}

// decide fills in the plan; false: the slot is none of our business.
func (p *plan) decide(in input) bool {
	wanted := p.remote != nil && in.wanted(p.name, p.remote.Failover)
	switch {
	case p.local == nil && !wanted:
		return false
	case p.local == nil:
		p.byOther = in.listed[p.name]
		p.decideNew(in)
	case !isCopy(*p.local):
		return wanted && p.decideTaken(in)
	default:
		p.decideCopy(in, wanted)
	}
	return true
}

// isCopy tells whether a slot was made by replsync, or by core's synchronization, which replsync goes on with.
func isCopy(s host.Slot) bool {
	return s.Logical && !s.Temporary && (s.Synced || s.Marked && !isOriginal(s))
}

func isOriginal(s host.Slot) bool {
	mark, ok := parseMarker(s.Marker)
	return s.Marked && ok && mark.Original
}

// isLeftover tells whether a slot that is no copy was made when this server was a primary. Its marker says so; or it cannot
// have been made otherwise: a standby has no logical slots before 16 (CheckLogicalDecodingRequirements), and makes none with
// failover and without synced from 17 on (ReplicationSlotCreate).
func isLeftover(s host.Slot, major int) bool {
	return s.Logical && !s.Temporary &&
		(isOriginal(s) || major < firstConflict || major >= firstFailover && s.Failover && !s.Synced)
}

// decideTaken is about a name that a slot has which is no copy.
func (p *plan) decideTaken(in input) bool {
	if isLeftover(*p.local, majorOf(in.recovery.ServerVersionNum)) {
		p.dropFirst = true
		p.decideNew(in)
		return true
	}
	p.show(stateForeign, actionSkipped, reasonNotOurs)
	return true
}

// decideNew is about a slot that has no copy, or none that is worth anything.
func (p *plan) decideNew(in input) {
	switch {
	case p.remote.Invalidation != "":
		p.step = stepNone
		if p.dropFirst {
			p.step = stepDrop
		}
		p.show(stateInvalidated, actionSkipped, reasonInvalidated)
	case !in.recovery.LogicalDecoding:
		p.wait(reasonDecoding)
	case twoPhaseUnknown(p.remote, in.recovery):
		p.wait(reasonTwoPhase)
	case p.remote.ConfirmedFlushLSN > in.flushed:
		p.wait(reasonNotFlushed)
	default:
		p.step = stepCreate
	}
}

func (p *plan) decideCopy(in input, wanted bool) {
	mark, valid := markerOf(p.local)
	if !p.local.Marked {
		// Core keeps a copy only once it is safe; from then on replay invalidates it if need be.
		mark, valid = marker{Need: p.local.CatalogXmin, Proven: true, Failover: true}, true
	}
	p.mark = mark
	switch {
	case p.remote == nil, !wanted && p.local.Invalidated:
		p.step = stepDrop
	case !wanted:
		p.step = stepKeep
		p.target = *p.local
		p.wait(reasonNotWanted)
	case p.remote.Invalidation != "":
		p.step = stepDrop
		p.show(stateInvalidated, actionDropped, reasonInvalidated)
	case in.flushed == 0:
		p.step = stepKeep
		p.target = *p.local
		p.action, p.reason = actionSkipped, reasonNotFlushed
	case !valid || mark.Promoted || p.local.Invalidated || p.recreated():
		p.dropFirst = true
		p.decideNew(in)
	default:
		p.step = stepKeep
		p.decideMove(in)
	}
}

// recreated tells whether the primary's slot is another one than the copy's. A slot's catalog_xmin goes back only with
// its restart_lsn, in a crash.
func (p *plan) recreated() bool {
	r, l := p.remote, p.local
	return l.Database != r.DatabaseOID ||
		l.Plugin != r.Plugin && l.Plugin != placeholder ||
		r.RestartLSN > l.RestartLSN && r.CatalogXmin.Precedes(p.mark.Need)
}

// decideMove finds the position that a copy moves to. No part of it ever goes back: see pass.goBack.
func (p *plan) decideMove(in input) {
	r, l := p.remote, p.local
	p.target = *l
	switch {
	case r.ConfirmedFlushLSN < l.ConfirmedFlushLSN:
		p.ahead = true
		return
	case r.ConfirmedFlushLSN > in.flushed:
		p.action, p.reason = actionSkipped, reasonNotFlushed
		return
	case twoPhaseUnknown(r, in.recovery):
		p.action, p.reason = actionSkipped, reasonTwoPhase
		return
	}
	p.target.ConfirmedFlushLSN = r.ConfirmedFlushLSN
	p.target.TwoPhase, p.target.TwoPhaseAt = r.TwoPhase, r.TwoPhaseAt
	if r.RestartLSN < l.RestartLSN || r.CatalogXmin.Precedes(p.mark.Need) {
		return
	}
	p.follows = true
	p.target.RestartLSN = r.RestartLSN
	if r.RestartLSN > l.RestartLSN {
		p.snapshot = r.RestartLSN
	}
	p.moveXmin(in.recovery)
}

// twoPhaseUnknown tells whether it is not known from where on a slot decodes prepared transactions. Where the view shows it,
// none is a value: ALTER_REPLICATION_SLOT sets two_phase alone.
func twoPhaseUnknown(r *primary.Slot, recovery host.Recovery) bool {
	return r.TwoPhase && r.TwoPhaseAt == 0 && majorOf(recovery.ServerVersionNum) < firstTwoPhaseAt
}

// moveXmin follows the primary's catalog_xmin as far as this server has replayed. A value beyond that would make the
// primary drop the whole feedback message (TransactionIdInRecentPast, walsender.c). A copy that was capped is brought to
// its value in one step, not with every transaction that is replayed.
func (p *plan) moveXmin(recovery host.Recovery) {
	capped := capXmin(p.remote.CatalogXmin, recovery)
	lagging := capped != p.remote.CatalogXmin
	still := p.remote.CatalogXmin == p.mark.Need && p.target.RestartLSN == p.local.RestartLSN
	if p.local.CatalogXmin.Precedes(capped) && !(lagging && still) {
		p.target.CatalogXmin = capped
	}
}

func capXmin(x host.XID, recovery host.Recovery) host.XID {
	if recovery.NextXID.Precedes(x) {
		return recovery.NextXID
	}
	return x
}

// stay gives up the move of restart_lsn: decoding from the old one reaches consistency no later.
func (p *plan) stay() {
	p.follows = false
	p.snapshot = 0
	p.target.RestartLSN, p.target.CatalogXmin = p.local.RestartLSN, p.local.CatalogXmin
}

// need is the catalog_xmin that the target stands for.
func (p *plan) need() host.XID {
	if p.follows {
		return p.remote.CatalogXmin
	}
	return p.mark.Need
}

func (p *plan) show(state, action string, r reason) {
	p.state, p.action, p.reason = state, action, r
}

func (p *plan) wait(r reason) { p.show(stateWaiting, actionSkipped, r) }
