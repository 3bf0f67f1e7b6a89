package conninfo

import (
	"context"
	"net"
	"time"
)

// tcpOptions is what fe-connect.c sets on its sockets. Below zero: the system's default.
type tcpOptions struct {
	keepalives  bool
	idle        time.Duration
	interval    time.Duration
	count       int
	userTimeout time.Duration
}

func (s settings) tcpOptions() tcpOptions {
	return tcpOptions{
		keepalives:  s.number("keepalives", 1) != 0,
		idle:        orDefault(s.number("keepalives_idle", 0)) * time.Second,
		interval:    orDefault(s.number("keepalives_interval", 0)) * time.Second,
		count:       int(orDefault(s.number("keepalives_count", 0))),
		userTimeout: orDefault(s.number("tcp_user_timeout", 0)) * time.Millisecond,
	}
}

// orDefault turns libpq's spelling of "the system's default" into net.KeepAliveConfig's.
func orDefault(n int) time.Duration {
	if n <= 0 {
		return -1
	}
	return time.Duration(n)
}

func (o tcpOptions) dialer() *net.Dialer {
	return &net.Dialer{
		KeepAlive: -1, // Only KeepAliveConfig counts.
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: o.keepalives, Idle: o.idle, Interval: o.interval, Count: o.count,
		},
		Control: o.control,
	}
}

// dialFunc returns what pgx dials with, now and later for a cancel request.
func (t target) dialFunc(o tcpOptions, dialed func()) func(context.Context, string, string) (net.Conn, error) {
	dialer := o.dialer()
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if t.socket() {
			network, address = "unix", t.socketPath()
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			dialed()
		}
		return conn, err
	}
}
