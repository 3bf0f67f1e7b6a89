package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// Versions in which the server's behaviour changed.
const (
	oldestMajor       = 10
	firstHash         = 11 // hashint8extended()
	firstSequenceData = 18 // pg_get_sequence_data()
	firstLightRead    = 19 // it opens a sequence with an AccessShareLock
)

// maxReads is after how many different sequences a session gives way to a new one: a server process keeps what it has looked
// up of each in its caches, some 2.5 kB, for as long as it lives.
const maxReads = 20000

// catalogBytes is of pg_class with some ten relations for each sequence: to read more of it takes longer than it saves.
const catalogBytes = 2048

// lockTimeout is how long a batch waits for a sequence that is being altered or dropped, if the statement may take that long.
const lockTimeout = 2 * time.Second

// Options bound what the client waits for.
type Options struct {
	RemoteTimeout time.Duration // for one statement; 0 is no bound
	FirstTimeout  time.Duration // for the first statements, whose answer takes no work, if that is shorter
	MaxReads      int           // of sequences by one session; 0: as measured
	CatalogBytes  int           // of pg_class for each sequence, up to which it is read to see what has changed; 0: as measured
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
	session *remote.Session
	opts    Options

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
func New(connect remote.Connect, opts Options) *Client {
	if opts.MaxReads <= 0 {
		opts.MaxReads = maxReads
	}
	if opts.CatalogBytes <= 0 {
		opts.CatalogBytes = catalogBytes
	}
	return &Client{session: remote.New(connect, remote.Server{At: "of the publisher"}), opts: opts, known: newKnown()}
}

// User names the role of the connection, once there was one.
func (c *Client) User() string { return c.user }

// Major is the version of the publisher, once there was a connection.
func (c *Client) Major() int { return c.major }

// Close closes the connection; the client can go on to be used.
func (c *Client) Close() { c.session.Close() }

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
	err := c.within(ctx, c.opts.firstTimeout(), "read the position", func(ctx context.Context, conn *pgx.Conn) (err error) {
		// It is asked again and again.
		mark, err = c.readMark(ctx, conn, pgx.QueryExecModeCacheStatement)
		return err
	})
	if err != nil {
		return Mark{}, err
	}
	c.mark = mark
	if err := c.readCatalogs(ctx, len(c.known.sequences)*c.opts.CatalogBytes); err != nil {
		return Mark{}, err
	}
	return mark, nil
}

// statement is what is done with a connection.
type statement func(ctx context.Context, conn *pgx.Conn) error

// do runs f with a connection, and once more with a new one if that was lost: between two cycles the publisher may have been
// restarted. what completes "could not ...".
func (c *Client) do(ctx context.Context, what string, f statement) error {
	return c.within(ctx, c.opts.RemoteTimeout, what, f)
}

func (c *Client) within(ctx context.Context, timeout time.Duration, what string, f statement) error {
	used := c.session.Conn() != nil
	err := c.once(ctx, timeout, what, f)
	if err != nil && used && c.session.Conn() == nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		err = c.once(ctx, timeout, what, f)
	}
	return err
}

func (c *Client) once(ctx context.Context, timeout time.Duration, what string, f statement) error {
	if c.reads > c.opts.MaxReads {
		c.session.Close()
	}
	if err := c.session.Open(ctx, c.opts.firstTimeout(), c.prepare); err != nil {
		return err
	}
	return c.session.Use(ctx, timeout, what, f)
}

// prepare makes the session ours.
func (c *Client) prepare(ctx context.Context, conn *pgx.Conn) error {
	c.reads = 0
	major, err := remote.MajorVersion(conn)
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
	rows, err := query(ctx, conn, sessionSQL, strconv.FormatInt(wait.Milliseconds(), 10))
	if err != nil {
		return err
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	mark, err := c.readMark(ctx, conn, pgx.QueryExecModeExec)
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
func query(ctx context.Context, conn *pgx.Conn, sql string, args ...any) (pgx.Rows, error) {
	return conn.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
}

func (c *Client) readMark(ctx context.Context, conn *pgx.Conn, mode pgx.QueryExecMode) (Mark, error) {
	rows, err := conn.Query(ctx, markSQL, mode)
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
