package publisher_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

// testCatalogs looks when the catalogs are read again: after each change that may concern the sequences, and no other.
func testCatalogs(t *testing.T, s *server) {
	if s.major < firstHash {
		return
	}
	s.exec(t, "CREATE SCHEMA c", "GRANT USAGE ON SCHEMA c TO reader", "CREATE SEQUENCE c.one", "CREATE SEQUENCE c.two", "SELECT setval('c.one', 5), setval('c.two', 6)",
		"CREATE ROLE readers", "GRANT SELECT ON SEQUENCE c.one TO reader", "GRANT SELECT ON SEQUENCE c.two TO readers", "GRANT readers TO reader")
	c := s.client(t, "reader", publisher.Options{CatalogBytes: 1 << 30})
	watch := s.session(t)
	names := []host.SequenceName{name("c", "one"), name("c", "two")}
	// read tells what was read, and whether that were the positions alone. Before 18 those that are not called are read as tables.
	read := func() (values []publisher.Value, alone bool) {
		_, err := c.Mark(t.Context())
		require.NoError(t, err)
		values, err = c.Values(t.Context(), names)
		require.NoError(t, err)
		require.NoError(t, watch.QueryRow(t.Context(),
			"SELECT query ~ 'array_agg|^SELECT 1, last_value' FROM pg_stat_activity WHERE pid = $1", c.PIDForTest()).Scan(&alone))
		return values, alone
	}
	settle := func() []publisher.Value {
		for range 3 {
			if values, alone := read(); alone {
				return values
			}
		}
		t.Fatal("the catalogs are read each time")
		return nil
	}
	one := publisher.Value{Definition: bigint(), Position: at(5, true)}
	two := publisher.Value{Definition: bigint(), Position: at(6, true)}
	require.Equal(t, []publisher.Value{one, two}, settle())

	// What is selected is known, unless it has changed before it is read.
	choose := func() {
		c = s.client(t, "reader", publisher.Options{CatalogBytes: 1 << 30})
		require.Equal(t, names, selected(t, c, nil, host.SequenceSelection{Include: []string{"c.*"}}))
	}
	choose()
	values, alone := read()
	require.Equal(t, []publisher.Value{one, two}, values)
	require.Equal(t, c.Major() >= 18, alone)
	choose()
	s.exec(t, "ALTER SEQUENCE c.two CYCLE")
	two.Definition.Cycle = true
	values, alone = read()
	require.Equal(t, []publisher.Value{one, two}, values)
	require.False(t, alone)
	settle()

	temporary := s.session(t)
	_, err := temporary.Exec(t.Context(), "CREATE TEMP SEQUENCE mine")
	require.NoError(t, err)
	s.exec(t, "CREATE TABLE c.t ()", "SELECT setval('c.one', 7), setval('c.two', 8, false)")
	one.Position, two.Position = at(7, true), at(8, false)
	settle() // the first temporary object of a session may make a schema
	_, err = temporary.Exec(t.Context(), "CREATE TEMP SEQUENCE another")
	require.NoError(t, err)
	values, alone = read()
	require.Equal(t, []publisher.Value{one, two}, values)
	require.True(t, alone, "neither tables nor temporary sequences matter")
	s.exec(t, "SELECT setval('c.two', 8)")
	two.Position.IsCalled = true

	for _, sql := range []string{
		"CREATE SEQUENCE c.three", "ALTER SEQUENCE c.one MAXVALUE 100", "ALTER SEQUENCE c.three RENAME TO four",
		"GRANT USAGE ON SEQUENCE c.one TO PUBLIC", "DROP SEQUENCE c.four", "CREATE SCHEMA d", "VACUUM FULL pg_sequence",
	} {
		s.exec(t, sql)
		if sql == "ALTER SEQUENCE c.one MAXVALUE 100" {
			one.Definition.Max = 100
		}
		values, alone := read()
		require.Equal(t, []publisher.Value{one, two}, values, sql)
		require.Equal(t, sql == "VACUUM FULL pg_sequence", alone, sql)
		settle()
	}

	// No row of a sequence shows this.
	s.exec(t, "REVOKE readers FROM reader")
	values, _ = read()
	require.Equal(t, one, values[0])
	require.Equal(t, publisher.NoRight, values[1].Problem)
	s.exec(t, "GRANT readers TO reader")
	values, _ = read()
	require.Equal(t, []publisher.Value{one, two}, values)

	// As long as no transaction ends, that is known without a look at the catalogs.
	looked := func() (looked bool) {
		_, err = c.Mark(t.Context())
		require.NoError(t, err)
		require.NoError(t, watch.QueryRow(t.Context(),
			"SELECT query ~ 'pg_relation_size' FROM pg_stat_activity WHERE pid = $1", c.PIDForTest()).Scan(&looked))
		return looked
	}
	settle()
	s.exec(t, "CREATE TABLE c.u ()")
	require.Equal(t, c.Major() >= 11, looked())
	require.False(t, looked())
	s.exec(t, "SELECT setval('c.one', 9)")
	one.Position = at(9, true)
	tx, err := watch.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "ALTER SEQUENCE c.two MAXVALUE 100")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	require.Equal(t, c.Major() >= 11, looked(), "a transaction that was taken back has ended too")
	require.False(t, looked())

	// Dropped between the look at the catalogs and the read.
	settle()
	_, err = c.Mark(t.Context())
	require.NoError(t, err)
	s.exec(t, "DROP SEQUENCE c.two")
	values, err = c.Values(t.Context(), names)
	require.NoError(t, err)
	require.Equal(t, one, values[0])
	require.Equal(t, publisher.Missing, values[1].Problem)
}
