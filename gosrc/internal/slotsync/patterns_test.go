package slotsync

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

var patternTests = []struct {
	value    string
	major    int
	wanted   string // names
	failover string // names that are wanted with failover only
	unwanted string
}{
	{"", 15, "a", "", ""},
	{"", 16, "a", "", ""},
	{" ", 17, "", "a", ""},
	{"*", 17, "a b_1", "", ""},
	{"a*, b?", 15, "a abc b1", "", "b b12 c"},
	{"!tmp_*", 17, "a tmp", "", "tmp_ tmp_x"},
	{"!tmp_*,!a", 15, "b", "", "tmp_x a"},
	{"@failover", 17, "", "a", ""},
	{"@failover,b", 17, "b", "a", ""},
	{"@failover,!b", 17, "", "a", "b"},
	{"a*,!ab*", 17, "a ac", "", "ab abc b"},
	{"!ab*,a*", 17, "a ac", "", "ab abc b"},
	{"orders", 15, "orders", "", "orders2 order"},
}

func TestPatterns(t *testing.T) {
	for _, tt := range patternTests {
		t.Run(tt.value, func(t *testing.T) {
			p, err := ParsePatterns(tt.value, tt.major)
			require.NoError(t, err)
			for _, name := range strings.Fields(tt.wanted) {
				require.True(t, p.Wanted(name, false), name)
				require.True(t, p.Wanted(name, true), name)
			}
			for _, name := range strings.Fields(tt.failover) {
				require.False(t, p.Wanted(name, false), name)
				require.True(t, p.Wanted(name, true), name)
			}
			for _, name := range strings.Fields(tt.unwanted) {
				require.False(t, p.Wanted(name, false), name)
				require.False(t, p.Wanted(name, true), name)
			}
		})
	}
}

var (
	badPatterns = []string{
		"a,", ",", "!", "A", "a b", "a%", "a/b", "[a]", `a\`, "@fail", "!@failover", "a,!", "!!a",
		strings.Repeat("a", 64), "é", "*-",
	}
	goodPatterns = []string{strings.Repeat("a", 63), strings.Repeat("a*", 63), "@failover, !a?*, b"}
)

func TestPatternErrors(t *testing.T) {
	for _, value := range badPatterns {
		_, err := ParsePatterns(value, firstFailover)
		require.True(t, host.HasCode(err, "22023"), "%q: %v", value, err)
		require.NotEmpty(t, host.Describe(err).Hint)
	}
	for _, value := range goodPatterns {
		_, err := ParsePatterns(value, firstFailover)
		require.NoError(t, err)
	}
}

func FuzzPatterns(f *testing.F) {
	for _, value := range []string{"", "*", "a*,!b?", "@failover,!c", "!"} {
		f.Add(value, "abc", true)
	}
	f.Fuzz(func(t *testing.T, value, name string, failover bool) {
		if !plain(name) {
			t.Skip("no slot has such a name")
		}
		p, err := ParsePatterns(value, 17)
		if err != nil {
			require.True(t, host.HasCode(err, "22023"))
			return
		}
		if p.Wanted(name, false) && !p.Wanted(name, true) {
			t.Errorf("%q wants %q only without failover", value, name)
		}
		if p.Wanted(name, failover) {
			excluded, err := ParsePatterns(strings.TrimSpace(value)+",!*", 17)
			if err == nil && excluded.Wanted(name, failover) {
				t.Errorf("%q with everything excluded wants %q", value, name)
			}
		}
	})
}
