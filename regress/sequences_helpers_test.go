package regress_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// Sequences are tested black box: by what SQL shows. One server can be both sides, in two databases of its own; most
// tests need no more.
//
// What core's own tests of its sequence synchronization (036_sequences.pl, 026_stats.pl) show, and where it is shown here:
//
//	initial sync, names with quotes            TestSequencePairs
//	sequences that only the subscriber has     TestSequenceRefreshSelection
//	a refresh syncs new ones, a sync known ones TestSequenceRefreshSelection
//	default_transaction_read_only              TestSequenceSettings
//	dropped while the batch waits for its lock TestSequenceLocks
//	definitions that differ, and are mended    TestSequenceDefinitions
//	no right to SELECT, then missing           TestSequencePublisherRights
//	errors counted, statistics reset           TestSequenceDefinitions, TestSequenceFollowing
//	sequences follow without a command         TestSequenceFollowing
//	a call that waits, no logical worker slot  TestSequenceWorkerSlots, TestSequenceFollowing
//
// and what they do not show:
//
//	never backwards, descending, cycling, the bounds of types, is_called = false  TestSequenceDirection, TestSequenceMargin
//	identity, partitioned tables, defaults, patterns                TestSequenceSelection, TestSequencePairs
//	unlogged and temporary sequences                                TestSequencePersistence
//	run_as_owner, owners who are no superusers, password_required   TestSequenceSubscriberRights, TestSequencePassword
//	disable_on_error does not matter, DROP and RENAME of everything TestSequenceBystanders, TestSequenceFollowing
//	dropped, renamed or locked here; locked by the caller           TestSequenceLocks
//	schemas and sequences here that change between two syncs        TestSequenceCatalogs
//	requests that come while a worker is at work                    TestSequenceRequests
//	a publisher that does not answer                                TestSequenceDeadPublisher
//	99, 100, 101 and more sequences                                 TestSequenceBatches
//	a crash in the midst of a batch, a publisher that restarts      TestSequenceCrashes
//	a publisher that is a standby, a subscriber's standby           TestSequencesOfStandby, TestSubscriberStandby
//	publishers and subscribers of all versions                      TestSequencePairs, TestUpgrade
//	two subscriptions with one sequence, several databases          TestSequenceManySubscriptions
//	what core synchronizes, CREATE SUBSCRIPTION ... SERVER          TestCoreSequences
//	pg_dump, the proof with a dead publisher                        TestSequenceDump, TestCutoverCheck
//	pg_upgrade of the subscriber                                    TestSequencesOfAnotherServer

// onTheEnds runs a test on the oldest and the newest version, for what does not depend on the version much.
func onTheEnds(t *testing.T, f func(t *testing.T, major int)) {
	t.Parallel()
	majors := cluster.Versions(t)
	ends := slices.Compact([]int{slices.Min(majors), slices.Max(majors)})
	onVersions(t, ends, f)
}

const firstSubscriber = 15 // the extension can be built

// since10 is for what any publisher can do.
const since10 = 10

// withPublishers is onTheEnds for what depends on the publisher: older ones, since that version, are run with the newest subscriber.
func withPublishers(t *testing.T, since int, f func(t *testing.T, publisher, subscriber int)) {
	onTheEnds(t, func(t *testing.T, major int) { f(t, major, major) })
	newest := slices.Max(cluster.Versions(t))
	for _, older := range cluster.Publishers(t) {
		if older >= since {
			beside(t, fmt.Sprintf("%d to %d", older, newest), func(t *testing.T) { f(t, older, newest) })
		}
	}
}

// sequencesOnDemand is a subscriber whose sequences move only when a function is called.
var sequencesOnDemand = cluster.Setting("replsync.sync_sequences", "off")

// sequencesAtOnce is a subscriber that hardly pauses.
var sequencesAtOnce = cluster.Settings(map[string]string{
	"replsync.sync_sequences": "on", "replsync.sequence_naptime_min": "100ms", "replsync.sequence_naptime_max": "200ms",
})

