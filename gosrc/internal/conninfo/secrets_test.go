package conninfo

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// marker is what must not show up anywhere. It looks like the name of an option, which errors repeat.
const marker = "sesame"

// secretTexts are malformed strings with the marker where a password is meant.
var secretTexts = []string{
	"password=sesame",
	"passwordsesame=x",
	"password='sesame",
	"password= sesame x",
	"password=a sesame host=h",
	"password=a sesame=b host=h",
	"password=a s3cr3tsesame=b",
	"password=sesame sslmode=x",
	"sslpassword=sesame sslkey=/dev/null sslcert=/dev/null",
	"sslpassword=x sesame=",
	"user=u password=it's sesame",
	"sesame",
	"sesame host=h",
	"postgres://u:sesame@h/d?x=y",
	"postgres://u:sesame@h:x/d",
	"postgres://u:sesame@h:99999/d",
	"postgres://u:sesame@[h/d",
	"postgres://u:sesame@[h]x/d",
	"postgres://u:sesame%zz@h/d",
	"postgres://u:sesame%00@h/d",
	"postgres://u:a@sesame@h/d",
	"postgres://u:a@sesame/d@h/d",
	"postgres://u:a/sesame@h/d",
	"postgres://u:sesame/a@h/d",
	"postgres://u:12/sesame@h/d",
	"postgres://u:12/a?sesame=x@h/d",
	"postgres://u:12/a?s3=sesame@h/d",
	"postgres://u:a?sesame=1@h/d?x=y",
	"postgres://u:a#sesame@h/d?x=y",
	"postgres://u sesame@h/d?x=y",
	"postgres://h/d?password=sesame&x=y",
	"postgres://h/d?password=a&sesame=y",
	"postgres://h/d?password=a=sesame",
	"postgres://h/d?password=sesame%",
	"postgress://u:sesame@h/d?x=y",
	"jdbc:postgresql://h/d?password=sesame",
	"oauth_client_secret=sesame",
	"scram_client_key=sesame",
	"scram_server_key=sesame",
	"password=sesame host=a,b port=1,2,3",
	"password=sesame hostaddr=x",
	"password=sesame require_auth=x",
	"password=sesame sslcrl=x",
	"password=sesame options='-c x' sslcompression=1 passfile=/ sslkeylogfile=x",
}

// shown returns everything that Parse lets out about a string.
func shown(text string) string {
	var out strings.Builder
	c, err := Parse(text, Options{
		Env:  Environment{OSUser: "u"},
		Warn: func(s string) { out.WriteString(s) },
	})
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return "error of unknown type: " + err.Error()
		}
		fmt.Fprintf(&out, "%v %+v %s %s %s %s", err, err, e.Message, e.Detail, e.Hint, e.Code)
		for cause := errors.Unwrap(e); cause != nil; cause = errors.Unwrap(cause) {
			fmt.Fprintf(&out, "%v %+v %#v", cause, cause, cause)
		}
		return out.String()
	}
	fmt.Fprintf(&out, "%v %+v %#v %s", c, c, c, c)
	fmt.Fprintf(&out, "%v %+v %#v %s", *c, *c, *c, *c)
	out.WriteString(c.base.ConnString())
	return out.String()
}

func TestNothingSecretIsShown(t *testing.T) {
	for _, text := range secretTexts {
		require.NotContains(t, shown(text), marker, text)
	}
	require.Contains(t, shown("host="+marker), marker, "the test cannot fail")
}

// meantAsSecret finds what a user who cannot quote writes before a password: the option, or a user part of a URI.
// Elsewhere the marker is the name of an unknown option, which may be shown.
var meantAsSecret = regexp.MustCompile(`^\s*password|` +
	`^[^'\\]*[^=\s'\\]\s+password\s*=[^=]*$|` +
	`^postgres(ql)?://[^/?@]*:[^?&]*$|` +
	`^postgres(ql)?://[^?]*\?password=`)

// FuzzParse puts a secret into a connection string that the fuzzer mangles around it.
func FuzzParse(f *testing.F) {
	for _, text := range secretTexts {
		before, after, _ := strings.Cut(text, marker)
		f.Add(before, after)
	}
	for _, text := range recoveryConninfo {
		before, after, _ := strings.Cut(text, "secret")
		f.Add(before, after)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, marker) || strings.Contains(before+after, "service") {
			t.Skip()
		}
		text := before + marker + after
		out := shown(text)
		// Where libpq's rules have it that the secret is a name, it is one.
		given, err := parseString(text)
		for name, value := range given {
			if err == nil && strings.Contains(value, marker) && !findKey(name).secret {
				return
			}
		}
		if strings.Contains(out, marker) && meantAsSecret.MatchString(before) {
			t.Fatalf("%q shows %q", text, out)
		}
	})
}
