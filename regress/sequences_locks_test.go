package regress_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// hold keeps a transaction open in which a statement was executed. It returns what ends it.
func hold(t *testing.T, q *cluster.Database, sql string) (end func(how string)) {
	t.Helper()
	session := q.Connect(t)
	_, err := session.Exec(background(t), "begin; "+sql)
	require.NoError(t, err)
	return func(how string) {
		t.Helper()
		_, err := session.Exec(background(t), how)
		require.NoError(t, err)
	}
}

// waitBlocked waits until a session of this database waits for a lock.
func waitBlocked(t *testing.T, q *cluster.Database) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, "somebody to wait for a lock", func() bool {
		return cluster.QueryOne[bool](t, q, `select count(*) > 0 from pg_locks l join pg_database d on d.oid = l.database
			where not granted and datname = current_database()`)
	})
}

const threeSequences = "create sequence one; create sequence two; create sequence three"

// TestSequenceLocks has locks on sequences on both sides. Only the sequences concerned have to wait for them.
func TestSequenceLocks(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, publisher, subscriber int) {
		p, s := newSides(t, publisher, subscriber, cluster.Settings(map[string]string{"replsync.remote_timeout": "2s"}))
		r := newReplica(t, p, s, threeSequences)
		r.add(t, 3, "'all'")
		value := 0
		moveAll := func() {
			value += 10
			r.pub.Exec(t, "select setval('one', $1), setval('two', $1), setval('three', $1)", value)
		}
		others := func(t *testing.T, rows map[string]sequenceRow, reasons ...string) {
			t.Helper()
			stands := fmt.Sprint(value, "|t")
			requirePositions(t, r.sub, "one", stands, "three", stands)
			require.Equal(t, "set", rows["public.one"].Action)
			require.Equal(t, "set", rows["public.three"].Action)
			require.Contains(t, []string{"failed", "skipped"}, rows["public.two"].Action, "%+v", rows)
			require.Contains(t, reasons, rows["public.two"].Reason)
		}
		recovers := func(t *testing.T) {
			t.Helper()
			requireNotFailed(t, r.sync(t))
			requirePositions(t, r.sub, "two", fmt.Sprint(value, "|t"))
		}

		story(t, "on the publisher", func(t *testing.T) {
			moveAll()
			end := hold(t, r.pub, "drop sequence two")
			others(t, r.sync(t), reasonLockedThere)
			require.NotEmpty(t, r.status(t, "public.two").Hint)
			end("rollback")
			recovers(t)
		})
		story(t, "dropped on the publisher under a waiting worker", func(t *testing.T) {
			moveAll()
			end := hold(t, r.pub, "drop sequence two")
			done := inBackground(r.sub, "select replsync.sync_sequences('s')")
			waitBlocked(t, r.pub)
			end("commit")
			require.NoError(t, finish(t, done, "the sync"))
			others(t, map[string]sequenceRow{"public.one": {Action: "set"}, "public.three": {Action: "set"},
				"public.two": {Action: "failed", Reason: r.status(t, "public.two").Reason}}, reasonMissingThere)
			r.pub.Exec(t, "create sequence two")
			r.pub.Exec(t, "select setval('two', $1)", value)
			recovers(t)
		})
		story(t, "moved here under a waiting worker", func(t *testing.T) {
			// The worker has looked where it stands, and does not know yet where it should.
			moveAll()
			end := hold(t, r.pub, "drop sequence two")
			done := inBackground(r.sub, "select replsync.sync_sequences('s')")
			waitBlocked(t, r.pub)
			r.sub.Exec(t, "select setval('one', 100000)")
			end("rollback")
			require.NoError(t, finish(t, done, "the sync"))
			requirePositions(t, r.sub, "one", "100000|t", "three", fmt.Sprint(value, "|t"))
			value = 100000
			moveAll()
			recovers(t)
		})
		story(t, "here", func(t *testing.T) {
			moveAll()
			end := hold(t, r.sub, "alter sequence two cache 3")
			others(t, r.sync(t), reasonLockedHere)
			end("rollback")
			recovers(t)
		})
		story(t, "renamed here under a waiting worker", func(t *testing.T) {
			moveAll()
			end := hold(t, r.sub, "alter sequence two rename to renamed")
			done := inBackground(r.sub, "select replsync.sync_sequences('s')")
			waitPosition(t, r.sub, "one", fmt.Sprint(value, "|t"))
			end("commit")
			require.NoError(t, finish(t, done, "the sync"))
			moveAll()
			others(t, r.sync(t), reasonMissingHere)
			r.sub.Exec(t, "alter sequence renamed rename to two")
			recovers(t)
		})
		story(t, "dropped here under a waiting worker", func(t *testing.T) {
			moveAll()
			end := hold(t, r.sub, "drop sequence two")
			done := inBackground(r.sub, "select replsync.sync_sequences('s')")
			waitPosition(t, r.sub, "one", fmt.Sprint(value, "|t"))
			end("commit")
			require.NoError(t, finish(t, done, "the sync"))
			moveAll()
			others(t, r.sync(t), reasonMissingHere)
			r.sub.Exec(t, "create sequence two")
			recovers(t)
		})
		story(t, "of the caller", func(t *testing.T) {
			for _, sql := range []string{
				"alter sequence two cache 3", "drop sequence two", "alter subscription s disable", "lock pg_subscription",
			} {
				_, err := r.sub.TryExec(background(t), "begin; "+sql+"; select replsync.sync_sequences('s')")
				if err != nil {
					pgErr, ok := cluster.AsPgError(err)
					require.True(t, ok, "%s: %v", sql, err)
					require.Contains(t, []string{"25001", "55P03", "55000"}, pgErr.Code, "%s: %v", sql, err)
				} else {
					// The row says it, or the lock is none that the sync needs.
					require.NotContains(t, sql, "sequence two", "a lock on a sequence that the caller itself holds is an error")
				}
			}
			moveAll()
			recovers(t)
		})
		story(t, "with what the caller has not committed", func(t *testing.T) {
			r.sub.Exec(t, "select replsync.remove_sequences('s')")
			moveAll()
			_, err := r.sub.TryExec(background(t), "begin; select replsync.add_sequences('s', 'all'); select replsync.sync_sequences('s'); commit")
			if err != nil {
				requireError(t, err, "25001", "transaction")
				r.add(t, 3, "'all'")
				r.sync(t)
			}
			requirePositions(t, r.sub, "one", fmt.Sprint(value, "|t"), "two", fmt.Sprint(value, "|t"))
		})
		story(t, "a cancel", func(t *testing.T) {
			end := hold(t, r.pub, "drop sequence two")
			session := r.sub.With("options='-c statement_timeout=300'")
			failure(t, session, "select replsync.sync_sequences('s')", "57014", "statement timeout")
			end("rollback")
			recovers(t)
		})
		// A lock is a matter for the worker's row, not for an end of the worker.
		require.Empty(t, sequenceLines(s.Log(), "PANIC|FATAL"))
	})
}

