package main

import (
	"encoding/binary"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// writer appends values as wire.h says.
type writer struct{ b []byte }

func (w *writer) bool(v bool) {
	if v {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}

func (w *writer) int32(v int32)   { w.b = binary.NativeEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) int64(v int64)   { w.b = binary.NativeEndian.AppendUint64(w.b, uint64(v)) }
func (w *writer) oid(v host.OID)  { w.b = binary.NativeEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) uint64(v uint64) { w.b = binary.NativeEndian.AppendUint64(w.b, v) }
func (w *writer) uint32(v uint32) { w.b = binary.NativeEndian.AppendUint32(w.b, v) }
func (w *writer) error(err error) { w.message(describe(err)) }
func (w *writer) name(n host.SequenceName) {
	w.text(n.Schema)
	w.text(n.Name)
}

// text writes what PostgreSQL can take: no NUL, and valid UTF-8.
func (w *writer) text(s string) {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "")
	w.int32(int32(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) message(m host.Message) {
	w.text(m.SQLState)
	w.text(m.Text)
	w.text(m.Detail)
	w.text(m.Hint)
}

func (w *writer) position(p host.SequencePosition) {
	w.int64(p.LastValue)
	w.bool(p.IsCalled)
}

// describe returns an empty message for no error.
func describe(err error) host.Message {
	if err == nil {
		return host.Message{}
	}
	return host.Describe(err)
}

// reader takes values; once they end early, all that follow are zero and err says so.
type reader struct {
	b      []byte
	shared string // what was left when [reader.share] was called
	err    error
}

func (r *reader) take(n int) []byte {
	if n < 0 || len(r.b) < n {
		r.err, r.b = errShortAnswer, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) bool() bool {
	v := r.take(1)
	return v != nil && v[0] != 0
}

func (r *reader) uint32() uint32 {
	v := r.take(4)
	if v == nil {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

func (r *reader) uint64() uint64 {
	v := r.take(8)
	if v == nil {
		return 0
	}
	return binary.NativeEndian.Uint64(v)
}

func (r *reader) int32() int32  { return int32(r.uint32()) }
func (r *reader) int64() int64  { return int64(r.uint64()) }
func (r *reader) oid() host.OID { return host.OID(r.uint32()) }

// text reads a text, "" for NULL.
func (r *reader) text() string {
	n := r.int32()
	if n <= 0 {
		return ""
	}
	v := r.take(int(n))
	if r.shared == "" {
		return string(v)
	}
	end := len(r.shared) - len(r.b)
	return r.shared[end-len(v) : end]
}

// share makes the texts that follow parts of one string: many of them are one allocation, which is kept as long as one of them is.
func (r *reader) share() { r.shared = string(r.b) }

func (r *reader) texts() []string {
	var s []string
	for range r.count() {
		s = append(s, r.text())
	}
	return s
}

// count reads how many values follow, none of which is shorter than a byte.
func (r *reader) count() int {
	n := int(r.int32())
	if n < 0 || n > len(r.b) {
		r.err, r.b = errShortAnswer, nil
		return 0
	}
	return n
}

// error reads an error, nil if there is none.
func (r *reader) error() error {
	m := host.Message{SQLState: r.text(), Text: r.text(), Detail: r.text(), Hint: r.text()}
	if m.SQLState == "" {
		return nil
	}
	return &host.Error{Message: m}
}

func (r *reader) name() host.SequenceName {
	return host.SequenceName{Schema: r.text(), Name: r.text()}
}

func (r *reader) position() host.SequencePosition {
	return host.SequencePosition{LastValue: r.int64(), IsCalled: r.bool()}
}
