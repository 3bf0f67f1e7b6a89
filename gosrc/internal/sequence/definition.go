package sequence

import (
	"fmt"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// OIDs of the types that a sequence can have (pg_type.dat).
const (
	int8OID = 20
	int2OID = 21
	int4OID = 23
)

// Difference is a property that differs, as words for a message and as a clause of ALTER SEQUENCE.
type Difference struct {
	Property, Publisher, Local string
	Clause                     string
}

// Differences compares all of two definitions.
func Differences(publisher, local host.SequenceDefinition) []Difference {
	var found []Difference
	add := func(property, publisher, local, clause string) {
		if publisher != local {
			found = append(found, Difference{property, publisher, local, clause})
		}
	}
	number := func(property, clause string, publisher, local int64) {
		add(property, fmt.Sprint(publisher), fmt.Sprint(local), fmt.Sprintf("%s %d", clause, publisher))
	}
	if publisher == local {
		return nil
	}
	add("type", typeName(publisher.Type), typeName(local.Type), "AS "+typeName(publisher.Type))
	number("increment", "INCREMENT BY", publisher.Increment, local.Increment)
	number("minimum", "MINVALUE", publisher.Min, local.Min)
	number("maximum", "MAXVALUE", publisher.Max, local.Max)
	number("start", "START WITH", publisher.Start, local.Start)
	cycle := map[bool]string{true: "CYCLE", false: "NO CYCLE"}
	add("cycle", onOff(publisher.Cycle), onOff(local.Cycle), cycle[publisher.Cycle])
	return found
}

// Detail says in a sentence what differs.
func Detail(differences []Difference) string {
	parts := make([]string, len(differences))
	for i, d := range differences {
		parts[i] = fmt.Sprintf("%s is %s on the publisher and %s here", d.Property, d.Publisher, d.Local)
	}
	text := strings.Join(parts, ", ")
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// Clauses returns what ALTER SEQUENCE needs to make the local definition the publisher's.
func Clauses(differences []Difference) string {
	parts := make([]string, len(differences))
	for i, d := range differences {
		parts[i] = d.Clause
	}
	return strings.Join(parts, " ")
}

func typeName(oid host.OID) string {
	switch oid {
	case int2OID:
		return "smallint"
	case int4OID:
		return "integer"
	case int8OID:
		return "bigint"
	}
	return fmt.Sprintf("type %d", oid)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// Describe writes a definition as CREATE SEQUENCE takes it behind AS.
func Describe(d host.SequenceDefinition) string {
	text := fmt.Sprintf("%s INCREMENT BY %d MINVALUE %d MAXVALUE %d START WITH %d", typeName(d.Type), d.Increment, d.Min, d.Max, d.Start)
	if d.Cycle {
		text += " CYCLE"
	}
	return text
}
