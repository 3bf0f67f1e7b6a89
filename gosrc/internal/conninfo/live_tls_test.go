package conninfo_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
)

const encryptedSQL = "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()"

func TestLiveSSLModes(t *testing.T) {
	l := server(t)
	good := l.file(t, "good.crt", l.ca.pem, 0o600)
	other := l.file(t, "other.crt", l.otherCA.pem, 0o600)
	name := "host=db.test hostaddr=127.0.0.1 user=scram port=" + l.primary + withPassword
	wrongName := "host=other.test hostaddr=127.0.0.1 user=scram port=" + l.primary + withPassword
	noName := "hostaddr=127.0.0.1 user=scram port=" + l.primary + withPassword

	const unknown = "certificate signed by unknown authority"
	for _, test := range []struct {
		mode, text, root, want string
	}{
		{"disable", name, good, "false"},
		{"disable", name, other, "false"},
		{"allow", name, good, "false"},
		{"allow", name, other, "false"},
		{"prefer", name, "", "true"},
		{"prefer", name, good, "true"},
		{"prefer", wrongName, good, "true"},
		// libpq checks against a root file in every mode, and "prefer" then goes on in the clear.
		{"prefer", name, other, "false"},
		{"require", name, "", "true"},
		{"require", name, "/nonexistent", "true"},
		{"require", wrongName, good, "true"},
		{"require", name, other, unknown},
		{"verify-ca", name, good, "true"},
		{"verify-ca", wrongName, good, "true"},
		{"verify-ca", noName, good, "true"},
		{"verify-ca", name, other, unknown},
		{"verify-ca", name, "/nonexistent", "does not exist"},
		{"verify-ca", name, "", "could not get home directory"},
		{"verify-full", name, good, "true"},
		{"verify-full", wrongName, good, `server certificate for "db.test" does not match host name "other.test"`},
		{"verify-full", noName, good, `does not match host name "127.0.0.1"`},
		{"verify-full", name, other, unknown},
	} {
		text := test.text + " sslmode=" + test.mode
		if test.root != "" {
			text += " sslrootcert=" + test.root
		}
		if test.want == "true" || test.want == "false" {
			require.Equal(t, test.want, query(t, mustConnect(t, text), encryptedSQL), text)
		} else {
			require.Contains(t, mustFail(t, text).Error(), test.want, text)
		}
	}

	// The other order: pg_hba.conf decides.
	require.Equal(t, "true", query(t, mustConnect(t, l.at("user=tlsonly sslmode=allow")), encryptedSQL))
	require.Equal(t, "false", query(t, mustConnect(t, l.at("user=notls sslmode=prefer")), encryptedSQL))
	e := mustFail(t, l.at("user=tlsonly sslmode=disable"))
	require.Equal(t, "28000", e.Code)
}

func TestLiveDefaultFiles(t *testing.T) {
	l := server(t)
	home := t.TempDir()
	dir := filepath.Join(home, ".postgresql")
	require.NoError(t, os.Mkdir(dir, 0o700))
	inHome := func(o *conninfo.Options) { o.Env.Home = home }
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	text := l.at("user=scram sslmode=verify-full")

	require.Contains(t, mustFail(t, text, inHome).Message, dir+`/root.crt" does not exist`)
	write("root.crt", l.otherCA.pem)
	require.Contains(t, mustFail(t, text, inHome).Message, "unknown authority")
	write("root.crt", l.ca.pem)
	mustConnect(t, text, inHome)
	write("root.crl", "")
	require.Equal(t, "0A000", mustFail(t, text, inHome).Code)
	require.NoError(t, os.Remove(filepath.Join(dir, "root.crl")))

	certificate, key, err := l.ca.issue("cert")
	require.NoError(t, err)
	write("postgresql.crt", certificate)
	require.Contains(t, mustFail(t, text, inHome).Message, "certificate present, but not private key file")
	write("postgresql.key", key)
	mustConnect(t, l.at("user=cert sslmode=verify-full"), inHome)

	// In the modes that need no TLS trouble with the files is no more than a warning.
	require.NoError(t, os.Chmod(filepath.Join(dir, "postgresql.key"), 0o644))
	require.Contains(t, mustFail(t, text, inHome).Message, "group or world access")
	var warnings []string
	conn := mustConnect(t, l.at("user=scram sslmode=prefer"), inHome,
		func(o *conninfo.Options) { o.Warn = func(s string) { warnings = append(warnings, s) } })
	require.Equal(t, "false", query(t, conn, encryptedSQL))
	require.Len(t, warnings, 1)
}

