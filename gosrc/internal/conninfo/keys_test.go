package conninfo

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTableHasEveryOption(t *testing.T) {
	var known []string
	for _, added := range libpqOptions {
		known = append(known, added...)
	}
	var table []string
	for _, k := range keys {
		table = append(table, k.name)
	}
	require.ElementsMatch(t, known, table)
}

func TestTableRows(t *testing.T) {
	for _, k := range keys {
		if k.values != nil && k.def != "" {
			require.Contains(t, k.values, k.def, k.name)
		}
		if k.action == actRefuse || k.action == actWarn {
			require.NotEmpty(t, k.hint, k.name)
		}
		require.False(t, k.secret && k.action == actPass, "%s would be kept by pgx", k.name)
	}
}

func TestRecoveryConninfo(t *testing.T) {
	for version, text := range recoveryConninfo {
		var warnings []string
		c, err := Parse(text, Options{
			DefaultDatabase: "postgres",
			Warn:            func(s string) { warnings = append(warnings, s) },
		})
		require.NoError(t, err, version)
		require.Empty(t, warnings, version)
		require.Equal(t, "repl", c.User())
		require.Equal(t, []target{{host: "db1.example", port: "5433", password: `it's \secret`}}, c.targets)
		require.Equal(t, modePrefer, c.mode)
		require.Equal(t, "prefer", c.base.ChannelBinding)
		if version >= 17 {
			require.Equal(t, "app", c.Database())
		} else {
			require.Equal(t, "postgres", c.Database())
		}
		requireOnlyOwnParams(t, c)
	}
}

// requireOnlyOwnParams checks that nothing of a connection string goes to the server but what session.go says.
func requireOnlyOwnParams(t *testing.T, c *Config) {
	t.Helper()
	own := runtimeParams(settings{"options": "x"}, Options{ApplicationName: "x", StatementTimeout: 1})
	for name := range c.base.RuntimeParams {
		require.Contains(t, own, name)
	}
}

// A server refuses a start-up packet with a parameter that it does not know.
func TestOldServerKnowsEveryParameter(t *testing.T) {
	of10 := []string{
		"application_name", "client_encoding", "datestyle", "default_transaction_isolation", "idle_in_transaction_session_timeout",
		"intervalstyle", "lock_timeout", "options", "search_path", "standard_conforming_strings", "statement_timeout", "timezone",
	}
	opts := Options{ApplicationName: "x", StatementTimeout: 1, OldServer: true}
	require.ElementsMatch(t, of10, slices.Collect(maps.Keys(runtimeParams(settings{"options": "x"}, opts))))
	opts.OldServer = false
	require.Equal(t, "0", runtimeParams(settings{}, opts)["idle_session_timeout"])
}

// What pgx does not read it makes a run-time parameter. Parse replaces those, so a row that hands over too much would not
// show in the other tests.
func TestPgxReadsWhatItIsHanded(t *testing.T) {
	s, err := resolve(settings{}, Environment{})
	require.NoError(t, err)
	config, err := baseConfig(s, "d", "u")
	require.NoError(t, err)
	require.Empty(t, config.RuntimeParams)
}

// harmless has a value for each option that is accepted, whatever the option then does.
var harmless = map[string]string{
	"service": "", "servicefile": "/nonexistent", "user": "u", "password": "p", "passfile": "/nonexistent",
	"connect_timeout": "3", "dbname": "d", "host": "h", "hostaddr": "127.0.0.1", "port": "1", "client_encoding": "auto",
	"options": "-c geqo=off", "application_name": "a", "fallback_application_name": "f", "keepalives": "1",
	"keepalives_idle": "1", "keepalives_interval": "1", "keepalives_count": "1", "tcp_user_timeout": "1",
	"sslmode": "disable", "sslcompression": "1", "sslcert": "/nonexistent", "sslkey": "/nonexistent", "sslpassword": "x",
	"sslrootcert": "/nonexistent", "sslsni": "0", "requirepeer": "postgres", "require_auth": "!none",
	"ssl_min_protocol_version": "TLSv1.3", "ssl_max_protocol_version": "tlsv1.3", "gssencmode": "disable",
	"krbsrvname": "k", "gsslib": "gssapi", "gssdelegation": "1", "replication": "database",
	"min_protocol_version": "3.2", "max_protocol_version": "3.2", "sslkeylogfile": "/nonexistent",
}

