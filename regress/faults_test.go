package regress_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// promotionDeadline is what a promotion may take on a busy machine. What it must not wait for takes longer.
const promotionDeadline = 15 * time.Second

// TestWorkerFaults disturbs the worker and what it needs, one thing after another.
func TestWorkerFaults(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		proxy := primary.Proxy(t)
		p := pairOf(t, primary, cluster.Settings(map[string]string{
			// The worker goes through the proxy, the walreceiver does not.
			"replsync.primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", proxy.Port),
			"replsync.connect_timeout":  "1s",
			"replsync.remote_timeout":   "2s",
		}))
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.waitReady(t, "s")
		story(t, "network", func(t *testing.T) { p.testNetwork(t, proxy) })
		story(t, "signals", p.testSignals)
		story(t, "callers", func(t *testing.T) { p.testCallers(t, proxy) })
		story(t, "off", p.testOff)
		story(t, "physical slot", p.testPhysicalSlot)
		story(t, "crash of the primary", p.testPrimaryCrash)
		story(t, "statistics", p.testStatistics)
		story(t, "on the primary", p.testOnPrimary)
	})
}

// testNetwork cuts the worker off in each way a network has.
func (p *pair) testNetwork(t *testing.T, proxy *cluster.Proxy) {
	mark := p.standby.LogMark()
	proxy.Refuse(true)
	proxy.Cut()
	w := waitWorker(t, p.standby, "to be cut off", func(w workerRow) bool {
		return w.State == "blocked" && strings.Contains(w.LastError, "primary")
	})
	require.NotNil(t, w.LastErrorAt)
	waitCycles(t, p.standby, 10)
	// How a connection fails depends on the moment.
	said := map[string]bool{}
	for _, line := range workerLines(p.standby.LogSince(mark), "WARNING|ERROR") {
		_, message, _ := strings.Cut(line, "WARNING:")
		require.False(t, said[message], "twice: %s", line)
		said[message] = true
	}
	require.NotEmpty(t, said)
	require.LessOrEqual(t, len(said), 4)
	_, err := trySync(p.standby)
	require.Error(t, err)
	proxy.Refuse(false)
	p.recovers(t)

	proxy.Cut()
	p.recovers(t)

	// A server that does not answer: the pass ends by its own clock.
	mark = p.standby.LogMark()
	proxy.Freeze()
	waitWorker(t, p.standby, "to give up waiting", func(w workerRow) bool {
		return w.State == "blocked" && w.LastErrorAt != nil && time.Since(*w.LastErrorAt) < 5*time.Second
	})
	require.NotEmpty(t, workerLines(p.standby.LogSince(mark), "WARNING"))
	proxy.Thaw()
	p.recovers(t)
}

// recovers waits until slots move again, without anybody's help.
func (p *pair) recovers(t *testing.T) {
	t.Helper()
	p.move(t, "postgres", "s")
	p.waitReady(t, "s")
	p.well(t)
}

func (p *pair) well(t *testing.T) {
	t.Helper()
	waitWorker(t, p.standby, "to be well", func(w workerRow) bool {
		return w.Cycles > 0 && (w.State == "napping" || w.State == "running")
	})
}

func (p *pair) testSignals(t *testing.T) {
	postmaster, mark := p.standby.PostmasterPID(), p.standby.LogMark()
	before := workerStatus(t, p.standby)
	restarts := func(how string) {
		t.Helper()
		before = waitWorker(t, p.standby, "to be back after "+how, func(w workerRow) bool { return w.PID != before.PID })
		p.recovers(t)
	}
	require.True(t, cluster.QueryOne[bool](t, p.standby, "select pg_terminate_backend($1, 5000)", before.PID))
	restarts("pg_terminate_backend")
	require.NoError(t, syscall.Kill(before.PID, syscall.SIGTERM))
	restarts("SIGTERM")

	for range 5 {
		require.True(t, cluster.QueryOne[bool](t, p.standby, "select pg_cancel_backend($1)", before.PID))
		require.NoError(t, syscall.Kill(before.PID, syscall.SIGHUP))
	}
	p.recovers(t)
	require.Equal(t, before.PID, workerStatus(t, p.standby).PID, "a cancel does not end the worker")
	require.Equal(t, postmaster, p.standby.PostmasterPID())
	require.NotContains(t, p.standby.LogSince(mark), "terminated by signal")
}

