package regress_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

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
