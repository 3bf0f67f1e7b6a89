package sequencesync

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

func TestCycle(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.local("b", 50)
	r.local("c", 7)
	r.local("d", 7)
	r.o.put("a", standing(10))
	r.o.put("b", standing(10))
	r.o.put("c", standing(7))
	timeout, state := r.turn()
	require.Equal(t, defaultNaptimeMin, timeout.Round(time.Second))
	require.Equal(t, host.Napping, state)
	require.Equal(t, at(10, true), r.h.Local(1, named("a")).Position)
	require.Equal(t, at(50, true), r.h.Local(1, named("b")).Position)
	require.Equal(t, []int{1}, r.h.Sets(), "what differs and no more")
	require.Equal(t, 4, r.h.Written())
	require.Equal(t, "missing_on_publisher", r.h.Record(named("d")).Problem)
	require.Empty(t, r.h.Record(named("b")).Problem, "ahead is no failure")
	require.Equal(t, []host.SequenceCycle{{Complete: true, Generation: 1, Watermark: r.o.mark.Watermark, Write: true}}, r.h.Finished())
	require.EqualValues(t, 1, r.h.Subscription(1).Done)
	logs := r.h.Logs()
	require.Len(t, logs, 1)
	require.Contains(t, logs[0].Detail, `"public.d": missing_on_publisher`)

	// Nothing changed: nothing is written but that a problem is still there, and the pause grows.
	timeout, _ = r.turn()
	require.Equal(t, 2*defaultNaptimeMin, timeout.Round(time.Second))
	require.Equal(t, 1, r.h.Written())
	require.Equal(t, "missing_on_publisher", r.h.Record(named("d")).Problem)
	require.Empty(t, r.h.Sets())
	require.False(t, r.h.Finished()[0].Write)
	require.Empty(t, r.h.Logs())

	// A watermark that only moved is written at long last.
	r.o.put("a", standing(10))
	r.turn()
	require.False(t, r.h.Finished()[0].Write)
	now := time.Now()
	r.now = func() time.Time { return now.Add(markInterval) }
	r.turn()
	require.True(t, r.h.Finished()[0].Write)

	// A problem that ends is recorded.
	r.h.Written()
	r.o.put("d", standing(8))
	r.turn()
	require.Equal(t, 1, r.h.Written())
	require.Empty(t, r.h.Local(1, named("d")).Problem)
	r.turn()
	require.Zero(t, r.h.Written())
}

func TestManyPortions(t *testing.T) {
	r := newRig(t)
	var many []host.LocalSequence
	for i := range 2*perPortion + 1 {
		name := fmt.Sprintf("s%05d", i)
		many = append(many, host.LocalSequence{SequenceName: named(name), OID: host.OID(10000 + i), Definition: bigint(), Position: at(1, false)})
		r.o.put(name, standing(int64(i+1)))
	}
	r.h.PutSequences(1, many...)
	r.turn()
	require.Equal(t, append(slices.Repeat([]int{perSet}, 2*perPortion/perSet), 1), r.h.Sets())
	require.EqualValues(t, 1, r.h.Subscription(1).Done)
	for i := range 2*perPortion + 1 {
		require.Equal(t, at(int64(i+1), true), r.h.Local(1, named(fmt.Sprintf("s%05d", i))).Position)
	}

	// The publisher goes in the midst of it: what was reached is set, and the cycle proves nothing.
	r.o.put("s00000", standing(10))
	r.o.before = func(names []host.SequenceName) {
		if names[0] != named("s00000") {
			r.o.fail(host.Errorf("08006", "gone"))
		}
	}
	r.h.Finished()
	r.turn()
	require.Equal(t, at(10, true), r.h.Local(1, named("s00000")).Position)
	end := r.h.Finished()[0]
	require.False(t, end.Complete || end.Write)
	require.ErrorContains(t, end.Err, "gone")
}

