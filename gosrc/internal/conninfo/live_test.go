package conninfo_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
)

// connect parses and connects, with options that tests rarely change.
func connect(t *testing.T, text string, change ...func(*conninfo.Options)) (*pgx.Conn, error) {
	t.Helper()
	opts := conninfo.Options{
		DefaultDatabase: "postgres", ApplicationName: "replsync", ConnectTimeout: 20 * time.Second,
		StatementTimeout: 30 * time.Second,
	}
	for _, f := range change {
		f(&opts)
	}
	config, err := conninfo.Parse(text, opts)
	if err != nil {
		return nil, err
	}
	// Far above every limit in here, so that one that is not kept fails a test and does not stop all.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := config.Connect(ctx)
	if conn != nil {
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

func mustConnect(t *testing.T, text string, change ...func(*conninfo.Options)) *pgx.Conn {
	t.Helper()
	conn, err := connect(t, text, change...)
	require.NoError(t, err, text)
	return conn
}

// mustFail returns the error after checking that it gives nothing away.
func mustFail(t *testing.T, text string, change ...func(*conninfo.Options)) *conninfo.Error {
	t.Helper()
	_, err := connect(t, text, change...)
	var e *conninfo.Error
	require.ErrorAs(t, err, &e, text)
	require.NotContains(t, fmt.Sprintf("%s %+v %#v %s %s", err, err, e, e.Detail, e.Hint), "secret")
	// It would keep the configuration, with the password.
	var withConfig *pgconn.ConnectError
	require.NotErrorAs(t, err, &withConfig)
	return e
}

// requireOneAttempt counts the causes: the text of a failure that comes twice is shown once.
func requireOneAttempt(t *testing.T, e *conninfo.Error) {
	t.Helper()
	joined, ok := e.Unwrap().(interface{ Unwrap() []error })
	require.True(t, ok)
	require.Len(t, joined.Unwrap(), 1)
}

func query(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var value string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&value))
	return value
}

const withPassword = ` password='it\'s a \\secret'`

func (l *live) at(rest string) string {
	return "host=db.test hostaddr=127.0.0.1 port=" + l.primary + withPassword + " " + rest
}

func TestLiveRecoveryConninfo(t *testing.T) {
	l := server(t)
	t.Logf("primary_conninfo = %s", strings.ReplaceAll(l.recovery, "secret", "..."))
	written, err := conninfo.ParseString(l.recovery)
	require.NoError(t, err)
	require.NotEmpty(t, written)
	for _, text := range []string{l.recovery, strings.ReplaceAll(l.recovery, "sslmode=prefer", "sslmode=disable")} {
		conn := mustConnect(t, text)
		require.Equal(t, "repl", query(t, conn, "select current_user::text"))
		require.Equal(t, "replsync", query(t, conn, "show application_name"))

		// The fixture of this version, where there is one, says what is really written.
		fixture, ok := conninfo.RecoveryConninfo[serverVersion(t, conn)/10000]
		if !ok {
			continue
		}
		want, err := conninfo.ParseString(fixture)
		require.NoError(t, err)
		for _, name := range []string{"host", "port", "user", "password", "dbname"} {
			want[name] = written[name]
		}
		if written["dbname"] == "" {
			delete(want, "dbname")
		}
		require.Equal(t, want, written)
	}
}

func TestLiveSession(t *testing.T) {
	l := server(t)
	conn := mustConnect(t, l.at("user=scram client_encoding=LATIN1 replication=database tcp_user_timeout=5000 "+
		"keepalives_idle=10 options='-c search_path=public -c work_mem=1234kB -c LOCK-timeout=7s'"))
	for name, want := range map[string]string{
		"search_path": "pg_catalog, pg_temp", "client_encoding": "UTF8", "statement_timeout": "30s", "lock_timeout": "7s",
		"idle_session_timeout": "0", "idle_in_transaction_session_timeout": "30s", "work_mem": "1234kB", "timezone": "UTC",
		"transaction_isolation": "read committed", "tcp_user_timeout": "0", "application_name": "replsync",
	} {
		require.Equal(t, want, query(t, conn, "show "+name), name)
	}
	require.Equal(t, "postgres", query(t, conn, "select current_database()::text"))

	conn = mustConnect(t, l.at("user=scram dbname=app fallback_application_name=f options='--statement-timeout=4s'"))
	require.Equal(t, "4s", query(t, conn, "show statement_timeout"))
	require.Equal(t, "f", query(t, conn, "show application_name"))
	require.Equal(t, "app", query(t, conn, "select current_database()::text"))
}

