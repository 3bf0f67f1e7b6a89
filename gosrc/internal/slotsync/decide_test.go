package slotsync

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// row is a slot of the primary as the tests begin with.
func row(name string) primary.Slot {
	return primary.Slot{
		Name: name, Plugin: "pgoutput", Database: "db", DatabaseOID: 5,
		RestartLSN: 1000, ConfirmedFlushLSN: 1100, CatalogXmin: 700,
	}
}

// copyOf is a proven copy of a slot.
func copyOf(r primary.Slot) host.Slot {
	return host.Slot{
		Name: r.Name, Plugin: r.Plugin, Database: r.DatabaseOID,
		RestartLSN: r.RestartLSN, ConfirmedFlushLSN: r.ConfirmedFlushLSN, CatalogXmin: r.CatalogXmin,
		TwoPhase: r.TwoPhase, TwoPhaseAt: r.TwoPhaseAt, Logical: true,
		Failover: r.Failover, Synced: r.Failover,
		Marked: true, Marker: marker{Proven: true, Failover: r.Failover}.String(),
	}
}

func standby(major int) host.Recovery {
	return host.Recovery{
		SystemIdentifier: 42, Timeline: 3, InRecovery: true, ServerVersionNum: major*10000 + 1, LogicalDecoding: true,
		FlushLSN: 5000, ReplayLSN: 4000, NextXID: 1000, WALSegmentSize: 16 << 20, WalReceiverPID: 99,
	}
}