func TestErrors(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.h.Subscribe(host.Subscription{OID: 2, Name: "broken", Enabled: true, ConninfoErr: host.Errorf("42704", "no server")})
	r.o.put("a", standing(10))
	_, state := r.turn()
	require.Equal(t, host.Blocked, state)
	require.Equal(t, at(10, true), r.h.Local(1, named("a")).Position, "one does not stop another")
	require.ErrorContains(t, r.h.Cycles()[0], "no server")
	require.Len(t, r.h.Logs(), 1)
	r.turn()
	require.Empty(t, r.h.Logs(), "said once")
	r.h.Unsubscribe(2)

	r.o.fail(host.Errorf("08006", "gone"))
	r.h.Finished()
	r.turn()
	end := r.h.Finished()[0]
	require.False(t, end.Complete || end.Write)
	require.ErrorContains(t, end.Err, "gone")
	first := r.states[1].nap
	r.turn()
	require.Equal(t, 2*first, r.states[1].nap)
	r.o.fail(nil)
	r.h.Logs()
	r.turn()
	require.Contains(t, r.h.Logs()[0].Text, "synchronized again")
}

func TestGenerations(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	// A request that comes while a cycle is under way is not completed by it.
	r.o.before = func([]host.SequenceName) {
		r.o.before = nil
		sub := r.h.Subscription(1)
		sub.Requested = 2
		r.h.Subscribe(sub)
	}
	r.turn()
	require.EqualValues(t, 1, r.h.Subscription(1).Done)
	_, _, err := r.Worker.turn(t.Context(), host.Wakeup{Sync: true})
	require.NoError(t, err)
	require.EqualValues(t, 2, r.h.Subscription(1).Done, "at once, not when it is due")

	// The selection may have been made anew, without what was recorded of it.
	r.turn()
	r.h.Written()
	r.turn()
	require.Zero(t, r.h.Written())
	sub := r.h.Subscription(1)
	sub.Requested++
	r.h.Subscribe(sub)
	r.turn()
	require.Equal(t, 1, r.h.Written())
}

func TestDisabled(t *testing.T) {
	r := newRig(t)
	cycling := func(v int64) publisher.Value {
		value := standing(v)
		value.Definition.Cycle = true
		return value
	}
	r.local("a", 5)
	r.o.put("a", standing(10))
	definition := bigint()
	definition.Cycle = true
	r.h.PutSequences(1, host.LocalSequence{SequenceName: named("round"), OID: 77, Definition: definition, Position: at(5, true)})
	r.o.put("round", cycling(10))
	sub := r.h.Subscription(1)
	sub.Enabled = false
	r.h.Subscribe(sub)
	r.turn()
	require.Equal(t, at(10, true), r.h.Local(1, named("a")).Position)
	require.Equal(t, at(10, true), r.h.Local(1, named("round")).Position, "asked for")

	// What cannot go backwards follows; the other may be in use here while the publisher is left behind.
	r.o.put("a", standing(11))
	r.o.put("round", cycling(11))
	r.turn()
	require.Equal(t, at(11, true), r.h.Local(1, named("a")).Position)
	require.Equal(t, at(10, true), r.h.Local(1, named("round")).Position)
	answer := r.ask(host.SyncSequences)
	require.NoError(t, answer.Err)
	require.EqualValues(t, 11, answer.Rows[1].After)
}

// TestOvertakenCycle has a request that sets a cycling sequence while a cycle holds an older value of it.
func TestOvertakenCycle(t *testing.T) {
	r := newRig(t)
	cycling := bigint()
	cycling.Cycle = true
	for i := range perPortion {
		name := fmt.Sprintf("a%d", i)
		r.h.PutSequences(1, host.LocalSequence{SequenceName: named(name), OID: host.OID(i + 1), Definition: bigint(), Position: at(5, true)})
		r.o.put(name, standing(5))
	}
	r.h.PutSequences(1, host.LocalSequence{SequenceName: named("z"), OID: 9999, Definition: cycling, Position: at(5, true)})
	r.o.put("z", publisher.Value{Definition: cycling, Position: at(10, true)})
	read := make(chan struct{})
	r.o.after = func(names []host.SequenceName) {
		if names[0] == named("z") {
			r.o.after = nil
			close(read)
		}
	}
	asked := false
	r.h.Before = func(call string) {
		if call != "Progress" || asked {
			return
		}
		asked = true
		<-read
		r.o.put("z", publisher.Value{Definition: cycling, Position: at(20, true)})
		r.h.Ask(host.SequenceRequest{ID: 3, Kind: host.SyncSequences, Subscription: r.h.Subscription(1)})
	}
	r.turn()
	require.True(t, r.h.Answered(3).Done)
	require.Equal(t, at(20, true), r.h.Local(1, named("z")).Position)
	r.o.put("z", publisher.Value{Definition: cycling, Position: at(2, true)})
	r.turn()
	require.Equal(t, at(2, true), r.h.Local(1, named("z")).Position, "the next cycle sets it again")
}

