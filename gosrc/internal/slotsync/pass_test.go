package slotsync

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

func TestCreateAndHandshake(t *testing.T) {
	for _, major := range []int{15, 16, 17, 19} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			inBench(t, major, func(t *testing.T, b *bench) {
				a := row("a")
				a.Failover = major >= firstFailover
				b.primary.state.Slots = []primary.Slot{a}
				b.primary.mappings["map-5-4e3-0_3F0-2bc-2bd"] = []byte("mapping")
				b.pass("a created ready")
				b.calls("RequestFeedback now", "CreateSlot a")
				require.Equal(t, copyOf(a), b.slot("a"))
				require.Equal(t, b.primary.snapshots[1000], b.snapshotHere(1000))
				mapping, err := os.ReadFile(filepath.Join(b.dir, "pg_logical", "mappings", "map-5-4e3-0_3F0-2bc-2bd"))
				require.NoError(t, err)
				require.Equal(t, "mapping", string(mapping))
				b.asked("Read standby", "Snapshots [0/3E8]", "Mappings 5 0/3E8", "Read standby")
			})
		})
	}
}

// The reservation comes before the files and goes after the slots, whatever happens in between.
func TestReservation(t *testing.T) {
	order := func(b *bench) []string {
		var calls []string
		for _, c := range b.host.Calls() {
			if c != "WALAvailable 0/3E8" {
				calls = append(calls, c)
			}
		}
		return calls
	}
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.protect(700)
		b.primary.state.Slots = []primary.Slot{row("a"), row("b")}
		b.primary.slot("b").RestartLSN = 1050
		b.primary.onFetch = func() { require.Equal(t, host.LSN(1000), b.host.Reserved()) }
		b.turn(host.Wakeup{})
		calls := order(b)
		require.Equal(t, "ReserveWAL 0/3E8", calls[0], calls)
		require.Zero(t, b.host.Reserved())
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.primary.fetchErr = host.Errorf("08006", "lost")
		b.turn(host.Wakeup{})
		require.Equal(t, []string{"ReserveWAL 0/3E8", "ReserveWAL 0/0"}, order(b))
		require.True(t, host.HasCode(b.host.Passes()[0].Err, "08006"))
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.primary.onFetch = b.worker.Cancel
		b.turn(host.Wakeup{})
		require.Equal(t, []string{"ReserveWAL 0/3E8", "ReserveWAL 0/0"}, order(b))
		require.True(t, host.HasCode(b.host.Passes()[0].Err, "57014"))
		b.primary.onFetch = nil
		b.pass("a created ready")
	})
}

// A copy that is not proven cannot be taken for a usable slot.
func TestUnproven(t *testing.T) {
	for _, major := range []int{15, 17} {
		inBench(t, major, func(t *testing.T, b *bench) {
			b.feedback(false)
			a := row("a")
			a.Failover = major >= firstFailover
			b.primary.state.Slots = []primary.Slot{a}
			b.pass("a created waiting feedback_pending")
			b.usable("a", false)
			b.pass("a unchanged waiting feedback_pending")
			b.feed()
			b.pass("a updated ready")
			b.usable("a", true)
			require.Equal(t, a.Failover, b.slot("a").Failover)
			require.Equal(t, a.Failover, b.slot("a").Synced)
		})
	}
}

func TestHandshakeWaits(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.feedback(false)
		reads := 0
		b.primary.onRead = func() {
			if reads++; reads == 10 {
				b.feed()
			}
		}
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.pass("a created ready")
		require.Equal(t, 10, reads)
	})
	t.Run("not while edits are pending", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.host.State.ReloadTime = time.Unix(1, 0)
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.pass("a created waiting feedback_pending")
			b.calls("CreateSlot a")
		})
	})
	t.Run("not without a walreceiver", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.host.State.WalReceiverPID = 0
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.pass("a created waiting feedback_pending")
			b.calls("CreateSlot a")
		})
	})
	t.Run("not again and again", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.feedback(false)
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.pass("a created waiting feedback_pending")
			b.calls("RequestFeedback now", "CreateSlot a", "RequestFeedback now")
			b.pass("a unchanged waiting feedback_pending")
			b.calls()
			time.Sleep(feedbackPause) // of the fake clock
			b.pass("a unchanged waiting feedback_pending")
			b.calls("RequestFeedback now")
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.feedback(false)
			b.primary.state.Slots = []primary.Slot{row("a")}
			time.AfterFunc(2*protectionTime, b.worker.Cancel)
			began := time.Now()
			require.True(t, host.HasCode(b.passErr("a created waiting feedback_pending"), "57014"))
			require.Less(t, time.Since(began), handshakeTime)
			b.usable("a", false)
		})
	})
}

