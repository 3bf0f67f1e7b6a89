package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

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
	if s.major >= firstIdleTimeout {
		var idle string
		require.NoError(t, connected[2].QueryRow(t.Context(), "SHOW idle_session_timeout").Scan(&idle))
		require.Equal(t, "0", idle, "it is kept over pauses")
	}

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

// testLarge has more sequences than a session is to have in its caches: two read them, which have an end too.
func testLarge(t *testing.T, s *server) {
	const n = 40
	s.exec(t, "CREATE SCHEMA large", fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP EXECUTE format('CREATE SEQUENCE large.s%%s', i);
		PERFORM setval(format('large.s%%s', i), i, i %% 3 > 0); END LOOP; END $$`, n))
	var mutex sync.Mutex
	var connected []*pgx.Conn
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := s.connect("postgres")(ctx)
		mutex.Lock()
		defer mutex.Unlock()
		connected = append(connected, conn)
		return conn, err
	}
	c := publisher.New(connect, publisher.Options{MaxReads: 20, RemoteTimeout: 20 * time.Second})
	defer c.Close()
	names := make([]host.SequenceName, n)
	for i := range names {
		names[i] = name("large", fmt.Sprintf("s%d", i+1))
	}
	open := func() (count int) {
		for _, conn := range connected {
			if !conn.IsClosed() {
				count++
			}
		}
		return count
	}
	for round := range 3 {
		_, err := c.Mark(t.Context())
		require.NoError(t, err)
		for portion := range slices.Chunk(append(names, name("large", "nowhere")), 8) {
			v, err := c.Values(t.Context(), portion)
			require.NoError(t, err)
			for i := range v {
				if portion[i].Name == "nowhere" {
					require.Equal(t, publisher.Missing, v[i].Problem)
					continue
				}
				number, err := strconv.ParseInt(portion[i].Name[1:], 10, 64)
				require.NoError(t, err)
				require.Equal(t, publisher.Value{Definition: bigint(), Position: at(number, number%3 > 0)}, v[i], portion[i].Name)
			}
			if round > 0 {
				require.Equal(t, 2, open())
			}
		}
	}
	require.Greater(t, len(connected), 4, "sessions have an end")

	// There may be one session only.
	s.exec(t, "CREATE ROLE lonely LOGIN CONNECTION LIMIT 1", "GRANT USAGE ON SCHEMA large TO lonely",
		"GRANT SELECT ON ALL SEQUENCES IN SCHEMA large TO lonely")
	lonely := publisher.New(func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := s.connect("lonely")(ctx)
		var refused *pgconn.PgError
		if errors.As(err, &refused) {
			err = host.Errorf(refused.Code, "%s", refused.Message)
		}
		return conn, err
	}, publisher.Options{MaxReads: 20})
	defer lonely.Close()
	for range 2 {
		_, err := lonely.Mark(t.Context())
		require.NoError(t, err)
		for portion := range slices.Chunk(names, 8) {
			v, err := lonely.Values(t.Context(), portion)
			require.NoError(t, err)
			require.Equal(t, portion[7].Name, fmt.Sprintf("s%d", v[7].Position.LastValue))
		}
	}

	// One of the two finds that it is led elsewhere.
	_, err := c.Mark(t.Context())
	require.NoError(t, err)
	c.SetMarkForTest(func(m *publisher.Mark) { m.LSN += 1 << 40 })
	require.NoError(t, connected[len(connected)-1].Close(t.Context()))
	require.NoError(t, connected[len(connected)-2].Close(t.Context()))
	_, err = c.Values(t.Context(), names)
	require.ErrorContains(t, err, "the publisher changed")
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
	if s.major >= firstSignal {
		require.NoError(t, os.WriteFile(s.dir+"/data/standby.signal", nil, 0o644))
	} else {
		require.NoError(t, os.WriteFile(s.dir+"/data/recovery.conf", []byte("standby_mode = on\n"), 0o644))
	}
	s.ctl(t, "start")
	mark, err := c.Mark(t.Context())
	require.NoError(t, err)
	require.True(t, mark.InRecovery)
	require.GreaterOrEqual(t, mark.LSN, primary.LSN)
	require.Equal(t, primary.SystemIdentifier, mark.SystemIdentifier)
	require.Equal(t, primary.Timeline, mark.Timeline)
	v, err = c.Values(t.Context(), public("unlogged_id_seq", "logged", "called"))
	require.NoError(t, err)
	if s.major >= firstUnlogged {
		require.Equal(t, publisher.Unlogged, v[0].Problem)
	} else {
		// As far as the primary has logged it.
		require.Equal(t, publisher.None, v[0].Problem)
		require.GreaterOrEqual(t, v[0].Position.LastValue, int64(1))
	}
	require.Equal(t, at(4, false), v[1].Position)
	require.Equal(t, at(2, true), v[2].Position)
}