func requireNotFailed(t *testing.T, rows map[string]sequenceRow) {
	t.Helper()
	for name, row := range rows {
		require.Contains(t, []string{"set", "unchanged", "kept"}, row.Action, "%s: %+v", name, row)
	}
}

// TestSequenceRequests has requests that come while a worker is at work: none is lost, and none has to wait for the pause.
func TestSequenceRequests(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major, cluster.Settings(map[string]string{
			"replsync.sync_sequences": "on", "replsync.sequence_naptime_min": "5min", "replsync.sequence_naptime_max": "5min",
		}))
		r := newReplica(t, s, s, `do $$ begin for i in 1 .. 300 loop execute format('create sequence a%s', to_char(i, 'FM000')); end loop; end $$;
			create sequence zz`)
		r.add(t, 301, "'all'")
		r.sync(t)
		for round := range 3 {
			first, second := fmt.Sprint(10*round+1, "|t"), fmt.Sprint(10*round+2, "|t")
			r.pub.Exec(t, "select setval('a001', $1)", 10*round+1)
			end := hold(t, r.pub, "drop sequence zz")
			r.sub.Exec(t, "select * from replsync.sync_sequences('s', wait => false)")
			waitBlocked(t, r.pub)
			r.pub.Exec(t, "select setval('a001', $1)", 10*round+2)
			// The worker may have read a001 already.
			r.sub.Exec(t, "select * from replsync.sync_sequences('s', wait => false)")
			end("rollback")
			waitPosition(t, r.sub, "a001", second)
			require.NotEqual(t, first, position(t, r.sub, "a001"))
		}
		// Callers that come together share a cycle, and all get their rows.
		var done []<-chan error
		r.move(t, "zz", 5)
		for range 8 {
			done = append(done, inBackground(r.sub, "select count(*) / (count(*) = 301)::int from replsync.sync_sequences('s')"))
		}
		for _, d := range done {
			require.NoError(t, finish(t, d, "a sync"))
		}
		requirePositions(t, r.sub, "zz", "5|t")
	})
}
