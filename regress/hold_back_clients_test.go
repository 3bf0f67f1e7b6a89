package regress_test

import (
	"context"
	"fmt"
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
