package regress_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// under returns the sequences under care.
func (r *replica) under(t *testing.T) []string {
	t.Helper()
	return cluster.Query[string](t, r.sub, `select schema_name || '.' || sequence_name from replsync.sequence_status
		where subscription = 's' order by 1`)
}

const firstPartitioned = 13 // partitioned tables can be published, not only their partitions

// TestSequenceSelection says which sequences belong to a subscription.
func TestSequenceSelection(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, publisher, subscriber int) {
		p, s := newSides(t, publisher, subscriber)
		const ddl = `
			create schema other;
			create table published (id serial primary key, nr bigint generated always as identity);
			create table parts (id serial, at date) partition by range (at);
			create table part1 partition of parts for values from ('2026-01-01') to ('2027-01-01');
			create sequence shared; create table defaulted (id bigint primary key default nextval('shared'), x int default 2 * nextval('shared'));
			create table other.published (id serial primary key);
			create table hidden (id serial primary key); create table other.hidden (id serial primary key);
			create sequence in_code; create sequence other.in_code;
			create table owns (id int primary key); create sequence owned owned by owns.id`
		r := replicaDatabases(t, p, s, ddl)
		r.sub.Exec(t, "create unlogged sequence unlogged")
		if publisher >= firstUnlogged {
			r.pub.Exec(t, "create unlogged sequence unlogged")
		}
		parts := "parts"
		if publisher < firstPartitioned {
			parts = "part1"
		}
		r.pub.Exec(t, `drop publication p; create publication p for table published, defaulted, owns, `+parts+`;
			create publication q for table other.published; create publication leaves for table part1`)
		r.sub.Subscribe(t, "s", r.pub, cluster.SubscriptionOptions{Publications: []string{"p", "q"}})
		r.sub.WaitSubscribed(t, "s", r.pub)
		tables := []string{"other.published_id_seq", "public.owned", "public.parts_id_seq", "public.published_id_seq",
			"public.published_nr_seq", "public.shared"}
		all := append([]string{"other.hidden_id_seq", "other.in_code", "public.hidden_id_seq", "public.in_code"}, tables...)
		slices.Sort(all)

		story(t, "tables", func(t *testing.T) {
			require.Empty(t, r.under(t))
			r.add(t, len(tables), "")
			require.Equal(t, tables, r.under(t))
		})
		story(t, "all", func(t *testing.T) {
			r.add(t, len(all), "'all'")
			require.Equal(t, all, r.under(t))
		})
		story(t, "include and exclude", func(t *testing.T) {
			r.add(t, len(tables)-2, "exclude => '{public.shared,other.*}'")
			require.NotContains(t, r.under(t), "public.shared")
			r.add(t, len(tables)+1, "'tables', include => '{*.in_code}', exclude => '{other.in_code}'")
			require.Contains(t, r.under(t), "public.in_code")
			r.add(t, 2, "'all', exclude => '{public.[a-z]*,public.p*,public.o*,public.s?ared,public.hidden*,other.*_id_seq}'")
			require.Equal(t, []string{"other.in_code", "public.in_code"}, r.under(t))
		})
		story(t, "rolled back", func(t *testing.T) {
			before := r.under(t)
			r.sub.Exec(t, "begin; select replsync.add_sequences('s', 'all', margin => 5); rollback")
			require.Equal(t, before, r.under(t))
			r.sub.Exec(t, "begin; select replsync.remove_sequences('s'); rollback")
			require.Equal(t, before, r.under(t))
		})
		story(t, "removed", func(t *testing.T) {
			require.EqualValues(t, 2, cluster.QueryOne[int](t, r.sub, "select replsync.remove_sequences('s')"))
			require.Empty(t, r.under(t))
			require.EqualValues(t, 0, cluster.QueryOne[int](t, r.sub, "select replsync.remove_sequences('s')"))
		})
		story(t, "leaf partitions", func(t *testing.T) {
			// The sequence belongs to the parent, which is not published.
			r.sub.Exec(t, "alter subscription s set publication leaves")
			r.sub.WaitSubscribed(t, "s", r.pub)
			r.add(t, 1, "")
			require.Equal(t, []string{"public.parts_id_seq"}, r.under(t))
		})
		story(t, "refused", func(t *testing.T) {
			failure(t, r.sub, "select replsync.add_sequences('nosuch')", "42704", `subscription "nosuch" does not exist`)
			failure(t, r.sub, "select replsync.remove_sequences('nosuch')", "42704", `subscription "nosuch" does not exist`)
			failure(t, r.sub, "select replsync.refresh_selection('nosuch')", "42704", `subscription "nosuch" does not exist`)
			failure(t, r.sub, "select replsync.sync_sequences('nosuch')", "42704", `subscription "nosuch" does not exist`)
			failure(t, r.sub, "select replsync.sequence_drift('nosuch')", "42704", `subscription "nosuch" does not exist`)
			failure(t, r.sub, "select replsync.cutover_check('nosuch')", "42704", `subscription "nosuch" does not exist`)
			require.Contains(t, failure(t, r.sub, "select replsync.add_sequences('s', 'some')", "22023", `some`), "all")
			require.Equal(t, []string{"public.parts_id_seq"}, r.under(t))
			// The subscription of another database is none of this one's.
			s.Exec(t, "create extension replsync")
			failure(t, s.Database, "select replsync.add_sequences('s')", "42704", `subscription "s" does not exist`)
			s.Exec(t, "drop extension replsync")
		})
	})
}

