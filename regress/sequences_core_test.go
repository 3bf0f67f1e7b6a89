package regress_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

const firstServer = 19 // CREATE SUBSCRIPTION ... SERVER, FOR ALL SEQUENCES

// TestCoreSequences leaves to core what core synchronizes, and finds the publisher by a foreign server.
func TestCoreSequences(t *testing.T) {
	t.Parallel()
	majors := cluster.Versions(t)
	newest := majors[len(majors)-1]
	if newest < firstServer {
		return
	}
	onVersions(t, []int{newest}, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		story(t, "synchronized by core", func(t *testing.T) {
			r := newReplica(t, s, s, "create table t (id serial primary key); create sequence other")
			r.pub.Exec(t, "create publication sequences for all sequences")
			r.add(t, 2, "'all'")
			r.sub.Exec(t, "alter subscription s add publication sequences")
			cluster.Eventually(t, cluster.DefaultDeadline, "core's sync", func() bool {
				return cluster.QueryOne[int](t, r.sub, "select count(*) from pg_subscription_rel where srsubstate <> 'r'") == 0
			})
			r.move(t, "other", 10)
			requireActions(t, r.sync(t), "public.other", "skipped", reasonCore, "public.t_id_seq", "skipped", reasonCore)
			requirePositions(t, r.sub, "other", "1|f")
			require.Equal(t, reasonCore, r.status(t, "public.other").Reason)
			require.Contains(t, r.status(t, "public.other").Hint, "ALTER SUBSCRIPTION s REFRESH SEQUENCES")
			// How far core's are is not ours to say, unless the publisher shows it.
			require.Subset(t, r.check(t, "null"), []string{"sequence public.other", "sequence public.t_id_seq"})
			require.Subset(t, r.check(t, "false"), []string{"publisher_sequence public.other", "publisher_sequences s"})
			require.Nil(t, r.status(t, "public.other").PublisherLSN)
			r.sub.Exec(t, "alter subscription s refresh sequences")
			waitPosition(t, r.sub, "other", "10|t")
			cluster.Eventually(t, cluster.DefaultDeadline, "nothing to lag", func() bool { return len(r.check(t, "false")) == 0 })
			r.move(t, "other", 10)
			r.sub.Exec(t, "alter subscription s drop publication sequences")
			requireActions(t, r.sync(t), "public.other", "set", "", "public.t_id_seq", "unchanged", "")
		})
		story(t, "server", func(t *testing.T) {
			r := replicaDatabases(t, s, s, "create sequence one")
			s.Exec(t, "create role linked login superuser")
			r.sub.Exec(t, fmt.Sprintf(`create extension postgres_fdw;
				create server publisher foreign data wrapper postgres_fdw options (host '127.0.0.1', port '%d', dbname 'pub_%s');
				create user mapping for postgres server publisher options (user 'linked', password 'Sesame')`, s.Port, r.name))
			r.sub.Exec(t, "create subscription s server publisher publication p with (connect = false, slot_name = none)")
			r.add(t, 1, "'all'")
			r.move(t, "one", 10)
			requireActions(t, r.sync(t), "public.one", "set", "")
			// Without a user mapping nobody knows how to connect.
			r.sub.Exec(t, "drop user mapping for postgres server publisher")
			_, err := r.trySequences("")
			require.Error(t, err)
			requireNoSecrets(t, r, "Sesame")
			require.False(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
		})
	})
}
