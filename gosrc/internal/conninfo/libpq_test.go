//go:build libpq

package conninfo

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/replsync/replsync/gosrc/internal/conninfo/internal/libpq"
)

var unknownOption = regexp.MustCompile(`(?s)^invalid (?:connection option|URI query parameter:) "(.*)"`)

// FuzzAgainstLibpq compares with the libpq that the test is linked to. It needs -tags libpq.
func FuzzAgainstLibpq(f *testing.F) {
	for _, text := range secretTexts {
		f.Add(text)
	}
	for _, text := range recoveryConninfo {
		f.Add(text)
	}
	for _, text := range []string{
		"host=a port = 5 user= u", `password='it\'s \\x' port=1`, `password=a\`, "host=a'b", "requiressl=1", "host= ",
		"postgres://u%20x:p%40%2Fw@h/d", "postgres://a,b:1,c:2/", "postgresql://[::1]:5/d?ssl=true", "postgres://u:@h/?",
		"postgres:///d?host=/tmp&port=1", "postgres://[::1],[fe80::1%251]:5", "host=a\vport=1", "postgres://h/%00",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.IndexByte(text, 0) >= 0 {
			t.Skip("libpq would not see all of it")
		}
		if _, uri := cutURIPrefix(text); uri && strings.Contains(text, " ") {
			t.Skip("versions of libpq differ")
		}
		want, wantErr := libpq.Parse(text)
		got, err := parseString(text)
		if wantErr != nil {
			name := unknownOption.FindStringSubmatch(wantErr.Error())
			newer := name != nil && findKey(name[1]) != nil && !slices.Contains(libpqOptions[15], name[1])
			if err == nil && !newer {
				t.Fatalf("%q: libpq says %v", text, wantErr)
			}
			return
		}
		var e *Error
		if errors.As(err, &e) && strings.HasPrefix(e.Message, "more than one way") {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for name, value := range want {
			if v, ok := got[name]; !ok || v != value {
				t.Fatalf("%q: %s is %q and should be %q", text, name, v, value)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %q should be %q", text, got, want)
		}
	})
}
