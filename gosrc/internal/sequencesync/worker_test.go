package sequencesync

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

func TestConnectionIsKept(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(5))
	now := time.Now()
	r.now = func() time.Time { return now }
	r.turn()
	r.state(&host.Subscription{OID: 1}).due = now.Add(time.Hour)
	pass := func(d time.Duration) time.Duration {
		now = now.Add(d)
		timeout, _, err := r.Worker.turn(t.Context(), host.Wakeup{})
		require.NoError(t, err)
		return timeout
	}
	require.Equal(t, time.Second, pass(keepOpen-time.Second))
	require.Equal(t, []int{1, 0}, []int{r.o.opened, r.o.closed})
	r.ask(host.SequenceDrift)
	pass(time.Second)
	require.Equal(t, []int{1, 0}, []int{r.o.opened, r.o.closed}, "it was used")
	pass(keepOpen)
	require.Equal(t, []int{1, 1}, []int{r.o.opened, r.o.closed})
	pass(keepOpen)
	r.ask(host.SequenceDrift)
	require.Equal(t, []int{1, 1}, []int{r.o.opened, r.o.closed}, "it can be used again")
}

func TestIdle(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.now = func() time.Time { return now }
	r.wanted = now
	r.turn()
	r.h.Unsubscribe(1)
	timeout, _ := r.turn()
	require.Equal(t, idleExit, timeout)
	now = now.Add(idleExit)
	_, _, err := r.Worker.turn(t.Context(), host.Wakeup{})
	require.ErrorIs(t, err, ErrIdle)
	require.Empty(t, r.states)
}

func TestRun(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	require.Eventually(t, func() bool { return r.h.Subscription(1).Done == 1 }, 10*time.Second, time.Millisecond)
	r.h.Ask(host.SequenceRequest{ID: 3, Kind: host.SyncSequences, Subscription: r.h.Subscription(1)})
	r.h.Wake(host.Wakeup{Sync: true})
	require.Eventually(t, func() bool { return r.h.Answered(3).Done }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestRulesOfADump(t *testing.T) {
	r := newRig(t)
	r.h.Subscribe(host.Subscription{OID: 1, Name: "sub", Enabled: true, Requested: 1, Unselected: true})
	r.local("a", 1)
	r.local("b", 1)
	r.o.put("a", standing(5))
	r.o.put("b", standing(5))
	r.o.selected = []host.SequenceName{named("a")}
	r.turn()
	require.Equal(t, at(5, true), r.h.Local(1, named("a")).Position)
	require.EqualValues(t, 0, r.h.Local(1, named("b")).OID, "not under care")
	require.EqualValues(t, 1, r.h.Subscription(1).Done)
}

// TestSelectionIsRemembered has a caller who selects, and the first cycle a moment later: both use one connection. Without a
// selection it is not kept for long.
func TestSelectionIsRemembered(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.now = func() time.Time { return now }
	sub := r.h.Subscription(1)
	r.h.Unsubscribe(1)
	selects := func() {
		r.h.Ask(host.SequenceRequest{ID: 7, Kind: host.SelectSequences, Subscription: sub})
		r.turn()
		require.NoError(t, r.h.Answered(7).Err)
	}
	selects()
	r.h.Subscribe(sub)
	r.turn()
	require.Equal(t, []int{1, 0}, []int{r.o.opened, r.o.closed})
	r.h.Unsubscribe(1)
	r.turn()
	require.Equal(t, []int{1, 1}, []int{r.o.opened, r.o.closed}, "the selection was removed")
	selects()
	r.turn()
	require.Equal(t, []int{2, 1}, []int{r.o.opened, r.o.closed}, "it may come yet")
	now = now.Add(keepOpen)
	r.wanted = now
	r.turn()
	require.Equal(t, []int{2, 2}, []int{r.o.opened, r.o.closed})
	require.Empty(t, r.states)
}
