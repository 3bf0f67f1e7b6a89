package slotsync

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README explains each reason, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	words := func(path, pattern string) (found []string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	reasons := words("messages.go", `(?m)^\treason\w+ +reason = "(\w+)"`)
	require.Equal(t, reasons, words("../../../README.md", "(?m)^\\| `([a-z_]+)` \\|"))
	for _, r := range reasons {
		require.Equal(t, r == string(reasonError), reason(r).hint("a") == "", r)
	}
}
