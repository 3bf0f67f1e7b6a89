package slotsync

import (
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

// The primary is told at once that the last copy is gone, and so the next one that is made is proven from the first moment on.
func TestLastCopyLetsGo(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.state.Slots = []primary.Slot{row("a"), row("b")}
		b.pass("a created ready", "b created ready")
		b.calls("RequestFeedback now", "CreateSlot a", "CreateSlot b")
		b.primary.state.Slots = []primary.Slot{row("b")}
		b.pass("a dropped", "b unchanged ready")
		b.calls("DropSlot a")
		b.primary.state.Slots = nil
		b.pass("b dropped")
		b.calls("DropSlot b", "RequestFeedback now")
		b.primary.state.Slots = []primary.Slot{row("c")}
		b.pass("c created ready")
		b.calls("RequestFeedback now", "CreateSlot c")
	})
}
