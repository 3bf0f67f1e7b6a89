package slotsync

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
	words := func(text, pattern string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	reasons := words(read("messages.go"), `(?m)^\treason\w+ +reason = "(\w+)"`)
	_, table, found := strings.Cut(read("../../../README.md"), "| reason |")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	require.Equal(t, reasons, words(table, "(?m)^\\| `([a-z_]+)` \\|"))
	for _, r := range reasons {
		require.Equal(t, r == string(reasonError), reason(r).hint("a") == "", r)
	}
}
