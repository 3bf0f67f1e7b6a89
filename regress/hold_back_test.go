package regress_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

const (
	holdBack = "replsync.synchronized_standby_slots"
	// senderTimeout is short, so that a walsender that waits lives through several.
	senderTimeout = 2 * time.Second
	pings         = int(4 * senderTimeout / (200 * time.Millisecond)) // that a consumer has answered after four timeouts
)

func TestHoldBack(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		held, free := read(t, p.primary, "held"), read(t, p.primary, "free_1")
		// That name is of a table synchronization.
		tablesync := read(t, p.primary, "pg_16394_sync_16385_7574893412345678901")
		p.primary.Exec(t, "insert into t values (1)")
		for _, c := range []*cluster.Consumer{held, free, tablesync} {
			c.WaitValues(t, "public.t", "id", "1")
		}

		story(t, "the standby is down", func(t *testing.T) {
			p.standby.Stop(t, cluster.Fast)
			waitInactive(t, p.primary, "sb")
			p.primary.Exec(t, "insert into t values (2)")
			free.WaitValues(t, "public.t", "id", "1", "2")
			tablesync.WaitValues(t, "public.t", "id", "1", "2")
			requireHeld(t, p, held, "sb", "1")
			require.Equal(t, 1, trouble(p.primary, "sb", "does not have active_pid"))
		})
		story(t, "a subscription synchronizes its tables", func(t *testing.T) {
			subscriber := cluster.New(t, major)
			subscriber.Exec(t, "create table t (id int primary key)")
			subscriber.Exec(t, fmt.Sprintf("create subscription s connection 'host=127.0.0.1 port=%d user=postgres dbname=postgres' publication p", p.primary.Port))
			cluster.Eventually(t, cluster.DefaultDeadline, "the table to be synchronized", func() bool {
				return cluster.QueryOne[bool](t, subscriber, "select bool_and(srsubstate in ('s', 'r')) from pg_subscription_rel")
			})
			require.Equal(t, int64(2), cluster.QueryOne[int64](t, subscriber, "select count(*) from t"))
			// DROP SUBSCRIPTION asks the walsender that waits to end.
			subscriber.Exec(t, "drop subscription s")
		})
		story(t, "the standby is back", func(t *testing.T) {
			sender := senderOf(t, p.primary, "held")
			p.standby.Start(t)
			held.WaitValues(t, "public.t", "id", "1", "2")
			require.Equal(t, sender, senderOf(t, p.primary, "held"))
			p.primary.Exec(t, "insert into t select generate_series(3, 10000)")
			held.WaitValues(t, "public.t", "id", ids(1, 10000)...)
		})
		story(t, "the standby goes again", func(t *testing.T) {
			p.standby.Stop(t, cluster.Fast)
			waitInactive(t, p.primary, "sb")
			p.primary.Exec(t, "insert into t values (10001)")
			cluster.Eventually(t, cluster.DefaultDeadline, "a second message", func() bool {
				return trouble(p.primary, "sb", "does not have active_pid") == 2
			})
		})
		story(t, "nothing is held back any more", func(t *testing.T) {
			p.primary.Unset(t, holdBack)
			held.WaitValues(t, "public.t", "id", ids(1, 10001)...)
		})
	})
}

// TestHoldBackTogether has walsenders that are woken for nothing: they sleep on, and do not keep each other awake.
func TestHoldBackTogether(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		p.primary.Set(t, "wal_sender_timeout", "0")
		var slots []string
		for i := range 6 {
			slot := fmt.Sprintf("held_%d", i)
			slots = append(slots, slot)
			p.primary.CreateSlot(t, slot, cluster.SlotOptions{Plugin: "test_decoding"})
			c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: slot, Plugin: "test_decoding", FromConfirmed: true})
			c.Start(t, p.primary)
		}
		free := read(t, p.primary, "free_1")
		p.primary.Exec(t, "select pg_create_physical_replication_slot('other', true)")
		p.primary.Set(t, holdBack, "sb, other")
		p.primary.Exec(t, "insert into t values (1)")
		cluster.Eventually(t, cluster.DefaultDeadline, "the walsenders to wait", func() bool {
			return cluster.QueryOne[bool](t, p.primary, "select count(*) = 6 from pg_stat_activity join pg_replication_slots on pid = active_pid where slot_name like 'held%' and wait_event = 'Extension'")
		})
		before := map[int]int{}
		for _, slot := range slots {
			pid := int(senderOf(t, p.primary, slot))
			before[pid] = sleeps(t, pid)
		}
		p.primary.Exec(t, "insert into t values (2)")
		free.WaitValues(t, "public.t", "id", "1", "2")
		waitKeepalives(t, free, pings)
		for pid, n := range before {
			// Its consumer makes it look five times a second.
			require.Less(t, sleeps(t, pid)-n, 400, "it has gone to sleep that often")
		}
	})
}

