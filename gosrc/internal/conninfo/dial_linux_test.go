package conninfo

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSocketOptions(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()

	get := func(text string) (keepalive, idle, interval, count, userTimeout int) {
		c, err := Parse("host=h user=u "+text, Options{})
		require.NoError(t, err)
		dialed := false
		dial := c.targets[0].dialFunc(c.tcp, func() { dialed = true })
		conn, err := dial(t.Context(), "tcp", listener.Addr().String())
		require.NoError(t, err)
		require.True(t, dialed)
		defer conn.Close()
		raw, err := conn.(*net.TCPConn).SyscallConn()
		require.NoError(t, err)
		option := func(fd uintptr, level, name int) int {
			value, err := syscall.GetsockoptInt(int(fd), level, name)
			require.NoError(t, err)
			return value
		}
		require.NoError(t, raw.Control(func(fd uintptr) {
			keepalive = option(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
			idle = option(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
			interval = option(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
			count = option(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
			userTimeout = option(fd, syscall.IPPROTO_TCP, tcpUserTimeout)
		}))
		return
	}
	all := func(values ...int) []int { return values }

	_, idle, interval, count, _ := get("keepalives=0")
	system := all(1, idle, interval, count, 0)
	require.Equal(t, system, all(get("")))
	require.Equal(t, system, all(get("keepalives_idle=0 keepalives_interval=-1")))
	keepalive, _, _, _, _ := get("keepalives=0")
	require.Zero(t, keepalive)
	require.Equal(t, all(1, 11, 12, 13, 1400),
		all(get("keepalives_idle=11 keepalives_interval=12 keepalives_count=13 tcp_user_timeout=1400")))
}
