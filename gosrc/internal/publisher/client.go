package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Versions in which the server's behaviour changed.
const (
	oldestMajor       = 10
	firstSequenceData = 18 // pg_get_sequence_data()
	firstLightRead    = 19 // it opens a sequence with an AccessShareLock
)

// maxReads is after how many different sequences a session gives way to a new one: a server process keeps what it has looked
// up of each in its caches, about 3 kB, for as long as it lives.
const maxReads = 15000

// lockTimeout is how long a batch waits for a sequence that is being altered or dropped, if the statement may take that long.
const lockTimeout = 2 * time.Second

// Connect opens a connection. It bounds the time that takes itself, and its errors are passed on as they are.
type Connect func(ctx context.Context) (*pgx.Conn, error)

// Options bound what the client waits for.
type Options struct {
	RemoteTimeout time.Duration // for one statement; 0 is no bound
	FirstTimeout  time.Duration // for the first statements, whose answer takes no work, if that is shorter
	MaxReads      int           // of sequences by one session; 0: as measured
}

// firstTimeout is how long it takes to notice that a server does not answer at all.
func (o *Options) firstTimeout() time.Duration {
	if o.FirstTimeout > 0 && (o.RemoteTimeout <= 0 || o.FirstTimeout < o.RemoteTimeout) {
		return o.FirstTimeout
	}
	return o.RemoteTimeout
}

// Client reads a publisher. It is not safe for concurrent use.
type Client struct {
	connect Connect
	opts    Options

	conn  *pgx.Conn
	major int
	user  string
	reads int // sequences read since the session began, but for those of rounds that were all its own
	round int // sequences read since the last mark
	known known
	mark  Mark // the last one that was asked for
}

// Mark is where the publisher stands.
type Mark struct {
	host.Watermark
	InRecovery bool
}

// New makes a client; it connects when first used.
func New(connect Connect, opts Options) *Client {
	if opts.MaxReads <= 0 {
		opts.MaxReads = maxReads
	}
	return &Client{connect: connect, opts: opts, known: newKnown()}
}

// User names the role of the connection, once there was one.
func (c *Client) User() string { return c.user }

// Major is the version of the publisher, once there was a connection.
func (c *Client) Major() int { return c.major }

// closeTimeout bounds the goodbye to a server that may have gone.
const closeTimeout = time.Second

// Close closes the connection; the client can go on to be used.
func (c *Client) Close() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.conn.Close(ctx)
	c.conn = nil
}

// Mark reads where the publisher stands. What [Client.Values] returns afterwards is as new as that: it fails once it would
// have to read another server, or the same one further back.
func (c *Client) Mark(ctx context.Context) (Mark, error) {
	c.mark = Mark{}
	if c.reads == c.round {
		// It will read the same ones again, which it has in its caches already.
		c.reads = 0
	}
	if c.round > 0 {
		c.known.trim(c.round)
	}
	c.round = 0
	var mark Mark
	err := c.do(ctx, "read the position", func(ctx context.Context) (err error) {
		ctx, cancel := bound(ctx, c.opts.firstTimeout())
		defer cancel()
		mark, err = c.readMark(ctx)
		return err
	})
	if err != nil {
		return Mark{}, err
	}
	c.mark = mark
	return mark, nil
}

// do runs f with a connection, and once more with a new one if that was lost: between two cycles the publisher may have been
// restarted.
func (c *Client) do(ctx context.Context, what string, f func(context.Context) error) error {
	used := c.conn
	err := c.once(ctx, what, f)
	if err != nil && used != nil && c.conn == nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		err = c.once(ctx, what, f)
	}
	return err
}

// once runs f with a connection and an end. After an error that leaves the connection in doubt it is closed. what
// completes "could not ...".
func (c *Client) once(ctx context.Context, what string, f func(context.Context) error) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	bounded, cancel := bound(ctx, c.opts.RemoteTimeout)
	defer cancel()
	err := f(bounded)
	if err == nil {
		return nil
	}
	if !isServerError(err) || c.conn.IsClosed() {
		c.Close()
	}
	return c.describe(ctx, what, err)
}

func (c *Client) open(ctx context.Context) error {
	if c.conn != nil && !c.conn.IsClosed() && c.reads <= c.opts.MaxReads {
		return nil
	}
	c.Close()
	conn, err := c.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	c.conn, c.reads = conn, 0
	if err := c.prepare(ctx); err != nil {
		c.Close()
		return c.describe(ctx, "set up a session", err)
	}
	return nil
}

// prepare makes the session ours.
func (c *Client) prepare(ctx context.Context) error {
	ctx, cancel := bound(ctx, c.opts.firstTimeout())
	defer cancel()
	major, err := majorVersion(c.conn.PgConn().ParameterStatus("server_version"))
	if err != nil {
		return err
	}
	if major < oldestMajor {
		return errTooOld(major)
	}
	c.major = major
	wait := lockTimeout
	if c.opts.RemoteTimeout > 0 {
		wait = min(wait, c.opts.RemoteTimeout/2)
	}
	rows, err := c.query(ctx, sessionSQL, strconv.FormatInt(wait.Milliseconds(), 10))
	if err != nil {
		return err
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	mark, err := c.readMark(ctx)
	if err != nil {
		return err
	}
	return c.mark.allows(mark)
}

// allows tells whether values read at another mark may take the place of those at this one.
func (m Mark) allows(other Mark) error {
	if m.SystemIdentifier == 0 ||
		m.SystemIdentifier == other.SystemIdentifier && m.Timeline == other.Timeline && m.LSN <= other.LSN {
		return nil
	}
	e := host.Errorf("08006", "the publisher changed while its sequences were read")
	e.Detail = fmt.Sprintf("It stood at %s of timeline %d of system %d, and a new connection leads to %s of timeline %d of system %d.",
		m.LSN, m.Timeline, m.SystemIdentifier, other.LSN, other.Timeline, other.SystemIdentifier)
	return e
}

// query is like that of pgx, but keeps no statement in the session: a plan that was made for other names need not suit.
func (c *Client) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return c.conn.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
}

func (c *Client) readMark(ctx context.Context) (Mark, error) {
	rows, err := c.query(ctx, markSQL)
	if err != nil {
		return Mark{}, err
	}
	var m Mark
	var system, control int64
	var wal *string
	var lsn string
	_, err = pgx.ForEachRow(rows, []any{&c.user, &m.InRecovery, &system, &wal, &control, &lsn}, func() error { return nil })
	if err != nil {
		return Mark{}, err
	}
	m.SystemIdentifier, m.Timeline = uint64(system), uint32(control)
	if wal != nil {
		timeline, err := strconv.ParseUint(*wal, 16, 32)
		if err != nil {
			return Mark{}, fmt.Errorf("unexpected name of a WAL file: %q", *wal)
		}
		m.Timeline = uint32(timeline)
	}
	m.LSN, err = host.ParseLSN(lsn)
	return m, err
}

// bound gives ctx an end after d, if d is not 0, that leaves it to the server's own statement_timeout to come first.
func bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	const grace = time.Second
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d+grace)
}
