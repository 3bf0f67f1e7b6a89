package primary_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/logicalfiles"
	"github.com/replsync/replsync/gosrc/internal/primary"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// server is a PostgreSQL server without the extension, on a socket of its own.
type server struct {
	dir    string
	bindir string
	owner  *syscall.Credential
}

// start starts a server. Without PostgreSQL the test fails: there is no other check of the queries.
func start(t *testing.T) *server {
	t.Helper()
	s := &server{bindir: os.Getenv("REPLSYNC_TEST_BINDIR")}
	if s.bindir == "" {
		found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
		require.NoError(t, err)
		require.NotEmpty(t, found, "this test needs a PostgreSQL server; set REPLSYNC_TEST_BINDIR to its bin directory")
		s.bindir = found[len(found)-1]
	}
	dir, err := os.MkdirTemp("", "primary")
	require.NoError(t, err)
	s.dir = dir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		require.NoError(t, err)
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		require.NoError(t, os.Chown(dir, uid, gid))
	}
	data := filepath.Join(dir, "data")
	s.run(t, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
	config := fmt.Sprintf("wal_level=logical\nlisten_addresses=''\nunix_socket_directories='%s'\nfsync=off\n"+
		"max_prepared_transactions=5\n", dir)
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(config)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	s.run(t, "pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "start")
	t.Cleanup(func() { s.run(t, "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop") })
	return s
}

func (s *server) run(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.bindir, program), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", program, out)
}

func (s *server) connect(role string) remote.Connect {
	return func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.Connect(ctx, fmt.Sprintf("host=%s user=%s dbname=postgres", s.dir, role))
	}
}

func (s *server) exec(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := s.connect("postgres")(context.Background())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range statements {
		_, err := conn.Exec(context.Background(), sql)
		require.NoError(t, err, sql)
	}
}

