package slotsync

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// A refusal ends a pass before it has looked at any slot. lapse says that the primary may meanwhile remove catalog rows
// that copies need.
type refusal struct {
	err   *host.Error
	lapse bool
	// elsewhere says that the server is not the one to copy from: the next attempt looks again where that is.
	elsewhere bool
}

// Error implements error.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the *host.Error.
func (r *refusal) Unwrap() error { return r.err }

func refuse(text, detail, hint string) *refusal {
	return &refusal{err: &host.Error{Message: host.Message{SQLState: "55000", Text: text, Detail: detail, Hint: hint}}}
}

func (r *refusal) lapsing() *refusal {
	r.lapse = true
	return r
}

func (r *refusal) lookingElsewhere() *refusal {
	r.elsewhere = true
	return r
}

func isElsewhere(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.elsewhere
}

func isRefusal(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

func errNotStandby() error {
	return refuse("replication slots can only be synchronized to a standby server", "", "")
}

const requires = "replication slot synchronization requires %s"

// refuseHere checks this server. Only what the worker cannot do without is a refusal; the rest is a slot's row.
func refuseHere(s *Settings, r host.Recovery) *refusal {
	refused, lapse := refuseState(s, r), refuseFeedback(s)
	switch {
	case refused == nil:
		return cmp.Or(lapse, refuseConninfo(s))
	case refused != errPromotion && r.InRecovery && lapse != nil:
		return refused.lapsing()
	}
	return refused
}

func refuseState(s *Settings, r host.Recovery) *refusal {
	major := majorOf(r.ServerVersionNum)
	switch {
	case !r.InRecovery:
		return refuse("replication slots can only be synchronized to a standby server", "", "")
	case r.PromoteTriggered:
		return errPromotion
	case s.CoreSync:
		return refuse("replication slots are synchronized by the server itself",
			"The parameter sync_replication_slots is on; two workers on the same slots would undo each other's work.",
			"Set sync_replication_slots to off for replsync to go on, or replsync.sync_slots to off.")
	case s.WALLevel != "logical" && major < firstDynamic:
		return refuse(fmt.Sprintf(requires, `"wal_level" to be "logical"`),
			fmt.Sprintf("It is \"%s\" on this standby.", s.WALLevel),
			"Set wal_level to logical on both servers and restart them.")
	}
	return nil
}

// refuseFeedback checks that this standby sends hot standby feedback.
func refuseFeedback(s *Settings) *refusal {
	switch {
	case s.PrimarySlotName == "":
		return refuse(fmt.Sprintf(requires, `"primary_slot_name" to be set`),
			"Only a physical slot makes the primary keep what the copies need.",
			"Make a physical slot on the primary, and name it in primary_slot_name.").lapsing()
	case !s.HotStandbyFeedback:
		return refuse(fmt.Sprintf(requires, `"hot_standby_feedback" to be enabled`),
			"Without it the primary removes catalog rows that the copies need.",
			"Set hot_standby_feedback to on.").lapsing()
	case s.StatusInterval == 0:
		return refuse(fmt.Sprintf(requires, `"wal_receiver_status_interval" to be more than 0`),
			"With 0 this standby sends no hot standby feedback.",
			"Set wal_receiver_status_interval to a few seconds.").lapsing()
	}
	return nil
}

func refuseConninfo(s *Settings) *refusal {
	if s.Conninfo != "" {
		return nil
	}
	return refuse(fmt.Sprintf(requires, `"primary_conninfo" to be set`), "",
		"Set primary_conninfo, or replsync.primary_conninfo.")
}

// refuseThere checks the primary.
func refuseThere(s *Settings, r host.Recovery, p *primary.State) *refusal {
	switch {
	case p.SystemIdentifier != r.SystemIdentifier:
		return refuse("the server to copy replication slots from is not this standby's primary",
			fmt.Sprintf("Its system identifier is %d, this server's is %d.", p.SystemIdentifier, r.SystemIdentifier),
			"Check primary_conninfo and replsync.primary_conninfo.").lookingElsewhere()
	case p.InRecovery:
		return refuse("cannot synchronize replication slots from a standby server", "",
			"Set replsync.primary_conninfo to the primary, or replsync.sync_slots to off on a cascading standby.").lookingElsewhere()
	case p.Timeline < r.Timeline:
		return refuse("the server to copy replication slots from is a primary of the past",
			fmt.Sprintf("It writes timeline %d, and this standby has followed timeline %d.", p.Timeline, r.Timeline),
			"Check primary_conninfo and replsync.primary_conninfo.").lookingElsewhere()
	case majorOf(p.VersionNum) < firstDynamic && p.WALLevel != "logical":
		return refuse(`replication slot synchronization requires "wal_level" to be "logical" on the primary`,
			fmt.Sprintf("It is \"%s\" there.", p.WALLevel),
			"Set wal_level to logical there and restart it.")
	case !p.Physical.Exists:
		return refuse(fmt.Sprintf("the physical replication slot \"%s\" does not exist on the primary", s.PrimarySlotName),
			"It is what primary_slot_name names on this standby.",
			fmt.Sprintf("Run SELECT pg_create_physical_replication_slot('%s') on the primary.", s.PrimarySlotName)).lapsing()
	}
	return nil
}

func majorOf(versionNum int) int { return versionNum / 10000 }
