package main

import (
	"context"
	"errors"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/slotsync"
)

// dataDirectory is where a server process works.
const dataDirectory = "."

// kinds returns the work that this core can do.
func kinds() map[string]work {
	k := map[string]work{"slots": keepSlots}
	addSelftest(k)
	return k
}

// keepSlots is the slot worker. After a promotion it asks for a new process, which will not load the core.
func keepSlots(ctx context.Context, h host.Host, _ string) error {
	w, err := slotsync.NewWorker(h, dataDirectory)
	if err != nil {
		return err
	}
	requests.OnCancel(w.Cancel)
	if err := w.Run(ctx); !errors.Is(err, slotsync.ErrPromoted) {
		return err
	}
	return nil
}
