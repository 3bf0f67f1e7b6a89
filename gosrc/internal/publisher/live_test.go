package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

func TestLive(t *testing.T) {
	s := start(t)
	// A hostile database: what is not schema-qualified, or relies on the role's settings, fails.
	s.exec(t,
		"CREATE ROLE repl LOGIN REPLICATION", "CREATE ROLE reader LOGIN",
		`CREATE FUNCTION public.evil(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false'`,
		`CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = name, FUNCTION = public.evil)`,
		`CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT ''x''::text'`,
		"ALTER ROLE ALL SET search_path = public, pg_catalog",
		"ALTER ROLE repl SET default_transaction_read_only = on", "ALTER ROLE repl SET idle_session_timeout = '1h'",
		"ALTER ROLE reader SET default_transaction_isolation = serializable",
		"ALTER ROLE reader SET default_transaction_deferrable = on",
	)
	t.Run("mark", func(t *testing.T) { testMark(t, s) })
	t.Run("values", func(t *testing.T) { testValues(t, s) })
	t.Run("rights", func(t *testing.T) { testRights(t, s) })
	t.Run("known", func(t *testing.T) { testKnown(t, s) })
	t.Run("batch", func(t *testing.T) { testBatch(t, s) })
	t.Run("locks", func(t *testing.T) { testLocks(t, s) })
	t.Run("dropped meanwhile", func(t *testing.T) { testDropped(t, s) })
	t.Run("selection", func(t *testing.T) { testSelection(t, s) })
	t.Run("session", func(t *testing.T) { testSession(t, s) })
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

func testValues(t *testing.T, s *server) {
	s.exec(t,
		"CREATE SEQUENCE fresh", "CREATE SEQUENCE called", "SELECT nextval('called'), nextval('called')",
		"CREATE SEQUENCE set_uncalled", "SELECT setval('set_uncalled', 50, false)",
		"CREATE SEQUENCE down AS smallint INCREMENT -3 MINVALUE -100 MAXVALUE 7 START 5 CYCLE", "SELECT nextval('down')",
		"CREATE SEQUENCE cached AS int CACHE 50", "SELECT nextval('cached')",
		fmt.Sprintf("CREATE SEQUENCE extreme INCREMENT %d MINVALUE %d MAXVALUE %d START %d", math.MinInt64, math.MinInt64, math.MaxInt64, math.MaxInt64),
		"CREATE TABLE a_table (id int GENERATED ALWAYS AS IDENTITY)",
		`CREATE SCHEMA "o'dd.""schema"`, `CREATE SEQUENCE "o'dd.""schema"."Se.q""'uence ä"`,
		`SELECT nextval('"o''dd.""schema"."Se.q""''uence ä"')`,
		`CREATE SCHEMA other`, `CREATE SEQUENCE other.called START 9`,
	)
	c := s.client(t, "postgres", publisher.Options{})
	names := append(public("fresh", "called", "set_uncalled", "down", "cached", "extreme", "a_table", "a_table_id_seq", "nowhere"),
		name(`o'dd."schema`, `Se.q"'uence ä`), name("other", "called"), name("nowhere", "called"), name("public", "called"))
	v, err := c.Values(t.Context(), names)
	require.NoError(t, err)
	int4 := bigint()
	int4.Type, int4.Max = 23, math.MaxInt32
	nine := bigint()
	nine.Start = 9
	all := []publisher.Value{
		{Definition: bigint(), Position: at(1, false)},
		{Definition: bigint(), Position: at(2, true)},
		{Definition: bigint(), Position: at(50, false)},
		{
			Definition: host.SequenceDefinition{Type: 21, Start: 5, Increment: -3, Min: -100, Max: 7, Cycle: true},
			Position:   at(5, true),
		},
		{Definition: int4, Position: at(50, true)},
		{
			Definition: host.SequenceDefinition{
				Type: 20, Start: math.MaxInt64, Increment: math.MinInt64, Min: math.MinInt64, Max: math.MaxInt64,
			},
			Position: at(math.MaxInt64, false),
		},
		{Problem: publisher.NotASequence},
		{Definition: int4, Position: at(1, false)},
		{Problem: publisher.Missing},
		{Definition: bigint(), Position: at(1, true)},
		{Definition: nine, Position: at(9, false)},
		{Problem: publisher.Missing},
		{Definition: bigint(), Position: at(2, true)},
	}
	require.Equal(t, all, v)
	v, err = c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, all, v, "known by now")
	none, err := c.Values(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, none)
}