func TestLive(t *testing.T) {
	s := start(t)
	s.exec(t,
		"CREATE ROLE repl LOGIN REPLICATION",
		`CREATE FUNCTION public.evil(name, text) RETURNS bool LANGUAGE sql AS 'SELECT false'`,
		`CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.evil)`,
		"SELECT pg_create_physical_replication_slot('standby')",
		"SELECT pg_create_logical_replication_slot('plain', 'test_decoding')",
		"SELECT pg_create_logical_replication_slot('prepared', 'test_decoding', false, true)",
		"SELECT pg_create_logical_replication_slot('passing', 'test_decoding', true)",
		"CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "CHECKPOINT", "INSERT INTO t VALUES (2)", "CHECKPOINT",
		"SELECT pg_replication_slot_advance('plain', pg_current_wal_lsn())",
		"CHECKPOINT", "INSERT INTO t VALUES (3)", "CHECKPOINT",
		"SELECT pg_replication_slot_advance('plain', pg_current_wal_lsn())",
		"VACUUM FULL pg_class",
	)
	ctx := t.Context()
	client := primary.New(s.connect("postgres"), primary.Options{RemoteTimeout: 20 * time.Second})
	defer client.Close()

	state, err := client.Read(ctx, "standby")
	require.NoError(t, err)
	require.False(t, state.InRecovery)
	require.Equal(t, "logical", state.WALLevel)
	require.NotZero(t, state.SystemIdentifier)
	require.NotEmpty(t, state.PostmasterStart)
	require.EqualValues(t, 1, state.Timeline)
	require.Equal(t, primary.PhysicalSlot{Exists: true}, state.Physical)
	require.Equal(t, primary.ByReadBinaryFile, state.Files)
	require.Len(t, state.Slots, 2, "the temporary slot is left out")
	plain, prepared := state.Slots[0], state.Slots[1]
	require.Equal(t, "plain", plain.Name)
	require.Equal(t, "test_decoding", plain.Plugin)
	require.Equal(t, "postgres", plain.Database)
	require.Less(t, plain.RestartLSN, plain.ConfirmedFlushLSN)
	require.NotZero(t, plain.CatalogXmin)
	require.False(t, plain.TwoPhase)
	require.True(t, prepared.TwoPhase)
	require.Equal(t, prepared.ConfirmedFlushLSN, prepared.TwoPhaseAt)

	missing, err := client.Read(ctx, "other")
	require.NoError(t, err)
	require.False(t, missing.Physical.Exists)

	t.Run("snapshots", func(t *testing.T) {
		found, err := client.Snapshots(ctx, []host.LSN{plain.RestartLSN, 16})
		require.NoError(t, err)
		require.Equal(t, primary.Snapshot{}, found[16])
		require.NoError(t, found[plain.RestartLSN].Err)
		require.NoError(t, logicalfiles.CheckSnapshot(found[plain.RestartLSN].Content))
	})

	t.Run("mappings", func(t *testing.T) {
		found := map[string]int{}
		file := func(name string, content []byte) error { found[name] = len(content); return nil }
		require.NoError(t, client.Mappings(ctx, []primary.Source{{Database: plain.DatabaseOID, From: plain.RestartLSN}}, file))
		require.NotEmpty(t, found)
		for name, size := range found {
			m, err := logicalfiles.ParseMappingName(name)
			require.NoError(t, err)
			require.Equal(t, plain.DatabaseOID, m.Database)
			require.NotZero(t, size)
		}
		clear(found)
		require.NoError(t, client.Mappings(ctx, []primary.Source{{Database: 1, From: plain.RestartLSN}}, file))
		require.Empty(t, found, "another database's")
		refusal := fmt.Errorf("no space")
		err := client.Mappings(ctx, []primary.Source{{Database: plain.DatabaseOID}}, func(string, []byte) error { return refusal })
		require.Equal(t, refusal, err)
	})

	t.Run("rights", func(t *testing.T) {
		repl := primary.New(s.connect("repl"), primary.Options{RemoteTimeout: 20 * time.Second})
		defer repl.Close()
		state, err := repl.Read(ctx, "standby")
		require.NoError(t, err)
		require.Equal(t, primary.NoAccess, state.Files)
		require.Zero(t, state.Slots[1].TwoPhaseAt)
		_, err = repl.Snapshots(ctx, []host.LSN{plain.RestartLSN})
		require.True(t, host.HasCode(err, "42501"))
		m := host.Describe(err)
		require.Contains(t, m.Hint, `GRANT USAGE ON SCHEMA replsync TO "repl"`)
		require.Contains(t, m.Hint, `In database "postgres"`)

		s.exec(t, "CREATE SCHEMA replsync",
			`CREATE FUNCTION replsync.logical_snapshot(pg_lsn) RETURNS bytea LANGUAGE sql AS $$ SELECT '\x0102'::bytea $$`,
			`CREATE FUNCTION replsync.logical_mappings(oid, pg_lsn) RETURNS TABLE (name text, content bytea) LANGUAGE sql
			 AS $$ SELECT 'map-' || $1, '\x03'::bytea $$`,
			`CREATE FUNCTION replsync.logical_slot_two_phase_at(name) RETURNS pg_lsn LANGUAGE sql AS $$ SELECT '1/2'::pg_lsn $$`)
		state, err = repl.Read(ctx, "standby")
		require.NoError(t, err)
		require.Equal(t, primary.NoAccess, state.Files, "no USAGE")
		s.exec(t, "GRANT USAGE ON SCHEMA replsync TO repl")
		state, err = repl.Read(ctx, "standby")
		require.NoError(t, err)
		require.Equal(t, primary.ByExtension, state.Files)
		found, err := repl.Snapshots(ctx, []host.LSN{16, 1 << 33})
		require.NoError(t, err)
		require.Equal(t, []byte{1, 2}, found[1<<33].Content)
		var names []string
		require.NoError(t, repl.Mappings(ctx, []primary.Source{{5, 16}, {6, 16}}, func(name string, _ []byte) error {
			names = append(names, name)
			return nil
		}))
		require.Equal(t, []string{"map-5", "map-6"}, names)
		if state, err = repl.Read(ctx, "standby"); state.VersionNum < 180000 {
			require.NoError(t, err)
			require.Equal(t, host.LSN(1<<32|2), state.Slots[1].TwoPhaseAt)
		}
	})

	t.Run("rights that are taken away", func(t *testing.T) {
		connected := 0
		repl := primary.New(func(ctx context.Context) (*pgx.Conn, error) {
			connected++
			return s.connect("repl")(ctx)
		}, primary.Options{RemoteTimeout: 20 * time.Second})
		defer repl.Close()
		state, err := repl.Read(ctx, "standby")
		require.NoError(t, err)
		if state.VersionNum < 180000 {
			require.NotZero(t, state.Slots[1].TwoPhaseAt)
			s.exec(t, "REVOKE EXECUTE ON FUNCTION replsync.logical_slot_two_phase_at(name) FROM PUBLIC")
			_, err = repl.Read(ctx, "standby")
			require.True(t, host.HasCode(err, "42501"), err)
			state, err = repl.Read(ctx, "standby")
			require.NoError(t, err)
			require.Zero(t, state.Slots[1].TwoPhaseAt)
			require.Equal(t, 2, connected)
			s.exec(t, "GRANT EXECUTE ON FUNCTION replsync.logical_slot_two_phase_at(name) TO PUBLIC")
		}
		connected = 0
		s.exec(t, "SELECT pg_drop_replication_slot('prepared')")
		_, err = repl.Read(ctx, "standby")
		require.NoError(t, err)
		s.exec(t, "DROP FUNCTION replsync.logical_slot_two_phase_at(name)")
		_, err = repl.Read(ctx, "standby")
		require.NoError(t, err, "no slot needs it")
		require.Zero(t, connected)
	})

	t.Run("cancel and reconnect", func(t *testing.T) {
		s.exec(t, `CREATE OR REPLACE FUNCTION replsync.logical_snapshot(pg_lsn) RETURNS bytea LANGUAGE sql
			AS $$ SELECT CASE WHEN pg_sleep(60) IS NULL THEN NULL ELSE '\x'::bytea END $$`)
		super := primary.New(s.connect("postgres"), primary.Options{RemoteTimeout: 20 * time.Second})
		defer super.Close()
		_, err := super.Read(ctx, "standby")
		require.NoError(t, err)
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err = super.Snapshots(short, []host.LSN{16})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), 5*time.Second)
		_, err = super.Read(ctx, "standby")
		require.NoError(t, err)

		slow := primary.New(s.connect("postgres"), primary.Options{RemoteTimeout: time.Millisecond})
		_, err = slow.Snapshots(ctx, []host.LSN{16})
		require.Error(t, err)
		require.True(t, strings.HasPrefix(host.Describe(err).SQLState, "08"), err)
		require.Contains(t, host.Describe(err).Hint, "replsync.remote_timeout")
	})
}
