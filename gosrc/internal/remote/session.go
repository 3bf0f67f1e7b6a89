package remote

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Connect opens a connection, with search_path and statement_timeout set for a database that others write to. It bounds
// the time that takes itself, and its errors are passed on as they are.
type Connect func(ctx context.Context) (*pgx.Conn, error)

// Server is how messages speak of the other server.
type Server struct {
	At     string        // completes "could not ...", as in "at the primary"
	Rights func() string // the hint where the role lacks a right; may be nil
}

// Session is a session on another server. It is not safe for concurrent use.
type Session struct {
	connect Connect
	server  Server
	conn    *pgx.Conn
}

// New makes a session; it connects when it is opened.
func New(connect Connect, server Server) *Session {
	return &Session{connect: connect, server: server}
}

// Conn returns the connection, nil if there is none or it was lost.
func (s *Session) Conn() *pgx.Conn {
	if s.conn == nil || s.conn.IsClosed() {
		return nil
	}
	return s.conn
}

// closeTimeout bounds the goodbye to a server that may have gone.
const closeTimeout = time.Second

// Close closes the connection; the session can go on to be used.
func (s *Session) Close() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx)
	s.conn = nil
}

// Open connects, and has prepare make the session what its user needs, within timeout. It does nothing where there is a
// connection.
func (s *Session) Open(ctx context.Context, timeout time.Duration, prepare func(context.Context, *pgx.Conn) error) error {
	if s.Conn() != nil {
		return nil
	}
	s.Close()
	conn, err := s.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	s.conn = conn
	bounded, cancel := Bound(ctx, timeout)
	defer cancel()
	if err := prepare(bounded, conn); err != nil {
		s.Close()
		return s.describe(ctx, timeout, "set up a session", err)
	}
	return nil
}

// Use runs f with the connection, within timeout. After an error that leaves the connection in doubt it is closed. what
// completes "could not ...".
func (s *Session) Use(ctx context.Context, timeout time.Duration, what string, f func(context.Context, *pgx.Conn) error) error {
	bounded, cancel := Bound(ctx, timeout)
	defer cancel()
	err := f(bounded, s.conn)
	if err == nil {
		return nil
	}
	if Refusal(err) == nil || s.conn.IsClosed() {
		s.Close()
	}
	return s.describe(ctx, timeout, what, err)
}

// Bound gives ctx an end after d, if d is not 0, that leaves it to the server's own statement_timeout to come first: the
// connection then stays as it was.
func Bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	const grace = time.Second
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d+grace)
}

// MajorVersion reads the major version from the server_version that every server reports ("15.20 (Debian ...)", "19rc1").
func MajorVersion(conn *pgx.Conn) (int, error) {
	return parseMajor(conn.PgConn().ParameterStatus("server_version"))
}

func parseMajor(version string) (int, error) {
	digits := version[:len(version)-len(strings.TrimLeft(version, "0123456789"))]
	major, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("unexpected server_version %q", version)
	}
	return major, nil
}

// QuoteIdentifier quotes a name for SQL, always: which ones are keywords depends on the version.
func QuoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
