// Package harness runs the parts of a benchmark program and gathers their rows in a report.
package harness

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/replsync/replsync/regress/bench/report"
	"github.com/replsync/replsync/regress/cluster"
)

// A Program is a benchmark with its flags, which the caller adds to before Main.
type Program struct {
	Flags *flag.FlagSet
	// Rounds is how often each thing is measured.
	Rounds int

	name     string
	versions string
	parts    string
	json     string
	verbose  bool
	all      []part
}

type part struct {
	name, about string
	run         func(b *B)
}

// New makes a program. name is also that of the files it writes.
func New(name string) *Program {
	p := &Program{Flags: flag.NewFlagSet(name, flag.ExitOnError), name: name}
	p.Flags.StringVar(&p.versions, "versions", os.Getenv("PGVERSIONS"), "major versions of PostgreSQL")
	p.Flags.StringVar(&p.parts, "parts", "", "run only these parts, as in a,b")
	p.Flags.IntVar(&p.Rounds, "rounds", 5, "how often each thing is measured")
	p.Flags.StringVar(&p.json, "json", p.Path("json"), "write the report to this file as JSON")
	p.Flags.BoolVar(&p.verbose, "verbose", false, "print the servers' logs of a part that fails")
	return p
}

// Path is where the program writes a file unless a flag says otherwise.
func (p *Program) Path(extension string) string {
	dir := os.Getenv("REPLSYNC_CACHE")
	if dir == "" {
		dir = "/var/cache/replsync"
	}
	return filepath.Join(dir, "bench-"+p.name+"."+extension)
}

// Part adds a part, which can be chosen with -parts. Parts run in the order in which they were added.
func (p *Program) Part(name, about string, run func(b *B)) {
	p.all = append(p.all, part{name, about, run})
}

// Main runs the parts, prints the report and ends the process. A part that fails is reported, the others run all the
// same, and the exit status is 1. A target that is not reached is no failure. It runs as root: make bench sees to that.
func (p *Program) Main(finally ...func(*report.Report) error) {
	p.Flags.Usage = func() {
		fmt.Fprintf(p.Flags.Output(), "%s [flags]\n\nparts:\n", p.name)
		for _, part := range p.all {
			fmt.Fprintf(p.Flags.Output(), "  %-12s %s\n", part.name, part.about)
		}
		fmt.Fprintf(p.Flags.Output(), "\nflags:\n")
		p.Flags.PrintDefaults()
	}
	_ = p.Flags.Parse(os.Args[1:])
	if err := p.check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Setenv("PGVERSIONS", p.versions)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-interrupted
		// The servers end with this process, and the next one removes what they leave.
		fmt.Fprintln(os.Stderr, "interrupted")
		os.Exit(1)
	}()

	r := report.New(p.name, dataDir())
	failed := false
	for _, part := range p.all {
		if p.chosen(part.name) && !p.run(r, part) {
			failed = true
		}
	}
	fmt.Println()
	r.Print(os.Stdout)
	errs := []error{r.WriteJSON(p.json)}
	for _, f := range finally {
		errs = append(errs, f(r))
	}
	for _, err := range errs {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed = true
		}
	}
	fmt.Printf("\nThe same as JSON, with every measurement: %s\n", p.json)
	if failed {
		os.Exit(1)
	}
}

func (p *Program) check() error {
	if p.Flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", p.Flags.Arg(0))
	}
	if p.Rounds < 1 {
		return fmt.Errorf("-rounds must be positive")
	}
	for _, name := range p.chosenParts() {
		if !slices.ContainsFunc(p.all, func(part part) bool { return part.name == name }) {
			return fmt.Errorf("there is no part %q: see -help", name)
		}
	}
	return nil
}

func (p *Program) chosenParts() []string {
	return strings.FieldsFunc(p.parts, func(r rune) bool { return r == ',' || r == ' ' })
}

func (p *Program) chosen(name string) bool {
	parts := p.chosenParts()
	return len(parts) == 0 || slices.Contains(parts, name)
}

func dataDir() string {
	if dir := os.Getenv("REPLSYNC_TMP"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

// run runs a part in a goroutine of its own, which Fatalf ends, and tells whether it went well.
func (p *Program) run(r *report.Report, part part) bool {
	began := time.Now()
	b := &B{Report: r, Rounds: p.Rounds, part: part.name, verbose: p.verbose}
	b.Progress("%s", part.about)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.protect(func() { part.run(b) })
		// The servers of the part, last one first.
		for _, f := range slices.Backward(b.cleanups) {
			b.protect(f)
		}
	}()
	<-done
	if b.failed {
		r.Note("part %s failed: %s", part.name, b.reason)
	}
	b.Progress("%v", time.Since(began).Round(time.Second))
	return !b.failed
}

// B is the cluster.T of a part, and its report.
type B struct {
	*report.Report
	// Rounds is how often each thing is measured.
	Rounds int

	part     string
	verbose  bool
	failed   bool
	reason   string
	cleanups []func()
}

var _ cluster.T = (*B)(nil)

// protect runs f, and survives its Fatalf and its panic.
func (b *B) protect(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				b.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		f()
	}()
	<-done
}

// Versions are the major versions to measure.
func (b *B) Versions() []int { return cluster.Versions(b) }

// Progress says on standard error what is being done.
func (b *B) Progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format(time.TimeOnly), b.part, fmt.Sprintf(format, args...))
}

// Alternate calls each function once, in another order in every other round: what the machine does in between
// meets none of them more than the others.
func Alternate(round int, functions ...func()) {
	if round%2 == 1 {
		functions = slices.Clone(functions)
		slices.Reverse(functions)
	}
	for _, f := range functions {
		f()
	}
}

func (b *B) Helper()          {}
func (b *B) Name() string     { return b.part }
func (b *B) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }
func (b *B) Failed() bool     { return b.failed }

// Logf prints the servers' logs, for which a benchmark that fails needs -verbose.
func (b *B) Logf(format string, args ...any) {
	if b.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

// Errorf says why the part has failed.
func (b *B) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !b.failed {
		b.reason = text
	}
	b.failed = true
	b.Progress("FAILED: %s", text)
}

// Fatalf says why the part has failed, and ends it.
func (b *B) Fatalf(format string, args ...any) {
	b.Errorf(format, args...)
	runtime.Goexit()
}
