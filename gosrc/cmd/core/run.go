package main

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/queue"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// requests is the one queue of this process.
var requests queue.Queue

// work is what a worker of some kind does until it fails or the process should end.
type work func(ctx context.Context, h host.Host, argument string) error

// maxProcs bounds the threads that run Go code: the core waits for the network nearly all the time.
const maxProcs = 2

// gcPercent lets the heap grow by a quarter before it is collected. What is alive is about 1 MB, and a pass makes little
// garbage: that takes some 3 MB off the resident memory, for no time that shows.
const gcPercent = 25

// retryAfter is the pause after work ended with an error that is not expected to.
const retryAfter = 5 * time.Second

// run starts the work of that kind. It runs on the server's main thread.
func run(kind, argument string, wakeupFD int, memoryLimit int64) bool {
	w := kinds()[kind]
	if w == nil {
		return false
	}
	runtime.GOMAXPROCS(maxProcs)
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	requests.SetWake(func() {
		// The only error is EAGAIN, when the counter is full: the main thread is awake then.
		_, _ = syscall.Write(wakeupFD, binary.NativeEndian.AppendUint64(nil, 1))
	})
	tell := slotsFailed
	if kind == sequencesKind {
		tell = sequencesFailed
	}
	safego.Go(func() error { return supervise(w, tell, shim{&requests}, argument) }, nil)
	return true
}

// supervise keeps the work going. Work that returns nil asks for a new process; after an error it begins anew in
// this one.
func supervise(w work, tell failed, s shim, argument string) error {
	ctx := context.Background()
	for complaint := ""; ; {
		err := safego.Do(func() error { return w(ctx, s, argument) })
		if err == nil {
			return s.exit()
		}
		complaint = report(ctx, s, err, complaint)
		if err := tell(ctx, s, err); err != nil {
			return err
		}
	}
}

// failed publishes why the work ended, and waits before it begins anew: it tells those who want something
// meanwhile.
type failed func(ctx context.Context, s shim, why error) error

// slotsFailed is for the slot worker.
func slotsFailed(ctx context.Context, s shim, why error) error {
	// A command may have been under way.
	_ = s.CommandDone(ctx, 0, why)
	_ = s.PassDone(ctx, host.Pass{State: host.Blocked, Err: why})
	wake, err := s.Nap(ctx, retryAfter, host.Blocked)
	if err == nil && wake.Command != host.NoCommand {
		err = s.CommandDone(ctx, 0, why)
	}
	if err == nil && wake.Sync {
		err = s.PassDone(ctx, host.Pass{State: host.Blocked, Err: why})
	}
	return err
}

// sequencesFailed is for a sequence worker.
func sequencesFailed(ctx context.Context, s shim, why error) error {
	_ = s.CycleDone(ctx, 0, why)
	_, err := s.Nap(ctx, retryAfter, host.Blocked)
	for err == nil {
		r, ok, takeErr := s.TakeRequest(ctx)
		if takeErr != nil || !ok {
			// It waits on, until the work begins anew.
			return nil
		}
		_, err = s.Answer(ctx, r.ID, nil, true, why)
	}
	return err
}

// report logs why the work ended unless the log says so already. It returns what the log says.
func report(ctx context.Context, s shim, err error, logged string) string {
	m := host.Describe(err)
	if m.Text != logged {
		line := m
		var p *safego.PanicError
		if errors.As(err, &p) {
			line.Detail = string(p.Stack)
		}
		_ = s.Log(ctx, host.Warning, line)
	}
	return m.Text
}
