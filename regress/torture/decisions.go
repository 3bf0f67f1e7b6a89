package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// decisions are what a round will do. All of them follow from the seed and the number of the round.
type decisions struct {
	before       string // a trouble before the failover
	fault        string
	gently       bool          // frozen: thawed once its successor is there; cut off: by closed connections
	wait         time.Duration // until the fault
	linger       time.Duration // how long a primary that was cut off goes on, before and after the promotion
	lapse        bool          // the primary keeps no rows for the standby meanwhile
	lapseEnds    bool          // before the fault
	late         bool          // a slot is made just before the fault
	lateAfter    time.Duration // from when it is there until the fault
	lateSlot     streamConfig
	rebuild      string
	restartpoint bool          // one on the new standby before its copies are made
	settle       time.Duration // after the rebuild
}

func pick[V any](rng *rand.Rand, from ...V) V { return from[rng.IntN(len(from))] }

func decide(n int) decisions {
	rng := rand.New(rand.NewPCG(*seed, uint64(n)))
	d := decisions{
		before: pick(rng, "", "", "standby killed", "standby restarted", "worker killed", "standby frozen",
			"primary killed", "primary restarted"),
		fault:        pick(rng, "killed", "killed", "stopped at once", "frozen", "cut off", "cut off", "switchover"),
		gently:       rng.IntN(2) == 0,
		wait:         between(rng, 100*time.Millisecond, 2500*time.Millisecond),
		linger:       between(rng, 50*time.Millisecond, 700*time.Millisecond),
		late:         rng.IntN(2) == 0,
		lateAfter:    between(rng, time.Millisecond, 700*time.Millisecond),
		rebuild:      []string{"pg_rewind", "pg_basebackup"}[n%2],
		restartpoint: rng.IntN(2) == 0,
		settle:       between(rng, 100*time.Millisecond, time.Second),
	}
	d.lateSlot = streamConfig{slot: fmt.Sprintf("%s%d", latePrefix, n), database: pick(rng, databases...), plugin: pick(rng, "pgoutput", "test_decoding")}
	if d.fault == "switchover" {
		d.rebuild = "nothing"
	}
	d.lapse, d.lapseEnds = rng.IntN(5) == 0, rng.IntN(2) == 0
	return d
}

func (d decisions) String() string {
	var parts []string
	if d.before != "" {
		parts = append(parts, d.before)
	}
	parts = append(parts, fmt.Sprintf("after %v primary %s", d.wait.Round(time.Millisecond), d.fault))
	if d.lapse {
		parts = append(parts, "feedback lapsed")
	}
	if d.late {
		parts = append(parts, fmt.Sprintf("slot made %v before", d.lateAfter.Round(time.Millisecond)))
	}
	parts = append(parts, "rebuilt with "+d.rebuild)
	if d.restartpoint {
		parts = append(parts, "a restartpoint")
	}
	return strings.Join(parts, ", ")
}
