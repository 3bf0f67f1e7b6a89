package slotsync

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

func TestJudge(t *testing.T) {
	proven := verdict{proven: true, ready: true, usable: true}
	pending := verdict{reason: reasonFeedback}
	unprotected := verdict{reason: reasonNotProtected}
	usable := func(v verdict) verdict { v.usable = true; return v }

	tests := []struct {
		name string
		e    evidence
		on15 verdict
		on16 verdict
	}{
		{"no feedback yet", evidence{p: 0, remote: 700, copy: 700, need: 700, settled: true}, pending, pending},
		{"idle slot", evidence{p: 700, remote: 700, copy: 700, need: 700, settled: true}, proven, proven},
		{"held by more than needed", evidence{p: 690, remote: 699, copy: 700, need: 700, settled: true}, proven, proven},
		{"capped", evidence{p: 650, remote: 700, copy: 650, need: 700, settled: true}, proven, proven},
		{"capped, P between", evidence{p: 690, remote: 700, copy: 650, need: 700, settled: true},
			unprotected, verdict{ready: true, usable: true}},
		{"moved on before P was there", evidence{p: 700, remote: 701, copy: 700, need: 700, settled: true},
			unprotected, unprotected},
		{"gone before P was there", evidence{p: 700, remote: 700, gone: true, copy: 700, need: 700, settled: true},
			unprotected, unprotected},
		{"moved on since", evidence{p: 700, remote: 800, copy: 700, need: 700, proven: true, usable: true, settled: true},
			proven, proven},
		{"gone since", evidence{p: 700, gone: true, copy: 700, need: 700, proven: true, usable: true}, proven, proven},
		{"older feedback may be under way", evidence{p: 700, remote: 700, copy: 700, need: 700}, pending, pending},
		{"P passed the copy", evidence{p: 701, remote: 700, copy: 700, need: 700, settled: true},
			unprotected, verdict{ready: true, usable: true}},
		{"P passed the copy, slot moved on", evidence{p: 701, remote: 701, copy: 700, need: 700, settled: true},
			unprotected, unprotected},
		{"P passed a proven copy", evidence{p: 701, remote: 701, copy: 700, need: 700, proven: true, usable: true, settled: true},
			unprotected, usable(unprotected)},
		{"lapse, slot moved on", evidence{p: 700, remote: 701, copy: 700, need: 700, usable: true, settled: true},
			unprotected, usable(unprotected)},
		{"lapse, slot stood still", evidence{p: 700, remote: 700, copy: 700, need: 700, usable: true, settled: true},
			proven, proven},
		{"P vanished", evidence{p: 0, remote: 700, copy: 700, need: 700, usable: true, settled: true}, pending, usable(pending)},
		{"wraparound", evidence{p: 0xFFFFFFF0, remote: 5, copy: 5, need: 5, settled: true}, proven, proven},
		{"wraparound, P passed", evidence{p: 5, remote: 0xFFFFFFF0, copy: 0xFFFFFFF0, need: 0xFFFFFFF0, settled: true},
			unprotected, verdict{ready: true, usable: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := tt.e
			e.major = 15
			require.Equal(t, tt.on15, judge(e), "15")
			for _, major := range []int{16, 19} {
				e.major = major
				require.Equal(t, tt.on16, judge(e), "%d", major)
			}
		})
	}
}

// No verdict on 15 may call a copy usable that is not ready, or ready that is not proven.
func TestJudgeIsStrictOn15(t *testing.T) {
	values := []host.XID{0, 699, 700, 701}
	for _, p := range values {
		for _, remote := range values[1:] {
			for _, copied := range values[1:] {
				for bits := range 16 {
					e := evidence{
						major: 15, p: p, remote: remote, copy: copied, need: 700,
						proven: bits&1 != 0, usable: bits&2 != 0, settled: bits&4 != 0, gone: bits&8 != 0,
					}
					v := judge(e)
					require.Equal(t, v.proven, v.usable, "%+v", e)
					require.Equal(t, v.proven, v.ready, "%+v", e)
					require.Equal(t, v.ready, v.reason == reasonNone, "%+v", e)
					if v.proven {
						require.True(t, p != 0 && p <= copied, "%+v", e)
					}
				}
			}
		}
	}
}

