package regress_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

const (
	firstSignal   = 12 // a standby has standby.signal, not recovery.conf
	firstUnlogged = 15 // unlogged sequences; before, those of unlogged tables are logged
)

// TestSequencesOfStandby has a publisher that is a standby itself, and only for the sequences.
func TestSequencesOfStandby(t *testing.T) {
	withPublishers(t, firstSignal, func(t *testing.T, publisher, subscriber int) {
		primary := newPublisher(t, publisher)
		r := replicaDatabases(t, primary, newSubscriber(t, subscriber), shopDDL)
		r.sub.Exec(t, "create sequence unlogged")
		if publisher >= firstUnlogged {
			r.pub.Exec(t, "create unlogged sequence unlogged")
		}
		standby := primary.Standby(t)
		r.move(t, "orders_id_seq", 10)
		r.pub.Exec(t, "select setval('tickets', 5000, false)")
		primary.WaitReplayed(t, standby)
		r.publisher = standby
		r.sub.Exec(t, fmt.Sprintf("create subscription s connection %s publication p with (connect = false, slot_name = none)",
			cluster.QuoteLiteral(r.conninfoOf("user=postgres"))))
		r.add(t, 3, "'all', include => '{}', exclude => '{public.unlogged}'")
		rows := r.sync(t)
		require.Len(t, rows, 3)
		requireNotFailed(t, rows)
		// What a standby knows is what the primary has logged, up to 32 values ahead.
		require.GreaterOrEqual(t, *rows["public.orders_id_seq"].LocalAfter, int64(10))
		require.LessOrEqual(t, *rows["public.orders_id_seq"].LocalAfter, int64(42))
		requirePositions(t, r.sub, "tickets", "5000|f")
	})
}

// TestSubscriberStandby promotes the subscriber's own standby: the state is there.
func TestSubscriberStandby(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		publisher, subscriber := newSubscriber(t, major), newSubscriber(t, major, sequencesAtOnce)
		r := newReplica(t, publisher, subscriber, shopDDL)
		r.add(t, 3, "exclude => '{}'")
		r.move(t, "orders_id_seq", 10)
		waitPosition(t, r.sub, "orders_id_seq", "10|t")
		standby := subscriber.Standby(t)
		subscriber.WaitReplayed(t, standby)
		there := *r
		there.subscriber, there.sub = standby, standby.DB("sub_"+r.name)
		require.Equal(t, r.under(t), there.under(t))
		for _, call := range []string{"add_sequences('s')", "remove_sequences('s')", "refresh_selection('s')", "sync_sequences('s')"} {
			_, err := there.sub.TryExec(background(t), "select replsync."+call)
			require.Error(t, err)
			pgErr, ok := cluster.AsPgError(err)
			require.True(t, ok, "%v", err)
			require.Contains(t, []string{"25006", "55000"}, pgErr.Code, "%v", err)
		}
		there.waitNoWorker(t)
		subscriber.Kill9(t)
		standby.Promote(t)
		r.move(t, "orders_id_seq", 10)
		waitPosition(t, there.sub, "orders_id_seq", "20|t")
		there.waitStatus(t, "public.orders_id_seq", "ready", "")
		requireNotFailed(t, there.sync(t))
	})
}
