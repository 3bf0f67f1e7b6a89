package primary

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/replsync/replsync/gosrc/internal/host"
)

const oldestMajor = 15

func errTooOld(major int) error {
	return &host.Error{Message: host.Message{
		SQLState: "0A000",
		Text:     fmt.Sprintf("cannot synchronize replication slots from a server of version %d", major),
		Hint:     fmt.Sprintf("replsync works with PostgreSQL %d and later.", oldestMajor),
	}}
}

// isServerError tells whether the server refused a statement, which leaves the connection as it was.
func isServerError(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg)
}

// describe turns an error of the connection into one that can be shown. A cancelled ctx is returned as its cause.
func (c *Client) describe(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var known *host.Error
	if errors.As(err, &known) {
		return err
	}
	e := &host.Error{Err: err}
	e.Text = "could not " + what + " at the primary"
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		e.SQLState = pg.Code
		e.Text += ": " + pg.Message
		e.Detail, e.Hint = pg.Detail, pg.Hint
		if pg.Code == "42501" && e.Hint == "" {
			e.Hint = c.GrantHint()
		}
		if pg.Code == "57014" {
			e.Hint = "See the parameter replsync.remote_timeout."
		}
	case errors.Is(err, context.DeadlineExceeded):
		e.SQLState = "08006"
		e.Detail = fmt.Sprintf("There was no answer within %s.", c.opts.RemoteTimeout)
		e.Hint = "See the parameter replsync.remote_timeout."
	default:
		e.SQLState = "08006"
		e.Detail = fmt.Sprintf("The connection was lost: %s.", err)
	}
	return e
}

// GrantHint names the statements that give the connection's role the right to read the files it needs.
func (c *Client) GrantHint() string {
	role := QuoteIdentifier(c.user)
	return fmt.Sprintf("In database %s of the primary, run CREATE EXTENSION replsync if it is not there, then "+
		"GRANT USAGE ON SCHEMA replsync TO %s; "+
		"GRANT EXECUTE ON ROUTINE replsync.logical_snapshot(pg_lsn), replsync.logical_mappings(oid, pg_lsn), "+
		"replsync.logical_slot_two_phase_at(name), replsync.logical_slots(boolean), "+
		"replsync.wait_for_slot_change(integer) TO %s;",
		QuoteIdentifier(c.database), role, role)
}
