package slotsync

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// A copy moves in memory first, all copies in one request; disk follows one by one, between passes. A copy whose disk is
// behind is merely older after a crash, and gives again what was confirmed since. What the older one needs is
// kept meanwhile: see slot_move.c.

const (
	moveBatch = 512                   // copies in one request
	saveSlice = 10 * time.Millisecond // of saving, between two looks at what else there is to do
	saveBatch = 16                    // copies that are saved at once
	savePause = time.Second           // after a save that failed
)

// unsaved is a copy of which disk is to follow.
type unsaved struct {
	slot host.Slot
	due  time.Time
	err  error    // of the last attempt
	held host.XID // what the copy asks the primary to keep until then
	low  bool     // it is to go on with that, although disk has followed: see keepLow
	done bool     // disk has followed
}

// saveLater has disk follow. held is what the copy asks the primary to keep until then.
func (m *memory) saveLater(slot host.Slot, held host.XID) {
	slot.Unsaved = true
	entry, ok := m.unsaved[slot.Name]
	if !ok {
		entry.held, entry.due = held, time.Now()
	}
	entry.slot, entry.done = slot, false
	m.unsaved[slot.Name] = entry
}

// holdBack has a copy go on to ask for rows from floor on, or older ones, if one still does.
func (m *memory) holdBack(floor host.XID) {
	for name, entry := range m.unsaved {
		if entry.held != 0 && !floor.Precedes(entry.held) {
			entry.low = true
			m.unsaved[name] = entry
			return
		}
	}
}

// release ends what holdBack has begun.
func (m *memory) release() {
	for name, entry := range m.unsaved {
		if entry.low {
			entry.low = false
			m.unsaved[name] = entry
		}
	}
}

// saved takes note that UpdateSlot has written a copy.
func (p *pass) saved(slot *host.Slot) {
	slot.Unsaved = false
	delete(p.memory.unsaved, slot.Name)
}

// movesOnly tells whether nothing but the positions of a copy changes.
func (p *pass) movesOnly(plan *plan) bool {
	target := plan.target
	p.dress(&target, plan.remote, plan.need(), p.judgeKept(plan))
	local := plan.local
	if target == *local || !local.Marked {
		return false
	}
	moved := *local
	moved.RestartLSN, moved.ConfirmedFlushLSN, moved.CatalogXmin = target.RestartLSN, target.ConfirmedFlushLSN, target.CatalogXmin
	return moved == target
}

// moveTogether moves copies in memory.
func (p *pass) moveTogether(plans []*plan) error {
	for done := 0; done < len(plans); done += moveBatch {
		if err := p.cancelled(); err != nil {
			return err
		}
		batch := plans[done:min(done+moveBatch, len(plans))]
		targets := make([]host.Slot, len(batch))
		for i, plan := range batch {
			targets[i] = *plan.local
			targets[i].RestartLSN, targets[i].ConfirmedFlushLSN, targets[i].CatalogXmin =
				plan.target.RestartLSN, plan.target.ConfirmedFlushLSN, plan.target.CatalogXmin
		}
		moves, err := p.h.MoveSlots(p.ctx, targets)
		for i, plan := range batch {
			switch {
			case err != nil:
				plan.fail(err)
			case moves[i] == host.MoveRefused:
				p.apply(plan, p.judgeKept(plan))
			default:
				p.moved(plan, targets[i], moves[i])
			}
		}
	}
	return nil
}

// moved takes note of a move in memory.
func (p *pass) moved(plan *plan, target host.Slot, move host.Move) {
	before := *plan.local
	behind := target.RestartLSN != before.RestartLSN || target.CatalogXmin != before.CatalogXmin
	now := target
	v := p.judgeKept(plan)
	switch {
	case move == host.MoveAll:
		now.Unsaved = before.Unsaved || behind
		plan.mark, _ = markerOf(&now)
		plan.target, plan.follows = now, false
	case behind:
		now = before
		now.ConfirmedFlushLSN = target.ConfirmedFlushLSN
		plan.target, plan.follows = now, false
		v = p.judgeKept(plan)
	}
	plan.local = &now
	if behind || now.Unsaved {
		p.memory.saveLater(target, before.CatalogXmin)
	}
	if now != before {
		plan.action = actionUpdated
		p.changed = true
	} else {
		plan.action = cmp.Or(plan.action, actionUnchanged)
	}
	p.settle(plan, v)
}

// save brings copies to disk for a while, and tells when to go on; zero if nothing is left.
func (w *Worker) save(ctx context.Context) (time.Time, error) {
	m := w.memory
	began := time.Now()
	for time.Since(began) < saveSlice {
		batch := m.due(began)
		if len(batch) == 0 {
			break
		}
		slots := make([]host.Slot, len(batch))
		for i, name := range batch {
			slots[i] = m.unsaved[name].slot
			slots[i].Unsaved = !m.unsaved[name].low
		}
		errs := w.host.SaveSlots(ctx, slots)
		if ctx.Err() != nil {
			return time.Time{}, context.Cause(ctx)
		}
		for i, name := range batch {
			m.wasSaved(name, errs[i])
		}
	}
	if len(m.saving) > 0 {
		return began, nil
	}
	var next time.Time
	for _, entry := range m.unsaved {
		if entry.low && entry.done {
			continue
		}
		if next.IsZero() || entry.due.Before(next) {
			next = entry.due
		}
	}
	return next, nil
}

// due returns the next copies to be brought to disk, if some are due.
func (m *memory) due(now time.Time) (batch []string) {
	isDue := func(name string) bool {
		entry, ok := m.unsaved[name]
		return ok && !now.Before(entry.due) && !(entry.low && entry.done)
	}
	if len(m.saving) == 0 {
		m.saving = slices.DeleteFunc(slices.Sorted(maps.Keys(m.unsaved)), func(name string) bool { return !isDue(name) })
	}
	for len(m.saving) > 0 && len(batch) < saveBatch {
		if isDue(m.saving[0]) {
			batch = append(batch, m.saving[0])
		}
		m.saving = m.saving[1:]
	}
	return batch
}

// wasSaved takes note of what became of a copy that was to be brought to disk.
func (m *memory) wasSaved(name string, err error) {
	entry := m.unsaved[name]
	switch {
	case err == nil && entry.low:
		entry.done = true
		m.unsaved[name] = entry
	case err == nil, host.HasCode(err, "42704"): // the latter is gone
		delete(m.unsaved, name)
	default:
		entry.due, entry.err = time.Now().Add(savePause), err
		m.unsaved[name] = entry // the next pass shows it
	}
}

// saveAll brings all copies to disk before nobody cares for them any more.
func (w *Worker) saveAll(ctx context.Context) error {
	w.memory.release()
	for name, entry := range w.memory.unsaved {
		entry.due = time.Now()
		w.memory.unsaved[name] = entry
	}
	for {
		next, err := w.save(ctx)
		if err != nil || next.IsZero() || next.After(time.Now()) {
			return err
		}
	}
}

// saves tells whether a nap has ended just for copies to be brought to disk.
func (w *Worker) saves(wake host.Wakeup) bool {
	return wake == host.Wakeup{Timeout: true} && time.Now().Before(w.due) && len(w.memory.unsaved) > 0
}
