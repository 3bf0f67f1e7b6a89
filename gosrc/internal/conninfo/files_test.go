package conninfo

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

func TestServiceFile(t *testing.T) {
	dir := t.TempDir()
	home := Environment{Home: dir + "/home", OSUser: "u", SysConfDir: dir + "/etc"}
	writeFile(t, dir+"/home/.pg_service.conf", "# comment\n\n [other]\nhost=x\n[main] \n host=a\nport=1\nhost=b\n[main]\nhost=c\n")
	writeFile(t, dir+"/etc/pg_service.conf", "[site]\nhost=s\ndbname=from_site\npassword=pw\n")
	explicit := writeFile(t, dir+"/explicit", "[main]\nhost=e\r\nsslrootcert=system\n")

	with := func(vars map[string]string) Environment {
		e := home
		e.Vars = vars
		return e
	}
	for _, test := range []struct {
		text     string
		env      Environment
		host     string
		database string
	}{
		{"service=main", home, "a", "def"},
		{"service=main host=given", home, "given", "def"},
		{"service=site", home, "s", "from_site"},
		{"service=main servicefile=" + explicit, home, "e", "def"},
		{"", with(map[string]string{"PGSERVICE": "site", "PGHOST": "env"}), "s", "from_site"},
		{"service=main", with(map[string]string{"PGSERVICEFILE": explicit}), "e", "def"},
		{"service=site", with(map[string]string{"PGSYSCONFDIR": dir + "/etc"}), "s", "from_site"},
	} {
		c, err := Parse(test.text, Options{DefaultDatabase: "def", Env: test.env})
		require.NoError(t, err, test.text)
		require.Equal(t, test.host, c.targets[0].host, test.text)
		require.Equal(t, test.database, c.Database(), test.text)
		if test.host == "e" {
			require.Equal(t, modeVerifyFull, c.mode)
		}
	}

	for content, want := range map[string]string{
		"[x]\nhost=a\n":                          `definition of service "s" not found`,
		"[s]\nsecret\n":                          "syntax error in service file",
		"[s]\nsecret=1\n":                        "line 2",
		"[s]\nhost =secret\n":                    "syntax error",
		"[s]\nservice=secret\n":                  `nested "service"`,
		"[s]\nservicefile=secret\n":              `nested "servicefile"`,
		"[s]\nldap://secret\n":                   "LDAP",
		"[s]\n" + strings.Repeat("#secret", 200): "line 2 too long",
	} {
		_, err := Parse("service=s servicefile="+writeFile(t, dir+"/bad", content), Options{Env: Environment{OSUser: "u"}})
		e := requireError(t, err, content)
		require.Contains(t, e.Message, want)
		require.NotContains(t, e.Message, "secret")
	}
	_, err := Parse("service=s servicefile=/nonexistent", Options{})
	require.ErrorContains(t, err, `service file "/nonexistent" not found`)
	_, err = Parse("service=s", Options{})
	require.ErrorContains(t, err, `definition of service "s" not found`)
}

func TestPassfile(t *testing.T) {
	name := writeFile(t, t.TempDir()+"/pass", strings.Join([]string{
		"#h:1:d:u:comment",
		"h:1:d",
		`h\:x:1:d:u:colon`,
		`h\\:1:d:u:backslash`,
		`h:1:d:u:a\:b\\c:ignored`,
		"h:1:replication:r:repl\r",
		"*:*:app:r:app",
		"*:*:*:star:any",
		"h:2:d:u:last",
	}, "\n"))
	p := readPassfile(name, func(s string) { t.Error(s) })
	for _, test := range [][5]string{
		{"h", "1", "d", "u", `a:b\c`},
		{"h:x", "1", "d", "u", "colon"},
		{`h\`, "1", "d", "u", "backslash"},
		{"h", "1", "d", "r", "repl"},
		{"h", "1", "app", "r", "app"},
		{"x", "9", "app", "r", "app"},
		{"x", "9", "x", "star", "any"},
		{"h", "2", "d", "u", "last"},
		{"h", "3", "d", "u", ""},
		{"hh", "1", "d", "u", ""},
	} {
		password, found := p.find(test[0], test[1], test[2], test[3])
		require.Equal(t, test[4], password, test)
		require.Equal(t, test[4] != "", found, test)
	}
	_, found := (*passfile)(nil).find("h", "1", "d", "u")
	require.False(t, found)
}

func TestPassfilePerHost(t *testing.T) {
	home := t.TempDir()
	writeFile(t, home+"/.pgpass", "localhost:5432:d:u:sock\na:5432:d:u:pa\nb:7:d:u:pb\n10.0.0.1:5432:d:u:addr\n/other:5432:d:u:dir\n")
	env := Environment{Home: home, SocketDir: "/sock"}
	for text, want := range map[string][]string{
		"host=a,b,c port=5432,7,7":             {"pa", "pb", ""},
		"host=''":                              {"sock"},
		"host=/sock":                           {"sock"},
		"host=/other":                          {"dir"},
		"hostaddr=10.0.0.1":                    {"addr"},
		"host=a hostaddr=10.0.0.1":             {"pa"},
		"host=a password=given":                {"given"},
		"host=a password=''":                   {"pa"},
		"host=a passfile=/nonexistent":         {""},
		"host=a passfile=''":                   {"pa"},
		"host=a passfile=" + home + "/.pgpass": {"pa"},
	} {
		c, err := Parse("user=u dbname=d "+text, Options{Env: env})
		require.NoError(t, err, text)
		var got []string
		for _, target := range c.targets {
			got = append(got, target.password)
		}
		require.Equal(t, want, got, text)
	}
}

func TestPassfileNotPlain(t *testing.T) {
	fifo := t.TempDir() + "/fifo"
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	for _, name := range []string{fifo, t.TempDir()} {
		var warnings []string
		require.Nil(t, readPassfile(name, func(s string) { warnings = append(warnings, s) }))
		require.Equal(t, []string{`password file "` + name + `" is not a plain file`}, warnings)
	}
}

func TestKeyMode(t *testing.T) {
	name := writeFile(t, t.TempDir()+"/key", "x")
	for mode, want := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o644: false, 0o620: false, 0o610: false, 0o601: false} {
		require.NoError(t, os.Chmod(name, mode))
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, want, keyModeSafe(info), mode)
	}
	require.NoError(t, os.Chmod(name, 0o640))
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.Geteuid() == 0, keyModeSafe(info))
}
