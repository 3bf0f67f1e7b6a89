package regress_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// waiting is the session on the primary that waits for a slot to move.
const waiting = `select pid from pg_stat_activity where query like 'CALL replsync.wait_for_slot_change%' and state = 'active'`

func (p *pair) waitWaiting(t *testing.T) int {
	t.Helper()
	pid := 0
	cluster.Eventually(t, cluster.DefaultDeadline, "the primary to watch its slots", func() bool {
		pids := cluster.Query[int](t, p.primary, waiting)
		if len(pids) == 1 {
			pid = pids[0]
		}
		return len(pids) == 1
	})
	return pid
}

// TestNews has a worker that hardly ever looks by itself: what it knows in time the primary has told it.
func TestNews(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Settings(map[string]string{
			"replsync.slot_naptime_min": "10ms", "replsync.slot_naptime_max": "1h", "replsync.remote_timeout": "2h",
		}))
		p.createSlot(t, "postgres", "a", "pgoutput")
		p.waitReady(t, "a")

		story(t, "created, moved, dropped", func(t *testing.T) {
			p.createSlot(t, "postgres", "b", "test_decoding")
			p.waitReady(t, "a", "b")
			for range 3 {
				p.move(t, "postgres", "a")
				p.waitReady(t, "a", "b")
			}
			p.dropSlot(t, "b")
			cluster.Eventually(t, cluster.DefaultDeadline, "the copy to go", func() bool {
				_, ok := p.standby.Slots(t)["b"]
				return !ok
			})
		})
		story(t, "nothing is held", func(t *testing.T) {
			pid := p.waitWaiting(t)
			row := p.primary.Rows(t, "select backend_xmin, backend_xid from pg_stat_activity where pid = $1", pid)[0]
			require.Nil(t, row["backend_xmin"])
			require.Nil(t, row["backend_xid"])
			require.Empty(t, p.primary.Rows(t, "select * from pg_locks where pid = $1 and locktype <> 'virtualxid'", pid))
		})
		story(t, "a caller does not wait", func(t *testing.T) {
			p.waitWaiting(t)
			require.Equal(t, "unchanged", syncSlots(t, p.standby)["a"].Action)
		})
		story(t, "ended", func(t *testing.T) {
			for _, end := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
				p.primary.Exec(t, "select "+end+"($1)", p.waitWaiting(t))
				p.confirm(t, "postgres", "a")
				syncSlots(t, p.standby)
				p.waitReady(t, "a")
			}
		})
		story(t, "shutdown", func(t *testing.T) {
			p.primary.Stop(t, cluster.Fast)
			p.primary.Start(t)
			p.standby.Set(t, "replsync.slot_naptime_max", "500ms")
			p.move(t, "postgres", "a")
			p.waitReady(t, "a")
		})
	})
}

func requireCode(t *testing.T, code string, err error) {
	t.Helper()
	pg, ok := cluster.AsPgError(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, pg.Code, pg.Message)
}

// TestWaitForSlotChange calls what the worker calls.
func TestWaitForSlotChange(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		primary.Exec(t, "create role repl login replication; create role other login")
		connect := func(role string) *pgx.Conn {
			conn, err := primary.DB("postgres").With("user=" + role).TryConnect(t.Context())
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close(background(t)) })
			return conn
		}
		try := func(conn *pgx.Conn, sql string) error {
			_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			return err
		}
		const wait = "call replsync.wait_for_slot_change(60000)"

		repl, other := connect("repl"), connect("other")
		requireCode(t, "42501", try(repl, wait))
		primary.Exec(t, "grant execute on routine replsync.logical_slots, replsync.wait_for_slot_change to repl, other")
		requireCode(t, "42501", try(other, wait))
		requireCode(t, "42501", try(other, "select replsync.logical_slots()"))
		requireCode(t, "55000", try(repl, wait))

		shown := func(conn *pgx.Conn, changed bool) []string {
			rows, err := conn.Query(t.Context(), "select slot_name || coalesce(' ' || plugin, ' gone') from replsync.logical_slots($1)", changed)
			require.NoError(t, err)
			names, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			return names
		}
		require.Empty(t, shown(repl, false))
		requireCode(t, "25001", try(repl, "begin; "+wait))
		_ = try(repl, "rollback")
		require.NoError(t, try(repl, "call replsync.wait_for_slot_change(0)"), "nothing has changed")

		primary.DB("postgres").CreateSlot(t, "a", cluster.SlotOptions{Plugin: "pgoutput"})
		require.NoError(t, try(repl, wait))
		require.Equal(t, []string{"a pgoutput"}, shown(repl, true))
		require.Empty(t, shown(repl, true))
		require.Equal(t, []string{"a pgoutput"}, shown(repl, false))

		began := time.Now()
		go func() {
			_, _ = primary.TryExec(background(t), "select pg_drop_replication_slot('a')")
		}()
		require.NoError(t, try(repl, wait))
		require.Less(t, time.Since(began), time.Minute)
		require.Equal(t, []string{"a gone"}, shown(repl, true))

		done := make(chan error, 1)
		go func() { done <- try(repl, wait) }()
		cluster.Eventually(t, cluster.DefaultDeadline, "the session to wait", func() bool {
			return cluster.QueryOne[int](t, primary, "select count(*) from pg_stat_activity where usename = 'repl' and wait_event = 'Extension' and backend_xmin is null") == 1
		})
		primary.Exec(t, "select pg_cancel_backend(pid) from pg_stat_activity where usename = 'repl'")
		requireCode(t, "57014", <-done)
	})
}
