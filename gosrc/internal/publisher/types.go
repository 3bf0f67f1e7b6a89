package publisher

import "github.com/replsync/replsync/gosrc/internal/host"

// Problem is why a sequence could not be read.
type Problem uint8

// Problems; of several the first that applies.
const (
	None Problem = iota
	Missing
	NotASequence
	NoRight       // no SELECT on the sequence
	NoSchemaRight // no USAGE on the schema, which a server before 18 asks for where nextval was never called
	Locked        // by a transaction that changes or drops it
	Unlogged      // and the publisher is a standby, which has not its content
	Unreadable    // for another reason, which Detail gives
)

// Value is what the publisher says of a sequence.
type Value struct {
	Definition host.SequenceDefinition // valid unless it is missing or no sequence
	Position   host.SequencePosition   // valid without a problem
	Problem    Problem
	Detail     string
}
