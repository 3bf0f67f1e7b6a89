package regress_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// BenchmarkSlots compares replsync.sync_slots() with core's pg_sync_replication_slots() in one run: two
// standbys of one primary, in turn, fsync on. "ratio" is replsync's median over core's.
//
//	go test ./regress -run '^$' -bench Slots -benchtime 5x
func BenchmarkSlots(b *testing.B) {
	for _, major := range cluster.Versions(b) {
		if major < 17 {
			continue // core has nothing to compare with
		}
		for _, n := range []int{10, 100, 500} {
			b.Run(fmt.Sprintf("%d/slots=%d", major, n), func(b *testing.B) { benchmarkSlots(b, major, n) })
		}
	}
}

// contender is one of the two ways to synchronize.
type contender struct {
	session *pgx.Conn
	sql     string
	took    map[string][]float64 // milliseconds
}

func (c *contender) run(b *testing.B, what string) {
	began := time.Now()
	_, err := c.session.Exec(b.Context(), c.sql)
	require.NoError(b, err)
	c.took[what] = append(c.took[what], float64(time.Since(began).Microseconds())/1000)
}

func benchmarkSlots(b *testing.B, major, n int) {
	settings := cluster.Settings(map[string]string{
		"max_replication_slots": "600", "max_wal_senders": "20", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
		"autovacuum": "off", "wal_receiver_status_interval": "1s", "replsync.sync_slots": "off",
	})
	primary := cluster.New(b, major, cluster.Preload("replsync"), cluster.Fsync(), settings)
	primary.Exec(b, "CREATE EXTENSION replsync; CREATE TABLE t (id int)")
	conninfo := cluster.PrimaryConninfo(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", primary.Port))
	standby := func(sql string) *contender {
		s := primary.Standby(b, conninfo, cluster.Fsync(), settings, cluster.Setting("hot_standby_feedback", "on"))
		primary.WaitFeedback(b, s)
		return &contender{session: s.Connect(b), sql: sql, took: map[string][]float64{}}
	}
	core := standby("SELECT pg_sync_replication_slots()")
	ours := standby("SELECT count(*) FROM replsync.sync_slots()")
	both := func(what string, round int) {
		order := []*contender{core, ours}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			c.run(b, what)
		}
	}

	for round := range b.N {
		primary.Exec(b, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_type = 'logical'`)
		both("drop", round)
		waitFeedbackCurrent(b, primary)
		primary.Exec(b, `SELECT pg_create_logical_replication_slot('s_' || i, 'pgoutput', false, false, true) FROM generate_series(1, $1::int) i`, n)
		waitReceived(b, primary)
		both("first", round)
		for _, c := range []*contender{core, ours} {
			requireUsable(b, c, n)
		}
		both("unchanged", round)
		advanceAll(b, primary)
		waitReceived(b, primary)
		both("advanced", round)
	}
	b.ReportMetric(0, "ns/op")
	for _, what := range []string{"first", "unchanged", "advanced", "drop"} {
		c, o := median(core.took[what]), median(ours.took[what])
		b.ReportMetric(c, what+"-core-ms")
		b.ReportMetric(o, what+"-replsync-ms")
		b.ReportMetric(o/c, what+"-ratio")
	}
}

// advanceAll moves restart_lsn and confirmed_flush_lsn of every logical slot.
func advanceAll(b *testing.B, primary *cluster.Server) {
	for range 2 {
		primary.Exec(b, "INSERT INTO t SELECT generate_series(1, 1000)")
		primary.LogStandbySnapshot(b)
	}
	primary.Exec(b, `SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn())
		FROM pg_replication_slots WHERE slot_type = 'logical'`)
}

// waitFeedbackCurrent waits until no standby holds an old horizon. Core cannot persist a slot that is made below
// it before the slot's consumer has advanced it.
func waitFeedbackCurrent(b *testing.B, primary *cluster.Server) {
	cluster.Eventually(b, cluster.DefaultDeadline, "the feedback to be current", func() bool {
		return cluster.QueryOne[bool](b, primary, `SELECT coalesce(bool_and(catalog_xmin IS NULL AND
			xmin::text::bigint = txid_snapshot_xmin(txid_current_snapshot())), false)
			FROM pg_replication_slots WHERE slot_type = 'physical'`)
	})
}

// requireUsable makes sure that what was timed is the whole work.
func requireUsable(b *testing.B, c *contender, n int) {
	var usable int
	err := c.session.QueryRow(b.Context(), `SELECT count(*) FROM pg_replication_slots
		WHERE synced AND NOT temporary AND plugin = 'pgoutput'`).Scan(&usable)
	require.NoError(b, err)
	require.Equal(b, n, usable, c.sql)
}

// waitReceived waits until every standby has replayed what the primary has written.
func waitReceived(b *testing.B, primary *cluster.Server) {
	cluster.Eventually(b, cluster.DefaultDeadline, "the standbys to catch up", func() bool {
		return cluster.QueryOne[bool](b, primary, `SELECT coalesce(bool_and(replay_lsn >= pg_current_wal_lsn()), false) FROM pg_stat_replication`)
	})
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// BenchmarkWorker compares the slot worker of a standby, with the Go core and 100 copies, to that of a primary, which is an
// idle C worker: proportional memory (PSS). It also tells what a cycle costs in which nothing has moved: processor
// time of the worker and of its session on the primary.
func BenchmarkWorker(b *testing.B) {
	major := cluster.Versions(b)[0]
	primary := cluster.New(b, major, cluster.Preload("replsync"), cluster.Setting("max_replication_slots", 120))
	primary.Exec(b, "CREATE EXTENSION replsync")
	standby := primary.Standby(b, cluster.Settings(map[string]string{
		"replsync.slots": "*", "replsync.slot_naptime_max": "50ms", "replsync.slot_naptime_min": "50ms",
		"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s",
	}))
	primary.Exec(b, `SELECT pg_create_logical_replication_slot('s_' || i, 'pgoutput') FROM generate_series(1, 100) i`)
	cluster.Eventually(b, cluster.DefaultDeadline, "100 ready slots", func() bool {
		return cluster.QueryOne[bool](b, standby, `SELECT count(*) = 100 FROM replsync.slot_status WHERE state = 'ready'`)
	})
	worker := standby.WorkerPID(b, slotWorker)
	session := primary.WorkerPID(b, "postgres .*idle")
	cycles := func() int64 {
		return cluster.QueryOne[int64](b, standby, "SELECT cycles FROM replsync.worker_status")
	}
	first, workerTime, sessionTime := cycles(), cpuTime(b, worker), cpuTime(b, session)
	cluster.Eventually(b, cluster.DefaultDeadline, "200 more cycles", func() bool { return cycles() > first+200 })
	n := float64(cycles() - first)
	with, without := pss(b, worker), pss(b, primary.WorkerPID(b, slotWorker))
	for b.Loop() {
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(with, "standby-MiB")
	b.ReportMetric(without, "idle-MiB")
	b.ReportMetric(with-without, "more-MiB")
	b.ReportMetric((cpuTime(b, worker)-workerTime)/n, "worker-ms/cycle")
	b.ReportMetric((cpuTime(b, session)-sessionTime)/n, "primary-ms/cycle")
}

// cpuTime returns the processor time of all threads of a process in milliseconds.
func cpuTime(b *testing.B, pid int) float64 {
	total := 0.0
	for _, id := range threads(b, pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, id))
		require.NoError(b, err)
		ns, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
		require.NoError(b, err)
		total += ns / 1e6
	}
	return total
}

// pss returns the proportional memory of a process in MiB.
func pss(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	require.NoError(b, err)
	m := regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB`).FindSubmatch(text)
	require.NotNil(b, m)
	kb, err := strconv.Atoi(strings.TrimSpace(string(m[1])))
	require.NoError(b, err)
	return float64(kb) / 1024
}
