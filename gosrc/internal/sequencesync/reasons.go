package sequencesync

import (
	"fmt"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
	"github.com/replsync/replsync/gosrc/internal/remote"
	"github.com/replsync/replsync/gosrc/internal/sequence"
)

// Actions of a row.
const (
	actionSet       = "set"
	actionUnchanged = "unchanged"
	actionKept      = "kept"
	actionSkipped   = "skipped"
	actionFailed    = "failed"
)

// reason says in one word why a sequence is not at the publisher's position.
type reason string

const (
	reasonNone              reason = ""
	reasonMissingPublisher  reason = "missing_on_publisher"
	reasonMissingHere       reason = "missing_here"
	reasonNoRightPublisher  reason = "no_right_on_publisher"
	reasonNoRightHere       reason = "no_right_here"
	reasonDefinition        reason = "definition_differs"
	reasonOutOfRange        reason = "out_of_range"
	reasonDropped           reason = "dropped_meanwhile"
	reasonLocked            reason = "locked"
	reasonLockedPublisher   reason = "locked_on_publisher"
	reasonNotASequence      reason = "not_a_sequence"
	reasonUnloggedPublisher reason = "unlogged_on_publisher"
	reasonCore              reason = "synchronized_by_core"
	reasonClamped           reason = "margin_clamped"
	reasonAhead             reason = "ahead_of_publisher"
	reasonDisabled          reason = "subscription_disabled"
	reasonNotReached        reason = "publisher_not_reached"
	reasonError             reason = "error"
)

// isProblem tells the reasons for which a sequence is not synchronized from those that say more about one that is.
func (r reason) isProblem() bool {
	switch r {
	case reasonNone, reasonCore, reasonClamped, reasonAhead, reasonDisabled:
		return false
	}
	return true
}

// subject is what a hint is about.
type subject struct {
	name         host.SequenceName
	subscription string
	role         string // of the connection to the publisher
	publisher    host.SequenceDefinition
	differences  []sequence.Difference
	schemaRight  bool // it is the right to the schema that is missing
}

// hint names the command that mends it, or says what will happen.
func (r reason) hint(s subject) string {
	name := publisher.QuoteName(s.name)
	switch r {
	case reasonMissingPublisher:
		return fmt.Sprintf("If it was dropped or renamed there, run SELECT replsync.refresh_selection(%s);", literal(s.subscription))
	case reasonMissingHere:
		return fmt.Sprintf("Run CREATE SEQUENCE %s AS %s; or exclude it from the selection.", name, sequence.Describe(s.publisher))
	case reasonNoRightPublisher:
		role := remote.QuoteIdentifier(s.role)
		if s.schemaRight {
			return fmt.Sprintf("On the publisher, run GRANT USAGE ON SCHEMA %s TO %s;", remote.QuoteIdentifier(s.name.Schema), role)
		}
		return fmt.Sprintf("On the publisher, run GRANT SELECT ON SEQUENCE %s TO %s;", name, role)
	case reasonNoRightHere:
		return fmt.Sprintf("Run GRANT UPDATE ON SEQUENCE %s to the sequence's owner, or to the subscription's owner where run_as_owner is set; the subscription's owner must be able to SET ROLE to the sequence's.", name)
	case reasonDefinition:
		return fmt.Sprintf("Run ALTER SEQUENCE %s %s;", name, sequence.Clauses(s.differences))
	case reasonOutOfRange:
		return fmt.Sprintf("Compare the bounds on both sides, and run ALTER SEQUENCE %s MINVALUE ... MAXVALUE ...;", name)
	case reasonDropped:
		return "The sequence was dropped here while it was looked at. The next cycle looks again."
	case reasonLocked:
		return fmt.Sprintf("A transaction here changes the sequence (SELECT pid FROM pg_locks WHERE relation = %s::regclass). It is tried again in the next cycle.", literal(name))
	case reasonLockedPublisher:
		return fmt.Sprintf("A transaction on the publisher changes or drops the sequence (SELECT pid FROM pg_locks WHERE relation = %s::regclass). It is tried again in the next cycle.", literal(name))
	case reasonNotASequence:
		return "The name belongs to another kind of object on one side. Rename that, or exclude the name from the selection."
	case reasonUnloggedPublisher:
		return fmt.Sprintf("The publisher is a standby, which has no content of unlogged sequences. On its primary, run ALTER SEQUENCE %s SET LOGGED; or exclude it from the selection.", name)
	case reasonCore:
		return "The subscription synchronizes the sequence itself: use ALTER SUBSCRIPTION ... REFRESH SEQUENCES."
	case reasonClamped:
		return fmt.Sprintf("The sequence is nearer to its end than the margin. To give it more room, run ALTER SEQUENCE %s with a wider bound on both sides.", name)
	case reasonAhead:
		return fmt.Sprintf("Something here has used the sequence, or its margin was larger. To set it back, run SELECT * FROM replsync.sync_sequences(%s, allow_backwards => true);", literal(s.subscription))
	case reasonDisabled:
		return fmt.Sprintf("A sequence that cycles follows the publisher while the subscription is enabled. To set it, run SELECT * FROM replsync.sync_sequences(%s).", literal(s.subscription))
	case reasonNotReached:
		return "See replsync.worker_status for the error. It is tried again."
	case reasonNone, reasonError:
	}
	return ""
}

// literal quotes a string for SQL.
func literal(s string) string {
	if strings.Contains(s, `\`) {
		return " E'" + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(s) + "'"
	}
	return "'" + strings.ReplaceAll(s, `'`, `''`) + "'"
}

// publisherReason maps what the publisher's side has found.
func publisherReason(p publisher.Problem) reason {
	switch p {
	case publisher.None:
		return reasonNone
	case publisher.Missing:
		return reasonMissingPublisher
	case publisher.NotASequence:
		return reasonNotASequence
	case publisher.NoRight, publisher.NoSchemaRight:
		return reasonNoRightPublisher
	case publisher.Locked:
		return reasonLockedPublisher
	case publisher.Unlogged:
		return reasonUnloggedPublisher
	case publisher.Unreadable:
	}
	return reasonError
}

// localReason maps why a sequence could not be set.
func localReason(err error) reason {
	for code, r := range map[string]reason{
		"42501": reasonNoRightHere,
		"22003": reasonOutOfRange,
		"22023": reasonOutOfRange,
		"42P01": reasonDropped,
		"42704": reasonDropped,
		"42809": reasonNotASequence,
		"55P03": reasonLocked,
	} {
		if host.HasCode(err, code) {
			return r
		}
	}
	return reasonError
}
