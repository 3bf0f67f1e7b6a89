package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/bench/report"
	"github.com/replsync/replsync/regress/cluster"
)

// measureMany has the worker make passes one after the other, some of which create, move and drop a copy, and looks at
// its memory in between.
func measureMany(b *harness.B, o options) {
	const slots = 10
	versions := b.Versions()
	major := versions[len(versions)-1]
	primary := newPrimary(b, major, slots+1, nil)
	// Only when it is asked.
	standby := newStandby(b, primary, slots+1, map[string]string{
		"replsync.slot_naptime_min": "1h", "replsync.slot_naptime_max": "1h", "replsync.slots": "*"})
	waitFeedback(b, primary)
	createSlots(b, primary, slots)
	session, remote := standby.Connect(b), primary.Connect(b)
	pid := standby.WorkerPID(b, "replsync slot worker")

	b.Progress("PostgreSQL %d: %v or %d passes", major, o.passesFor, o.passes)
	ctx := context.Background()
	change := func(pass int) error {
		var err error
		switch pass % 1000 {
		case 100, 400, 700:
			_, err = remote.Exec(ctx, "INSERT INTO t VALUES (1); SELECT pg_replication_slot_advance('s_1', pg_current_wal_flush_lsn())")
		case 200:
			_, err = remote.Exec(ctx, fmt.Sprintf("SELECT pg_create_logical_replication_slot('passing', 'pgoutput', %s)", failoverArgs(major)))
		case 800:
			_, err = remote.Exec(ctx, "SELECT pg_drop_replication_slot('passing')")
		}
		return err
	}
	type sample struct {
		passes int
		memory float64
	}
	var curve []sample
	began, next := time.Now(), time.Now().Add(o.passesFor/20)
	pass := 0
	for ; pass < o.passes && time.Since(began) < o.passesFor; pass++ {
		if err := change(pass); err != nil {
			b.Fatalf("%s: %v", primary.Name, err)
		}
		if _, err := session.Exec(ctx, "SELECT count(*) FROM replsync.sync_slots()"); err != nil {
			b.Fatalf("%s: %v", standby.Name, err)
		}
		if !time.Now().Before(next) {
			curve = append(curve, sample{pass + 1, b.Memory(pid).Anon})
			next = next.Add(o.passesFor / 20)
		}
	}
	took := time.Since(began)
	if standby.WorkerPID(b, "replsync slot worker") != pid {
		b.Fatalf("the worker has ended in between")
	}
	if cycles := cluster.QueryOne[int64](b, standby, "SELECT cycles FROM replsync.worker_status WHERE kind = 'slots'"); cycles < int64(pass) {
		b.Fatalf("the worker has made %d cycles for %d passes", cycles, pass)
	}
	if len(curve) < 4 {
		b.Fatalf("%d passes are too few to tell anything", pass)
	}
	var text []string
	var first, last report.Series
	for i, s := range curve {
		text = append(text, fmt.Sprintf("%d: %s", s.passes, report.Number(s.memory)))
		// What grows by something grows in the second half too.
		if i < len(curve)/2 {
			first.Add(s.memory)
		} else {
			last.Add(s.memory)
		}
	}
	b.Note("memory of the worker of PostgreSQL %d in MiB (PSS, without files and shared memory) by passes: %s", major, strings.Join(text, ", "))
	b.Add(report.Row{Version: major, Work: fmt.Sprintf("%d passes in %v: memory of the worker, first half and second", pass, took.Round(time.Second)),
		Unit: "MiB", Peer: "first half", Theirs: report.Series{first.Max()}, Replsync: report.Series{last.Max()},
		Targets: []report.Target{report.RatioAtMost(1.05)}})
}