// testCallers has many sessions ask for a pass, and one change its mind.
func (p *pair) testCallers(t *testing.T, proxy *cluster.Proxy) {
	const callers = 10
	results := make(chan error, callers)
	for range callers {
		go func() {
			rows, err := trySync(p.standby)
			if err == nil && !rows["s"].Ready {
				err = fmt.Errorf("%+v", rows)
			}
			results <- err
		}()
	}
	for range callers {
		require.NoError(t, <-results)
	}

	// One that waits for a pass that can't end is let go at once, and alone.
	conn := p.standby.Connect(t)
	var pid int
	require.NoError(t, conn.QueryRow(background(t), "select pg_backend_pid()").Scan(&pid))
	proxy.Freeze()
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select * from replsync.sync_slots()")
		first <- err
	}()
	go func() {
		_, err := trySync(p.standby)
		second <- err
	}()
	cluster.Eventually(t, cluster.DefaultDeadline, "two callers to wait", func() bool {
		return cluster.QueryOne[int](t, p.standby, `select count(*) from pg_stat_activity
			where query ~ 'sync_slots' and state = 'active' and pid <> pg_backend_pid()`) == 2
	})
	start := time.Now()
	require.True(t, cluster.QueryOne[bool](t, p.standby, "select pg_cancel_backend($1)", pid))
	requireError(t, <-first, "57014", "canceling statement")
	require.Less(t, time.Since(start), time.Second)
	proxy.Thaw()
	select {
	case <-second: // by then its own pass may have failed
	case <-time.After(cluster.DefaultDeadline):
		t.Fatal("the other caller is not served")
	}
	p.recovers(t)
}

// testOff: sync_slots() works while the worker is off, and the copies stay.
func (p *pair) testOff(t *testing.T) {
	off := func(w workerRow) bool { return w.State == "off" && w.NextCycleAt == nil }
	p.standby.Set(t, "replsync.sync_slots", "off")
	waitWorker(t, p.standby, "to be off", off)
	require.Contains(t, p.standby.Slots(t), "s")
	p.move(t, "postgres", "s")
	p.syncReady(t, "s")
	waitWorker(t, p.standby, "to be off again", off)
	p.standby.Unset(t, "replsync.sync_slots")
	p.recovers(t)
}

// testPhysicalSlot gives the standby another physical slot, and takes feedback away and back.
func (p *pair) testPhysicalSlot(t *testing.T) {
	p.primary.Exec(t, "select pg_create_physical_replication_slot('second', true)")
	p.standby.Set(t, "primary_slot_name", "second")
	cluster.Eventually(t, cluster.DefaultDeadline, "the standby to stream from its other slot", func() bool {
		return p.primary.Slots(t)["second"].Active
	})
	p.recovers(t)
	cluster.Eventually(t, cluster.DefaultDeadline, "the other slot to hold catalog rows", func() bool {
		return p.primary.Slots(t)["second"].CatalogXmin != nil
	})
	p.primary.Exec(t, "select pg_drop_replication_slot($1)", p.standby.Slot)
	p.standby.Slot = "second"
	p.recovers(t)

	p.standby.Set(t, "hot_standby_feedback", "off")
	waitWorker(t, p.standby, "to see that feedback is off", func(w workerRow) bool {
		return w.State == "blocked" && strings.Contains(w.LastError, "hot_standby_feedback")
	})
	p.standby.Unset(t, "hot_standby_feedback")
	p.recovers(t)
}