func TestNoOptionReachesServer(t *testing.T) {
	for _, k := range keys {
		if k.action == actRefuse && k.values == nil || k.name == "service" {
			continue
		}
		value, ok := harmless[k.name]
		if !ok {
			require.NotEmpty(t, k.values, "no value for %s", k.name)
			value = k.values[0]
		}
		text := "host=h user=u sslmode=disable " + k.name + "=" + quote(value)
		if k.name == "min_protocol_version" {
			text += " max_protocol_version=latest"
		}
		c, err := Parse(text, Options{})
		require.NoError(t, err, k.name)
		requireOnlyOwnParams(t, c)
	}
}

func TestRefusedOptions(t *testing.T) {
	for text, option := range map[string]string{
		"sslcrl=/x":                                         "sslcrl",
		"sslcrldir=/x":                                      "sslcrldir",
		"gssencmode=require":                                "gssencmode",
		"host=/tmp requirepeer=postgres":                    "requirepeer",
		"host=a,@b requirepeer=postgres":                    "requirepeer",
		"scram_client_key=x":                                "scram_client_key",
		"scram_server_key=x":                                "scram_server_key",
		"oauth_issuer=x oauth_client_id=y":                  "oauth_issuer",
		"oauth_client_secret=y":                             "oauth_client_secret",
		"oauth_scope=y":                                     "oauth_scope",
		"oauth_ca_file=y":                                   "oauth_ca_file",
		"statement_timeout=1":                               "statement_timeout",
		"search_path=x":                                     "search_path",
		"pool_max_conns=1":                                  "pool_max_conns",
		"default_query_exec_mode=exec":                      "default_query_exec_mode",
		"postgres://h/d?sslcrl=x":                           "sslcrl",
		"postgres://h/d?search_path=x":                      "search_path",
		"postgres://u:pw@h/d?search_path=x":                 "search_path",
		"authtype=x":                                        "authtype",
		"sslmode=on":                                        "sslmode",
		"sslmode=''":                                        "sslmode",
		"channel_binding=on":                                "channel_binding",
		"require_auth=passwd":                               "require_auth",
		"require_auth=md5,!password":                        "require_auth",
		"sslcertmode=x":                                     "sslcertmode",
		"sslnegotiation=x":                                  "sslnegotiation",
		"target_session_attrs=x":                            "target_session_attrs",
		"load_balance_hosts=x":                              "load_balance_hosts",
		"min_protocol_version=3.1":                          "min_protocol_version",
		"ssl_min_protocol_version=SSLv3":                    "ssl_min_protocol_version",
		"ssl_max_protocol_version=x":                        "ssl_max_protocol_version",
		"connect_timeout=10s":                               "connect_timeout",
		"connect_timeout=''":                                "connect_timeout",
		"keepalives=on":                                     "keepalives",
		"tcp_user_timeout=99999999999":                      "tcp_user_timeout",
		"sslnegotiation=direct":                             "sslmode",
		"sslrootcert=system sslmode=require":                "sslmode",
		"min_protocol_version=3.2 max_protocol_version=3.0": "min_protocol_version",
	} {
		_, err := Parse("user=u "+text, Options{})
		if isURI := text[0] == 'p' && text[1] == 'o' && text[4] == 'g'; isURI {
			_, err = Parse(text, Options{Env: Environment{OSUser: "u"}})
		}
		_ = requireError(t, err, text)
		require.Contains(t, err.Error(), option, text)
	}
}