// newSubscriber makes a server that can be publisher and subscriber, with room for many subscriptions.
func newSubscriber(t *testing.T, major int, opts ...cluster.Option) *cluster.Server {
	t.Helper()
	return cluster.New(t, major, append([]cluster.Option{
		cluster.Name("subscriber"), cluster.Preload("replsync"), roomy, sequencesOnDemand,
	}, opts...)...)
}

// newPublisher makes a server that can be a publisher, and a subscriber if the extension can be built for it.
func newPublisher(t *testing.T, major int, opts ...cluster.Option) *cluster.Server {
	t.Helper()
	if major >= firstSubscriber {
		return newSubscriber(t, major, opts...)
	}
	return cluster.New(t, major, append([]cluster.Option{cluster.Name("publisher"), roomy}, opts...)...)
}

var roomy = cluster.Settings(map[string]string{
	"max_worker_processes": "60", "max_logical_replication_workers": "30", "max_sync_workers_per_subscription": "2",
	"max_replication_slots": "60", "max_wal_senders": "60", "wal_receiver_timeout": "60s", "max_prepared_transactions": "5",
})

// newSides makes one server that is both sides, or two if the versions differ. The options are the subscriber's.
func newSides(t *testing.T, publisher, subscriber int, opts ...cluster.Option) (*cluster.Server, *cluster.Server) {
	t.Helper()
	s := newSubscriber(t, subscriber, opts...)
	if publisher == subscriber {
		return s, s
	}
	return newPublisher(t, publisher), s
}

// replica is a database and the subscription "s" to it in another.
type replica struct {
	publisher, subscriber *cluster.Server
	pub, sub              *cluster.Database
	name                  string // of both databases, but for a prefix
}

// replicas counts them, for their names.
var replicas atomic.Int32

// newReplica makes the two databases with the same tables and sequences, a publication of all tables, and the
// subscription, and waits until it has copied them.
func newReplica(t *testing.T, publisher, subscriber *cluster.Server, ddl string) *replica {
	t.Helper()
	r := replicaDatabases(t, publisher, subscriber, ddl)
	r.sub.Subscribe(t, "s", r.pub, cluster.SubscriptionOptions{})
	r.sub.WaitSubscribed(t, "s", r.pub)
	return r
}

// replicaDatabases is newReplica without the subscription.
func replicaDatabases(t *testing.T, publisher, subscriber *cluster.Server, ddl string) *replica {
	t.Helper()
	name := fmt.Sprint("db", replicas.Add(1))
	r := &replica{publisher: publisher, subscriber: subscriber, name: name}
	publisher.Exec(t, "create database pub_"+name)
	subscriber.Exec(t, "create database sub_"+name)
	r.pub, r.sub = publisher.DB("pub_"+name), subscriber.DB("sub_"+name)
	r.pub.Exec(t, ddl)
	r.pub.Exec(t, "create publication p for all tables")
	r.sub.Exec(t, ddl)
	r.sub.Exec(t, "create extension replsync")
	return r
}

// add takes sequences under care and checks how many.
func (r *replica) add(t *testing.T, want int, args string) {
	t.Helper()
	if args != "" {
		args = ", " + args
	}
	require.Equal(t, want, cluster.QueryOne[int](t, r.sub, "select replsync.add_sequences('s'"+args+")"))
}

// move calls nextval until a sequence has been moved n times, without a round trip for each.
func (r *replica) move(t *testing.T, sequence string, n int) {
	t.Helper()
	r.pub.Exec(t, "select nextval($1::regclass) from generate_series(1, $2)", sequence, n)
}

// position is where a sequence stands, as "100|t".
func position(t *testing.T, q cluster.Queryer, sequence string) string {
	t.Helper()
	return cluster.QueryOne[string](t, q, "select last_value || '|' || case when is_called then 't' else 'f' end from "+sequence)
}

