package slotsync

import (
	"context"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

const (
	firstBackOff = time.Second // after an error of the connection

	// pollShare bounds what reading a primary costs that cannot tell when a slot moves: a pause is that many times as long as
	// the reading before it.
	pollShare = 20
	// longestRest is what a pass that took long leaves before the next one at most, if a slot moves.
	longestRest = 100 * time.Millisecond
)

// never is when a pass is due that somebody has to ask for.
var never = time.Unix(1<<40, 0)

// next finds the pause: short while slots move, longer and longer while they do not.
func (w *Worker) next(s *Settings, err error, p *pass) {
	w.state = host.Napping
	switch {
	case givenUp(err), err == nil && p.changed:
		w.nap = s.NaptimeMin
	case err == nil && p.soon > 0:
		w.nap = p.soon
	case isRefusal(err):
		// A reload ends the nap; what is refused at the primary is looked at again as an idle slot is.
		w.nap = s.NaptimeMax
		w.state = host.Blocked
	case err != nil:
		w.nap = max(w.nap*2, min(firstBackOff, s.NaptimeMax))
		w.state = host.Blocked
	default:
		w.nap *= 2
	}
	w.nap = min(max(w.nap, s.NaptimeMin), s.NaptimeMax)
	w.due = time.Now().Add(max(w.nap, min(pollShare*p.reading, s.NaptimeMax)))
	if !s.SyncSlots {
		w.due, w.state = never, host.Off
	}
	// Also where passes are made on request alone: what was asked for is done only then.
	if w.more = err == nil && p.more; w.more {
		w.due = time.Now()
	}
}

// rest saves until the next pass is due, and returns the nap.
func (w *Worker) rest(ctx context.Context) (time.Duration, host.State, error) {
	next, err := w.save(ctx)
	if next.IsZero() || next.After(w.due) {
		next = w.due
	}
	if next.Equal(never) {
		return -1, w.state, err
	}
	return max(time.Until(next), 0), w.state, err
}

// awaitNews has the primary tell when a slot moves, where it can. Then the next pass comes with the news, though not at once
// after the last one, and at the latest when an idle primary is looked at anyway.
func (w *Worker) awaitNews(ctx context.Context, s *Settings, p *pass, took time.Duration) {
	earliest := time.Now().Add(max(s.NaptimeMin, min(took, longestRest)))
	if w.oldNews != nil {
		w.oldNews() // this pass has read what it would tell of
	}
	news, end := context.WithCancel(ctx)
	w.oldNews = end
	watching := w.primary.Watch(ctx, s.NaptimeMax, func() {
		select {
		case <-news.Done():
		case <-time.After(time.Until(earliest)):
			_ = w.host.EndNap(ctx)
		}
	})
	if watching && p.soon == 0 && !p.awaited {
		w.due = time.Now().Add(s.NaptimeMax)
	}
}
