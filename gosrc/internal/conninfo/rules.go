package conninfo

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// check applies the table to all values. What passes is either used by this package or handed to pgx.
func (s settings) check(warn func(string)) error {
	for _, k := range keys {
		value, ok := s[k.name]
		if !ok {
			continue
		}
		if k.values != nil && !slices.Contains(k.values, value) {
			return errInvalidValue(k.name).withHint("Valid values are: %s.", strings.Join(k.values, ", "))
		}
		if k.number {
			if _, err := parseInt(k.name, value); err != nil {
				return err
			}
		}
		asks := value != "" && !slices.Contains(k.idle, value)
		switch {
		case k.action == actRefuse && asks:
			return newError(codeUnsupported, "connection option \"%s\" is not supported", k.name).withHint("%s", k.hint)
		case k.action == actWarn && asks:
			warn("connection option \"" + k.name + "\" is ignored: " + k.hint)
		}
	}
	return s.checkCombinations()
}

// checkCombinations follows fe-connect.c: pqConnectOptions2.
func (s settings) checkCombinations() error {
	mode := s["sslmode"]
	if s["sslnegotiation"] == "direct" && mode != modeRequire && mode != modeVerifyCA && mode != modeVerifyFull {
		return newError(codeInvalidValue, "weak sslmode \"%s\" may not be used with sslnegotiation=direct", mode).
			withHint("Use \"require\", \"verify-ca\" or \"verify-full\".")
	}
	if s["sslrootcert"] == rootSystem && mode != modeVerifyFull {
		return newError(codeInvalidValue, "weak sslmode \"%s\" may not be used with sslrootcert=system", mode).
			withHint("Use \"verify-full\".")
	}
	lowest, highest := s["min_protocol_version"], s["max_protocol_version"]
	if highest == "3.0" && lowest != "" && lowest != "3.0" {
		return newError(codeInvalidValue, "\"min_protocol_version\" is greater than \"max_protocol_version\"")
	}
	return nil
}

// parseInt follows fe-connect.c: pqParseIntParam, that is strtol with space on both sides.
func parseInt(name, value string) (int, error) {
	digits := strings.TrimFunc(value, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		// Not wrapped: it quotes the value.
		return 0, errInvalidValue(name).withHint("It must be an integer between %d and %d.", math.MinInt32, math.MaxInt32)
	}
	return int(n), nil
}

// number returns a value that check has seen, or def where there is none.
func (s settings) number(name string, def int) int {
	value, ok := s[name]
	if !ok {
		return def
	}
	n, err := parseInt(name, value)
	if err != nil {
		return def
	}
	return n
}
