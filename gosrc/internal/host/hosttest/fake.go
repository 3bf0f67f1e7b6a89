// Package hosttest has a [host.Host] without a server.
package hosttest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
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
	Limit     int             // of slots, 0: none
	Databases map[uint32]bool // nil: all are here
	OldestWAL host.LSN        // what is before is not here

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

// Put makes slots, or replaces them.
func (f *Fake) Put(slots ...host.Slot) {
	f.Lock(func() {
		for _, s := range slots {
			f.slots[s.Name] = s
		}
	})
}

// Remove drops a slot behind the core's back.
func (f *Fake) Remove(name string) { f.Lock(func() { delete(f.slots, name) }) }

// Slot returns a slot as it is.
func (f *Fake) Slot(name string) (s host.Slot, ok bool) {
	f.Lock(func() { s, ok = f.slots[name] })
	return s, ok
}

// Reserved returns the position of the reservation.
func (f *Fake) Reserved() (lsn host.LSN) {
	f.Lock(func() { lsn = f.reserved })
	return lsn
}

// ReservedXmin is the catalog_xmin of the reservation, 0 without one.
func (f *Fake) ReservedXmin() (xmin host.XID) {
	f.Lock(func() { xmin = f.xmin })
	return xmin
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

// Slots implements host.Host.
func (f *Fake) Slots(ctx context.Context) ([]host.Slot, error) {
	end, err := f.begin(ctx, "Slots", "")
	if err != nil {
		return nil, err
	}
	defer end()
	slots := slices.Collect(maps.Values(f.slots))
	slices.SortFunc(slots, func(a, b host.Slot) int { return cmp.Compare(a.Name, b.Name) })
	return slots, nil
}

// ReserveWAL implements host.Host.
func (f *Fake) ReserveWAL(ctx context.Context, lsn host.LSN, catalogXmin host.XID) error {
	end, err := f.begin(ctx, "ReserveWAL", lsn.String())
	if err != nil {
		return err
	}
	defer end()
	f.reserved, f.xmin = lsn, catalogXmin
	return nil
}

// each does something for each of several slots.
func each[T any](ctx context.Context, of []T, do func(context.Context, T) error) []error {
	errs := make([]error, len(of))
	for i, one := range of {
		errs[i] = do(ctx, one)
	}
	return errs
}

// CreateSlots implements host.Host.
func (f *Fake) CreateSlots(ctx context.Context, slots []host.Slot) []error {
	return each(ctx, slots, f.CreateSlot)
}

// SaveSlots implements host.Host.
func (f *Fake) SaveSlots(ctx context.Context, slots []host.Slot) []error {
	return each(ctx, slots, f.SaveSlot)
}

// DropSlots implements host.Host.
func (f *Fake) DropSlots(ctx context.Context, names []string) []error {
	return each(ctx, names, f.DropSlot)
}

// CreateSlot is CreateSlots for one.
func (f *Fake) CreateSlot(ctx context.Context, s host.Slot) error {
	end, err := f.begin(ctx, "CreateSlot", s.Name)
	if err != nil {
		return err
	}
	defer end()
	_, taken := f.slots[s.Name]
	switch {
	case !f.State.InRecovery || f.State.PromoteTriggered:
		return host.Errorf("55000", "no standby")
	case f.Databases != nil && !f.Databases[s.Database]:
		return host.Errorf("3D000", "database with OID %d does not exist", s.Database)
	case taken:
		return host.Errorf("42710", "replication slot \"%s\" already exists", s.Name)
	case f.Limit > 0 && len(f.slots) >= f.Limit:
		return host.Errorf("53400", "all replication slots are in use")
	case f.reserved == 0 || f.reserved > s.RestartLSN:
		return fmt.Errorf("slot at %s without a reservation", s.RestartLSN)
	case s.RestartLSN < f.OldestWAL:
		return host.Errorf("58P01", "WAL that replication slot \"%s\" requires is not available", s.Name)
	case f.State.NextXID.Precedes(s.CatalogXmin):
		return fmt.Errorf("catalog_xmin %d is ahead of replay", s.CatalogXmin)
	}
	s.Logical, s.Marked = true, true
	f.slots[s.Name] = s
	return nil
}

// UpdateSlot implements host.Host.
func (f *Fake) UpdateSlot(ctx context.Context, s host.Slot) error {
	end, err := f.begin(ctx, "UpdateSlot", s.Name)
	if err != nil {
		return err
	}
	defer end()
	old, ok := f.slots[s.Name]
	switch {
	case !ok:
		return host.Errorf("42704", "replication slot \"%s\" does not exist", s.Name)
	case !old.Marked && !(old.Synced && f.State.InRecovery):
		return host.Errorf("55000", "replication slot \"%s\" is not a copy", s.Name)
	case !f.State.InRecovery:
		old.Marker = s.Marker
		f.slots[s.Name] = old
		return nil
	case old.ActivePID != 0:
		return host.Errorf("55006", "replication slot \"%s\" is active", s.Name)
	case old.Invalidated, old.Database != s.Database:
		return host.Errorf("55000", "cannot update replication slot \"%s\"", s.Name)
	case f.State.NextXID.Precedes(s.CatalogXmin):
		return fmt.Errorf("catalog_xmin %d is ahead of replay", s.CatalogXmin)
	case s.RestartLSN < old.RestartLSN || s.ConfirmedFlushLSN < old.ConfirmedFlushLSN || s.CatalogXmin.Precedes(old.CatalogXmin):
		return fmt.Errorf("replication slot \"%s\" would go back", s.Name)
	}
	s.Logical, s.Marked = true, true
	before := old
	before.ConfirmedFlushLSN = s.ConfirmedFlushLSN
	if s.Unsaved || s != before {
		s.Unsaved = false
		delete(f.disk, s.Name)
	}
	f.slots[s.Name] = s
	return nil
}

// MoveSlots implements host.Host.
func (f *Fake) MoveSlots(ctx context.Context, slots []host.Slot) ([]host.Move, error) {
	moves := make([]host.Move, len(slots))
	for i, s := range slots {
		end, err := f.begin(ctx, "MoveSlots", s.Name)
		if err != nil {
			return nil, err
		}
		moves[i] = f.moveSlot(s)
		end()
	}
	return moves, nil
}

func (f *Fake) moveSlot(s host.Slot) host.Move {
	old, ok := f.slots[s.Name]
	moved := old
	moved.RestartLSN, moved.ConfirmedFlushLSN, moved.CatalogXmin = s.RestartLSN, s.ConfirmedFlushLSN, s.CatalogXmin
	moved.Unsaved = s.Unsaved
	move, planned := f.Moves[s.Name]
	switch {
	case !ok || !old.Marked || old.ActivePID != 0 || old.Invalidated || moved != s || !f.State.InRecovery,
		s.RestartLSN < old.RestartLSN || s.ConfirmedFlushLSN < old.ConfirmedFlushLSN || s.CatalogXmin.Precedes(old.CatalogXmin),
		planned && move == host.MoveRefused:
		return host.MoveRefused
	case move == host.MoveConfirmed:
		old.ConfirmedFlushLSN = s.ConfirmedFlushLSN
		f.slots[s.Name] = old
		return host.MoveConfirmed
	}
	if _, ahead := f.disk[s.Name]; !ahead {
		f.disk[s.Name] = old
	}
	moved.Unsaved = old.Unsaved || old.RestartLSN != s.RestartLSN || old.CatalogXmin != s.CatalogXmin
	f.slots[s.Name] = moved
	return host.MoveAll
}

// SaveSlot is SaveSlots for one.
func (f *Fake) SaveSlot(ctx context.Context, s host.Slot) error {
	end, err := f.begin(ctx, "SaveSlot", s.Name)
	if err != nil {
		return err
	}
	defer end()
	old, ok := f.slots[s.Name]
	if !ok || !old.Marked || old.Marker != s.Marker || !f.State.InRecovery {
		return host.Errorf("42704", "replication slot \"%s\" is not the copy that it was", s.Name)
	}
	old.RestartLSN, old.CatalogXmin = max(old.RestartLSN, s.RestartLSN), s.CatalogXmin
	held, ahead := f.disk[s.Name]
	delete(f.disk, s.Name)
	if old.Unsaved = !s.Unsaved && ahead; old.Unsaved {
		disk := old
		disk.CatalogXmin = held.CatalogXmin
		f.disk[s.Name] = disk
	}
	f.slots[s.Name] = old
	return nil
}

// Disk returns the slots as they are on disk; what they hold back is what is there.
func (f *Fake) Disk() (slots []host.Slot) {
	f.Lock(func() {
		disk := maps.Clone(f.slots)
		maps.Copy(disk, f.disk)
		slots = slices.Collect(maps.Values(disk))
	})
	return slots
}

// Crash brings back what is on disk.
func (f *Fake) Crash() {
	f.Lock(func() {
		maps.Copy(f.slots, f.disk)
		clear(f.disk)
	})
}

// DropSlot is DropSlots for one.
func (f *Fake) DropSlot(ctx context.Context, name string) error {
	end, err := f.begin(ctx, "DropSlot", name)
	if err != nil {
		return err
	}
	defer end()
	s, ok := f.slots[name]
	leftover := s.Logical && !s.Temporary && (s.Failover && !s.Synced || f.State.ServerVersionNum < 160000)
	switch {
	case !f.State.InRecovery || f.State.PromoteTriggered:
		return host.Errorf("55000", "no standby")
	case !ok:
		return host.Errorf("42704", "replication slot \"%s\" does not exist", name)
	case s.ActivePID != 0:
		return host.Errorf("55006", "replication slot \"%s\" is active", name)
	case !s.Marked && !s.Synced && !leftover:
		return host.Errorf("55000", "replication slot \"%s\" is not a copy", name)
	}
	delete(f.slots, name)
	delete(f.disk, name)
	return nil
}

// DropPromoted implements host.Host.
func (f *Fake) DropPromoted(ctx context.Context, name string) error {
	end, err := f.begin(ctx, "DropPromoted", name)
	if err != nil {
		return err
	}
	defer end()
	if s, ok := f.slots[name]; !ok || !s.Marked {
		return host.Errorf("55000", "replication slot \"%s\" is not a copy", name)
	}
	delete(f.slots, name)
	return nil
}

// WALAvailable implements host.Host.
func (f *Fake) WALAvailable(ctx context.Context, lsn host.LSN) (bool, error) {
	end, err := f.begin(ctx, "WALAvailable", lsn.String())
	if err != nil {
		return false, err
	}
	defer end()
	return lsn >= f.OldestWAL, nil
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
