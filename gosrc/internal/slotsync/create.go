package slotsync

import (
	"context"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

const (
	// createAttempts bounds how often a slot that moves on while its files are read is tried in one pass.
	createAttempts = 3
	// protectionTime bounds the wait for feedback before copies are made; what it does not bring is left to the handshake.
	protectionTime = 300 * time.Millisecond
	// releaseTimeout bounds the one request that is made after the worker was told to end.
	releaseTimeout = 5 * time.Second
)

// create makes the planned copies. Everything from the oldest restart_lsn of them on is reserved while their files are
// read, by one reservation that is bound to no database, so that no replay of DROP DATABASE meets it.
func (p *pass) create() error {
	p.dropUnusable()
	pending := p.withWAL(p.planned(stepCreate))
	if len(pending) == 0 {
		return nil
	}
	defer p.release()
	p.before = p.state.Physical.CatalogXmin
	total := len(pending)
	p.progress("creating", 0, total)
	for range createAttempts {
		left, err := p.createSome(pending)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		p.progress("creating", total-len(left), total)
		pending = left
	}
	for _, plan := range pending {
		plan.wait(reasonNoSnapshot)
	}
	p.again(soonPause)
	return nil
}

// release gives the reservation back, also when the pass was cancelled or the worker is to end.
func (p *pass) release() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), releaseTimeout)
	defer cancel()
	if err := p.h.ReserveWAL(ctx, 0, 0); err != nil {
		p.log(host.Warning, host.Describe(err))
	}
}

// dropUnusable drops what stands in the way of a copy. It goes at once: it must not look usable while the copy is not
// yet there.
func (p *pass) dropUnusable() {
	for _, plan := range p.plans {
		if !plan.dropFirst {
			continue
		}
		p.dropLocal(plan)
		switch {
		case plan.local != nil:
			plan.step = stepNone
		case plan.step != stepCreate:
			plan.action = actionDropped
		}
	}
}

func (p *pass) planned(s step) []*plan {
	var found []*plan
	for _, plan := range p.plans {
		if plan.step == s {
			found = append(found, plan)
		}
	}
	return found
}

// withWAL sorts out the slots whose WAL is not here. It asks once for each segment.
func (p *pass) withWAL(plans []*plan) []*plan {
	known := map[host.LSN]bool{}
	var found []*plan
	for _, plan := range plans {
		segment := plan.remote.RestartLSN / host.LSN(max(p.recovery.WALSegmentSize, 1))
		available, asked := known[segment]
		if !asked {
			var err error
			if available, err = p.h.WALAvailable(p.ctx, plan.remote.RestartLSN); err != nil {
				plan.fail(err)
				continue
			}
			known[segment] = available
		}
		if !available {
			plan.wait(reasonRemoved)
			continue
		}
		found = append(found, plan)
	}
	return found
}

// createSome makes the copies whose slots stood still while their files were read, and returns the other ones.
func (p *pass) createSome(plans []*plan) (left []*plan, err error) {
	if !p.reserve(plans) {
		return nil, nil
	}
	if plans, err = p.fetchFor(plans); err != nil || len(plans) == 0 {
		return nil, err
	}
	// What is read now shows that the files were those of the slot's position: a file that it still needed was there when
	// it was looked for. It is also the evidence that the new copies are judged by.
	if err := p.awaitProtection(); err != nil {
		return nil, err
	}
	var still []*plan
	for _, plan := range plans {
		switch seen := plan.seen; {
		case seen == nil:
			plan.wait(reasonGone)
		case seen.Invalidation != "":
			plan.show(stateInvalidated, actionSkipped, reasonInvalidated)
		case seen.RestartLSN != plan.remote.RestartLSN:
			plan.remote, plan.readAt = seen, p.readAt
			left = append(left, plan)
		default:
			still = append(still, plan)
		}
	}
	for len(still) > 0 {
		if err := p.cancelled(); err != nil {
			return nil, err
		}
		some := min(progressStep, len(still))
		if p.low != 0 {
			some = 1 // which of them asks for less than the others depends on whether it can be made
		}
		p.makeCopies(still[:some])
		still = still[some:]
	}
	return left, nil
}

// awaitProtection reads the primary again. If nothing of this standby holds catalog rows there yet, the reservation is the
// first to ask for it, so feedback is sent now and the read that shows its effect is waited for: then the copies are
// proven when they are made, and need not be written twice.
func (p *pass) awaitProtection() error {
	asked := false
	if p.before == 0 && p.recovery.WalReceiverPID != 0 {
		p.memory.askedMade = true
		asked = p.askFeedback()
	}
	for deadline := time.Now().Add(protectionTime); ; {
		if err := p.reread(); err != nil {
			return err
		}
		if !asked || p.state.Physical.CatalogXmin != 0 || time.Now().After(deadline) {
			return nil
		}
		select {
		case <-p.remote.Done():
			return p.cancelled()
		case <-time.After(handshakePause):
		}
	}
}

