package regress_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

const (
	holdBack = "replsync.synchronized_standby_slots"
	// senderTimeout is short, so that a walsender that waits lives through several.
	senderTimeout = 2 * time.Second
	pings         = int(4 * senderTimeout / (200 * time.Millisecond)) // that a consumer has answered after four timeouts
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

// TestHoldBackBySQL checks the functions that decode: they wait like a walsender.
func TestHoldBackBySQL(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		for _, slot := range []string{"cancelled", "held", "moved", "free_1"} {
			p.primary.CreateSlot(t, slot, cluster.SlotOptions{Plugin: "test_decoding"})
		}
		p.standby.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb")
		p.primary.Exec(t, "insert into t values (1)")
		const count = "select count(*) from pg_logical_slot_get_changes($1, null, null) where data like 'table public.t: INSERT%'"
		require.Equal(t, int64(1), cluster.QueryOne[int64](t, p.primary, count, "free_1"))
		// A slot can be made meanwhile, and a temporary one is nobody's business.
		session := p.primary.Connect(t)
		_, err := session.Exec(background(t), "select pg_create_logical_replication_slot('passing', 'test_decoding', true)")
		require.NoError(t, err)
		_, err = session.Exec(background(t), "insert into t values (2); select pg_logical_slot_get_changes('passing', null, null)")
		require.NoError(t, err)

		notices := make(chan *pgconn.Notice, 10)
		config, err := pgx.ParseConfig(p.primary.ConnString())
		require.NoError(t, err)
		config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices <- n }
		waiting, err := pgx.ConnectConfig(background(t), config)
		require.NoError(t, err)
		defer waiting.Close(context.Background())

		story(t, "a wait can be cancelled", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(background(t), time.Second)
			defer cancel()
			_, err := p.primary.Connect(t).Exec(ctx, "select pg_logical_slot_get_changes('cancelled', null, null)")
			require.Error(t, err)
		})
		got := make(chan int64, 1)
		go func() {
			var n int64
			if err := waiting.QueryRow(background(t), count, "held").Scan(&n); err != nil {
				n = -1
			}
			got <- n
		}()
		moved := make(chan error, 1)
		go func() {
			_, err := p.primary.TryExec(background(t), "select pg_replication_slot_advance('moved', pg_current_wal_flush_lsn())")
			moved <- err
		}()
		story(t, "the session is told", func(t *testing.T) {
			n := next(t, notices)
			require.Equal(t, "WARNING", n.Severity)
			require.Equal(t, `replication slot "sb" specified in parameter "`+holdBack+`" does not have active_pid`, n.Message)
			require.Contains(t, n.Hint, "Start the standby")
		})
		cluster.Eventually(t, cluster.DefaultDeadline, "both to wait", func() bool {
			return cluster.QueryOne[int](t, p.primary, "select count(*) from pg_stat_activity where wait_event = 'Extension' and backend_type = 'client backend'") == 2
		})
		require.Empty(t, got)
		require.Empty(t, moved)
		require.Equal(t, 1, trouble(p.primary, "sb", "does not have active_pid"))
		p.standby.Start(t)
		require.Equal(t, int64(2), next(t, got))
		require.NoError(t, next(t, moved))
	})
}

// next takes the next value from a channel.
func next[V any](t *testing.T, from <-chan V) V {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-background(t).Done():
		t.Fatal("nothing has come")
		panic("unreachable")
	}
}

