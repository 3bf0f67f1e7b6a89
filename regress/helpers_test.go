// Package regress_test tests replsync with real servers: a primary that has logical slots, its standby, and the
// consumers that go on from there.
package regress_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// running bounds how many tests have servers up at the same time.
var running = make(chan struct{}, 2)

// onEachVersion runs a test on every version, beside others.
func onEachVersion(t *testing.T, f func(t *testing.T, major int)) {
	t.Parallel()
	onVersions(t, cluster.Versions(t), f)
}

func onVersions(t *testing.T, majors []int, f func(t *testing.T, major int)) {
	for _, major := range majors {
		beside(t, strconv.Itoa(major), func(t *testing.T) { f(t, major) })
	}
}

// beside runs a test with servers of its own beside others.
func beside(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		running <- struct{}{}
		t.Cleanup(func() { <-running })
		f(t)
	})
}

// story is a part of a test. Those that follow rely on it.
func story(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	if !t.Run(name, f) {
		t.FailNow()
	}
}

const (
	firstConflict = 16 // replay invalidates slots whose rows it removes; standbys can have logical slots
	firstFailover = 17 // slots have the flags failover and synced
	firstAlter    = 18 // two_phase can be switched
	firstDynamic  = 19 // logical decoding is switched on by the first slot
)

// pair is a primary and its standby.
type pair struct {
	major            int
	primary, standby *cluster.Server
}

// onDemand is a standby whose worker makes a pass only when sync_slots() asks for it.
var onDemand = cluster.Setting("replsync.sync_slots", "off")

func newPrimary(t *testing.T, major int, opts ...cluster.Option) *cluster.Server {
	t.Helper()
	primary := cluster.New(t, major, append([]cluster.Option{
		cluster.Preload("replsync"),
		cluster.Settings(map[string]string{
			"max_prepared_transactions": "10",
			"replsync.slot_naptime_min": "50ms",
			"replsync.slot_naptime_max": "500ms",
		}),
	}, opts...)...)
	primary.Exec(t, "create extension replsync")
	return primary
}

func newPair(t *testing.T, major int, standbyOpts ...cluster.Option) *pair {
	t.Helper()
	return pairOf(t, newPrimary(t, major), standbyOpts...)
}

func pairOf(t *testing.T, primary *cluster.Server, standbyOpts ...cluster.Option) *pair {
	t.Helper()
	p := &pair{major: primary.Major, primary: primary, standby: primary.Standby(t, standbyOpts...)}
	p.caughtUp(t)
	return p
}

// caughtUp waits until the standby has everything, and the primary its feedback.
func (p *pair) caughtUp(t *testing.T) {
	t.Helper()
	p.primary.WaitReplayed(t, p.standby)
	p.primary.WaitFeedback(t, p.standby)
}

// createSlot makes a slot that replsync keeps by default.
func (p *pair) createSlot(t *testing.T, database, name, plugin string) {
	t.Helper()
	p.primary.DB(database).CreateSlot(t, name, cluster.SlotOptions{Plugin: plugin, Failover: p.major >= firstFailover})
}

func (p *pair) dropSlot(t *testing.T, name string) {
	t.Helper()
	p.primary.Exec(t, "select pg_drop_replication_slot($1)", name)
}

// move makes WAL and moves a slot of the primary behind it, restart_lsn included.
func (p *pair) move(t *testing.T, database, name string) {
	t.Helper()
	before := *p.primary.Slots(t)[name].RestartLSN
	db := p.primary.DB(database)
	cluster.Eventually(t, cluster.DefaultDeadline, "restart_lsn of "+name+" to move", func() bool {
		db.Exec(t, "create table if not exists replsync_moves (id int); insert into replsync_moves values (1)")
		p.primary.LogStandbySnapshot(t)
		db.Exec(t, "select pg_replication_slot_advance($1, pg_current_wal_flush_lsn())", name)
		return *p.primary.Slots(t)[name].RestartLSN > before
	})
}

// confirm moves confirmed_flush_lsn of a slot of the primary to the end of WAL.
func (p *pair) confirm(t *testing.T, database, name string) {
	t.Helper()
	p.primary.DB(database).Exec(t, "select pg_replication_slot_advance($1, pg_current_wal_flush_lsn())", name)
}

type lsn cluster.LSN

// UnmarshalText reads what PostgreSQL prints.
func (l *lsn) UnmarshalText(text []byte) error {
	parsed, err := cluster.ParseLSN(string(text))
	*l = lsn(parsed)
	return err
}

// rowsOf runs a query and returns its rows.
func rowsOf[V any](q cluster.Queryer, sql string, args ...any) ([]V, error) {
	texts, err := cluster.TryQuery[string](q, "select to_jsonb(q)::text from ("+sql+") q", args...)
	if err != nil {
		return nil, err
	}
	rows := make([]V, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal([]byte(text), &rows[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// requireError checks for an error of the server.
func requireError(t *testing.T, err error, code, message string) (hint string) {
	t.Helper()
	require.Error(t, err)
	pgErr, ok := cluster.AsPgError(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, pgErr.Code, "%v: %s", err, pgErr.Detail)
	require.Regexp(t, message, pgErr.Message)
	return pgErr.Hint
}

// background is a context for calls that are bounded otherwise.
func background(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cluster.DefaultDeadline)
	t.Cleanup(cancel)
	return ctx
}

// tasks counts the threads of a process, 0 if it has ended.
func tasks(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	return len(entries)
}

// requireNoCore waits until this server, which is no standby, has a worker that waits and has not loaded the core.
func requireNoCore(t *testing.T, s *cluster.Server) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, "a worker without the core on a primary", func() error {
		w, err := tryWorker(s)
		if err != nil {
			return err
		}
		if n := tasks(t, w.PID); w.State != "not a standby" || n != 1 {
			return fmt.Errorf("%d threads: %+v", n, w)
		}
		return nil
	})
}

// workerLines returns the lines of the slot worker that match.
func workerLines(log, pattern string) []string {
	expr := regexp.MustCompile(pattern)
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "replsync slot worker") && expr.MatchString(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// replicationCommand runs a command of the replication protocol.
func replicationCommand(t *testing.T, s *cluster.Server, command string) {
	t.Helper()
	s.Run(t, "psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", "dbname=postgres replication=database", "-c", command)
}

// ids returns numbers as a consumer receives them.
func ids(from, to int) []string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, strconv.Itoa(i))
	}
	return all
}
