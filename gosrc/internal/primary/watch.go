package primary

import (
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/replsync/replsync/gosrc/internal/remote"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// watch is a statement at the primary that ends when a slot moves.
type watch struct {
	conn    net.Conn
	stopped atomic.Bool
	done    chan struct{}
	err     error // set when done is closed
}

// flush is a message of the protocol that asks for nothing and gets no answer. wait_for_slot_change() ends when anything
// arrives from the client.
var flush = []byte{'H', 0, 0, 0, 4}

// stopTimeout bounds the wait for a statement to end that was told to.
const stopTimeout = 5 * time.Second

// Watch calls changed once a slot has changed since it was read, or the time is over, unless the client is used before. It
// returns false where that is not possible: then the primary has to be read again and again.
func (c *Client) Watch(ctx context.Context, timeout time.Duration, changed func()) bool {
	conn := c.session.Conn()
	if conn == nil || c.base == nil || c.noWatch {
		return false
	}
	if limit := c.opts.RemoteTimeout / 2; limit > 0 {
		timeout = min(timeout, limit)
	}
	c.stopWatch()
	bounded, cancel := remote.Bound(ctx, timeout+c.opts.RemoteTimeout)
	ms := strconv.FormatInt(timeout.Milliseconds(), 10)
	// The simple protocol: the server would take what else the extended one sends for a wish to go on.
	result := conn.PgConn().Exec(bounded, watchSQL+"("+ms+")")
	w := &watch{conn: conn.PgConn().Conn(), done: make(chan struct{})}
	c.watch = w
	safego.Go(func() error {
		w.err = result.Close()
		cancel()
		close(w.done)
		if !w.stopped.Load() {
			changed()
		}
		return nil
	}, nil)
	return true
}

// stopWatch ends the statement of Watch, if it runs, so that the connection can be used.
func (c *Client) stopWatch() {
	w := c.watch
	if w == nil {
		return
	}
	c.watch = nil
	w.stopped.Store(true)
	select {
	case <-w.done:
	default:
		// Its goroutine reads and does not write, and nobody else uses the connection now.
		_, err := w.conn.Write(flush)
		if err == nil {
			select {
			case <-w.done:
			case <-time.After(stopTimeout):
				_ = w.conn.Close()
			}
		}
		<-w.done
	}
	// One that was cancelled can be tried again.
	if refused := remote.Refusal(w.err); refused != nil && refused.Code != "57014" {
		c.noWatch = true // until the next connection
	}
}
