package conninfo

import "slices"

// action says what becomes of a key.
type action uint8

const (
	actUse    action = iota // read by this package
	actPass                 // handed to pgx under the same name
	actIgnore               // has no meaning here, whatever its value
	actWarn                 // left out, with a warning when it asks for something
	actRefuse               // an error when it asks for something
)

// key is one libpq connection option.
type key struct {
	name   string
	env    string // environment variable that supplies it
	def    string // libpq's compiled-in default
	action action
	secret bool
	values []string // what libpq accepts; nil: anything
	number bool     // libpq reads an integer
	idle   []string // for actWarn and actRefuse: values that ask for nothing; empty always does
	hint   string
}

const (
	hintNoGSS   = "GSSAPI is not supported here; use a password, SCRAM or a client certificate."
	hintNoOAuth = "OAuth is not supported here; use a password, SCRAM or a client certificate."
)

// keys holds every option of libpq 15 to 19 in the order of PQconninfoOptions (fe-connect.c). The comment of a row names
// the place in PostgreSQL or in pgx that its rule follows. An option that is not in here is refused, as libpq does.
var keys = []key{
	// fe-connect.c: parseServiceInfo. servicefile is an option from 19, an environment variable only before.
	{name: "service", env: "PGSERVICE", action: actUse},
	{name: "servicefile", env: "PGSERVICEFILE", action: actUse},
	// pqConnectOptions2: default is the operating system's user.
	{name: "user", env: "PGUSER", action: actUse},
	{name: "password", env: "PGPASSWORD", action: actUse, secret: true},
	// passwordFromFile; pgx neither checks the mode nor looks at a host other than the first.
	{name: "passfile", env: "PGPASSFILE", action: actUse},
	// pqConnectOptions2; pgx 5.12 enforces "require".
	{
		name: "channel_binding", env: "PGCHANNELBINDING", def: "prefer", action: actPass,
		values: []string{"disable", "prefer", "require"},
	},
	// connectDBComplete; there 0 and below mean no limit, here the caller's.
	{name: "connect_timeout", env: "PGCONNECT_TIMEOUT", action: actUse, number: true},
	// recovery_gen.c writes it from 17 only.
	{name: "dbname", env: "PGDATABASE", action: actUse},
	{name: "host", env: "PGHOST", action: actUse},
	// pqConnectOptions2: what is dialled, while host stays the name for TLS and the password file.
	{name: "hostaddr", env: "PGHOSTADDR", action: actUse},
	{name: "port", env: "PGPORT", def: "5432", action: actUse},
	// pgx needs UTF8; "auto" would not even get past the server.
	{name: "client_encoding", env: "PGCLIENTENCODING", action: actIgnore},
	// backend_startup.c: process_startup_options.
	{name: "options", env: "PGOPTIONS", action: actUse},
	// fe-protocol3.c: build_startup_packet: the fallback counts where the other is not given.
	{name: "application_name", env: "PGAPPNAME", action: actUse},
	{name: "fallback_application_name", action: actUse},
	// useKeepalives, setKeepalives*, setTCPUserTimeout: options of our socket. The server has run-time parameters of some
	// of these names, which are about its own.
	{name: "keepalives", action: actUse, number: true},
	{name: "keepalives_idle", action: actUse, number: true},
	{name: "keepalives_interval", action: actUse, number: true},
	{name: "keepalives_count", action: actUse, number: true},
	{name: "tcp_user_timeout", action: actUse, number: true},
	{
		name: "sslmode", env: "PGSSLMODE", def: modePrefer, action: actUse,
		values: []string{modeDisable, modeAllow, modePrefer, modeRequire, modeVerifyCA, modeVerifyFull},
	},
	// pqConnectOptions2 (17): "direct" needs sslmode=require or better.
	{
		name: "sslnegotiation", env: "PGSSLNEGOTIATION", def: "postgres", action: actPass,
		values: []string{"postgres", "direct"},
	},
	// No TLS library compresses any more.
	{
		name: "sslcompression", env: "PGSSLCOMPRESSION", def: "0", action: actWarn, idle: []string{"0"},
		hint: "TLS compression is not available.",
	},
	// fe-secure-openssl.c: initialize_SSL
	{name: "sslcert", env: "PGSSLCERT", action: actUse},
	{name: "sslkey", env: "PGSSLKEY", action: actUse},
	{
		name: "sslcertmode", env: "PGSSLCERTMODE", def: "allow", action: actPass,
		values: []string{"disable", "allow", "require"},
	},
	{name: "sslpassword", action: actUse, secret: true},
	{name: "sslrootcert", env: "PGSSLROOTCERT", action: actUse},
	// Skipping a revocation check that was asked for is not an option.
	{
		name: "sslcrl", env: "PGSSLCRL", action: actRefuse,
		hint: "Certificate revocation lists are not supported here.",
	},
	{
		name: "sslcrldir", env: "PGSSLCRLDIR", action: actRefuse,
		hint: "Certificate revocation lists are not supported here.",
	},
	{name: "sslsni", env: "PGSSLSNI", def: "1", action: actUse},
	// fe-connect.c: PQconnectPoll; it needs a look-up in the operating system's users, and says nothing about TCP.
	{name: "requirepeer", env: "PGREQUIREPEER", action: actUse},
	// pgconn/require_auth.go has libpq's meaning.
	{
		name: "require_auth", env: "PGREQUIREAUTH", action: actPass,
		hint: "It is a list of password, md5, gss, sspi, scram-sha-256, oauth and none, all or none of them with \"!\".",
	},
	// pqParseProtocolVersion (18)
	{
		name: "min_protocol_version", env: "PGMINPROTOCOLVERSION", action: actPass,
		values: []string{"3.0", "3.2", "latest"},
	},
	{
		name: "max_protocol_version", env: "PGMAXPROTOCOLVERSION", action: actPass,
		values: []string{"3.0", "3.2", "latest"},
	},
	// sslVerifyProtocolVersion. The server has run-time parameters of these names, which nobody can set in a session.
	{name: "ssl_min_protocol_version", env: "PGSSLMINPROTOCOLVERSION", def: "TLSv1.2", action: actUse},
	{name: "ssl_max_protocol_version", env: "PGSSLMAXPROTOCOLVERSION", action: actUse},
	{
		name: "gssencmode", env: "PGGSSENCMODE", def: "prefer", action: actRefuse,
		values: []string{"disable", "prefer", "require"}, idle: []string{"disable", "prefer"}, hint: hintNoGSS,
	},
	// These three only say how to authenticate with GSSAPI should the server ask for it, which then fails by itself.
	{name: "krbsrvname", env: "PGKRBSRVNAME", def: "postgres", action: actIgnore},
	{name: "gsslib", env: "PGGSSLIB", action: actIgnore},
	{name: "gssdelegation", env: "PGGSSDELEGATION", def: "0", action: actIgnore},
	// It would turn the session into a walsender.
	{name: "replication", action: actIgnore},
	{
		name: "target_session_attrs", env: "PGTARGETSESSIONATTRS", def: targetAny, action: actUse,
		values: []string{targetAny, targetReadWrite, targetReadOnly, targetPrimary, targetStandby, targetPreferStandby},
	},
	{
		name: "load_balance_hosts", env: "PGLOADBALANCEHOSTS", def: "disable", action: actUse,
		values: []string{"disable", "random"},
	},
	// fe-auth-scram.c; pgx computes the keys from the password.
	{
		name: "scram_client_key", action: actRefuse, secret: true,
		hint: "Give the password, best in a password file.",
	},
	{
		name: "scram_server_key", action: actRefuse, secret: true,
		hint: "Give the password, best in a password file.",
	},
	{name: "oauth_issuer", action: actRefuse, hint: hintNoOAuth},
	{name: "oauth_client_id", action: actRefuse, hint: hintNoOAuth},
	{name: "oauth_client_secret", action: actRefuse, secret: true, hint: hintNoOAuth},
	{name: "oauth_scope", action: actRefuse, hint: hintNoOAuth},
	{name: "oauth_ca_file", env: "PGOAUTHCAFILE", action: actRefuse, hint: hintNoOAuth},
	// It writes the session keys of the connection to a file.
	{name: "sslkeylogfile", action: actWarn, hint: "TLS keys are never logged."},
}

// findKey returns the row of an option, or nil where libpq has none of that name.
func findKey(name string) *key {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return &keys[i]
}
