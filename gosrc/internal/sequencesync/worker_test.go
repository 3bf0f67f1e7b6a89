package sequencesync

import (
	"context"
	"fmt"
	"math"
	"slices"
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
	h.Subscribe(host.Subscription{OID: 1, Name: "sub", Enabled: true, Requested: 1})
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

	// Nothing changed: nothing is written, and the pause grows.
	timeout, _ = r.turn()
	require.Equal(t, 2*defaultNaptimeMin, timeout.Round(time.Second))
	require.Zero(t, r.h.Written())
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
	r.o.put("d", standing(8))
	r.turn()
	require.Equal(t, 1, r.h.Written())
	require.Empty(t, r.h.Local(1, named("d")).Problem)
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

func TestConnectionIsKept(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(5))
	now := time.Now()
	r.now = func() time.Time { return now }
	r.turn()
	r.state(&host.Subscription{OID: 1}).due = now.Add(time.Hour)
	pass := func(d time.Duration) time.Duration {
		now = now.Add(d)
		timeout, _, err := r.Worker.turn(t.Context(), host.Wakeup{})
		require.NoError(t, err)
		return timeout
	}
	require.Equal(t, time.Second, pass(keepOpen-time.Second))
	require.Equal(t, []int{1, 0}, []int{r.o.opened, r.o.closed})
	r.ask(host.SequenceDrift)
	pass(time.Second)
	require.Equal(t, []int{1, 0}, []int{r.o.opened, r.o.closed}, "it was used")
	pass(keepOpen)
	require.Equal(t, []int{1, 1}, []int{r.o.opened, r.o.closed})
	pass(keepOpen)
	r.ask(host.SequenceDrift)
	require.Equal(t, []int{1, 1}, []int{r.o.opened, r.o.closed}, "it can be used again")
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

func TestIdle(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.now = func() time.Time { return now }
	r.wanted = now
	r.turn()
	r.h.Unsubscribe(1)
	timeout, _ := r.turn()
	require.Equal(t, idleExit, timeout)
	now = now.Add(idleExit)
	_, _, err := r.Worker.turn(t.Context(), host.Wakeup{})
	require.ErrorIs(t, err, ErrIdle)
	require.Empty(t, r.states)
}

func TestRun(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.o.put("a", standing(10))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	require.Eventually(t, func() bool { return r.h.Subscription(1).Done == 1 }, 10*time.Second, time.Millisecond)
	r.h.Ask(host.SequenceRequest{ID: 3, Kind: host.SyncSequences, Subscription: r.h.Subscription(1)})
	r.h.Wake(host.Wakeup{Sync: true})
	require.Eventually(t, func() bool { return r.h.Answered(3).Done }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
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
	}
	require.Equal(t, map[string]string{
		"a": "failed no_right_here", "b": "failed locked", "c": "failed out_of_range", "d": "skipped dropped_meanwhile",
		"e": "failed error", "f": "set ",
	}, reasons)
}

func TestCheckPublisher(t *testing.T) {
	r := newRig(t)
	r.local("a", 5)
	r.local("b", 7)
	r.local("c", 7)
	r.o.put("a", standing(10))
	r.o.put("b", standing(7))
	checks := func() map[string]string {
		found := map[string]string{}
		for _, row := range r.ask(host.CheckPublisher).Rows {
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
		"publisher_sequence public.c": "false",
	}
	require.Equal(t, want, checks())
	require.Equal(t, at(5, true), r.h.Local(1, named("a")).Position)
	r.turn()
	want["publisher_identity sub"], want["publisher_sequences sub"] = "true", "true"
	delete(want, "publisher_sequence public.c") // which is recorded now
	require.Equal(t, want, checks())
	r.o.mark.Timeline++
	want["publisher_identity sub"] = "false"
	require.Equal(t, want, checks())
	r.o.fail(host.Errorf("08006", "gone"))
	require.Equal(t, map[string]string{"publisher sub": "unknown"}, checks())
}

func TestRulesOfADump(t *testing.T) {
	r := newRig(t)
	r.h.Subscribe(host.Subscription{OID: 1, Name: "sub", Enabled: true, Requested: 1, Unselected: true})
	r.local("a", 1)
	r.local("b", 1)
	r.o.put("a", standing(5))
	r.o.put("b", standing(5))
	r.o.selected = []host.SequenceName{named("a")}
	r.turn()
	require.Equal(t, at(5, true), r.h.Local(1, named("a")).Position)
	require.EqualValues(t, 0, r.h.Local(1, named("b")).OID, "not under care")
	require.EqualValues(t, 1, r.h.Subscription(1).Done)
}
