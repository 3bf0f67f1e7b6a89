// The torture runs one failover after the other under load and compares what was committed with what each consumer of a
// logical slot received.
//
// A primary and a standby carry two databases with slots of pgoutput and test_decoding; a built-in subscription and
// consumers of the replication protocol read them. In each round something goes wrong at a random moment, the standby is
// promoted, the consumers go on there, the other node is rebuilt, and the next round has the roles exchanged.
//
// It runs as root, as the cluster tests do, and exits with a status other than zero when a round was not as it should be.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

var (
	major   = flag.Int("major", 17, "major version of PostgreSQL")
	rounds  = flag.Int("rounds", 3, "how many failovers")
	seed    = flag.Uint64("seed", 0, "what all decisions follow from; 0 takes a new one")
	keep    = flag.Bool("keep", false, "keep the servers' directories and logs")
	without = flag.Bool("without-failover", false, "only write and read, to tell apart what comes from the server itself")
	verbose = flag.Bool("verbose", false, "say what is done")
)

func main() {
	flag.Parse()
	if *keep {
		os.Setenv("REPLSYNC_KEEP", "1")
	}
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	top := &scope{failed: &atomic.Bool{}}
	done := make(chan struct{})
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		defer close(done)
		defer top.end()
		torture(top)
	}()
	select {
	case <-done:
	case <-interrupted:
		// The servers end with this process, and the next one removes what they leave.
		fmt.Println("interrupted")
		os.Exit(1)
	}
	if top.Failed() {
		os.Exit(1)
	}
}

func torture(top *scope) {
	start := time.Now()
	r := newRun(top)
	fmt.Printf("PostgreSQL %s, %d rounds, seed %d, hold-back %s\n", r.pair.primary.Install().Version(), *rounds, *seed, r.pair.holdBackName())
	var sum result
	n := 0
	defer func() {
		verdict := "as it should be"
		if top.Failed() {
			verdict = "FAILED"
			r.showLogs()
		}
		fmt.Printf("%s: PostgreSQL %d, seed %d, %d rounds, %d consumers, %v\n  %v in %v\n", verdict, *major, *seed, n,
			len(r.streams)+1, r.load.kindCounts(), sum, time.Since(start).Round(time.Second))
	}()
	for n < *rounds {
		res := r.round(n + 1)
		n++
		sum.add(res)
		fmt.Printf("round %d: %s\n  %v\n", n, res.story, res)
		if res.bad() {
			r.explain()
			top.Errorf("round %d with seed %d", n, *seed)
			return
		}
	}
}

// A scope is the cluster.T of a program that is not a test, and of a part of it that ends earlier.
type scope struct {
	failed   *atomic.Bool
	mu       sync.Mutex
	cleanups []func()
}

// inner returns a scope that ends with s at the latest.
func (s *scope) inner() *scope {
	in := &scope{failed: s.failed}
	s.Cleanup(in.end)
	return in
}

func (s *scope) end() {
	s.mu.Lock()
	cleanups := s.cleanups
	s.cleanups = nil
	s.mu.Unlock()
	for _, f := range slices.Backward(cleanups) {
		f()
	}
}

func (s *scope) Helper()      {}
func (s *scope) Name() string { return "torture" }
func (s *scope) Failed() bool { return s.failed.Load() }

func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *scope) Logf(format string, args ...any) {
	// The whole logs would bury what is shown of them.
	if *keep && !s.Failed() || strings.Contains(format, "is kept") {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

func (s *scope) Errorf(format string, args ...any) {
	s.failed.Store(true)
	fmt.Fprintf(os.Stderr, "failed: "+format+"\n", args...)
}

func (s *scope) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}

// say tells what is being done.
func say(format string, args ...any) {
	if *verbose {
		fmt.Printf("%s  "+format+"\n", append([]any{time.Now().Format("15:04:05.000")}, args...)...)
	}
}

var _ cluster.T = (*scope)(nil)
