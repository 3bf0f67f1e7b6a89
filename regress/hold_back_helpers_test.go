package regress_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// heldBack runs a test on the versions where walsenders are held back by replsync.
func heldBack(t *testing.T, f func(t *testing.T, major int)) {
	onEachVersion(t, func(t *testing.T, major int) {
		if major >= firstFailover {
			t.Skip("core does it")
		}
		f(t, major)
	})
}

// newHeldPair is a primary that sends nothing that its standby "sb" has not confirmed, but for slots named free_*.
func newHeldPair(t *testing.T, major int) *pair {
	t.Helper()
	primary := newPrimary(t, major, cluster.Settings(map[string]string{
		"replsync.slots":     "!free_*",
		"wal_sender_timeout": senderTimeout.String(),
	}))
	primary.Exec(t, "create table t (id int primary key); create publication p for table t")
	p := pairOf(t, primary, cluster.Slot("sb"), cluster.Name("sb"))
	primary.Set(t, holdBack, "sb")
	return p
}

// read starts a consumer on a new slot that reports, and asks for a keepalive, every 200 ms.
func read(t *testing.T, s *cluster.Server, slot string) *cluster.Consumer {
	t.Helper()
	s.CreateSlot(t, slot, cluster.SlotOptions{Plugin: "test_decoding"})
	c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: slot, Plugin: "test_decoding", Ping: true, FromConfirmed: true})
	c.Start(t, s)
	return c
}

// waitKeepalives waits for that many further keepalives, and returns them.
func waitKeepalives(t *testing.T, c *cluster.Consumer, n int) []cluster.LSN {
	t.Helper()
	before := len(c.Keepalives())
	cluster.Eventually(t, cluster.DefaultDeadline, "keepalives", func() error {
		if up, err := c.Streaming(); !up {
			t.Fatalf("the stream has ended: %v", err)
		}
		if now := len(c.Keepalives()); now < before+n {
			return fmt.Errorf("%d", now-before)
		}
		return nil
	})
	return c.Keepalives()[before:]
}

// confirmedBy is what a standby has confirmed.
func confirmedBy(t *testing.T, primary *cluster.Server, slot string) cluster.LSN {
	t.Helper()
	return *primary.Slots(t)[slot].RestartLSN
}

// waitInactive waits until the standby is gone on the primary.
func waitInactive(t *testing.T, primary *cluster.Server, slot string) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, "slot "+slot+" to be inactive", func() bool {
		return !primary.Slots(t)[slot].Active
	})
}

// senderOf is the process that serves a slot.
func senderOf(t *testing.T, s *cluster.Server, slot string) int32 {
	t.Helper()
	return cluster.QueryOne[int32](t, s, "select active_pid from pg_replication_slots where slot_name = $1", slot)
}

// requireHeld checks for some timeouts that a consumer of slot "held" gets nothing that a standby has not confirmed, and
// that its connection lives.
func requireHeld(t *testing.T, p *pair, c *cluster.Consumer, by string, received ...string) {
	t.Helper()
	sender := senderOf(t, p.primary, "held")
	for _, position := range waitKeepalives(t, c, pings) {
		require.LessOrEqual(t, position, confirmedBy(t, p.primary, by))
	}
	require.Equal(t, received, c.Values("public.t", "id"))
	require.Equal(t, sender, senderOf(t, p.primary, "held"))
}

// trouble counts the lines about a slot of the list.
func trouble(s *cluster.Server, slot, what string) int {
	n := 0
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, "WARNING:") && strings.Contains(line, `"`+slot+`"`) && strings.Contains(line, what) {
			n++
		}
	}
	return n
}
