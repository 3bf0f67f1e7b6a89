package sequencesync

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/host/hosttest"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

// other is a publisher in memory.
type other struct {
	mu       sync.Mutex
	mark     publisher.Mark
	values   map[host.SequenceName]publisher.Value
	err      error
	before   func(names []host.SequenceName) // is called before values are read
	after    func(names []host.SequenceName) // is called when they are read
	hang     func(ctx context.Context) error // is called in the place of the next Mark
	opened   int
	closed   int
	slots    map[string]host.LSN // what each has confirmed
	selected []host.SequenceName
}

func newOther() *other {
	o := &other{values: map[host.SequenceName]publisher.Value{}}
	o.mark.Watermark = host.Watermark{LSN: 100, SystemIdentifier: 7, Timeline: 1}
	return o
}

func (o *other) open(host.Server, *host.Subscription, *Settings) Publisher {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened++
	return o
}

func (o *other) Mark(ctx context.Context) (publisher.Mark, error) {
	if o.hang != nil {
		return publisher.Mark{}, o.hang(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mark, o.err
}

func (o *other) Values(_ context.Context, names []host.SequenceName) ([]publisher.Value, error) {
	if o.before != nil {
		o.before(names)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	values := make([]publisher.Value, len(names))
	for i, n := range names {
		v, ok := o.values[n]
		if !ok {
			v.Problem = publisher.Missing
		}
		values[i] = v
	}
	if o.after != nil {
		o.after(names)
	}
	return values, o.err
}

func (o *other) Select(_ context.Context, _ []string, _ host.SequenceSelection, yield func([]host.SequenceName) error) error {
	if o.err != nil {
		return o.err
	}
	return yield(o.selected)
}

func (o *other) Confirmed(_ context.Context, slot string) (host.LSN, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.slots[slot], o.err
}

func (o *other) User() string { return "repl" }

func (o *other) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed++
}

func (o *other) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

func (o *other) put(name string, v publisher.Value) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.values[named(name)] = v
	o.mark.LSN++
}

func named(name string) host.SequenceName { return host.SequenceName{Schema: "public", Name: name} }

func at(v int64, called bool) host.SequencePosition {
	return host.SequencePosition{LastValue: v, IsCalled: called}
}

func bigint() host.SequenceDefinition {
	return host.SequenceDefinition{Type: 20, Start: 1, Increment: 1, Min: 1, Max: math.MaxInt64}
}

func standing(v int64) publisher.Value {
	return publisher.Value{Definition: bigint(), Position: at(v, true)}
}

// rig is a worker with both of its sides.
type rig struct {
	*Worker
	h *hosttest.Sequences
	o *other
	t *testing.T
}

func newRig(t *testing.T) *rig {
	h, o := hosttest.NewSequences(), newOther()
	h.Subscribe(host.Subscription{OID: 1, Name: "sub", Enabled: true, Slot: "slot", Requested: 1})
	return &rig{New(h, o.open), h, o, t}
}

// local puts a sequence on this side.
func (r *rig) local(name string, v int64) {
	r.t.Helper()
	r.h.PutSequences(1, host.LocalSequence{
		SequenceName: named(name), OID: host.OID(1000 + len(name)*100 + int(name[len(name)-1])),
		Definition: bigint(), Position: at(v, true),
	})
}

// turn is one turn in which all subscriptions are due.
func (r *rig) turn() (time.Duration, host.State) {
	r.t.Helper()
	timeout, state, err := r.Worker.turn(r.t.Context(), host.Wakeup{Reload: true})
	require.NoError(r.t, err)
	return timeout, state
}

func (r *rig) ask(kind host.SequenceRequestKind, change ...func(*host.SequenceRequest)) hosttest.Answer {
	r.t.Helper()
	request := host.SequenceRequest{ID: 9, Kind: kind, Subscription: r.h.Subscription(1)}
	for _, f := range change {
		f(&request)
	}
	r.h.Ask(request)
	_, err := r.serve(r.t.Context())
	require.NoError(r.t, err)
	a := r.h.Answered(request.ID)
	require.True(r.t, a.Done)
	return a
}
