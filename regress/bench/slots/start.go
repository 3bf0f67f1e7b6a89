package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/bench/report"
	"github.com/replsync/replsync/regress/cluster"
)

// workers are standbys whose workers keep n copies each: replsync's, and core's where there is one.
func workers(b *harness.B, major, n int) (*cluster.Server, []*watcher) {
	primary := newPrimary(b, major, n, nil)
	watchers := []*watcher{{name: "replsync", worker: "replsync slot worker", server: newStandby(b, primary, n, nil)}}
	if major >= firstFailover {
		watchers = append(watchers, &watcher{name: core, worker: "slotsync worker", server: newStandby(b, primary, n,
			map[string]string{"sync_replication_slots": "on", "shared_preload_libraries": ""})})
	}
	waitFeedback(b, primary)
	copySlots(b, primary, n)
	session := primary.Connect(b)
	for _, w := range watchers {
		if err := awaitCopies(b, primary, session, w); err != nil {
			b.Fatalf("%s: %v", w.name, err)
		}
	}
	return primary, watchers
}

// awaitCopies waits until a watcher has copies of all slots. Core keeps a new one aside until the slot's consumer has confirmed
// something later than what was running here when the copy was begun, and the pauses between its looks grow to 30 s
// meanwhile. So the slots move now and then, as those of consumers do.
func awaitCopies(b *harness.B, primary *cluster.Server, session *pgx.Conn, w *watcher) error {
	var err error
	for _, pause := range []time.Duration{5 * time.Second, 40 * time.Second, 40 * time.Second, 40 * time.Second, 40 * time.Second} {
		for end := time.Now().Add(pause); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if err = copied(session, w); err == nil {
				return nil
			}
		}
		moveSlots(b, primary)
	}
	return err
}

// awaitMoving waits for a copy of s_1 by pg_failover_slots, which makes one only while the slot moves.
func awaitMoving(b *harness.B, primary *cluster.Server, w *watcher) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		moveSlots(b, primary)
		here, err := slotPositions(context.Background(), w.session, 0)
		if err != nil || here["s_1"].confirmed != 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("there is no copy of s_1 after %v", patience)
		}
	}
}

// waitCopies waits until all copies are at the primary's positions.
func waitCopies(b *harness.B, session *pgx.Conn, w *watcher, deadline time.Duration) {
	cluster.Eventually(b, deadline, fmt.Sprintf("all copies by %s", w.name), func() error { return copied(session, w) })
}

// copied says what a watcher's copies lack, nil if nothing.
func copied(session *pgx.Conn, w *watcher) error {
	ctx, cancel := context.WithTimeout(context.Background(), cluster.DefaultDeadline)
	defer cancel()
	there, err := slotPositions(ctx, session, w.server.Major)
	if err != nil {
		return err
	}
	conn, err := w.server.TryConnect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	here, err := slotPositions(ctx, conn, 0)
	if err != nil {
		return err
	}
	return behind(there, here, false)
}

// startSlots is how many copies the standbys of the part start have.
const startSlots = 100

// measureStart stops standbys, moves all slots, and starts them again.
func measureStart(b *harness.B) {
	for _, major := range b.Versions() {
		b.Progress("PostgreSQL %d", major)
		primary, watchers := workers(b, major, startSlots)
		session := primary.Connect(b)
		var fromExec, fromReady [2]report.Series
		for round := range b.Rounds {
			var functions []func()
			for i, w := range watchers {
				functions = append(functions, func() {
					total, ready := restart(b, primary, session, w)
					fromExec[i].AddDuration(total)
					fromReady[i].AddDuration(total - ready)
				})
			}
			harness.Alternate(round, functions...)
		}
		add := func(work string, series [2]report.Series, targets ...report.Target) {
			row := report.Row{Version: major, Work: fmt.Sprintf("%d slots: %s", startSlots, work), Unit: "ms", Replsync: series[0], Theirs: series[1], Targets: targets}
			if len(watchers) > 1 {
				row.Peer = core
			}
			b.Add(row)
		}
		add("standby's start to all copies up to date", fromExec, report.MaxAtMost(500))
		add("of that, after it accepts connections", fromReady)
		for _, w := range watchers {
			w.server.Stop(b, cluster.Immediate)
		}
		primary.Stop(b, cluster.Immediate)
	}
}

// restart returns how long it takes until all copies are up to date and until the standby accepts connections.
func restart(b *harness.B, primary *cluster.Server, session *pgx.Conn, w *watcher) (total, ready time.Duration) {
	w.server.Stop(b, cluster.Fast)
	moveSlots(b, primary)
	there, err := slotPositions(context.Background(), session, w.server.Major)
	if err != nil {
		b.Fatalf("%v", err)
	}
	began := time.Now()
	started := make(chan error, 1)
	go func() { started <- w.server.TryStart() }()
	var conn *pgx.Conn
	for deadline := began.Add(cluster.DefaultDeadline); ; time.Sleep(2 * time.Millisecond) {
		if conn == nil {
			if conn, err = w.server.TryConnect(context.Background()); err == nil {
				ready = time.Since(began)
			}
		}
		if conn != nil {
			var here map[string]positions
			if here, err = slotPositions(context.Background(), conn, 0); err == nil {
				err = behind(there, here, false)
			}
			if err == nil {
				total = time.Since(began)
				break
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s after a start: %v", w.name, err)
		}
	}
	_ = conn.Close(context.Background())
	if err := <-started; err != nil {
		b.Fatalf("%v", err)
	}
	return total, ready
}

// measureMemory measures workers that keep many copies, on the oldest version that has a peer.
func measureMemory(b *harness.B, n int) {
	versions := b.Versions()
	major := versions[max(0, slices.IndexFunc(versions, func(m int) bool { return m >= firstFailover }))]
	b.Progress("PostgreSQL %d, %d slots", major, n)
	primary, watchers := workers(b, major, n)
	session := primary.Connect(b)
	var memory [2]report.Series
	for range b.Rounds {
		moveSlots(b, primary)
		for i, w := range watchers {
			waitCopies(b, session, w, cluster.DefaultDeadline)
			memory[i].Add(b.Memory(w.server.WorkerPID(b, w.worker)).PSS)
		}
	}
	row := report.Row{Version: major, Work: fmt.Sprintf("%d slots: memory of the worker (PSS)", n), Unit: "MiB",
		Replsync: memory[0], Theirs: memory[1], Targets: []report.Target{report.MaxAtMost(20)}}
	if len(watchers) > 1 {
		row.Peer = core
	}
	b.Add(row)
}
