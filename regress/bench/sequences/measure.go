package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/bench/report"
	"github.com/replsync/replsync/regress/cluster"
)

// cost is what one way needs for some work.
type cost struct{ ms, wal report.Series }

func (c *cost) add(ms, wal float64) {
	c.ms.Add(ms)
	c.wal.Add(wal)
}

// turns is how often in a round what changes nothing is measured.
const turns = 5

func measure(b *harness.B, major, n int, psql bool) {
	s := newSite(b, major, n)
	defer s.stop()
	withCore := major >= firstCore

	var first, coreFirst, all, coreAll, floor, script, some, none, call, read, readNew, readSome, readSomeNew cost
	ours := func() { number[int](s.ours, "select count(*) from replsync.sync_sequences('s')") }
	setAll := func() {
		// The floor knows the values before: they are in a local table.
		s.floor.reconnect()
		s.known()
		floor.add(s.floor.timed(func() { number[int](s.floor, "select count(setval(oid, value, true)) from known") }))
	}
	for round := range b.Rounds {
		b.Progress("%d sequences, round %d of %d", n, round+1, b.Rounds)
		s.ours.exec("select replsync.remove_sequences('s')")
		if withCore && round > 0 {
			s.core.exec("drop subscription s")
		}
		s.move(n)
		harness.Alternate(round,
			func() {
				first.add(s.ours.timed(func() {
					if taken := number[int](s.ours, "select replsync.add_sequences('s', 'all')"); taken != n {
						b.Fatalf("%d sequences are under care", taken)
					}
					ours()
				}))
			},
			func() {
				if withCore {
					coreFirst.add(s.core.timed(s.createSubscription))
				}
			})
		s.check(s.ours)
		if withCore {
			s.check(s.core)
		}

		s.move(n)
		harness.Alternate(round,
			func() { all.add(s.ours.timed(ours)) },
			func() {
				if withCore {
					coreAll.add(s.core.timed(s.refreshSequences))
				}
			},
			setAll,
			func() {
				if psql {
					script.add(s.floor.timed(s.psql))
				}
			})
		for _, side := range []*side{s.ours, s.floor} {
			s.check(side)
		}

		for turn := range turns {
			harness.Alternate(round+turn,
				func() { none.add(s.cycle()) },
				func() { call.add(s.ours.timed(ours)) },
				func() { read.add(s.pub.timed(s.readAll)) },
				func() { readNew.add(s.pub.timed(s.readAllAnew)) })
		}
		s.move(max(n/100, 1))
		harness.Alternate(round,
			func() { some.add(s.cycle()) },
			func() { readSome.add(s.pub.timed(s.readAll)) },
			func() { readSomeNew.add(s.pub.timed(s.readAllAnew)) })
		s.check(s.ours)
	}

	row := func(work, unit, peer string, theirs, replsync report.Series, targets ...report.Target) {
		if len(theirs) > 0 || peer == "" {
			b.Add(report.Row{Version: major, Work: fmt.Sprintf("%d sequences, %s", n, work), Unit: unit, Peer: peer,
				Theirs: theirs, Replsync: replsync, Targets: targets})
		}
	}
	row("all changed", "ms", "core", coreAll.ms, all.ms, report.RatioAtMost(1.0/3))
	row("all changed", "ms", "floor", floor.ms, all.ms, report.RatioAtMost(2))
	row("all changed", "ms", "psql script", script.ms, all.ms)
	row("all changed", "WAL bytes", "core", coreAll.wal, all.wal)
	row("all changed", "WAL bytes", "floor", floor.wal, all.wal, report.RatioAtMost(1.3))
	row("none changed", "ms", "reading all", read.ms, none.ms, report.RatioAtMost(1.2))
	row("none changed", "ms", "reading all in a new session", readNew.ms, none.ms, report.RatioAtMost(1.2))
	row("none changed", "WAL bytes", "", nil, none.wal)
	row("none changed, sync_sequences() with its rows", "ms", "reading all", read.ms, call.ms)
	row("1 % changed", "ms", "reading all + 2 % of the floor", sum(readSome.ms, 1, floor.ms, 0.02), some.ms, report.RatioAtMost(1.2))
	row("1 % changed", "ms", "reading all in a new session + 2 % of the floor", sum(readSomeNew.ms, 1, floor.ms, 0.02), some.ms, report.RatioAtMost(1.2))
	row("1 % changed", "WAL bytes", "1 % of the floor", sum(nil, 0, floor.wal, 0.01), some.wal, report.RatioAtMost(1.3))
	firstTargets := []report.Target{}
	if n == 100_000 {
		// 12 seconds where core takes 37.
		firstTargets = append(firstTargets, report.RatioAtMost(12.0/37))
	}
	row("add_sequences() and the first sync", "ms", "core", coreFirst.ms, first.ms, firstTargets...)
	row("add_sequences() and the first sync", "WAL bytes", "core", coreFirst.wal, first.wal)
	measureMemory(s, row)
}

