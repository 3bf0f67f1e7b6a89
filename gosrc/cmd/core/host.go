package main

/*
#include "core_api.h"
*/
import "C"

import (
	"cmp"
	"context"
	"encoding/binary"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/queue"
)

// shim is the [host.Host] that asks the server's main thread through the queue.
type shim struct {
	queue *queue.Queue
}

var _ host.Host = shim{}

// What this process has heard and said last. Slots are listed in several goroutines, passes end in one.
var (
	listed atomic.Pointer[slotList]
	shown  []host.SlotStatus
)

func (s shim) do(ctx context.Context, kind int32, data []byte) error {
	_, err := s.queue.Call(ctx, kind, data)
	return err
}

// ask makes a call and decodes its answer.
func ask[T any](ctx context.Context, s shim, kind int32, data []byte, decode func([]byte) (T, error)) (T, error) {
	b, err := s.queue.Call(ctx, kind, data)
	if err != nil {
		var none T
		return none, err
	}
	return decode(b)
}

func (s shim) Log(ctx context.Context, level host.Level, m host.Message) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.queue.Start(C.CORE_LOG, logToC(level, m))
	return nil
}

// longNap is one before which it may pay to give memory back to the system: that costs a garbage collection, so it is done
// once in freePause.
const (
	longNap   = time.Second
	freePause = time.Minute
)

// freed is when memory was given back last, in nanoseconds since 1970.
var freed atomic.Int64

func (s shim) Nap(ctx context.Context, timeout time.Duration, show host.State) (host.Wakeup, error) {
	now := time.Now().UnixNano()
	if last := freed.Load(); (timeout < 0 || timeout >= longNap) && now-last >= int64(freePause) {
		freed.Store(now)
		debug.FreeOSMemory()
		s.queue.Start(C.CORE_TRIM, nil)
	}
	return ask(ctx, s, C.CORE_NAP, napToC(timeout, show), wakeupFromC)
}

func (s shim) EndNap(ctx context.Context) error {
	return s.do(ctx, C.CORE_WAKE, nil)
}

func (s shim) Settings(ctx context.Context, names ...string) ([]string, error) {
	return ask(ctx, s, C.CORE_SETTINGS, nulList(names...), func(b []byte) ([]string, error) {
		values := splitNulList(b)
		if len(values) != len(names) {
			return nil, errShortAnswer
		}
		return values, nil
	})
}

func (s shim) Environment(ctx context.Context) (map[string]string, error) {
	return ask(ctx, s, C.CORE_ENVIRONMENT, nil, func(b []byte) (map[string]string, error) {
		env := make(map[string]string)
		for _, pair := range splitNulList(b) {
			if name, value, ok := strings.Cut(pair, "="); ok {
				env[name] = value
			}
		}
		return env, nil
	})
}

func (s shim) Recovery(ctx context.Context) (host.Recovery, error) {
	return ask(ctx, s, C.CORE_RECOVERY, nil, recoveryFromC)
}

func (s shim) Slots(ctx context.Context) ([]host.Slot, error) {
	b, err := s.queue.Call(ctx, C.CORE_SLOT_LIST, nil)
	if err != nil {
		return nil, err
	}
	next, err := listed.Load().next(b)
	if err != nil {
		return nil, err
	}
	listed.Store(next)
	return next.slots, nil
}

func (s shim) ReserveWAL(ctx context.Context, lsn host.LSN, catalogXmin host.XID) error {
	return s.do(ctx, C.CORE_SLOT_RESERVE, slotToC(host.Slot{RestartLSN: lsn, CatalogXmin: catalogXmin}))
}

// start puts a call for each slot into the queue.
func (s shim) start(kind int32, slots []host.Slot) []queue.Started {
	data := make([][]byte, len(slots))
	for i, slot := range slots {
		data[i] = slotToC(slot)
	}
	return s.queue.Start(kind, data...)
}

// each makes one call for each slot.
func (s shim) each(ctx context.Context, kind int32, slots []host.Slot) []error {
	return waitAll(ctx, s.start(kind, slots))
}

func waitAll(ctx context.Context, calls []queue.Started) []error {
	errs := make([]error, len(calls))
	// The last one is answered last: nobody is woken for those before it.
	for i, call := range slices.Backward(calls) {
		_, errs[i] = call.Wait(ctx)
	}
	return errs
}

// CreateSlots implements host.Host. The calls are followed by the one that brings all to disk whether they are waited for or not.
func (s shim) CreateSlots(ctx context.Context, slots []host.Slot) []error {
	calls := s.start(C.CORE_SLOT_CREATE, slots)
	durable := s.queue.Start(C.CORE_SLOT_SYNC, nil)
	_, err := durable[0].Wait(ctx)
	errs := waitAll(ctx, calls)
	if err != nil {
		for i := range errs {
			errs[i] = cmp.Or(errs[i], err)
		}
	}
	return errs
}