// TestHoldBackTrouble lists slots that cannot confirm: each is named once.
func TestHoldBackTrouble(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		held := read(t, p.primary, "held")
		again := read(t, p.primary, "held_too")
		p.primary.CreateSlot(t, "logical", cluster.SlotOptions{Plugin: "test_decoding"})
		p.primary.Set(t, holdBack, "missing, logical, sb")
		p.primary.Exec(t, "insert into t values (1)")
		requireHeld(t, p, held, "sb")
		require.Empty(t, again.Values("public.t", "id"))
		require.Equal(t, 1, trouble(p.primary, "missing", "does not exist"))
		require.Equal(t, 1, trouble(p.primary, "logical", "cannot specify logical"))
		require.Zero(t, trouble(p.primary, "sb", ""))
		require.Contains(t, p.primary.Log(), `Create the replication slot "missing" or amend`)

		p.primary.Exec(t, "select pg_create_physical_replication_slot('missing', true)")
		cluster.Eventually(t, cluster.DefaultDeadline, "another word on it", func() bool {
			return trouble(p.primary, "missing", "does not have active_pid") == 1
		})
		p.primary.Exec(t, "select pg_drop_replication_slot('missing')")
		cluster.Eventually(t, cluster.DefaultDeadline, "the old word on it", func() bool {
			return trouble(p.primary, "missing", "does not exist") == 2
		})
		p.primary.Set(t, holdBack, "sb")
		held.WaitValues(t, "public.t", "id", "1")
		again.WaitValues(t, "public.t", "id", "1")

		p.standby.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb")
		p.primary.Set(t, "max_slot_wal_keep_size", "1MB")
		cluster.Eventually(t, cluster.DefaultDeadline, "the slot to be lost", func() bool {
			p.primary.Exec(t, "create table if not exists w (id int); insert into w values (1); select pg_switch_wal()")
			p.primary.Exec(t, "checkpoint")
			return p.primary.Slots(t)["sb"].WALStatus == "lost"
		})
		// The slots that were held may have been lost with it.
		read(t, p.primary, "after")
		p.primary.Exec(t, "insert into t values (2)")
		cluster.Eventually(t, cluster.DefaultDeadline, "a word on it", func() bool {
			return trouble(p.primary, "sb", "has been invalidated") == 1
		})
	})
}

// TestHoldBackKeepalives has a consumer that was sent more than the standby has confirmed before anything was held back.
func TestHoldBackKeepalives(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		p.primary.Unset(t, holdBack)
		p.primary.CreateSlot(t, "held", cluster.SlotOptions{Plugin: "test_decoding"})
		held := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "held", Plugin: "test_decoding", Ping: true, Manual: true})
		held.Start(t, p.primary)
		p.standby.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb")
		confirmed := confirmedBy(t, p.primary, "sb")
		last := func() cluster.LSN { return waitKeepalives(t, held, 1)[0] }
		p.writeElsewhere(t)
		cluster.Eventually(t, cluster.DefaultDeadline, "keepalives to move on", func() bool { return last() > confirmed })
		p.primary.Set(t, holdBack, "sb")
		cluster.Eventually(t, cluster.DefaultDeadline, "keepalives to be capped", func() bool { return last() == confirmed })
		requireHeld(t, p, held, "sb")
		// It cannot confirm the rest, which a shutdown would wait for.
		p.primary.Stop(t, cluster.Fast)
		require.Contains(t, p.primary.Log(), "terminating walsender process due to shutdown of the server")
		p.primary.Start(t)
		p.standby.Start(t)
		held.Start(t, p.primary)
		cluster.Eventually(t, cluster.DefaultDeadline, "keepalives to move on", func() bool { return last() > confirmed })
	})
}

// writeElsewhere makes WAL that no slot of the database has output for.
func (p *pair) writeElsewhere(t *testing.T) {
	t.Helper()
	p.primary.Exec(t, "create database elsewhere")
	p.primary.DB("elsewhere").Exec(t, "create table w (t text); insert into w select repeat('x', 100) from generate_series(1, 10000)")
	p.primary.LogStandbySnapshot(t)
}

