package wildcard

import (
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "public.a", true}, {"public.*", "public.a", true},
		{"public.?", "public.ab", false}, {"?", "ä", true}, {"??", "ä", false}, {"*ä?", "xäö", true}, {"a*b*c", "aXbXbXc", true},
		{"a*b*c", "aXcXb", false}, {`a\*`, `a\x`, true}, {"[a]", "a", false}, {"[a]", "[a]", true}, {"**a", "ba", true},
		{"public.a", "public.a", true}, {"public.a", "Public.a", false}, {"a?", "a", false}, {"a", "a?", false},
		{"*.order items", "sales.order items", true}, {"a*", "a/b.c", true}, {"\xff*", "\xffx", true},
	} {
		require.Equal(t, c.want, Match(c.pattern, c.name), "%q %q", c.pattern, c.name)
	}
	require.True(t, MatchAny([]string{"a", "b"}, "b"))
	require.False(t, MatchAny(nil, "b"))
	require.False(t, Match(strings.Repeat("*a", 30)+"b", strings.Repeat("a", 5000)), "in no exponential time")
}

// FuzzMatch compares with path.Match, where that has no other special characters.
func FuzzMatch(f *testing.F) {
	f.Add("a*b?", "aabc")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if strings.ContainsAny(pattern+name, `[]\/^-`) {
			t.Skip()
		}
		want, err := path.Match(pattern, name)
		require.NoError(t, err)
		require.Equal(t, want, Match(pattern, name))
	})
}
