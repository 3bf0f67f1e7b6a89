package sequencesync

import (
	"context"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
	"github.com/replsync/replsync/gosrc/internal/sequence"
)

// Names of the checks that only the publisher can answer.
const (
	checkReached   = "publisher"
	checkIdentity  = "publisher_identity"
	checkSequences = "publisher_sequences"
	checkSequence  = "publisher_sequence"

	// checkConfirmed is a part of the check "received", which cutover_check() makes.
	checkConfirmed = "publisher_confirmed"
)

// check asks the publisher what cutover_check() cannot know from here. A publisher that is gone is no reason against a
// cutover: its row is unknown.
func (w *Worker) check(ctx context.Context, r *host.SequenceRequest, p Publisher, rows emit) error {
	sub, err := w.committed(ctx, &r.Subscription)
	if err != nil {
		return err
	}
	c := w.newCycle(sub, p, nil, nil)
	lagging := 0
	c.found = func(findings []finding) error {
		found := laggards(findings)
		lagging += len(found)
		return rows(append(found, newTroubles(findings)...))
	}
	confirmed := host.SequenceRow{Check: checkConfirmed, Object: sub.Slot}
	err = c.run(ctx)
	// What a slot of another server has confirmed says nothing of the rows that are meant.
	if err == nil && isSame(sub.Watermark, c.mark.Watermark) && sub.Slot != "" {
		confirmed.LSN, err = p.Confirmed(ctx, sub.Slot)
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		m := host.Describe(err)
		return rows([]host.SequenceRow{{
			Check: checkReached, Object: sub.Name, Detail: sentence(m.Text) + spaced(m.Detail),
			Hint: m.Hint,
		}})
	}
	return rows([]host.SequenceRow{
		{
			Check: checkReached, Object: sub.Name, OK: known(true),
			Detail: fmt.Sprintf("The publisher is at %s of timeline %d.", c.mark.LSN, c.mark.Timeline),
		},
		identity(sub, c.mark.Watermark),
		drift(sub, c, lagging),
		confirmed,
	})
}

// identity tells whether the publisher is the one that the sequences were last read from.
func identity(sub *host.Subscription, now host.Watermark) host.SequenceRow {
	row := host.SequenceRow{Check: checkIdentity, Object: sub.Name}
	last := sub.Watermark
	switch {
	case last.SystemIdentifier == 0:
		row.Detail = "No cycle has ended yet."
		row.Hint = runSync(sub)
	case isSame(last, now):
		row.OK = known(true)
		row.Detail = fmt.Sprintf("The publisher is still system %d on timeline %d.", now.SystemIdentifier, now.Timeline)
	default:
		row.OK = known(false)
		row.Detail = fmt.Sprintf("The sequences were last read from system %d on timeline %d, and the publisher is system %d on timeline %d.",
			last.SystemIdentifier, last.Timeline, now.SystemIdentifier, now.Timeline)
		row.Hint = runSync(sub)
	}
	return row
}

// isSame tells whether both are of one server, and of one history of it.
func isSame(a, b host.Watermark) bool {
	return a.SystemIdentifier == b.SystemIdentifier && a.Timeline == b.Timeline
}

// drift tells whether a sequence stands behind the publisher's at this moment. Those that core synchronizes, and that lag,
// have rows of their own.
func drift(sub *host.Subscription, c *cycle, lagging int) host.SequenceRow {
	behind := c.behind + lagging
	row := host.SequenceRow{Check: checkSequences, Object: sub.Name, OK: known(behind == 0)}
	row.Detail = fmt.Sprintf("%d of %d sequences are behind the publisher.", behind, c.members)
	if behind > 0 {
		row.Hint = "Stop all writes on the publisher."
	}
	if c.behind > 0 {
		row.Hint += " " + runSync(sub)
	}
	return row
}

// laggards are the sequences that core synchronizes, and that it has not brought to where the publisher stands.
func laggards(findings []finding) []host.SequenceRow {
	var rows []host.SequenceRow
	for i := range findings {
		f := &findings[i]
		if f.reason != reasonCore || f.value.Problem != publisher.None || f.local.Definition != f.value.Definition {
			continue
		}
		here, there := f.local.Position, f.value.Position
		order := sequence.Compare(f.local.Definition.Increment, here, there)
		if order == 0 || order > 0 && !f.local.Definition.Cycle {
			continue
		}
		row := f.row()
		row.Check, row.Object, row.OK = checkSequence, f.local.Schema+"."+f.local.Name, known(false)
		row.Detail = fmt.Sprintf("The subscription synchronizes it itself, and it is at %s here and at %s on the publisher.",
			position(here), position(there))
		rows = append(rows, row)
	}
	return rows
}

func position(p host.SequencePosition) string {
	if !p.IsCalled {
		return fmt.Sprintf("%d (not called)", p.LastValue)
	}
	return strconv.FormatInt(p.LastValue, 10)
}

// newTroubles are the sequences that cannot be synchronized for a reason that is not recorded yet.
func newTroubles(findings []finding) []host.SequenceRow {
	var rows []host.SequenceRow
	for i := range findings {
		f := &findings[i]
		if !f.reason.isProblem() || f.local.Problem == string(f.reason) {
			continue
		}
		row := f.row()
		row.Check, row.Object, row.OK = checkSequence, f.local.Schema+"."+f.local.Name, known(false)
		row.Detail = string(f.reason) + "." + spaced(f.detail)
		rows = append(rows, row)
	}
	return rows
}

func runSync(sub *host.Subscription) string {
	return fmt.Sprintf("Run SELECT * FROM replsync.sync_sequences(%s);", literal(sub.Name))
}

func known(b bool) *bool { return &b }

// sentence makes one of a message.
func sentence(message string) string {
	first, size := utf8.DecodeRuneInString(message)
	return string(unicode.ToUpper(first)) + message[size:] + "."
}

// spaced puts a space before what follows something else.
func spaced(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}
