package conninfo

import (
	"regexp"
	"slices"
	"strings"
)

// parser collects the options of one connection string.
type parser struct {
	values map[string]string

	// doubtful is set once what follows may belong to a password that was not quoted or encoded as it had to be. The text
	// of the string is then no longer repeated in errors.
	doubtful bool
}

// parseString reads a connection string in either form, as fe-connect.c: parse_connection_string does. The result holds
// what the string says and nothing else.
func parseString(s string) (map[string]string, error) {
	// libpq gets its strings from C and cannot meet one; in the start-up packet it would end a value.
	if strings.IndexByte(s, 0) >= 0 {
		return nil, newError(codeSyntax, "zero byte in connection string")
	}
	p := &parser{values: make(map[string]string)}
	var err error
	if rest, ok := cutURIPrefix(s); ok {
		err = p.parseURI(s, len(s)-len(rest))
	} else {
		err = p.parseKeywords(s)
	}
	if err != nil {
		return nil, err
	}
	return p.values, nil
}

// parseKeywords follows fe-connect.c: conninfo_parse.
func (p *parser) parseKeywords(s string) error {
	i := skipSpace(s, 0)
	for i < len(s) {
		start := i
		for i < len(s) && s[i] != '=' && !isSpace(s[i]) {
			i++
		}
		name := s[start:i]
		i = skipSpace(s, i)
		if i == len(s) || s[i] != '=' {
			return newError(codeSyntax, "missing \"=\" after a name in the connection string").
				withDetail("The name starts at byte %d.", start+1).
				withHint("A value with spaces needs single quotes.")
		}
		value, next, err := keywordValue(s, skipSpace(s, i+1))
		if err != nil {
			return err
		}
		if err := p.store(name, value, start); err != nil {
			return err
		}
		i = skipSpace(s, next)
	}
	return nil
}

// keywordValue reads the value that starts at byte i and returns the position behind it.
func keywordValue(s string, i int) (value string, next int, err error) {
	start := i
	quoted := i < len(s) && s[i] == '\''
	if quoted {
		i++
	}
	var b strings.Builder
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			// A backslash at the very end stands for nothing.
			i++
			if i < len(s) {
				b.WriteByte(s[i])
			}
		case quoted && c == '\'':
			return b.String(), i + 1, nil
		case !quoted && isSpace(c):
			return b.String(), i, nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", 0, newError(codeSyntax, "unterminated quoted string in the connection string").
			withDetail("The quote is at byte %d.", start+1)
	}
	return b.String(), len(s), nil
}

// store follows fe-connect.c: conninfo_storeval. Of an option that is given twice the last value counts.
func (p *parser) store(name, value string, pos int) error {
	// The name before 9.3.
	if name == "requiressl" {
		name = "sslmode"
		if strings.HasPrefix(value, "1") {
			value = modeRequire
		} else {
			value = modePrefer
		}
	}
	k := findKey(name)
	if k == nil {
		return p.errUnknown(name, pos)
	}
	if k.secret {
		p.doubtful = true
	}
	p.values[name] = value
	return nil
}

// plainName is what an option's name looks like. Anything else is not repeated: "postgress://user:secret@host/?x=1" reads
// as a name too.
var plainName = regexp.MustCompile(`^[a-z][a-z_]{0,40}$`)

func (p *parser) errUnknown(name string, pos int) *Error {
	// "passwordsecret=" misses its first "=".
	doubtful := p.doubtful || slices.ContainsFunc(keys, func(k key) bool { return k.secret && strings.HasPrefix(name, k.name) })
	if doubtful || !plainName.MatchString(name) {
		return newError(codeSyntax, "invalid connection option").
			withDetail("Its name starts at byte %d of the connection string.", pos+1)
	}
	return newError(codeSyntax, "invalid connection option \"%s\"", name)
}

// isSpace is isspace() of the C locale.
func isSpace(c byte) bool {
	return c == ' ' || c >= '\t' && c <= '\r'
}

func skipSpace(s string, i int) int {
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return i
}