func requireError(t *testing.T, err error, about string) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e, about)
	require.Len(t, e.Code, 5, about)
	require.NotEqual(t, codeInternal, e.Code, about)
	require.NotRegexp(t, `^[A-Z][a-z]|\.$`, e.Message, about)
	for _, s := range []string{e.Detail, e.Hint} {
		if s != "" {
			require.Regexp(t, `(?s)^[A-Z"].*\.$`, s, about)
		}
	}
	return e
}

func TestWarnings(t *testing.T) {
	for text, count := range map[string]int{
		"sslcompression=1":       1,
		"sslcompression=0":       0,
		"sslkeylogfile=/x":       1,
		"sslkeylogfile=''":       0,
		"gssencmode=prefer":      0,
		"requirepeer=postgres":   0,
		"client_encoding=LATIN1": 0,
	} {
		var warnings []string
		_, err := Parse("host=h user=u "+text, Options{Warn: func(s string) { warnings = append(warnings, s) }})
		require.NoError(t, err, text)
		require.Len(t, warnings, count, text)
	}
}

func TestEnvironmentOfTable(t *testing.T) {
	// libpq reads exactly these besides those that service.go and environment.go name.
	var names []string
	for _, k := range keys {
		if k.env != "" {
			names = append(names, k.env)
		}
	}
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(names))), len(names))

	vars := map[string]string{"PGHOST": "a,b", "PGPORT": "1,2", "PGUSER": "u", "PGSSLMODE": "require", "PGPASSWORD": "x"}
	c, err := Parse("", Options{Env: Environment{Vars: vars}})
	require.NoError(t, err)
	require.Equal(t, []target{{host: "a", port: "1", password: "x"}, {host: "b", port: "2", password: "x"}}, c.targets)
	require.Equal(t, modeRequire, c.mode)

	vars = maps.Clone(vars)
	vars["PGSSLCRL"] = "/x"
	_, err = Parse("", Options{Env: Environment{Vars: vars}})
	require.ErrorContains(t, err, `"sslcrl"`)

	c, err = Parse("host=h", Options{Env: Environment{OSUser: "os", Vars: map[string]string{
		"PGREQUIRESSL": "1", "PGDATABASE": "env",
	}}})
	require.NoError(t, err)
	require.Equal(t, modeRequire, c.mode)
	require.Equal(t, "os", c.User())
	require.Equal(t, "env", c.Database())

	_, err = Parse("host=h", Options{})
	_ = requireError(t, err, "no user")

	c, err = Parse("host=h", Options{Env: NewEnvironment(map[string]string{"HOME": "/h", "USER": "os", "PGPORT": "7"})})
	require.NoError(t, err)
	require.Equal(t, "os", c.User())
	require.Equal(t, "/h/.pgpass", c.passfile)
	require.Equal(t, "7", c.targets[0].port)
}

// TestProcessEnvironment has variables that pgx would read. In a backend there are none; nothing may depend on that.
func TestProcessEnvironment(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"root.crt", "postgresql.crt", "postgresql.key"} {
		writeFile(t, home+"/.postgresql/"+name, "no certificate")
	}
	writeFile(t, home+"/.pgpass", "*:*:*:*:env\n")
	t.Setenv("HOME", home)
	for _, k := range keys {
		if k.env != "" && k.name != "service" && k.values == nil {
			t.Setenv(k.env, "/nonexistent")
		}
	}
	t.Setenv("PGTZ", "nowhere")
	t.Setenv("PGTARGETSESSIONATTRS", "standby")
	c, err := Parse("host=h", Options{Env: Environment{OSUser: "u"}})
	require.NoError(t, err)
	requireOnlyOwnParams(t, c)
	require.Equal(t, "u", c.base.User)
	require.Equal(t, "u", c.base.Database)
	require.Empty(t, c.base.Password)
	require.Empty(t, c.base.RequireAuth)
	require.Equal(t, []target{{host: "h", port: "5432"}}, c.targets)
	require.NotContains(t, c.base.ConnString(), "nonexistent")
}
