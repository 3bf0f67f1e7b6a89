package conninfo

// libpqOptions holds the options that each version's libpq adds to those of the version before (fe-connect.c:
// PQconninfoOptions).
var libpqOptions = map[int][]string{
	15: {
		"service", "user", "password", "passfile", "channel_binding", "connect_timeout", "dbname", "host", "hostaddr",
		"port", "client_encoding", "options", "application_name", "fallback_application_name", "keepalives",
		"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslmode", "sslcompression",
		"sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "requirepeer",
		"ssl_min_protocol_version", "ssl_max_protocol_version", "gssencmode", "krbsrvname", "gsslib", "replication",
		"target_session_attrs",
	},
	16: {"sslcertmode", "require_auth", "gssdelegation", "load_balance_hosts"},
	17: {"sslnegotiation"},
	18: {
		"min_protocol_version", "max_protocol_version", "scram_client_key", "scram_server_key", "oauth_issuer",
		"oauth_client_id", "oauth_client_secret", "oauth_scope", "sslkeylogfile",
	},
	19: {"servicefile", "oauth_ca_file"},
}

// recoveryConninfo is what pg_basebackup -R of each version makes of "-h db1.example -p 5433 -U repl" and
// PGPASSWORD='it”s \secret', here as the server sees it: recovery_gen.c writes what PQconninfo returns, that is the
// defaults of the option table and those that pqConnectOptions2 fills in, and from 17 the database of "-d".
var recoveryConninfo = map[int]string{
	15: `user=repl password='it\'s \\secret' channel_binding=prefer host='db1.example' port=5433 sslmode=prefer ` +
		`sslcompression=0 sslsni=1 ssl_min_protocol_version=TLSv1.2 gssencmode=prefer krbsrvname=postgres ` +
		`target_session_attrs=any`,
	16: `user=repl password='it\'s \\secret' channel_binding=prefer host='db1.example' port=5433 sslmode=prefer ` +
		`sslcompression=0 sslcertmode=allow sslsni=1 ssl_min_protocol_version=TLSv1.2 gssencmode=prefer ` +
		`krbsrvname=postgres gssdelegation=0 target_session_attrs=any load_balance_hosts=disable`,
	17: `user=repl password='it\'s \\secret' channel_binding=prefer host='db1.example' port=5433 sslmode=prefer ` +
		`sslnegotiation=postgres sslcompression=0 sslcertmode=allow sslsni=1 ssl_min_protocol_version=TLSv1.2 ` +
		`gssencmode=prefer krbsrvname=postgres gssdelegation=0 target_session_attrs=any load_balance_hosts=disable ` +
		`dbname=app`,
	18: `user=repl password='it\'s \\secret' channel_binding=prefer host='db1.example' port=5433 sslmode=prefer ` +
		`sslnegotiation=postgres sslcompression=0 sslcertmode=allow sslsni=1 ssl_min_protocol_version=TLSv1.2 ` +
		`gssencmode=prefer krbsrvname=postgres gssdelegation=0 target_session_attrs=any load_balance_hosts=disable ` +
		`dbname=app`,
	19: `user=repl password='it\'s \\secret' channel_binding=prefer host='db1.example' port=5433 sslmode=prefer ` +
		`sslnegotiation=postgres sslcompression=0 sslcertmode=allow sslsni=1 ssl_min_protocol_version=TLSv1.2 ` +
		`gssencmode=prefer krbsrvname=postgres gssdelegation=0 target_session_attrs=any load_balance_hosts=disable ` +
		`dbname=app`,
}
