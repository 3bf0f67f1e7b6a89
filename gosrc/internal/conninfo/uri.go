package conninfo

import (
	"encoding/hex"
	"strings"
)

func cutURIPrefix(s string) (rest string, ok bool) {
	for _, prefix := range []string{"postgresql://", "postgres://"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			return rest, true
		}
	}
	return s, false
}

// parseURI follows fe-connect.c: conninfo_uri_parse_options. i is the position behind the prefix.
func (p *parser) parseURI(s string, i int) error {
	if err := checkAt(s[i:]); err != nil {
		return err
	}
	if end := strings.IndexAny(s[i:], "@/"); end >= 0 && s[i+end] == '@' {
		user, password, _ := strings.Cut(s[i:i+end], ":")
		if err := p.storeEncoded("user", user, i); err != nil {
			return err
		}
		if err := p.storeEncoded("password", password, i+len(user)+1); err != nil {
			return err
		}
		// checkAt has seen to it that the password ends here.
		p.doubtful = false
		i += end + 1
	}

	i, err := p.parseHosts(s, i)
	if err != nil {
		return err
	}
	if i < len(s) && s[i] == '/' {
		i++
		end := i + indexAny(s[i:], "?")
		if err := p.storeEncoded("dbname", s[i:end], i); err != nil {
			return err
		}
		i = end
	}
	if i < len(s) {
		return p.parseParams(s, i+1)
	}
	return nil
}

// checkAt refuses a URI in which "@" appears again behind the user part, or behind the first "/" with a ":" before it.
// Both are what a password looks like that holds "@" or "/" and was not encoded: libpq would take pieces of it for host
// or database names and show them.
func checkAt(s string) error {
	end := indexAny(s, "@/")
	user, rest := s[:end], strings.TrimPrefix(s[end:], "@")
	if strings.Contains(user, ":") && strings.Contains(rest, "@") {
		return newError(codeSyntax, "more than one way to read the connection URI").
			withHint("In a user name or a password write \"@\" as %%40, \"/\" as %%2F and \"%%\" as %%25.")
	}
	return nil
}

// parseHosts reads host[:port][,...] and returns the position of what ends the list.
func (p *parser) parseHosts(s string, i int) (int, error) {
	var hosts, ports strings.Builder
	start := i
	for {
		if i < len(s) && s[i] == '[' {
			end := strings.IndexByte(s[i:], ']')
			if end < 0 {
				return 0, newError(codeSyntax, "missing \"]\" after IPv6 host address in the connection URI")
			}
			if end == 1 {
				return 0, newError(codeSyntax, "IPv6 host address may not be empty in the connection URI")
			}
			hosts.WriteString(s[i+1 : i+end])
			i += end + 1
			if i < len(s) && !strings.ContainsRune(":/?,", rune(s[i])) {
				return 0, newError(codeSyntax, "unexpected character after IPv6 host address in the connection URI").
					withDetail("It is at byte %d.", i+1)
			}
		} else {
			end := i + indexAny(s[i:], ":/?,")
			hosts.WriteString(s[i:end])
			i = end
		}
		if i < len(s) && s[i] == ':' {
			i++
			end := i + indexAny(s[i:], "/?,")
			ports.WriteString(s[i:end])
			i = end
		}
		if i == len(s) || s[i] != ',' {
			break
		}
		i++
		hosts.WriteByte(',')
		ports.WriteByte(',')
	}
	if err := p.storeEncoded("host", hosts.String(), start); err != nil {
		return 0, err
	}
	return i, p.storeEncoded("port", ports.String(), start)
}

// parseParams follows fe-connect.c: conninfo_uri_parse_params.
func (p *parser) parseParams(s string, i int) error {
	for i < len(s) {
		start := i
		end := i + indexAny(s[i:], "&")
		name, value, found := strings.Cut(s[start:end], "=")
		if !found {
			return newError(codeSyntax, "missing \"=\" in a query parameter of the connection URI").
				withDetail("The parameter starts at byte %d.", start+1)
		}
		if strings.Contains(value, "=") {
			return newError(codeSyntax, "extra \"=\" in a query parameter of the connection URI").
				withDetail("The parameter starts at byte %d.", start+1)
		}
		name, err := decodeURI(name, start)
		if err != nil {
			return err
		}
		value, err = decodeURI(value, start)
		if err != nil {
			return err
		}
		// As JDBC spells it.
		if name == "ssl" && value == "true" {
			name, value = "sslmode", modeRequire
		}
		if err := p.store(name, value, start); err != nil {
			return err
		}
		i = end + 1
	}
	return nil
}

// storeEncoded stores a part of the URI. An empty part says nothing.
func (p *parser) storeEncoded(name, value string, pos int) error {
	if value == "" {
		return nil
	}
	decoded, err := decodeURI(value, pos)
	if err != nil {
		return err
	}
	return p.store(name, decoded, pos)
}

// decodeURI follows fe-connect.c: conninfo_uri_decode. libpq 18 skips spaces around a token and refuses them in it,
// before that they were part of it; here the first half of each is done, so that what any version takes connects.
func decodeURI(s string, pos int) (string, error) {
	s = strings.Trim(s, " ")
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return "", errPercent(pos)
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", errPercent(pos)
		}
		if c[0] == 0 {
			return "", newError(codeSyntax, "forbidden value %%00 in the connection URI")
		}
		b.WriteByte(c[0])
		i += 2
	}
	return b.String(), nil
}

func errPercent(pos int) *Error {
	return newError(codeSyntax, "invalid percent-encoded token in the connection URI").
		withDetail("It is in the part that starts at byte %d.", pos+1).
		withHint("Write \"%%\" itself as %%25.")
}

// indexAny is strings.IndexAny with the length of s for "not found".
func indexAny(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}
