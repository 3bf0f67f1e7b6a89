// Package hosttest has a [host.Host] without a server.
package hosttest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Fake is a server in memory. Its exported fields may be set before it is used, and under Lock afterwards. It keeps slots
// as the shim does: what the shim refuses it refuses.
type Fake struct {
	mu sync.Mutex

	Values    map[string]string // settings
	Env       map[string]string
	State     host.Recovery
	Limit     int               // of slots, 0: none
	Databases map[uint32]bool   // nil: all are here
	OldestWAL host.LSN          // what is before is not here
	Starts    map[host.LSN]bool // where the primary was started

	// Faults fail requests, by name of the method ("Recovery") or of the method and the slot ("CreateSlot orders").
	Faults map[string]error
	// Moves is what becomes of slots that are to move, by name; MoveAll where there is nothing.
	Moves map[string]host.Move
	// Before is called at each request, without the lock, with the same names.
	Before func(call string)

	slots    map[string]host.Slot
	reserved host.LSN
	xmin     host.XID             // of the reservation
	disk     map[string]host.Slot // what a crash brings back of slots that are ahead of it
	wake     chan host.Wakeup
	check    chan struct{}
	checks   chan []host.CheckRow
	news     chan struct{}

	calls   []string
	logs    []Line
	passes  []host.Pass
	naps    []Rest
	results []Result
	phases  []string
}

// Line is a log line.
type Line struct {
	Level host.Level
	host.Message
}

// Rest is a nap.
type Rest struct {
	Timeout time.Duration
	State   host.State
}

// Result is the answer to a command.
type Result struct {
	Value int64
	Err   error
}

var _ host.Host = (*Fake)(nil)

// New makes a standby without slots.
func New() *Fake {
	return &Fake{
		Values: map[string]string{},
		Faults: map[string]error{},
		Moves:  map[string]host.Move{},
		slots:  map[string]host.Slot{},
		disk:   map[string]host.Slot{},
		wake:   make(chan host.Wakeup),
		check:  make(chan struct{}),
		checks: make(chan []host.CheckRow),
		news:   make(chan struct{}, 1),
	}
}

// Lock runs f while no request does.
func (f *Fake) Lock(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// Wake ends a nap; it waits for one.
func (f *Fake) Wake(w host.Wakeup) { f.wake <- w }

// Calls returns the requests that change something or look at one slot, and forgets them.
func (f *Fake) Calls() (calls []string) {
	f.Lock(func() { calls, f.calls = f.calls, nil })
	return calls
}

// Logs returns the log and forgets it.
func (f *Fake) Logs() (logs []Line) {
	f.Lock(func() { logs, f.logs = f.logs, nil })
	return logs
}

// Passes returns the passes and forgets them.
func (f *Fake) Passes() (passes []host.Pass) {
	f.Lock(func() { passes, f.passes = f.passes, nil })
	return passes
}

// Naps returns the naps and forgets them.
func (f *Fake) Naps() (naps []Rest) {
	f.Lock(func() { naps, f.naps = f.naps, nil })
	return naps
}

// Results returns the answers to commands and forgets them.
func (f *Fake) Results() (results []Result) {
	f.Lock(func() { results, f.results = f.results, nil })
	return results
}

// Phases returns what was shown of the progress, as "phase done/total", and forgets it.
func (f *Fake) Phases() (phases []string) {
	f.Lock(func() { phases, f.phases = f.phases, nil })
	return phases
}

// begin is how every request but Nap begins. Only those with a subject are recorded.
func (f *Fake) begin(ctx context.Context, method, subject string) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	call := method
	if subject != "" {
		call += " " + subject
	}
	if f.Before != nil {
		f.Before(call)
	}
	f.mu.Lock()
	if subject != "" {
		f.calls = append(f.calls, call)
	}
	if err := cmp.Or(f.Faults[call], f.Faults[method]); err != nil {
		f.mu.Unlock()
		return nil, err
	}
	return f.mu.Unlock, nil
}

// Log implements host.Host.
func (f *Fake) Log(ctx context.Context, level host.Level, msg host.Message) error {
	end, err := f.begin(ctx, "Log", "")
	if err != nil {
		return err
	}
	defer end()
	f.logs = append(f.logs, Line{level, msg})
	return nil
}

// Nap implements host.Host: it ends with its time or with Wake.
func (f *Fake) Nap(ctx context.Context, timeout time.Duration, show host.State) (host.Wakeup, error) {
	f.Lock(func() { f.naps = append(f.naps, Rest{timeout, show}) })
	var over <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
		return host.Wakeup{}, context.Cause(ctx)
	case w := <-f.wake:
		return w, nil
	case <-f.news:
		return host.Wakeup{News: true}, nil
	case <-over:
		return host.Wakeup{Timeout: true}, nil
	}
}

// EndNap implements host.Host.
func (f *Fake) EndNap(ctx context.Context) error {
	select {
	case f.news <- struct{}{}:
	default:
	}
	return ctx.Err()
}

// Settings implements host.Host.
func (f *Fake) Settings(ctx context.Context, names ...string) ([]string, error) {
	end, err := f.begin(ctx, "Settings", "")
	if err != nil {
		return nil, err
	}
	defer end()
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = f.Values[name]
	}
	return values, nil
}

// Environment implements host.Host.
func (f *Fake) Environment(ctx context.Context) (map[string]string, error) {
	end, err := f.begin(ctx, "Environment", "")
	if err != nil {
		return nil, err
	}
	defer end()
	return maps.Clone(f.Env), nil
}

// Recovery implements host.Host.
func (f *Fake) Recovery(ctx context.Context) (host.Recovery, error) {
	end, err := f.begin(ctx, "Recovery", "")
	if err != nil {
		return host.Recovery{}, err
	}
	defer end()
	return f.State, nil
}

// RequestFeedback implements host.Host.
func (f *Fake) RequestFeedback(ctx context.Context) error {
	end, err := f.begin(ctx, "RequestFeedback", "now")
	if err != nil {
		return err
	}
	defer end()
	return nil
}

// Progress implements host.Host.
func (f *Fake) Progress(ctx context.Context, phase string, done, total int) error {
	end, err := f.begin(ctx, "Progress", "")
	if err != nil {
		return err
	}
	defer end()
	f.phases = append(f.phases, fmt.Sprintf("%s %d/%d", phase, done, total))
	return nil
}

// PassDone implements host.Host.
func (f *Fake) PassDone(ctx context.Context, pass host.Pass) error {
	end, err := f.begin(ctx, "PassDone", "")
	if err != nil {
		return err
	}
	defer end()
	f.passes = append(f.passes, pass)
	return nil
}

// CommandDone implements host.Host.
func (f *Fake) CommandDone(ctx context.Context, value int64, result error) error {
	end, err := f.begin(ctx, "CommandDone", "")
	if err != nil {
		return err
	}
	defer end()
	f.results = append(f.results, Result{value, result})
	return nil
}

// Check calls failover_check().
func (f *Fake) Check() []host.CheckRow {
	f.check <- struct{}{}
	return <-f.checks
}

// AwaitCheck implements host.Host.
func (f *Fake) AwaitCheck(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-f.check:
		return nil
	}
}

// CheckDone implements host.Host.
func (f *Fake) CheckDone(ctx context.Context, rows []host.CheckRow) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case f.checks <- rows:
		return nil
	}
}

// Query implements host.Host: there is no database.
func (f *Fake) Query(ctx context.Context, _ string) (host.Rows, error) {
	end, err := f.begin(ctx, "Query", "")
	if err != nil {
		return nil, err
	}
	defer end()
	return nil, host.Errorf("0A000", "no queries here")
}
