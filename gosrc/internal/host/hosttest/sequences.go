package hosttest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Sequences is a subscriber in memory: a [Fake] with subscriptions and sequences.
type Sequences struct {
	*Fake

	subs     []host.Subscription
	local    map[host.OID][]host.LocalSequence // of each subscription, in order
	requests []host.SequenceRequest
	answers  map[uint64]*Answer
	gone     map[uint64]bool
	records  map[host.SequenceName]host.SequenceRecord
	finished []host.SequenceCycle
	cycles   []error
	written  int // records
	sets     []int
}

// Answer is what a caller was told.
type Answer struct {
	Rows []host.SequenceRow
	Err  error
	Done bool
}

var _ host.Sequences = (*Sequences)(nil)

// NewSequences makes a subscriber without subscriptions.
func NewSequences() *Sequences {
	return &Sequences{
		Fake:    New(),
		local:   map[host.OID][]host.LocalSequence{},
		answers: map[uint64]*Answer{},
		gone:    map[uint64]bool{},
		records: map[host.SequenceName]host.SequenceRecord{},
	}
}

// Subscribe makes a subscription, or replaces it.
func (f *Sequences) Subscribe(sub host.Subscription) {
	f.Lock(func() {
		f.subs = slices.DeleteFunc(f.subs, func(s host.Subscription) bool { return s.OID == sub.OID })
		f.subs = append(f.subs, sub)
	})
}

// Unsubscribe drops a subscription.
func (f *Sequences) Unsubscribe(oid host.OID) {
	f.Lock(func() {
		f.subs = slices.DeleteFunc(f.subs, func(s host.Subscription) bool { return s.OID == oid })
		delete(f.local, oid)
	})
}

// Subscription returns one as it is.
func (f *Sequences) Subscription(oid host.OID) (sub host.Subscription) {
	f.Lock(func() {
		for _, s := range f.subs {
			if s.OID == oid {
				sub = s
			}
		}
	})
	return sub
}

// PutSequences puts sequences under the care of a subscription, or replaces them.
func (f *Sequences) PutSequences(subscription host.OID, sequences ...host.LocalSequence) {
	f.Lock(func() {
		for _, s := range sequences {
			f.local[subscription] = slices.DeleteFunc(f.local[subscription], func(l host.LocalSequence) bool {
				return l.SequenceName == s.SequenceName
			})
			f.local[subscription] = append(f.local[subscription], s)
		}
		slices.SortFunc(f.local[subscription], func(a, b host.LocalSequence) int { return compareNames(a.SequenceName, b.SequenceName) })
	})
}

// Local returns a sequence as it is.
func (f *Sequences) Local(subscription host.OID, name host.SequenceName) (found host.LocalSequence) {
	f.Lock(func() {
		for _, s := range f.local[subscription] {
			if s.SequenceName == name {
				found = s
			}
		}
	})
	return found
}

// Ask puts a request; Wake ends the nap.
func (f *Sequences) Ask(r host.SequenceRequest) {
	f.Lock(func() {
		f.requests = append(f.requests, r)
		f.answers[r.ID] = &Answer{}
	})
}

// Leave lets the caller of a request go.
func (f *Sequences) Leave(request uint64) { f.Lock(func() { f.gone[request] = true }) }

// Answered returns what a caller was told so far.
func (f *Sequences) Answered(request uint64) (a Answer) {
	f.Lock(func() {
		if got := f.answers[request]; got != nil {
			a = *got
		}
	})
	return a
}

// Record returns what is recorded of a sequence.
func (f *Sequences) Record(name host.SequenceName) (r host.SequenceRecord) {
	f.Lock(func() { r = f.records[name] })
	return r
}

// Written returns how many records were written, and forgets it.
func (f *Sequences) Written() (n int) {
	f.Lock(func() { n, f.written = f.written, 0 })
	return n
}

// Sets returns the sizes of the transactions that set sequences, and forgets them.
func (f *Sequences) Sets() (sets []int) {
	f.Lock(func() { sets, f.sets = f.sets, nil })
	return sets
}

// Finished returns the ends of cycles over subscriptions, and forgets them.
func (f *Sequences) Finished() (cycles []host.SequenceCycle) {
	f.Lock(func() { cycles, f.finished = f.finished, nil })
	return cycles
}

// Cycles returns the errors of the cycles over all, and forgets them.
func (f *Sequences) Cycles() (cycles []error) {
	f.Lock(func() { cycles, f.cycles = f.cycles, nil })
	return cycles
}

func compareNames(a, b host.SequenceName) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}

// TakeRequest implements host.Sequences.
func (f *Sequences) TakeRequest(ctx context.Context) (host.SequenceRequest, bool, error) {
	end, err := f.begin(ctx, "TakeRequest", "")
	if err != nil {
		return host.SequenceRequest{}, false, err
	}
	defer end()
	if len(f.requests) == 0 {
		return host.SequenceRequest{}, false, nil
	}
	r := f.requests[0]
	f.requests = f.requests[1:]
	return r, true, nil
}

