package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the WAL.
type LSN uint64

// String formats as PostgreSQL up to 18 does, without zero padding. The names of snapshot files use
// this form on every version.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads the text form of pg_lsn, padded (19 and later) or not.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("invalid LSN %q", s)
	}
	return LSN(h<<32 | l), nil
}

// XID is a transaction id; ids are compared modulo 2^32.
type XID uint32

// Precedes is TransactionIdPrecedes (access/transam/transam.c): ids below 3 are special and come first.
func (x XID) Precedes(y XID) bool {
	if x < 3 || y < 3 {
		return x < y
	}
	return int32(x-y) < 0
}

// Message is what ereport takes: lower-case message without a period, detail and hint as full sentences.
type Message struct {
	SQLState, Text, Detail, Hint string
}

// Error is an error that can become an ereport.
type Error struct {
	Message
	Err error // the cause, if any
}

// Errorf makes an Error with a message only.
func Errorf(sqlState, format string, args ...any) *Error {
	return &Error{Message: Message{SQLState: sqlState, Text: fmt.Sprintf(format, args...)}}
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Describe turns any error into a Message. Errors of other packages take part by having a method
// Message() Message.
func Describe(err error) Message {
	var e *Error
	if errors.As(err, &e) {
		return e.Message
	}
	var m interface{ Message() Message }
	if errors.As(err, &m) {
		return m.Message()
	}
	return Message{SQLState: "XX000", Text: err.Error()}
}

// HasCode tells whether err carries that SQLSTATE.
func HasCode(err error, sqlState string) bool {
	var e *Error
	return errors.As(err, &e) && e.SQLState == sqlState
}
