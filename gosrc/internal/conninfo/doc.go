// Package conninfo connects to another PostgreSQL server with a libpq connection string, without libpq.
//
// pgx cannot take such a string as it stands: it sends every key that it does not know to the server as a run-time
// parameter, and the strings that pg_basebackup -R writes into primary_conninfo hold several of those (sslcompression,
// ssl_min_protocol_version, gssencmode, ...). This package reads the string by libpq's rules, decides about each key by
// one table (see keys.go), and hands pgx only what is left. A key that cannot be honoured is refused; none is ever sent
// to the server by accident.
//
// A PostgreSQL backend shows Go an empty environment and must not be asked for the operating system's users, so home
// directory, user name and environment variables come from [Environment].
//
// No error, warning or string form of a value in this package holds a password or a part of a connection string that
// could be a piece of one. Where libpq quotes the offending text, this package names the position.
package conninfo