// TestHoldBackFailover loses the primary while its standby is behind. A consumer that takes keepalives for confirmed has
// seen nothing that is not on the standby.
func TestHoldBackFailover(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		held := read(t, p.primary, "held")
		p.primary.Exec(t, "insert into t values (1)")
		held.WaitValues(t, "public.t", "id", "1")
		p.waitReady(t, "held")
		p.standby.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb")
		p.writeElsewhere(t)
		waitKeepalives(t, held, pings)
		p.primary.Kill9(t)
		held.Stop()
		p.standby.Start(t)
		p.standby.Promote(t)
		p.standby.Unset(t, holdBack)
		for id := 2; id <= 20; id++ {
			p.standby.Exec(t, "insert into t values ($1)", id)
		}
		held.Start(t, p.standby)
		held.WaitValues(t, "public.t", "id", ids(1, 20)...)
	})
}

// TestHoldBackShutdown stops a primary under walsenders that wait.
func TestHoldBackShutdown(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		held := read(t, p.primary, "held")
		story(t, "with its standby", func(t *testing.T) {
			// A switchover: the standby, and then the consumer, get everything first.
			p.primary.Exec(t, "insert into t select generate_series(1, 50000)")
			p.primary.Stop(t, cluster.Fast)
			held.WaitValues(t, "public.t", "id", ids(1, 50000)...)
			require.NotContains(t, p.primary.Log(), "terminating walsender process")
		})
		p.primary.Start(t)
		held.Start(t, p.primary)
		story(t, "with a standby that hangs", func(t *testing.T) {
			p.standby.Freeze(t)
			p.primary.Exec(t, "insert into t values (50001)")
			requireHeld(t, p, held, "sb", ids(1, 50000)...)
			p.primary.Stop(t, cluster.Fast)
			p.standby.Thaw(t)
			require.Len(t, held.Values("public.t", "id"), 50000)
		})
		p.primary.Start(t)
		p.standby.Stop(t, cluster.Fast)
		held.Start(t, p.primary)
		story(t, "without its standby", func(t *testing.T) {
			p.primary.Exec(t, "insert into t values (50002)")
			mark := p.primary.LogMark()
			waitKeepalives(t, held, 1)
			p.primary.Stop(t, cluster.Fast)
			require.Contains(t, p.primary.LogSince(mark), "terminating walsender process due to shutdown of the server")
			require.NotContains(t, held.Values("public.t", "id"), "50002")
		})
	})
}

// TestHoldBackPromoted promotes a standby, which has the primary's list: it names itself.
func TestHoldBackPromoted(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		p.standby.Set(t, holdBack, "sb")
		if major >= firstConflict {
			// A standby holds nothing back: nobody confirms to it.
			p.primary.LogStandbySnapshot(t)
			p.standby.CreateSlot(t, "here", cluster.SlotOptions{Plugin: "test_decoding"})
			p.primary.Exec(t, "insert into t values (1)")
			p.primary.WaitReplayed(t, p.standby)
			require.Positive(t, cluster.QueryOne[int64](t, p.standby, "select count(*) from pg_logical_slot_get_changes('here', null, null)"))
		}
		p.primary.Stop(t, cluster.Fast)
		p.standby.Promote(t)
		held := read(t, p.standby, "held")
		p.standby.Exec(t, "insert into t values (2)")
		cluster.Eventually(t, cluster.DefaultDeadline, "a word on it", func() bool {
			return trouble(p.standby, "sb", "does not exist") == 1
		})
		require.Contains(t, p.standby.Log(), "This server itself was the standby that used the slot")
		require.Empty(t, held.Values("public.t", "id"))
		p.standby.Unset(t, holdBack)
		held.WaitValues(t, "public.t", "id", "2")

		// Its own standby is another matter.
		own := &pair{major: major, primary: p.standby, standby: p.standby.Standby(t, cluster.Slot("next"), cluster.Name("next"))}
		own.primary.Set(t, holdBack, "next")
		own.standby.Stop(t, cluster.Fast)
		waitInactive(t, own.primary, "next")
		own.primary.Exec(t, "insert into t values (3)")
		requireHeld(t, own, held, "next", "2")
		own.standby.Start(t)
		held.WaitValues(t, "public.t", "id", "2", "3")
	})
}
