package conninfo_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
)

// TestLiveAgainstPsql has psql, and with it the installed libpq, judge the same strings.
func TestLiveAgainstPsql(t *testing.T) {
	l := server(t)
	home := t.TempDir()
	good := l.file(t, "good.crt", l.ca.pem, 0o600)
	other := l.file(t, "other.crt", l.otherCA.pem, 0o600)
	certificate, key, err := l.ca.issue("cert")
	require.NoError(t, err)
	cert, safe := l.file(t, "cert.crt", certificate, 0o644), l.file(t, "safe.key", key, 0o600)
	open := l.file(t, "open.key", key, 0o644)
	passfile := fmt.Sprintf("db.test:%s:*:scram:%s\n", l.primary, strings.ReplaceAll(password, `\`, `\\`))
	safePass, openPass := l.file(t, "safe", passfile, 0o600), l.file(t, "open", passfile, 0o604)
	dead := closedPort(t)

	var texts []string
	add := func(text string) { texts = append(texts, text) }
	for _, mode := range []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"} {
		for _, root := range []string{"", " sslrootcert=" + good, " sslrootcert=" + other, " sslrootcert=/nonexistent"} {
			for _, host := range []string{"host=db.test hostaddr=127.0.0.1", "host=127.0.0.1", "hostaddr=127.0.0.1"} {
				add(host + " port=" + l.primary + " user=scram" + withPassword + " sslmode=" + mode + root)
			}
		}
		for _, user := range []string{"tlsonly", "notls", "clear", "trusted", "nosuch"} {
			add(l.at("user=" + user + " sslmode=" + mode))
			add(l.at("user=" + user + " sslmode=" + mode + " channel_binding=require"))
		}
		for _, keyFile := range []string{safe, open, other, "/nonexistent"} {
			add(l.at("user=cert sslmode=" + mode + " sslrootcert=" + good + " sslcert=" + cert + " sslkey=" + keyFile))
			add(l.at("user=scram sslmode=" + mode + " sslrootcert=" + good + " sslcert=" + cert + " sslkey=" + keyFile))
		}
	}
	for _, attrs := range []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"} {
		for _, ports := range []string{l.primary + "," + l.standby, l.standby + "," + l.primary, dead + "," + l.primary,
			l.standby + "," + dead, dead + "," + dead} {
			add("host=127.0.0.1,127.0.0.1 user=scram port=" + ports + withPassword + " target_session_attrs=" + attrs)
		}
	}
	add("host=db.test,127.0.0.1 hostaddr=127.0.0.1,127.0.0.1 port=" + dead + "," + l.primary + " user=scram" + withPassword)
	for _, file := range []string{safePass, openPass, "/nonexistent"} {
		add("host=db.test hostaddr=127.0.0.1 user=scram dbname=postgres port=" + l.primary + " passfile=" + file)
		add("host=127.0.0.1 user=scram dbname=postgres port=" + l.primary + " passfile=" + file)
	}
	add("host=" + l.dir + " user=scram port=" + l.primary + " sslmode=verify-full")
	add("host=@" + l.dir + " user=scram port=" + l.primary)
	add("host=" + l.dir + " user=scram port=" + dead)
	add("host=127.0.0.1,127.0.0.1 port=" + l.primary + " user=scram password=wrong")
	add(l.at("user=scram ssl_max_protocol_version=TLSv1.2 sslmode=require"))
	add(l.at("user=scram options='-c work_mem=64kB -c nosuch=1'"))
	add("postgres://trusted@127.0.0.1:" + l.primary + "/app?sslmode=require&options=-c%20geqo%3Doff")

	const sql = "select current_user || ' ' || current_database() || ' ' || pg_is_in_recovery() || ' ' || " +
		"(select coalesce(version, '-') from pg_stat_ssl where pid = pg_backend_pid())"
	for _, text := range texts {
		if !strings.Contains(text, "dbname=") && !strings.HasPrefix(text, "postgres:") {
			text += " dbname=postgres"
		}
		cmd := exec.Command(filepath.Join(l.bindir, "psql"), "-XAtw", "-d", text, "-c", sql)
		// The role's serializable, which a standby does not have, is not the point here.
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C",
			`PGOPTIONS=-c default_transaction_isolation=read\ committed`,
		}
		out, psqlErr := cmd.CombinedOutput()

		conn, err := connect(t, text, func(o *conninfo.Options) { o.Env.Home = home })
		if psqlErr != nil {
			require.Error(t, err, "%s\npsql: %s", text, out)
			continue
		}
		require.NoError(t, err, text)
		// psql prints warnings first.
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		require.Equal(t, lines[len(lines)-1], query(t, conn, sql), text)
		require.NoError(t, conn.Close(t.Context()))
	}
}
