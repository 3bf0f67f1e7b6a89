package slotsync

import (
	"cmp"
	"maps"
	"slices"

	"github.com/replsync/replsync/gosrc/internal/host"
)

const (
	// progressStep is how many copies are looked at, made or dropped between two reports: each is a request to the server.
	progressStep = 16
	// How many snapshot files a pass that somebody waits for fetches if it has news to bring, and any pass at most. Each costs an
	// fsync.
	fewSnapshots, manySnapshots = 8, 64
)

// move brings the copies to the positions that were decided, where they differ, and their plugin and flags to what the
// primary's state permits.
func (p *pass) move() error {
	kept := p.planned(stepKeep)
	if err := p.fetchMoved(kept); err != nil {
		return err
	}
	var together []*plan
	for i, plan := range kept {
		if err := p.cancelled(); err != nil {
			return err
		}
		if p.movesOnly(plan) {
			together = append(together, plan)
			continue
		}
		p.apply(plan, p.judgeKept(plan))
		if i%progressStep == 0 {
			p.progress("updating", i, len(kept))
		}
	}
	return p.moveTogether(together)
}

// judgeKept judges a copy that demote may yet take out of use.
func (p *pass) judgeKept(plan *plan) verdict {
	if plan.ahead {
		return verdict{reason: reasonAhead}
	}
	v := p.judge(plan)
	v.usable = v.usable || plan.mark.Proven
	return v
}

// demote takes the copies out of use that are not safe and might not be noticed to be unsafe. From 16 on replay notices what
// vacuum removed, but not what VACUUM FULL left out of a catalog, so that is after feedback was off; before, whatever the
// reason.
func (p *pass) demote() {
	if p.major >= firstConflict && !p.wasOff {
		return
	}
	for _, plan := range p.plans {
		if plan.step != stepKeep || plan.local == nil || !plan.mark.Proven || p.isSafe(plan) {
			continue
		}
		target := *plan.local
		p.dress(&target, plan.remote, plan.mark.Need, verdict{})
		if err := p.h.UpdateSlot(p.ctx, target); err != nil {
			plan.fail(err)
			continue
		}
		p.saved(&target)
		plan.local = &target
		plan.mark.Proven = false
		plan.action = actionUpdated
		p.changed = true
	}
}

// isSafe tells whether a copy is safe as it is now, with what the last read showed.
func (p *pass) isSafe(plan *plan) bool {
	if p.memory.proven[plan.name] {
		return true
	}
	if p.state == nil || plan.remote == nil {
		return false
	}
	v := p.judgeAsIs(plan)
	if v.proven {
		p.memory.proven[plan.name] = true
	}
	return v.ready
}

// judgeAsIs judges a copy as it is now, not as planned.
func (p *pass) judgeAsIs(plan *plan) verdict {
	asIs := *plan
	asIs.target, asIs.follows = *plan.local, false
	return p.judge(&asIs)
}

// fetchMoved brings the snapshot files of the new positions here. The copies, still at their old ones, keep them, and have kept
// the mapping files. A slot without its file moves its confirmed_flush_lsn alone.
func (p *pass) fetchMoved(plans []*plan) error {
	p.avoidStarts(plans)
	lsns := p.snapshotsNow(plans)
	if len(lsns) == 0 {
		return nil
	}
	found, err := p.fetchSnapshots(lsns)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.missing {
			// A slot that still is at a position has its file, unless it was made there and needs none.
			if err := p.reread(); err != nil {
				return err
			}
			break
		}
	}
	for _, plan := range plans {
		f := found[plan.snapshot]
		switch {
		case plan.snapshot == 0:
		case f.err != nil:
			plan.stay()
			plan.err = f.err
		case f.missing && (plan.seen == nil || plan.seen.RestartLSN != plan.snapshot):
			plan.stay()
			p.again(p.settings.NaptimeMin)
		}
	}
	return nil
}

// avoidStarts leaves copies behind whose slots begin where a server was started. Before 16 a snapshot does not tell which of
// the running transactions have changed catalogs; decoding supposes it of all, but only if it begins at a list of them
// (SnapBuildFindSnapshot and SnapBuildSerializationPoint, snapbuild.c). From the start of a server on it would overlook
// what a transaction has changed that was prepared before, and fail later: "could not map filenode". A copy that is not proven
// may be so only where its slot is.
func (p *pass) avoidStarts(plans []*plan) {
	if p.major >= firstCatChange {
		return
	}
	known := map[host.LSN]bool{}
	for _, plan := range plans {
		lsn := plan.snapshot
		if lsn == 0 || !p.memory.proven[plan.name] {
			continue
		}
		listed, asked := known[lsn]
		if !asked {
			listed, plan.err = p.h.IsRunningXacts(p.ctx, lsn)
			known[lsn] = listed
		}
		if !listed {
			plan.stay()
			plan.start = true
		}
	}
}

// snapshotsNow returns the positions that snapshot files are fetched for in this pass. What slots have confirmed goes first,
// as it needs none, and the files follow in the next pass. That one does not put them off again, whatever moves meanwhile.
// A copy that is not proven may be so only where its slot is now: it is not left behind.
func (p *pass) snapshotsNow(plans []*plan) map[host.LSN]bool {
	missing := map[host.LSN]bool{}
	confirms, proven := false, true
	for _, plan := range plans {
		if plan.snapshot != 0 {
			confirms = confirms || plan.target.ConfirmedFlushLSN != plan.local.ConfirmedFlushLSN
			proven = proven && p.memory.proven[plan.name]
			if !p.memory.verified[plan.snapshot] {
				missing[plan.snapshot] = true
			}
		}
	}
	later := map[host.LSN]bool{}
	limit := manySnapshots
	if confirms && proven && !p.memory.putOff && !(p.asked && len(missing) <= fewSnapshots) {
		limit = 0
	}
	p.memory.putOff = limit == 0 && len(missing) > 0
	for i, lsn := range slices.Sorted(maps.Keys(missing)) {
		if i >= limit {
			later[lsn] = true
		}
	}
	now := map[host.LSN]bool{}
	for _, plan := range plans {
		switch {
		case plan.snapshot == 0:
		case later[plan.snapshot]:
			plan.stay()
			p.more = true
		default:
			now[plan.snapshot] = true
		}
	}
	return now
}

