package slotsync

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// ErrPromoted ends the worker of a server that was a standby and is one no more.
var ErrPromoted = errors.New("the server was promoted")

// dropSlots drops the copies whose names match a pattern. It refuses before it drops anything where the next pass would
// make a copy again.
func (w *Worker) dropSlots(ctx context.Context, s *Settings, r host.Recovery, pattern string) (int64, error) {
	// An empty list of patterns has a meaning in replsync.slots only.
	if strings.TrimSpace(pattern) == "" {
		return 0, checkPattern(pattern, "")
	}
	names, err := ParsePatterns(pattern, firstConflict)
	if err != nil {
		return 0, err
	}
	if names.failover {
		e := host.Errorf("22023", "\"%s\" does not name copies to drop", failoverWord)
		e.Hint = "Name the slots, with patterns of \"*\" and \"?\"."
		return 0, e
	}
	kept, err := ParsePatterns(s.Slots, majorOf(r.ServerVersionNum))
	if err != nil {
		return 0, err
	}
	slots, err := w.host.Slots(ctx)
	if err != nil {
		return 0, err
	}
	var matching []host.Slot
	for _, slot := range slots {
		if !isCopy(slot) || !slot.Marked || !names.Wanted(slot.Name, false) {
			continue
		}
		if s.SyncSlots && w.wants(kept, slot) {
			return 0, errStillWanted(slot.Name)
		}
		matching = append(matching, slot)
	}
	return w.dropAll(ctx, matching)
}

// wants tells whether the next pass would keep a copy: by the primary's slot as last read, else by the copy.
func (w *Worker) wants(kept Patterns, slot host.Slot) bool {
	mark, _ := parseMarker(slot.Marker)
	failover := mark.Failover
	if row, known := w.memory.remote[slot.Name]; known {
		failover = row.Failover
	}
	return kept.Wanted(slot.Name, failover)
}

func errStillWanted(name string) error {
	e := host.Errorf("55000", "replication slot \"%s\" is still to be kept here", name)
	e.Detail = "The next pass would copy it again."
	e.Hint = "Take it out of replsync.slots, or set replsync.sync_slots to off, before it is dropped."
	return e
}

// dropAll drops what it can and returns how many, with the first error.
func (w *Worker) dropAll(ctx context.Context, slots []host.Slot) (int64, error) {
	var dropped int64
	var first error
	names := make([]string, len(slots))
	for i, slot := range slots {
		names[i] = slot.Name
	}
	for i, err := range w.host.DropSlots(ctx, names) {
		slot := slots[i]
		if err != nil {
			if first == nil {
				first = fmt.Errorf("could not drop replication slot \"%s\": %w", slot.Name, err)
			}
			continue
		}
		dropped++
		w.memory.forget(slot.Name)
		w.hideRow(slot.Name)
	}
	return dropped, first
}

// MarkPromoted settles the copies on a server that is no standby any more: those that were not proven are dropped, the others are
// real slots now, and are marked so that they are not taken for copies if this server becomes a standby again. It
// returns how many of each there were; an error leaves some for another call.
func MarkPromoted(ctx context.Context, h host.Host) (kept, dropped int, err error) {
	slots, err := h.Slots(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, slot := range slots {
		if !slot.Marked || !slot.Logical {
			continue
		}
		mark, ok := parseMarker(slot.Marker)
		var failed error
		switch {
		case ok && mark.Promoted:
			continue
		case !ok && slot.Plugin != placeholder:
			// Another version of replsync made it, and may have called it ready.
			_ = h.Log(ctx, host.Warning, host.Message{
				Text: fmt.Sprintf("replication slot \"%s\" is kept, although its marker cannot be read", slot.Name),
				Hint: fmt.Sprintf("If it is not needed, drop it with SELECT pg_drop_replication_slot('%s').", slot.Name),
			})
			continue
		case !ok || !mark.Proven || slot.Plugin == placeholder:
			if failed = h.DropPromoted(ctx, slot.Name); failed == nil {
				dropped++
			}
		default:
			mark.Promoted = true
			slot.Marker = mark.String()
			if failed = h.UpdateSlot(ctx, slot); failed == nil {
				kept++
			}
		}
		if err == nil {
			err = failed
		}
	}
	return kept, dropped, err
}
