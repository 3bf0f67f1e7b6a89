package slotsync

import (
	"context"
	"errors"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

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
