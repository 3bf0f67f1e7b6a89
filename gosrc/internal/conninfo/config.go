package conninfo

import (
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// defaultConnectTimeout is for an Options without one: a dead server must not block for as long as the kernel likes.
const defaultConnectTimeout = 10 * time.Second

// Options is what a connection string does not say.
type Options struct {
	// DefaultDatabase is where to connect to when the string and its service name no database.
	DefaultDatabase string

	// ApplicationName is the name of the session unless the string gives one.
	ApplicationName string

	// ConnectTimeout bounds the attempt on one address, unless the string gives a connect_timeout above 0. It is never
	// unlimited: 0 means ten seconds.
	ConnectTimeout time.Duration

	// StatementTimeout is the session's statement_timeout and idle_in_transaction_session_timeout, unless the string's
	// "options" sets them. 0 leaves the server's.
	StatementTimeout time.Duration

	// OldServer is for a server that may be older than 14. It knows no idle_session_timeout, and refuses who asks for a
	// parameter that it does not know: the caller sees to that one once it has connected.
	OldServer bool

	Env Environment

	// Restricted is for a string of someone who is no superuser: neither the environment of the server's account nor files
	// that hold passwords are used. A string that names such a file is refused.
	Restricted bool

	// MustUsePassword asks for a password in the string itself, and for a server that wants it (libpqrcv_connect): someone
	// who is no superuser must not connect as whoever the server's account may be elsewhere.
	MustUsePassword bool

	// Warn is called with what libpq would print to standard error, in every Parse and not later. It may be nil.
	Warn func(msg string)
}

// Config is a connection string that has been read and found good. It may be used any number of times and concurrently.
// The files that the string names have been read; use a new Config to see changes in them.
type Config struct {
	targets  []target
	shuffle  bool
	attrs    string
	timeout  time.Duration
	tcp      tcpOptions
	mode     string
	tls      *tlsSettings
	tlsError error // why TLS cannot be had, where it need not be had
	base     *pgx.ConnConfig

	passfile      string // where the password would come from, if not from the string
	passwordGiven bool
	mustUse       bool // see Options.MustUsePassword
}

// Parse reads a connection string in keyword/value or URI form. Its errors are of type [*Error].
func Parse(connString string, opts Options) (*Config, error) {
	if opts.Warn == nil {
		opts.Warn = func(string) {}
	}
	given, err := parseString(connString)
	if err != nil {
		return nil, err
	}
	if err := opts.checkOwner(given); err != nil {
		return nil, err
	}
	if opts.Restricted {
		opts.Env = opts.Env.restricted()
	}
	s, err := resolve(given, opts.Env)
	if err != nil {
		return nil, err
	}
	if err := s.check(opts.Warn); err != nil {
		return nil, err
	}

	c := &Config{
		shuffle: s["load_balance_hosts"] == "random",
		attrs:   s["target_session_attrs"],
		timeout: opts.connectTimeout(s),
		tcp:     s.tcpOptions(),
		mode:    s["sslmode"],
		mustUse: opts.MustUsePassword,
	}
	if c.targets, err = s.targets(opts.Env.socketDir()); err != nil {
		return nil, err
	}
	user := firstOf(s["user"], opts.Env.OSUser)
	if user == "" {
		return nil, newError(codeInvalidValue, "no user name in the connection string").withHint("Add \"user\".")
	}
	if err := c.setTLS(s, opts); err != nil {
		return nil, err
	}
	database := s.database(opts.DefaultDatabase, opts.Env, user)
	c.setPasswords(s, opts, database, user)
	if c.base, err = baseConfig(s, database, user); err != nil {
		return nil, err
	}
	c.base.RuntimeParams = runtimeParams(s, opts)
	return c, nil
}

// Database returns the name of the database to connect to.
func (c Config) Database() string { return c.base.Database }

// User returns the name of the user to connect as.
func (c Config) User() string { return c.base.User }

// String names the servers, the user and the database, and no secret.
func (c Config) String() string {
	var servers []string
	for _, t := range c.targets {
		servers = append(servers, t.at(t.addr))
	}
	return fmt.Sprintf("database \"%s\" as user \"%s\" on %s", c.Database(), c.User(), strings.Join(servers, ", "))
}

// GoString keeps the passwords out of %#v.
func (c Config) GoString() string { return "conninfo.Config{" + c.String() + "}" }

// connectTimeout takes a limit as it is given. libpq before 17 has at least two seconds because its clock counts whole
// ones.
func (o Options) connectTimeout(s settings) time.Duration {
	if n := s.number("connect_timeout", 0); n > 0 {
		return time.Duration(n) * time.Second
	}
	if o.ConnectTimeout > 0 {
		return o.ConnectTimeout
	}
	return defaultConnectTimeout
}

func (c *Config) setTLS(s settings, opts Options) error {
	if _, _, err := s.tlsVersionRange(); err != nil {
		return err
	}
	sockets := 0
	for _, t := range c.targets {
		if t.socket() {
			sockets++
		}
	}
	if sockets > 0 && s["requirepeer"] != "" {
		return newError(codeUnsupported, "connection option \"requirepeer\" is not supported").
			withHint("Protect the directory of the socket, or connect with TLS and sslmode=verify-full.")
	}
	if sockets == len(c.targets) || c.mode == modeDisable {
		return nil
	}
	c.tls, c.tlsError = s.loadTLS(opts.Env)
	if c.tlsError != nil && c.mode != modeAllow && c.mode != modePrefer {
		return c.tlsError
	}
	if c.tlsError != nil {
		opts.Warn("connections cannot be encrypted: " + c.tlsError.Error())
	}
	return nil
}

func (c *Config) setPasswords(s settings, opts Options, database, user string) {
	password := s["password"]
	c.passwordGiven = password != ""
	var file *passfile
	if !c.passwordGiven {
		c.passfile = firstOf(s["passfile"], opts.Env.inHome(".pgpass"))
		if c.passfile != "" {
			file = readPassfile(c.passfile, opts.Warn)
		}
	}
	for i := range c.targets {
		t := &c.targets[i]
		t.password = password
		if !c.passwordGiven {
			t.password, _ = file.find(t.passwordHost(opts.Env.socketDir()), t.port, database, user)
		}
	}
}

// baseConfig has pgx read the options that are its own business, and fixes all others that it would otherwise look for in
// the environment or in a home directory.
func baseConfig(s settings, database, user string) (*pgx.ConnConfig, error) {
	var text strings.Builder
	var allowed []string
	add := func(name, value string) {
		allowed = append(allowed, name)
		text.WriteString(name + "=" + quote(value) + " ")
	}
	add("host", "localhost")
	add("port", "5432")
	add("dbname", database)
	add("user", user)
	// The real values of these never reach pgx: it looks at the files in its own way, and keeps the string.
	add("sslmode", modeDisable)
	for _, name := range []string{"passfile", "sslrootcert", "sslcert", "sslkey", "sslpassword"} {
		add(name, "")
	}
	add("target_session_attrs", targetAny)
	add("connect_timeout", "0")
	for _, k := range keys {
		if k.action == actPass {
			add(k.name, s[k.name])
		}
	}
	config, err := pgx.ParseConfigWithOptions(text.String(), pgx.ParseConfigOptions{
		ParseConfigOptions: pgconn.ParseConfigOptions{ConnStringAllowedKeys: allowed},
	})
	if err != nil {
		// pgx's error is left out: it quotes. Every other value has been checked.
		return nil, errInvalidValue("require_auth").withHint("%s", findKey("require_auth").hint)
	}
	config.Fallbacks = nil
	config.Password = ""
	// The time limit is set on the context of each attempt.
	config.ConnectTimeout = 0
	return config, nil
}

// quote writes a value as string_utils.c: appendConnStrVal does.
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}
