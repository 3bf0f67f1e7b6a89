package conninfo

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The values of target_session_attrs.
const (
	targetAny           = "any"
	targetReadWrite     = "read-write"
	targetReadOnly      = "read-only"
	targetPrimary       = "primary"
	targetStandby       = "standby"
	targetPreferStandby = "prefer-standby"
)

var validators = map[string]pgconn.ValidateConnectFunc{
	targetReadWrite:     pgconn.ValidateConnectTargetSessionAttrsReadWrite,
	targetReadOnly:      pgconn.ValidateConnectTargetSessionAttrsReadOnly,
	targetPrimary:       pgconn.ValidateConnectTargetSessionAttrsPrimary,
	targetStandby:       pgconn.ValidateConnectTargetSessionAttrsStandby,
	targetPreferStandby: pgconn.ValidateConnectTargetSessionAttrsStandby,
}

// Connect tries the servers in turn, each address of each once, and returns the first connection that will do. As libpq
// it goes on to the next server when one cannot be reached, is starting up or is of the wrong kind, and gives up when one
// refuses. Its errors are of type [*Error].
//
// ctx bounds the whole; each address has the time limit that [Options] describes.
func (c *Config) Connect(ctx context.Context) (*pgx.Conn, error) {
	targets := c.targets
	if c.shuffle {
		targets = slices.Clone(targets)
		rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	}
	conn, failures, wrongKind := c.connectFirst(ctx, targets, validators[c.attrs])
	if conn == nil && c.attrs == targetPreferStandby && len(wrongKind) > 0 && ctx.Err() == nil {
		conn, failures, _ = c.connectFirst(ctx, wrongKind, nil)
	}
	if conn == nil {
		return nil, c.newConnectError(ctx, failures)
	}
	return conn, nil
}

// connectFirst also returns the servers that answered and are not of the kind asked for.
func (c *Config) connectFirst(ctx context.Context, targets []target, validate pgconn.ValidateConnectFunc) (
	conn *pgx.Conn, failures []*failure, wrongKind []target,
) {
	for _, t := range targets {
		conn, failed, next := c.connectTarget(ctx, t, validate)
		if conn != nil {
			return conn, nil, nil
		}
		failures = append(failures, failed...)
		if next == giveUp {
			break
		}
		if next == nextKind {
			wrongKind = append(wrongKind, t)
		}
	}
	return nil, failures, wrongKind
}

// verdict says how to go on after a failure.
type verdict uint8

const (
	nextAddress verdict = iota
	nextServer
	nextKind // nextServer, because this one is not of the kind asked for
	giveUp
)

// failure is one attempt that did not make it.
type failure struct {
	target target
	addr   string
	err    error
	next   verdict

	// otherWay is set when the same server may take the connection with TLS, or without.
	otherWay bool
}

func (c *Config) connectTarget(ctx context.Context, t target, validate pgconn.ValidateConnectFunc) (
	*pgx.Conn, []*failure, verdict,
) {
	addrs, err := c.resolve(ctx, t)
	if err != nil {
		return nil, []*failure{{target: t, err: err}}, c.afterContext(ctx, nextServer)
	}
	var failures []*failure
	for _, addr := range addrs {
		conn, failed := c.connectAddress(ctx, t, addr, validate)
		if conn != nil {
			return conn, nil, nextServer
		}
		failures = append(failures, failed...)
		if next := c.afterContext(ctx, failed[len(failed)-1].next); next != nextAddress {
			return nil, failures, next
		}
	}
	return nil, failures, nextServer
}

// afterContext ends everything when the caller's context has ended.
func (c *Config) afterContext(ctx context.Context, next verdict) verdict {
	if ctx.Err() != nil {
		return giveUp
	}
	return next
}

// resolve returns the addresses of a server. For a socket there is one, which nobody dials.
func (c *Config) resolve(ctx context.Context, t target) ([]string, error) {
	switch {
	case t.socket():
		return []string{""}, nil
	case t.addr != "":
		return []string{t.addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, t.host)
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no addresses", Name: t.host, IsNotFound: true}
	}
	if c.shuffle {
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	}
	return addrs, err
}

// connectAddress tries one address with and without TLS as sslmode has it, all in one time limit.
func (c *Config) connectAddress(ctx context.Context, t target, addr string, validate pgconn.ValidateConnectFunc) (
	*pgx.Conn, []*failure,
) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	ways := encryptions(c.mode)
	if t.socket() {
		ways = []encryption{plain}
	}
	var failures []*failure
	for _, way := range ways {
		conn, failed := c.attempt(ctx, t, addr, way, validate)
		if conn != nil {
			return conn, nil
		}
		failures = append(failures, failed)
		if !failed.otherWay {
			break
		}
	}
	return nil, failures
}

// attempt makes one connection.
func (c *Config) attempt(ctx context.Context, t target, addr string, way encryption,
	validate pgconn.ValidateConnectFunc,
) (*pgx.Conn, *failure) {
	if way == encrypted && c.tlsError != nil {
		return nil, &failure{target: t, addr: addr, err: c.tlsError, next: giveUp, otherWay: true}
	}
	var progress progress
	config := c.base.Copy()
	config.Host = t.host
	config.Password = t.password
	config.ValidateConnect = validate
	config.DialFunc = t.dialFunc(c.tcp, func() { progress.dialed.Store(true) })
	config.AfterNetConnect = progress.secure
	// Neither is a socket's directory an address, nor must a host be looked up again.
	if t.socket() {
		config.Host, addr = "localhost", "127.0.0.1"
	}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	config.Port = t.portNumber()
	if way == encrypted {
		config.TLSConfig = c.tls.config(t.host)
	}
	config.BuildFrontend = progress.frontend

	conn, err := pgx.ConnectConfig(ctx, config)
	switch {
	case err == nil && c.mustUse && !progress.passwordUsed.Load():
		closeNow(conn)
		return nil, &failure{target: t, addr: addr, err: errPasswordNotUsed(), next: giveUp}
	case err == nil:
		return conn, nil
	}
	return nil, classify(ctx, &progress, &failure{target: t, addr: addr, err: withoutConfig(err)})
}

// progress tells how far an attempt came. A cancel request of the finished connection still calls in here.
type progress struct {
	dialed       atomic.Bool
	secured      atomic.Bool
	passwordUsed atomic.Bool
}

// secure completes the TLS handshake, which pgx leaves to the first message, so that a failed one can be told from what
// the server has to say.
func (p *progress) secure(ctx context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
	if tlsConn, ok := conn.(*tls.Conn); ok {
		if err := tlsConn.HandshakeContext(ctx); err != nil {
			return conn, err
		}
	}
	p.secured.Store(true)
	return conn, nil
}

// withoutConfig unwraps pgx's error, which keeps the configuration and with it the password.
func withoutConfig(err error) error {
	var connectErr *pgconn.ConnectError
	if errors.As(err, &connectErr) {
		return connectErr.Unwrap()
	}
	return err
}
