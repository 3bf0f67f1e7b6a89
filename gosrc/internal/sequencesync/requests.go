package sequencesync

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// askAgain is how often it is looked whether the caller of a request is still there.
const askAgain = 500 * time.Millisecond

// errGone ends what is done for a caller who does not wait any more.
var errGone = host.Errorf("57014", "nobody waits for the answer")

// serve answers all requests that wait, and tells whether there were any. Only the host fails it.
func (w *Worker) serve(ctx context.Context) (served bool, err error) {
	for {
		r, ok, err := w.host.TakeRequest(ctx)
		if err != nil || !ok {
			return served, err
		}
		served = true
		answer := w.attended(ctx, &r)
		w.wanted = w.now()
		w.rest(ctx)
		if ctx.Err() != nil {
			return served, context.Cause(ctx)
		}
		if errors.Is(answer, errGone) {
			continue
		}
		if _, err := w.host.Answer(ctx, r.ID, nil, true, answer); err != nil {
			return served, err
		}
	}
}

// attended does what a request asks for until it is done, or nobody waits for it any more. Its publisher may not answer, while
// others wait for their turn.
func (w *Worker) attended(ctx context.Context, r *host.SequenceRequest) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	ended, over := make(chan struct{}), make(chan struct{})
	var answering sync.Mutex
	safego.Go(func() error {
		tick := time.NewTicker(askAgain)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return nil
			case <-tick.C:
			}
			answering.Lock()
			there, err := w.host.Answer(ctx, r.ID, nil, false, nil)
			answering.Unlock()
			if err == nil && !there {
				giveUp(errGone)
				return nil
			}
		}
	}, func(error) { close(over) })
	rows := func(rows []host.SequenceRow) error {
		answering.Lock()
		defer answering.Unlock()
		there, err := w.host.Answer(ctx, r.ID, rows, false, nil)
		if err == nil && !there {
			err = errGone
		}
		return err
	}
	err := safego.Do(func() error { return w.request(ctx, r, rows) })
	// The next answer has to wait for one that is on its way.
	close(ended)
	<-over
	giveUp(nil)
	return err
}

// request does what is asked for. The caller gets its error.
func (w *Worker) request(ctx context.Context, r *host.SequenceRequest, rows emit) error {
	s, err := readSettings(ctx, w.host)
	if err != nil {
		return err
	}
	if err := r.Subscription.ConninfoErr; err != nil && r.Kind != host.CheckPublisher {
		return err
	}
	p, done := w.borrow(&r.Subscription, s)
	defer done()
	switch r.Kind {
	case host.SyncSequences:
		return w.syncNow(ctx, r, p, showFindings(rows))
	case host.SequenceDrift:
		return w.compareNow(ctx, r, p, showFindings(rows))
	case host.SelectSequences:
		return p.Select(ctx, r.Subscription.Publications, r.Subscription.Selection, showNames(rows))
	case host.CheckPublisher:
		return w.check(ctx, r, p, rows)
	}
	return host.Errorf("0A000", "unknown request %d", r.Kind)
}

// borrow returns the connection of the subscription, or one for this request alone where that is in use, or the caller's
// transaction has changed how to connect.
func (w *Worker) borrow(sub *host.Subscription, s *Settings) (p Publisher, done func()) {
	// One that has no selection yet is about to get one: the first cycle profits from what the request has found.
	st := w.state(sub)
	if !st.busy && (st.publisher == nil || st.access == accessOf(sub, s)) {
		return w.connect(sub, s, st)
	}
	p = w.open(w.host, sub, s)
	return p, p.Close
}

// emit hands rows to a caller.
type emit func([]host.SequenceRow) error

func showFindings(rows emit) func([]finding) error {
	return func(findings []finding) error {
		shown := make([]host.SequenceRow, len(findings))
		for i := range findings {
			shown[i] = findings[i].row()
		}
		return rows(shown)
	}
}

func showNames(rows emit) func([]host.SequenceName) error {
	return func(names []host.SequenceName) error {
		shown := make([]host.SequenceRow, len(names))
		for i := range names {
			shown[i].SequenceName = names[i]
		}
		return rows(shown)
	}
}

// syncNow is a cycle for a caller. It ends the generation that is committed when it begins.
func (w *Worker) syncNow(ctx context.Context, r *host.SequenceRequest, p Publisher, found func([]finding) error) error {
	sub, err := w.committed(ctx, &r.Subscription)
	if err != nil {
		return err
	}
	c := w.newCycle(sub, p, w.state(sub).memory, found)
	c.rules.backwards = r.AllowBackwards
	err = c.run(ctx)
	return errors.Join(err, w.finish(ctx, c, err))
}

// compareNow is a cycle for a caller that sets nothing.
func (w *Worker) compareNow(ctx context.Context, r *host.SequenceRequest, p Publisher, found func([]finding) error) error {
	// Rules that come from a dump are put in order first: they go by the name.
	sub, err := w.committed(ctx, &r.Subscription)
	if err != nil {
		return err
	}
	return w.newCycle(sub, p, nil, found).run(ctx)
}

// committed returns a subscription as the worker sees it, which the transaction of a caller may have changed for itself.
func (w *Worker) committed(ctx context.Context, asked *host.Subscription) (*host.Subscription, error) {
	subs, err := w.host.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	for i := range subs {
		if subs[i].OID == asked.OID {
			return &subs[i], nil
		}
	}
	return asked, nil
}
