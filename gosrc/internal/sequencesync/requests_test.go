package sequencesync

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

func TestRequests(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.local("b", 50)
	r.h.PutSequences(1, host.LocalSequence{SequenceName: named("c")})
	r.h.PutSequences(1, host.LocalSequence{SequenceName: named("d"), OID: 4, NotOurs: "synchronized_by_core", Definition: bigint()})
	for _, name := range []string{"a", "b", "c", "d"} {
		r.o.put(name, standing(10))
	}
	summary := func(rows []host.SequenceRow) (found []string) {
		for _, row := range rows {
			found = append(found, fmt.Sprintf("%s %d>%d %s %s", row.Name, row.Before, row.After, row.Action, row.Reason))
		}
		return found
	}
	want := []string{"a 5>10 set ", "b 50>50 kept ahead_of_publisher", "c 0>0 failed missing_here", "d 0>0 skipped synchronized_by_core"}
	answer := r.ask(host.SequenceDrift)
	require.NoError(t, answer.Err)
	require.Equal(t, want, summary(answer.Rows))
	require.Contains(t, answer.Rows[2].Hint, `CREATE SEQUENCE "public"."c" AS bigint INCREMENT BY 1`)
	require.False(t, answer.Rows[2].LocalKnown)
	require.Equal(t, at(5, true), r.h.Local(1, named("a")).Position)
	require.Zero(t, r.h.Written())
	require.Empty(t, r.h.Finished())

	require.Equal(t, want, summary(r.ask(host.SyncSequences).Rows))
	require.EqualValues(t, 1, r.h.Subscription(1).Done)
	require.Empty(t, r.h.Record(named("d")).Problem)
	answer = r.ask(host.SyncSequences, func(q *host.SequenceRequest) { q.AllowBackwards = true })
	require.Equal(t, "b 50>10 set ", summary(answer.Rows)[1])

	r.o.selected = []host.SequenceName{named("x"), named("y")}
	require.Equal(t, []string{"x 0>0  ", "y 0>0  "}, summary(r.ask(host.SelectSequences).Rows))
	r.o.fail(host.Errorf("08006", "gone"))
	require.ErrorContains(t, r.ask(host.SyncSequences).Err, "gone")
	require.ErrorContains(t, r.ask(99).Err, "unknown request")

	// The connection of the subscription serves requests too, while no cycle uses it.
	r.o.fail(nil)
	r.turn()
	opened, closed := r.o.opened, r.o.closed
	r.ask(host.SyncSequences)
	require.Equal(t, []int{opened, closed}, []int{r.o.opened, r.o.closed})
	require.Equal(t, opened, closed+1)
}

func TestRequestDuringACycle(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	r.o.before = func([]host.SequenceName) {
		r.o.before = nil
		r.h.Ask(host.SequenceRequest{ID: 3, Kind: host.SelectSequences, Subscription: r.h.Subscription(1)})
	}
	before := false
	r.h.Before = func(call string) {
		if call == "FinishSequences" {
			before = r.h.Answered(3).Done
		}
	}
	r.turn()
	require.True(t, before, "not only after the cycle")
}

func TestCallerLeaves(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	r.h.Ask(host.SequenceRequest{ID: 3, Kind: host.SyncSequences, Subscription: r.h.Subscription(1)})
	r.h.Leave(3)
	_, err := r.serve(t.Context())
	require.NoError(t, err)
	require.False(t, r.h.Answered(3).Done)
	require.Equal(t, []string{"Answer 3"}, slices.Compact(r.h.Calls()), "who has gone is told no more")
}

func TestCallerLeavesADeadPublisher(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	reached := make(chan struct{})
	r.o.hang = func(ctx context.Context) error {
		close(reached)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	r.h.Ask(host.SequenceRequest{ID: 1, Kind: host.SyncSequences, Subscription: r.h.Subscription(1)})
	r.h.Ask(host.SequenceRequest{ID: 2, Kind: host.SyncSequences, Subscription: r.h.Subscription(1)})
	served := make(chan error, 1)
	go func() {
		_, err := r.serve(t.Context())
		served <- err
	}()
	<-reached
	r.o.hang = nil
	r.h.Leave(1)
	require.NoError(t, <-served)
	require.False(t, r.h.Answered(1).Done)
	require.True(t, r.h.Answered(2).Done, "others have their turn")
	require.NoError(t, r.h.Answered(2).Err)
	require.Equal(t, at(10, true), r.h.Local(1, named("a")).Position)
}

func TestCheckPublisher(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.local("b", 7)
	r.local("c", 7)
	r.o.put("a", standing(10))
	r.o.put("b", standing(7))
	r.o.slots = map[string]host.LSN{"slot": 90, "another": 500}
	checks := func() map[string]string {
		found := map[string]string{}
		for _, row := range r.ask(host.CheckPublisher).Rows {
			if row.LSN != 0 {
				require.Nil(t, row.OK)
				found[row.Check+" "+row.Object] = row.LSN.String()
				continue
			}
			ok := "unknown"
			if row.OK != nil {
				ok = fmt.Sprint(*row.OK)
			}
			found[row.Check+" "+row.Object] = ok
		}
		return found
	}
	want := map[string]string{
		"publisher sub": "true", "publisher_identity sub": "unknown", "publisher_sequences sub": "false",
		"publisher_sequence public.c": "false", "publisher_confirmed slot": "unknown",
	}
	require.Equal(t, want, checks())
	require.Equal(t, at(5, true), r.h.Local(1, named("a")).Position)
	r.turn()
	want["publisher_identity sub"], want["publisher_sequences sub"] = "true", "true"
	want["publisher_confirmed slot"] = host.LSN(90).String()
	delete(want, "publisher_sequence public.c") // which is recorded now
	require.Equal(t, want, checks())

	// Of those that core synchronizes it can be seen whether they lag.
	byCore := host.LocalSequence{
		SequenceName: named("core"), OID: 5, NotOurs: "synchronized_by_core", Definition: bigint(), Position: at(10, false),
	}
	r.h.PutSequences(1, byCore)
	r.o.put("core", standing(10))
	want["publisher_sequences sub"], want["publisher_sequence public.core"] = "false", "false"
	require.Equal(t, want, checks())
	byCore.Position = at(11, true)
	r.h.PutSequences(1, byCore)
	want["publisher_sequences sub"] = "true"
	delete(want, "publisher_sequence public.core")
	require.Equal(t, want, checks())
	byCore.Definition.Cycle = true
	r.h.PutSequences(1, byCore)
	require.Equal(t, want, checks(), "it differs in definition, so that there is nothing to compare")

	r.o.mark.Timeline++
	want["publisher_identity sub"], want["publisher_confirmed slot"] = "false", "unknown" // it is the slot of another server
	require.Equal(t, want, checks())
	r.o.fail(host.Errorf("08006", "gone"))
	require.Equal(t, map[string]string{"publisher sub": "unknown"}, checks())
}
