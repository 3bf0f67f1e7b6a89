package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/bench/report"
	"github.com/replsync/replsync/regress/cluster"
)

const (
	// latencySlots is how many slots the servers of the part latency have.
	latencySlots = 10
	// patience bounds the wait for one copy. A peer's that has not arrived by then counts as if it had.
	patience = 2 * time.Minute
)

// A watcher is a standby whose worker synchronizes by itself.
type watcher struct {
	name    string
	server  *cluster.Server
	session *pgx.Conn
	worker  string // title of the worker
	remote  string // application_name of its session at the primary, empty if it keeps none

	ctx                 context.Context // ends with the measurement
	mu                  sync.Mutex
	late                int   // copies that have not arrived in time
	err                 error // that ended a wait
	pending             sync.WaitGroup
	busy, idle, waiting report.Series // latency in milliseconds
	cpu                 report.Series // milliseconds a minute while idle, both sides
}

// latencySite is a primary and the standbys that compete.
type latencySite struct {
	major    int
	primary  *cluster.Server
	session  *pgx.Conn
	watchers []*watcher
}

// measureLatency measures on all versions at the same time: most of it is waiting.
func measureLatency(b *harness.B, o options) {
	ctx, cancel := context.WithCancel(context.Background())
	var sites []*latencySite
	b.Cleanup(func() {
		cancel()
		for _, s := range sites {
			for _, w := range s.watchers {
				w.pending.Wait()
			}
		}
	})
	for _, major := range b.Versions() {
		b.Progress("PostgreSQL %d: starting", major)
		sites = append(sites, newLatencySite(b, ctx, major))
	}
	for _, s := range sites {
		b.Progress("PostgreSQL %d: busy", s.major)
		s.measureBusy(b)
	}
	for round := range o.idleRounds {
		b.Progress("idle for %v, %d of %d", o.idle, round+1, o.idleRounds)
		idleFor(b, sites, jitter(o.idle), func(w *watcher) *report.Series { return &w.cpu })
		for _, s := range sites {
			s.move(b, func(w *watcher) *report.Series { return &w.idle })
		}
		settle(sites)
	}
	for _, s := range sites {
		s.wantOld(b)
	}
	for round := range o.idleRounds {
		b.Progress("a slot waits, idle for %v, %d of %d", o.idle/4, round+1, o.idleRounds)
		time.Sleep(jitter(o.idle / 4))
		for _, s := range sites {
			s.move(b, func(w *watcher) *report.Series { return &w.waiting })
		}
		settle(sites)
	}
	polling := measurePolling(b, sites, o)
	for _, s := range sites {
		s.report(b, polling[s.major])
	}
}

func newLatencySite(b *harness.B, ctx context.Context, major int) *latencySite {
	s := &latencySite{major: major}
	s.primary = newPrimary(b, major, latencySlots, nil)
	s.session = s.primary.Connect(b)
	// A slot that is older than the standbys: it cannot be copied before its consumer moves it.
	s.primary.CreateSlot(b, "old", cluster.SlotOptions{})
	s.primary.Exec(b, "INSERT INTO t VALUES (1); SELECT pg_switch_wal(); INSERT INTO t VALUES (1); CHECKPOINT")
	add := func(w *watcher, more map[string]string, opts ...cluster.Option) {
		w.server = newStandby(b, s.primary, latencySlots, more, opts...)
		w.ctx, w.session = ctx, w.server.Connect(b)
		s.watchers = append(s.watchers, w)
	}
	add(&watcher{name: "replsync", worker: "replsync slot worker", remote: "%replsync%"}, map[string]string{"replsync.slots": "s_*"})
	if major >= firstFailover {
		add(&watcher{name: core, worker: "slotsync worker", remote: "%slotsync%"},
			map[string]string{"sync_replication_slots": "on", "shared_preload_libraries": ""})
	}
	waitFeedback(b, s.primary)
	createSlots(b, s.primary, latencySlots)
	// They were made with the horizon of the old one, at which core cannot copy them.
	for range 2 {
		s.primary.LogStandbySnapshot(b)
		advanceSlots(b, s.primary)
	}
	s.addFailoverSlots(b, add)
	s.watchers = slices.DeleteFunc(s.watchers, func(w *watcher) bool { return !s.hasCopies(b, w) })
	return s
}

// hasCopies sets the stage for a watcher, and tells whether it can be measured. A peer that does not get to copies of all slots
// is part of what is measured, and no failure: a note says so.
func (s *latencySite) hasCopies(b *harness.B, w *watcher) bool {
	var err error
	if w.name == failoverSlots {
		err = awaitMoving(b, s.primary, w)
	} else {
		err = awaitCopies(b, s.primary, s.session, w)
	}
	if err == nil {
		return true
	}
	if w.name == "replsync" {
		b.Fatalf("%s: %v", w.name, err)
	}
	here, _ := slotPositions(context.Background(), w.session, 0)
	_, measured := here["s_1"]
	text := "it is left out"
	if measured {
		text = "only the slot that is measured has one"
		if len(here) > 1 {
			text = fmt.Sprintf("%d of the %d slots have one, that which is measured too", len(here), latencySlots)
		}
	}
	b.Note("PostgreSQL %d: %s did not get to copies of all slots (%v); %s", s.major, w.name, err, text)
	return measured
}

