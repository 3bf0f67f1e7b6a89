package primary

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/remote"
)

// Options bound what the client waits for.
type Options struct {
	RemoteTimeout time.Duration // for one round trip; 0 is no bound
}

// Client reads the primary. It is not safe for concurrent use.
type Client struct {
	session *remote.Session
	opts    Options

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
func New(connect remote.Connect, opts Options) *Client {
	c := &Client{opts: opts}
	c.session = remote.New(connect, remote.Server{At: "at the primary", Rights: c.GrantHint})
	return c
}

// User and Database name the role and the database of the connection, once there was one.
func (c *Client) User() string { return c.user }

// Database is described at User.
func (c *Client) Database() string { return c.database }

// Close closes the connection; the client can go on to be used.
func (c *Client) Close() {
	c.stopWatch()
	c.session.Close()
}

// do runs f with a connection and an end. what completes "could not ...".
func (c *Client) do(ctx context.Context, what string, f func(context.Context, *pgx.Conn) error) error {
	c.stopWatch()
	if err := c.session.Open(ctx, c.opts.RemoteTimeout, c.prepare); err != nil {
		return err
	}
	err := c.session.Use(ctx, c.opts.RemoteTimeout, what, f)
	if err != nil {
		c.base = nil // what the session was shown may not have arrived
	}
	return err
}

// prepare finds out what the session is and what it may do, in one round trip.
func (c *Client) prepare(ctx context.Context, conn *pgx.Conn) error {
	c.base, c.noWatch = nil, false
	major, err := remote.MajorVersion(conn)
	if err != nil {
		return err
	}
	if major < oldestMajor {
		return errTooOld(major)
	}
	batch := &pgx.Batch{}
	batch.Queue(sessionSQL)
	batch.Queue(accessSQL)
	results := conn.SendBatch(ctx, batch)
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
