// The demo shows two things with this machine's PostgreSQL.
//
// A failover: a primary, a standby with replsync, and a consumer of a logical
// slot. The primary is killed, the standby is promoted, and the consumer goes on
// there with nothing lost.
//
// An upgrade: a server is replaced by one that subscribes to it, while
// applications write. The new one's sequences stand where the old one's did.
//
// It runs as root, which `make demo` sees to, keeps to 127.0.0.1, and leaves
// nothing behind.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/replsync/replsync/regress/cluster"
)

var (
	major    = flag.Int("major", 15, "major version of PostgreSQL")
	to       = flag.Int("to", 0, "major version to upgrade to, the same by default")
	verbose  = flag.Bool("verbose", false, "print the servers' logs")
	deadline = flag.Duration("deadline", cluster.DefaultDeadline, "how long to wait for replsync")
)

func main() {
	flag.Parse()
	if *to == 0 {
		*to = *major
	}
	d := &demo{}
	done := make(chan struct{})
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		defer close(done)
		defer d.cleanUp()
		failover(d)
		d.cleanUp()
		upgrade(d)
	}()
	select {
	case <-done:
	case <-interrupted:
		// The servers end with this process, and the next one removes what they leave.
		fmt.Println("\ninterrupted")
		os.Exit(1)
	}
	if d.failed {
		os.Exit(1)
	}
}

// A demo is the cluster.T of a program that is not a test.
type demo struct {
	steps    int
	failed   bool
	cleanups []func()
}

func (d *demo) step(format string, args ...any) {
	d.steps++
	fmt.Printf("\n%d. %s\n\n", d.steps, fmt.Sprintf(format, args...))
}

func (d *demo) say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// query shows a query and its result as psql would.
func (d *demo) query(s *cluster.Server, sql string) {
	sql = strings.Join(strings.Fields(sql), " ")
	cmd := s.Command("psql", "-X", "-c", sql)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.Fatalf("psql: %v\n%s", err, out)
	}
	fmt.Printf("   %s=# %s;\n", s.Name, sql)
	for line := range strings.Lines(strings.TrimRight(string(out), "\n")) {
		fmt.Printf("   %s", line)
	}
	fmt.Print("\n\n")
}

func (d *demo) cleanUp() {
	for _, f := range slices.Backward(d.cleanups) {
		f()
	}
	d.cleanups = nil
}

func (d *demo) Helper()          {}
func (d *demo) Name() string     { return "demo" }
func (d *demo) Cleanup(f func()) { d.cleanups = append(d.cleanups, f) }
func (d *demo) Failed() bool     { return d.failed }

func (d *demo) Logf(format string, args ...any) {
	// The servers' logs are the only thing that is logged.
	if d.failed || *verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

func (d *demo) Errorf(format string, args ...any) {
	d.failed = true
	fmt.Fprintf(os.Stderr, "\nfailed: "+format+"\n", args...)
}

func (d *demo) Fatalf(format string, args ...any) {
	d.Errorf(format, args...)
	runtime.Goexit()
}
