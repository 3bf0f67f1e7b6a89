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

// A contender is a standby and its way to synchronize at a call.
type contender struct {
	name    string
	server  *cluster.Server
	session *pgx.Conn
	sql     string
}

// run times a call, in milliseconds.
func (c *contender) run(b *harness.B) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	began := time.Now()
	if _, err := c.session.Exec(ctx, c.sql); err != nil {
		b.Fatalf("%s: %s: %v", c.server.Name, c.sql, err)
	}
	return report.Milliseconds(time.Since(began))
}

// times are what a contender needs for one thing.
type times struct{ core, replsync report.Series }

func (t *times) of(c *contender) *report.Series {
	if c.name == core {
		return &t.core
	}
	return &t.replsync
}

// A point is what the picture shows.
type point struct {
	version, slots int
	work           string
	core, replsync float64
}

// passSite is a primary and the standbys that compete.
type passSite struct {
	b          *harness.B
	primary    *cluster.Server
	session    *pgx.Conn // at the primary
	servers    []*cluster.Server
	contenders []*contender
}

func measurePasses(b *harness.B, sizes []int) []point {
	var points []point
	for _, major := range b.Versions() {
		site := newPassSite(b, major, sizes[len(sizes)-1])
		for _, n := range sizes {
			b.Progress("PostgreSQL %d, %d slots", major, n)
			points = append(points, site.measure(n)...)
		}
		// Their processes are not for the next version to share the machine with.
		for _, s := range site.servers {
			s.Stop(b, cluster.Immediate)
		}
	}
	return points
}

func newPassSite(b *harness.B, major, slots int) *passSite {
	site := &passSite{b: b, primary: newPrimary(b, major, slots, nil)}
	site.session = site.primary.Connect(b)
	add := func(name, sql string, settings map[string]string) {
		c := newStandby(b, site.primary, slots, settings)
		site.servers = append(site.servers, c)
		site.contenders = append(site.contenders, &contender{name: name, server: c, session: c.Connect(b), sql: sql})
	}
	if major >= firstFailover {
		add(core, "SELECT pg_sync_replication_slots()", map[string]string{"shared_preload_libraries": ""})
	}
	// Its worker begins no pass but those that are asked for: it rests for an hour after each, also when the primary tells
	// that a slot has moved.
	add("replsync", "SELECT count(*) FROM replsync.sync_slots()",
		map[string]string{"replsync.slot_naptime_min": "1h", "replsync.slot_naptime_max": "1h"})
	site.servers = append(site.servers, site.primary)
	return site
}

// each lets all contenders do something, in turn.
func (s *passSite) each(round int, f func(c *contender)) {
	var functions []func()
	for _, c := range s.contenders {
		functions = append(functions, func() { f(c) })
	}
	harness.Alternate(round, functions...)
}

func (s *passSite) measure(n int) []point {
	b := s.b
	var created, unchanged, moved, onDisk, dropped times
	var connect, pass report.Series // of core's call the connect, of replsync's the worker's pass
	clear := func(round int) {
		dropSlots(b, s.primary)
		s.each(round, func(c *contender) {
			copies := cluster.QueryOne[int](b, c.server, "SELECT count(*) FROM pg_replication_slots")
			if took := c.run(b); copies == n {
				dropped.of(c).Add(took)
			}
		})
		waitFeedback(b, s.primary)
	}
	for round := range b.Rounds {
		clear(round)
		createSlots(b, s.primary, n)
		waitReplayed(b, s.primary)
		s.each(round, func(c *contender) {
			created.of(c).Add(s.sync(c, n))
			s.waitOnDisk(c)
		})
	}
	for round := range 5 * b.Rounds {
		s.each(round, func(c *contender) {
			unchanged.of(c).Add(c.run(b))
			if c.name == core {
				connect.Add(s.connect())
			} else {
				pass.Add(cluster.QueryOne[float64](b, c.server, "SELECT last_cycle_ms FROM replsync.worker_status WHERE kind = 'slots'"))
			}
		})
	}
	for i := range unchanged.core {
		unchanged.core[i] = max(unchanged.core[i]-connect.Median(), 0)
	}

	clear(0)
	copySlots(b, s.primary, n)
	waitReplayed(b, s.primary)
	s.each(0, func(c *contender) {
		s.sync(c, n)
		s.waitOnDisk(c)
	})
	for round := range b.Rounds {
		moveSlots(b, s.primary)
		s.each(round, func(c *contender) {
			began := time.Now()
			moved.of(c).Add(s.sync(c, n))
			s.waitOnDisk(c)
			onDisk.of(c).AddDuration(time.Since(began))
		})
	}
	clear(0)

	var points []point
	add := func(work string, t times, targets ...report.Target) {
		row := report.Row{Version: s.primary.Major, Work: fmt.Sprintf("%d slots: %s", n, work), Unit: "ms", Theirs: t.core, Replsync: t.replsync}
		if len(t.core) > 0 {
			row.Peer, row.Targets = core, targets
		}
		// The targets are for many slots. With few, the connect is most of it, and is the same for all.
		if n < 100 {
			row.Targets = nil
		}
		b.Add(row)
		points = append(points, point{s.primary.Major, n, work, t.core.Median(), t.replsync.Median()})
	}
	add("all moved, until all copies have the position", moved, report.RatioAtMost(0.1))
	add("all moved, until all are on disk", onDisk)
	add("all new, until persisted", created, report.RatioAtMost(0.75))
	add("all dropped", dropped)
	add("nothing moved, one pass without the connect", times{unchanged.core, pass}, report.RatioAtMost(0.5))
	add("nothing moved, the call without the connect", unchanged)
	return points
}