// TestHoldBackQuorum checks the two forms of the list, and that a reload is enough to change it.
func TestHoldBackQuorum(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		second := p.primary.Standby(t, cluster.Slot("sb2"), cluster.Name("sb2"))
		p.primary.Set(t, holdBack, "ANY 1 (sb, sb2)")
		held := read(t, p.primary, "held")
		p.standby.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb")
		p.primary.Exec(t, "insert into t values (1)")
		held.WaitValues(t, "public.t", "id", "1")
		require.Zero(t, trouble(p.primary, "sb", ""))

		p.primary.Set(t, holdBack, "sb, sb2")
		p.primary.Exec(t, "insert into t values (2)")
		requireHeld(t, p, held, "sb", "1")
		require.Equal(t, 1, trouble(p.primary, "sb", "does not have active_pid"))
		p.primary.Set(t, holdBack, "any 1 ( sb ,sb2 )")
		held.WaitValues(t, "public.t", "id", "1", "2")

		second.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb2")
		p.primary.Exec(t, "insert into t values (3)")
		requireHeld(t, p, held, "sb2", "1", "2")
		second.Start(t)
		held.WaitValues(t, "public.t", "id", "1", "2", "3")

		// What replsync.slots names changes in the same way.
		p.primary.Set(t, holdBack, "sb")
		p.primary.Exec(t, "insert into t values (4)")
		requireHeld(t, p, held, "sb", "1", "2", "3")
		p.primary.Set(t, "replsync.slots", "other*")
		held.WaitValues(t, "public.t", "id", "1", "2", "3", "4")
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

// TestHoldBackClients has clients that leave, or die, while their walsender waits.
func TestHoldBackClients(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		for _, slot := range []string{"ended", "dead"} {
			p.primary.CreateSlot(t, slot, cluster.SlotOptions{Plugin: "test_decoding"})
		}
		p.standby.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb")
		p.primary.Exec(t, "insert into t values (1)")

		story(t, "one ends the stream", func(t *testing.T) {
			config, err := pgconn.ParseConfig(p.primary.ConnString())
			require.NoError(t, err)
			config.RuntimeParams["replication"] = "database"
			conn, err := pgconn.ConnectConfig(background(t), config)
			require.NoError(t, err)
			defer conn.Close(context.Background())
			conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT ended LOGICAL 0/0"})
			require.NoError(t, conn.Frontend().Flush())
			receiveUntil(t, conn, "CopyBothResponse")
			cluster.Eventually(t, cluster.DefaultDeadline, "it to wait", func() bool {
				return cluster.QueryOne[int](t, p.primary, "select count(*) from pg_stat_activity where wait_event = 'Extension' and backend_type = 'walsender'") == 1
			})
			conn.Frontend().Send(&pgproto3.CopyDone{})
			require.NoError(t, conn.Frontend().Flush())
			receiveUntil(t, conn, "CopyDone")
			receiveUntil(t, conn, "ReadyForQuery")
			// SQL on that connection waits as in a session, and decodes what the stream has not.
			results := conn.Exec(background(t), "select count(*) from pg_logical_slot_peek_changes('ended', null, null)")
			p.standby.Start(t)
			read, err := results.ReadAll()
			require.NoError(t, err)
			n, err := strconv.Atoi(string(read[0].Rows[0][0]))
			require.NoError(t, err)
			require.Positive(t, n)
			p.standby.Stop(t, cluster.Fast)
			waitInactive(t, p.primary, "sb")
		})
		story(t, "one is dead", func(t *testing.T) {
			p.primary.Exec(t, "insert into t values (2)")
			proxy := p.primary.Proxy(t)
			config, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres replication=database", proxy.Port))
			require.NoError(t, err)
			conn, err := pgconn.ConnectConfig(background(t), config)
			require.NoError(t, err)
			defer conn.Close(context.Background())
			conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT dead LOGICAL 0/0"})
			require.NoError(t, conn.Frontend().Flush())
			receiveUntil(t, conn, "CopyBothResponse")
			mark := p.primary.LogMark()
			proxy.Freeze()
			p.primary.WaitLog(t, mark, "terminating walsender process due to replication timeout")
			proxy.Thaw()
		})
	})
}

// receiveUntil reads messages until one of that type comes.
func receiveUntil(t *testing.T, conn *pgconn.PgConn, want string) {
	t.Helper()
	for {
		msg, err := conn.ReceiveMessage(background(t))
		require.NoError(t, err)
		if strings.TrimPrefix(fmt.Sprintf("%T", msg), "*pgproto3.") == want {
			return
		}
		if e, bad := msg.(*pgproto3.ErrorResponse); bad {
			t.Fatalf("%v", pgconn.ErrorResponseToPgError(e))
		}
	}
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

func TestHoldBackParameter(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		set := func(value string) error {
			_, err := primary.TryExec(background(t), "alter system set "+holdBack+" = "+cluster.QuoteLiteral(value))
			return err
		}
		require.NoError(t, set(""))
		require.NoError(t, set("  "))
		if major >= firstFailover {
			hint := requireError(t, set("sb"), "22023", "invalid value for parameter")
			require.Contains(t, hint, `Set "synchronized_standby_slots" instead`)
			return
		}
		for _, value := range []string{
			"sb", " a ,b", `"a", b`, "any", "any, first", "ANY 1 (a)", "any 2 (a,b)", "Any  3( any , b , c ) ", "ANY 1 (any)",
			strings.Repeat("a", 63),
		} {
			require.NoError(t, set(value), value)
		}
		for value, hint := range map[string]string{
			"a,":                           "Give a comma-separated list",
			",":                            "Give a comma-separated list",
			"Upper":                        "Give a comma-separated list",
			"a b":                          "Give a comma-separated list",
			"*":                            "Give a comma-separated list",
			"a, a":                         "Name each slot once",
			"FIRST 1 (a)":                  "Give a comma-separated list",
			"ANY (a)":                      "Give a comma-separated list",
			"ANY x (a)":                    "Give a comma-separated list",
			"ANY 1 a":                      "Give a comma-separated list",
			"ANY 1 (a":                     "Give a comma-separated list",
			"ANY 1 (a) b":                  "Give a comma-separated list",
			"ANY 1 ()":                     "Give a comma-separated list",
			"ANY 2 (a, b, a)":              "Name each slot once",
			"ANY 0 (a)":                    "Leave the parameter empty",
			"ANY -1 (a)":                   "Leave the parameter empty",
			"ANY 3 (a, b)":                 "Give a number from 1 to 2",
			"ANY 99999999999999999999 (a)": "Give a comma-separated list",
			strings.Repeat("a", 64):        "Give a comma-separated list",
		} {
			require.Contains(t, requireError(t, set(value), "22023", "invalid value for parameter"), hint, value)
		}
		require.Equal(t, []string{strings.Repeat("a", 63)}, slices.Compact(cluster.Query[string](t, primary,
			"select setting from pg_file_settings where name = $1", holdBack)))
	})
}
