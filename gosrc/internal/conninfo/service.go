package conninfo

import (
	"bytes"
	"os"
	"strings"
)

// maxServiceLine is the room that libpq has for a line of a service file.
const maxServiceLine = 1023

// addService fills s from the service that it names, if any (fe-connect.c: parseServiceInfo).
func addService(s settings, env Environment) error {
	service, ok := s["service"]
	if !ok {
		service, ok = env.Vars["PGSERVICE"]
	}
	if !ok {
		return nil
	}

	file, must := s["servicefile"]
	if !must {
		file, must = env.Vars["PGSERVICEFILE"]
	}
	if !must {
		file = env.inHome(".pg_service.conf")
	}
	if must || isThere(file) {
		if found, err := readService(file, service, s); found || err != nil {
			return err
		}
	}

	dir, ok := env.Vars["PGSYSCONFDIR"]
	if !ok {
		dir = env.SysConfDir
	}
	if file := dir + "/pg_service.conf"; dir != "" && isThere(file) {
		if found, err := readService(file, service, s); found || err != nil {
			return err
		}
	}
	return newError(codeConfigFile, "definition of service \"%s\" not found", service)
}

func isThere(file string) bool {
	if file == "" {
		return false
	}
	_, err := os.Stat(file)
	return err == nil
}

// readService takes the options of one service that s does not have yet (fe-connect.c: parseServiceFile). Its errors
// name the line and not what is in it: a service may hold a password.
func readService(file, service string, s settings) (found bool, err error) {
	content, err := readRegular(file)
	if err != nil {
		return false, newError(codeConfigFile, "service file \"%s\" not found", file).withCause(err)
	}
	for i, raw := range bytes.Split(content, []byte{'\n'}) {
		if len(raw) >= maxServiceLine {
			return found, newError(codeConfigFile, "line %d too long in service file \"%s\"", i+1, file)
		}
		line := strings.TrimFunc(string(raw), func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			if found {
				return true, nil
			}
			found = strings.HasPrefix(line[1:], service+"]")
		case found:
			if err := s.addServiceLine(line, file, i+1); err != nil {
				return true, err
			}
		}
	}
	return found, nil
}

func (s settings) addServiceLine(line, file string, number int) error {
	name, value, ok := strings.Cut(line, "=")
	if strings.HasPrefix(line, "ldap") {
		return newError(codeUnsupported, "LDAP look-up in service file \"%s\", line %d is not supported", file, number)
	}
	if name == "service" || name == "servicefile" {
		return newError(codeConfigFile, "nested \"%s\" specifications not supported in service file \"%s\", line %d",
			name, file, number)
	}
	if !ok || findKey(name) == nil {
		return newError(codeConfigFile, "syntax error in service file \"%s\", line %d", file, number)
	}
	if _, given := s[name]; !given {
		s[name] = value
	}
	return nil
}