// testPrimaryCrash: the worker sits it out, and a copy that is ahead of what the primary remembers goes back to it.
func (p *pair) testPrimaryCrash(t *testing.T) {
	p.primary.Exec(t, "create table t (id int primary key); create publication p for all tables")
	c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s", Publication: "p"})
	c.Start(t, p.primary)
	p.primary.Exec(t, "insert into t values (1)")
	c.WaitValues(t, "public.t", "id", "1")
	c.WaitConfirmed(t, p.primary)
	p.waitReady(t, "s")
	copied := *p.standby.Slots(t)["s"].ConfirmedFlushLSN
	p.primary.Kill9(t)
	waitWorker(t, p.standby, "to miss the primary", func(w workerRow) bool {
		return w.State == "blocked" && w.LastErrorAt != nil && time.Since(*w.LastErrorAt) < 5*time.Second && w.LastError != ""
	})
	require.Equal(t, copied, *p.standby.Slots(t)["s"].ConfirmedFlushLSN)
	p.primary.Start(t)
	p.caughtUp(t)
	p.well(t)
	waitCycles(t, p.standby, 2)
	p.waitReady(t, "s") // where the primary's slot stands now, be it behind
	c.Start(t, p.primary)
	p.primary.Exec(t, "insert into t values (2)")
	c.WaitReceived(t, "the row after the crash", func([]cluster.Tx) bool {
		return strings.HasSuffix(strings.Join(c.Values("public.t", "id"), " "), "2")
	})
	c.WaitConfirmed(t, p.primary)
	c.Stop()
	p.recovers(t)
}

func (p *pair) testStatistics(t *testing.T) {
	waitWorker(t, p.standby, "to remember an error", func(w workerRow) bool { return w.LastError != "" && w.Cycles > 20 })
	p.standby.Exec(t, "select replsync.reset_statistics()")
	w := workerStatus(t, p.standby)
	require.Empty(t, w.LastError)
	require.Nil(t, w.LastErrorAt)
	require.Less(t, w.Cycles, int64(20))
	p.recovers(t)
}

func (p *pair) testOnPrimary(t *testing.T) {
	requireNoCore(t, p.primary)
	_, err := trySync(p.primary)
	requireError(t, err, "55000", "^replication slots can only be synchronized to a standby server$")
	_, err = p.primary.TryExec(background(t), "select replsync.drop_slots()")
	requireError(t, err, "55000", ".")
	require.Empty(t, slotStatus(t, p.primary))
	requireNoCore(t, p.primary)
	require.Contains(t, p.primary.Slots(t), "s")
}

// TestPromotionWithFrozenPrimary promotes a standby whose worker waits for a server that does not answer.
func TestPromotionWithFrozenPrimary(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major)
		p.primary.Exec(t, "create table t (id int primary key); create publication p for all tables")
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.waitReady(t, "s")
		p.primary.WaitReplayed(t, p.standby)
		before := workerStatus(t, p.standby)
		p.primary.Freeze(t)
		called := make(chan error, 1)
		go func() {
			_, err := trySync(p.standby)
			called <- err
		}()
		waitWorker(t, p.standby, "to wait for the primary", func(w workerRow) bool { return w.State == "running" })
		promoted := time.Now()
		require.Less(t, p.standby.Promote(t), promotionDeadline)
		require.Error(t, <-called)
		requireNoCore(t, p.standby)
		require.Less(t, time.Since(promoted), promotionDeadline, "the worker waits on for the former primary")
		require.NotEqual(t, before.PID, workerStatus(t, p.standby).PID)
		p.standby.Exec(t, "insert into t values (1)")
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s", Publication: "p", FromSlot: true})
		c.Start(t, p.standby)
		c.WaitValues(t, "public.t", "id", "1")
	})
}

