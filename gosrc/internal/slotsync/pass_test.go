package slotsync

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

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