func testRights(t *testing.T, s *server) {
	s.exec(t,
		"CREATE SEQUENCE granted", "GRANT SELECT ON SEQUENCE granted TO reader", "SELECT nextval('granted')",
		"CREATE SEQUENCE used", "GRANT USAGE ON SEQUENCE used TO reader",
		"CREATE SCHEMA closed", "CREATE SEQUENCE closed.fresh", "CREATE SEQUENCE closed.called", "SELECT nextval('closed.called')",
		"GRANT SELECT ON ALL SEQUENCES IN SCHEMA closed TO reader",
	)
	c := s.client(t, "reader", publisher.Options{})
	names := append(public("granted", "used", "nowhere"), name("closed", "fresh"), name("closed", "called"))
	v, err := c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, publisher.Value{Definition: bigint(), Position: at(1, true)}, v[0])
	require.Equal(t, publisher.Value{Definition: bigint(), Problem: publisher.NoRight}, v[1])
	require.Equal(t, publisher.Missing, v[2].Problem)
	if c.Major() < 18 {
		require.Equal(t, publisher.Value{Definition: bigint(), Problem: publisher.NoSchemaRight}, v[3])
	} else {
		require.Equal(t, publisher.Value{Definition: bigint(), Position: at(1, false)}, v[3])
	}
	require.Equal(t, publisher.Value{Definition: bigint(), Position: at(1, true)}, v[4])
	again, err := c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, v, again, "known by now")
	s.exec(t, "REVOKE SELECT ON SEQUENCE granted FROM reader")
	again, err = c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, publisher.NoRight, again[0].Problem)
}

// testKnown changes sequences that were read before.
func testKnown(t *testing.T, s *server) {
	s.exec(t, "CREATE SCHEMA k", "CREATE SCHEMA l",
		`DO $$ BEGIN FOR i IN 1..6 LOOP EXECUTE format('CREATE SEQUENCE k.s%s', i); PERFORM setval(format('k.s%s', i), i); END LOOP; END $$`)
	c := s.client(t, "postgres", publisher.Options{})
	var names []host.SequenceName
	for i := range 7 {
		names = append(names, name("k", fmt.Sprintf("s%d", i+1)))
	}
	read := func() []publisher.Value {
		_, err := c.Mark(t.Context())
		require.NoError(t, err)
		v, err := c.Values(t.Context(), names)
		require.NoError(t, err)
		return v
	}
	want := make([]publisher.Value, 7)
	for i := range 6 {
		want[i] = publisher.Value{Definition: bigint(), Position: at(int64(i+1), true)}
	}
	want[6] = publisher.Value{Problem: publisher.Missing}
	require.Equal(t, want, read())
	require.Equal(t, want, read())

	s.exec(t, "SELECT setval('k.s1', 10)", "SELECT setval('k.s2', 20, false)",
		"DROP SEQUENCE k.s3", "CREATE SEQUENCE k.s3 START 30", // another one of that name
		"ALTER SEQUENCE k.s4 RENAME TO s7", "ALTER SEQUENCE k.s5 RENAME TO s4", // names move on
		"ALTER SEQUENCE k.s6 INCREMENT 2")
	thirty, two := bigint(), bigint()
	thirty.Start, two.Increment = 30, 2
	want = []publisher.Value{
		{Definition: bigint(), Position: at(10, true)},
		{Definition: bigint(), Position: at(20, false)},
		{Definition: thirty, Position: at(30, false)},
		{Definition: bigint(), Position: at(5, true)},
		{Problem: publisher.Missing},
		{Definition: two, Position: at(6, true)},
		{Definition: bigint(), Position: at(4, true)},
	}
	require.Equal(t, want, read())
	require.Equal(t, want, read())

	s.exec(t, "ALTER SEQUENCE k.s1 SET SCHEMA l")
	want[0] = publisher.Value{Problem: publisher.Missing}
	require.Equal(t, want, read())
	s.exec(t, "CREATE TABLE k.s1 ()", "DROP SEQUENCE k.s2", "CREATE VIEW k.s2 AS SELECT 1")
	want[0].Problem, want[1] = publisher.NotASequence, publisher.Value{Problem: publisher.NotASequence}
	require.Equal(t, want, read())
	s.exec(t, "ALTER SCHEMA k RENAME TO m")
	require.Equal(t, slices.Repeat([]publisher.Value{{Problem: publisher.Missing}}, 7), read())
	s.exec(t, "ALTER SCHEMA m RENAME TO k")
	require.Equal(t, want, read())
}

