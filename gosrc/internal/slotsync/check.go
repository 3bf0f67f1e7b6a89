package slotsync

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/replsync/replsync/gosrc/internal/failover"
	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// record is what passes leave to checks, which do not wait for them.
type record struct {
	mu      sync.Mutex
	passes  failover.Passes
	sight   sight         // that what is shown goes by
	flushed host.LSN      // as last seen
	between string        // see memory
	turned  chan struct{} // closed when the worker has first looked around
	once    sync.Once
}

func newRecord() *record { return &record{turned: make(chan struct{})} }

// begin notes that a pass begins.
func (r *record) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.passes.Trying.IsZero() {
		r.passes.Trying = time.Now()
	}
}

// received notes how much WAL is here.
func (r *record) received(flushed host.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if flushed > r.flushed {
		r.flushed = flushed
		r.passes.LastWAL = time.Now()
	}
}

// ended notes how a pass that had begun at some time ended, and the slot that stands for this server's on the primary.
func (r *record) ended(began time.Time, between string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.between = between
	p := &r.passes
	p.Refused, p.Failed = nil, nil
	if err == nil {
		p.Last, p.Trying = began, time.Time{}
		return
	}
	switch m := host.Describe(err); {
	case givenUp(err):
	case isRefusal(err):
		p.Refused, p.Trying = &m, time.Time{}
	case isAway(m.SQLState):
		p.Failed = &m
	default:
		p.Failed, p.Trying = &m, time.Time{}
	}
}

// show notes what is shown of the slots, and what tells whether they have become unsafe since; the worker has looked around then.
func (r *record) show(rows []host.SlotStatus, seen sight) {
	r.mu.Lock()
	r.passes.Rows, r.sight = rows, seen
	r.mu.Unlock()
	r.once.Do(func() { close(r.turned) })
}

// slot is the physical slot on the primary that matters.
func (r *record) slot(s *Settings) (name string, cascaded bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cmp.Or(r.between, s.PrimarySlotName), r.between != ""
}

func (r *record) read() (failover.Passes, sight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passes, r.sight
}

// isAway tells whether an error says that the primary cannot be reached: connections fail (class 08), or the server is
// going down or coming up (57P01 to 57P03).
func isAway(code string) bool {
	return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P0")
}

// Attend answers the calls of failover_check() until ctx is done or the host fails.
func (w *Worker) Attend(ctx context.Context) error {
	for {
		if err := w.host.AwaitCheck(ctx); err != nil {
			return err
		}
		var rows []host.CheckRow
		closeLater := func() {}
		err := safego.Do(func() (err error) {
			rows, closeLater, err = w.check(ctx)
			return err
		})
		if err != nil {
			failed := false
			rows = []host.CheckRow{{
				Name: "worker", OK: &failed, Detail: "The check failed: " + host.Describe(err).Text + ".",
				Hint: "See the server log.",
			}}
		}
		if err := w.host.CheckDone(ctx, rows); err != nil {
			return err
		}
		closeLater()
	}
}

// check collects the facts. What it asks the primary ends within replsync.connect_timeout, with some of it left for the
// answer to arrive.
func (w *Worker) check(ctx context.Context) ([]host.CheckRow, func(), error) {
	nothing := func() {}
	s, err := readSettings(ctx, w.host)
	if err != nil {
		return nil, nothing, err
	}
	limit := s.ConnectTimeout - s.ConnectTimeout/10
	bounded, cancel := context.WithTimeoutCause(ctx, limit, host.Errorf("08006", "the primary did not answer within %s", limit))
	defer cancel()
	f := failover.Facts{}
	closeLater := w.inspect(bounded, s, &f)
	select {
	case <-w.record.turned:
	case <-bounded.Done():
	}
	if err := w.lookHere(ctx, s, &f); err != nil {
		return nil, closeLater, err
	}
	passes, seen := w.record.read()
	f.Now, f.Passes = time.Now(), passes
	f.Lapsed = seen.wasOff(f.Here.Recovery) ||
		f.There != nil && seen.start != "" && seen.differs(f.There.State, s.PrimarySlotName)
	return failover.Check(f), closeLater, nil
}

// inspect asks the primary, over a connection of its own: that of the passes may be in use.
func (w *Worker) inspect(ctx context.Context, s *Settings, f *failover.Facts) (closeLater func()) {
	r, err := w.host.Recovery(ctx)
	if err != nil || refuseConninfo(s) != nil {
		return func() {}
	}
	primary, err := w.open(ctx, w.host, s)
	if err != nil {
		f.ThereErr = described(err)
		return func() {}
	}
	slot, _ := w.record.slot(s)
	found, err := primary.Inspect(ctx, slot)
	if err != nil {
		f.ThereErr = described(err)
		return primary.Close
	}
	refused := refuseThere(s, r, found.State)
	if refused != nil && refused.elsewhere {
		f.ThereErr, f.Elsewhere = described(refused), true
		return primary.Close
	}
	f.There, f.NoAccess = found, described(primary.ErrNoAccess())
	return primary.Close
}

func described(err error) *host.Message {
	m := host.Describe(err)
	return &m
}

// lookHere reads what is known of this server, after the primary was asked: what that named has had time to arrive.
func (w *Worker) lookHere(ctx context.Context, s *Settings, f *failover.Facts) error {
	r, err := w.host.Recovery(ctx)
	if err != nil {
		return err
	}
	slots, err := w.host.Slots(ctx)
	if err != nil {
		return err
	}
	major := majorOf(r.ServerVersionNum)
	more, err := w.host.Settings(ctx, "max_replication_slots", "max_slot_wal_keep_size", "idle_replication_slot_timeout",
		"output_plugin_libraries", primary.HoldBackParameter(major))
	if err != nil {
		return err
	}
	limit, _ := strconv.Atoi(more[0])
	slot, cascaded := w.record.slot(s)
	f.Here = failover.Here{
		Recovery: r, Slots: slots, IsCopy: isCopy,
		SyncSlots: s.SyncSlots, CoreSync: s.CoreSync, HotStandbyFeedback: s.HotStandbyFeedback, StatusInterval: s.StatusInterval,
		NaptimeMax: s.NaptimeMax, PrimarySlotName: slot, Cascaded: cascaded, WALLevel: s.WALLevel,
		MaxReplicationSlots: limit, MaxSlotWALKeepSize: more[1], IdleTimeout: more[2], OutputPlugins: more[3], HoldBack: more[4],
	}
	if f.There == nil {
		return nil
	}
	patterns, err := ParsePatterns(s.Slots, major)
	if err != nil {
		return err
	}
	f.Kept = map[string]bool{}
	for _, slot := range f.There.Slots {
		if patterns.Wanted(slot.Name, slot.Failover) {
			f.Kept[slot.Name] = true
		}
	}
	return nil
}
