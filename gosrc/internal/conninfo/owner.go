package conninfo

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// fileOptions name files that can hold passwords of the server's account. A service can also be one of the installation.
var fileOptions = []string{"service", "servicefile", "passfile"}

// checkOwner applies Restricted and MustUsePassword to what the string itself says.
func (o Options) checkOwner(given map[string]string) error {
	if o.MustUsePassword && given["password"] == "" {
		return newError(codePasswordRequired, "password is required").
			withDetail("Non-superusers must provide a password in the connection string.")
	}
	if !o.Restricted {
		return nil
	}
	for _, name := range fileOptions {
		if given[name] != "" {
			return newError(codeNoPrivilege, "connection option \"%s\" is reserved for superusers", name).
				withDetail("It names a file that is read with the rights of the server's account.").
				withHint("Give the values in the connection string itself.")
		}
	}
	return nil
}

// restricted leaves what is compiled in, and the name of the account, which is no secret and the default for "user".
func (e Environment) restricted() Environment {
	return Environment{OSUser: e.OSUser, SocketDir: e.SocketDir}
}

func errPasswordNotUsed() *Error {
	return newError(codePasswordRequired, "password is required").
		withDetail("Non-superuser cannot connect if the server does not request a password.").
		withHint("Target server's authentication method must be changed, or set password_required=false in the subscription parameters.")
}

func closeNow(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// frontend is how pgx reads the server's messages. It listens to what authentication the server asks for: pgx does
// not tell whether the password was used (PQconnectionUsedPassword).
func (p *progress) frontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	p.passwordUsed.Store(false)
	return pgproto3.NewFrontend(&authListener{r: r, asked: func() { p.passwordUsed.Store(true) }}, w)
}

// What the server can ask for (libpq/protocol.h). SCRAM is the only mechanism of SASL that pgx is told to use.
const (
	authOK                = 0
	authCleartextPassword = 3
	authMD5Password       = 5
	authSASL              = 10
)

// authMessageStart is the type byte, the length and the kind of an authentication request.
const authMessageStart = 1 + 4 + 4

// authListener passes on what it reads, and looks at the messages up to AuthenticationOk.
type authListener struct {
	r     io.Reader
	asked func()

	start []byte // of the message under way
	skip  int64  // of it that does not matter
	done  bool
}

func (l *authListener) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if !l.done {
		l.listen(b[:n])
	}
	return n, err
}

func (l *authListener) listen(b []byte) {
	for len(b) > 0 && !l.done {
		if l.skip > 0 {
			n := min(l.skip, int64(len(b)))
			l.skip -= n
			b = b[n:]
			continue
		}
		n := min(authMessageStart-len(l.start), len(b))
		l.start = append(l.start, b[:n]...)
		b = b[n:]
		if len(l.start) == authMessageStart {
			l.message()
		}
	}
}

func (l *authListener) message() {
	length := int64(binary.BigEndian.Uint32(l.start[1:]))
	kind := binary.BigEndian.Uint32(l.start[5:])
	if l.start[0] == 'R' {
		switch kind {
		case authCleartextPassword, authMD5Password, authSASL:
			l.asked()
		case authOK:
			l.done = true
		}
	}
	// The length counts itself and what follows. Before authentication is over every message has 4 bytes at least.
	l.start, l.skip = l.start[:0], max(0, length-8)
}
