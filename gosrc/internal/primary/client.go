package primary

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Connect opens a connection, with search_path and statement_timeout set for a database that others write to. It bounds
// the time that takes itself, and its errors are passed on as they are.
type Connect func(ctx context.Context) (*pgx.Conn, error)

// Options bound what the client waits for.
type Options struct {
	RemoteTimeout time.Duration // for one round trip; 0 is no bound
}

// grace lets the server's own statement_timeout come first, which leaves the connection as it was.
const grace = time.Second

// Client reads the primary. It is not safe for concurrent use.
type Client struct {
	connect Connect
	opts    Options

	conn     *pgx.Conn
	major    int
	access   access
	twoPhase bool            // the last read showed a slot that decodes prepared transactions
	base     map[string]Slot // what the session was shown, if by the extension
	slots    []Slot          // of them, by name
	watch    *watch
	noWatch  bool // it was refused
	user     string
	database string
}

// New makes a client; it connects when first used.
func New(connect Connect, opts Options) *Client {
	return &Client{connect: connect, opts: opts}
}

// User and Database name the role and the database of the connection, once there was one.
func (c *Client) User() string { return c.user }

// Database is described at User.
func (c *Client) Database() string { return c.database }

// closeTimeout bounds the goodbye to a server that may have gone.
const closeTimeout = time.Second

// Close closes the connection; the client can go on to be used.
func (c *Client) Close() {
	if c.conn == nil {
		return
	}
	c.stopWatch()
	c.base, c.noWatch = nil, false
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.conn.Close(ctx)
	c.conn = nil
}

// do runs f with a connection and an end. After an error that leaves the connection in doubt it is closed. what
// completes "could not ...".
func (c *Client) do(ctx context.Context, what string, f func(context.Context, *pgx.Conn) error) error {
	c.stopWatch()
	if err := c.open(ctx); err != nil {
		return err
	}
	bounded, cancel := bound(ctx, c.opts.RemoteTimeout)
	defer cancel()
	err := f(bounded, c.conn)
	if err == nil {
		return nil
	}
	c.base = nil // what the session was shown may not have arrived
	if !isServerError(err) || c.conn.IsClosed() {
		c.Close()
	}
	return c.describe(ctx, what, err)
}

func (c *Client) open(ctx context.Context) error {
	if c.conn != nil && !c.conn.IsClosed() {
		return nil
	}
	conn, err := c.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	c.conn, c.base, c.noWatch = conn, nil, false
	if err := c.prepare(ctx); err != nil {
		c.Close()
		return c.describe(ctx, "set up a session", err)
	}
	return nil
}

// prepare finds out what the session is and what it may do, in one round trip.
func (c *Client) prepare(ctx context.Context) error {
	ctx, cancel := bound(ctx, c.opts.RemoteTimeout)
	defer cancel()
	major, err := majorVersion(c.conn.PgConn().ParameterStatus("server_version"))
	if err != nil {
		return err
	}
	if major < oldestMajor {
		return errTooOld(major)
	}
	batch := &pgx.Batch{}
	batch.Queue(sessionSQL)
	batch.Queue(accessSQL)
	results := c.conn.SendBatch(ctx, batch)
	defer func() { _ = results.Close() }()
	if err := results.QueryRow().Scan(&c.user, &c.database); err != nil {
		return err
	}
	if c.access, err = readAccess(results, major); err != nil {
		return err
	}
	c.major = major
	return results.Close()
}

// bound gives ctx an end after d, if d is not 0.
func bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d+grace)
}
