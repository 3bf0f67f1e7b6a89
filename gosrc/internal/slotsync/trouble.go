package slotsync

import (
	"context"
	"errors"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

const maxComplaints = 64 // that are remembered

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
