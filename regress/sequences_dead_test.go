package regress_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestSequenceDeadPublisher has a publisher that does not answer, and bounds that nobody wants to wait for.
func TestSequenceDeadPublisher(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		publisher := newSubscriber(t, major)
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
