package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

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
func testKnown(t *testing.T, s *server, opts publisher.Options) {
	s.exec(t, "CREATE SCHEMA k", "CREATE SCHEMA l",
		`DO $$ BEGIN FOR i IN 1..6 LOOP EXECUTE format('CREATE SEQUENCE k.s%s', i); PERFORM setval(format('k.s%s', i), i); END LOOP; END $$`)
	c := s.client(t, "postgres", opts)
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
	for range 3 {
		require.Equal(t, want, read())
	}

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
	for range 3 {
		require.Equal(t, want, read())
	}

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
	s.exec(t, "DROP SCHEMA k CASCADE", "DROP SCHEMA l CASCADE")
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