// Answer implements host.Sequences.
func (f *Sequences) Answer(ctx context.Context, request uint64, rows []host.SequenceRow, last bool, result error) (bool, error) {
	end, err := f.begin(ctx, "Answer", fmt.Sprint(request))
	if err != nil {
		return false, err
	}
	defer end()
	a := f.answers[request]
	if a == nil || a.Done {
		return false, fmt.Errorf("answer to no request %d", request)
	}
	if f.gone[request] {
		return false, nil
	}
	a.Rows = append(a.Rows, rows...)
	a.Err, a.Done = result, last
	return true, nil
}

// Subscriptions implements host.Sequences.
func (f *Sequences) Subscriptions(ctx context.Context) ([]host.Subscription, error) {
	end, err := f.begin(ctx, "Subscriptions", "")
	if err != nil {
		return nil, err
	}
	defer end()
	return slices.Clone(f.subs), nil
}

// KeepMembers implements host.Sequences: sequences that nobody has put are not here.
func (f *Sequences) KeepMembers(ctx context.Context, subscription host.OID, names []host.SequenceName) error {
	end, err := f.begin(ctx, "KeepMembers", "")
	if err != nil {
		return err
	}
	defer end()
	var kept []host.LocalSequence
	for _, name := range names {
		s := host.LocalSequence{SequenceName: name}
		for _, there := range f.local[subscription] {
			if there.SequenceName == name {
				s = there
			}
		}
		kept = append(kept, s)
	}
	slices.SortFunc(kept, func(a, b host.LocalSequence) int { return compareNames(a.SequenceName, b.SequenceName) })
	f.local[subscription] = kept
	for i := range f.subs {
		if f.subs[i].OID == subscription {
			f.subs[i].Unselected = false
		}
	}
	return nil
}

// LocalSequences implements host.Sequences.
func (f *Sequences) LocalSequences(ctx context.Context, subscription host.OID, after host.SequenceName, limit int,
) ([]host.LocalSequence, error) {
	end, err := f.begin(ctx, "LocalSequences", "")
	if err != nil {
		return nil, err
	}
	defer end()
	var found []host.LocalSequence
	for _, s := range f.local[subscription] {
		if len(found) < limit && compareNames(s.SequenceName, after) > 0 {
			found = append(found, s)
		}
	}
	return found, nil
}

// SetSequences implements host.Sequences. Faults ("SetSequences NAME") fail single ones.
func (f *Sequences) SetSequences(ctx context.Context, subscription host.OID, sets []host.SequenceSet) ([]host.SequenceSetResult, error) {
	end, err := f.begin(ctx, "SetSequences", "")
	if err != nil {
		return nil, err
	}
	defer end()
	f.sets = append(f.sets, len(sets))
	results := make([]host.SequenceSetResult, len(sets))
	for i, set := range sets {
		results[i] = f.setOne(subscription, set)
	}
	return results, nil
}

func (f *Sequences) setOne(subscription host.OID, set host.SequenceSet) (r host.SequenceSetResult) {
	for i := range f.local[subscription] {
		s := &f.local[subscription][i]
		if s.OID != set.OID {
			continue
		}
		r.Before, r.After = s.Position, s.Position
		if r.Err = f.Faults["SetSequences "+s.Name]; r.Err != nil {
			return r
		}
		behind := set.To.LastValue < s.Position.LastValue
		if s.Definition.Increment < 0 {
			behind = set.To.LastValue > s.Position.LastValue
		}
		if set.Backwards || !behind {
			s.Position, r.After = set.To, set.To
		}
		return r
	}
	r.Err = host.Errorf("42P01", "sequence with OID %d does not exist", set.OID)
	return r
}

// RecordSequences implements host.Sequences.
func (f *Sequences) RecordSequences(ctx context.Context, subscription host.OID, records []host.SequenceRecord) error {
	end, err := f.begin(ctx, "RecordSequences", "")
	if err != nil {
		return err
	}
	defer end()
	for _, r := range records {
		f.records[r.SequenceName] = r
		for i := range f.local[subscription] {
			if s := &f.local[subscription][i]; s.SequenceName == r.SequenceName {
				s.Problem = r.Problem
			}
		}
	}
	f.written += len(records)
	return nil
}

// FinishSequences implements host.Sequences.
func (f *Sequences) FinishSequences(ctx context.Context, subscription host.OID, cycle host.SequenceCycle) error {
	end, err := f.begin(ctx, "FinishSequences", "")
	if err != nil {
		return err
	}
	defer end()
	f.finished = append(f.finished, cycle)
	for i := range f.subs {
		if f.subs[i].OID != subscription {
			continue
		}
		if cycle.Complete {
			f.subs[i].Done = max(f.subs[i].Done, cycle.Generation)
		}
		if cycle.Write {
			f.subs[i].Watermark, f.subs[i].WatermarkWritten = cycle.Watermark, time.Now()
		}
	}
	return nil
}

// CycleDone implements host.Sequences.
func (f *Sequences) CycleDone(ctx context.Context, _ time.Duration, result error) error {
	end, err := f.begin(ctx, "CycleDone", "")
	if err != nil {
		return err
	}
	defer end()
	f.cycles = append(f.cycles, result)
	return nil
}
