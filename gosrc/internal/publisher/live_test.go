package publisher_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

func name(schema, name string) host.SequenceName {
	return host.SequenceName{Schema: schema, Name: name}
}

func public(names ...string) []host.SequenceName {
	found := make([]host.SequenceName, len(names))
	for i, n := range names {
		found[i] = name("public", n)
	}
	return found
}

func at(v int64, called bool) host.SequencePosition {
	return host.SequencePosition{LastValue: v, IsCalled: called}
}

func bigint() host.SequenceDefinition {
	return host.SequenceDefinition{Type: 20, Start: 1, Increment: 1, Min: 1, Max: math.MaxInt64}
}

func (s *server) client(t testing.TB, role string, opts publisher.Options) *publisher.Client {
	if opts.RemoteTimeout == 0 {
		opts.RemoteTimeout = 20 * time.Second
	}
	c := publisher.New(s.connect(role), opts)
	t.Cleanup(c.Close)
	return c
}

func selected(t *testing.T, c *publisher.Client, publications []string, s host.SequenceSelection) []host.SequenceName {
	t.Helper()
	var found []host.SequenceName
	require.NoError(t, c.Select(t.Context(), publications, s, func(part []host.SequenceName) error {
		found = append(found, part...)
		return nil
	}))
	return found
}

const (
	firstHash        = 11 // there is a digest of the catalogs
	firstSignal      = 12 // standby.signal
	firstPartitioned = 13 // partitioned tables can be published, not only their partitions
	firstIdleTimeout = 14 // idle_session_timeout
	firstUnlogged    = 15 // unlogged sequences; before, those of unlogged tables are logged
)

func TestLive(t *testing.T) {
	s := start(t)
	// A hostile database: what is not schema-qualified, or relies on the role's settings, fails.
	s.exec(t,
		"CREATE ROLE repl LOGIN REPLICATION", "CREATE ROLE reader LOGIN",
		`CREATE FUNCTION public.evil(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false'`,
		`CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = name, PROCEDURE = public.evil)`,
		`CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT ''x''::text'`,
		"ALTER ROLE ALL SET search_path = public, pg_catalog",
		"ALTER ROLE repl SET default_transaction_read_only = on",
		"ALTER ROLE reader SET default_transaction_isolation = serializable",
		"ALTER ROLE reader SET default_transaction_deferrable = on",
	)
	if s.major >= firstIdleTimeout {
		s.exec(t, "ALTER ROLE repl SET idle_session_timeout = '1h'")
	}
	t.Run("mark", func(t *testing.T) { testMark(t, s) })
	t.Run("confirmed", func(t *testing.T) { testConfirmed(t, s) })
	t.Run("values", func(t *testing.T) { testValues(t, s) })
	t.Run("rights", func(t *testing.T) { testRights(t, s) })
	t.Run("known", func(t *testing.T) { testKnown(t, s, publisher.Options{CatalogBytes: 1}) })
	t.Run("current", func(t *testing.T) { testKnown(t, s, publisher.Options{CatalogBytes: 1 << 30}) })
	t.Run("catalogs", func(t *testing.T) { testCatalogs(t, s) })
	t.Run("batch", func(t *testing.T) { testBatch(t, s) })
	t.Run("locks", func(t *testing.T) { testLocks(t, s) })
	t.Run("dropped meanwhile", func(t *testing.T) { testDropped(t, s) })
	t.Run("selection", func(t *testing.T) { testSelection(t, s) })
	t.Run("session", func(t *testing.T) { testSession(t, s) })
	t.Run("large", func(t *testing.T) { testLarge(t, s) })
	t.Run("frozen", func(t *testing.T) { testFrozen(t, s) })
	t.Run("restart", func(t *testing.T) { testRestart(t, s) })
	t.Run("standby", func(t *testing.T) { testStandby(t, s) })
}

func testMark(t *testing.T, s *server) {
	c := s.client(t, "repl", publisher.Options{})
	first, err := c.Mark(t.Context())
	require.NoError(t, err)
	require.NotZero(t, first.LSN)
	require.NotZero(t, first.SystemIdentifier)
	require.EqualValues(t, 1, first.Timeline)
	require.False(t, first.InRecovery)
	require.Equal(t, "repl", c.User())
	s.exec(t, "CREATE TABLE moves ()")
	second, err := c.Mark(t.Context())
	require.NoError(t, err)
	require.Less(t, first.LSN, second.LSN)
}