// TestPromotionOfBusyWorker promotes a standby while its worker makes and drops copies as fast as it can.
func TestPromotionOfBusyWorker(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Settings(map[string]string{
			"replsync.slot_naptime_min": "10ms", "replsync.slot_naptime_max": "10ms",
		}))
		p.primary.Exec(t, "create table t (id int)")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			failover := ""
			if major >= firstFailover {
				failover = ", failover => true"
			}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("s%d", i%8)
				for _, sql := range []string{
					"insert into t values (1)",
					"select pg_drop_replication_slot('" + name + "')",
					"select pg_create_logical_replication_slot('" + name + "', 'test_decoding'" + failover + ")",
				} {
					_, _ = p.primary.TryExec(context.Background(), sql)
				}
			}
		}()
		cluster.Eventually(t, cluster.DefaultDeadline, "copies", func() bool { return len(p.standby.Slots(t)) >= 3 })
		took := p.standby.Promote(t)
		close(stop)
		<-stopped
		require.Less(t, took, promotionDeadline)
		requireNoCore(t, p.standby)

		// What is left can be used.
		cluster.Eventually(t, cluster.DefaultDeadline, "the copies that were not ready to be gone", func() error {
			for name, slot := range p.standby.Slots(t) {
				if slot.Temporary || slot.Plugin != "test_decoding" || slot.RestartLSN == nil {
					return fmt.Errorf("%s: %+v", name, slot)
				}
			}
			return nil
		})
		for name := range p.standby.Slots(t) {
			p.standby.Exec(t, "select count(*) from pg_logical_slot_get_changes($1, null, null)", name)
		}
	})
}

// TestPasswords looks for the password of the connection everywhere that anybody but a superuser may look.
func TestPasswords(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		const secret, next = "sEcret1 x", "oTher2pass"
		primary := newPrimary(t, major, cluster.HBA(
			"host all repl 127.0.0.1/32 scram-sha-256", "host replication repl 127.0.0.1/32 scram-sha-256"))
		primary.Exec(t, `create role repl login replication; grant usage on schema replsync to repl;
			grant execute on function replsync.logical_snapshot, replsync.logical_mappings, replsync.logical_slot_two_phase_at to repl;
			create role watcher login in role pg_monitor`)
		password := func(value string) {
			primary.Exec(t, "set password_encryption = 'scram-sha-256'; alter role repl password "+cluster.QuoteLiteral(value))
		}
		password(secret)
		p := pairOf(t, primary, cluster.Setting("log_min_messages", "debug1"),
			cluster.PrimaryConninfo(conninfo(primary, "repl")+" password="+cluster.QuoteConninfo(secret)))
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.waitReady(t, "s")
		require.Equal(t, []string{"repl"}, cluster.Query[string](t, p.primary,
			"select usename from pg_stat_activity where application_name ~ 'replsync'"))

		// The password is not right any more.
		mark := p.standby.LogMark()
		password(next)
		p.primary.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ 'replsync'")
		w := waitWorker(t, p.standby, "to be refused", func(w workerRow) bool {
			return strings.Contains(w.LastError, "password authentication failed")
		})
		require.Equal(t, "blocked", w.State)
		waitCycles(t, p.standby, 3)
		_, err := trySync(p.standby)
		hint := requireError(t, err, "28P01", "password authentication failed")
		require.NotEmpty(t, hint)
		require.Len(t, workerLines(p.standby.LogSince(mark), "password authentication failed"), 1)

		for _, given := range []string{
			"host=127.0.0.1 password=sEcret1", "postgresql://repl:sEcret1@127.0.0.1/postgres",
			"postgresql://127.0.0.1/?user=repl&password=sEcret1", "host=x sslpassword=sEcret1",
		} {
			for _, command := range []string{"alter system set", "set"} {
				_, err := p.standby.TryExec(background(t), command+" replsync.primary_conninfo = "+cluster.QuoteLiteral(given))
				if command == "set" {
					require.Error(t, err)
					continue
				}
				hint := requireError(t, err, "22023", "must not contain a password")
				require.Contains(t, hint, "password file")
			}
		}
		p.requireSecret(t, "sEcret1")

		// With the right one in a password file it goes on.
		p.standby.WriteFile(t, "passfile", fmt.Sprintf("127.0.0.1:%d:*:repl:%s\n", p.primary.Port, next))
		p.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "repl")+" passfile="+cluster.QuoteConninfo(p.standbyFile("passfile")))
		p.well(t)
		p.requireSecret(t, next)
	})
}