// With other copies here feedback that is under way may raise P above the new one.
func TestNewCopyIsSettledFirst(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		old := row("old")
		old.CatalogXmin = 720
		b.protect(690)
		b.with(old)
		b.primary.state.Slots = []primary.Slot{row("a"), old}
		before := time.Now()
		b.pass("a created ready", "old unchanged ready")
		require.GreaterOrEqual(t, time.Since(before), settleTime)
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		old := row("old")
		old.CatalogXmin = 720
		b.protect(690)
		b.with(old)
		b.primary.state.Slots = []primary.Slot{row("a"), old}
		began := time.Now()
		b.primary.onRead = func() {
			if time.Since(began) > settleTime/2 {
				b.protect(720)
			}
		}
		b.pass("a created waiting catalog_xmin_not_protected", "old unchanged ready")
		b.usable("a", false)
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		old := row("old")
		old.CatalogXmin = 690
		b.protect(690)
		b.with(old)
		b.primary.state.Slots = []primary.Slot{row("a"), old}
		before := time.Now()
		b.pass("a created ready", "old unchanged ready")
		require.Zero(t, time.Since(before), "at once")
		b.calls("CreateSlot a")
	})
}

func TestUnchangedCostsOneRead(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		var rows []string
		var slots []primary.Slot
		for i := range 500 {
			r := row(fmt.Sprintf("s%03d", i))
			r.Failover = i%2 == 0
			slots = append(slots, r)
			rows = append(rows, r.Name+" unchanged ready")
		}
		b.with(slots...)
		b.pass(rows...)
		require.Empty(t, b.host.Calls())
		b.asked("Read standby")
	})
}

func TestMove(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"), row("b"), row("c"))
		for _, name := range []string{"a", "b"} {
			s := b.primary.slot(name)
			s.RestartLSN, s.ConfirmedFlushLSN, s.CatalogXmin = 1050, 1200, 710
		}
		marker := b.slot("a").Marker
		b.pass("a updated ready", "b updated ready", "c unchanged ready")
		require.Equal(t, marker, b.slot("a").Marker, "writing it is not free")
		b.calls("MoveSlots a", "MoveSlots b", "SaveSlot a", "SaveSlot b")
		b.asked("Read standby", "Snapshots [0/41A]")
		require.Equal(t, copyOf(*b.primary.slot("a")), b.slot("a"))
		require.Equal(t, b.primary.snapshots[1050], b.snapshotHere(1050))

		c := b.primary.slot("c")
		c.RestartLSN, c.ConfirmedFlushLSN = 1050, 1250
		b.pass("a unchanged ready", "b unchanged ready", "c updated ready")
		b.asked("Read standby")
	})
}

func TestMoveKeepsMarkerWhereConfirmedMoves(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		before := b.slot("a")
		b.primary.slot("a").ConfirmedFlushLSN = 1200
		b.pass("a updated ready")
		after := b.slot("a")
		require.Equal(t, host.LSN(1200), after.ConfirmedFlushLSN)
		after.ConfirmedFlushLSN = before.ConfirmedFlushLSN
		require.Equal(t, before, after)
	})
}

