package publisher

import (
	"context"
	"fmt"
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
// up of each in its caches, some 2.5 kB, for as long as it lives. Where there are more sequences than that, so that each session
// begins with nothing in its caches, two of half the size read them side by side.
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
	first  *reader
	second *reader // of the other half, where there are many sequences
	alone  bool    // there may be no second session
	opts   Options

	known known
	mark  Mark // the last one that was asked for
}

// isDivided tells whether there are more sequences than a session has in its caches, so that two read them.
func (c *Client) isDivided() bool { return !c.alone && c.known.count() > c.opts.MaxReads }

// maxReads bounds the sessions: together they have as much in their caches as one of them might.
func (c *Client) maxReads() int {
	if c.isDivided() {
		return c.opts.MaxReads / 2
	}
	return c.opts.MaxReads
}

// Mark is where the publisher stands.
type Mark struct {
	host.Watermark
	InRecovery bool

	user string // the role of the session
	// transactions says which transactions have ended, and is the same as long as none has; empty on a standby.
	transactions string
}

// New makes a client; it connects when first used.
func New(connect remote.Connect, opts Options) *Client {
	if opts.MaxReads <= 0 {
		opts.MaxReads = maxReads
	}
	if opts.CatalogBytes <= 0 {
		opts.CatalogBytes = catalogBytes
	}
	c := &Client{opts: opts, known: newKnown()}
	c.first, c.second = newReader(c, connect), newReader(c, connect)
	return c
}

// User names the role of the connection, once there was one.
func (c *Client) User() string { return c.mark.user }

// Major is the version of the publisher, once there was a connection.
func (c *Client) Major() int { return c.first.major }

// Close closes the connections; the client can go on to be used.
func (c *Client) Close() {
	c.first.session.Close()
	c.second.session.Close()
	c.alone = false
}

// Mark reads where the publisher stands. What [Client.Values] returns afterwards is as new as that: it fails once it would
// have to read another server, or the same one further back.
func (c *Client) Mark(ctx context.Context) (Mark, error) {
	c.mark = Mark{}
	if read := c.first.beginRound() + c.second.beginRound(); read > 0 {
		c.known.trim(read)
	}
	var mark Mark
	err := c.first.within(ctx, c.opts.firstTimeout(), "read the position", func(ctx context.Context, conn *pgx.Conn) (err error) {
		// It is asked again and again.
		mark, err = c.first.readMark(ctx, conn, pgx.QueryExecModeCacheStatement)
		return err
	})
	if err != nil {
		return Mark{}, err
	}
	c.mark = mark
	if err := c.readCatalogs(ctx, c.known.count()*c.opts.CatalogBytes); err != nil {
		return Mark{}, err
	}
	return mark, nil
}

// Confirmed is up to where the subscriber has what comes through a slot, as it says itself: the publisher need not keep WAL before
// that for it. 0: there is no such slot.
func (c *Client) Confirmed(ctx context.Context, slot string) (host.LSN, error) {
	var confirmed host.LSN
	err := c.first.do(ctx, "read the slot", func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := query(ctx, conn, confirmedSQL, slot)
		if err != nil {
			return err
		}
		confirmed = 0
		var lsn string
		_, err = pgx.ForEachRow(rows, []any{&lsn}, func() (err error) {
			confirmed, err = host.ParseLSN(lsn)
			return err
		})
		return err
	})
	return confirmed, err
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
