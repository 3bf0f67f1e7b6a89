package slotsync

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// Catalog rows that a copy needs may be gone after a lapse of feedback; on 15 nobody else would notice.
func TestLapse(t *testing.T) {
	lapses := map[string]func(b *bench){
		"primary restarted":                  func(b *bench) { b.primary.state.PostmasterStart = "2" },
		"walsender replaced":                 func(b *bench) { b.primary.state.Physical.WalSender = "11@2" },
		"worker restarted":                   func(b *bench) { b.restart() },
		"feedback off and on between passes": func(b *bench) { b.host.State.FeedbackLapses++ },
		"feedback off and on": func(b *bench) {
			b.host.Values["hot_standby_feedback"] = "off"
			b.turn(host.Wakeup{})
			b.host.Values["hot_standby_feedback"] = "on"
			b.host.Passes()
		},
	}
	for name, lapse := range lapses {
		t.Run(name+", slot stood still", func(t *testing.T) {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.with(row("a"))
				lapse(b)
				b.turn(host.Wakeup{})
				require.Equal(t, stateReady, b.host.Passes()[0].Slots[0].State)
				b.usable("a", true)
			})
		})
		t.Run(name+", slot moved and can be followed", func(t *testing.T) {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.with(row("a"))
				lapse(b)
				b.primary.slot("a").CatalogXmin = 710
				b.pass("a updated ready")
				b.usable("a", true)
			})
		})
		t.Run(name+", slot has another file and can be followed", func(t *testing.T) {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.with(row("a"))
				lapse(b)
				b.advance()
				b.host.Calls()
				_, _, err := b.turn(host.Wakeup{Timeout: true})
				require.NoError(t, err)
				require.Equal(t, stateReady, b.host.Passes()[0].Slots[0].State)
				require.Equal(t, copyOf(*b.primary.slot("a")), b.slot("a"))
			})
		})
		t.Run(name+", slot moved and cannot be followed", func(t *testing.T) {
			for _, major := range []int{15, 16} {
				inBench(t, major, func(t *testing.T, b *bench) {
					b.with(row("a"))
					lapse(b)
					s := b.primary.slot("a")
					s.CatalogXmin, s.ConfirmedFlushLSN = 710, 6000
					b.turn(host.Wakeup{})
					r := b.host.Passes()[0].Slots[0]
					require.Equal(t, stateWaiting, r.State)
					require.Equal(t, string(reasonNotProtected), r.Reason)
					b.usable("a", major >= firstConflict && !strings.HasPrefix(name, "feedback off"))
				})
			}
		})
	}
}

func TestFeedbackVanishes(t *testing.T) {
	for _, major := range []int{15, 16} {
		inBench(t, major, func(t *testing.T, b *bench) {
			b.feedback(false)
			b.with(row("a"))
			b.protect(0)
			b.primary.slot("a").ConfirmedFlushLSN = 1200
			b.pass("a updated waiting feedback_pending")
			b.usable("a", major >= firstConflict)
			b.feed()
			b.turn(host.Wakeup{})
			require.Equal(t, stateReady, b.host.Passes()[0].Slots[0].State)
			b.usable("a", true)
		})
		// It comes back within the pass: nothing is taken out of use.
		inBench(t, major, func(t *testing.T, b *bench) {
			b.with(row("a"))
			b.protect(0)
			b.pass("a unchanged ready")
			b.calls("RequestFeedback now")
		})
	}
}

func TestRefusedWhileFeedbackIsOff(t *testing.T) {
	for _, major := range []int{15, 16} {
		inBench(t, major, func(t *testing.T, b *bench) {
			b.with(row("a"))
			b.host.Values["hot_standby_feedback"] = "off"
			err := b.passErr("a updated waiting feedback_off")
			require.True(t, host.HasCode(err, "55000"))
			b.usable("a", false)
			b.asked()
		})
	}
}

// The primary being away changes nothing about the copies.
func TestPrimaryAway(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		before := b.slot("a")
		b.primary.err = host.Errorf("08006", "no route")
		b.turn(host.Wakeup{})
		p := b.host.Passes()[0]
		require.True(t, host.HasCode(p.Err, "08006"))
		require.Nil(t, p.Slots, "what is shown stays")
		require.Equal(t, before, b.slot("a"))
		b.restart()
		b.turn(host.Wakeup{})
		require.Equal(t, before, b.slot("a"))

		// Neither does it going away after the first read of a new worker.
		b.primary.err = nil
		b.restart()
		s := b.primary.slot("a")
		s.RestartLSN, s.ConfirmedFlushLSN, s.CatalogXmin = 1050, 1200, 710
		b.primary.fetchErr = host.Errorf("08006", "no route")
		b.turn(host.Wakeup{Sync: true})
		require.Equal(t, before, b.slot("a"))
	})
}

func TestNoRightToReadFiles(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.primary.state.Files = primary.NoAccess
		b.primary.slot("a").ConfirmedFlushLSN = 1200
		b.pass("a updated ready")
		b.primary.state.Slots = append(b.primary.state.Slots, row("b"))
		require.True(t, host.HasCode(b.passErr(), "42501"))
	})
}

func TestCapAtReplay(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.host.State.NextXID = 690
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.pass("a created ready")
		require.Equal(t, host.XID(690), b.slot("a").CatalogXmin)
		mark, _ := parseMarker(b.slot("a").Marker)
		require.Equal(t, host.XID(700), mark.Need)
		b.host.State.NextXID = 695
		b.pass("a unchanged ready")
		b.host.State.NextXID = 800
		b.pass("a updated ready")
		require.Equal(t, host.XID(700), b.slot("a").CatalogXmin)
	})
}

