package sequence

import "github.com/replsync/replsync/gosrc/internal/host"

// Action is what is to be done about a sequence.
type Action uint8

// Actions of a decision.
const (
	Unchanged Action = iota // it stands where it should
	Keep                    // it is ahead, and stays
	Set
)

// Decision is an action and, for Set, the position.
type Decision struct {
	Action    Action
	To        host.SequencePosition
	Clamped   bool // the margin is smaller than asked for
	Backwards bool // this set may go back
}

// Decide compares a sequence here with the publisher's. Both have the definition.
//
// A sequence with a margin is set whenever it is nearer to the publisher than that: what it costs is one WAL record at each
// cycle in which the publisher's moved, as without a margin, and the distance is always the one that was asked for.
func Decide(def host.SequenceDefinition, local, publisher host.SequencePosition, margin int64, backwards bool) Decision {
	to, clamped := Target(def, publisher, margin)
	d := Decision{To: to, Clamped: clamped}
	switch {
	case local == to:
		d.Action = Unchanged
	case def.Cycle || backwards:
		d.Action, d.Backwards = Set, true
	case Compare(def.Increment, local, to) > 0:
		d.Action = Keep
	default:
		d.Action = Set
	}
	return d
}
