// The benchmark of logical slots on a standby: replsync beside what PostgreSQL has since 17, and beside
// pg_failover_slots, on standbys of one primary, in turn, with fsync on.
//
//	make bench BENCH_FLAGS='-help'
package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/bench/report"
)

// Peers.
const (
	core          = "core"
	failoverSlots = "pg_failover_slots"
)

const (
	firstSnapshot = 16 // pg_log_standby_snapshot()
	firstFailover = 17 // core synchronizes slots
)

// options are the flags of this program.
type options struct {
	sizes      []int
	manySlots  int
	idle       time.Duration
	idleRounds int
	passes     int
	passesFor  time.Duration
	pgbench    time.Duration
	svg        string
}

func main() {
	var o options
	p := harness.New("slots")
	p.Rounds = 3
	sizes := p.Flags.String("slots", "10,100,500", "numbers of slots for the part slots")
	p.Flags.IntVar(&o.manySlots, "memory-slots", 1000, "number of slots for the part memory")
	p.Flags.DurationVar(&o.idle, "idle", 65*time.Second, "how long nothing moves before a move of the part latency")
	p.Flags.IntVar(&o.idleRounds, "idle-rounds", 2, "how many moves after such a time")
	p.Flags.IntVar(&o.passes, "passes", 1_000_000, "at most this many passes in the part passes")
	p.Flags.DurationVar(&o.passesFor, "passes-for", 30*time.Second, "how long the part passes may take")
	p.Flags.DurationVar(&o.pgbench, "pgbench", 5*time.Second, "how long pgbench runs each time in the part holdback")
	p.Flags.StringVar(&o.svg, "svg", p.Path("svg"), "draw the part slots into this file")

	var points []point
	p.Part("slots", "passes over many slots: new, unchanged, moved", func(b *harness.B) {
		for _, size := range strings.FieldsFunc(*sizes, func(r rune) bool { return r == ',' || r == ' ' }) {
			n, err := strconv.Atoi(size)
			if err != nil || n < 1 {
				b.Fatalf("-slots: %q is not a number of slots", size)
			}
			o.sizes = append(o.sizes, n)
		}
		slices.Sort(o.sizes)
		points = measurePasses(b, o.sizes)
	})
	p.Part("latency", "from a slot's move to its copy, and what an idle server pays for it",
		func(b *harness.B) { measureLatency(b, o) })
	p.Part("start", "from the standby's start to all copies up to date", measureStart)
	p.Part("memory", "memory of the worker with many slots", func(b *harness.B) { measureMemory(b, o.manySlots) })
	p.Part("passes", "memory of the worker over many passes", func(b *harness.B) { measureMany(b, o) })
	p.Part("backend", "what preloading costs a client backend", measureBackend)
	p.Part("holdback", "what holding walsenders back costs, on 15 and 16", func(b *harness.B) { measureHoldback(b, o) })
	p.Main(func(*report.Report) error {
		if len(points) == 0 {
			return nil
		}
		return draw(o.svg, points)
	})
}
