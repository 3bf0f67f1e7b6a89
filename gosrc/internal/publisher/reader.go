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

// reader is a session of a client, and what it has been used for. Two of them may be used at the same time.
type reader struct {
	client  *Client
	session *remote.Session
	major   int
	reads   int // sequences read since the session began, but for those of rounds that were all its own
	round   int // sequences read since the last mark
}

func newReader(c *Client, connect remote.Connect) *reader {
	return &reader{client: c, session: remote.New(connect, remote.Server{At: "of the publisher"})}
}

// statement is what is done with a connection.
type statement func(ctx context.Context, conn *pgx.Conn) error

// beginRound tells how many sequences were read since it was last called.
func (r *reader) beginRound() int {
	read := r.round
	r.round = 0
	if r.reads == read {
		// It will read the same ones again, which it has in its caches already.
		r.reads = 0
	}
	return read
}

// do runs f with a connection, and once more with a new one if that was lost: between two cycles the publisher may have been
// restarted. what completes "could not ...".
func (r *reader) do(ctx context.Context, what string, f statement) error {
	return r.within(ctx, r.client.opts.RemoteTimeout, what, f)
}

func (r *reader) within(ctx context.Context, timeout time.Duration, what string, f statement) error {
	used := r.session.Conn() != nil
	err := r.once(ctx, timeout, what, f)
	if err != nil && used && r.session.Conn() == nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		err = r.once(ctx, timeout, what, f)
	}
	return err
}

func (r *reader) once(ctx context.Context, timeout time.Duration, what string, f statement) error {
	if r.reads > r.client.maxReads() {
		r.session.Close()
	}
	if err := r.session.Open(ctx, r.client.opts.firstTimeout(), r.prepare); err != nil {
		return err
	}
	return r.session.Use(ctx, timeout, what, f)
}

// prepare makes the session ours.
func (r *reader) prepare(ctx context.Context, conn *pgx.Conn) error {
	r.reads = 0
	major, err := remote.MajorVersion(conn)
	if err != nil {
		return err
	}
	if major < oldestMajor {
		return errTooOld(major)
	}
	r.major = major
	wait := lockTimeout
	if r.client.opts.RemoteTimeout > 0 {
		wait = min(wait, r.client.opts.RemoteTimeout/2)
	}
	rows, err := query(ctx, conn, sessionSQL, strconv.FormatInt(wait.Milliseconds(), 10))
	if err != nil {
		return err
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	mark, err := r.readMark(ctx, conn, pgx.QueryExecModeExec)
	if err != nil {
		return err
	}
	return r.client.mark.allows(mark)
}

// query is like that of pgx, but keeps no statement in the session: a plan that was made for other names need not suit.
func query(ctx context.Context, conn *pgx.Conn, sql string, args ...any) (pgx.Rows, error) {
	return conn.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
}

// readMark reads where the publisher stands.
func (r *reader) readMark(ctx context.Context, conn *pgx.Conn, mode pgx.QueryExecMode) (Mark, error) {
	rows, err := conn.Query(ctx, markSQL, mode)
	if err != nil {
		return Mark{}, err
	}
	var m Mark
	var system, control int64
	var wal *string
	var lsn string
	_, err = pgx.ForEachRow(rows, []any{&m.user, &m.InRecovery, &system, &wal, &control, &lsn, &m.transactions}, func() error { return nil })
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
