package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/bench/report"
	"github.com/replsync/replsync/regress/cluster"
)

const holdBack = "replsync.synchronized_standby_slots"

// measureHoldback measures walsenders that wait for a standby, which core has from 17 on.
func measureHoldback(b *harness.B, o options) {
	measured := false
	for _, major := range b.Versions() {
		if major >= firstFailover {
			continue
		}
		measured = true
		b.Progress("PostgreSQL %d", major)
		primary := newPrimary(b, major, 10, nil)
		if cluster.QueryOne[int](b, primary, "SELECT count(*) FROM pg_settings WHERE name = $1", holdBack) == 0 {
			b.Note("hold-back was left out: the library has no %s", holdBack)
			return
		}
		primary.Exec(b, "CREATE PUBLICATION p FOR ALL TABLES")
		measureRelease(b, primary)
		measureThroughput(b, primary, o)
		primary.Stop(b, cluster.Immediate)
	}
	if !measured {
		b.Note("hold-back was left out: it is for 15 and 16")
	}
}

func startConsumer(b *harness.B, primary *cluster.Server, slot string) *stream {
	primary.CreateSlot(b, slot, cluster.SlotOptions{})
	return openStream(b, primary, fmt.Sprintf(`START_REPLICATION SLOT "%s" LOGICAL 0/0 ("proto_version" '1', "publication_names" 'p')`, slot))
}

// measureRelease measures from the standby's confirmation to the subscriber's receipt of what was held back until then. The
// standby is this program, so that both ends have one clock.
func measureRelease(b *harness.B, primary *cluster.Server) {
	primary.Exec(b, "SELECT pg_create_physical_replication_slot('receiver', true)")
	start := cluster.QueryOne[cluster.LSN](b, primary, "SELECT pg_current_wal_flush_lsn()")
	standby := openStream(b, primary, fmt.Sprintf("START_REPLICATION SLOT receiver PHYSICAL %v", start&^0xffffff))
	consumer := startConsumer(b, primary, "held")
	primary.Set(b, holdBack, "receiver")
	session := primary.Connect(b)
	ctx := context.Background()
	var latency report.Series
	confirmed := cluster.LSN(0)
	for range 20 * b.Rounds {
		var target cluster.LSN
		if _, err := session.Exec(ctx, "INSERT INTO t VALUES (1)"); err != nil {
			b.Fatalf("%s: %v", primary.Name, err)
		}
		if err := session.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()").Scan(&target); err != nil {
			b.Fatalf("%s: %v", primary.Name, err)
		}
		// It must have everything to confirm, and the consumer must not have it yet.
		for end := start; end < target; {
			m, err := standby.receive(ctx)
			if err != nil {
				b.Fatalf("the standby's stream: %v", err)
			}
			if m.data != nil {
				end = m.position + cluster.LSN(len(m.data))
			}
		}
		early, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		n, err := commits(early, consumer, 1)
		cancel()
		if err != nil || n > 0 {
			b.Fatalf("the consumer received %d transactions that the standby had not confirmed: %v", n, err)
		}
		began := time.Now()
		if err := standby.confirm(target); err != nil {
			b.Fatalf("the standby's stream: %v", err)
		}
		within, cancel := context.WithTimeout(ctx, cluster.DefaultDeadline)
		n, err = commits(within, consumer, 1)
		cancel()
		if err != nil || n != 1 {
			b.Fatalf("the consumer received %d transactions of 1: %v", n, err)
		}
		latency.AddDuration(time.Since(began))
		start, confirmed = target, target
		if err := consumer.confirm(confirmed); err != nil {
			b.Fatalf("the consumer's stream: %v", err)
		}
	}
	b.Add(report.Row{Version: primary.Major, Work: "hold-back: the standby's confirmation to the subscriber's receipt", Unit: "ms",
		Replsync: latency, Targets: []report.Target{report.MedianAtMost(2)}})
	primary.Unset(b, holdBack)
	_ = standby.conn.Close(ctx)
	_ = consumer.conn.Close(ctx)
	cluster.Eventually(b, cluster.DefaultDeadline, "the slots to be free", func() error {
		_, err := primary.TryExec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name IN ('held', 'receiver')")
		return err
	})
}

// commits reads until n transactions have come, or ctx is done.
func commits(ctx context.Context, s *stream, n int) (int, error) {
	for got := 0; ; {
		if got == n {
			return got, nil
		}
		m, err := s.receive(ctx)
		if err != nil || m == nil {
			return got, err
		}
		if m.data != nil && m.data[0] == 'C' {
			got++
		}
	}
}

// measureThroughput has a consumer follow pgbench, with and without waiting for a standby.
func measureThroughput(b *harness.B, primary *cluster.Server, o options) {
	newStandby(b, primary, 10, map[string]string{"replsync.sync_slots": "off"}, cluster.Slot("standby"))
	primary.Run(b, "pgbench", "-i", "-q", "-s", "5", "postgres")
	consumer := startConsumer(b, primary, "follower")
	var received atomic.Int64
	go follow(consumer, &received)

	var with, without report.Series
	run := func(series *report.Series) {
		before, began := received.Load(), time.Now()
		primary.Run(b, "pgbench", "-n", "-N", "-c", "4", "-T", fmt.Sprint(int(o.pgbench.Seconds())), "postgres")
		series.Add(float64(received.Load()-before) / time.Since(began).Seconds())
		waitDrained(b, primary)
	}
	for round := range b.Rounds {
		harness.Alternate(round,
			func() { run(&without) },
			func() {
				primary.Set(b, holdBack, "standby")
				run(&with)
				primary.Unset(b, holdBack)
			})
	}
	b.Add(report.Row{Version: primary.Major, Work: "hold-back: transactions a second of a consumer under pgbench", Unit: "1/s",
		Peer: "not held back", Theirs: without, Replsync: with, Targets: []report.Target{report.RatioAtLeast(0.95)}})
}

// follow confirms what it receives until the stream ends.
func follow(s *stream, received *atomic.Int64) {
	confirmed, next := cluster.LSN(0), time.Now()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		m, err := s.receive(ctx)
		cancel()
		if err != nil {
			return
		}
		switch {
		case m == nil:
		case m.data == nil:
			confirmed = max(confirmed, m.position)
		case m.data[0] == 'C' && len(m.data) >= 18:
			received.Add(1)
			confirmed = cluster.LSN(binary.BigEndian.Uint64(m.data[10:])) // the transaction's end
		}
		if m == nil || m.reply || time.Now().After(next) {
			if s.confirm(confirmed) != nil {
				return
			}
			next = time.Now().Add(100 * time.Millisecond)
		}
	}
}

// waitDrained waits until the consumer has everything.
func waitDrained(b *harness.B, primary *cluster.Server) {
	target := cluster.QueryOne[cluster.LSN](b, primary, "SELECT pg_current_wal_flush_lsn()")
	cluster.Eventually(b, 2*cluster.DefaultDeadline, "the consumer to have everything", func() error {
		at, err := cluster.TryQueryOne[cluster.LSN](primary, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'follower'")
		if err == nil && at < target {
			err = fmt.Errorf("it is at %v of %v", at, target)
		}
		return err
	})
}
