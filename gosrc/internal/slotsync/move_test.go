package slotsync

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

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
