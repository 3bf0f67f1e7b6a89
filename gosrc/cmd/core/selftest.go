//go:build selftest

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// addSelftest adds the work that tests of the boundary between C and Go need. Its argument is the
// name of a test, and a number or the name of a slot.
func addSelftest(k map[string]work) {
	inspectCall()
	k["selftest"] = func(ctx context.Context, h host.Host, argument string) error {
		name, number, _ := strings.Cut(argument, " ")
		n, _ := strconv.Atoi(number)
		switch name {
		case "errors":
			return selftestErrors(ctx, h, n)
		case "panic":
			return selftestPanic(ctx, h)
		case "handlers":
			return selftestHandlers(ctx, h)
		case "drop":
			return selftestDrop(ctx, h, number)
		case "plan":
			return selftestPlannedDrop(ctx, h, number)
		}
		return host.Errorf("22023", "unknown self-test %q", name)
	}
}

func logf(ctx context.Context, h host.Host, format string, args ...any) error {
	return h.Log(ctx, host.Info, host.Message{Text: fmt.Sprintf(format, args...)})
}

// selftestErrors lets n statements fail, and stays for its memory to be looked at before and after.
func selftestErrors(ctx context.Context, h host.Host, n int) error {
	// So long that the requests themselves would show, were they not freed.
	failing := "SELECT 1/0 --" + strings.Repeat("-", 1000)
	for round := 0; ; round++ {
		failed := 0
		for range n {
			if _, err := h.Query(ctx, failing); host.HasCode(err, "22012") {
				failed++
			}
		}
		rows, err := h.Query(ctx, "SELECT 'alive', NULL")
		if err != nil {
			return err
		}
		if err := logf(ctx, h, "selftest round %d: %d of %d failed, %s", round, failed, n, *rows[0][0]); err != nil {
			return err
		}
		if _, err := h.Nap(ctx, time.Hour, host.Napping); err != nil {
			return err
		}
	}
}

// selftestDrop drops a slot: as a pass does that has not noticed a promotion, then as the settling after one.
func selftestDrop(ctx context.Context, h host.Host, slot string) error {
	if err := logDrop(ctx, h, slot, "planned", h.DropSlots(ctx, []string{slot})[0]); err != nil {
		return err
	}
	if err := logDrop(ctx, h, slot, "promoted", h.DropPromoted(ctx, slot)); err != nil {
		return err
	}
	_, err := h.Nap(ctx, -1, host.Napping)
	return err
}

// selftestPlannedDrop does only the first.
func selftestPlannedDrop(ctx context.Context, h host.Host, slot string) error {
	if err := logDrop(ctx, h, slot, "planned", h.DropSlots(ctx, []string{slot})[0]); err != nil {
		return err
	}
	_, err := h.Nap(ctx, -1, host.Napping)
	return err
}

// logDrop says what became of a drop.
func logDrop(ctx context.Context, h host.Host, slot, name string, err error) error {
	outcome := "dropped"
	if err != nil {
		outcome = host.Describe(err).SQLState + " " + host.Describe(err).Text
	}
	return logf(ctx, h, "selftest drop %s %s: %s", slot, name, outcome)
}

// selftestPanic panics in a goroutine of its own and in the work itself.
func selftestPanic(ctx context.Context, h host.Host) error {
	done := make(chan error, 1)
	safego.Go(func() error {
		var nowhere *int
		*nowhere = 1
		return nil
	}, func(err error) { done <- err })
	if err := logf(ctx, h, "selftest goroutine: %v", <-done); err != nil {
		return err
	}
	panic("selftest panic in the work")
}

// blockedInCall are the signals that the main thread blocks while the shim's first call runs, as bits.
var blockedInCall uint64

// inspectCall runs in the first call, on the main thread. It takes SA_ONSTACK from a handler, as a pqsignal() after
// the load does, for the shim to give it back.
func inspectCall() {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, 0,
		uintptr(unsafe.Pointer(&blockedInCall)), unsafe.Sizeof(blockedInCall), 0, 0)
	if a, ok := handlerOf(syscall.SIGHUP); ok {
		a.flags &^= onStack
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGHUP),
			uintptr(unsafe.Pointer(&a)), 0, unsafe.Sizeof(a.mask), 0, 0)
	}
}

// onStack is SA_ONSTACK.
const onStack = 0x08000000

// sigaction is that of the kernel on amd64 and arm64.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// handlerOf returns false where the signal has none.
func handlerOf(sig syscall.Signal) (a sigaction, ok bool) {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), 0,
		uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a.mask), 0, 0)
	return a, errno == 0 && a.handler > 1 // SIG_DFL, SIG_IGN
}

// selftestHandlers counts the signal handlers that would run on a goroutine's stack: a later signal() of C
// loses the flag that the runtime has set.
func selftestHandlers(ctx context.Context, h host.Host) error {
	// Once it is answered, the main thread has installed all that it ever will.
	if _, err := h.Query(ctx, "SELECT 1"); err != nil {
		return err
	}
	handlers, without := 0, 0
	for sig := syscall.Signal(1); sig < 32; sig++ {
		a, ok := handlerOf(sig)
		if !ok {
			continue
		}
		handlers++
		if a.flags&onStack == 0 {
			without++
		}
	}
	err := logf(ctx, h, "selftest handlers: %d without SA_ONSTACK of %d, blocked in a call: %x", without, handlers,
		blockedInCall)
	if err != nil {
		return err
	}
	_, err = h.Nap(ctx, -1, host.Napping)
	return err
}
