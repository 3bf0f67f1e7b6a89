package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultDeadline bounds every wait that has no deadline of its own. It is what
// a loaded machine may need, not what is expected.
const DefaultDeadline = 60 * time.Second

var errNotYet = errors.New("condition is false")

// Eventually polls f until it returns true or a nil error, and fails the test
// when deadline has passed. what completes the sentence "timed out waiting
// for"; the last error that f returned is printed as the last state.
func Eventually[F func() bool | func() error](t T, deadline time.Duration, what string, f F) {
	t.Helper()
	if err := poll(deadline, f); err != nil {
		t.Fatalf("timed out after %v waiting for %s; last state: %v", deadline, what, err)
	}
}

// Never polls f for the whole of duration and fails the test as soon as it
// returns true or an error that is not nil. It proves an absence, so it always
// takes that long: keep duration short.
func Never[F func() bool | func() error](t T, duration time.Duration, what string, f F) {
	t.Helper()
	end := time.Now().Add(duration)
	for {
		switch f := any(f).(type) {
		case func() bool:
			if f() {
				t.Fatalf("%s", what)
			}
		case func() error:
			if err := f(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if time.Now().After(end) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// poll calls f with growing pauses until it succeeds, and returns its last
// error once deadline has passed.
func poll[F func() bool | func() error](deadline time.Duration, f F) error {
	end := time.Now().Add(deadline)
	pause := 2 * time.Millisecond
	for {
		var err error
		switch f := any(f).(type) {
		case func() bool:
			if !f() {
				err = errNotYet
			}
		case func() error:
			err = f()
		}
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return err
		}
		time.Sleep(pause)
		pause = min(pause*3/2, 100*time.Millisecond)
	}
}

// within returns a context that ends after DefaultDeadline, for a call that has
// no deadline of its own.
func within() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), DefaultDeadline,
		fmt.Errorf("no answer within %v", DefaultDeadline))
}
