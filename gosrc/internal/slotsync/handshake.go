package slotsync

import (
	"time"
)

const (
	handshakeTime  = time.Second
	handshakePause = 25 * time.Millisecond
	feedbackMargin = 2 * time.Second        // for feedback to arrive and to show
	soonPause      = 100 * time.Millisecond // between passes, as long as it may
	// feedbackPause keeps the worker from signalling a walreceiver that cannot reach the primary again and again. It is
	// the default of wal_receiver_status_interval.
	feedbackPause = 10 * time.Second
)

// handshake lets copies become ready that only wait for the primary to act on feedback: it has feedback sent now, and
// looks at the primary until it shows.
func (p *pass) handshake() error {
	pending := p.awaitingFeedback()
	m := p.memory
	switch {
	case len(pending) == 0:
		m.waitingSince = time.Time{}
		return nil
	case m.waitingSince.IsZero():
		m.waitingSince = time.Now()
	}
	// The next pass comes soon, as long as feedback may be under way.
	if time.Since(m.waitingSince) < time.Duration(p.settings.StatusInterval)*time.Second+feedbackMargin {
		p.again(soonPause)
	}
	if p.recovery.WalReceiverPID == 0 || !p.askFeedback() {
		return nil
	}
	total := len(pending)
	timeout := time.NewTimer(handshakeTime)
	defer timeout.Stop()
	for len(pending) > 0 {
		p.progress("waiting for feedback", total-len(pending), total)
		select {
		case <-p.remote.Done():
			return p.cancelled()
		case <-timeout.C:
			return nil
		case <-time.After(handshakePause):
		}
		if err := p.reread(); err != nil {
			return err
		}
		for _, plan := range pending {
			p.rejudge(plan)
		}
		pending = p.awaitingFeedback()
	}
	return nil
}

func (p *pass) awaitingFeedback() []*plan {
	var found []*plan
	for _, plan := range p.plans {
		if plan.local != nil && plan.state == stateWaiting && plan.reason == reasonFeedback {
			found = append(found, plan)
		}
	}
	return found
}

// rejudge looks at a copy again after a reread.
func (p *pass) rejudge(plan *plan) {
	// The next pass drops it.
	switch {
	case plan.seen == nil:
		plan.state, plan.reason = stateWaiting, reasonGone
		return
	case plan.seen.Invalidation != "":
		plan.state, plan.reason = stateInvalidated, reasonInvalidated
		return
	}
	p.apply(plan, p.judge(plan))
}

// askFeedback makes the walreceiver send feedback, unless that was done a moment ago and no copy was made since. It tells
// whether an answer is to be expected soon.
//
// The walreceiver sends at once only when it re-reads its configuration, so this is not done while the files hold edits
// that nobody has asked the server to take over. It then comes after wal_receiver_status_interval.
func (p *pass) askFeedback() bool {
	m := p.memory
	if !m.askedMade && time.Since(m.asked) < feedbackPause {
		return false
	}
	if configPending(p.settings.ConfigFile, p.settings.DataDirectory, p.recovery.ReloadTime) {
		return false
	}
	if err := p.h.RequestFeedback(p.ctx); err != nil {
		return false
	}
	m.asked, m.askedMade = time.Now(), false
	return true
}