// testBatch reads around the sizes of a batch, with one that cannot be read in any place.
func testBatch(t *testing.T, s *server) {
	s.exec(t, "CREATE SCHEMA many",
		`DO $$ BEGIN FOR i IN 1..203 LOOP EXECUTE format('CREATE SEQUENCE many.s%s', i);
			IF i % 2 = 0 THEN PERFORM setval(format('many.s%s', i), i, i % 4 = 0); END IF; END LOOP; END $$`)
	c := s.client(t, "postgres", publisher.Options{})
	for _, n := range []int{1, 49, 50, 51, 99, 100, 101, 203} {
		names := make([]host.SequenceName, n)
		for i := range names {
			names[i] = name("many", fmt.Sprintf("s%d", i+1))
		}
		names[n/2].Name = "nowhere"
		v, err := c.Values(t.Context(), names)
		require.NoError(t, err)
		for i := range v {
			want := publisher.Value{Definition: bigint(), Position: at(1, false)}
			if i%2 == 1 {
				want.Position = at(int64(i+1), i%4 == 3)
			}
			if i == n/2 {
				want = publisher.Value{Problem: publisher.Missing}
			}
			require.Equal(t, want, v[i], "%d of %d", i, n)
		}
	}
}

func testLocks(t *testing.T, s *server) {
	c := s.client(t, "postgres", publisher.Options{})
	other := s.session(t)
	tx, err := other.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "DROP SEQUENCE many.s3, many.s150")
	require.NoError(t, err)
	var names []host.SequenceName
	for i := range 200 {
		names = append(names, name("many", fmt.Sprintf("s%d", i+1)))
	}
	v, err := c.Values(t.Context(), names)
	require.NoError(t, err)
	for i := range v {
		want := publisher.None
		if i == 2 || i == 149 {
			want = publisher.Locked
		}
		require.Equal(t, want, v[i].Problem, i)
	}
	log, err := os.ReadFile(s.dir + "/log")
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(log), "canceling statement due to lock timeout"), "both are found at once")
	require.NoError(t, tx.Rollback(t.Context()))
	v, err = c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, publisher.None, v[2].Problem)

	// The same of sequences that are known.
	tx, err = other.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "DROP SEQUENCE many.s3")
	require.NoError(t, err)
	v, err = c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, publisher.Locked, v[2].Problem)
	require.Equal(t, publisher.None, v[3].Problem)
	log, err = os.ReadFile(s.dir + "/log")
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(log), "canceling statement due to lock timeout"), "it is waited for once")
	require.NoError(t, tx.Rollback(t.Context()))
}