// requirePositions checks where the sequences stand: pairs of a name and a position.
func requirePositions(t *testing.T, q cluster.Queryer, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		require.Equal(t, pairs[i+1], position(t, q, pairs[i]), "%s", pairs[i])
	}
}

// waitPosition waits until a sequence stands there.
func waitPosition(t *testing.T, q cluster.Queryer, sequence, want string) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, sequence+" to stand at "+want, func() error {
		is, err := cluster.TryQueryOne[string](q, "select last_value || '|' || case when is_called then 't' else 'f' end from "+sequence)
		if err == nil && is != want {
			err = fmt.Errorf("it stands at %s", is)
		}
		return err
	})
}

// sequenceRow is a row of sync_sequences() and sequence_drift().
type sequenceRow struct {
	Schema            string `json:"schema_name"`
	Name              string `json:"sequence_name"`
	PublisherValue    *int64 `json:"publisher_value"`
	PublisherIsCalled *bool  `json:"publisher_is_called"`
	LocalBefore       *int64 `json:"local_before"`
	LocalAfter        *int64 `json:"local_after"`
	Action, Reason    string
}

// sequenceStatusRow is a row of sequence_status.
type sequenceStatusRow struct {
	Subscription        string
	Schema              string `json:"schema_name"`
	Name                string `json:"sequence_name"`
	State, Reason, Hint string
	PublisherValue      *int64  `json:"publisher_value"`
	PublisherIsCalled   *bool   `json:"publisher_is_called"`
	LocalValue          *int64  `json:"local_value"`
	PublisherLSN        *lsn    `json:"publisher_lsn"`
	LastSyncAt          *string `json:"last_sync_at"`
	ErrorCount          int64   `json:"error_count"`
}

// byName makes a map of rows by "schema.name", and fails where one comes twice.
func byName(rows []sequenceRow) (map[string]sequenceRow, error) {
	all := map[string]sequenceRow{}
	for _, row := range rows {
		name := row.Schema + "." + row.Name
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("%s comes twice in %+v", name, rows)
		}
		all[name] = row
	}
	return all, nil
}

// trySequences calls sync_sequences() with these arguments after the subscription.
func (r *replica) trySequences(args string) (map[string]sequenceRow, error) {
	rows, err := rowsOf[sequenceRow](r.sub, "select * from replsync.sync_sequences('s'"+args+")")
	if err != nil {
		return nil, err
	}
	return byName(rows)
}

// sync sets all sequences now.
func (r *replica) sync(t *testing.T) map[string]sequenceRow {
	t.Helper()
	rows, err := r.trySequences("")
	require.NoError(t, err)
	return rows
}

// drift tells what sync would do.
func (r *replica) drift(t *testing.T) map[string]sequenceRow {
	t.Helper()
	rows, err := rowsOf[sequenceRow](r.sub, "select * from replsync.sequence_drift('s')")
	require.NoError(t, err)
	all, err := byName(rows)
	require.NoError(t, err)
	return all
}

// requireActions checks what was done: triples of a name, an action and a reason.
func requireActions(t *testing.T, rows map[string]sequenceRow, triples ...string) {
	t.Helper()
	for i := 0; i < len(triples); i += 3 {
		row, there := rows[triples[i]]
		require.True(t, there, "%s is not in %+v", triples[i], rows)
		require.Equal(t, []string{triples[i+1], triples[i+2]}, []string{row.Action, row.Reason}, "%+v", row)
	}
	require.Len(t, rows, len(triples)/3, "%+v", rows)
}

func (r *replica) tryStatus() (map[string]sequenceStatusRow, error) {
	rows, err := rowsOf[sequenceStatusRow](r.sub, "select * from replsync.sequence_status where subscription = 's'")
	all := map[string]sequenceStatusRow{}
	for _, row := range rows {
		all[row.Schema+"."+row.Name] = row
	}
	return all, err
}

