package failover

import (
	"fmt"
	"slices"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/primary"
)

// physicalSlots reads a list of slots: "a, b", and "ANY n (a, b)" or "FIRST n (a, b)". enough is how many of them have to
// confirm.
func physicalSlots(value string) (names []string, enough int) {
	list := strings.TrimSpace(value)
	if open := strings.IndexByte(list, '('); open >= 0 {
		_, _ = fmt.Sscanf(strings.Fields(list[:open] + " 0 0")[1], "%d", &enough)
		list = strings.TrimSuffix(strings.TrimSpace(list[open+1:]), ")")
	}
	for _, name := range strings.Split(list, ",") {
		if name = strings.Trim(strings.TrimSpace(name), `"`); name != "" {
			names = append(names, name)
		}
	}
	if enough == 0 {
		enough = len(names)
	}
	return names, enough
}

// holdBack is about consumers that receive what this standby has not: after a promotion they would be ahead of their
// server. Whether one is cannot be seen from the setting alone, so that it stops nothing; where one is known to be, its
// slot's row says so.
func (c *check) holdBack() {
	if c.There == nil {
		return
	}
	object := primary.HoldBackParameter(c.There.VersionNum / 10000)
	names, _ := physicalSlots(c.There.HoldBack)
	if c.Here.Cascaded {
		c.unknown(checkHoldBack, object, "Promote the standby in between if you can: the primary can wait for that one.",
			"It cannot name this standby, which streams from another one: a consumer may receive what this standby has not.")
		return
	}
	if slices.Contains(names, c.Here.PrimarySlotName) {
		c.holds(checkHoldBack, object, "Consumers on the primary receive nothing that this standby has not.")
		return
	}
	detail := "It is not set on the primary: a consumer may receive what this standby has not."
	if len(names) > 0 {
		detail = "It does not name this standby's slot on the primary: a consumer may receive what this standby has not."
	}
	c.unknown(checkHoldBack, object, fmt.Sprintf("Add \"%s\" to %s on the primary.", c.Here.PrimarySlotName, object), "%s", detail)
}

// afterPromotion is about the same parameter of this server, which a base backup brings from the primary: once
// promoted, this server sends nothing to consumers before the slots that it names here have confirmed.
func (c *check) afterPromotion() {
	object := primary.HoldBackParameter(c.major)
	names, enough := physicalSlots(c.Here.HoldBack)
	var missing, idle []string
	for _, name := range names {
		there, active := false, false
		for _, s := range c.Here.Slots {
			if s.Name == name && !s.Logical {
				there, active = true, s.ActivePID != 0
			}
		}
		switch {
		case !there:
			missing = append(missing, name)
		case !active:
			idle = append(idle, name)
		}
	}
	switch {
	case len(names) == 0:
		c.holds(checkAfter, object, "It is empty here: nothing will hold consumers back after a promotion.")
	case len(names)-len(missing) < enough:
		c.fails(checkAfter, object,
			fmt.Sprintf("Take the name out of %s here, or make the slot with pg_create_physical_replication_slot() for a standby that will use it.", object),
			"It names \"%s\", which is no physical slot here: after a promotion consumers would receive nothing.",
			strings.Join(missing, `", "`))
	case len(names)-len(missing)-len(idle) < enough:
		c.advise(checkAfter, object, fmt.Sprintf("See to it that a standby uses the slot soon after the promotion, or empty %s then.", object),
			"It names \"%s\", which no standby uses: after a promotion consumers receive nothing until one does.",
			strings.Join(idle, `", "`))
	default:
		c.holds(checkAfter, object, "The physical slots that it names are here and in use.")
	}
}
