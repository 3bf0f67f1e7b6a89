package conninfo_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
)

func TestLiveNoSuchHost(t *testing.T) {
	// Not a name that anybody would ask a name server for.
	e := mustFail(t, "host=no..host user=u")
	require.Equal(t, "08001", e.Code)
	require.Contains(t, e.Message, `connection to server at "no..host", port 5432 failed: could not translate`)
}

// closedPort is a port that nothing listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}

// blackHole takes connections and never answers.
func blackHole(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}

func TestLiveSeveralHosts(t *testing.T) {
	l := server(t)
	dead := closedPort(t)
	file := filepath.Join(t.TempDir(), "pass")
	content := fmt.Sprintf("127.0.0.1:%s:*:*:wrong\n127.0.0.1:%s:*:*:%s\n", dead, l.primary,
		strings.ReplaceAll(password, `\`, `\\`))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	for _, text := range []string{
		"host=127.0.0.1,127.0.0.1 port=" + dead + "," + l.primary,
		"hostaddr=127.0.0.1,127.0.0.1 port=" + dead + "," + l.primary,
		"host=/nonexistent,127.0.0.1 port=" + l.primary,
		"host=127.0.0.1,127.0.0.1 load_balance_hosts=random port=" + dead + "," + l.primary,
	} {
		mustConnect(t, text+" user=scram passfile="+file)
	}
	// A server that refuses ends it, as with libpq.
	e := mustFail(t, "host=127.0.0.1,127.0.0.1 user=scram password=no port="+l.primary)
	require.Equal(t, "28P01", e.Code)
	requireOneAttempt(t, e)

	e = mustFail(t, "host=127.0.0.1,localhost hostaddr=127.0.0.1,127.0.0.1 user=scram port="+dead)
	require.Equal(t, "08001", e.Code)
	require.Equal(t, "all 2 attempts to connect failed", e.Message)
	require.Equal(t, 2, strings.Count(e.Detail, "connection refused."))
}

// fullBacklog is a port that drops the packets of new connections, as a dead machine does.
func fullBacklog(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Close(fd)) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	port := strconv.Itoa(name.(*syscall.SockaddrInet4).Port)
	for range 100 {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 200*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the backlog does not fill")
	return ""
}

func TestLiveDroppedPackets(t *testing.T) {
	l := server(t)
	port := fullBacklog(t)
	start := time.Now()
	e := mustFail(t, "host=127.0.0.1 user=x connect_timeout=1 port="+port)
	require.Less(t, time.Since(start), 1900*time.Millisecond)
	require.Contains(t, e.Message, "timeout expired")
	mustConnect(t, "host=127.0.0.1,127.0.0.1 user=scram connect_timeout=1 port="+port+","+l.primary+withPassword)
}

func TestLiveBlackHole(t *testing.T) {
	l := server(t)
	hole := blackHole(t)
	for _, sslmode := range []string{"disable", "prefer", "verify-full"} {
		start := time.Now()
		e := mustFail(t, "host=127.0.0.1 user=x connect_timeout=1 sslrootcert="+l.file(t, "root.crt", l.ca.pem, 0o600)+
			" sslmode="+sslmode+" port="+hole)
		require.Less(t, time.Since(start), 1900*time.Millisecond, sslmode)
		require.GreaterOrEqual(t, time.Since(start), 900*time.Millisecond, sslmode)
		require.Contains(t, e.Message, "timeout expired")
	}
	// Without one in the string, or with one that means none in libpq, the caller's counts.
	for _, text := range []string{"", "connect_timeout=0", "connect_timeout=-1"} {
		start := time.Now()
		_ = mustFail(t, "host=127.0.0.1 user=x port="+hole+" "+text,
			func(o *conninfo.Options) { o.ConnectTimeout = 200 * time.Millisecond })
		require.Less(t, time.Since(start), time.Second)
	}
	mustConnect(t, "host=127.0.0.1,127.0.0.1 user=scram connect_timeout=1 port="+hole+","+l.primary+withPassword)

	// The caller may give up at any time.
	config, err := conninfo.Parse("host=127.0.0.1,127.0.0.1 user=x port="+hole, conninfo.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = config.Connect(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), time.Second)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = config.Connect(ctx)
	var e *conninfo.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "57014", e.Code)
	require.ErrorIs(t, err, context.Canceled)
}

// TestLiveBrokenConnection has a server in front that goes away while it is being connected to.
func TestLiveBrokenConnection(t *testing.T) {
	l := server(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	for _, mode := range []string{"disable", "prefer", "require"} {
		mustConnect(t, "host=127.0.0.1,127.0.0.1 user=scram sslmode="+mode+" port="+port+","+l.primary+withPassword)
		e := mustFail(t, "host=127.0.0.1 user=scram sslmode="+mode+" port="+port)
		require.Equal(t, "08001", e.Code)
	}
}

func TestLiveLoadBalance(t *testing.T) {
	l := server(t)
	text := "host=127.0.0.1,127.0.0.1 user=scram port=" + l.primary + "," + l.standby + withPassword
	seen := make(map[string]int)
	for range 30 {
		conn := mustConnect(t, text+" load_balance_hosts=random")
		seen[query(t, conn, "select pg_is_in_recovery()::text")]++
		conn = mustConnect(t, text+" load_balance_hosts=disable")
		require.Equal(t, "false", query(t, conn, "select pg_is_in_recovery()::text"))
		require.NoError(t, conn.Close(t.Context()))
	}
	require.Len(t, seen, 2)
}

func TestLiveTargetSessionAttrs(t *testing.T) {
	l := server(t)
	hosts := func(ports ...string) string {
		return "host=127.0.0.1" + strings.Repeat(",127.0.0.1", len(ports)-1) + " port=" + strings.Join(ports, ",") +
			" user=scram" + withPassword + " target_session_attrs="
	}
	recovery := func(conn *pgx.Conn) string { return query(t, conn, "select pg_is_in_recovery()::text") }
	for attrs, want := range map[string]string{
		"any": "true", "read-write": "false", "primary": "false", "read-only": "true", "standby": "true",
		"prefer-standby": "true",
	} {
		require.Equal(t, want, recovery(mustConnect(t, hosts(l.standby, l.primary)+attrs)), attrs)
	}
	require.Equal(t, "true", recovery(mustConnect(t, hosts(l.primary, l.standby)+"prefer-standby")))
	require.Equal(t, "false", recovery(mustConnect(t, hosts(closedPort(t), l.primary)+"prefer-standby")))
	for attrs, sentinel := range map[string]error{
		"primary": pgconn.ErrStandbyConnection, "read-write": pgconn.ErrReadOnlyConnection,
	} {
		e := mustFail(t, hosts(l.standby)+attrs)
		require.Equal(t, "08001", e.Code)
		require.ErrorIs(t, e, sentinel)
		// Not again without TLS.
		requireOneAttempt(t, e)
	}
}
