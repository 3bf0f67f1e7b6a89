package sequencesync

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README explains each reason, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	words := func(path, after, pattern string) (found []string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		_, table, there := strings.Cut(string(text), after)
		require.True(t, there)
		table, _, _ = strings.Cut(table, "\n\n")
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(table, -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	reasons := words("reasons.go", "reasonNone ", `(?m)^\treason\w+ +reason = "(\w+)"`)
	require.NotEmpty(t, reasons)
	require.Equal(t, reasons, words("../../../README.md", "| sequence's reason |", "(?m)^\\| `([a-z_]+)` \\|"))
}
