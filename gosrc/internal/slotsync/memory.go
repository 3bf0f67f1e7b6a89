package slotsync

import (
	"maps"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// memory is what one pass leaves to the next.
type memory struct {
	sight
	seen    bool   // an earlier read of the primary, no lapse since
	between string // the primary's slot of a standby between this one and it; empty: there is none

	proven    map[string]bool
	settled   map[string]time.Time    // reads that begin from then on can prove the copy
	listed    map[string]bool         // copies that were here and were not dropped by us
	synced    map[string]time.Time    // when the copy last was seen to agree with the primary
	remote    map[string]primary.Slot // the primary's slots as last read
	databases map[uint32]string       // their names, of all slots ever read
	ahead     map[string]earlier      // earlier rows of slots that were ahead of what is on disk here
	level     map[string]string       // the primary's run in which a copy last was not ahead of its slot
	unsaved   map[string]unsaved      // copies of which disk is to follow
	saving    []string                // of them, what is left of the list that is worked off
	flushed   host.LSN                // what was on disk here at the last pass
	putOff    bool                    // the last pass left snapshot files to the next one, for what slots had confirmed

	idle         *idle             // the last pass, if it had nothing to do
	verified     map[host.LSN]bool // snapshot files written or compared by this process
	asked        time.Time         // when feedback was last asked for
	waitingSince time.Time         // since when copies wait for it, or a copy was made since
	askedMade    bool              // a copy was made since
	fileError    string            // last logged trouble with restoring files
	told         map[string]string // what was last logged of a slot that is not ready
}

// sight is what tells of a lapse between two looks.
type sight struct {
	physicalSlot string
	start        string // of the primary's postmaster; empty: it was not read yet
	walSender    string

	lapses uint32 // host.Recovery.FeedbackLapses
}

// differs tells whether there was a lapse since, by a read of the primary.
func (then sight) differs(s *primary.State, physicalSlot string) bool {
	p := s.Physical
	return then.physicalSlot != physicalSlot || then.start != s.PostmasterStart ||
		p.WalSender != "" && then.walSender != "" && then.walSender != p.WalSender
}

// wasOff tells whether feedback has been off for a moment since: by now it may be on again.
func (then sight) wasOff(r host.Recovery) bool {
	return then.lapses != r.FeedbackLapses
}

// earlier is a slot as a read before the last one showed it.
type earlier struct {
	row primary.Slot
	at  time.Time
}

func newMemory() *memory {
	return &memory{
		proven:    map[string]bool{},
		settled:   map[string]time.Time{},
		listed:    map[string]bool{},
		synced:    map[string]time.Time{},
		remote:    map[string]primary.Slot{},
		ahead:     map[string]earlier{},
		databases: map[uint32]string{},
		level:     map[string]string{},
		unsaved:   map[string]unsaved{},
		verified:  map[host.LSN]bool{},
		told:      map[string]string{},
	}
}

// lapse takes back every proof: for a moment at least the primary may have removed rows that copies need.
func (m *memory) lapse() {
	m.seen = false
	m.idle = nil
	clear(m.proven)
	clear(m.verified)
}

// observe compares a read of the primary with the one before. What happened in between cannot be seen in the current
// values alone: after a crash of the primary the physical slot may have come back without catalog_xmin, and be restored
// by the next feedback.
//
// It tells whether there was a lapse. Proofs are also void where there is nothing to compare with, after a start of the
// worker, but then nothing is known to be wrong.
func (m *memory) observe(s *primary.State, physicalSlot string) (lapsed bool) {
	p := s.Physical
	lapsed = !p.Exists || p.CatalogXmin == 0 || m.seen && m.differs(s, physicalSlot)
	if lapsed || !m.seen {
		m.lapse()
	}
	m.seen = true
	m.physicalSlot, m.start = physicalSlot, s.PostmasterStart
	if p.WalSender != "" {
		m.walSender = p.WalSender
	}
	if m.idle == nil || !sameSlots(m.idle.slots, s.Slots) {
		clear(m.remote)
		for _, slot := range s.Slots {
			m.remote[slot.Name] = slot
			m.databases[slot.DatabaseOID] = slot.Database
		}
	}
	return lapsed
}

// feedbackWasOff tells whether feedback has been off for a moment since it was last asked.
func (m *memory) feedbackWasOff(r host.Recovery) bool {
	was := m.wasOff(r)
	m.lapses = r.FeedbackLapses
	return was
}

// keepOnly drops what is known of all other names.
func (m *memory) keepOnly(names map[string]bool) {
	other := func(name string) bool { return !names[name] }
	maps.DeleteFunc(m.proven, func(name string, _ bool) bool { return other(name) })
	maps.DeleteFunc(m.settled, func(name string, _ time.Time) bool { return other(name) })
	maps.DeleteFunc(m.told, func(name string, _ string) bool { return other(name) })
	maps.DeleteFunc(m.synced, func(name string, _ time.Time) bool { return other(name) })
	maps.DeleteFunc(m.level, func(name string, _ string) bool { return other(name) })
	maps.DeleteFunc(m.unsaved, func(name string, _ unsaved) bool { return other(name) })
	maps.DeleteFunc(m.ahead, func(name string, _ earlier) bool { return other(name) })
}

// forget drops what is known of a copy that is no more.
func (m *memory) forget(name string) {
	delete(m.proven, name)
	delete(m.settled, name)
	delete(m.listed, name)
	delete(m.level, name)
	delete(m.unsaved, name)
}