func TestFilesAreRestored(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.protect(700)
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.pass("a created ready")
		path := filepath.Join(b.dir, "pg_logical", "snapshots", "0-3E8.snap")
		require.NoError(t, os.Remove(path))
		b.pass("a unchanged ready")
		require.Equal(t, b.primary.snapshots[1000], b.snapshotHere(1000))
		require.NoError(t, os.Remove(path))
		b.pass("a unchanged ready")
		require.Nil(t, b.snapshotHere(1000), "from then on restartpoints go by the slot")
	})
}

// A lapse that was over before a pass began counts also where that does not reach the primary, and is not found again later.
func TestLapseBeforeFailedPass(t *testing.T) {
	for _, err := range []error{host.Errorf("08006", "no route"), refuse("elsewhere", "", "").lookingElsewhere(), errReload} {
		for _, major := range []int{15, 16} {
			inBench(t, major, func(t *testing.T, b *bench) {
				b.with(row("a"))
				b.host.State.FeedbackLapses++
				b.primary.err = err
				require.ErrorIs(t, b.passErr("a updated waiting feedback_off"), err)
				b.usable("a", false)
				b.primary.err = nil
				b.pass("a updated ready")
			})
		}
	}
}

// Whatever happens while the primary is asked finds the copies out of use, if feedback was off.
func TestLapseBeforeRead(t *testing.T) {
	for _, major := range []int{15, 16} {
		inBench(t, major, func(t *testing.T, b *bench) {
			b.with(row("a"))
			b.host.State.FeedbackLapses++
			b.primary.onRead = func() { b.usable("a", false) }
			b.pass("a updated ready")
			b.usable("a", true)
			b.primary.onRead = nil
			b.pass("a unchanged ready")
		})
	}
}

// A pass that saw a lapse and came to no end shows what the lapse means.
func TestLapseInFailedPass(t *testing.T) {
	for _, major := range []int{15, 16} {
		inBench(t, major, func(t *testing.T, b *bench) {
			b.with(row("a"), row("b"))
			a := b.primary.slot("a")
			a.RestartLSN, a.ConfirmedFlushLSN, a.CatalogXmin = 1050, 1200, 710
			b.primary.state.PostmasterStart = "2"
			b.primary.fetchErr = host.Errorf("08006", "no route")
			action := actionUpdated
			if major >= firstConflict {
				action = actionUnchanged
			}
			err := b.passErr("a "+action+" waiting catalog_xmin_not_protected", "b unchanged ready")
			require.True(t, host.HasCode(err, "08006"))
			b.usable("a", major >= firstConflict)
			b.usable("b", true)
			require.Len(t, b.worker.rows, 2)
		})
	}
}

// A lapse that shows only when the primary is read again, in the midst of a pass, counts like any other.
func TestLapseInMidPass(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		a := b.primary.slot("a")
		a.RestartLSN, a.ConfirmedFlushLSN, a.CatalogXmin = 1050, 1200, 710
		b.primary.state.Slots = append(b.primary.state.Slots, row("new"))
		reads := 0
		b.primary.onRead = func() {
			if reads++; reads == 2 {
				b.primary.state.Physical = primary.PhysicalSlot{}
			}
		}
		var refused *refusal
		require.ErrorAs(t, b.passErr("a updated waiting catalog_xmin_not_protected"), &refused)
		require.Equal(t, 2, reads)
		b.usable("a", false)
	})
}

// A pass after a lapse proves the copies again, also where it meets nothing else that is new.
func TestLapseEndsIdleness(t *testing.T) {
	for name, lapse := range map[string]func(b *bench){
		"before the pass":        func(b *bench) { b.host.State.FeedbackLapses++ },
		"within the pass":        func(b *bench) { b.primary.onRead = func() { b.host.State.FeedbackLapses++ } },
		"seen from the primary":  func(b *bench) { b.primary.state.Physical.WalSender = "11@2" },
		"before one that failed": func(b *bench) { b.host.State.FeedbackLapses++; b.failOnce() },
		"while the worker was off": func(b *bench) {
			b.host.Values["replsync.sync_slots"] = "off"
			b.host.State.FeedbackLapses++
			_, _, err := b.turn(host.Wakeup{Reload: true})
			require.NoError(b.t, err)
			b.host.Values["replsync.sync_slots"] = "on"
			b.host.Passes()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 16, func(t *testing.T, b *bench) {
				b.with(row("a"))
				b.pass("a unchanged ready")
				require.NotNil(t, b.worker.memory.idle)
				lapse(b)
				b.worker.due = time.Time{}
				b.turn(host.Wakeup{Timeout: true})
				require.Equal(t, stateReady, b.host.Passes()[0].Slots[0].State)
				require.True(t, b.worker.memory.proven["a"])
				b.primary.onRead = nil
				// It cannot be followed yet, and is judged by what was proven.
				s := b.primary.slot("a")
				s.CatalogXmin, s.ConfirmedFlushLSN = 710, 6000
				b.pass("a skipped ready wal_not_flushed")
			})
		})
	}
}

// failOnce is a pass that does not reach the primary.
func (b *bench) failOnce() {
	b.t.Helper()
	b.primary.err = host.Errorf("08006", "no route")
	require.Error(b.t, b.passErr("a updated waiting feedback_off"))
	b.primary.err = nil
}

// From 16 on, what the primary's own slot has kept all the time is no less there for a lapse.
func TestLapseOfSlotThatStoodStill(t *testing.T) {
	inBench(t, 16, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.State.FeedbackLapses++
		b.protect(720)
		b.pass("a updated ready")
		b.usable("a", true)
		b.primary.slot("a").CatalogXmin, b.primary.slot("a").ConfirmedFlushLSN = 710, 6000
		b.host.State.FeedbackLapses++
		b.pass("a skipped waiting catalog_xmin_not_protected")
		b.usable("a", false)
	})
}