func TestSettledAtOnce(t *testing.T) {
	require.True(t, settledAtOnce(0, 0, 700), "the first slot: all earlier feedback carried nothing")
	require.False(t, settledAtOnce(0, 700, 700), "feedback without a catalog_xmin may be under way")
	require.True(t, settledAtOnce(700, 690, 700))
	require.True(t, settledAtOnce(690, 690, 700))
	require.False(t, settledAtOnce(701, 690, 700), "feedback with 701 may be under way")
}

func TestOldestXmin(t *testing.T) {
	require.Zero(t, oldestXmin(nil))
	require.Equal(t, host.XID(700), oldestXmin([]host.Slot{
		{CatalogXmin: 800}, {}, {CatalogXmin: 700}, {CatalogXmin: 600, Invalidated: true},
	}))
}

func TestObserve(t *testing.T) {
	good := primary.State{
		PostmasterStart: "1", Physical: primary.PhysicalSlot{Exists: true, CatalogXmin: 700, WalSender: "10@1"},
	}
	tests := []struct {
		name    string
		change  func(*primary.State)
		slot    string
		lapsed  bool
		forgets bool
	}{
		{"nothing", func(*primary.State) {}, "s", false, false},
		{"P moved", func(s *primary.State) { s.Physical.CatalogXmin = 800 }, "s", false, false},
		{"walsender away", func(s *primary.State) { s.Physical.WalSender = "" }, "s", false, false},
		{"walsender another", func(s *primary.State) { s.Physical.WalSender = "11@2" }, "s", true, true},
		{"primary restarted", func(s *primary.State) { s.PostmasterStart = "2" }, "s", true, true},
		{"P vanished", func(s *primary.State) { s.Physical.CatalogXmin = 0 }, "s", true, true},
		{"slot dropped", func(s *primary.State) { s.Physical = primary.PhysicalSlot{} }, "s", true, true},
		{"another slot", func(*primary.State) {}, "t", true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			first := good
			require.False(t, m.observe(&first, "s"), "nothing to compare with")
			m.proven["a"] = true
			next := good
			tt.change(&next)
			require.Equal(t, tt.lapsed, m.observe(&next, tt.slot))
			require.Equal(t, !tt.forgets, m.proven["a"])
		})
	}

	m := newMemory()
	first := good
	m.observe(&first, "s")
	away := good
	away.Physical.WalSender = ""
	m.observe(&away, "s")
	m.proven["a"] = true
	back := good
	back.Physical.WalSender = "12@3"
	require.True(t, m.observe(&back, "s"), "it came back as another")
}

func TestMarker(t *testing.T) {
	for _, m := range []marker{
		{Need: 700}, {Need: 0xFFFFFFFF, Proven: true, Promoted: true, Failover: true}, {Need: 3, Failover: true},
	} {
		parsed, ok := parseMarker(m.String())
		require.True(t, ok)
		require.Equal(t, m, parsed)
		require.LessOrEqual(t, len(m.String()), 255)
	}
	_, ok := parseMarker("v=1 need=700 proven=1 later=x")
	require.True(t, ok, "unknown words are passed over")
	m, ok := markerOf(&host.Slot{Marker: marker{Proven: true}.String(), CatalogXmin: 700})
	require.True(t, ok)
	require.Equal(t, marker{Need: 700, Proven: true}, m)
	m, _ = markerOf(&host.Slot{Marker: marker{Proven: true}.String(), CatalogXmin: 700, Plugin: placeholder})
	require.False(t, m.Proven, "a crash came between marker and slot")
	for _, s := range []string{"", "v=2 need=700", "v=1 need=x", "need=700", "v=1 need=99999999999"} {
		_, ok := parseMarker(s)
		require.False(t, ok, s)
	}
}