// requireSecret looks for a word in everything that both servers show.
func (p *pair) requireSecret(t *testing.T, word string) {
	t.Helper()
	var found []string
	look := func(where, text string) {
		for line := range strings.Lines(text) {
			// Core logs statements that fail: those are the test's own.
			if strings.Contains(line, word) && !strings.Contains(line, "STATEMENT:") {
				found = append(found, where+": "+line)
			}
		}
	}
	for _, s := range []*cluster.Server{p.primary, p.standby} {
		look(s.Name+"'s log", s.Log())
		watcher := s.With("user=watcher")
		for _, view := range []string{
			"replsync.slot_status", "replsync.worker_status", "replsync.progress", "pg_stat_activity", "pg_stat_replication",
			"pg_stat_wal_receiver", "pg_settings where name <> 'primary_conninfo'",
		} {
			rows := cluster.Query[string](t, watcher, "select to_jsonb(v)::text from (select * from "+view+") v")
			look(s.Name+"'s "+view, strings.Join(rows, "\n"))
		}
		for _, process := range s.Processes() {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process.PID))
			look("process title", process.Title+"\n"+string(cmdline))
		}
	}
	require.Empty(t, found)
}

// TestPrivileges: nothing is for everybody.
func TestPrivileges(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, onDemand)
		p.primary.Exec(t, `create role nobody login; create role watcher login in role pg_monitor;
			create role syncer login replication; create role granted login;
			grant execute on function replsync.sync_slots, replsync.drop_slots to syncer, granted`)
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.primary.WaitReplayed(t, p.standby)
		try := func(role, sql string) error {
			_, err := p.standby.With("user="+role).TryExec(background(t), sql)
			return err
		}
		for _, view := range []string{"slot_status", "worker_status", "progress"} {
			requireError(t, try("nobody", "select * from replsync."+view), "42501", "permission denied")
			require.NoError(t, try("watcher", "select * from replsync."+view))
		}
		calls := []string{"select * from replsync.sync_slots()", "select replsync.drop_slots('x')"}
		for _, call := range append([]string{"select replsync.reset_statistics()", "select replsync.version()"}, calls...) {
			requireError(t, try("nobody", call), "42501", "permission denied")
		}
		for _, call := range calls {
			requireError(t, try("watcher", call), "42501", "permission denied")
			requireError(t, try("granted", call), "42501", "permission denied")
			require.NoError(t, try("syncer", call))
		}
		require.NoError(t, try("watcher", "select replsync.version()"))
		for _, call := range []string{
			"select replsync.logical_snapshot('0/1')", "select * from replsync.logical_mappings(1, '0/1')",
			"select replsync.logical_slot_two_phase_at('s')",
		} {
			_, err := p.primary.With("user=nobody").TryExec(background(t), call)
			requireError(t, err, "42501", "permission denied")
		}
	})
}

// TestReload: a worker that waits for a server which does not answer goes on at once when it is told to ask another one, or
// to stop. Nothing else would end the wait.
func TestReload(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Settings(map[string]string{
			"replsync.remote_timeout": "1h", "replsync.connect_timeout": "1h",
		}))
		proxy := p.primary.Proxy(t)
		// The environment of the servers has a timeout too, which the parameter does not lift.
		away := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable connect_timeout=3600", proxy.Port)
		p.standby.Set(t, "replsync.primary_conninfo", away)
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.waitReady(t, "s")
		busy := func(w workerRow) bool { return w.State == "running" }
		freeze := func() {
			t.Helper()
			cycles := workerStatus(t, p.standby).Cycles
			proxy.Freeze()
			waitWorker(t, p.standby, "to wait for the primary", func(w workerRow) bool { return busy(w) && w.Cycles >= cycles })
			p.move(t, "postgres", "s")
		}
		freeze()
		p.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "postgres"))
		p.waitReady(t, "s")
		proxy.Thaw()
		p.standby.Set(t, "replsync.primary_conninfo", away)
		p.waitReady(t, "s")
		freeze()
		p.standby.Set(t, "replsync.sync_slots", "off")
		waitWorker(t, p.standby, "to be off", func(w workerRow) bool { return w.State == "off" })
	})
}
