package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/cluster"
)

// A site is a publisher and its subscribers. Core needs a larger lock table than the default, and so does the floor;
// replsync's subscriber has the default.
type site struct {
	b     *harness.B
	major int
	n     int

	pub *side
	// ours and core have subscriptions; floor is a database of core's server.
	ours, core, floor *side
	// reader is a session that reads the publisher's sequences again and again, as a worker's does.
	reader *pgx.Conn
}

// A side is a database and a session in it.
type side struct {
	*cluster.Database
	b       *harness.B
	server  *cluster.Server
	session *pgx.Conn
}

func newSite(b *harness.B, major, n int) *site {
	s := &site{b: b, major: major, n: n}
	settings := func(more map[string]string) cluster.Option {
		all := map[string]string{
			"shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "replsync.sync_slots": "off",
			// A worker that is there, as in use, and makes a cycle only when it is asked to.
			"replsync.sequence_naptime_min": "1h", "replsync.sequence_naptime_max": "1h", "log_min_messages": "warning", "log_replication_commands": "off",
		}
		maps.Copy(all, more)
		return cluster.Settings(all)
	}
	b.Progress("making %d sequences", n)
	s.pub = s.side(cluster.New(b, major, cluster.Name("publisher"), cluster.Preload("replsync"), cluster.Fsync(), settings(nil)), "postgres")
	b.Server("%v", s.pub.server.Install().Version())
	s.pub.chunks(`execute format('create sequence q%s', i)`, n)
	s.pub.exec("vacuum analyze")
	s.pub.exec("checkpoint")
	// The others are copies, which takes less time than to make them all again.
	clone := func(name string, more map[string]string) *side {
		b.Progress("%d sequences on %s", n, name)
		server := s.pub.server.Standby(b, cluster.Name(name), cluster.NoSlot(), cluster.Fsync(), settings(more))
		server.Promote(b)
		return s.side(server, "postgres")
	}
	s.ours = clone("replsync", nil)
	s.core = clone("core", map[string]string{"max_locks_per_transaction": "4096"})
	if err := s.core.session.Close(context.Background()); err != nil {
		b.Fatalf("%v", err)
	}
	s.side(s.core.server, "template1").exec("create database floor template postgres strategy file_copy")
	s.floor = s.side(s.core.server, "floor")
	s.core = s.side(s.core.server, "postgres")
	s.reader = s.pub.Connect(b)
	s.pub.exec("create publication nothing")
	if major >= firstCore {
		s.pub.exec("create publication everything for all sequences")
	}
	s.ours.exec("create extension replsync")
	s.ours.Subscribe(b, "s", s.pub.Database, cluster.SubscriptionOptions{Publications: []string{"nothing"}})
	return s
}

func (s *site) side(server *cluster.Server, database string) *side {
	side := &side{Database: server.DB(database), b: s.b, server: server}
	side.session = side.Connect(s.b)
	return side
}

// limit bounds a statement.
const limit = 20 * time.Minute

func (s *side) exec(sql string, args ...any) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := s.session.Exec(ctx, sql, args...); err != nil {
		s.b.Fatalf("%s: %s: %v", s.server.Name, sql, err)
	}
}

func number[V any](s *side, sql string, args ...any) V {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	rows, err := s.session.Query(ctx, sql, args...)
	if err != nil {
		s.b.Fatalf("%s: %s: %v", s.server.Name, sql, err)
	}
	value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[V])
	if err != nil {
		s.b.Fatalf("%s: %s: %v", s.server.Name, sql, err)
	}
	return value
}

// chunks executes PL/pgSQL for i from 1 to n, in transactions that the default lock table has room for.
func (s *side) chunks(statement string, n int) {
	s.exec(fmt.Sprintf(`do $$ begin for i in 1 .. %d loop %s; if i %% 1000 = 0 then commit; end if; end loop; end $$`, n, statement))
}

// move lets the publisher hand out a value of the first n sequences.
func (s *site) move(n int) {
	s.pub.chunks("perform nextval('q' || i)", n)
}

// wal is the position of a server.
func (s *side) wal() int64 {
	return number[int64](s, "select (pg_current_wal_insert_lsn() - '0/0')::int8")
}

// timed runs f, and returns its milliseconds and the bytes of WAL that it wrote on the server.
func (s *side) timed(f func()) (ms, bytes float64) {
	before, began := s.wal(), time.Now()
	f()
	ms = float64(time.Since(began).Microseconds()) / 1000
	return ms, float64(s.wal() - before)
}

// cycle lets the worker make one as it does by itself, and returns its milliseconds and the bytes of WAL that it wrote. The worker
// alone is told to: with a reload all other processes would read the configuration meanwhile.
func (s *site) cycle() (ms, bytes float64) {
	const worker = "from replsync.worker_status where kind = 'sequences' and database = 'postgres'"
	before, cycles := s.ours.wal(), number[int64](s.ours, "select cycles "+worker)
	if err := syscall.Kill(s.ours.server.WorkerPID(s.b, "replsync sequence worker"), syscall.SIGHUP); err != nil {
		s.b.Fatalf("%v", err)
	}
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if number[int64](s.ours, "select cycles "+worker) > cycles {
			return number[float64](s.ours, "select last_cycle_ms "+worker), float64(s.ours.wal() - before)
		}
	}
	s.b.Fatalf("the worker has made no cycle within %v", limit)
	return 0, 0
}

// check makes sure that what was timed is the whole work.
func (s *site) check(side *side) {
	if want, is := s.sum(s.pub), s.sum(side); want != is {
		s.b.Fatalf("%s: the sequences sum up to %d, on the publisher to %d", side.server.Name, is, want)
	}
}

// sum adds up all sequences, in sessions that end with the memory and the locks that this takes.
func (s *site) sum(side *side) int64 {
	const step = 5000
	var total int64
	for first := 1; first <= s.n; first += step {
		total += cluster.QueryOne[int64](s.b, side.Database, `select coalesce(sum(pg_sequence_last_value(('q' || i)::regclass)), 0)::int8
			from generate_series($1::int, $2::int) i`, first, min(first+step-1, s.n))
	}
	return total
}

// psql sets all sequences with a script that the publisher writes.
func (s *site) psql() {
	from := s.pub.server.Command("psql", "-XAtq", "-c",
		`select format('select setval(%L, %s, true);', sequencename, last_value) from pg_sequences where last_value is not null`)
	script, err := from.Output()
	if err != nil {
		s.b.Fatalf("psql: %v", err)
	}
	to := s.floor.server.Command("psql", "-Xq1", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", "floor")
	to.Stdin = bytes.NewReader(script)
	if out, err := to.CombinedOutput(); err != nil {
		s.b.Fatalf("psql: %v: %s", err, out)
	}
}

// peak watches processes of a server while f runs, and returns the most memory in MiB that one of them had: its own, and
// with its parts of what is shared. pids is asked each time, as a process may come and go.
func peak(pids func() []int, f func()) (own, pss float64) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for _, pid := range pids() {
				if m, err := harness.MemoryOf(pid); err == nil {
					pss = max(pss, m.PSS)
				}
				own = max(own, anonymous(pid))
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return own, pss
}

var anonymousLine = regexp.MustCompile(`(?m)^RssAnon:\s+(\d+) kB`)

// anonymous is the memory of a process that is its own and of no file, in MiB.
func anonymous(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	m := anonymousLine.FindSubmatch(text)
	if m == nil {
		return 0
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return float64(kb) / 1024
}
