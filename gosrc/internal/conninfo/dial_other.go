//go:build !linux

package conninfo

import "syscall"

// control leaves tcp_user_timeout out, as libpq does where the system has no such thing.
func (o tcpOptions) control(string, string, syscall.RawConn) error { return nil }
