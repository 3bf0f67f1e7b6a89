package sequencesync

import (
	"context"
	"errors"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

const (
	// idleExit is how long a worker without work waits for some before it ends.
	idleExit = 10 * time.Second
	// costFactor bounds the share of the time that cycles in which nothing moves take: one in this many.
	costFactor = 10
	// keepOpen is how long a connection is kept that is not used: longer than pauses are by default, as a new session has to
	// look everything up.
	keepOpen = time.Minute
	// markInterval is how often the table has a watermark that has only moved.
	markInterval = 30 * time.Second
	// firstBackOff is the pause after the first error.
	firstBackOff = time.Second
)

// ErrIdle is what a worker ends with that has nothing to do.
var ErrIdle = errors.New("no subscription of the database has sequences to synchronize")

// Worker keeps the sequences of a database.
type Worker struct {
	host host.Sequences
	open Open
	now  func() time.Time

	states map[host.OID]*state
	wanted time.Time // when there was something to do
}

// state is what is known of a subscription.
type state struct {
	access    access
	publisher Publisher
	selected  bool      // it has had a selection
	busy      bool      // it is being read
	used      time.Time // when it last was; zero: it is not connected
	memory    *memory

	nap       time.Duration
	due       time.Time
	requested int64               // generation of the last cycle
	members   int                 // of the last cycle
	first     []host.SequenceName // the names of its first portion
	mark      host.Watermark
	complaint string // what the log says is wrong
}

// New makes a worker.
func New(h host.Sequences, open Open) *Worker {
	return &Worker{host: h, open: open, now: time.Now, states: map[host.OID]*state{}}
}

// Run works until ctx is done, the host fails, or there was nothing to do for a while (ErrIdle). It can be called
// again.
func (w *Worker) Run(ctx context.Context) error {
	defer w.disconnect()
	w.wanted = w.now()
	timeout, show := time.Duration(0), host.Starting
	for {
		wake, err := w.host.Nap(ctx, timeout, show)
		if err != nil {
			return err
		}
		if timeout, show, err = w.turn(ctx, wake); err != nil {
			return err
		}
	}
}

// turn answers requests, does the cycles that are due, and returns the next nap.
func (w *Worker) turn(ctx context.Context, wake host.Wakeup) (time.Duration, host.State, error) {
	if _, err := w.serve(ctx); err != nil {
		return 0, 0, err
	}
	s, err := readSettings(ctx, w.host)
	if err != nil {
		return 0, 0, err
	}
	subs, err := w.host.Subscriptions(ctx)
	if err != nil {
		return 0, 0, err
	}
	w.keepOnly(subs)
	w.hangUp()
	if len(subs) == 0 || !s.SyncSequences {
		return w.idle(s)
	}
	w.wanted = w.now()
	failed, err := w.cycles(ctx, s, subs, wake.Reload)
	if err != nil {
		return 0, 0, err
	}
	timeout := s.NaptimeMax
	for i := range subs {
		st := w.state(&subs[i])
		timeout = min(timeout, st.due.Sub(w.now()))
		if !st.used.IsZero() {
			timeout = min(timeout, st.used.Add(keepOpen).Sub(w.now()))
		}
	}
	show := host.Napping
	if failed {
		show = host.Blocked
	}
	return max(timeout, 0), show, nil
}

// idle waits for a request, and ends the worker without one.
func (w *Worker) idle(s *Settings) (time.Duration, host.State, error) {
	left := w.wanted.Add(idleExit).Sub(w.now())
	if left <= 0 {
		return 0, 0, ErrIdle
	}
	if !s.SyncSequences {
		return left, host.Off, nil
	}
	return left, host.Napping, nil
}

// cycles goes over the subscriptions that are due, and tells whether one failed.
func (w *Worker) cycles(ctx context.Context, s *Settings, subs []host.Subscription, all bool) (failed bool, err error) {
	began := w.now()
	var last error
	done := 0
	for i := range subs {
		sub := &subs[i]
		st := w.state(sub)
		asked := sub.Done < sub.Requested && sub.Requested != st.requested
		if !all && !asked && w.now().Before(st.due) {
			failed = failed || st.complaint != ""
			continue
		}
		cycleErr := w.cycle(ctx, s, sub, st)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if cycleErr != nil {
			failed, last = true, cycleErr
		}
		done++
		if _, err := w.serve(ctx); err != nil {
			return false, err
		}
	}
	if done == 0 {
		return failed, nil
	}
	return failed, w.host.CycleDone(ctx, w.now().Sub(began), last)
}

// cycle goes over a subscription and sets its next one.
func (w *Worker) cycle(ctx context.Context, s *Settings, sub *host.Subscription, st *state) error {
	p, done := w.connect(sub, s, st)
	began := w.now()
	st.requested, st.selected = sub.Requested, true
	c := w.newCycle(sub, p, st.memory, nil)
	c.expected = st.members
	c.rules.disabled = !sub.Enabled && sub.Done >= sub.Requested
	c.between = func() error {
		served, err := w.serve(ctx)
		c.rules.overtaken = c.rules.overtaken || served
		return err
	}
	err := safego.Do(func() error { return c.run(ctx) })
	done()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = errors.Join(err, w.finish(ctx, c, err))
	w.rest(ctx)
	w.report(ctx, sub, st, c, err)
	st.pause(s, err, c.set > 0, w.now().Sub(began))
	st.due = w.now().Add(st.nap)
	return err
}

// connect returns the connection of a subscription for the time until done is called.
func (w *Worker) connect(sub *host.Subscription, s *Settings, st *state) (p Publisher, done func()) {
	if a := accessOf(sub, s); st.publisher == nil || st.access != a {
		st.close()
		st.publisher, st.access = w.open(w.host, sub, s), a
	}
	st.busy = true
	return st.publisher, func() { st.busy, st.used = false, w.now() }
}

// hangUp closes the connections that are not used any more. What is known of the publisher is kept.
func (w *Worker) hangUp() {
	for _, st := range w.states {
		if !st.used.IsZero() && w.now().Sub(st.used) >= keepOpen {
			st.publisher.Close()
			st.used = time.Time{}
		}
	}
}

// pause finds the time until the next cycle: short while values move, longer while they do not or there is an error, and
// never so short that the cycles themselves become the load.
func (st *state) pause(s *Settings, err error, moved bool, took time.Duration) {
	switch {
	case err != nil:
		st.nap = max(st.nap*2, min(firstBackOff, s.NaptimeMax))
	case moved:
		st.nap = s.NaptimeMin
	default:
		st.nap *= 2
	}
	st.nap = min(max(st.nap, s.NaptimeMin, took*costFactor), s.NaptimeMax)
}

func (w *Worker) newCycle(sub *host.Subscription, p Publisher, m *memory, found func([]finding) error) *cycle {
	return &cycle{
		host: w.host, publisher: p, sub: sub, memory: m, found: found, first: w.state(sub).first,
		rules: rules{subscription: sub.Name, margin: sub.Margin},
	}
}

// finish ends a cycle: it was complete, or err says why it was not.
func (w *Worker) finish(ctx context.Context, c *cycle, err error) error {
	mark := c.mark.Watermark
	if st := w.state(c.sub); err == nil {
		// A request in the midst of this cycle may have come further.
		mark = later(mark, st.mark)
		st.mark = mark
	}
	end := host.SequenceCycle{Complete: err == nil, Generation: c.sub.Requested, Watermark: mark, Err: err}
	if err == nil {
		moved := c.set > 0 || c.recorded > 0 || c.sub.Done < c.sub.Requested
		old := mark != c.sub.Watermark && w.now().Sub(c.sub.WatermarkWritten) >= markInterval
		end.Write = moved || old
		st := w.state(c.sub)
		st.members, st.first = c.members, c.first
		st.memory.trim(c.members)
	}
	return w.host.FinishSequences(ctx, c.sub.OID, end)
}

// later is the watermark that counts: the new one, unless the other is of the same history and further on.
func later(mark, other host.Watermark) host.Watermark {
	if other.SystemIdentifier == mark.SystemIdentifier && other.Timeline == mark.Timeline && other.LSN > mark.LSN {
		return other
	}
	return mark
}

// rest shows that nothing is under way.
func (w *Worker) rest(ctx context.Context) { _ = w.host.Progress(ctx, "", 0, 0) }

// report logs trouble when it begins, changes and ends.
func (w *Worker) report(ctx context.Context, sub *host.Subscription, st *state, c *cycle, err error) {
	if m := c.trouble(); m.Text != "" {
		_ = w.host.Log(ctx, host.Warning, m)
	}
	if err == nil {
		if st.complaint != "" {
			st.complaint = ""
			_ = w.host.Log(ctx, host.Info, host.Message{Text: "sequences of subscription \"" + sub.Name + "\" are synchronized again"})
		}
		return
	}
	m := host.Describe(err)
	if key := m.SQLState + " " + m.Text; key != st.complaint {
		st.complaint = key
		m.Text = "could not synchronize the sequences of subscription \"" + sub.Name + "\": " + m.Text
		var panicked *safego.PanicError
		if errors.As(err, &panicked) {
			m.Detail = string(panicked.Stack)
		}
		_ = w.host.Log(ctx, host.Warning, m)
	}
}

func (w *Worker) state(sub *host.Subscription) *state {
	st := w.states[sub.OID]
	if st == nil {
		st = &state{memory: newMemory()}
		w.states[sub.OID] = st
	}
	return st
}

// keepOnly forgets subscriptions that are no more, or have no selection; one that a caller has asked about may get one soon.
func (w *Worker) keepOnly(subs []host.Subscription) {
	there := make(map[host.OID]bool, len(subs))
	for i := range subs {
		there[subs[i].OID] = true
	}
	for oid, st := range w.states {
		if !there[oid] && (st.selected || w.now().Sub(st.used) >= keepOpen) {
			st.close()
			delete(w.states, oid)
		}
	}
}

func (w *Worker) disconnect() {
	for _, st := range w.states {
		st.close()
	}
}

func (st *state) close() {
	if st.publisher != nil {
		st.publisher.Close()
		st.publisher, st.used = nil, time.Time{}
	}
}