func TestDecide(t *testing.T) {
	type setup struct {
		remote *primary.Slot
		local  *host.Slot
		in     input
	}
	tests := []struct {
		name      string
		major     int
		change    func(*setup)
		nothing   bool
		step      step
		dropFirst bool
		state     string
		action    string
		reason    reason
		byOther   bool
	}{
		{name: "new", change: func(s *setup) { s.local = nil }, step: stepCreate},
		{name: "new, not wanted", change: func(s *setup) { s.local = nil; s.in.wanted = nothing }, nothing: true},
		{name: "new, not flushed here", change: func(s *setup) { s.local = nil; s.remote.ConfirmedFlushLSN = 5001 },
			state: stateWaiting, action: actionSkipped, reason: reasonNotFlushed},
		{name: "new, flushed and not replayed", change: func(s *setup) { s.local = nil; s.remote.ConfirmedFlushLSN = 5000 },
			step: stepCreate},
		{name: "new, invalidated there", change: func(s *setup) { s.local = nil; s.remote.Invalidation = "wal_removed" },
			state: stateInvalidated, action: actionSkipped, reason: reasonInvalidated},
		{name: "new, no decoding", change: func(s *setup) { s.local = nil; s.in.recovery.LogicalDecoding = false },
			state: stateWaiting, action: actionSkipped, reason: reasonDecoding},
		{name: "new, two_phase_at unknown", change: func(s *setup) { s.local = nil; s.remote.TwoPhase = true },
			state: stateWaiting, action: actionSkipped, reason: reasonTwoPhase},
		{name: "new, dropped by somebody", change: func(s *setup) { s.local = nil; s.in.listed["a"] = true },
			step: stepCreate, byOther: true},
		{name: "unchanged", change: func(*setup) {}, step: stepKeep},
		{name: "gone there", change: func(s *setup) { s.remote = nil }, step: stepDrop},
		{name: "gone there, promoted once", change: func(s *setup) { s.remote = nil; s.local.Marker = "v=1 need=700 proven=1 promoted=1" },
			step: stepDrop},
		{name: "invalidated there", change: func(s *setup) { s.remote.Invalidation = "rows_removed" },
			step: stepDrop, state: stateInvalidated, action: actionDropped, reason: reasonInvalidated},
		{name: "not wanted any more", change: func(s *setup) { s.in.wanted = nothing; s.remote.ConfirmedFlushLSN = 1200 },
			step: stepKeep, state: stateWaiting, action: actionSkipped, reason: reasonNotWanted},
		{name: "not wanted and invalidated", change: func(s *setup) { s.in.wanted = nothing; s.local.Invalidated = true },
			step: stepDrop},
		{name: "not wanted and gone", change: func(s *setup) { s.in.wanted = nothing; s.remote = nil }, step: stepDrop},
		{name: "invalidated here", change: func(s *setup) { s.local.Invalidated = true }, step: stepCreate, dropFirst: true},
		{name: "invalidated here and there", change: func(s *setup) { s.local.Invalidated = true; s.remote.Invalidation = "x" },
			step: stepDrop, state: stateInvalidated, action: actionDropped, reason: reasonInvalidated},
		{name: "another plugin", change: func(s *setup) { s.remote.Plugin = "wal2json" }, step: stepCreate, dropFirst: true},
		{name: "not ready yet", change: func(s *setup) { s.local.Plugin = placeholder }, step: stepKeep},
		{name: "another database", change: func(s *setup) { s.remote.DatabaseOID = 6 }, step: stepCreate, dropFirst: true},
		{name: "made anew with an older xmin", change: func(s *setup) { s.remote.RestartLSN, s.remote.CatalogXmin = 1050, 690 },
			step: stepCreate, dropFirst: true},
		{name: "marker of another version", change: func(s *setup) { s.local.Marker = "v=9" }, step: stepCreate, dropFirst: true},
		{name: "from a promotion", change: func(s *setup) { s.local.Marker = "v=1 need=700 proven=1 promoted=1" },
			step: stepCreate, dropFirst: true},
		{name: "from a promotion, not flushed", change: func(s *setup) {
			s.local.Marker = "v=1 need=700 proven=1 promoted=1"
			s.remote.ConfirmedFlushLSN = 6000
		}, dropFirst: true, state: stateWaiting, action: actionSkipped, reason: reasonNotFlushed},
		{name: "any slot of an ex-primary before standbys had slots", major: 15, change: func(s *setup) { s.local.Marked = false },
			step: stepCreate, dropFirst: true},
		{name: "marked slot of an ex-primary", major: 16, change: func(s *setup) { s.local.Marker = original },
			step: stepCreate, dropFirst: true},
		{name: "marked slot of an ex-primary, not wanted", major: 16, change: func(s *setup) { s.local.Marker = original; s.in.wanted = nothing },
			nothing: true},
		{name: "marked slot of an ex-primary, gone there", major: 16, change: func(s *setup) { s.local.Marker = original; s.remote = nil },
			nothing: true},
		{name: "user's slot", major: 16, change: func(s *setup) { s.local.Marked = false },
			state: stateForeign, action: actionSkipped, reason: reasonNotOurs},
		{name: "user's slot, not wanted", change: func(s *setup) { s.local.Marked = false; s.in.wanted = nothing }, nothing: true},
		{name: "user's slot of another name", change: func(s *setup) { s.local.Marked = false; s.remote = nil }, nothing: true},
		{name: "physical slot", change: func(s *setup) { *s.local = host.Slot{Name: "a"} },
			state: stateForeign, action: actionSkipped, reason: reasonNotOurs},
		{name: "temporary slot", change: func(s *setup) { s.local.Temporary, s.local.Marked = true, false },
			state: stateForeign, action: actionSkipped, reason: reasonNotOurs},
		{name: "failover slot of an ex-primary", major: 17, change: func(s *setup) { s.local.Marked, s.local.Failover = false, true },
			step: stepCreate, dropFirst: true},
		{name: "flags mean nothing before 17", major: 16, change: func(s *setup) { s.local.Marked, s.local.Failover = false, true },
			state: stateForeign, action: actionSkipped, reason: reasonNotOurs},
		{name: "core's copy", major: 17, change: func(s *setup) {
			s.local.Marked, s.local.Marker, s.local.Failover, s.local.Synced = false, "", true, true
		}, step: stepKeep},
		{name: "core's temporary copy", major: 17, change: func(s *setup) {
			s.local.Marked, s.local.Temporary, s.local.Synced = false, true, true
		}, state: stateForeign, action: actionSkipped, reason: reasonNotOurs},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := row("a")
			l := copyOf(r)
			major := max(tt.major, 15)
			s := setup{&r, &l, input{recovery: standby(major), flushed: 5000, wanted: everything, listed: map[string]bool{}}}
			tt.change(&s)
			if s.remote != nil {
				s.in.remote = []primary.Slot{*s.remote}
			}
			if s.local != nil {
				s.in.local = []host.Slot{*s.local}
			}
			plans := decide(s.in)
			if tt.nothing {
				require.Empty(t, plans)
				return
			}
			require.Len(t, plans, 1)
			p := plans[0]
			require.Equal(t, tt.step, p.step)
			require.Equal(t, tt.dropFirst, p.dropFirst)
			require.Equal(t, tt.state, p.state)
			require.Equal(t, tt.action, p.action)
			require.Equal(t, tt.reason, p.reason)
			require.Equal(t, tt.byOther, p.byOther)
			if s.local != nil && tt.reason == reasonNotWanted {
				require.Equal(t, *s.local, p.target, "it stays where it is")
			}
		})
	}
}

