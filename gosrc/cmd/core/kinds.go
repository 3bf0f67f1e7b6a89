package main

import (
	"context"
	"errors"
	"runtime/debug"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
	"github.com/replsync/replsync/gosrc/internal/sequencesync"
	"github.com/replsync/replsync/gosrc/internal/slotsync"
)

// dataDirectory is where a server process works.
const dataDirectory = "."

// sequencesKind is the kind of a sequence worker.
const sequencesKind = "sequences"

// kinds returns the work that this core can do.
func kinds() map[string]work {
	k := map[string]work{"slots": new(slots).work, sequencesKind: new(sequences).work}
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
		safego.Go(func() error { return w.Attend(context.Background()) }, nil)
	}
	if err := s.worker.Run(ctx); !errors.Is(err, slotsync.ErrPromoted) {
		return err
	}
	return nil
}

// sequencesGCPercent is for a worker whose cycles make garbage for each sequence: to collect it at each quarter took a fifth of the
// time of a cycle. It is given back when the worker naps.
const sequencesGCPercent = 100

// sequences is the sequence worker of a database.
type sequences struct {
	worker *sequencesync.Worker
}

// work keeps the sequences. Without any to keep it asks for the end of the process.
func (s *sequences) work(ctx context.Context, h host.Host, _ string) error {
	if s.worker == nil {
		server, ok := h.(host.Sequences)
		if !ok {
			return host.Errorf("0A000", "this core does not synchronize sequences")
		}
		debug.SetGCPercent(sequencesGCPercent)
		s.worker = sequencesync.New(server, sequencesync.Dial)
	}
	if err := s.worker.Run(ctx); !errors.Is(err, sequencesync.ErrIdle) {
		return err
	}
	return nil
}
