package main

/*
#include "core_api.h"
*/
import "C"

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/replsync/replsync/gosrc/internal/host"
)

var errShortAnswer = errors.New("answer of the shim is too short")

// bytesOf shows a C struct as bytes.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// raw returns the bytes of a C struct, for the queue.
func raw[T any](v *T) []byte {
	return bytes.Clone(bytesOf(v))
}

// cooked reads a C struct from the bytes of an answer.
func cooked[T any](b []byte) (v T, err error) {
	if uintptr(len(b)) < unsafe.Sizeof(v) {
		return v, errShortAnswer
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b)
	return v, nil
}

// put copies s into a fixed C field, cut at a character boundary so that it stays NUL-terminated UTF-8.
func put(field []C.char, s string) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(field))), len(field)), clip(s, len(field)))
}

// clip makes a text valid, and cuts it off where it would not fit into size bytes with a NUL behind it.
func clip(s string, size int) string {
	s = strings.ToValidUTF8(s, "?")
	if max := size - 1; len(s) > max {
		for max > 0 && !utf8.RuneStart(s[max]) {
			max--
		}
		s = s[:max]
	}
	return s
}

// putOutcome says how something ended; a nil error is success.
func putOutcome(c *C.CoreOutcome, err error) {
	if err == nil {
		return
	}
	m := host.Describe(err)
	put(c.sqlstate[:], m.SQLState)
	put(c.message[:], m.Text)
	put(c.detail[:], m.Detail)
	put(c.hint[:], m.Hint)
}

func get(field []C.char) string {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(field))), len(field))
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// nulList joins texts, each followed by a NUL.
func nulList(texts ...string) []byte {
	var b []byte
	for _, s := range texts {
		b = append(b, strings.ReplaceAll(s, "\x00", "")...)
		b = append(b, 0)
	}
	return b
}