// original is CORE_MARKER_ORIGINAL.
const original = "v=1 promoted=1 original=1"

func everything(string, bool) bool { return true }
func nothing(string, bool) bool    { return false }

func TestDecideMove(t *testing.T) {
	type position struct {
		r, c host.LSN
		x    host.XID
	}
	tests := []struct {
		name     string
		remote   position
		next     host.XID // replayed; 0: far ahead
		local    position // zero: 1000, 1100, 700
		need     host.XID // zero: 700
		want     position
		follows  bool
		snapshot host.LSN
		reason   reason
	}{
		{name: "unchanged", remote: position{1000, 1100, 700}, want: position{1000, 1100, 700}, follows: true},
		{name: "confirmed only", remote: position{1000, 1200, 700}, want: position{1000, 1200, 700}, follows: true},
		{name: "all", remote: position{1050, 1200, 710}, want: position{1050, 1200, 710}, follows: true, snapshot: 1050},
		{name: "xmin alone", remote: position{1000, 1200, 710}, want: position{1000, 1200, 710}, follows: true},
		{name: "not flushed here", remote: position{1050, 5001, 710}, want: position{1000, 1100, 700}, reason: reasonNotFlushed},
		{name: "behind after a crash", remote: position{900, 950, 690}, want: position{1000, 1100, 700}},
		{name: "only restart behind", remote: position{900, 1200, 690}, want: position{1000, 1200, 700}},
		{name: "restart behind, xmin ahead", remote: position{900, 1200, 705}, want: position{1000, 1200, 700}},
		{name: "only xmin behind", remote: position{1000, 1200, 690}, want: position{1000, 1200, 700}},
		{name: "xmin ahead of replay", remote: position{1050, 1200, 720}, next: 710,
			want: position{1050, 1200, 710}, follows: true, snapshot: 1050},
		{name: "capped before, replay creeps on", remote: position{1000, 1200, 720}, next: 715, need: 720,
			want: position{1000, 1200, 700}, follows: true},
		{name: "capped before, replay is there", remote: position{1000, 1200, 720}, next: 730, need: 720,
			want: position{1000, 1200, 720}, follows: true},
		{name: "capped below the copy", remote: position{1050, 1200, 720}, next: 690,
			want: position{1050, 1200, 700}, follows: true, snapshot: 1050},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := row("a")
			l := copyOf(r)
			if tt.need != 0 {
				l.Marker = marker{Need: tt.need, Proven: true}.String()
			}
			r.RestartLSN, r.ConfirmedFlushLSN, r.CatalogXmin = tt.remote.r, tt.remote.c, tt.remote.x
			recovery := standby(15)
			if tt.next != 0 {
				recovery.NextXID = tt.next
			}
			plans := decide(input{
				remote: []primary.Slot{r}, local: []host.Slot{l}, recovery: recovery, flushed: 5000, wanted: everything,
			})
			require.Len(t, plans, 1)
			p := plans[0]
			require.Equal(t, stepKeep, p.step)
			require.Equal(t, tt.want, position{p.target.RestartLSN, p.target.ConfirmedFlushLSN, p.target.CatalogXmin})
			require.Equal(t, tt.follows, p.follows)
			require.Equal(t, tt.snapshot, p.snapshot)
			require.Equal(t, tt.reason, p.reason)

			p.stay()
			require.Equal(t, l.RestartLSN, p.target.RestartLSN)
			require.Equal(t, l.CatalogXmin, p.target.CatalogXmin)
			require.Equal(t, p.mark.Need, p.need())
		})
	}
}

