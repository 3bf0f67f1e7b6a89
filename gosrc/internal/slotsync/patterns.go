package slotsync

import (
	"fmt"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/wildcard"
)

const failoverWord = "@failover"

// Patterns is a parsed replsync.slots.
type Patterns struct {
	include  []string
	exclude  []string
	failover bool
	all      bool // nothing is included by name: everything but the excluded
}

// ParsePatterns reads the value of replsync.slots for a server of that major version. Its errors are *host.Error of
// SQLSTATE 22023.
func ParsePatterns(value string, major int) (Patterns, error) {
	var p Patterns
	if strings.TrimSpace(value) == "" {
		p.failover = major >= firstFailover
		p.all = !p.failover
		return p, nil
	}
	for _, item := range strings.Split(value, ",") {
		item = strings.TrimSpace(item)
		name, excluded := strings.CutPrefix(item, "!")
		switch {
		case item == failoverWord:
			p.failover = true
			continue
		case excluded:
			p.exclude = append(p.exclude, name)
		default:
			p.include = append(p.include, name)
		}
		if err := checkPattern(item, name); err != nil {
			return Patterns{}, err
		}
	}
	p.all = len(p.include) == 0 && !p.failover
	return p, nil
}

// checkPattern tells whether name can match a slot: ReplicationSlotValidateName (slot.c) takes lower-case letters,
// digits and underscores, fewer than NAMEDATALEN.
func checkPattern(item, name string) error {
	e := host.Errorf("22023", "invalid slot name pattern \"%s\"", item)
	e.Hint = fmt.Sprintf("A pattern is made of lower-case letters, digits, \"_\", \"*\" and \"?\", with \"!\" in front to exclude; \"%s\" stands alone.", failoverWord)
	switch {
	case name == "":
		e.Text = "empty slot name pattern"
		return e
	case !plain(name):
		return e
	case len(strings.ReplaceAll(name, "*", "")) >= nameLen:
		e.Detail = fmt.Sprintf("Slot names have at most %d characters.", nameLen-1)
		return e
	}
	return nil
}

func plain(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '*' && c != '?' {
			return false
		}
	}
	return true
}

// Wanted tells whether a slot is to be kept.
func (p Patterns) Wanted(name string, failover bool) bool {
	if wildcard.MatchAny(p.exclude, name) {
		return false
	}
	return p.all || p.failover && failover || wildcard.MatchAny(p.include, name)
}