func TestWatermarkWritten(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	r.turn()
	r.h.Finished()
	sub := r.h.Subscription(1)
	sub.WatermarkWritten = time.Now()
	r.h.Subscribe(sub)
	r.o.mark.LSN++
	r.turn()
	require.False(t, r.h.Finished()[0].Write, "it has only moved")
	r.o.put("a", standing(11))
	r.turn()
	require.True(t, r.h.Finished()[0].Write, "a value has")
	r.o.put("b", standing(1))
	r.h.PutSequences(1, host.LocalSequence{SequenceName: named("b")})
	sub = r.h.Subscription(1)
	sub.WatermarkWritten = time.Now()
	r.h.Subscribe(sub)
	r.turn()
	require.True(t, r.h.Finished()[0].Write, "a problem has come")
}

func TestWatermarkStays(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	first := r.o.mark.Watermark
	r.o.before = func([]host.SequenceName) {
		r.o.before = nil
		r.o.put("a", standing(11))
		r.h.Ask(host.SequenceRequest{ID: 3, Kind: host.SyncSequences, Subscription: r.h.Subscription(1)})
	}
	r.turn()
	require.True(t, r.h.Answered(3).Done)
	ends := r.h.Finished()
	require.Len(t, ends, 2)
	require.Equal(t, r.o.mark.Watermark, ends[0].Watermark)
	require.Equal(t, r.o.mark.Watermark, ends[1].Watermark, "not that of when the outer one began")

	// Another history has its own.
	r.o.mark.Timeline++
	r.o.mark.LSN = first.LSN
	r.turn()
	require.Equal(t, r.o.mark.Watermark, r.h.Finished()[0].Watermark)
}

func TestSetFails(t *testing.T) {
	r := newRig(t)
	for name, code := range map[string]string{"a": "42501", "b": "55P03", "c": "22003", "d": "42P01", "e": "XX000", "f": ""} {
		r.local(name, 1)
		r.o.put(name, standing(10))
		if code != "" {
			r.h.Faults["SetSequences "+name] = host.Errorf(code, "refused")
		}
	}
	reasons := map[string]string{}
	for _, row := range r.ask(host.SyncSequences).Rows {
		reasons[row.Name] = row.Action + " " + row.Reason
		if row.Action == "failed" {
			require.EqualValues(t, []int64{1, 1}, []int64{row.Before, row.After}, "it stays where it is")
		}
	}
	require.Equal(t, map[string]string{
		"a": "failed no_right_here", "b": "failed locked", "c": "failed out_of_range", "d": "skipped dropped_meanwhile",
		"e": "failed error", "f": "set ",
	}, reasons)
}

// TestCycleBegins has other sequences under care than the last cycle, which tells what is asked for before the list is there.
func TestCycleBegins(t *testing.T) {
	r := newRig(t)
	var asked []string
	r.o.before = func(names []host.SequenceName) {
		for _, n := range names {
			asked = append(asked, n.Name)
		}
	}
	for _, name := range []string{"b", "c"} {
		r.local(name, 1)
		r.o.put(name, standing(10))
	}
	r.turn()
	require.Equal(t, []string{"b", "c"}, asked)
	asked = nil
	r.o.put("c", standing(11))
	r.turn()
	require.Equal(t, []string{"b", "c"}, asked, "once")
	require.Equal(t, at(11, true), r.h.Local(1, named("c")).Position)

	r.local("a", 1)
	for i, name := range []string{"a", "b", "c"} {
		r.o.put(name, standing(int64(20+i)))
	}
	r.turn()
	for i, name := range []string{"a", "b", "c"} {
		require.Equal(t, at(int64(20+i), true), r.h.Local(1, named(name)).Position, name)
	}
	asked = nil
	r.turn()
	require.Equal(t, []string{"a", "b", "c"}, asked, "once again")
}
