package sequencesync

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/host/hosttest"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

// generated is a subscriber whose sequences take no memory.
type generated struct {
	*hosttest.Sequences
	n    int
	here int64 // where they stand
}

func (g *generated) LocalSequences(_ context.Context, _ host.OID, after host.SequenceName, limit int) ([]host.LocalSequence, error) {
	first := 0
	if after.Name != "" {
		if _, err := fmt.Sscanf(after.Name, "a_sequence_of_a_table_%d", &first); err != nil {
			return nil, err
		}
		first++
	}
	found := make([]host.LocalSequence, 0, limit)
	for i := first; i < min(first+limit, g.n); i++ {
		found = append(found, host.LocalSequence{
			SequenceName: named(fmt.Sprintf("a_sequence_of_a_table_%07d", i)), OID: host.OID(i + 1),
			Definition: bigint(), Position: at(g.here, true),
		})
	}
	return found, nil
}

func (g *generated) SetSequences(_ context.Context, _ host.OID, sets []host.SequenceSet) ([]host.SequenceSetResult, error) {
	results := make([]host.SequenceSetResult, len(sets))
	for i := range sets {
		results[i] = host.SequenceSetResult{Before: at(g.here, true), After: sets[i].To}
	}
	return results, nil
}

func (g *generated) RecordSequences(context.Context, host.OID, []host.SequenceRecord) error {
	return nil
}

// generator is a publisher of that kind.
type generator struct {
	*other
	stands int64
}

func (g *generator) Values(_ context.Context, names []host.SequenceName) ([]publisher.Value, error) {
	values := make([]publisher.Value, len(names))
	for i := range values {
		values[i] = standing(g.stands)
	}
	return values, nil
}

// BenchmarkCycle shows what the worker itself takes, and what it keeps.
func BenchmarkCycle(b *testing.B) {
	for _, c := range []struct {
		name   string
		stands int64
	}{{"unchanged", 5}, {"changed", 6}} {
		b.Run(c.name, func(b *testing.B) {
			h := &generated{hosttest.NewSequences(), 100000, 5}
			o := &generator{newOther(), c.stands}
			h.Subscribe(host.Subscription{OID: 1, Name: "sub", Enabled: true, Requested: 1})
			w := New(h, func(host.Server, *host.Subscription, *Settings) Publisher { return o })
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			b.ReportAllocs()
			for b.Loop() {
				_, _, err := w.turn(b.Context(), host.Wakeup{Reload: true})
				require.NoError(b, err)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc)/(1<<20), "MiB-alive")
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-kept")
			b.ReportMetric(float64(after.Sys-before.Sys)/(1<<20), "MiB-from-system")
			runtime.KeepAlive(w)
		})
	}
}