func TestLiveURI(t *testing.T) {
	l := server(t)
	conn := mustConnect(t, "postgresql://scram:it%27s%20a%20%5Csecret@127.0.0.1:"+l.primary+
		"/app?application_name=my%20app&sslmode=prefer&connect_timeout=5")
	require.Equal(t, "my app", query(t, conn, "show application_name"))
}

func TestLiveSockets(t *testing.T) {
	l := server(t)
	for _, host := range []string{l.dir, "@" + l.dir} {
		conn := mustConnect(t, "host="+host+" user=scram sslmode=require port="+l.primary)
		require.Equal(t, "", query(t, conn, "select coalesce(inet_client_addr()::text, '')"))
		// A cancel request goes the same way.
		require.NoError(t, conn.PgConn().CancelRequest(t.Context()))
	}
	conn := mustConnect(t, "user=scram port="+l.primary, func(o *conninfo.Options) { o.Env.SocketDir = l.dir })
	require.Equal(t, "scram", query(t, conn, "select current_user::text"))

	e := mustFail(t, "host=/nonexistent user=scram")
	require.Equal(t, "08001", e.Code)
	require.Contains(t, e.Message, `server on socket "/nonexistent/.s.PGSQL.5432" failed`)
}

func TestLiveWrongPassword(t *testing.T) {
	l := server(t)
	e := mustFail(t, "host=127.0.0.1 user=scram password=notthesecret port="+l.primary)
	require.Equal(t, "28P01", e.Code)
	require.Contains(t, e.Hint, "connection string")
	var pgErr *pgconn.PgError
	require.ErrorAs(t, e, &pgErr)
	// With a wrong password sslmode=prefer need not try again without TLS.
	requireOneAttempt(t, e)

	e = mustFail(t, "host=127.0.0.1 dbname=nosuch user=trusted port="+l.primary)
	require.Equal(t, "3D000", e.Code)
}

func TestLiveProtocolVersion(t *testing.T) {
	l := server(t)
	conn := mustConnect(t, l.at("user=scram max_protocol_version=latest"))
	if serverVersion(t, conn) >= 180000 {
		mustConnect(t, l.at("user=scram min_protocol_version=3.2"))
		return
	}
	e := mustFail(t, l.at("user=scram sslmode=disable min_protocol_version=3.2"))
	require.Equal(t, "08001", e.Code)
	require.Regexp(t, "server protocol version too low$", e.Message)
}

func TestLivePassfile(t *testing.T) {
	l := server(t)
	file := filepath.Join(t.TempDir(), "pass")
	escaped := strings.ReplaceAll(password, `\`, `\\`)
	text := "host=db.test hostaddr=127.0.0.1 user=scram dbname=app passfile=" + file + " port=" + l.primary
	write := func(content string, mode os.FileMode) {
		_ = os.Remove(file) // the one before may be read-only
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		require.NoError(t, os.Chmod(file, mode))
	}

	entry := fmt.Sprintf("db.test:%s:app:scram:%s\n", l.primary, escaped)
	write("# comment\n*:*:*:other:x\n"+entry, 0o600)
	mustConnect(t, text)

	write(strings.ReplaceAll(entry, ":app:", ":replication:"), 0o400)
	mustConnect(t, text)

	write(strings.ReplaceAll(entry, ":app:", ":replication:")+strings.Replace(entry, "it's", "wrong", 1), 0o600)
	e := mustFail(t, text)
	require.Equal(t, "28P01", e.Code)
	require.Contains(t, e.Hint, `came from the password file "`+file)

	write(strings.ReplaceAll(entry, "db.test", "127.0.0.1"), 0o600)
	e = mustFail(t, text)
	require.Contains(t, e.Hint, "none for this server")

	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o610} {
		write(entry, mode)
		var warnings []string
		e := mustFail(t, text, func(o *conninfo.Options) { o.Warn = func(s string) { warnings = append(warnings, s) } })
		require.Equal(t, "28P01", e.Code)
		require.Equal(t, []string{
			`password file "` + file + `" has group or world access; permissions should be u=rw (0600) or less`,
		}, warnings)
	}
}

// file writes a file that belongs to the test.
func (l *live) file(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	require.NoError(t, os.Chmod(path, mode))
	return path
}
