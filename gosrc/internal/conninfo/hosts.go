package conninfo

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// target is one server to try.
type target struct {
	host string // a name for TLS, the password file and messages; or the directory of a socket
	addr string // a numeric address to dial in place of host
	port string

	password string
}

// socket tells whether the server is reached through a Unix-domain socket.
func (t target) socket() bool {
	return t.addr == "" && isSocketDir(t.host)
}

// isSocketDir follows pqcomm.h: is_unixsock_path. "@" stands for Linux's abstract names.
func isSocketDir(host string) bool {
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
}

func (t target) socketPath() string {
	return t.host + "/.s.PGSQL." + t.port
}

// at names the server as libpq's messages do.
func (t target) at(addr string) string {
	if t.socket() {
		return "server on socket \"" + t.socketPath() + "\""
	}
	where := "server at \"" + t.host + "\""
	if addr != "" && addr != t.host {
		where += " (" + addr + ")"
	}
	return where + ", port " + t.port
}

// targets follows the first half of fe-connect.c: pqConnectOptions2.
func (s settings) targets(socketDir string) ([]target, error) {
	hosts, addrs, ports := splitList(s["host"]), splitList(s["hostaddr"]), splitList(s["port"])
	count := max(1, len(hosts))
	if len(addrs) > 0 {
		count = len(addrs)
		if len(hosts) > 0 && len(hosts) != count {
			return nil, newError(codeInvalidValue, "could not match %d host names to %d hostaddr values", len(hosts), count)
		}
	}
	if len(ports) > 1 && len(ports) != count {
		return nil, newError(codeInvalidValue, "could not match %d port numbers to %d hosts", len(ports), count)
	}

	targets := make([]target, count)
	for i := range targets {
		t := target{host: element(hosts, i), addr: element(addrs, i)}
		switch {
		case t.addr != "":
			if _, err := netip.ParseAddr(t.addr); err != nil {
				// Not wrapped: it quotes the value.
				return nil, errInvalidValue("hostaddr").withHint("It must be a numeric IPv4 or IPv6 address.")
			}
			if t.host == "" {
				t.host = t.addr
			}
		case t.host == "":
			t.host = socketDir
		}
		if err := checkHost(t); err != nil {
			return nil, err
		}
		port, err := parsePort(ports, i)
		if err != nil {
			return nil, err
		}
		t.port = port
		targets[i] = t
	}
	return targets, nil
}

// checkHost refuses what cannot be a host name. Such a thing may be a piece of a password, and would show in messages.
func checkHost(t target) error {
	if t.socket() {
		// As libpq (pqcomm.h: UNIXSOCK_PATH_BUFLEN); Go would only report an invalid argument.
		if len(t.socketPath()) > maxSocketPath {
			return newError(codeInvalidValue, "path of Unix-domain socket is too long (maximum %d bytes)", maxSocketPath)
		}
		return nil
	}
	if isSocketDir(t.host) {
		return nil
	}
	for i := 0; i < len(t.host); i++ {
		if c := t.host[i]; c <= ' ' || c == 0x7f || strings.IndexByte("@/\\?#&='\"", c) >= 0 {
			return errInvalidValue("host").
				withHint("It must be a host name, an IP address, or a path that starts with \"/\" or \"@\".")
		}
	}
	return nil
}

// maxSocketPath is the size of sockaddr_un.sun_path on Linux less the terminating zero.
const maxSocketPath = 107

func parsePort(ports []string, i int) (string, error) {
	port := element(ports, i)
	if len(ports) == 1 {
		port = ports[0]
	}
	if port == "" {
		return findKey("port").def, nil
	}
	n, err := parseInt("port", port)
	if err != nil || n < 1 || n > 65535 {
		return "", errInvalidValue("port").withHint("It must be an integer between 1 and 65535.")
	}
	return strconv.Itoa(n), nil
}

// splitList returns the elements of a list, which may be empty ones, and none for an empty list.
func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func element(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// isIP tells whether a host is an address and not a name. An IPv6 address may come with a zone.
func isIP(host string) bool {
	return net.ParseIP(host) != nil || strings.Contains(host, ":")
}

// passwordHost returns the name that a server goes by in the password file.
func (t target) passwordHost(socketDir string) string {
	if isSocketDir(t.host) && t.host == socketDir {
		return "localhost"
	}
	return t.host
}
