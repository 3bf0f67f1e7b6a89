package host

import (
	"context"
	"time"
)

// OID is an object identifier of this database.
type OID uint32

// Sequences is what a sequence worker asks of its server: a database with subscriptions, the one it is connected to.
type Sequences interface {
	Server

	// TakeRequest returns the next request of a SQL function, and false if none waits. [Server.Nap] ends with Sync while
	// one does. Each request is answered, or the caller is told that the worker ended.
	TakeRequest(ctx context.Context) (SequenceRequest, bool, error)

	// Answer hands rows of the answer to the caller of a request. The last call has last set; an error ends the
	// call of the SQL function with it. It returns false when the caller is gone.
	Answer(ctx context.Context, request uint64, rows []SequenceRow, last bool, err error) (bool, error)

	// Subscriptions lists the subscriptions of this database that have a selection, after the state
	// has been put in order: rows of dropped subscriptions are gone, renamed ones have their new names.
	Subscriptions(ctx context.Context) ([]Subscription, error)

	// KeepMembers makes these sequences the ones under care of a subscription, as the publisher has them. With a
	// selection of all only those count that are here.
	KeepMembers(ctx context.Context, subscription OID, names []SequenceName) error

	// LocalSequences lists the sequences under care of a subscription that come after a name, ordered by schema and name in
	// the order of bytes, at most limit.
	LocalSequences(ctx context.Context, subscription OID, after SequenceName, limit int) ([]LocalSequence, error)

	// SetSequences sets sequences in one transaction, each with the rights that the subscription
	// prescribes. One that cannot be set has its error in its result; the others are set. They are on disk once a later
	// FinishSequences has written the watermark.
	SetSequences(ctx context.Context, subscription OID, sets []SequenceSet) ([]SequenceSetResult, error)

	// RecordSequences keeps what was found of sequences: in memory, for sequence_status; and in the table, where
	// Problem differs from what is recorded there. A sequence that is here and NotOurs has no Problem.
	RecordSequences(ctx context.Context, subscription OID, records []SequenceRecord) error

	// FinishSequences ends a cycle over the sequences of one subscription. Only a cycle that reached all of them with
	// one generation sets done. The watermark is written to the table if write is set, and shown in any case.
	FinishSequences(ctx context.Context, subscription OID, cycle SequenceCycle) error

	// CycleDone shows the end of a cycle over all subscriptions in worker_status.
	CycleDone(ctx context.Context, duration time.Duration, err error) error
}

// SequenceName names a sequence on both sides: they are matched by name.
type SequenceName struct{ Schema, Name string }

// SequenceDefinition is what has to be the same on both sides. The cache size may differ.
type SequenceDefinition struct {
	Type                       OID // int2, int4 or int8: 21, 23, 20
	Start, Increment, Min, Max int64
	Cycle                      bool
}

// SequencePosition is where a sequence stands: the next value is LastValue unless IsCalled.
type SequencePosition struct {
	LastValue int64
	IsCalled  bool
}

// Subscription is a subscription and how its sequences are to be kept.
type Subscription struct {
	OID          OID
	Name         string
	Enabled      bool
	Publications []string
	Slot         string // empty: it has none

	// Conninfo is never logged or shown. ConninfoErr says why there is none (19: CREATE SUBSCRIPTION ... SERVER).
	Conninfo    string
	ConninfoErr error
	// SuperuserOwner allows the environment and the password file of the server's account.
	SuperuserOwner bool
	// MustUsePassword asks for libpq's two conditions: a password in the connection string, and that it was used.
	MustUsePassword bool

	Selection        SequenceSelection
	Unselected       bool // the rules are those of a dump: which sequences they mean is to be found
	Margin           int64
	Requested, Done  int64 // generations: Done < Requested while a sync was asked for and has not ended
	Watermark        Watermark
	WatermarkWritten time.Time // zero: there is none in the table
}

// SequenceSelection says which of the publisher's sequences belong to a subscription.
type SequenceSelection struct {
	All              bool // every permanent user sequence, not only those that feed the tables
	Include, Exclude []string
}

// Watermark is a WAL position of the publisher that was read before the values were.
type Watermark struct {
	LSN              LSN
	SystemIdentifier uint64
	Timeline         uint32
}

// LocalSequence is a sequence under care, as it is here.
type LocalSequence struct {
	SequenceName
	OID        OID    // 0: there is none of that name
	NotOurs    string // a reason why it is not set here, as "synchronized_by_core", or why there is none; empty: it is
	Definition SequenceDefinition
	Position   SequencePosition
	Problem    string // the reason that the table has for it, empty if none
}

// SequenceSet is a value to be set. The local value may have moved since it was read: a set never moves a sequence
// backwards in its own direction, unless Backwards allows it.
type SequenceSet struct {
	OID       OID
	To        SequencePosition
	Backwards bool
}

// SequenceSetResult is what became of a SequenceSet.
type SequenceSetResult struct {
	Before, After SequencePosition
	Err           error
}

// SequenceRecord is what a cycle found of a sequence.
type SequenceRecord struct {
	SequenceName
	OID       OID
	Publisher SequencePosition
	Known     bool   // Publisher was read
	Problem   string // a documented reason; empty: it is ready
	Detail    string
	Hint      string
}

// SequenceCycle is the end of a cycle over the sequences of one subscription.
type SequenceCycle struct {
	Complete   bool // all sequences were reached
	Generation int64
	Watermark  Watermark
	Write      bool
	Err        error
}

// SequenceRequestKind says which SQL function asks.
type SequenceRequestKind int32

// Kinds of requests, as in core_api.h.
const (
	SyncSequences   SequenceRequestKind = 1 // rows as of sync_sequences()
	SequenceDrift   SequenceRequestKind = 2 // the same, and nothing is written
	SelectSequences SequenceRequestKind = 3 // the names that Selection finds on the publisher
	CheckPublisher  SequenceRequestKind = 4 // rows as of cutover_check(): what only the publisher can tell
)

// SequenceRequest is a call of a SQL function.
type SequenceRequest struct {
	ID             uint64
	Kind           SequenceRequestKind
	Subscription   Subscription // as the caller sees it, also without a committed selection
	AllowBackwards bool
}

// SequenceRow is a row of an answer.
type SequenceRow struct {
	SequenceName
	Publisher      SequencePosition
	PublisherKnown bool
	Before, After  int64
	LocalKnown     bool
	Action, Reason string

	// for CheckPublisher
	Check, Object string
	OK            *bool
	Detail, Hint  string
	LSN           LSN // 0: none
}