// sum adds multiples of two series, round by round.
func sum(a report.Series, x float64, b report.Series, y float64) report.Series {
	var total report.Series
	for i := range b {
		v := y * b[i]
		if i < len(a) {
			v += x * a[i]
		}
		total.Add(v)
	}
	return total
}

// measureMemory watches the processes of one more sync of all sequences.
func measureMemory(s *site, row func(work, unit, peer string, theirs, replsync report.Series, targets ...report.Target)) {
	b := s.b
	b.Progress("%d sequences, memory", s.n)
	workers := func(side *side, pattern string) func() []int {
		return func() []int { return []int{side.server.FindWorker(pattern)} }
	}
	sessions := func() []int {
		pids, _ := cluster.TryQuery[int](s.pub.Database, `select pid from pg_stat_activity
			where application_name ~ 'replsync sequences$|^pg_.*_sequence_sync_'`)
		return pids
	}
	var coreOwn, corePSS, coreSession, own, pss, session report.Series
	for range 2 {
		s.move(s.n)
		o, p := peak(workers(s.ours, "replsync sequence worker"), func() {
			there, _ := peak(sessions, func() { number[int](s.ours, "select count(*) from replsync.sync_sequences('s')") })
			session.Add(there)
		})
		own.Add(o)
		pss.Add(p)
		if s.major >= firstCore {
			o, p = peak(workers(s.core, "sequencesync"), func() {
				there, _ := peak(sessions, s.refreshSequences)
				coreSession.Add(there)
			})
			coreOwn.Add(o)
			corePSS.Add(p)
		}
	}
	row("worker's own memory", "MiB", "core", coreOwn, own, report.MaxAtMost(64))
	row("worker's memory with its part of what is shared (PSS)", "MiB", "core", corePSS, pss)
	row("publisher's session", "MiB", "core", coreSession, session, report.MaxAtMost(64))
}

// known puts the publisher's values into a local table.
func (s *site) known() {
	s.floor.exec("create temp table known (oid oid, value bigint)")
	s.floor.exec("create temp table names (name text, value bigint)")
	rows := [][]any{}
	s.values(func(name string, value int64) { rows = append(rows, []any{name, value}) })
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := s.floor.session.CopyFrom(ctx, pgx.Identifier{"names"}, []string{"name", "value"}, pgx.CopyFromRows(rows)); err != nil {
		s.b.Fatalf("%v", err)
	}
	s.floor.exec("insert into known select c.oid, value from names join pg_class c on relname = name and relkind = 'S'")
}

// values reads all sequences of the publisher.
func (s *site) values(f func(name string, value int64)) {
	sql := "select sequencename, last_value from pg_sequences"
	if s.major >= firstData {
		sql = `select relname, last_value from pg_sequence join pg_class c on c.oid = seqrelid join pg_namespace n on n.oid = relnamespace,
			pg_get_sequence_data(seqrelid)`
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	rows, err := s.reader.Query(ctx, sql)
	if err != nil {
		s.b.Fatalf("%v", err)
	}
	var name string
	var value *int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		f(name, *value)
		return nil
	}); err != nil {
		s.b.Fatalf("%v", err)
	}
}

// readAll is what reading all sequences takes at least: one statement.
func (s *site) readAll() {
	n := 0
	s.values(func(string, int64) { n++ })
	if n != s.n {
		s.b.Fatalf("%d sequences were read", n)
	}
}

// readAllAnew is the same in a session that has nothing in its caches: as long as sessions are to stay small, many sequences are read
// so.
func (s *site) readAllAnew() {
	warm := s.reader
	defer func() { s.reader = warm }()
	s.reader = s.pub.Connect(s.b)
	s.readAll()
	_ = s.reader.Close(context.Background())
}

// createSubscription is core's first sync.
func (s *site) createSubscription() {
	s.core.Subscribe(s.b, "s", s.pub.Database, cluster.SubscriptionOptions{Publications: []string{"everything"}})
	s.waitCore()
}

// refreshSequences is core's sync of all.
func (s *site) refreshSequences() {
	s.core.exec("alter subscription s refresh sequences")
	s.waitCore()
}

func (s *site) waitCore() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		if number[int](s.core, "select count(*) from pg_subscription_rel where srsubstate <> 'r'") == 0 {
			return
		}
	}
	s.b.Fatalf("core has not synchronized %d sequences within %v", s.n, limit)
}

// reconnect begins a new session: one that has touched many sequences is large.
func (s *side) reconnect() {
	_ = s.session.Close(context.Background())
	s.session = s.Connect(s.b)
}

// stop makes room for the next servers.
func (s *site) stop() {
	for _, side := range []*side{s.ours, s.core, s.pub} {
		side.server.Stop(s.b, cluster.Immediate)
	}
}