// reserve keeps what the slots need, and tells whether that worked.
func (p *pass) reserve(plans []*plan) bool {
	oldest, xmin := plans[0].remote.RestartLSN, capXmin(plans[0].remote.CatalogXmin, p.recovery)
	for _, plan := range plans {
		oldest = min(oldest, plan.remote.RestartLSN)
		if x := capXmin(plan.remote.CatalogXmin, p.recovery); x.Precedes(xmin) {
			xmin = x
		}
	}
	xmin = p.createLow(xmin)
	err := p.h.ReserveWAL(p.ctx, oldest, xmin)
	if err != nil {
		for _, plan := range plans {
			plan.fail(err)
		}
	}
	return err == nil
}

// fetchFor brings the snapshot and mapping files of the plans here and returns the plans for which that worked.
func (p *pass) fetchFor(plans []*plan) ([]*plan, error) {
	lsns := map[host.LSN]bool{}
	from := map[uint32]host.LSN{}
	for _, plan := range plans {
		r := plan.remote
		lsns[r.RestartLSN] = true
		if lsn, ok := from[r.DatabaseOID]; !ok || r.RestartLSN < lsn {
			from[r.DatabaseOID] = r.RestartLSN
		}
	}
	snapshots, err := p.fetchSnapshots(lsns)
	if err != nil {
		return nil, err
	}
	mappings, err := p.fetchMappings(from)
	if err != nil {
		return nil, err
	}
	var good []*plan
	for _, plan := range plans {
		err := snapshots[plan.remote.RestartLSN].err
		if err == nil {
			err = mappings[plan.remote.DatabaseOID]
		}
		if err != nil {
			plan.failThere(err)
			continue
		}
		good = append(good, plan)
	}
	return good, nil
}

// creation is a copy that is about to be made.
type creation struct {
	plan    *plan
	slot    host.Slot
	verdict verdict
	settled bool // no feedback from before it can be under way
}

// prepare finds what a copy is to be; nil: it is not to be made yet.
func (p *pass) prepare(plan *plan) *creation {
	// The newer row is better, but its confirmed_flush_lsn may not have arrived here.
	if plan.seen.ConfirmedFlushLSN <= p.flushed() && !twoPhaseUnknown(plan.seen, p.recovery) {
		plan.remote, plan.readAt = plan.seen, p.readAt
	}
	row := plan.remote
	if row.ConfirmedFlushLSN > p.flushed() {
		plan.wait(reasonNotFlushed)
		return nil
	}
	slot := host.Slot{
		Name:              plan.name,
		Database:          row.DatabaseOID,
		RestartLSN:        row.RestartLSN,
		ConfirmedFlushLSN: row.ConfirmedFlushLSN,
		CatalogXmin:       p.createLow(capXmin(row.CatalogXmin, p.recovery)),
		TwoPhase:          row.TwoPhase,
		Logical:           true,
		Marked:            true,
	}
	if row.TwoPhase {
		slot.TwoPhaseAt = row.TwoPhaseAt
	}
	p.memory.forget(plan.name)
	settled := settledAtOnce(p.floor, p.before, slot.CatalogXmin) && p.memory.between == ""
	v := judge(evidence{
		major:   p.major,
		p:       p.state.Physical.CatalogXmin,
		remote:  plan.seen.CatalogXmin,
		copy:    slot.CatalogXmin,
		need:    row.CatalogXmin,
		settled: settled,
	})
	p.dress(&slot, row, row.CatalogXmin, v)
	return &creation{plan, slot, v, settled}
}

// makeCopies makes copies at positions whose files are here.
func (p *pass) makeCopies(plans []*plan) {
	var some []*creation
	var slots []host.Slot
	for _, plan := range plans {
		if c := p.prepare(plan); c != nil {
			some, slots = append(some, c), append(slots, c.slot)
		}
	}
	for i, err := range p.h.CreateSlots(p.ctx, slots) {
		c := some[i]
		if err != nil {
			c.plan.fail(err)
			continue
		}
		p.changed = true
		p.low = 0
		p.memory.askedMade, p.memory.waitingSince = true, time.Now()
		if !c.settled {
			p.memory.settled[c.plan.name] = time.Now().Add(settleTime)
		}
		p.created(c.plan, c.slot, c.verdict)
	}
}

// created takes note of a new copy.
func (p *pass) created(plan *plan, slot host.Slot, v verdict) {
	plan.local = &slot
	plan.mark, _ = markerOf(&slot)
	plan.step = stepKeep
	plan.target = slot
	plan.action = actionCreated
	p.settle(plan, v)
	p.logCreated(plan)
}

// dress gives a slot the plugin, the flags and the marker that fit the verdict.
func (p *pass) dress(slot *host.Slot, row *primary.Slot, need host.XID, v verdict) {
	mark := marker{Proven: v.usable}
	if need != slot.CatalogXmin {
		mark.Need = need
	}
	slot.Plugin = placeholder
	slot.Failover, slot.Synced = false, false
	if row != nil {
		mark.Failover = row.Failover
	}
	if v.usable && row != nil {
		slot.Plugin = row.Plugin
		slot.Failover = row.Failover && p.major >= firstFailover
		slot.Synced = slot.Failover
	}
	slot.Marked = true
	slot.Marker = mark.String()
}
