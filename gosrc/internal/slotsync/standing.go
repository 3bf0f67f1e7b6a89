package slotsync

import (
	"context"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// off watches, while the worker is off, for what makes copies unsafe that can be seen from here, and shows the copies.
func (w *Worker) off(ctx context.Context, s *Settings, r host.Recovery) error {
	p := w.newPass(ctx, ctx, s, r)
	rows, err := p.withoutPrimary(reasonNotSynchronized)
	if err != nil {
		w.complain(ctx, err)
		return nil
	}
	w.record.show(rows, w.memory.sight)
	if sameRows(rows, w.rows) {
		return nil
	}
	w.rows = rows
	return w.host.PassDone(ctx, host.Pass{State: host.Off, Slots: rows})
}

// withoutPrimary is about the copies while nothing is read from the primary.
func (p *pass) withoutPrimary(why reason) (rows []host.SlotStatus, err error) {
	if p.local, err = p.h.Slots(p.ctx); err != nil {
		return nil, err
	}
	wasOff := p.memory.feedbackWasOff(p.recovery)
	if r := refuseHere(p.settings, p.recovery); r != nil && r.lapse {
		return p.refused(r), nil
	}
	if wasOff {
		return p.refused(new(refusal).lapsing()), nil
	}
	return p.standing(why), nil
}

// standing shows the copies as they stand, after a pass that has not seen the primary. A copy that was proven stays safe:
// its WAL and its files are kept by itself, and the primary keeps its catalog rows, since it never takes back what feedback
// asked for but in a lapse, and each lapse that was seen has taken the copies out of use. From 16 on most that do harm are seen
// without anybody looking: replay invalidates the copy. On 15 one can be ruled out only as far as somebody looks, which is why a
// copy there is not ready while nobody does.
func (p *pass) standing(why reason) []host.SlotStatus {
	p.plans = nil
	for i := range p.local {
		l := &p.local[i]
		if !isCopy(*l) {
			continue
		}
		mark, ok := markerOf(l)
		proven := !l.Marked || ok && mark.Proven && !mark.Promoted
		plan := &plan{name: l.Name, local: l, mark: mark, database: l.Database, step: stepKeep}
		if row, known := p.memory.remote[l.Name]; known {
			plan.remote = &row
		}
		switch {
		case l.Invalidated:
			plan.show(stateInvalidated, actionUnchanged, reasonRemoved)
		case proven && (p.major >= firstConflict || why == reasonNotReached):
			plan.show(stateReady, actionUnchanged, why)
		default:
			plan.show(stateWaiting, actionUnchanged, why)
		}
		p.plans = append(p.plans, plan)
	}
	return p.status()
}

// afterFailure shows the copies where nothing else has been shown yet.
func (w *Worker) afterFailure(p *pass, err error) []host.SlotStatus {
	if givenUp(err) || len(w.rows) > 0 {
		return nil
	}
	why := reasonNotReached
	if isRefusal(err) || p.state != nil {
		why = reasonNotSynchronized
	}
	rows, err := p.withoutPrimary(why)
	if err != nil {
		return nil
	}
	return rows
}

func sameRows(a, b []host.SlotStatus) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		// Actions are those of a pass.
		x, y := a[i], b[i]
		x.Action, y.Action = "", ""
		if x != y {
			return false
		}
	}
	return true
}
