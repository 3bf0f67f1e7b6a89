package slotsync

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// What arrives while the primary is read counts.
func TestFlushedWhileReading(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.primary.onRead = func() {
			b.primary.slot("a").ConfirmedFlushLSN = 5100
			b.host.Lock(func() { b.host.State.FlushLSN = 5100 })
		}
		b.pass("a updated ready")
		require.Equal(t, host.LSN(5100), b.slot("a").ConfirmedFlushLSN)
	})
}

// A consumer that confirms faster than this standby hears of it: in each read its slot is ahead.
func TestAlwaysAhead(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.state.Slots = append(b.primary.state.Slots, row("new"))
		b.with(row("old"))
		b.host.Remove("new")
		b.worker.memory.listed = map[string]bool{}
		b.primary.onRead = func() {
			b.host.Lock(func() { // each read shows 100 more than what the one before showed, which has arrived by now
				b.host.State.FlushLSN += 100
				for i := range b.primary.state.Slots {
					b.primary.state.Slots[i].ConfirmedFlushLSN = b.host.State.FlushLSN + 50
				}
			})
		}
		b.pass("new skipped waiting wal_not_flushed", "old skipped ready wal_not_flushed")
		first := b.primary.slot("old").ConfirmedFlushLSN
		read := time.Now()
		b.turn(host.Wakeup{})
		rows := b.host.Passes()[0].Slots
		require.Equal(t, []string{"created", "updated"}, []string{rows[0].Action, rows[1].Action})
		require.Equal(t, first, b.slot("old").ConfirmedFlushLSN)
		require.Equal(t, stateReady, rows[0].State)
		require.Greater(t, rows[1].RemoteConfirmedFlushLSN, first, "the newest position is shown")
		require.False(t, rows[1].LastSyncAt.After(read), "the copy is as old as the read that it is from")
		b.turn(host.Wakeup{})
		require.Greater(t, b.slot("old").ConfirmedFlushLSN, first)
	})
	t.Run("the newest catalog_xmin is what counts", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.protect(700)
			b.primary.state.Slots = append(b.primary.state.Slots, row("a"))
			b.primary.slot("a").ConfirmedFlushLSN = 5100
			b.pass("a skipped waiting wal_not_flushed")
			b.host.State.FlushLSN = 5100
			s := b.primary.slot("a")
			s.ConfirmedFlushLSN, s.CatalogXmin = 6000, 710
			b.pass("a created waiting catalog_xmin_not_protected")
			require.Equal(t, host.XID(700), b.slot("a").CatalogXmin)
			b.usable("a", false)
		})
	})
	t.Run("another slot by then", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.protect(700)
			b.primary.state.Slots = append(b.primary.state.Slots, row("a"))
			b.primary.slot("a").ConfirmedFlushLSN = 5100
			b.pass("a skipped waiting wal_not_flushed")
			b.host.State.FlushLSN = 5100
			s := b.primary.slot("a")
			s.ConfirmedFlushLSN, s.Plugin = 6000, "wal2json"
			b.pass("a skipped waiting wal_not_flushed")
		})
	})
}

// Waiting for WAL that arrives must not take longer and longer; waiting for WAL that does not, may.
func TestNotFlushedKeepsTheNapShort(t *testing.T) {
	for _, arrives := range []bool{true, false} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.with(row("a"))
			b.primary.slot("a").ConfirmedFlushLSN = 1 << 30
			if arrives {
				b.primary.onRead = func() { b.host.Lock(func() { b.host.State.FlushLSN++ }) }
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := b.run(ctx)
			time.Sleep(3050 * time.Millisecond) // of the fake clock
			cancel()
			<-done
			naps := timeouts(b.host.Naps())
			require.Equal(t, arrives, naps[len(naps)-1] == 100, naps)
		})
	}
}

// What a primary of a newer timeline shows means nothing here until this standby has followed it.
func TestNewerTimeline(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.with(row("a"), row("b"))
		b.primary.state.Timeline = 4
		b.primary.slot("a").ConfirmedFlushLSN = 1050
		b.primary.slot("b").ConfirmedFlushLSN = 1200
		b.primary.state.Slots = append(b.primary.state.Slots, row("c"))
		b.pass("a skipped ready wal_not_flushed", "b skipped ready wal_not_flushed", "c skipped waiting wal_not_flushed")
		require.Equal(t, copyOf(row("a")), b.slot("a"))
		require.Equal(t, copyOf(row("b")), b.slot("b"))
		b.host.State.Timeline = 4
		b.turn(host.Wakeup{})
		require.Equal(t, host.LSN(1200), b.slot("b").ConfirmedFlushLSN)
		b.slot("c")
	})
}

func TestLapseForgetsSnapshots(t *testing.T) {
	m := newMemory()
	m.verified[1000] = true
	m.lapse()
	require.Empty(t, m.verified)
}

// The primary's slot may stand behind its copy: it was made anew, or the primary has crashed.
func TestAheadOfPrimary(t *testing.T) {
	setup := func(b *bench) {
		b.with(row("a"))
		s := b.primary.slot("a")
		s.RestartLSN, s.ConfirmedFlushLSN = 900, 950
		b.primary.snapshots[900] = snapshotFile("old")
	}
	t.Run("made anew at the primary's position", func(t *testing.T) {
		for _, major := range []int{15, 17} {
			inBench(t, major, func(t *testing.T, b *bench) {
				setup(b)
				b.pass("a created ready")
				require.Equal(t, copyOf(*b.primary.slot("a")), b.slot("a"))
				b.calls("DropSlot a", "CreateSlot a")
			})
		}
	})
	t.Run("out of use without the WAL", func(t *testing.T) {
		for _, major := range []int{15, 17} {
			inBench(t, major, func(t *testing.T, b *bench) {
				setup(b)
				b.host.OldestWAL = 1000
				b.pass("a updated waiting ahead_of_primary")
				b.usable("a", false)
				require.Equal(t, host.LSN(1100), b.slot("a").ConfirmedFlushLSN)
				s := b.primary.slot("a")
				s.RestartLSN, s.ConfirmedFlushLSN = 1000, 1100
				b.pass("a updated ready")
				b.usable("a", true)
			})
		}
	})
	t.Run("kept after a crash of the primary", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			setup(b)
			b.host.OldestWAL = 1000
			b.primary.state.PostmasterStart = "2"
			b.pass("a unchanged ready")
			b.pass("a unchanged ready")
			require.Equal(t, copyOf(row("a")), b.slot("a"))
		})
	})
	t.Run("nothing is known of a crash", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			setup(b)
			b.host.OldestWAL = 1000
			b.restart()
			b.pass("a updated waiting ahead_of_primary")
		})
	})
	t.Run("out of use without the right to read files", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			setup(b)
			b.primary.state.Files = primary.NoAccess
			b.pass("a updated waiting ahead_of_primary")
			b.usable("a", false)
		})
	})
	t.Run("its trouble is its own", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			setup(b)
			b.host.Faults["WALAvailable"] = host.Errorf("58030", "I/O error")
			b.pass("a failed failed error")
			require.Equal(t, copyOf(row("a")), b.slot("a"))
		})
	})
}