// status returns the row of a sequence.
func (r *replica) status(t *testing.T, name string) sequenceStatusRow {
	t.Helper()
	rows, err := r.tryStatus()
	require.NoError(t, err)
	require.Contains(t, rows, name)
	return rows[name]
}

// waitStatus waits until a sequence is in a state for a reason.
func (r *replica) waitStatus(t *testing.T, name, state, reason string) sequenceStatusRow {
	t.Helper()
	var row sequenceStatusRow
	cluster.Eventually(t, cluster.DefaultDeadline, fmt.Sprintf("%s to be %s for %q", name, state, reason), func() error {
		rows, err := r.tryStatus()
		if err != nil {
			return err
		}
		var there bool
		if row, there = rows[name]; !there || row.State != state || row.Reason != reason {
			workers, err := r.tryWorkers()
			return fmt.Errorf("sequence_status says %+v; workers: %+v, %v", rows, workers, err)
		}
		return nil
	})
	return row
}

// check returns the rows of cutover_check() whose answer is ok ("true", "false", "null"), each as "name object".
func (r *replica) check(t *testing.T, ok string) []string {
	t.Helper()
	names := []string{}
	for _, row := range r.checks(t) {
		is := "null"
		if row.OK != nil {
			is = strconv.FormatBool(*row.OK)
		}
		if is == ok {
			names = append(names, strings.TrimSpace(row.CheckName+" "+row.Object))
		}
	}
	slices.Sort(names)
	return names
}

func (r *replica) checks(t *testing.T) []checkRow {
	t.Helper()
	rows, err := rowsOf[checkRow](r.sub, "select * from replsync.cutover_check('s')")
	require.NoError(t, err)
	require.NotEmpty(t, rows)
	return rows
}

// requireReadyToCutOver waits until nothing speaks against it, and each answer is known, but for when a worker that is
// switched off last worked. What the publisher writes by itself may be under way for a moment.
func (r *replica) requireReadyToCutOver(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, "nothing to speak against a cutover", func() error {
		for _, row := range r.checks(t) {
			if (row.OK == nil || !*row.OK) && !(row.OK == nil && row.CheckName == "last_sync") {
				return fmt.Errorf("%+v", row)
			}
		}
		return nil
	})
}

// failure calls a function that fails, and returns its error.
func failure(t *testing.T, q *cluster.Database, sql, code, message string) (hint string) {
	t.Helper()
	_, err := q.TryExec(background(t), sql)
	return requireError(t, err, code, message)
}

// inBackground runs SQL, and returns a channel for its outcome.
func inBackground(q *cluster.Database, sql string) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), cluster.DefaultDeadline)
		defer cancel()
		_, err := q.TryExec(ctx, sql)
		done <- err
	}()
	return done
}

// finish waits for the outcome of inBackground.
func finish(t *testing.T, done <-chan error, what string) error {
	t.Helper()
	var outcome error
	cluster.Eventually(t, cluster.DefaultDeadline, what, func() error {
		select {
		case outcome = <-done:
			return nil
		default:
			return errors.New("it goes on")
		}
	})
	return outcome
}

// The reasons of a sequence.
const (
	reasonMissingThere = "missing_on_publisher"
	reasonMissingHere  = "missing_here"
	reasonNoRightThere = "no_right_on_publisher"
	reasonNoRightHere  = "no_right_here"
	reasonDefinition   = "definition_differs"
	reasonAhead        = "ahead_of_publisher"
	reasonCore         = "synchronized_by_core"
	reasonLockedThere  = "locked_on_publisher"
	reasonLockedHere   = "locked"
	reasonDropped      = "dropped_meanwhile"
	reasonClamped      = "margin_clamped"
	reasonNotSequence  = "not_a_sequence"
)

// sequenceLines returns the lines of the sequence workers that match.
func sequenceLines(log, pattern string) []string {
	expr := regexp.MustCompile(pattern)
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "replsync sequence") && expr.MatchString(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
