// Package safego starts goroutines.
//
// A panic that no goroutine recovers ends the process, and inside a PostgreSQL server that is a crash restart of the
// whole cluster. So every goroutine of the core is started here, and nowhere else.
package safego

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a panic that was recovered.
type PanicError struct {
	Value any
	Stack []byte
}

// Error implements error; the stack is left out, it belongs in a DETAIL.
func (e *PanicError) Error() string { return fmt.Sprintf("internal error: %v", e.Value) }

// Unwrap returns the value of the panic if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Do runs f and returns its error, or a *PanicError.
func Do(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

// Go runs f in a goroutine and hands its outcome to done, which must not panic. A nil done drops it.
func Go(f func() error, done func(error)) {
	go func() {
		err := Do(f)
		if done != nil {
			done(err)
		}
	}()
}
