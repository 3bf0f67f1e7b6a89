package slotsync

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/host/hosttest"
)

func TestDropSlots(t *testing.T) {
	drop := func(b *bench, pattern string) hosttest.Result {
		_, _, err := b.turn(host.Wakeup{Command: host.DropSlots, Argument: pattern})
		require.NoError(b.t, err)
		return b.host.Results()[0]
	}
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.host.Put(host.Slot{Name: "a_user", Plugin: "pgoutput", Logical: true})
		b.with(row("a_1"), row("a_2"), row("b"))

		r := drop(b, "a*")
		require.True(t, host.HasCode(r.Err, "55000"))
		require.ErrorContains(t, r.Err, `"a_1"`)
		b.slot("a_1")

		b.host.Values["replsync.slots"] = "b"
		r = drop(b, "a*")
		require.NoError(t, r.Err)
		require.EqualValues(t, 2, r.Value)
		b.slot("a_user")
		require.True(t, host.HasCode(drop(b, "*").Err, "55000"), "b is wanted")
		require.True(t, host.HasCode(drop(b, "B").Err, "22023"))
		require.True(t, host.HasCode(drop(b, " ").Err, "22023"), "nothing is not everything")

		b.host.Passes()
		b.host.Values["replsync.sync_slots"] = "off"
		require.Equal(t, hosttest.Result{Value: 1}, drop(b, "*"))
		for _, row := range b.host.Passes()[0].Slots {
			require.NotEqual(t, "b", row.Name)
		}
	})
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.host.Values["replsync.slots"] = ""
		a := row("a")
		a.Failover = true
		b.with(a)
		b.worker.memory = newMemory()
		require.True(t, host.HasCode(drop(b, "*").Err, "55000"), "by the copy's own word")
		b.primary.slot("a").Failover = false
		b.turn(host.Wakeup{})
		require.Equal(t, hosttest.Result{Value: 1}, drop(b, "*"))
	})
}

func TestDropSlotsByFailover(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Values["replsync.sync_slots"] = "off"
		_, _, err := b.turn(host.Wakeup{Command: host.DropSlots, Argument: "a,@failover"})
		require.NoError(t, err)
		require.True(t, host.HasCode(b.host.Results()[0].Err, "22023"))
		b.slot("a")
	})
}

// A command and a pass that are asked for together get an answer each.
func TestDropAndSync(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"), row("b"))
		b.host.Values["replsync.sync_slots"] = "off"
		_, _, err := b.turn(host.Wakeup{Command: host.DropSlots, Argument: "a", Sync: true})
		require.NoError(t, err)
		require.Equal(t, []hosttest.Result{{Value: 1}}, b.host.Results())
		passes := b.host.Passes()
		require.Len(t, passes, 1, "only the pass answers who asked for one")
		require.Equal(t, actionCreated, passes[0].Slots[0].Action)
	})
}
