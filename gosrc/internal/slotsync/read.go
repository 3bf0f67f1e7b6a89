package slotsync

import (
	"errors"
	"slices"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// read reads the primary, and notes a lapse that this shows.
func (p *pass) read() error {
	err := p.readState()
	var refused *refusal
	if errors.As(err, &refused) && refused.lapse {
		p.lapse()
	}
	return err
}

func (p *pass) readState() error {
	began := time.Now()
	state, err := p.primary.Read(p.remote, p.settings.PrimarySlotName)
	p.reading = time.Since(began)
	if err == nil {
		state, err = p.beyond(state)
	}
	if err != nil {
		return err
	}
	// What the primary's answer names has had as long to arrive as the answer.
	if p.recovery, err = p.h.Recovery(p.ctx); err != nil {
		return err
	}
	if !p.recovery.InRecovery || p.recovery.PromoteTriggered {
		return errPromotion
	}
	if r := refuseThere(p.settings, p.recovery, state); r != nil {
		return r
	}
	p.noteFeedback()
	p.state, p.readAt = state, began
	if p.memory.observe(state, p.settings.PrimarySlotName) {
		p.lapsed = true
	}
	return nil
}

// reread reads the primary again and gives the plans the new rows.
func (p *pass) reread() error {
	if err := p.read(); err != nil {
		return err
	}
	rows := make(map[string]*primary.Slot, len(p.state.Slots))
	for i := range p.state.Slots {
		rows[p.state.Slots[i].Name] = &p.state.Slots[i]
	}
	for _, plan := range p.plans {
		plan.seen = rows[plan.name]
		plan.gone = plan.seen == nil
	}
	return nil
}

// substitute says that a slot is planned with a row from an earlier read.
type substitute struct {
	newest *primary.Slot
	at     time.Time // of the earlier read
}

// arrived returns the primary's slots for planning. A consumer may confirm faster than this standby hears of it, so that
// its slot is ahead of what is on disk here in each read. Such a slot's row is kept until its position has arrived, and
// then stands in for the newest one: a position that the slot once had serves as well, with the newest catalog_xmin to
// judge by.
func (p *pass) arrived() ([]primary.Slot, map[string]substitute) {
	slots := slices.Clone(p.state.Slots)
	local := make(map[string]host.LSN, len(p.local))
	for _, l := range p.local {
		local[l.Name] = l.ConfirmedFlushLSN
	}
	substitutes := map[string]substitute{}
	for i := range slots {
		newest := &p.state.Slots[i]
		kept, known := p.memory.ahead[newest.Name]
		switch {
		case newest.ConfirmedFlushLSN <= p.flushed(), newest.Invalidation != "":
			delete(p.memory.ahead, newest.Name)
			continue
		case !known || !follows(&kept.row, newest) || kept.row.ConfirmedFlushLSN < local[newest.Name]:
		case kept.row.ConfirmedFlushLSN > p.flushed():
			continue // it has not arrived yet
		default:
			slots[i] = kept.row
			slots[i].Failover = newest.Failover
			substitutes[newest.Name] = substitute{newest, kept.at}
		}
		p.memory.ahead[newest.Name] = earlier{*newest, p.readAt}
	}
	return slots, substitutes
}

// follows tells whether b may be a later state of the slot that a shows.
func follows(a, b *primary.Slot) bool {
	return a.DatabaseOID == b.DatabaseOID && a.Plugin == b.Plugin && a.RestartLSN <= b.RestartLSN &&
		a.ConfirmedFlushLSN <= b.ConfirmedFlushLSN && !b.CatalogXmin.Precedes(a.CatalogXmin)
}

// flushed is up to where positions of the primary can be taken over: what is on disk here, of the timeline that it
// writes. What comes from a newer one means nothing here until this standby has followed.
func (p *pass) flushed() host.LSN {
	if p.state.Timeline > p.recovery.Timeline {
		return 0
	}
	return p.recovery.FlushLSN
}
