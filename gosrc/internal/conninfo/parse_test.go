package conninfo

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseString(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                              {},
		" \t\n":                         {},
		"host=a port = 5 user= u":       {"host": "a", "port": "5", "user": "u"},
		"host=":                         {"host": ""},
		"host= ":                        {"host": ""},
		"host='' port=1":                {"host": "", "port": "1"},
		"host='a b' port=1":             {"host": "a b", "port": "1"},
		"host='a'port=1":                {"host": "a", "port": "1"},
		`password='it\'s \\x' port=1`:   {"password": `it's \x`, "port": "1"},
		`password=a\ b\'c port=1`:       {"password": "a b'c", "port": "1"},
		`password=a'b`:                  {"password": "a'b"},
		`password=a\`:                   {"password": "a"},
		`password=a=b`:                  {"password": "a=b"},
		"host=a host=b":                 {"host": "b"},
		"requiressl=1":                  {"sslmode": "require"},
		"requiressl=0":                  {"sslmode": "prefer"},
		"postgres://":                   {},
		"postgresql://h":                {"host": "h"},
		"postgres://h:1/d":              {"host": "h", "port": "1", "dbname": "d"},
		"postgres://u@":                 {"user": "u"},
		"postgres://:pw@h":              {"password": "pw", "host": "h"},
		"postgres://u:@h/":              {"user": "u", "host": "h"},
		"postgres://u%20x:p%40%2Fw@h/d": {"user": "u x", "password": "p@/w", "host": "h", "dbname": "d"},
		"postgres://u:p:w?x@h":          {"user": "u", "password": "p:w?x", "host": "h"},
		"postgres://a,b:1,c:2/":         {"host": "a,b,c", "port": ",1,2"},
		"postgres://[::1]:5/d":          {"host": "::1", "port": "5", "dbname": "d"},
		"postgres://[::1],[fe80::1%251]:5": {
			"host": "::1,fe80::1%1", "port": ",5",
		},
		"postgres://%2Ftmp%2Fx/d":               {"host": "/tmp/x", "dbname": "d"},
		"postgres:///d?host=/tmp&port=1":        {"host": "/tmp", "port": "1", "dbname": "d"},
		"postgres:///d?host=@x":                 {"host": "@x", "dbname": "d"},
		"postgres://h?ssl=true":                 {"host": "h", "sslmode": "require"},
		"postgres://h/d/e?user=u&":              {"host": "h", "dbname": "d/e", "user": "u"},
		"postgres://u@h/?application_name=a%26": {"user": "u", "host": "h", "application_name": "a&"},
		"postgres://h/?application_name=a b":    {"host": "h", "application_name": "a b"},
		"postgres://h/ d ":                      {"host": "h", "dbname": "d"},
	} {
		got, err := parseString(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestParseStringErrors(t *testing.T) {
	for text, want := range map[string]string{
		"host":                             `missing "=" after a name`,
		"host a=b":                         `missing "=" after a name`,
		"host=a b":                         `missing "=" after a name in the connection string: The name starts at byte 8.`,
		"=a":                               "invalid connection option",
		"hots=a":                           `invalid connection option "hots"`,
		"Host=a":                           "invalid connection option",
		"host='a":                          "unterminated quoted string",
		`host='a\`:                         "unterminated quoted string",
		`host='a\'`:                        "unterminated quoted string",
		"host=a\x00b":                      "zero byte",
		"postgres://h?x":                   `missing "=" in a query parameter`,
		"postgres://h?user=a=b":            `extra "=" in a query parameter`,
		"postgres://h?user=u&x=y":          `invalid connection option "x"`,
		"postgres://h?ssl=false":           `invalid connection option "ssl"`,
		"postgres://[::1":                  `missing "]"`,
		"postgres://[]":                    "may not be empty",
		"postgres://[::1]x":                "unexpected character",
		"postgres://h%":                    "invalid percent-encoded token",
		"postgres://h%2":                   "invalid percent-encoded token",
		"postgres://h%zz":                  "invalid percent-encoded token",
		"postgres://h/%00":                 "forbidden value %00",
		"postgres://u:p@ss@h/d":            "more than one way",
		"postgres://u:p/ss@h/d":            "more than one way",
		"postgres://u:p@h/d@e":             "more than one way",
		"postgres://u:p@h/d?user=a@b":      "more than one way",
		"postgres://u:p/x?port=1&user=a@h": "more than one way",
	} {
		_, err := parseString(text)
		e := requireError(t, err, text)
		require.Equal(t, codeSyntax, e.Code)
		require.Contains(t, e.Error(), want, text)
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string][]target{
		"":                            {{host: "/sock", port: "5432"}},
		"host='' port=''":             {{host: "/sock", port: "5432"}},
		"host=a,,b port=1":            {{host: "a", port: "1"}, {host: "/sock", port: "1"}, {host: "b", port: "1"}},
		"host=a,b port=1,":            {{host: "a", port: "1"}, {host: "b", port: "5432"}},
		"host=a,b port=' 1 ,2'":       {{host: "a", port: "1"}, {host: "b", port: "2"}},
		"hostaddr=::1":                {{host: "::1", addr: "::1", port: "5432"}},
		"host=a hostaddr=10.0.0.1":    {{host: "a", addr: "10.0.0.1", port: "5432"}},
		"host=a,b hostaddr=,10.0.0.1": {{host: "a", port: "5432"}, {host: "b", addr: "10.0.0.1", port: "5432"}},
		"host=/x hostaddr=10.0.0.1":   {{host: "/x", addr: "10.0.0.1", port: "5432"}},
		"host=@x port=7":              {{host: "@x", port: "7"}},
		"host=fe80::1%eth0":           {{host: "fe80::1%eth0", port: "5432"}},
		"host=b hostaddr=fe80::1%1":   {{host: "b", addr: "fe80::1%1", port: "5432"}},
	} {
		c, err := Parse("user=u "+text, Options{Env: Environment{SocketDir: "/sock"}})
		require.NoError(t, err, text)
		require.Equal(t, want, c.targets, text)
	}
	for text, want := range map[string]string{
		"host=a,b hostaddr=1.1.1.1":  "could not match 2 host names to 1 hostaddr values",
		"host=a port=1,2":            "could not match 2 port numbers to 1 hosts",
		"host=a,b,c port=1,2":        "could not match 2 port numbers to 3 hosts",
		"host=a port=0":              `"port"`,
		"host=a port=65536":          `"port"`,
		"host=a port=x":              `"port"`,
		"hostaddr=a":                 `"hostaddr"`,
		"hostaddr=/tmp":              `"hostaddr"`,
		"host='a b'":                 `"host"`,
		"host=a@b":                   `"host"`,
		"host=a/b":                   `"host"`,
		"host=/" + string(make120()): "is too long",
	} {
		_, err := Parse("user=u "+text, Options{})
		_ = requireError(t, err, text)
		require.ErrorContains(t, err, want, text)
	}
}

