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
// name of a test and a number.
func addSelftest(k map[string]work) {
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
		}
		return host.Errorf("22023", "unknown self-test %q", name)
	}
}

func logf(ctx context.Context, h host.Host, format string, args ...any) error {
	return h.Log(ctx, host.Info, host.Message{Text: fmt.Sprintf(format, args...)})
}

// selftestErrors lets n statements fail, and stays for its memory to be looked at before and after.
func selftestErrors(ctx context.Context, h host.Host, n int) error {
	for round := 0; ; round++ {
		failed := 0
		for range n {
			if _, err := h.Query(ctx, "SELECT 1/0"); host.HasCode(err, "22012") {
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

// selftestHandlers counts the signal handlers that would run on a goroutine's stack: a later signal() of C
// loses the flag that the runtime has set.
func selftestHandlers(ctx context.Context, h host.Host) error {
	const onStack = 0x08000000
	// struct sigaction of the kernel on amd64 and arm64
	type action struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	handlers, without := 0, 0
	for sig := 1; sig < 32; sig++ {
		var a action
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), 0,
			uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a.mask), 0, 0)
		if errno != 0 || a.handler <= 1 { // SIG_DFL, SIG_IGN
			continue
		}
		handlers++
		if a.flags&onStack == 0 {
			without++
		}
	}
	if err := logf(ctx, h, "selftest handlers: %d without SA_ONSTACK of %d", without, handlers); err != nil {
		return err
	}
	_, err := h.Nap(ctx, -1, host.Napping)
	return err
}
