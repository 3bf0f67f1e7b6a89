package publisher_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/remote"
)

// server is a PostgreSQL server without the extension, on a socket of its own.
type server struct {
	dir    string // as seen from here
	inside string // as seen by the server
	root   string
	bindir string
	owner  *syscall.Credential
	major  int
}

// start starts a server. Without PostgreSQL the test fails: there is no other check of the queries. REPLSYNC_TEST_ROOT names the
// root of another system with a server of another version.
func start(t testing.TB) *server {
	t.Helper()
	s := &server{bindir: os.Getenv("REPLSYNC_TEST_BINDIR"), root: os.Getenv("REPLSYNC_TEST_ROOT")}
	if s.bindir == "" {
		found, err := filepath.Glob(s.root + "/usr/lib/postgresql/*/bin")
		require.NoError(t, err)
		require.NotEmpty(t, found, "this test needs a PostgreSQL server; set REPLSYNC_TEST_BINDIR to its bin directory")
		s.bindir = strings.TrimPrefix(found[len(found)-1], s.root)
	}
	dir, err := os.MkdirTemp(s.root+"/tmp", "publisher")
	require.NoError(t, err)
	s.dir, s.inside = dir, strings.TrimPrefix(dir, s.root)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		uid, gid := postgres(t, s.root)
		s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		require.NoError(t, os.Chown(dir, uid, gid))
	}
	s.run(t, "initdb", "-D", s.inside+"/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	config := fmt.Sprintf("wal_level=logical\nlisten_addresses=''\nunix_socket_directories='%s'\nfsync=off\n"+
		"dynamic_shared_memory_type=mmap\nmax_connections=20\n", s.inside)
	f, err := os.OpenFile(filepath.Join(dir, "data", "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(config)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	s.ctl(t, "start")
	t.Cleanup(func() { s.ctl(t, "stop") })
	s.major, err = remote.MajorVersion(s.session(t))
	require.NoError(t, err)
	return s
}

// postgres finds the account that servers of a system run under.
func postgres(t testing.TB, root string) (uid, gid int) {
	t.Helper()
	accounts, err := os.ReadFile(root + "/etc/passwd")
	require.NoError(t, err)
	for line := range strings.Lines(string(accounts)) {
		if fields := strings.Split(line, ":"); fields[0] == "postgres" {
			uid, _ = strconv.Atoi(fields[2])
			gid, _ = strconv.Atoi(fields[3])
		}
	}
	require.NotZero(t, uid, "no account postgres")
	return uid, gid
}

func (s *server) ctl(t testing.TB, what string) {
	t.Helper()
	args := []string{"-D", s.inside + "/data", "-w", "-l", s.inside + "/log"}
	if what != "start" {
		args = append(args, "-m", "fast")
	}
	s.run(t, "pg_ctl", append(args, what)...)
}

func (s *server) run(t testing.TB, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.bindir, program), args...)
	cmd.Dir = s.inside
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Chroot: s.root}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.inside, "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", program, out)
}

func (s *server) connect(role string) remote.Connect {
	return func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.Connect(ctx, fmt.Sprintf("host=%s user=%s dbname=postgres", s.dir, role))
	}
}

func (s *server) session(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := s.connect("postgres")(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (s *server) exec(t testing.TB, statements ...string) {
	t.Helper()
	conn := s.session(t)
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range statements {
		_, err := conn.Exec(context.Background(), sql)
		require.NoError(t, err, sql)
	}
}
