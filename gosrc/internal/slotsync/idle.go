package slotsync

import (
	"slices"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// idle is a pass that found every copy ready and where its slot is, and what it went by. The next one that meets the same would
// find the same.
type idle struct {
	there  circumstances
	slots  []primary.Slot
	local  []host.Slot
	rows   []host.SlotStatus
	before host.LSN // what was on disk here
}

// circumstances are what decisions depend on besides the slots.
type circumstances struct {
	timeline, timelineHere uint32
	start                  string
	oldest                 host.XID
	physical               primary.PhysicalSlot
	files                  primary.Access
	patterns               string
	decoding               bool
	version                int
}

func (p *pass) circumstances() circumstances {
	return circumstances{
		timeline: p.state.Timeline, timelineHere: p.recovery.Timeline,
		start: p.state.PostmasterStart, oldest: p.state.OldestXmin, physical: p.state.Physical, files: p.state.Files,
		patterns: p.settings.Slots, decoding: p.recovery.LogicalDecoding, version: p.recovery.ServerVersionNum,
	}
}

// asBefore returns the rows of an idle pass if nothing has changed since, else nil. A lapse has the memory forget it.
func (p *pass) asBefore() []host.SlotStatus {
	last := p.memory.idle
	p.memory.idle = nil
	if last == nil || p.recovery.FlushLSN < last.before || p.circumstances() != last.there ||
		!sameSlots(p.state.Slots, last.slots) || !sameSlots(p.local, last.local) {
		return nil
	}
	rows := slices.Clone(last.rows)
	for i := range rows {
		rows[i].LastSyncAt = p.readAt
		p.memory.synced[rows[i].Name] = p.readAt
	}
	last.before = p.recovery.FlushLSN
	p.memory.flushed = p.recovery.FlushLSN
	p.memory.idle = last
	return rows
}

// sameSlots compares lists of which most often one is the other.
func sameSlots[S comparable](a, b []S) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// noteIdle leaves to the next pass that this one had nothing to do, and was not waiting for anything.
func (p *pass) noteIdle(rows []host.SlotStatus) {
	m := p.memory
	if p.changed || p.awaited || p.more || p.soon != 0 || len(m.unsaved) > 0 || len(m.ahead) > 0 {
		return
	}
	for _, plan := range p.plans {
		if !p.isIdle(plan) {
			return
		}
	}
	m.idle = &idle{there: p.circumstances(), slots: p.state.Slots, local: p.local, rows: rows, before: p.recovery.FlushLSN}
}

// isIdle tells whether a copy has nothing to do or to wait for, and the same at any later time.
func (p *pass) isIdle(plan *plan) bool {
	return plan.step == stepKeep && plan.state == stateReady && plan.action == actionUnchanged &&
		plan.reason == reasonNone && plan.err == nil && !plan.byOther && plan.agrees() &&
		p.memory.proven[plan.name] && capXmin(plan.remote.CatalogXmin, p.recovery) == plan.remote.CatalogXmin
}
