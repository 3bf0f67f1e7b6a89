package slotsync

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// One copy stays as old as the oldest rows that anything holds on the primary, and the others go on.
func TestKeepLow(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		a, c := row("a"), row("c")
		c.CatalogXmin = 705
		b.with(a, c)
		move := func(oldest, xmin host.XID) {
			b.primary.state.OldestXmin = oldest
			for _, name := range []string{"a", "c"} {
				s := b.primary.slot(name)
				s.ConfirmedFlushLSN++
				s.CatalogXmin = xmin
			}
			b.turn(host.Wakeup{})
			for _, r := range b.host.Passes()[0].Slots {
				require.Equal(t, stateReady, r.State)
			}
		}
		xmins := func() [2]host.XID { return [2]host.XID{b.slot("a").CatalogXmin, b.slot("c").CatalogXmin} }
		b.host.State.NextXID = 900

		move(702, 720) // somebody else's query
		require.Equal(t, [2]host.XID{702, 720}, xmins())
		move(701, 730) // the primary does not take that back either
		require.Equal(t, [2]host.XID{702, 730}, xmins())
		move(725, 740)
		require.Equal(t, [2]host.XID{725, 740}, xmins())
		// Nothing is written over and over.
		b.host.Calls()
		b.pass("a unchanged ready", "c unchanged ready")
		b.calls()

		move(0, 750)
		require.Equal(t, [2]host.XID{750, 750}, xmins())
		// A slot that is behind holds rows as well.
		late := row("late")
		late.CatalogXmin = 745
		b.host.Values["replsync.slots"] = "a,c"
		b.primary.state.Slots = append(b.primary.state.Slots, late)
		move(0, 760)
		require.Equal(t, [2]host.XID{750, 760}, xmins())
	})
}

// The first copy is no newer than a slot that is made while its files are read.
func TestKeepLowFromTheFirstCopyOn(t *testing.T) {
	for _, unwanted := range []host.XID{0, 690} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.host.State.NextXID = 900
			b.host.Values["replsync.slots"] = "a,late"
			oldest := host.XID(700)
			b.primary.state.Slots = []primary.Slot{row("a")}
			if unwanted != 0 {
				oldest = unwanted
				other := row("other")
				other.CatalogXmin = unwanted
				b.primary.state.Slots = append(b.primary.state.Slots, other)
			}
			b.primary.onFetch = func() {
				b.primary.onFetch = nil
				late := row("late")
				late.CatalogXmin = oldest
				b.primary.state.Slots = append(b.primary.state.Slots, late)
				b.primary.slot("a").CatalogXmin = 720
				b.primary.slot("a").ConfirmedFlushLSN++
			}
			b.pass("a created ready")
			require.Equal(t, oldest, b.slot("a").CatalogXmin)
			b.pass("a unchanged ready", "late created ready")
			b.pass("a updated ready", "late unchanged ready")
			require.Equal(t, host.XID(720), b.slot("a").CatalogXmin)
			require.Equal(t, oldest, b.slot("late").CatalogXmin)
		})
	}
}
