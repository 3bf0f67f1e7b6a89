package slotsync

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

const (
	promotionNap = 200 * time.Millisecond // until a promotion under way is over
	leftoverNap  = 10 * time.Second       // until copies in use are marked after it
)

// Worker keeps the copies.
type Worker struct {
	host  host.Host
	files Files
	open  Open

	memory   *memory
	settings *Settings // those the connection was made for
	primary  Primary
	upstream Primary           // the server that this one streams from, where it is asked too
	rows     []host.SlotStatus // as last published

	nap        time.Duration   // current pause
	due        time.Time       // when the next pass is
	state      host.State      // that is shown until then
	more       bool            // the last pass has left something to the next
	complaints map[string]bool // trouble that was logged since the last good pass
	tidy       bool            // nothing is left to settle after a promotion
	record     *record         // for checks
	oldNews    func()          // ends the wait for the earliest time to tell of a slot that has moved

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of the pass under way
}

// New makes a worker.
func New(h host.Host, files Files, open Open) *Worker {
	return &Worker{host: h, files: files, open: open, memory: newMemory(), complaints: map[string]bool{}, record: newRecord()}
}

// Run works until ctx is done, this server was promoted and its copies are settled (ErrPromoted), or the host fails. It
// can be called again; what was learnt of the primary stays.
func (w *Worker) Run(ctx context.Context) error {
	defer w.disconnect()
	timeout, state := time.Duration(0), host.Starting
	for {
		wake, err := w.host.Nap(ctx, timeout, state)
		if err != nil {
			return err
		}
		timeout, state, err = w.turn(ctx, wake)
		if err != nil {
			return err
		}
	}
}

// turn does what a wake-up asks for and returns the next nap.
func (w *Worker) turn(ctx context.Context, wake host.Wakeup) (time.Duration, host.State, error) {
	r, err := w.host.Recovery(ctx)
	if err == nil && r.InRecovery && !r.PromoteTriggered && w.saves(wake) {
		return w.rest(ctx)
	}
	var s *Settings
	if err == nil {
		s, err = readSettings(ctx, w.host)
	}
	if err != nil {
		if wake.Command != host.NoCommand {
			_ = w.host.CommandDone(ctx, 0, err)
		}
		return 0, 0, err
	}
	if !r.InRecovery {
		return w.notStandby(ctx, wake)
	}
	w.tidy = false
	if err := w.command(ctx, s, r, wake); err != nil {
		return 0, 0, err
	}
	switch {
	case r.PromoteTriggered:
		return promotionNap, host.Napping, w.answer(ctx, wake, refuseHere(s, r))
	case !s.SyncSlots && !wake.Sync && !w.more:
		w.disconnect()
		if err := w.saveAll(ctx); err != nil {
			return 0, 0, err
		}
		return -1, host.Off, w.off(ctx, s, r)
	}
	if wake.Reload || wake.News {
		w.nap = 0
	}
	if err := w.pass(ctx, s, r, wake.Sync); err != nil {
		return 0, 0, err
	}
	return w.rest(ctx)
}

// notStandby settles what a promotion has left, and sleeps.
func (w *Worker) notStandby(ctx context.Context, wake host.Wakeup) (time.Duration, host.State, error) {
	w.disconnect()
	w.settle(ctx)
	if wake.Command != host.NoCommand {
		if err := w.host.CommandDone(ctx, 0, errNotStandby()); err != nil {
			return 0, 0, err
		}
	}
	if err := w.answer(ctx, wake, errNotStandby()); err != nil {
		return 0, 0, err
	}
	if !w.tidy {
		return leftoverNap, host.NotStandby, nil
	}
	return 0, 0, ErrPromoted
}

// answer ends a pass that was asked for and cannot be.
func (w *Worker) answer(ctx context.Context, wake host.Wakeup, err error) error {
	if !wake.Sync {
		return nil
	}
	return w.host.PassDone(ctx, host.Pass{State: host.Blocked, Err: err})
}

func (w *Worker) settle(ctx context.Context) {
	if w.tidy {
		return
	}
	kept, dropped, err := MarkPromoted(ctx, w.host)
	w.tidy = err == nil
	if kept > 0 || dropped > 0 {
		w.log(ctx, host.Info, host.Message{
			Text:   "replication slots are no longer synchronized: the server is not a standby any more",
			Detail: fmt.Sprintf("%d copies are slots of this server now, %d that were not ready have been dropped.", kept, dropped),
		})
	}
	if err != nil {
		w.complain(ctx, err)
	}
}

func (w *Worker) command(ctx context.Context, s *Settings, r host.Recovery, wake host.Wakeup) error {
	if wake.Command == host.NoCommand {
		return nil
	}
	if wake.Command != host.DropSlots {
		return w.host.CommandDone(ctx, 0, host.Errorf("0A000", "unknown command %d", wake.Command))
	}
	dropped, err := w.dropSlots(ctx, s, r, wake.Argument)
	if dropped > 0 && !s.SyncSlots && !wake.Sync {
		// No pass follows that would show it.
		w.record.show(w.rows, w.memory.sight)
		if err := w.host.PassDone(ctx, host.Pass{State: host.Off, Slots: w.rows}); err != nil {
			return err
		}
	}
	return w.host.CommandDone(ctx, dropped, err)
}

// pass runs one pass, publishes it and finds when the next one is due.
func (w *Worker) pass(ctx context.Context, s *Settings, r host.Recovery, asked bool) error {
	began := time.Now()
	w.record.begin()
	w.record.received(r.FlushLSN)
	remote, end := w.begin(ctx, s, r)
	defer end()

	p := w.newPass(ctx, remote, s, r)
	p.asked = asked
	var rows []host.SlotStatus
	err := safego.Do(func() (err error) {
		if err = w.connect(p, s, r); err == nil {
			p.primary = w.primary
			rows, err = p.run()
		}
		return err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if remote.Err() != nil {
		err = context.Cause(remote)
	}
	if err != nil && rows == nil {
		rows = w.afterFailure(p, err)
	}
	if isElsewhere(err) {
		w.disconnect() // the name may lead to another server by now
	}
	w.report(ctx, err)
	w.next(s, err, p)
	switch {
	case rows == nil:
	case err == nil:
		w.rows = shown(rows)
	default:
		w.rows = merge(w.rows, rows)
		rows = w.rows
	}
	w.record.ended(began, w.memory.between, err)
	w.record.show(w.rows, w.memory.sight)
	took := time.Since(began)
	if err := w.host.PassDone(ctx, host.Pass{Duration: took, State: w.state, Err: err, Slots: rows}); err != nil {
		return err
	}
	if err == nil && !p.more && s.SyncSlots {
		w.awaitNews(ctx, s, p, took)
	}
	return nil
}

func (w *Worker) newPass(ctx, remote context.Context, s *Settings, r host.Recovery) *pass {
	return &pass{
		h: w.host, ctx: ctx, remote: remote, files: w.files, settings: s, memory: w.memory,
		recovery: r, major: majorOf(r.ServerVersionNum),
		openUpstream: func() (up Primary, err error) {
			if w.upstream == nil {
				there := *s
				there.Conninfo = s.UpstreamConninfo
				w.upstream, err = w.open(ctx, w.host, &there)
			}
			return w.upstream, err
		},
	}
}