func (s shim) UpdateSlot(ctx context.Context, slot host.Slot) error {
	return s.do(ctx, C.CORE_SLOT_UPDATE, slotToC(slot))
}

func (s shim) MoveSlots(ctx context.Context, slots []host.Slot) ([]host.Move, error) {
	return ask(ctx, s, C.CORE_SLOT_MOVE, slotsToC(slots), func(b []byte) ([]host.Move, error) {
		if len(b) != len(slots) {
			return nil, errShortAnswer
		}
		moves := make([]host.Move, len(b))
		for i := range b {
			moves[i] = host.Move(b[i])
		}
		return moves, nil
	})
}

func (s shim) SaveSlots(ctx context.Context, slots []host.Slot) []error {
	errs := make([]error, len(slots))
	for from := 0; from < len(slots); from += C.CORE_SAVE_MAX {
		some := slots[from:min(from+C.CORE_SAVE_MAX, len(slots))]
		s.saveSome(ctx, some, errs[from:])
	}
	return errs
}

// saveSome saves what goes together. What does not is saved alone, which says why not.
func (s shim) saveSome(ctx context.Context, slots []host.Slot, errs []error) {
	saved, err := s.queue.Call(ctx, C.CORE_SLOT_SAVE, slotsToC(slots))
	if len(slots) == 1 {
		errs[0] = err
		return
	}
	for i, slot := range slots {
		if err != nil || i >= len(saved) || saved[i] == 0 {
			errs[i] = s.do(ctx, C.CORE_SLOT_SAVE, slotToC(slot))
		}
	}
}

func (s shim) DropSlots(ctx context.Context, names []string) []error {
	slots := make([]host.Slot, len(names))
	for i, name := range names {
		slots[i].Name = name
	}
	return s.each(ctx, C.CORE_SLOT_DROP, slots)
}

func (s shim) DropPromoted(ctx context.Context, name string) error {
	var c C.CoreSlot
	put(c.name[:], name)
	c.flags = C.CORE_SLOT_PROMOTED
	return s.do(ctx, C.CORE_SLOT_DROP, raw(&c))
}

func (s shim) WALAvailable(ctx context.Context, lsn host.LSN) (bool, error) {
	return s.askOfWAL(ctx, C.CORE_WAL_AVAILABLE, lsn)
}

func (s shim) IsRunningXacts(ctx context.Context, lsn host.LSN) (bool, error) {
	return s.askOfWAL(ctx, C.CORE_WAL_RUNNING, lsn)
}

func (s shim) askOfWAL(ctx context.Context, kind int32, lsn host.LSN) (bool, error) {
	return ask(ctx, s, kind, binary.NativeEndian.AppendUint64(nil, uint64(lsn)),
		func(b []byte) (bool, error) {
			if len(b) < 1 {
				return false, errShortAnswer
			}
			return b[0] != 0, nil
		})
}

func (s shim) RequestFeedback(ctx context.Context) error {
	return s.do(ctx, C.CORE_FEEDBACK, nil)
}

func (s shim) Progress(ctx context.Context, phase string, done, total int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.queue.Start(C.CORE_PROGRESS, progressToC(phase, done, total))
	return nil
}

func (s shim) PassDone(ctx context.Context, pass host.Pass) error {
	err := s.do(ctx, C.CORE_PASS_DONE, passToC(pass, shown))
	switch {
	case err != nil:
		shown = nil
	case pass.Err == nil || pass.Slots != nil:
		shown = pass.Slots
	}
	return err
}

func (s shim) CommandDone(ctx context.Context, value int64, err error) error {
	return s.do(ctx, C.CORE_COMMAND_DONE, commandResultToC(value, err))
}

func (s shim) AwaitCheck(ctx context.Context) error {
	return s.do(ctx, C.CORE_CHECK_WAIT, nil)
}

func (s shim) CheckDone(ctx context.Context, rows []host.CheckRow) error {
	return s.do(ctx, C.CORE_CHECK_DONE, checkToC(rows))
}

func (s shim) Query(ctx context.Context, sql string) (host.Rows, error) {
	return ask(ctx, s, C.CORE_QUERY, nulList(sql), rowsFromC)
}

// exit ends the process. The postmaster starts a new one, which has not loaded the core.
func (s shim) exit() error {
	return s.do(context.Background(), C.CORE_EXIT, nil)
}
