package sequencesync

import (
	"fmt"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
	"github.com/replsync/replsync/gosrc/internal/sequence"
)

// finding is what a cycle has found of a sequence, and done about it.
type finding struct {
	local  *host.LocalSequence
	value  *publisher.Value
	action string
	reason reason
	detail string
	hint   string

	set       bool // to be set
	to        host.SequencePosition
	backwards bool
	after     host.SequencePosition
}

// rules are those of a subscription, and of the call.
type rules struct {
	subscription string
	role         string
	margin       int64
	backwards    bool
	// disabled: the subscription may be one that was cut over from, and nobody asks.
	disabled bool
	// overtaken: a request may have set sequences since this cycle read them.
	overtaken bool
}

// examine finds the one thing that there is to say of a sequence.
func (r *rules) examine(local *host.LocalSequence, value *publisher.Value) finding {
	f := finding{local: local, value: value, after: local.Position}
	s := subject{name: local.SequenceName, subscription: r.subscription, role: r.role, publisher: value.Definition}
	switch {
	case local.NotOurs != "" && local.OID != 0:
		f.action, f.reason = actionSkipped, reason(local.NotOurs)
	case value.Problem != publisher.None:
		f.action, f.reason, f.detail = actionFailed, publisherReason(value.Problem), value.Detail
		if s.schemaRight = value.Problem == publisher.NoSchemaRight; s.schemaRight {
			f.detail = "A server before version 18 shows the position of a sequence that was never called only to those who may use its schema."
		}
	case local.OID == 0:
		f.action, f.reason = actionFailed, reasonMissingHere
		if local.NotOurs != "" {
			f.reason = reason(local.NotOurs)
		}
	case local.Definition != value.Definition:
		s.differences = sequence.Differences(value.Definition, local.Definition)
		f.action, f.reason, f.detail = actionFailed, reasonDefinition, sequence.Detail(s.differences)
	case value.Position.LastValue < local.Definition.Min || value.Position.LastValue > local.Definition.Max:
		f.action, f.reason = actionFailed, reasonOutOfRange
		f.detail = fmt.Sprintf("The publisher's value is %d, outside of %d to %d.", value.Position.LastValue, local.Definition.Min, local.Definition.Max)
	default:
		r.decide(&f)
	}
	if f.reason != reasonNone {
		f.hint = f.reason.hint(s)
	}
	return f
}

func (r *rules) decide(f *finding) {
	d := sequence.Decide(f.local.Definition, f.local.Position, f.value.Position, r.margin, r.backwards)
	if d.Clamped {
		f.reason = reasonClamped
		f.detail = "The sequence stands as far ahead of the publisher as leaves one more value."
	}
	switch d.Action {
	case sequence.Unchanged:
		f.action = actionUnchanged
	case sequence.Keep:
		f.action, f.reason, f.detail = actionKept, reasonAhead, ""
	case sequence.Set:
		if r.disabled && f.local.Definition.Cycle {
			// It has no direction in which it could only be ahead.
			f.action, f.reason, f.detail, f.after = actionKept, reasonDisabled, "", f.local.Position
			return
		}
		if r.overtaken && d.Backwards {
			// It might be set back to an older value. The next cycle looks again.
			f.action = actionKept
			return
		}
		f.action, f.set, f.to, f.backwards, f.after = actionSet, true, d.To, d.Backwards, d.To
	}
}

// settle takes in what became of a set.
func (r *rules) settle(f *finding, result *host.SequenceSetResult) {
	if result.Err == nil {
		f.local.Position, f.after = result.Before, result.After
	} else {
		f.after = f.local.Position
	}
	s := subject{name: f.local.SequenceName, subscription: r.subscription, role: r.role, publisher: f.value.Definition}
	switch {
	case result.Err != nil:
		f.reason = localReason(result.Err)
		f.action, f.detail = actionFailed, sentence(host.Describe(result.Err).Text)
		if f.reason == reasonDropped {
			f.action = actionSkipped
		}
		// That of the server names the roles.
		if f.hint = host.Describe(result.Err).Hint; f.hint == "" {
			f.hint = f.reason.hint(s)
		}
	case result.After != f.to:
		// It moved since it was read.
		f.action, f.reason, f.detail = actionKept, reasonAhead, ""
		f.hint = reasonAhead.hint(s)
	case result.Before == f.to:
		f.action = actionUnchanged
	}
}

// record is what is kept of a finding.
func (f *finding) record() host.SequenceRecord {
	rec := host.SequenceRecord{
		SequenceName: f.local.SequenceName, OID: f.local.OID,
		Publisher: f.value.Position, Known: f.value.Problem == publisher.None,
		Detail: f.detail, Hint: f.hint,
	}
	if f.reason.isProblem() {
		rec.Problem = string(f.reason)
	}
	return rec
}

// row is what a caller is shown of a finding.
func (f *finding) row() host.SequenceRow {
	return host.SequenceRow{
		SequenceName: f.local.SequenceName,
		Publisher:    f.value.Position, PublisherKnown: f.value.Problem == publisher.None,
		Before: f.local.Position.LastValue, After: f.after.LastValue, LocalKnown: f.local.OID != 0,
		Action: f.action, Reason: string(f.reason), Detail: f.detail, Hint: f.hint,
	}
}