func splitNulList(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

func logToC(level host.Level, m host.Message) []byte {
	head := binary.NativeEndian.AppendUint32(nil, uint32(level))
	head = append(head, 0, 0, 0, 0)
	return append(head, nulList(m.SQLState, m.Text, m.Detail, m.Hint)...)
}

var slotFlags = []struct {
	bit   C.int32_t
	field func(*host.Slot) *bool
}{
	{C.CORE_SLOT_LOGICAL, func(s *host.Slot) *bool { return &s.Logical }},
	{C.CORE_SLOT_TEMPORARY, func(s *host.Slot) *bool { return &s.Temporary }},
	{C.CORE_SLOT_TWO_PHASE, func(s *host.Slot) *bool { return &s.TwoPhase }},
	{C.CORE_SLOT_FAILOVER, func(s *host.Slot) *bool { return &s.Failover }},
	{C.CORE_SLOT_SYNCED, func(s *host.Slot) *bool { return &s.Synced }},
	{C.CORE_SLOT_MARKED, func(s *host.Slot) *bool { return &s.Marked }},
	{C.CORE_SLOT_INVALIDATED, func(s *host.Slot) *bool { return &s.Invalidated }},
	{C.CORE_SLOT_UNSAVED, func(s *host.Slot) *bool { return &s.Unsaved }},
}

func slotToC(s host.Slot) []byte {
	var c C.CoreSlot
	put(c.name[:], s.Name)
	put(c.plugin[:], s.Plugin)
	put(c.marker[:], s.Marker)
	c.restart_lsn = C.uint64_t(s.RestartLSN)
	c.confirmed_flush_lsn = C.uint64_t(s.ConfirmedFlushLSN)
	c.two_phase_at = C.uint64_t(s.TwoPhaseAt)
	c.catalog_xmin = C.uint32_t(s.CatalogXmin)
	c.database = C.uint32_t(s.Database)
	c.index = C.int32_t(s.Index)
	for _, f := range slotFlags {
		if *f.field(&s) {
			c.flags |= f.bit
		}
	}
	return raw(&c)
}

func slotsToC(slots []host.Slot) []byte {
	data := make([]byte, 0, len(slots)*int(unsafe.Sizeof(C.CoreSlot{})))
	for _, slot := range slots {
		data = append(data, slotToC(slot)...)
	}
	return data
}

// slotList is a list of slots as the shim sent it, and what it says.
type slotList struct {
	sent  []byte
	slots []host.Slot
}

// next reads the list that follows this one, if there is one. Most slots are what they were, and most often all are.
func (l *slotList) next(b []byte) (*slotList, error) {
	if l != nil && len(b) > 0 && unsafe.SliceData(b) == unsafe.SliceData(l.sent) {
		return l, nil
	}
	size := int(unsafe.Sizeof(C.CoreSlot{}))
	n := len(b) / size
	if n*size != len(b) {
		return nil, errShortAnswer
	}
	next := &slotList{sent: b, slots: make([]host.Slot, n)}
	for i := range next.slots {
		from, to := i*size, (i+1)*size
		if l != nil && to <= len(l.sent) && bytes.Equal(b[from:to], l.sent[from:to]) {
			next.slots[i] = l.slots[i]
			continue
		}
		var err error
		if next.slots[i], err = slotFromC(b[from:to]); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func slotFromC(b []byte) (host.Slot, error) {
	c, err := cooked[C.CoreSlot](b)
	if err != nil {
		return host.Slot{}, err
	}
	s := host.Slot{
		Name:              get(c.name[:]),
		Plugin:            get(c.plugin[:]),
		Marker:            get(c.marker[:]),
		Invalidation:      get(c.invalidation[:]),
		Database:          uint32(c.database),
		RestartLSN:        host.LSN(c.restart_lsn),
		ConfirmedFlushLSN: host.LSN(c.confirmed_flush_lsn),
		TwoPhaseAt:        host.LSN(c.two_phase_at),
		CatalogXmin:       host.XID(c.catalog_xmin),
		ActivePID:         int32(c.active_pid),
		Index:             int32(c.index),
	}
	for _, f := range slotFlags {
		*f.field(&s) = c.flags&f.bit != 0
	}
	return s, nil
}

func recoveryFromC(b []byte) (host.Recovery, error) {
	c, err := cooked[C.CoreRecovery](b)
	if err != nil {
		return host.Recovery{}, err
	}
	return host.Recovery{
		SystemIdentifier: uint64(c.system_identifier),
		Timeline:         uint32(c.timeline),
		ReplayLSN:        host.LSN(c.replay_lsn),
		FlushLSN:         host.LSN(c.flush_lsn),
		WALSegmentSize:   uint64(c.wal_segment_size),
		NextXID:          host.XID(c.next_xid),
		WalReceiverPID:   int32(c.walreceiver_pid),
		ServerVersionNum: int(c.server_version_num),
		InRecovery:       c.in_recovery != 0,
		PromoteTriggered: c.promote_triggered != 0,
		LogicalDecoding:  c.logical_decoding != 0,
		ReloadTime:       time.UnixMicro(int64(c.reload_time)),
		FeedbackLapses:   uint32(c.feedback_lapses),
	}, nil
}

func wakeupFromC(b []byte) (host.Wakeup, error) {
	c, err := cooked[C.CoreWakeup](b)
	if err != nil {
		return host.Wakeup{}, err
	}
	return host.Wakeup{
		Timeout:  c.reasons&C.CORE_WAKE_TIMEOUT != 0,
		Reload:   c.reasons&C.CORE_WAKE_RELOAD != 0,
		Sync:     c.reasons&C.CORE_WAKE_SYNC != 0,
		Cancel:   c.reasons&C.CORE_WAKE_CANCEL != 0,
		News:     c.reasons&C.CORE_WAKE_NEWS != 0,
		Command:  host.Command(c.command),
		Argument: get(c.argument[:]),
	}, nil
}

// passToC leaves rows out that shown already has, but for the time.
func passToC(p host.Pass, shown []host.SlotStatus) []byte {
	c := C.CorePass{
		duration_us: C.int64_t(p.Duration.Microseconds()),
		nrows:       C.int64_t(len(p.Slots)),
		state:       C.int32_t(p.State),
	}
	putOutcome(&c.outcome, p.Err)
	switch {
	case p.Err != nil && p.Slots == nil:
	case confirms(p.Slots, shown):
		c.rows, c.nrows = C.CORE_ROWS_CONFIRMED, 0
		c.last_sync_at = C.int64_t(p.Slots[0].LastSyncAt.UnixMicro())
		return raw(&c)
	default:
		c.rows = C.CORE_ROWS_REPLACED
	}
	w := writer{append(make([]byte, 0, int(unsafe.Sizeof(c))+len(p.Slots)*statusSize), bytesOf(&c)...)}
	for i := range p.Slots {
		w.text(p.Slots[i].Name)
	}
	for i := range p.Slots {
		w.status(&p.Slots[i])
	}
	return w.b
}

// statusSize is what most slots take.
const statusSize = 192

// confirms tells whether rows say the same as those before them, all as of one time. An error is counted each time.
func confirms(rows, before []host.SlotStatus) bool {
	if len(rows) == 0 || len(rows) != len(before) || rows[0].LastSyncAt.IsZero() {
		return false
	}
	for i := range rows {
		a, b := &rows[i], &before[i]
		if a.Error != "" || !a.LastSyncAt.Equal(rows[0].LastSyncAt) || !a.SameButTime(b) {
			return false
		}
	}
	return true
}

// status writes all but the name.
func (w *writer) status(s *host.SlotStatus) {
	for _, text := range []string{s.Database, s.Plugin, s.State, s.Action, s.Reason, s.Hint, s.Error} {
		w.text(clip(text, C.CORE_TEXT_LEN))
	}
	for _, lsn := range []host.LSN{s.RemoteRestartLSN, s.RemoteConfirmedFlushLSN, s.RestartLSN, s.ConfirmedFlushLSN} {
		w.uint64(uint64(lsn))
	}
	if s.LastSyncAt.IsZero() {
		w.int64(0)
	} else {
		w.int64(s.LastSyncAt.UnixMicro())
	}
}

func checkToC(rows []host.CheckRow) []byte {
	var b []byte
	for _, r := range rows {
		ok := ""
		switch {
		case r.OK == nil:
		case *r.OK:
			ok = "t"
		default:
			ok = "f"
		}
		b = append(b, nulList(ok, r.Name, r.Object, strings.ToValidUTF8(r.Detail, "?"), strings.ToValidUTF8(r.Hint, "?"))...)
	}
	return b
}

func commandResultToC(value int64, err error) []byte {
	c := C.CoreCommandResult{value: C.int64_t(value)}
	putOutcome(&c.outcome, err)
	return raw(&c)
}

func progressToC(phase string, done, total int) []byte {
	c := C.CoreProgress{done: C.int64_t(done), total: C.int64_t(total)}
	put(c.phase[:], phase)
	return raw(&c)
}

func napToC(timeout time.Duration, show host.State) []byte {
	c := C.CoreNap{timeout_ms: C.int64_t(timeout.Milliseconds()), state: C.int32_t(show)}
	if timeout < 0 {
		c.timeout_ms = -1
	}
	return raw(&c)
}

// rowsFromC reads what query.c writes: int32 number of columns, then for each value int32 length, -1 for
// NULL, and the text.
func rowsFromC(b []byte) (host.Rows, error) {
	word := func() (int, error) {
		if len(b) < 4 {
			return 0, errShortAnswer
		}
		n := int32(binary.NativeEndian.Uint32(b))
		b = b[4:]
		return int(n), nil
	}
	columns, err := word()
	if err != nil || columns == 0 {
		return nil, err
	}
	var rows host.Rows
	for len(b) > 0 {
		row := make([]*string, columns)
		for i := range row {
			n, err := word()
			if err != nil {
				return nil, err
			}
			if n < 0 {
				continue
			}
			if len(b) < n {
				return nil, errShortAnswer
			}
			s := string(b[:n])
			row[i], b = &s, b[n:]
		}
		rows = append(rows, row)
	}
	return rows, nil
}