func TestLiveClientCertificate(t *testing.T) {
	l := server(t)
	certificate, key, err := l.ca.issue("cert")
	require.NoError(t, err)
	cert := l.file(t, "cert.crt", certificate, 0o644)
	text := "host=db.test hostaddr=127.0.0.1 user=cert sslmode=require port=" + l.primary + " sslcert=" + cert + " sslkey="

	mustConnect(t, text+l.file(t, "cert.key", key, 0o600))
	mustConnect(t, text+l.file(t, "cert.key", key, 0o600)+" sslcertmode=require")
	e := mustFail(t, text+l.file(t, "cert.key", key, 0o600)+" sslcertmode=disable")
	require.Equal(t, "28000", e.Code)
	require.Contains(t, mustFail(t, text+l.file(t, "cert.key", key, 0o604)).Message, "group or world access")

	// With "disable" the files are not even read.
	mustConnect(t, l.at("user=scram sslmode=require sslcertmode=disable sslcert="+cert+" sslkey="+
		l.file(t, "cert.key", key, 0o604)))

	block, _ := pem.Decode([]byte(key))
	mustConnect(t, text+l.file(t, "der.key", string(block.Bytes), 0o600))
	_, wrongKey, err := l.ca.issue("cert")
	require.NoError(t, err)
	require.Contains(t, mustFail(t, text+l.file(t, "wrong.key", wrongKey, 0o600)).Message, "does not match")

	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	sealed := sealKey(t, private, "key secret")
	sealedKey := l.file(t, "sealed.key", sealed, 0o600)
	mustConnect(t, text+sealedKey+" sslpassword='key secret'")
	require.Contains(t, mustFail(t, text+sealedKey).Hint, "Give its pass phrase")
	require.Contains(t, mustFail(t, text+sealedKey+" sslpassword='other secret'").Hint, "does not fit")

	otherCert, otherKey, err := l.otherCA.issue("cert")
	require.NoError(t, err)
	e = mustFail(t, "host=127.0.0.1 user=cert sslmode=require port="+l.primary+
		" sslcert="+l.file(t, "other.crt", otherCert, 0o644)+" sslkey="+l.file(t, "other.key", otherKey, 0o600))
	// The server's alert may be lost to its closing of the connection, so the reason is not certain.
	require.Equal(t, "08001", e.Code)
}

func TestLiveChannelBinding(t *testing.T) {
	l := server(t)
	for _, version := range []string{"TLSv1.2", "TLSv1.3"} {
		conn := mustConnect(t, l.at("user=scram channel_binding=require sslmode=require ssl_min_protocol_version="+version+
			" ssl_max_protocol_version="+version))
		require.Equal(t, version, query(t, conn, "select version from pg_stat_ssl where pid = pg_backend_pid()"))
	}
	for _, text := range []string{
		"user=scram channel_binding=require sslmode=disable",
		"user=clear channel_binding=require sslmode=require",
		"user=trusted channel_binding=require sslmode=require",
	} {
		e := mustFail(t, l.at(text))
		require.Equal(t, "08001", e.Code, text)
		require.Contains(t, e.Message, "channel binding required", text)
	}
}

func TestLiveRequireAuth(t *testing.T) {
	l := server(t)
	mustConnect(t, l.at("user=scram require_auth=scram-sha-256"))
	mustConnect(t, l.at("user=clear require_auth=!scram-sha-256"))
	for _, text := range []string{
		"user=clear require_auth=scram-sha-256", "user=trusted require_auth=!none", "user=scram require_auth=password,md5",
	} {
		e := mustFail(t, l.at(text))
		require.Equal(t, "08001", e.Code, text)
		// Our refusal is final: there is no second attempt without TLS.
		requireOneAttempt(t, e)
	}
}

func TestLiveDirectNegotiation(t *testing.T) {
	l := server(t)
	conn := mustConnect(t, l.at("user=scram"))
	if version := serverVersion(t, conn); version >= 170000 {
		mustConnect(t, l.at("user=scram sslmode=require sslnegotiation=direct"))
		return
	}
	e := mustFail(t, l.at("user=scram sslmode=require sslnegotiation=direct"))
	require.Equal(t, "08001", e.Code)
}

func serverVersion(t *testing.T, conn *pgx.Conn) (version int) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "select current_setting('server_version_num')::int").Scan(&version))
	return version
}
