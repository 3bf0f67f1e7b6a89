package conninfo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// wrongKind holds the errors of a server that target_session_attrs does not want.
var wrongKind = []error{
	pgconn.ErrReadOnlyConnection, pgconn.ErrReadWriteConnection, pgconn.ErrPrimaryConnection, pgconn.ErrStandbyConnection,
}

// classify decides how to go on after a failure (fe-connect.c: PQconnectPoll, connection_failed).
func classify(ctx context.Context, p *progress, f *failure) *failure {
	var pgErr *pgconn.PgError
	switch {
	case ctx.Err() != nil || !p.dialed.Load():
		f.next = nextAddress
	case slices.ContainsFunc(wrongKind, func(e error) bool { return errors.Is(f.err, e) }):
		f.next = nextKind
	case errors.As(f.err, &pgErr):
		f.next = giveUp
		if pgErr.Code == codeCannotConnectNow {
			f.next = nextServer
		}
		// What pg_hba.conf says differs with and without TLS. A wrong password does not, and libpq's second attempt only
		// counts twice where failed ones are counted.
		f.otherWay = !slices.Contains([]string{codeInvalidPassword, codeNoSuchDatabase, codeNoPrivilege}, pgErr.Code)
	default:
		f.next = giveUp
		if isNetworkError(f.err) {
			f.next = nextAddress
		}
		// No TLS: the server has none, or its certificate is no good. An authentication that we break off ourselves, for
		// require_auth or channel_binding, is final.
		f.otherWay = !p.secured.Load()
	}
	return f
}

// isNetworkError tells a connection that broke from an answer that we do not like.
func isNetworkError(err error) bool {
	var opErr *net.OpError
	if errors.As(err, &opErr) {
		// This is how crypto/tls reports an alert of the server's.
		return opErr.Op != "remote error"
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// newConnectError makes one error of all failures.
func (c *Config) newConnectError(ctx context.Context, failures []*failure) *Error {
	var causes []error
	var sentences []string
	for _, f := range failures {
		causes = append(causes, f.err)
		if s := sentence(f.String()); !slices.Contains(sentences, s) {
			sentences = append(sentences, s)
		}
	}
	if ctx.Err() != nil {
		causes = append(causes, ctx.Err())
	}

	last := failures[len(failures)-1]
	e := newError(codeCannotConnect, "%s", last.String()).withCause(errors.Join(causes...))
	if len(sentences) > 1 {
		e.Message = fmt.Sprintf("all %d attempts to connect failed", len(sentences))
		e.Detail = strings.Join(sentences, "\n")
	}
	var pgErr *pgconn.PgError
	var ours *Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		e.Code = codeQueryCanceled
	case errors.As(last.err, &pgErr):
		e.Code = pgErr.Code
		e.Hint = pgErr.Hint
		if e.Detail == "" {
			e.Detail = pgErr.Detail
		}
		if pgErr.Code == codeInvalidPassword && e.Hint == "" {
			e.Hint = c.passwordHint(last.target)
		}
	case errors.As(last.err, &ours):
		e.Code, e.Hint = ours.Code, ours.Hint
		if ours.Code == codePasswordRequired {
			e.Message, e.Detail = ours.Message, ours.Detail
		}
	}
	return e
}

// passwordHint tells where the password that the server refused came from.
func (c *Config) passwordHint(t target) string {
	switch {
	case c.passwordGiven:
		return "The password came from the connection string or its service."
	case t.password != "":
		return fmt.Sprintf("The password came from the password file \"%s\".", c.passfile)
	case c.passfile == "":
		return "There was no password in the connection string, and there is no password file."
	}
	return fmt.Sprintf("There was no password in the connection string, and none for this server, database \"%s\" or "+
		"\"%s\" and user \"%s\" in the password file \"%s\".", c.Database(), replicationDatabase, c.User(), c.passfile)
}

func (f *failure) String() string {
	return "connection to " + f.target.at(f.addr) + " failed: " + f.reason()
}

// reason returns what happened, without the names and addresses that pgx and package net put around it.
func (f *failure) reason() string {
	var pgErr *pgconn.PgError
	var dnsErr *net.DNSError
	var netErr net.Error
	var opErr *net.OpError
	var ours *Error
	switch {
	case errors.As(f.err, &pgErr):
		return pgErr.Severity + ": " + pgErr.Message
	case errors.As(f.err, &ours):
		return ours.Error()
	case errors.Is(f.err, context.Canceled):
		return "canceled"
	case errors.Is(f.err, context.DeadlineExceeded), errors.As(f.err, &netErr) && netErr.Timeout():
		return "timeout expired"
	case errors.As(f.err, &dnsErr):
		return "could not translate host name to address: " + dnsErr.Err
	case errors.As(f.err, &opErr):
		return opErr.Err.Error()
	case errors.Is(f.err, io.EOF), errors.Is(f.err, io.ErrUnexpectedEOF):
		return "server closed the connection unexpectedly"
	}
	return innermost(f.err)
}

// innermost unwraps the layers that say where in pgx an error came from.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 0 {
			next = joined.Unwrap()[0]
		}
		if next == nil {
			// pgx wraps a nil here and there.
			return strings.TrimSuffix(err.Error(), ": %!w(<nil>)")
		}
		err = next
	}
}

// sentence makes a message fit for a detail.
func sentence(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:] + "."
}

func (t target) portNumber() uint16 {
	n, err := strconv.ParseUint(t.port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}