func make120() []byte {
	b := make([]byte, 120)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

func TestTimeoutsAndSockets(t *testing.T) {
	parse := func(text string, opts Options) *Config {
		c, err := Parse("host=h user=u "+text, opts)
		require.NoError(t, err, text)
		return c
	}
	require.Equal(t, defaultConnectTimeout, parse("", Options{}).timeout)
	require.Equal(t, defaultConnectTimeout, parse("connect_timeout=0", Options{ConnectTimeout: -1}).timeout)
	require.EqualValues(t, 5, parse("", Options{ConnectTimeout: 5}).timeout)
	require.EqualValues(t, 3e9, parse("connect_timeout=' 3 '", Options{ConnectTimeout: 5}).timeout)

	tcp := parse("", Options{}).tcp
	require.Equal(t, tcpOptions{keepalives: true, idle: -1e9, interval: -1e9, count: -1, userTimeout: -1e6}, tcp)
	tcp = parse("keepalives=0 keepalives_idle=1 keepalives_interval=2 keepalives_count=3 tcp_user_timeout=4", Options{}).tcp
	require.Equal(t, tcpOptions{idle: 1e9, interval: 2e9, count: 3, userTimeout: 4e6}, tcp)
}

func TestOptionNames(t *testing.T) {
	for options, want := range map[string][]string{
		"":                               nil,
		"-c a=1 -cb=2 --c-d=3 -c E=4":    {"a", "b", "c_d", "e"},
		`-c a=x\ -c\ z=1 -d 5`:           {"a"},
		"-c":                             nil,
		"a=1":                            nil,
		"  -c   statement_timeout=5min ": {"statement_timeout"},
	} {
		var got []string
		for name := range optionNames(options) {
			got = append(got, name)
		}
		require.ElementsMatch(t, want, got, options)
	}
}
