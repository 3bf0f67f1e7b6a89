package regress_test

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
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

// watcher is a session that waits for slots to move.
type watcher struct {
	conn *pgx.Conn
	pid  int
}

// newWatcher connects, and has seen the slots that there are.
func newWatcher(t *testing.T, primary *cluster.Server) *watcher {
	t.Helper()
	w := &watcher{conn: primary.Connect(t)}
	w.pid = int(w.conn.PgConn().PID())
	w.look(t)
	return w
}

// look sees the slots as they are.
func (w *watcher) look(t *testing.T) {
	t.Helper()
	_, err := w.conn.Exec(background(t), "select replsync.logical_slots()", pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
}

// wait waits for a slot to move, and is asleep when it returns what tells the end.
func (w *watcher) wait(t *testing.T, primary *cluster.Server, timeout time.Duration) <-chan error {
	t.Helper()
	ctx := background(t)
	done := make(chan error, 1)
	call := func() {
		_, err := w.conn.Exec(ctx, fmt.Sprintf("call replsync.wait_for_slot_change(%d)", timeout.Milliseconds()), pgx.QueryExecModeSimpleProtocol)
		done <- err
	}
	go call()
	cluster.Eventually(t, cluster.DefaultDeadline, "the session to wait", func() bool {
		select {
		case err := <-done: // something has moved since it looked
			require.NoError(t, err)
			w.look(t)
			go call()
		default:
		}
		return cluster.QueryOne[bool](t, primary, "select count(*) = 1 from pg_stat_activity where pid = $1 and state = 'active' and wait_event = 'Extension' and backend_xmin is null", w.pid)
	})
	return done
}

// wakened tells whether somebody has set the latch of a process that is stopped while it sleeps.
func wakened(t *testing.T, pid int) bool {
	t.Helper()
	pending, err := strconv.ParseUint(procField(t, fmt.Sprintf("/proc/%d/status", pid), "ShdPnd"), 16, 64)
	require.NoError(t, err)
	return pending&(1<<(syscall.SIGURG-1)) != 0
}

// requireTold stops a session that sleeps, so that it does not look by itself, and checks that a move wakes it.
func (w *watcher) requireTold(t *testing.T, primary *cluster.Server, move func()) {
	t.Helper()
	// It may be stopped just while it looks: then nobody has to wake it.
	cluster.Eventually(t, cluster.DefaultDeadline, "somebody to wake the session", func() error {
		w.look(t)
		done := w.wait(t, primary, cluster.DefaultDeadline)
		require.NoError(t, syscall.Kill(w.pid, syscall.SIGSTOP))
		defer func() {
			require.NoError(t, syscall.Kill(w.pid, syscall.SIGCONT))
			require.NoError(t, <-done)
		}()
		cluster.Eventually(t, cluster.DefaultDeadline, "the session to stop", func() bool {
			return procField(t, fmt.Sprintf("/proc/%d/status", w.pid), "State") == "T"
		})
		if wakened(t, w.pid) {
			move()
			return errors.New("it was awake already")
		}
		move()
		// A consumer's walsender shows where its slot is before it tells.
		for range 100 {
			if wakened(t, w.pid) {
				return nil
			}
			primary.Exec(t, "select")
		}
		return errors.New("nobody has")
	})
}

// TestSlotNews checks that those who wait are told, and need not look.
func TestSlotNews(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		primary.Exec(t, "create table t (id int)")
		for _, slot := range []string{"sql", "stream"} {
			primary.CreateSlot(t, slot, cluster.SlotOptions{Plugin: "test_decoding"})
		}
		w := newWatcher(t, primary)

		story(t, "moved by SQL", func(t *testing.T) {
			w.requireTold(t, primary, func() {
				primary.Exec(t, "insert into t values (0)")
				primary.Exec(t, "select pg_replication_slot_advance('sql', pg_current_wal_flush_lsn())")
			})
		})
		story(t, "moved by a consumer", func(t *testing.T) {
			c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "stream", Plugin: "test_decoding"})
			c.Start(t, primary)
			w.requireTold(t, primary, func() {
				primary.Exec(t, "insert into t values (1)")
				c.WaitConfirmed(t, primary)
			})
		})
	})
}

// TestSlotNewsOfNothing has sessions that are told for nothing: they sleep on, and do not keep each other awake.
func TestSlotNewsOfNothing(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		primary.CreateSlot(t, "a", cluster.SlotOptions{Plugin: "test_decoding"})
		var watchers []*watcher
		var before []int
		var ends []<-chan error
		for range 6 {
			w := newWatcher(t, primary)
			watchers = append(watchers, w)
			before = append(before, sleeps(t, w.pid))
			ends = append(ends, w.wait(t, primary, 3*time.Second))
		}
		for range 5 {
			primary.Exec(t, "select count(*) from pg_logical_slot_peek_changes('a', null, null)")
		}
		for i, w := range watchers {
			require.NoError(t, <-ends[i])
			require.Less(t, sleeps(t, w.pid)-before[i], 100, "it has gone to sleep that often")
		}
	})
}

// sleeps counts how often a process has gone to sleep.
func sleeps(t *testing.T, pid int) int {
	t.Helper()
	n, err := strconv.Atoi(procField(t, fmt.Sprintf("/proc/%d/status", pid), "voluntary_ctxt_switches"))
	require.NoError(t, err)
	return n
}