// connect is how long a connection to the primary takes, in milliseconds.
func (s *passSite) connect() float64 {
	began := time.Now()
	conn, err := s.primary.TryConnect(context.Background())
	took := report.Milliseconds(time.Since(began))
	if err != nil {
		s.b.Fatalf("%v", err)
	}
	_ = conn.Close(context.Background())
	return took
}

// positions are those of the primary, of n slots.
func (s *passSite) positions(n int) map[string]positions {
	there, err := slotPositions(context.Background(), s.session, s.primary.Major)
	if err == nil && len(there) != n {
		err = fmt.Errorf("there are %d slots, not %d", len(there), n)
	}
	if err != nil {
		s.b.Fatalf("%s: %v", s.primary.Name, err)
	}
	return there
}

// sync returns the milliseconds until all copies have the positions of the primary.
func (s *passSite) sync(c *contender, n int) float64 {
	there := s.positions(n)
	began := time.Now()
	took := c.run(s.b)
	for next := time.Now().Add(nap); ; {
		here, err := slotPositions(context.Background(), c.session, s.primary.Major)
		if err != nil {
			s.b.Fatalf("%s: %v", c.server.Name, err)
		}
		err = behind(there, here, false)
		switch {
		case err == nil:
			return took
		case time.Since(began) > cluster.DefaultDeadline+5*time.Duration(took)*time.Millisecond:
			s.b.Fatalf("%s has not done its work: %v", c.name, err)
		}
		time.Sleep(time.Millisecond)
		next = s.again(c, next)
		took = report.Milliseconds(time.Since(began))
	}
}

// nap is the default of replsync.slot_naptime_min.
const nap = 200 * time.Millisecond

// again has replsync make the next pass when its worker would, were it not for the long pauses. Core's is done after one.
func (s *passSite) again(c *contender, next time.Time) time.Time {
	if c.name == core || time.Now().Before(next) {
		return next
	}
	c.run(s.b)
	return time.Now().Add(nap)
}

// waitOnDisk waits until the positions of the primary are on disk, restart_lsn included. Core may have decoded up to a position
// itself and stay at an older restart_lsn, so that of core are those that it shows.
func (s *passSite) waitOnDisk(c *contender) {
	from, major := s.session, s.primary.Major
	if c.name == core {
		from = c.session
	}
	want, err := slotPositions(context.Background(), from, major)
	if err != nil {
		s.b.Fatalf("%v", err)
	}
	next := time.Now().Add(nap)
	for end := time.Now().Add(2 * cluster.DefaultDeadline); ; time.Sleep(2 * time.Millisecond) {
		next = s.again(c, next)
		have, err := positionsOnDisk(c.server)
		if err != nil {
			s.b.Fatalf("%s: %v", c.server.Name, err)
		}
		if err = behind(want, have, true); err == nil {
			return
		}
		if time.Now().After(end) {
			s.b.Fatalf("%s: on disk %v", c.name, err)
		}
	}
}
