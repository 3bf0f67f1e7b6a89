package slotsync

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// lapse takes the proof from all copies.
func (p *pass) lapse() {
	p.memory.lapse()
	p.lapsed = true
}

// noteFeedback notes that feedback was off, if only for a while.
func (p *pass) noteFeedback() {
	if p.memory.feedbackWasOff(p.recovery) {
		p.lapse()
		p.wasOff = true
	}
}

// takeOut takes the copies out of use before the primary is asked, which may prove them again: it may not answer for long, and
// a promotion, or the end of the worker, is to find them so.
func (p *pass) takeOut() (err error) {
	p.out = p.refused(new(refusal).lapsing())
	p.plans = nil
	p.local, err = p.h.Slots(p.ctx)
	return err
}

// unread shows what it means to the copies that the primary could not be read, or is not the one to copy from.
func (p *pass) unread(err error) []host.SlotStatus {
	if p.out != nil {
		return p.out
	}
	var r *refusal
	promoted := errors.Is(err, errPromotion) || errors.Is(context.Cause(p.remote), errPromotion)
	// The lapse is known now: no later pass would find it again.
	if errors.As(err, &r) && r.lapse || (p.wasOff || p.lapsed && p.major < firstConflict) && !promoted {
		return p.refused(new(refusal).lapsing())
	}
	return nil
}

// lost shows the copies that a lapse has cost their proof in a pass that came to no end.
func (p *pass) lost() []host.SlotStatus {
	if !p.lapsed {
		return nil
	}
	p.plans = slices.DeleteFunc(p.plans, func(plan *plan) bool {
		return plan.step != stepKeep || plan.local == nil || p.isSafe(plan)
	})
	for _, plan := range p.plans {
		if plan.state == "" || plan.state == stateReady {
			plan.state, plan.reason = stateWaiting, cmp.Or(p.judgeAsIs(plan).reason, reasonFeedback)
			plan.action = cmp.Or(plan.action, actionUnchanged)
		}
	}
	return p.rows()
}

// refused shows what a refusal means for the copies. Where the primary may now remove what they need they are not ready,
// and must not look usable either.
func (p *pass) refused(r *refusal) []host.SlotStatus {
	if !r.lapse {
		return nil
	}
	p.memory.lapse()
	p.wasOff = true
	for i := range p.local {
		l := &p.local[i]
		mark, ok := markerOf(l)
		if !l.Marked || !ok || mark.Promoted {
			continue
		}
		plan := &plan{name: l.Name, local: l, mark: mark, database: l.Database, target: *l, step: stepKeep}
		if row, known := p.memory.remote[l.Name]; known {
			plan.remote = &row
		}
		plan.show(stateWaiting, actionUnchanged, reasonNoFeedback)
		p.plans = append(p.plans, plan)
	}
	p.demote()
	return p.rows()
}
