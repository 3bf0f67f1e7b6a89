package slotsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

const (
	promotionNap = 200 * time.Millisecond // until a promotion under way is over
	leftoverNap  = 10 * time.Second       // until copies in use are marked after it
	firstBackOff = time.Second            // after an error of the connection

	maxComplaints = 64 // that are remembered

	// pollShare bounds what reading a primary costs that cannot tell when a slot moves: a pause is that many times as long as
	// the reading before it.
	pollShare = 20
	// longestRest is what a pass that took long leaves before the next one at most, if a slot moves.
	longestRest = 100 * time.Millisecond
)

// Open makes the connection to the primary that the settings name. It does not connect yet.
type Open func(ctx context.Context, h host.Host, s *Settings) (Primary, error)

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

// never is when a pass is due that somebody has to ask for.
var never = time.Unix(1<<40, 0)

// errCancelled is what a cancelled pass ends with.
var errCancelled = host.Errorf("57014", "canceling the synchronization of replication slots due to user request")

// errPromotion is what a pass ends with that a promotion finds waiting for the primary, which may be gone.
var errPromotion = refuse("replication slots cannot be synchronized while the standby is being promoted", "", "")

// errReload is what a pass ends with that waits for a server which it is no longer to ask.
var errReload = host.Errorf("57014", "canceling the synchronization of replication slots because of a parameter change")

// givenUp tells whether a pass was ended from here: that is no trouble.
func givenUp(err error) bool {
	return errors.Is(err, errCancelled) || errors.Is(err, errPromotion) || errors.Is(err, errReload)
}

// Cancel ends the pass under way, if any. It may be called from anywhere, and does not wait.
func (w *Worker) Cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel(errCancelled)
	}
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

// hideRow takes a slot out of what is shown.
func (w *Worker) hideRow(name string) {
	rows := make([]host.SlotStatus, 0, len(w.rows))
	for _, row := range w.rows {
		if row.Name != name {
			rows = append(rows, row)
		}
	}
	w.rows = rows
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

// merge replaces the rows of some slots: a pass that failed says nothing about the others.
func merge(rows, newer []host.SlotStatus) []host.SlotStatus {
	merged := slices.Clone(newer)
	for _, row := range rows {
		if !slices.ContainsFunc(newer, func(r host.SlotStatus) bool { return r.Name == row.Name }) {
			merged = append(merged, row)
		}
	}
	slices.SortFunc(merged, func(a, b host.SlotStatus) int { return cmp.Compare(a.Name, b.Name) })
	return merged
}

// shown leaves out the slots that are no more.
func shown(rows []host.SlotStatus) []host.SlotStatus {
	if !slices.ContainsFunc(rows, func(r host.SlotStatus) bool { return r.State == "" }) {
		return rows
	}
	var left []host.SlotStatus
	for _, row := range rows {
		if row.State != "" {
			left = append(left, row)
		}
	}
	return left
}

// begin makes the context of a pass, which Cancel ends.
func (w *Worker) begin(ctx context.Context, s *Settings, r host.Recovery) (context.Context, func()) {
	remote, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.cancel = cancel
	w.mu.Unlock()
	safego.Go(func() error { return w.watch(remote, cancel, s, r.ReloadTime) }, nil)
	return remote, func() {
		w.mu.Lock()
		w.cancel = nil
		w.mu.Unlock()
		cancel(nil)
	}
}

// watch ends a pass once this server is promoted, or told to ask another one or none.
func (w *Worker) watch(ctx context.Context, end context.CancelCauseFunc, s *Settings, reloaded time.Time) error {
	tick := time.NewTicker(promotionNap)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r, err := w.host.Recovery(ctx)
		if err != nil {
			return err
		}
		w.record.received(r.FlushLSN)
		if !r.InRecovery || r.PromoteTriggered {
			end(errPromotion)
			return nil
		}
		if r.ReloadTime.Equal(reloaded) {
			continue
		}
		reloaded = r.ReloadTime
		now, err := readSettings(ctx, w.host)
		if err != nil {
			return err
		}
		if !now.sameConnection(s) || s.SyncSlots && !now.SyncSlots {
			end(errReload)
			return nil
		}
	}
}

// connect sees to it that there is a connection for these settings. What refuses the pass anyway is left to it.
func (w *Worker) connect(p *pass, s *Settings, r host.Recovery) error {
	if w.primary != nil && w.settings.sameConnection(s) {
		return nil
	}
	w.disconnect()
	if refuseHere(s, r) != nil {
		return nil
	}
	p.progress("connecting", 0, 0)
	primary, err := w.open(p.ctx, w.host, s)
	if err != nil {
		return err
	}
	w.primary, w.settings = primary, s
	return nil
}

func (w *Worker) disconnect() {
	if w.primary != nil {
		w.primary.Close()
		w.primary = nil
	}
	if w.upstream != nil {
		w.upstream.Close()
		w.upstream = nil
	}
}

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

// report logs trouble when it begins and ends.
func (w *Worker) report(ctx context.Context, err error) {
	switch {
	case err == nil && len(w.complaints) > 0:
		clear(w.complaints)
		w.log(ctx, host.Info, host.Message{Text: "replication slots are synchronized again"})
	case err != nil && !givenUp(err):
		w.complain(ctx, err)
	}
}

// complain logs each trouble once: a connection may fail in turn in several ways for one reason.
func (w *Worker) complain(ctx context.Context, err error) {
	m := host.Describe(err)
	key := troubleKey(err)
	if w.complaints[key] {
		return
	}
	if len(w.complaints) >= maxComplaints {
		clear(w.complaints)
	}
	w.complaints[key] = true
	var panicked *safego.PanicError
	if errors.As(err, &panicked) {
		m.Detail = string(panicked.Stack)
	}
	w.log(ctx, host.Warning, m)
}

// troubleKey is by what trouble is known again. Details do not count: they name ports and times.
func troubleKey(err error) string {
	m := host.Describe(err)
	return m.SQLState + " " + m.Text
}

func (w *Worker) log(ctx context.Context, level host.Level, m host.Message) {
	_ = w.host.Log(ctx, level, m)
}