func TestSnapshotMissing(t *testing.T) {
	t.Run("a new slot at its reserve point needs none", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			delete(b.primary.snapshots, 1000)
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.pass("a created ready")
			require.Nil(t, b.snapshotHere(1000))
		})
	})
	t.Run("a new slot that moved on is read again", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			delete(b.primary.snapshots, 1000)
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.primary.onFetch = func() { b.primary.slot("a").RestartLSN = 1050 }
			b.pass("a created ready")
			require.Equal(t, host.LSN(1050), b.slot("a").RestartLSN)
			require.NotNil(t, b.snapshotHere(1050))
		})
	})
	t.Run("a new slot that moves all the time is left to the next pass", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.primary.onFetch = func() { b.primary.slot("a").RestartLSN++ }
			b.pass("a skipped waiting no_consistent_snapshot")
			_, ok := b.host.Slot("a")
			require.False(t, ok)
		})
	})
	t.Run("a copy moves its confirmed_flush_lsn alone", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.with(row("a"))
			s := b.primary.slot("a")
			s.RestartLSN, s.ConfirmedFlushLSN, s.CatalogXmin = 1040, 1200, 710
			b.primary.onFetch = func() { s.RestartLSN = 1050 }
			b.pass("a updated ready")
			require.Equal(t, host.LSN(1000), b.slot("a").RestartLSN)
			require.Equal(t, host.XID(700), b.slot("a").CatalogXmin)
			require.Equal(t, host.LSN(1200), b.slot("a").ConfirmedFlushLSN)
			b.primary.onFetch = nil
			b.pass("a updated ready")
			require.Equal(t, host.LSN(1050), b.slot("a").RestartLSN)
		})
	})
	t.Run("a copy moves to a position that needs none", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.with(row("a"))
			s := b.primary.slot("a")
			s.RestartLSN, s.ConfirmedFlushLSN, s.CatalogXmin = 1040, 1200, 710
			b.pass("a updated ready")
			require.Equal(t, copyOf(*s), b.slot("a"))
			b.asked("Read standby", "Snapshots [0/410]", "Read standby")
		})
	})
	t.Run("a stale file is replaced", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.with(row("a"))
			stale := filepath.Join(b.dir, "pg_logical", "snapshots", "0-41A.snap")
			require.NoError(t, os.WriteFile(stale, snapshotFile("of another timeline"), 0o600))
			s := b.primary.slot("a")
			s.RestartLSN, s.ConfirmedFlushLSN = 1050, 1200
			b.pass("a updated ready")
			require.Equal(t, b.primary.snapshots[1050], b.snapshotHere(1050))
		})
	})
	t.Run("one unreadable file", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.with(row("a"), row("b"))
			b.primary.fileErr[1050] = errors.New("I/O error")
			b.primary.slot("a").RestartLSN, b.primary.slot("a").ConfirmedFlushLSN = 1050, 1200
			b.primary.slot("b").ConfirmedFlushLSN = 1200
			b.pass("a failed failed error", "b updated ready")
			require.Equal(t, host.LSN(1000), b.slot("a").RestartLSN)
		})
	})
	t.Run("garbage is refused", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.protect(700)
			b.primary.snapshots[1050] = []byte("garbage that is long enough")
			bad := row("bad")
			bad.RestartLSN = 1050
			b.primary.state.Slots = []primary.Slot{bad, row("good")}
			b.turn(host.Wakeup{})
			rows := b.host.Passes()[0].Slots
			require.Equal(t, stateFailed, rows[0].State)
			require.Contains(t, rows[0].Error, "magic")
			require.Equal(t, actionCreated, rows[1].Action)
		})
	})
}

// A row that was read again may be ahead of what has arrived here.
func TestNewerRowIsNotFlushed(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.primary.onFetch = func() { b.primary.slot("a").ConfirmedFlushLSN = 5001 }
		b.pass("a created ready")
		require.Equal(t, host.LSN(1100), b.slot("a").ConfirmedFlushLSN)
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.primary.onFetch = func() { b.primary.slot("a").ConfirmedFlushLSN = 5000 }
		b.pass("a created ready")
		require.Equal(t, host.LSN(5000), b.slot("a").ConfirmedFlushLSN)
	})
}