// TestSequenceRefreshSelection has sequences that are made, published and renamed later.
func TestSequenceRefreshSelection(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major, sequencesAtOnce)
		r := newReplica(t, s, s, "create table t1 (id serial primary key); create sequence lonely")
		// Sequences that are only here belong to nobody.
		r.sub.Exec(t, "create sequence here1; create sequence here2")
		refresh := func(want int) {
			t.Helper()
			require.EqualValues(t, want, cluster.QueryOne[int](t, r.sub, "select replsync.refresh_selection('s')"))
		}
		r.move(t, "t1_id_seq", 100)
		r.add(t, 2, "'all'")
		r.sync(t)
		requirePositions(t, r.sub, "t1_id_seq", "100|t")

		for _, db := range []*cluster.Database{r.pub, r.sub} {
			db.Exec(t, "create table t2 (id serial primary key)")
		}
		r.move(t, "t1_id_seq", 100)
		r.move(t, "t2_id_seq", 100)
		// A sync takes those that are known, a refresh of the selection those that are new.
		require.NotContains(t, r.sync(t), "public.t2_id_seq")
		requirePositions(t, r.sub, "t1_id_seq", "200|t", "t2_id_seq", "1|f")
		r.move(t, "t1_id_seq", 100)
		refresh(3)
		waitPosition(t, r.sub, "t2_id_seq", "100|t")

		// A sequence that is gone on both sides leaves the selection, and a renamed one is another.
		for _, db := range []*cluster.Database{r.pub, r.sub} {
			db.Exec(t, "drop table t1; alter sequence lonely rename to renamed")
		}
		require.Equal(t, "failed", r.sync(t)["public.lonely"].Action)
		refresh(2)
		r.move(t, "renamed", 3)
		require.Equal(t, []string{"public.renamed", "public.t2_id_seq"}, r.under(t))
		r.sync(t)
		requirePositions(t, r.sub, "renamed", "3|t", "here1", "1|f")
	})
}

// TestSequenceEncodings has a subscriber that cannot write what the publisher has.
func TestSequenceEncodings(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, `create sequence plain; create sequence "größe"; create sequence "順序"; create sequence "größe 順序"`)
		s.Exec(t, "create database latin encoding latin1 locale 'C' template template0")
		r.sub = s.DB("latin").With("client_encoding=UTF8")
		r.sub.Exec(t, `create extension replsync; create sequence plain; create sequence "größe"`)
		r.sub.Subscribe(t, "t", r.pub, cluster.SubscriptionOptions{With: []string{"copy_data = false"}})
		require.Equal(t, 2, cluster.QueryOne[int](t, r.sub, "select replsync.add_sequences('t', 'all')"))
		r.pub.Exec(t, "select setval(oid, 10) from pg_class where relkind = 'S'")
		rows, err := rowsOf[sequenceRow](r.sub, "select * from replsync.sync_sequences('t')")
		require.NoError(t, err)
		all, err := byName(rows)
		require.NoError(t, err)
		requireActions(t, all, "public.plain", "set", "", "public.größe", "set", "")
		requirePositions(t, r.sub, `"größe"`, "10|t")
	})
}
