package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// SQLSTATEs that have a hint.
const (
	codeNoPrivilege   = "42501"
	codeQueryCanceled = "57014"
)

const codeConnectionFailure = "08006"

// Refusal returns the error of a server that refused a statement, which leaves the connection as it was; nil for others.
func Refusal(err error) *pgconn.PgError {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused
	}
	return nil
}

// describe turns an error of the connection into one that can be shown. A cancelled ctx is returned as its cause.
func (s *Session) describe(ctx context.Context, timeout time.Duration, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var known *host.Error
	if errors.As(err, &known) {
		return err
	}
	e := &host.Error{Err: err}
	e.SQLState = codeConnectionFailure
	e.Text = "could not " + what + " " + s.server.At
	refused := Refusal(err)
	switch {
	case refused != nil:
		e.SQLState = refused.Code
		e.Text += ": " + refused.Message
		e.Detail, e.Hint = refused.Detail, refused.Hint
		switch {
		case refused.Code == codeNoPrivilege && e.Hint == "" && s.server.Rights != nil:
			e.Hint = s.server.Rights()
		case refused.Code == codeQueryCanceled:
			e.Hint = "See the parameter replsync.remote_timeout."
		}
	case errors.Is(err, context.DeadlineExceeded):
		e.Detail = fmt.Sprintf("There was no answer within %s.", timeout)
		e.Hint = "See the parameters replsync.connect_timeout and replsync.remote_timeout."
	default:
		e.Detail = fmt.Sprintf("The connection was lost: %s.", err)
	}
	return e
}
