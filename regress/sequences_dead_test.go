package regress_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestSequenceDeadPublisher has a publisher that does not answer, and bounds that nobody wants to wait for.
func TestSequenceDeadPublisher(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, from, major int) {
		publisher := newPublisher(t, from)
		s := newSubscriber(t, major, cluster.Settings(map[string]string{
			"replsync.connect_timeout": "10min", "replsync.remote_timeout": "10min", "wal_receiver_timeout": "10min",
		}))
		r := newReplica(t, publisher, s, threeSequences)
		r.add(t, 3, "'all'")
		requireNotFailed(t, r.sync(t))
		alive := replicaDatabases(t, s, s, threeSequences)
		r.sub.Subscribe(t, "alive", alive.pub, cluster.SubscriptionOptions{})
		require.Equal(t, 3, cluster.QueryOne[int](t, r.sub, "select replsync.add_sequences('alive', 'all')"))
		publisher.Freeze(t)
		// The session that is there gets no answer; nor does a new one.
		for range 2 {
			_, err := r.sub.With("options='-c statement_timeout=1s'").TryExec(background(t), "select * from replsync.sync_sequences('s')")
			requireError(t, err, "57014", "canceling statement due to statement timeout")
			// The worker has given up too, and serves others.
			alive.move(t, "one", 1)
			require.Equal(t, 3, cluster.QueryOne[int](t, r.sub, "select count(*) from replsync.sync_sequences('alive')"))
			require.Equal(t, position(t, alive.pub, "one"), position(t, r.sub, "one"))
		}
		publisher.Thaw(t)
		r.move(t, "two", 5)
		requireNotFailed(t, r.sync(t))
		requirePositions(t, r.sub, "two", "5|t")
	})
}

// TestSequenceRestart restarts the subscriber while its publisher is gone: what was found of each sequence, and up to which position
// it is proven, is still known.
func TestSequenceRestart(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		publisher, subscriber := newSubscriber(t, major), newSubscriber(t, major)
		r := newReplica(t, publisher, subscriber, threeSequences)
		r.sub.Exec(t, "alter sequence three increment 2")
		r.add(t, 3, "'all', margin => 3")
		r.move(t, "one", 5)
		requireActions(t, r.sync(t), "public.one", "set", "", "public.two", "set", "", "public.three", "failed", "definition_differs")
		kept := func() map[string]sequenceStatusRow {
			rows, err := r.tryStatus()
			require.NoError(t, err)
			for name, row := range rows {
				require.Equal(t, row.State == "ready", row.PublisherLSN != nil, name)
				// These are only kept in memory.
				row.PublisherValue, row.PublisherIsCalled, row.LastSyncAt = nil, nil, nil
				rows[name] = row
			}
			return rows
		}
		before := kept()
		require.Equal(t, "ready", before["public.one"].State)
		require.Equal(t, []string{"failed", "definition_differs"}, []string{before["public.three"].State, before["public.three"].Reason})
		publisher.Stop(t, cluster.Immediate)
		subscriber.Restart(t)
		require.Equal(t, before, kept())
		require.Contains(t, r.check(t, "false"), "sequence public.three", "%+v", r.checks(t))
		require.NotContains(t, r.check(t, "false"), "sequence public.one", "%+v", r.checks(t))
	})
}
