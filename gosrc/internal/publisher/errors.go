package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// SQLSTATEs of a publisher that are acted on.
const (
	codeNoPrivilege   = "42501"
	codeNoTable       = "42P01"
	codeNoSchema      = "3F000"
	codeNotASequence  = "42809"
	codeLockTimeout   = "55P03"
	codeQueryCanceled = "57014"
)

func errTooOld(major int) error {
	e := host.Errorf("0A000", "cannot synchronize sequences from a publisher of version %d", major)
	e.Hint = fmt.Sprintf("The publisher must be of version %d or later.", oldestMajor)
	return e
}

// isServerError tells whether the server refused a statement, which leaves the connection as it was.
func isServerError(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg)
}

// ofOne returns the error of the server that one sequence of a batch may be the cause of, as opposed to what would befall
// any statement: no resources (53), a cancellation or a shutdown (57), a broken connection (08).
func ofOne(err error) *pgconn.PgError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return nil
	}
	for _, class := range []string{"08", "53", "57"} {
		if strings.HasPrefix(pg.Code, class) {
			return nil
		}
	}
	return pg
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
	e.Text = "could not " + what + " of the publisher"
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		e.SQLState = pg.Code
		e.Text += ": " + pg.Message
		e.Detail, e.Hint = pg.Detail, pg.Hint
		if pg.Code == codeQueryCanceled {
			e.Hint = "See the parameter replsync.remote_timeout."
		}
	case errors.Is(err, context.DeadlineExceeded):
		e.SQLState = "08006"
		e.Detail = "There was no answer."
		e.Hint = "See the parameters replsync.connect_timeout and replsync.remote_timeout."
	default:
		e.SQLState = "08006"
		e.Detail = fmt.Sprintf("The connection was lost: %s.", err)
	}
	return e
}

// majorVersion reads the major version from the server_version that every server reports ("15.20 (Debian ...)", "19rc1").
func majorVersion(s string) (int, error) {
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	major, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("unexpected server_version %q", s)
	}
	return major, nil
}
