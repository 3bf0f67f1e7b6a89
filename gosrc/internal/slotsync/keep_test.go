package slotsync

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// withOlder has a copy that feedback was sent for, and a slot that is older than that.
func (b *bench) withOlder() {
	a, old := row("a"), row("old")
	a.CatalogXmin, old.CatalogXmin = 720, 700
	b.host.State.NextXID = 900
	b.protect(720)
	b.with(a)
	b.primary.state.Slots = append(b.primary.state.Slots, old)
	b.primary.state.KeepsRows = true
}

// asks counts how often the primary was asked to keep rows.
func (b *bench) asks() (n int) {
	for _, call := range b.primary.calls {
		if call == "KeepRows standby 700" {
			n++
		}
	}
	return n
}

// A slot that is older than what feedback can ask for is protected all the same, and nobody has to consume it.
func TestKeepRows(t *testing.T) {
	for _, major := range []int{15, 16} {
		inBench(t, major, func(t *testing.T, b *bench) {
			b.withOlder()
			b.pass("a unchanged ready", "old created ready")
			require.Equal(t, host.XID(700), b.primary.state.Physical.CatalogXmin)
			require.Equal(t, 1, b.asks())
			require.True(t, b.worker.memory.proven["old"])
			b.usable("old", true)
			b.feed()
			b.pass("a unchanged ready", "old unchanged ready")
			require.Equal(t, 1, b.asks())

			// The slot moves on: the rows stay until the copy has followed.
			b.primary.slot("old").CatalogXmin = 730
			b.primary.slot("old").ConfirmedFlushLSN = 6000
			b.pass("a unchanged ready", "old skipped ready wal_not_flushed")
			require.Equal(t, host.XID(700), b.primary.state.Physical.CatalogXmin)
		})
		t.Run("the copy is there", func(t *testing.T) {
			inBench(t, major, func(t *testing.T, b *bench) {
				b.withOlder()
				b.primary.state.KeepsRows = false
				b.turn(host.Wakeup{})
				b.host.Passes()
				b.primary.state.KeepsRows = true
				b.turn(host.Wakeup{Sync: true})
				require.Equal(t, stateReady, b.host.Passes()[0].Slots[1].State)
				require.True(t, b.worker.memory.proven["old"])
				require.Equal(t, 1, b.asks())
			})
		})
	}
}

// What was sent before the copy was made can still come and move the physical slot forward.
func TestKeepRowsAgain(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.withOlder()
		late := false
		b.primary.onRead = func() {
			if p := &b.primary.state.Physical.CatalogXmin; *p == 700 && !late {
				*p, late = 720, true
			}
		}
		b.pass("a unchanged ready", "old created waiting catalog_xmin_not_protected")
		b.usable("old", false)
		b.pass("a unchanged ready", "old updated ready")
		require.Equal(t, 2, b.asks())
	})
}

func TestKeepRowsNotPossible(t *testing.T) {
	for name, change := range map[string]func(*bench){
		"not with the primary's extension": func(b *bench) { b.primary.state.KeepsRows = false },
		"nor where the slot has moved on":  func(b *bench) { b.primary.slot("old").CatalogXmin = 710 },
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.withOlder()
				b.primary.state.KeepsRows = false
				b.pass("a unchanged ready", "old created waiting catalog_xmin_not_protected")
				b.primary.state.KeepsRows = true
				change(b)
				b.primary.slot("old").ConfirmedFlushLSN = 6000 // it cannot be followed
				b.pass("a unchanged ready", "old skipped waiting catalog_xmin_not_protected")
				require.Zero(t, b.asks())
				b.usable("old", false)
			})
		})
	}
	t.Run("it moves on meanwhile", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.withOlder()
			b.host.Before = func(call string) {
				if call == "CreateSlot old" {
					b.primary.slot("old").CatalogXmin = 710
				}
			}
			b.pass("a unchanged ready", "old created waiting catalog_xmin_not_protected")
			require.Equal(t, host.XID(710), b.primary.state.Physical.CatalogXmin, "as far as it is there")
			b.pass("a unchanged ready", "old updated ready")
		})
	})
	t.Run("refused", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.withOlder()
			b.primary.keepErr = host.Errorf("57014", "canceled")
			b.pass("a unchanged ready", "old failed failed error")
			b.primary.keepErr = nil
			b.pass("a unchanged ready", "old updated ready")
		})
	})
	t.Run("lost", func(t *testing.T) {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.withOlder()
			b.primary.keepErr = host.Errorf("08006", "no route")
			require.True(t, host.HasCode(b.passErr(), "08006"))
		})
	})
	t.Run("not through a standby in between", func(t *testing.T) {
		inBench(t, 16, func(t *testing.T, b *bench) {
			b.cascade()
			b.hold(720, 720)
			b.primary.state.KeepsRows = true
			b.primary.state.Slots = []primary.Slot{row("old")}
			b.turn(host.Wakeup{})
			require.Zero(t, b.asks())
		})
	})
}
