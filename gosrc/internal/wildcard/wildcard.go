// Package wildcard matches names with patterns in which "*" stands for any characters and "?" for one.
package wildcard

import "unicode/utf8"

// MatchAny tells whether one of the patterns matches the whole name.
func MatchAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if Match(pattern, name) {
			return true
		}
	}
	return false
}

// Match tells whether a pattern matches the whole name. No other character is special, and no pattern is invalid.
func Match(pattern, name string) bool {
	// On a mismatch the last star takes one character more; an earlier one never needs to.
	star, rest := -1, ""
	p := 0
	for name != "" {
		_, size := utf8.DecodeRuneInString(name)
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, rest = p, name
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			name = name[size:]
		case p+size <= len(pattern) && pattern[p:p+size] == name[:size]:
			p += size
			name = name[size:]
		case star >= 0:
			_, size = utf8.DecodeRuneInString(rest)
			rest = rest[size:]
			p, name = star+1, rest
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
