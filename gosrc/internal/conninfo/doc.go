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
//
// # Differences from libpq
//
//   - There is always a time limit on an attempt; connect_timeout can change it and not lift it.
//   - The password file is also searched for database "replication", after the real one: a walreceiver looks for nothing
//     else, so that a standby's file often has nothing else.
//   - GSSAPI, OAuth, certificate revocation lists, OpenSSL engines, requirepeer and private keys in encrypted PKCS#8 form
//     are refused where they would matter.
//   - A URI in which "@" or "/" can be part of a password that was not encoded is refused, because libpq would show a
//     piece of the password as a host or database name. So is a host name with characters that no host name has.
//   - A connection that breaks while it is being made sends us to the next server; libpq gives up unless it could not be
//     opened at all. A password, database or privilege that is refused with TLS is not tried again without.
//   - PGDATABASE comes after the caller's default database.
//   - Names are resolved by Go: with the tag netgo from /etc/hosts and DNS only. "hostaddr" avoids it.
package conninfo