// addFailoverSlots adds a standby with pg_failover_slots, where that is installed. It is told to keep one slot: the first
// copies of several are made one after the other, each as soon as its slot has moved on.
func (s *latencySite) addFailoverSlots(b *harness.B, add func(*watcher, map[string]string, ...cluster.Option)) {
	if s.major != 17 {
		return
	}
	version := extraVersion(s.primary, "postgresql-17-pg-failover-slots")
	if version == "" {
		b.Note("pg_failover_slots was left out: its package is not installed (regress/servers/extras.sh)")
		return
	}
	b.Server("pg_failover_slots %s", version)
	add(&watcher{name: failoverSlots, worker: "pg_failover_slots"}, map[string]string{
		"shared_preload_libraries": "pg_failover_slots", "pg_failover_slots.synchronize_slot_names": "name:s_1"})
}

// move moves slot s_1, and has each watcher for which there is one add to a series how long its copy takes. It does not
// wait for that.
func (s *latencySite) move(b *harness.B, series func(*watcher) *report.Series) {
	ctx := context.Background()
	var target cluster.LSN
	if err := s.session.QueryRow(ctx, "INSERT INTO t VALUES (1) RETURNING pg_current_wal_insert_lsn()").Scan(&target); err != nil {
		b.Fatalf("%s: %v", s.primary.Name, err)
	}
	// The position has to arrive first, as it has when a consumer of a live server confirms.
	waitReplayed(b, s.primary)
	began := time.Now()
	if err := s.session.QueryRow(ctx, "SELECT end_lsn FROM pg_replication_slot_advance('s_1', $1)", target).Scan(&target); err != nil {
		b.Fatalf("%s: %v", s.primary.Name, err)
	}
	for _, w := range s.watchers {
		if w.name == failoverSlots && series(w) == nil {
			continue // it would be polled for a minute
		}
		w.pending.Add(1)
		go func() {
			defer w.pending.Done()
			latency, err := w.wait(target, began)
			w.mu.Lock()
			defer w.mu.Unlock()
			switch {
			case w.ctx.Err() != nil:
			case err != nil:
				w.err = err
			case series(w) != nil:
				series(w).AddDuration(latency)
				if latency >= patience {
					w.late++
				}
			}
		}()
	}
}

// wait returns how long it takes until the copy of s_1 has a position, no more than patience.
func (w *watcher) wait(target cluster.LSN, began time.Time) (time.Duration, error) {
	pause := 2 * time.Millisecond
	for {
		w.mu.Lock()
		var there bool
		err := w.session.QueryRow(w.ctx, "SELECT confirmed_flush_lsn >= $1 FROM pg_replication_slots WHERE slot_name = 's_1'", target).Scan(&there)
		w.mu.Unlock()
		if errors.Is(err, pgx.ErrNoRows) {
			err = nil // it is being made anew
		}
		took := time.Since(began)
		switch {
		case err != nil:
			return 0, err
		case there:
			return took, nil
		case took >= patience:
			return patience, nil
		case took > time.Second:
			// Many seconds need no such resolution, and the machine is shared.
			pause = 10 * time.Millisecond
		}
		time.Sleep(pause)
	}
}

// settle waits for the copies of those that are waited for. pg_failover_slots sleeps for a minute whatever happens.
func settle(sites []*latencySite) {
	for _, s := range sites {
		for _, w := range s.watchers {
			if w.name != failoverSlots {
				w.pending.Wait()
			}
		}
	}
}

// measureBusy moves other slots all the time and s_1 now and then.
func (s *latencySite) measureBusy(b *harness.B) {
	stop := make(chan struct{})
	var others sync.WaitGroup
	mover := s.primary.Connect(b)
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			_, err := mover.Exec(context.Background(), fmt.Sprintf("INSERT INTO t VALUES (1); SELECT pg_replication_slot_advance('s_%d', pg_current_wal_flush_lsn())",
				2+i%(latencySlots-1)))
			if err != nil {
				return
			}
		}
	})
	for i := range 1 + 5*b.Rounds {
		time.Sleep(200*time.Millisecond + rand.N(200*time.Millisecond))
		s.move(b, func(w *watcher) *report.Series {
			// The first one ends the naps of those that were idle. pg_failover_slots takes the same nap whatever happens.
			if i == 0 || w.name == failoverSlots {
				return nil
			}
			return &w.busy
		})
		settle([]*latencySite{s})
	}
	close(stop)
	others.Wait()
}

// jitter keeps the rounds from meeting a nap at the same moment.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/10+1) }

