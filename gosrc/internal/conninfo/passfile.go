package conninfo

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// replicationDatabase is the database name that a walreceiver looks its password up with (libpqwalreceiver.c:
// libpqrcv_connect), so that it is often the only one in a standby's password file.
const replicationDatabase = "replication"

// passfile is a password file as it was when it was read.
type passfile struct {
	name  string
	lines []string
}

// readPassfile follows fe-connect.c: passwordFromFile. A file that is not there or not safe counts as empty.
func readPassfile(name string, warn func(string)) *passfile {
	f, info, err := openRegular(name)
	if errors.Is(err, errNotRegular) {
		warn("password file \"" + name + "\" is not a plain file")
	}
	if err != nil {
		return nil
	}
	defer f.Close()
	if info.Mode().Perm()&0o077 != 0 {
		warn("password file \"" + name + "\" has group or world access; permissions should be u=rw (0600) or less")
		return nil
	}
	p := &passfile{name: name}
	scanner := bufio.NewScanner(io.LimitReader(f, maxFile))
	scanner.Buffer(nil, maxFile)
	for scanner.Scan() {
		line := strings.TrimRight(scanner.Text(), "\r\n")
		if line != "" && line[0] != '#' {
			p.lines = append(p.lines, line)
		}
	}
	return p
}

// find returns the password for a host and the database, or else for what a walreceiver asks for.
func (p *passfile) find(host, port, database, user string) (password string, found bool) {
	if p == nil {
		return "", false
	}
	for _, db := range []string{database, replicationDatabase} {
		for _, line := range p.lines {
			if password, ok := matchLine(line, host, port, db, user); ok {
				return password, true
			}
		}
	}
	return "", false
}

func matchLine(line string, fields ...string) (password string, ok bool) {
	for _, field := range fields {
		if line, ok = matchField(line, field); !ok {
			return "", false
		}
	}
	var b strings.Builder
	for i := 0; i < len(line) && line[i] != ':'; i++ {
		if line[i] == '\\' && i+1 < len(line) {
			i++
		}
		b.WriteByte(line[i])
	}
	return b.String(), true
}

// matchField follows fe-connect.c: pwdfMatchesString. It returns what comes behind the field and its colon.
func matchField(line, token string) (rest string, ok bool) {
	if rest, ok := strings.CutPrefix(line, "*:"); ok {
		return rest, true
	}
	t := 0
	for i := 0; i < len(line); i++ {
		escaped := line[i] == '\\'
		if escaped {
			i++
			if i == len(line) {
				return "", false
			}
		}
		if line[i] == ':' && t == len(token) && !escaped {
			return line[i+1:], true
		}
		if t == len(token) || line[i] != token[t] {
			return "", false
		}
		t++
	}
	return "", false
}