func TestNoWAL(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.protect(700)
		b.host.OldestWAL = 17 << 20
		late := row("late")
		late.RestartLSN, late.ConfirmedFlushLSN = 17<<20, 17<<20+5
		b.host.State.FlushLSN = 18 << 20
		b.primary.state.Slots = []primary.Slot{row("a"), late}
		b.pass("a skipped waiting wal_or_rows_removed", "late created ready")
		b.calls("CreateSlot late", "RequestFeedback now", "UpdateSlot late")
	})
}

func TestDrop(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		user := host.Slot{Name: "user", Plugin: "pgoutput", Logical: true, CatalogXmin: 700}
		b.host.Put(user)
		b.with(row("a"), row("b"), row("c"), row("d"), row("e"))
		b.primary.drop("a")
		b.primary.slot("b").Invalidation = "wal_removed"
		b.primary.slot("c").Plugin = "wal2json"
		d := b.slot("d")
		d.Invalidated = true
		b.host.Put(d)
		b.host.Values["replsync.slots"] = "*,!e"
		b.pass("a dropped", "b dropped invalidated slot_invalidated", "c created ready", "d created ready", "e skipped waiting not_wanted")
		_, ok := b.host.Slot("a")
		require.False(t, ok)
		_, ok = b.host.Slot("b")
		require.False(t, ok)
		require.Equal(t, "wal2json", b.slot("c").Plugin)
		require.False(t, b.slot("d").Invalidated)
		require.Equal(t, user, b.slot("user"))
		b.primary.drop("e")
		b.pass("b skipped invalidated slot_invalidated", "c unchanged ready", "d unchanged ready", "e dropped")
	})
}

func TestDroppedByOther(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Remove("a")
		b.pass("a created ready dropped_by_other")
		require.Contains(t, b.host.Logs()[0].Hint, "Patroni")
		b.pass("a unchanged ready")
	})
}

func TestForeignAndLeftover(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.protect(700)
		mine := host.Slot{Name: "mine", Plugin: "pgoutput", Database: 5, RestartLSN: 1, ConfirmedFlushLSN: 1, CatalogXmin: 700, Logical: true}
		left := mine
		left.Name, left.Failover = "left", true
		b.host.Put(mine, left)
		b.primary.state.Slots = []primary.Slot{row("left"), row("mine")}
		b.pass("left created ready", "mine skipped foreign name_taken")
		require.Equal(t, mine, b.slot("mine"))
		require.True(t, b.slot("left").Marked)
	})
}

func TestAdoptCoreCopy(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.protect(700)
		a := row("a")
		a.Failover = true
		l := copyOf(a)
		l.Marked, l.Marker = false, ""
		b.host.Put(l)
		b.primary.state.Slots = []primary.Slot{a}
		b.pass("a updated ready")
		require.Equal(t, copyOf(a), b.slot("a"))
	})
}

func TestFailoverFlagFollows(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.primary.slot("a").Failover = true
		b.pass("a updated ready")
		require.Equal(t, copyOf(*b.primary.slot("a")), b.slot("a"))
		b.primary.slot("a").Failover = false
		b.pass("a updated ready")
		require.Equal(t, copyOf(*b.primary.slot("a")), b.slot("a"))
	})
}

// A pass that finds everything as the last one did need not think again, but nothing that counts may escape it.
func TestNothingNew(t *testing.T) {
	for name, change := range map[string]func(b *bench){
		"feedback": func(b *bench) { b.primary.state.Physical.CatalogXmin = 900 },
		"patterns": func(b *bench) { b.host.Values["replsync.slots"] = "other" },
		"timeline": func(b *bench) { b.primary.state.Timeline = 99 },
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 15, func(_ *testing.T, b *bench) {
				b.with(row("a"))
				for range 3 {
					b.pass("a unchanged ready")
				}
				change(b)
				b.pass(map[string]string{
					"feedback": "a updated waiting catalog_xmin_not_protected",
					"patterns": "a skipped waiting not_wanted",
					"timeline": "a skipped ready wal_not_flushed",
				}[name])
			})
		})
	}
}
