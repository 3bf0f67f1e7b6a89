package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// SYNDropper returns the address of a listener whose backlog is full: the
// kernel drops what arrives, so a connection attempt gets no answer at all, as
// from a machine that is gone.
func SYNDropper(t T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatalf("bind: %v", err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatalf("listen: %v", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatalf("getsockname: %v", err)
	}
	in4, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		t.Fatalf("getsockname returned %T", name)
	}
	address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: in4.Port}).String()
	// Nobody accepts: fill the queue until an attempt hangs.
	for range 10 {
		conn, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if err != nil {
			var netErr net.Error
			if !errors.As(err, &netErr) || !netErr.Timeout() {
				t.Fatalf("filling the backlog: %v", err)
			}
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatalf("the backlog of %s does not fill", address)
	return ""
}

// Mute returns the address of a listener that accepts every connection, reads
// what it is sent, and never answers.
func Mute(t T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
	}()
	return l.Addr().String()
}

// Refused returns an address at which connections are refused.
func Refused(t T) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
}

// A Proxy stands between a client and a server and can be made to fail.
type Proxy struct {
	// Port is the port on 127.0.0.1 that the proxy listens on.
	Port int

	target string
	mu     sync.Mutex
	filter func(io.Reader) io.Reader // of what the server sends
	thawed *sync.Cond
	frozen bool
	refuse bool
	closed bool
	conns  map[net.Conn]struct{}
}

// NewProxy returns a proxy in front of the address.
func NewProxy(t T, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("%v", err)
	}
	p := &Proxy{Port: l.Addr().(*net.TCPAddr).Port, target: target, conns: map[net.Conn]struct{}{}}
	p.thawed = sync.NewCond(&p.mu)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Thaw()
		p.Cut()
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

// Proxy returns a proxy in front of the server.
func (s *Server) Proxy(t T) *Proxy {
	t.Helper()
	return NewProxy(t, (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: s.Port}).String())
}

// WithoutKeepalives returns a proxy in front of the server that keeps the keepalives of unencrypted replication connections back.
// Nothing is to be copied through it.
func (s *Server) WithoutKeepalives(t T) *Proxy {
	t.Helper()
	p := s.Proxy(t)
	// It serves already.
	p.mu.Lock()
	defer p.mu.Unlock()
	p.filter = func(server io.Reader) io.Reader { return &keepalivesDropped{from: bufio.NewReader(server)} }
	return p
}

// keepalivesDropped reads whole messages: a type, a length that counts itself, and the content.
type keepalivesDropped struct {
	from *bufio.Reader
	rest []byte // of a message that is passed on
}

func (k *keepalivesDropped) Read(b []byte) (int, error) {
	const head, copyData, keepalive = 5, 'd', 'k'
	for len(k.rest) == 0 {
		start, err := k.from.Peek(head)
		if err != nil {
			return 0, err
		}
		message := make([]byte, 1+binary.BigEndian.Uint32(start[1:]))
		if _, err := io.ReadFull(k.from, message); err != nil {
			return 0, err
		}
		if message[0] != copyData || len(message) == head || message[head] != keepalive {
			k.rest = message
		}
	}
	n := copy(b, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

// answers is what is passed on of what the server sends.
func (p *Proxy) answers(server io.Reader) io.Reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.filter == nil {
		return server
	}
	return p.filter(server)
}

func (p *Proxy) serve(client net.Conn) {
	if !p.add(client) {
		return
	}
	defer p.drop(client)
	p.wait()
	server, err := net.Dial("tcp", p.target)
	if err != nil || !p.add(server) {
		return
	}
	defer p.drop(server)
	answers := p.answers(server)
	done := make(chan struct{}, 2)
	pipe := func(to io.Writer, from io.Reader) {
		buffer := make([]byte, 32*1024)
		for {
			n, err := from.Read(buffer)
			p.wait()
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, answers)
	<-done
}

func (p *Proxy) add(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.closed {
		conn.Close()
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn.Close()
	delete(p.conns, conn)
}

func (p *Proxy) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.frozen {
		p.thawed.Wait()
	}
}

// Freeze holds everything back in both directions. Connections stay open and new
// ones are accepted, but nobody answers.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

// Thaw undoes Freeze: what was held back is delivered.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = false
	p.thawed.Broadcast()
}

// Refuse makes the proxy close new connections at once (true) or serve them
// again (false). Those that exist go on; Cut ends them.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// Cut closes the connections that exist now.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}