// judge weighs what the last read showed of a copy that is here, or is about to be as planned.
func (p *pass) judge(plan *plan) verdict { return judge(p.evidence(plan)) }

func (p *pass) evidence(plan *plan) evidence {
	remote := cmp.Or(plan.seen, plan.remote)
	return evidence{
		major:   p.major,
		p:       p.state.Physical.CatalogXmin,
		remote:  remote.CatalogXmin,
		gone:    plan.gone,
		copy:    plan.target.CatalogXmin,
		need:    plan.need(),
		proven:  p.memory.proven[plan.name],
		usable:  plan.mark.Proven,
		settled: !p.readAt.Before(p.memory.settled[plan.name]),
	}
}

// apply makes a copy what its target and the verdict say, if it differs.
func (p *pass) apply(plan *plan, v verdict) {
	target := plan.target
	p.dress(&target, plan.remote, plan.need(), v)
	if target == *plan.local {
		if plan.action == "" {
			plan.action = actionUnchanged
		}
		if target.Unsaved {
			p.memory.saveLater(target, 0)
		}
		p.settle(plan, v)
		return
	}
	if _, behind := p.memory.unsaved[plan.name]; behind {
		target.Unsaved = true
	}
	if err := p.h.UpdateSlot(p.ctx, target); err != nil {
		plan.fail(err)
		return
	}
	p.saved(&target)
	wasUsable := plan.mark.Proven
	plan.local, plan.target = &target, target
	plan.mark, _ = markerOf(&target)
	plan.follows = false
	if plan.action != actionCreated {
		plan.action = actionUpdated
	}
	p.changed = true
	p.settle(plan, v)
	if !wasUsable && plan.mark.Proven {
		p.logReady(plan)
	}
}

// settle shows a copy that is here as the verdict has it.
func (p *pass) settle(plan *plan, v verdict) {
	delete(p.memory.proven, plan.name)
	if v.proven {
		p.memory.proven[plan.name] = true
		delete(p.memory.settled, plan.name)
	}
	plan.err = cmp.Or(plan.err, p.memory.unsaved[plan.name].err)
	switch {
	case plan.err != nil:
		plan.show(stateFailed, actionFailed, reasonError)
		return
	case plan.reason == reasonNotWanted:
		plan.state = stateWaiting
		return
	case v.ready && plan.reason == reasonTwoPhase:
		plan.state = stateWaiting
	case v.ready:
		plan.state = stateReady
		if plan.reason != reasonNotFlushed {
			plan.reason = reasonNone
		}
	default:
		plan.state = stateWaiting
		plan.reason = v.reason
	}
	if plan.agrees() {
		p.memory.synced[plan.name] = plan.readAt
	}
}

// agrees tells whether a copy stands where the primary's slot did when it was read.
func (p *plan) agrees() bool {
	return p.remote != nil && p.local != nil && p.local.ConfirmedFlushLSN >= p.remote.ConfirmedFlushLSN &&
		(p.start || p.local.RestartLSN >= p.remote.RestartLSN)
}

// drop drops the copies whose slots are gone.
func (p *pass) drop() error {
	unwanted := slices.DeleteFunc(p.planned(stepDrop), func(plan *plan) bool { return plan.local == nil })
	for i := 0; i < len(unwanted); i += progressStep {
		if err := p.cancelled(); err != nil {
			return err
		}
		p.progress("dropping", i, len(unwanted))
		p.dropLocal(unwanted[i:min(i+progressStep, len(unwanted))]...)
	}
	for _, plan := range unwanted {
		if plan.local == nil && plan.state == "" {
			plan.show("", actionDropped, reasonNone)
		}
	}
	if len(unwanted) > 0 {
		p.letGo()
	}
	return nil
}

// letGo has feedback sent once no copy is left, so that the primary holds no catalog rows for those that were. Copies that are made
// next are proven when they are made: nothing old is under way (settledAtOnce).
func (p *pass) letGo() {
	left := slices.ContainsFunc(p.plans, func(plan *plan) bool { return plan.local != nil })
	if left || p.state.Physical.CatalogXmin == 0 || p.recovery.WalReceiverPID == 0 {
		return
	}
	p.memory.askedMade = true
	p.askFeedback()
}

// dropLocal drops the slots that stand here under the plans' names.
func (p *pass) dropLocal(plans ...*plan) {
	names := make([]string, len(plans))
	for i, plan := range plans {
		names[i] = plan.name
	}
	for i, err := range p.h.DropSlots(p.ctx, names) {
		p.dropped(plans[i], err)
	}
}

// dropped takes note of what became of a slot that was to be dropped.
func (p *pass) dropped(plan *plan, err error) {
	switch {
	case err == nil:
		p.logDropped(plan)
	case host.HasCode(err, "42704"):
		// Replay of DROP DATABASE was first.
	default:
		plan.fail(err)
		return
	}
	p.changed = true
	p.memory.forget(plan.name)
	plan.local = nil
	plan.mark = marker{}
}
