package conninfo_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
)

func mustUsePassword(o *conninfo.Options) { o.MustUsePassword = true }

// A password must be in the string, and the server must have asked for it.
func TestLiveMustUsePassword(t *testing.T) {
	l := server(t)
	on := func(user, mode string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%s user=%s sslmode=%s", l.primary, user, mode)
	}
	for _, mode := range []string{"disable", "require"} {
		for _, user := range []string{"scram", "clear"} {
			mustConnect(t, on(user, mode)+withPassword, mustUsePassword)
		}
		e := mustFail(t, on("trusted", mode)+withPassword, mustUsePassword)
		require.Equal(t, "2F003", e.Code)
		require.Equal(t, "password is required", e.Message)
		require.Equal(t, "Non-superuser cannot connect if the server does not request a password.", e.Detail)
		require.Contains(t, e.Hint, "password_required=false")
		requireOneAttempt(t, e)
	}
	socket := fmt.Sprintf("host=%s port=%s user=scram", l.dir, l.primary) + withPassword
	mustConnect(t, socket)
	require.Equal(t, "2F003", mustFail(t, socket, mustUsePassword).Code)

	passfile := filepath.Join(t.TempDir(), "pass")
	require.NoError(t, os.WriteFile(passfile, []byte(passfileEntry()), 0o600))
	mustConnect(t, on("scram", "disable")+" passfile="+passfile)
	for _, text := range []string{on("scram", "disable"), on("scram", "disable") + " passfile=" + passfile} {
		e := mustFail(t, text, mustUsePassword)
		require.Equal(t, "2F003", e.Code)
		require.Equal(t, "Non-superusers must provide a password in the connection string.", e.Detail)
	}
}

func passfileEntry() string {
	return "*:*:*:*:" + strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(password)
}

// Nothing of the server's account is used for someone who is no superuser.
func TestLiveRestricted(t *testing.T) {
	l := server(t)
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".pgpass"), []byte(passfileEntry()), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".pg_service.conf"), []byte("[s]\npassword="+password), 0o600))
	text := fmt.Sprintf("host=127.0.0.1 port=%s user=scram sslmode=disable", l.primary)
	env := func(vars map[string]string) func(*conninfo.Options) {
		return func(o *conninfo.Options) {
			o.Env = conninfo.Environment{Home: home, SysConfDir: home, OSUser: "scram", Vars: vars}
		}
	}
	restricted := func(o *conninfo.Options) { o.Restricted = true }
	for name, vars := range map[string]map[string]string{
		".pgpass": nil, "PGPASSWORD": {"PGPASSWORD": password}, "PGSERVICE": {"PGSERVICE": "s"},
	} {
		mustConnect(t, text, env(vars))
		require.Equal(t, "28P01", mustFail(t, text, env(vars), restricted).Code, name)
	}
	for _, option := range []string{"service=s", "passfile=" + home + "/.pgpass"} {
		e := mustFail(t, text+" "+option, env(nil), restricted)
		require.Equal(t, "42501", e.Code, option)
		require.Contains(t, e.Message, "is reserved for superusers")
	}
	mustConnect(t, fmt.Sprintf("host=127.0.0.1 port=%s sslmode=disable", l.primary)+withPassword, env(nil), restricted)
}
