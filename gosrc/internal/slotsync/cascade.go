package slotsync

import (
	"fmt"

	"github.com/replsync/replsync/gosrc/internal/primary"
)

// beyond is for a standby that streams from another one, and reads the primary over replsync.primary_conninfo. What
// protects its copies there is the slot of the standby in between, which passes on what this one asks for: the oldest
// catalog_xmin of its own slots, this standby's physical slot among them (XLogWalRcvSendHSFeedback, walreceiver.c). Both are
// shown as one physical slot, which holds what both hold. The one in between is read first: what it asks for later is never
// less.
//
// Its lapses cannot all be seen from here, so this needs a version where replay invalidates a copy that they harm.
func (p *pass) beyond(state *primary.State) (*primary.State, error) {
	p.memory.between = ""
	s := p.settings
	if s.UpstreamConninfo == "" || state.InRecovery || state.SystemIdentifier != p.recovery.SystemIdentifier ||
		state.Physical.Exists && state.Physical.WalSender != "" {
		return state, nil
	}
	upstream, err := p.openUpstream()
	if err != nil {
		return nil, err
	}
	between, err := upstream.Read(p.remote, s.PrimarySlotName)
	if err != nil {
		return nil, err
	}
	if !between.InRecovery || between.SystemIdentifier != state.SystemIdentifier {
		return state, nil // primary_conninfo leads to the primary as well
	}
	if r := refuseBetween(s, p.major, between); r != nil {
		return nil, r
	}
	if state, err = p.primary.Read(p.remote, between.PrimarySlotName); err != nil {
		return nil, err
	}
	if !state.Physical.Exists {
		return nil, refuse(fmt.Sprintf("the physical replication slot \"%s\" does not exist on the primary", between.PrimarySlotName),
			"It is what primary_slot_name names on the standby that this one streams from.",
			"There can be one standby between this one and the primary, and it needs a physical slot there.").lapsing()
	}
	p.memory.between = between.PrimarySlotName
	held, asked := &state.Physical, between.Physical
	switch {
	case asked.CatalogXmin == 0:
		held.CatalogXmin = 0
	case held.CatalogXmin != 0 && held.CatalogXmin.Precedes(asked.CatalogXmin):
		held.CatalogXmin = asked.CatalogXmin
	}
	if asked.WalSender == "" || held.WalSender == "" {
		held.WalSender = ""
	} else {
		held.WalSender += " " + asked.WalSender
	}
	state.PostmasterStart += " " + between.PostmasterStart
	return state, nil
}

// refuseBetween checks the standby that this one streams from.
func refuseBetween(s *Settings, major int, between *primary.State) *refusal {
	switch {
	case major < firstConflict:
		return refuse("replication slots cannot be synchronized to a cascading standby of this version",
			"Nothing would tell if the standby in between let go of what the copies need.",
			"Let this standby stream from the primary, or set replsync.sync_slots to off.").lapsing()
	case !between.Physical.Exists:
		return refuse(fmt.Sprintf("the physical replication slot \"%s\" does not exist on the standby that this one streams from", s.PrimarySlotName),
			"It is what primary_slot_name names on this standby.",
			fmt.Sprintf("Run SELECT pg_create_physical_replication_slot('%s') there.", s.PrimarySlotName)).lapsing()
	case !between.Feedback || between.PrimarySlotName == "":
		return refuse("the standby that this one streams from does not pass hot standby feedback on",
			"Without it the primary removes catalog rows that the copies need.",
			"Set hot_standby_feedback to on, wal_receiver_status_interval above 0, and primary_slot_name there.").lapsing()
	}
	return nil
}