// testDropped drops a sequence between the look-up of the names and the read: the batch waits for a lock meanwhile.
func testDropped(t *testing.T, s *server) {
	c := s.client(t, "postgres", publisher.Options{})
	other := s.session(t)
	tx, err := other.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "DROP SEQUENCE many.s5, many.s8")
	require.NoError(t, err)
	watch := s.session(t)
	committed := make(chan error, 1)
	go func() {
		committed <- func() error {
			for range 1000 {
				var waiting bool
				err := watch.QueryRow(context.Background(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").Scan(&waiting)
				if err != nil {
					return err
				}
				if waiting {
					return tx.Commit(context.Background())
				}
				time.Sleep(time.Millisecond) // between two looks
			}
			return errors.New("nobody waits")
		}()
	}()
	var names []host.SequenceName
	for i := range 20 {
		names = append(names, name("many", fmt.Sprintf("s%d", i+1)))
	}
	v, err := c.Values(t.Context(), names)
	require.NoError(t, err)
	require.NoError(t, <-committed)
	for i := range v {
		gone := i == 4 || i == 7
		if gone {
			require.NotEqual(t, publisher.None, v[i].Problem)
			require.NotEqual(t, publisher.Locked, v[i].Problem)
		} else {
			require.Equal(t, publisher.None, v[i].Problem, i)
		}
	}
	v, err = c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, publisher.Missing, v[4].Problem)
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
		"CREATE PUBLICATION p_root FOR TABLE a.part WITH (publish_via_partition_root = true)",
		"CREATE PUBLICATION p_leaf FOR TABLE a.part2", "CREATE PUBLICATION p_parent FOR TABLE a.parent",
	)
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
	for _, n := range append(in("a", "unlogged_id_seq", "t_id_seq"), in("many", "s1")...) {
		require.NotContains(t, all, n)
	}
	require.True(t, slices.IsSortedFunc(all, func(a, b host.SequenceName) int {
		return slices.Compare([]string{a.Schema, a.Name}, []string{b.Schema, b.Name})
	}))
	every := selected(t, c, nil, host.SequenceSelection{All: true})
	require.Greater(t, len(every), 200)
	require.NotContains(t, every, name("a", "unlogged_id_seq"))

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

func testSession(t *testing.T, s *server) {
	var connected []*pgx.Conn
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := s.connect("repl")(ctx)
		connected = append(connected, conn)
		return conn, err
	}
	c := publisher.New(connect, publisher.Options{MaxReads: 10, RemoteTimeout: 20 * time.Second})
	defer c.Close()
	_, err := c.Mark(t.Context())
	require.NoError(t, err)
	for range 6 {
		_, err := c.Values(t.Context(), public("a", "b", "c", "d"))
		require.NoError(t, err)
	}
	require.Len(t, connected, 3, "sessions have an end")
	for range 6 {
		_, err := c.Mark(t.Context())
		require.NoError(t, err)
		_, err = c.Values(t.Context(), public("a", "b", "c", "d"))
		require.NoError(t, err)
	}
	require.Len(t, connected, 3, "what is read again adds nothing to a session")
	var readOnly string
	require.NoError(t, connected[2].QueryRow(t.Context(), "SHOW transaction_read_only").Scan(&readOnly))
	require.Equal(t, "on", readOnly)
	var idle string
	require.NoError(t, connected[2].QueryRow(t.Context(), "SHOW idle_session_timeout").Scan(&idle))
	require.Equal(t, "0", idle, "it is kept over pauses")

	// Not another server, nor this one at an earlier time.
	_, err = c.Mark(t.Context())
	require.NoError(t, err)
	c.SetMarkForTest(func(m *publisher.Mark) { m.LSN += 1 << 40 })
	c.Close()
	_, err = c.Values(t.Context(), public("a"))
	require.ErrorContains(t, err, "the publisher changed")
	_, err = c.Mark(t.Context())
	require.NoError(t, err)

	// No answer in time.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Values(ctx, public("a"))
	require.ErrorIs(t, err, context.Canceled)
	slow := publisher.New(s.connect("postgres"), publisher.Options{RemoteTimeout: time.Nanosecond})
	defer slow.Close()
	tx, err := s.session(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE pg_catalog.pg_sequence")
	require.NoError(t, err)
	_, err = slow.Values(t.Context(), public("called"))
	require.Error(t, err)
	require.Contains(t, host.Describe(err).Hint+host.Describe(err).Text, "replsync.remote_timeout")
	require.NoError(t, tx.Rollback(t.Context()))
}

