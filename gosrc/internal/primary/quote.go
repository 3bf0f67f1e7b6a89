package primary

import "strings"

// QuoteIdentifier quotes a name for SQL, always: which ones are keywords depends on the version.
func QuoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