func testConfirmed(t *testing.T, s *server) {
	c := s.client(t, "reader", publisher.Options{})
	s.exec(t, "SELECT pg_create_logical_replication_slot('logical', 'pgoutput'), pg_create_physical_replication_slot('physical', true)")
	defer s.exec(t, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
	var want string
	require.NoError(t, s.session(t).QueryRow(t.Context(),
		"SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL").Scan(&want))
	confirmed, err := c.Confirmed(t.Context(), "logical")
	require.NoError(t, err)
	lsn, err := host.ParseLSN(want)
	require.NoError(t, err)
	require.Equal(t, lsn, confirmed)
	for _, none := range []string{"physical", "no_such"} {
		confirmed, err := c.Confirmed(t.Context(), none)
		require.NoError(t, err)
		require.Zero(t, confirmed)
	}
}

func testSelection(t *testing.T, s *server) {
	s.exec(t,
		"CREATE SCHEMA a", "CREATE SCHEMA b",
		"CREATE TABLE a.t (id serial, n int GENERATED BY DEFAULT AS IDENTITY)", "CREATE TABLE b.t (id serial)",
		"CREATE SEQUENCE a.shared", "CREATE TABLE a.u (id int DEFAULT nextval('a.shared'), x int DEFAULT 1)",
		"CREATE SEQUENCE a.loose", "CREATE UNLOGGED TABLE a.unlogged (id serial)",
		"CREATE TABLE a.part (id serial, k int) PARTITION BY LIST (k)",
		"CREATE TABLE a.part1 PARTITION OF a.part FOR VALUES IN (1) PARTITION BY LIST (k)",
		"CREATE SEQUENCE a.leaf", "CREATE TABLE a.part11 PARTITION OF a.part1 (id DEFAULT nextval('a.leaf')) FOR VALUES IN (1)",
		"CREATE SEQUENCE a.leaf2", "CREATE TABLE a.part2 PARTITION OF a.part (id DEFAULT nextval('a.leaf2')) FOR VALUES IN (2)",
		"CREATE TABLE a.parent (id serial)", "CREATE TABLE a.child () INHERITS (a.parent)",
		"CREATE PUBLICATION p_t FOR TABLE a.t", "CREATE PUBLICATION p_u FOR TABLE a.u", "CREATE PUBLICATION p_none",
		"CREATE PUBLICATION p_leaf FOR TABLE a.part2", "CREATE PUBLICATION p_parent FOR TABLE a.parent",
	)
	if s.major >= firstPartitioned {
		s.exec(t, "CREATE PUBLICATION p_root FOR TABLE a.part WITH (publish_via_partition_root = true)")
	} else {
		s.exec(t, "CREATE PUBLICATION p_root FOR TABLE a.part11, a.part2")
	}
	c := s.client(t, "reader", publisher.Options{})
	in := func(schema string, names ...string) (found []host.SequenceName) {
		for _, n := range names {
			found = append(found, name(schema, n))
		}
		return found
	}
	tables := func(publications ...string) []host.SequenceName {
		return selected(t, c, publications, host.SequenceSelection{})
	}
	require.Equal(t, in("a", "t_id_seq", "t_n_seq"), tables("p_t"))
	require.Equal(t, in("a", "shared", "t_id_seq", "t_n_seq"), tables("p_u", "p_t"))
	require.Empty(t, tables("p_none"))
	require.Equal(t, in("a", "leaf", "leaf2", "part_id_seq"), tables("p_root"))
	require.Equal(t, in("a", "leaf2", "part_id_seq"), tables("p_leaf"))
	require.Equal(t, in("a", "parent_id_seq"), tables("p_parent"))

	all := selected(t, c, []string{"p_none"}, host.SequenceSelection{All: true, Exclude: []string{"many.*", "*.*_seq"}})
	require.Subset(t, all, in("a", "loose", "shared", "leaf"))
	require.Contains(t, all, name(`o'dd."schema`, `Se.q"'uence ä`))
	for _, n := range append(in("a", "t_id_seq"), in("many", "s1")...) {
		require.NotContains(t, all, n)
	}
	require.True(t, slices.IsSortedFunc(all, func(a, b host.SequenceName) int {
		return slices.Compare([]string{a.Schema, a.Name}, []string{b.Schema, b.Name})
	}))
	every := selected(t, c, nil, host.SequenceSelection{All: true})
	require.Greater(t, len(every), 200)
	require.Equal(t, s.major < firstUnlogged, slices.Contains(every, name("a", "unlogged_id_seq")))

	require.Equal(t, append(in("a", "t_n_seq"), in("b", "t_id_seq")...),
		selected(t, c, []string{"p_t"}, host.SequenceSelection{Include: []string{"b.t_id_*", "a.t_id_seq"}, Exclude: []string{"a.*_id_seq"}}))

	err := c.Select(t.Context(), []string{"p_t", "p_gone"}, host.SequenceSelection{}, nil)
	require.True(t, host.HasCode(err, "42704"), err)
	require.ErrorContains(t, err, `publication "p_gone" does not exist on the publisher`)

	refusal := host.Errorf("57014", "no more")
	err = c.Select(t.Context(), []string{"p_t"}, host.SequenceSelection{}, func([]host.SequenceName) error { return refusal })
	require.ErrorIs(t, err, refusal)
	require.Equal(t, in("a", "t_id_seq", "t_n_seq"), tables("p_t"), "it can go on")
}