// testFrozen has a server process that does not answer: that is noticed long before a statement may take too long.
func testFrozen(t *testing.T, s *server) {
	c := s.client(t, "postgres", publisher.Options{RemoteTimeout: 10 * time.Minute, FirstTimeout: 5 * time.Second})
	_, err := c.Mark(t.Context())
	require.NoError(t, err)
	pid := int(c.PIDForTest())
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Mark(ctx)
	require.True(t, host.HasCode(err, "08006"), err)
	require.NoError(t, ctx.Err())
	_, err = s.client(t, "postgres", publisher.Options{}).Mark(t.Context())
	require.NoError(t, err)
}

func testRestart(t *testing.T, s *server) {
	s.exec(t, "CREATE SEQUENCE broken", "SELECT nextval('broken')")
	var path string
	require.NoError(t, s.session(t).QueryRow(t.Context(), "SELECT pg_relation_filepath('broken')").Scan(&path))
	c := s.client(t, "postgres", publisher.Options{})
	_, err := c.Values(t.Context(), public("called"))
	require.NoError(t, err)
	s.ctl(t, "restart")
	v, err := c.Values(t.Context(), public("called"))
	require.NoError(t, err, "by a new connection")
	require.Equal(t, at(2, true), v[0].Position)
	s.ctl(t, "stop")
	_, err = c.Values(t.Context(), public("called"))
	require.Error(t, err)

	// A sequence that cannot be read for a reason of its own.
	require.NoError(t, os.Truncate(s.dir+"/data/"+path, 0))
	s.ctl(t, "start")
	v, err = c.Values(t.Context(), public("called", "broken", "fresh", "nowhere"))
	require.NoError(t, err)
	require.Equal(t, at(2, true), v[0].Position)
	require.Equal(t, publisher.Unreadable, v[1].Problem)
	require.Contains(t, v[1].Detail, "could not read")
	require.Equal(t, publisher.Value{Definition: bigint(), Position: at(1, false)}, v[2])
	require.Equal(t, publisher.Missing, v[3].Problem)
}

// testStandby turns the publisher into a standby.
func testStandby(t *testing.T, s *server) {
	s.exec(t, "CREATE UNLOGGED TABLE unlogged (id serial)", "SELECT nextval('unlogged_id_seq')",
		"CREATE SEQUENCE logged", "SELECT setval('logged', 4, false)")
	c := s.client(t, "postgres", publisher.Options{})
	primary, err := c.Mark(t.Context())
	require.NoError(t, err)
	v, err := c.Values(t.Context(), public("unlogged_id_seq"))
	require.NoError(t, err)
	require.Equal(t, publisher.Value{Definition: v[0].Definition, Position: at(1, true)}, v[0])
	s.ctl(t, "stop")
	require.NoError(t, os.WriteFile(s.dir+"/data/standby.signal", nil, 0o644))
	s.ctl(t, "start")
	mark, err := c.Mark(t.Context())
	require.NoError(t, err)
	require.True(t, mark.InRecovery)
	require.GreaterOrEqual(t, mark.LSN, primary.LSN)
	require.Equal(t, primary.SystemIdentifier, mark.SystemIdentifier)
	require.Equal(t, primary.Timeline, mark.Timeline)
	v, err = c.Values(t.Context(), public("unlogged_id_seq", "logged", "called"))
	require.NoError(t, err)
	require.Equal(t, publisher.Unlogged, v[0].Problem)
	require.Equal(t, at(4, false), v[1].Position)
	require.Equal(t, at(2, true), v[2].Position)
}