// idleFor lets time pass, and has each watcher add its processor time to a series.
func idleFor(b *harness.B, sites []*latencySite, d time.Duration, series func(*watcher) *report.Series) {
	read := func() map[*watcher]time.Duration {
		used := map[*watcher]time.Duration{}
		for _, s := range sites {
			for _, w := range s.watchers {
				used[w] = s.used(b, w)
			}
		}
		return used
	}
	began, before := time.Now(), read()
	time.Sleep(d)
	minutes := time.Since(began).Minutes()
	for w, after := range read() {
		w.mu.Lock()
		series(w).Add(report.Milliseconds(after-before[w]) / minutes)
		w.mu.Unlock()
	}
}

// used is the processor time of the worker and of its session at the primary.
func (s *latencySite) used(b *harness.B, w *watcher) time.Duration {
	used := b.CPU(w.server.WorkerPID(b, w.worker))
	if w.remote == "" {
		return used
	}
	// Each standby has its own name for the sessions of both, or the worker's name tells.
	pids := cluster.Query[int](b, s.primary, `SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'
		AND (application_name LIKE $1 OR application_name = $2)`, w.remote, w.server.Name)
	if len(pids) == 0 {
		b.Note("PostgreSQL %d: %s has no session at the primary to count the processor time of", s.major, w.name)
	}
	for _, pid := range pids {
		used += b.CPU(pid)
	}
	return used
}

// wantOld makes everybody want a slot that cannot be copied.
func (s *latencySite) wantOld(b *harness.B) {
	if s.major >= firstFailover {
		markFailover(b, s.primary, "old")
	}
	for _, w := range s.watchers {
		if w.name != "replsync" {
			continue
		}
		w.server.Set(b, "replsync.slots", "s_*", "old")
		cluster.Eventually(b, cluster.DefaultDeadline, "a slot that waits", func() error {
			state, err := cluster.TryQueryOne[string](w.server, "SELECT state FROM replsync.slot_status WHERE slot_name = 'old'")
			if err == nil && state != "waiting" {
				err = fmt.Errorf("its state is %s", state)
			}
			return err
		})
	}
}

// polled is the processor time a minute by nap time.
type polled map[string]report.Series

// measurePolling measures what replsync costs where its extension is not on the primary, so that it has to ask again and
// again.
func measurePolling(b *harness.B, sites []*latencySite, o options) map[int]polled {
	all := map[int]polled{}
	for _, s := range sites {
		s.primary.Exec(b, "DROP EXTENSION replsync")
		all[s.major] = polled{}
	}
	for _, nap := range []string{"200ms", "1s"} {
		for _, s := range sites {
			s.watchers[0].server.AppendConf(b, map[string]string{"replsync.slot_naptime_min": nap, "replsync.slot_naptime_max": nap})
			s.watchers[0].server.Reload(b)
		}
		b.Progress("polling every %s, without the extension on the primary", nap)
		time.Sleep(2 * time.Second)
		series := map[*watcher]*report.Series{}
		for _, s := range sites {
			for _, w := range s.watchers {
				series[w] = &report.Series{}
			}
		}
		idleFor(b, sites, min(o.idle, 15*time.Second), func(w *watcher) *report.Series { return series[w] })
		for _, s := range sites {
			all[s.major][nap] = *series[s.watchers[0]]
		}
	}
	return all
}

func (s *latencySite) report(b *harness.B, polling polled) {
	ours := s.watchers[0]
	for _, w := range s.watchers {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.late > 0 {
			b.Note("PostgreSQL %d: %d copies of %s had not arrived after %v, and are shown as if they had then", s.major, w.late, w.name, patience)
		}
		if w.err != nil {
			b.Errorf("PostgreSQL %d: the copies of %s: %v", s.major, w.name, w.err)
		}
	}
	add := func(work, unit string, of func(*watcher) report.Series, targets ...report.Target) {
		row := report.Row{Version: s.major, Work: work, Unit: unit, Replsync: of(ours), Targets: targets}
		if len(s.watchers) == 1 {
			b.Add(row)
		}
		for _, w := range s.watchers[1:] {
			row.Peer, row.Theirs = w.name, of(w)
			if len(row.Theirs) > 0 {
				b.Add(row)
			}
		}
	}
	lag := []report.Target{report.MedianAtMost(20), report.MaxAtMost(100)}
	add("a slot's move to its copy, busy", "ms", func(w *watcher) report.Series { return w.busy }, lag...)
	add("the same after an idle minute", "ms", func(w *watcher) report.Series { return w.idle }, lag...)
	add("the same while a slot waits", "ms", func(w *watcher) report.Series { return w.waiting }, lag...)
	add("processor time a minute while idle, both sides", "ms", func(w *watcher) report.Series { return w.cpu }, report.MedianAtMost(60))
	for _, nap := range []string{"200ms", "1s"} {
		b.Add(report.Row{Version: s.major, Work: fmt.Sprintf("the same, polling every %s without the extension there", nap), Unit: "ms",
			Replsync: polling[nap]})
	}
}
