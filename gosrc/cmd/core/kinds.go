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
	k := map[string]work{"slots": new(slots).work}
	addSelftest(k)
	return k
}

// slots is the slot worker. What it has learned stays when its work begins anew after an error.
type slots struct {
	worker *slotsync.Worker
}

// work keeps the slots. After a promotion it asks for a new process, which will not load the core.
func (s *slots) work(ctx context.Context, h host.Host, _ string) error {
	if s.worker == nil {
		w, err := slotsync.NewWorker(h, dataDirectory)
		if err != nil {
			return err
		}
		s.worker = w
		requests.OnCancel(w.Cancel)
	}
	if err := s.worker.Run(ctx); !errors.Is(err, slotsync.ErrPromoted) {
		return err
	}
	return nil
}
