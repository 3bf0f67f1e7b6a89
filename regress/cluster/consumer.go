package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A Tx is a transaction that a Consumer received whole.
type Tx struct {
	// Server is the name of the server that sent it.
	Server string
	XID    uint32
	// End is the position that is confirmed to have received it.
	End     LSN
	Changes []Change
	// GID is set for the two parts of a prepared transaction: Changes come with
	// "prepare", and Kind says which part this is.
	GID  string
	Kind string
}

// A Change is one row of a transaction.
type Change struct {
	// Kind is "insert", "update", "delete", "truncate" or "message".
	Kind     string
	Relation string
	// Row has the new row's columns as text; those that are NULL or unchanged
	// TOAST values are missing. For a delete it is what is sent of the old row.
	Row map[string]string
}

func (c Change) String() string {
	names := make([]string, 0, len(c.Row))
	for name := range c.Row {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", c.Kind, c.Relation)
	for _, name := range names {
		fmt.Fprintf(&b, " %s=%s", name, c.Row[name])
	}
	return b.String()
}

// ConsumerConfig says what a Consumer reads.
type ConsumerConfig struct {
	Slot string
	// Database is "postgres" by default.
	Database string
	// Plugin is pgoutput (the default) or test_decoding, as the slot was made
	// with.
	Plugin string
	// Publication is for pgoutput.
	Publication string
	// TwoPhase asks pgoutput for prepared transactions.
	TwoPhase bool
	// Streaming asks pgoutput for large transactions before they end.
	Streaming bool
	// Options are further options of the plugin, as in `"streaming" 'on'`.
	Options []string
	// FromSlot leaves the start to the slot. By default the consumer asks to
	// go on after what it has received, as one that stores its position does;
	// with FromSlot it shows what a consumer without a position would get.
	FromSlot bool
	// FromConfirmed makes the consumer ask to go on after what it has confirmed,
	// as pg_recvlogical does: a keepalive may have moved that beyond what it has
	// received.
	FromConfirmed bool
	// Ping asks the server for a keepalive with every report.
	Ping bool
	// Manual leaves confirming to Confirm. By default everything received is
	// confirmed at once.
	Manual bool
}

// A Consumer is a client of logical replication that remembers everything it
// receives. It can be stopped and go on at another server: that is what it is
// for.
type Consumer struct {
	config ConsumerConfig

	mu         sync.Mutex
	received   []Tx
	keepalives []LSN
	position   LSN // end of the last transaction received
	confirmed  LSN // what was reported as flushed
	connected  bool
	err        error
	stop       context.CancelFunc
	done       chan struct{}
}

// NewConsumer returns a consumer that has not started. It is stopped at the end
// of the test.
func NewConsumer(t T, config ConsumerConfig) *Consumer {
	if config.Database == "" {
		config.Database = "postgres"
	}
	if config.Plugin == "" {
		config.Plugin = "pgoutput"
	}
	c := &Consumer{config: config}
	t.Cleanup(c.Stop)
	return c
}

// Start begins to read from the server and waits until the stream is
// established. It tries again while the slot is still in use or the server does
// not answer.
func (c *Consumer) Start(t T, s *Server) {
	t.Helper()
	Eventually(t, DefaultDeadline, fmt.Sprintf("the slot %s on %s to stream", c.config.Slot, s.Name), func() error {
		return c.TryStart(s)
	})
}

// TryStart begins to read from the server, and returns why it cannot.
func (c *Consumer) TryStart(s *Server) error {
	c.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, s.DB(c.config.Database).ConnString()+" replication=database application_name=consumer")
	if err != nil {
		return err
	}
	if err := c.startReplication(ctx, conn); err != nil {
		conn.Close(ctx)
		return err
	}
	streamCtx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	c.mu.Lock()
	c.stop, c.done, c.connected, c.err = stop, done, true, nil
	c.mu.Unlock()
	go func() {
		defer close(done)
		err := c.stream(streamCtx, conn, s.Name)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn.Close(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.connected = false
		if streamCtx.Err() == nil {
			c.err = err
		}
	}()
	return nil
}

// Stop ends the stream. What was received stays.
func (c *Consumer) Stop() {
	c.mu.Lock()
	stop, done := c.stop, c.done
	c.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	<-done
}

// Confirm reports a position as flushed, for a consumer in Manual mode.
func (c *Consumer) Confirm(position LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.confirmed = max(c.confirmed, position)
}

// Position is the end of the last transaction received.
func (c *Consumer) Position() LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.position
}

// Confirmed is the position last reported as flushed.
func (c *Consumer) Confirmed() LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.confirmed
}

// Streaming tells whether the stream is up, and why it ended otherwise.
func (c *Consumer) Streaming() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected, c.err
}

// Received returns the transactions received, in order, as often as they came.
func (c *Consumer) Received() []Tx {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.received)
}

// Take returns the transactions received since the last Take, in order, and
// forgets them.
func (c *Consumer) Take() []Tx {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.received
	c.received = nil
	return taken
}

// Keepalives returns the positions that the server has told in keepalives.
func (c *Consumer) Keepalives() []LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.keepalives)
}

// Changes returns the changes of the transactions received, in order.
func (c *Consumer) Changes() []Change {
	var changes []Change
	for _, tx := range c.Received() {
		changes = append(changes, tx.Changes...)
	}
	return changes
}

// Values returns one column of the rows that were inserted into a table, in the
// order of their arrival.
func (c *Consumer) Values(relation, column string) []string {
	var values []string
	for _, change := range c.Changes() {
		if change.Kind == "insert" && change.Relation == relation {
			values = append(values, change.Row[column])
		}
	}
	return values
}

// WaitValues waits until the column's values received from the table are exactly
// these, in this order.
func (c *Consumer) WaitValues(t T, relation, column string, want ...string) {
	t.Helper()
	what := fmt.Sprintf("slot %s to deliver %d values of %s.%s", c.config.Slot, len(want), relation, column)
	Eventually(t, DefaultDeadline, what, func() error {
		got := c.Values(relation, column)
		if !slices.Equal(got, want) {
			up, err := c.Streaming()
			return fmt.Errorf("received %d: %q, wanted %q (streaming: %v, error: %v)", len(got), got, want, up, err)
		}
		return nil
	})
}

// WaitReceived waits until condition holds for what was received.
func (c *Consumer) WaitReceived(t T, what string, condition func([]Tx) bool) {
	t.Helper()
	Eventually(t, DefaultDeadline, what, func() error {
		if received := c.Received(); !condition(received) {
			up, err := c.Streaming()
			return fmt.Errorf("received %v (streaming: %v, error: %v)", received, up, err)
		}
		return nil
	})
}

// WaitConfirmed waits until the server has taken over the position that the
// consumer confirmed last.
func (c *Consumer) WaitConfirmed(t T, s *Server) {
	t.Helper()
	Eventually(t, DefaultDeadline, fmt.Sprintf("%s to record what slot %s confirmed", s.Name, c.config.Slot), func() error {
		want := c.Position()
		got, err := TryQueryOne[LSN](s, "select confirmed_flush_lsn from pg_replication_slots where slot_name = $1", c.config.Slot)
		if err == nil && got < want {
			err = fmt.Errorf("confirmed_flush_lsn is %v, wanted %v", got, want)
		}
		return err
	})
}