func TestDecideTwoPhase(t *testing.T) {
	r := row("a")
	l := copyOf(r)
	r.TwoPhase, r.TwoPhaseAt, r.ConfirmedFlushLSN = true, 1150, 1200
	in := input{remote: []primary.Slot{r}, local: []host.Slot{l}, recovery: standby(15), flushed: 5000, wanted: everything}
	p := decide(in)[0]
	require.True(t, p.target.TwoPhase)
	require.Equal(t, host.LSN(1150), p.target.TwoPhaseAt)
	require.Equal(t, host.LSN(1200), p.target.ConfirmedFlushLSN)

	in.remote[0].ConfirmedFlushLSN = 1050
	p = decide(in)[0]
	require.False(t, p.target.TwoPhase, "never without confirmed_flush_lsn")

	in.remote[0].ConfirmedFlushLSN, in.remote[0].TwoPhaseAt = 1200, 0
	p = decide(in)[0]
	require.Equal(t, l, p.target)
	require.Equal(t, reasonTwoPhase, p.reason)
}

func TestRefusals(t *testing.T) {
	good := Settings{
		Conninfo: "host=primary password=secret", PrimarySlotName: "s", HotStandbyFeedback: true, StatusInterval: 10, WALLevel: "logical",
	}
	here := []struct {
		text   string
		lapse  bool
		change func(*Settings, *host.Recovery)
	}{
		{"", false, func(*Settings, *host.Recovery) {}},
		{"can only be synchronized to a standby server", false, func(_ *Settings, r *host.Recovery) { r.InRecovery = false }},
		{"being promoted", false, func(_ *Settings, r *host.Recovery) { r.PromoteTriggered = true }},
		{"by the server itself", false, func(s *Settings, _ *host.Recovery) { s.CoreSync = true }},
		{`"wal_level" to be "logical"`, false, func(s *Settings, _ *host.Recovery) { s.WALLevel = "replica" }},
		{"", false, func(s *Settings, r *host.Recovery) { s.WALLevel, r.ServerVersionNum = "replica", 190001 }},
		{"", false, func(_ *Settings, r *host.Recovery) { r.LogicalDecoding = false }},
		{`"primary_slot_name" to be set`, true, func(s *Settings, _ *host.Recovery) { s.PrimarySlotName = "" }},
		{`"hot_standby_feedback" to be enabled`, true, func(s *Settings, _ *host.Recovery) { s.HotStandbyFeedback = false }},
		{`"wal_receiver_status_interval"`, true, func(s *Settings, _ *host.Recovery) { s.StatusInterval = 0 }},
		{`"primary_conninfo" to be set`, false, func(s *Settings, _ *host.Recovery) { s.Conninfo = "" }},
	}
	for _, tt := range here {
		s, r := good, standby(15)
		tt.change(&s, &r)
		checkRefusal(t, refuseHere(&s, r), tt.text, tt.lapse)
	}
	there := []struct {
		text   string
		lapse  bool
		change func(*primary.State)
	}{
		{"", false, func(*primary.State) {}},
		{"is not this standby's primary", false, func(p *primary.State) { p.SystemIdentifier = 1 }},
		{"cannot synchronize replication slots from a standby server", false, func(p *primary.State) { p.InRecovery = true }},
		{"a primary of the past", false, func(p *primary.State) { p.Timeline = 2 }},
		{"", false, func(p *primary.State) { p.Timeline = 4 }},
		{"on the primary", false, func(p *primary.State) { p.WALLevel = "replica" }},
		{"", false, func(p *primary.State) { p.WALLevel, p.VersionNum = "replica", 190000 }},
		{`"s" does not exist on the primary`, true, func(p *primary.State) { p.Physical.Exists = false }},
	}
	for _, tt := range there {
		p := primary.State{SystemIdentifier: 42, Timeline: 3, VersionNum: 150001, WALLevel: "logical", Physical: primary.PhysicalSlot{Exists: true}}
		tt.change(&p)
		checkRefusal(t, refuseThere(&good, standby(15), &p), tt.text, tt.lapse)
	}
}

func checkRefusal(t *testing.T, r *refusal, text string, lapse bool) {
	t.Helper()
	if text == "" {
		require.Nil(t, r)
		return
	}
	require.NotNil(t, r, text)
	require.Contains(t, r.Error(), text)
	require.Equal(t, lapse, r.lapse, text)
	require.True(t, host.HasCode(r, "55000"))
	require.True(t, isRefusal(r))
	m := host.Describe(r)
	require.NotContains(t, m.Text+m.Detail+m.Hint, "secret")
}
