package failover

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// States and reasons of slot_status that mean something here.
const (
	stateReady   = "ready"
	stateForeign = "foreign"

	reasonNotWanted  = "not_wanted"
	reasonNotFlushed = "wal_not_flushed"
)

// subject is all that is known of one slot.
type subject struct {
	name   string
	status *host.SlotStatus // of the last pass
	here   *host.Slot
	there  *primary.Slot
}

// slots is about each slot, and tells whether it is known that there are none to keep.
func (c *check) slots() (none bool) {
	subjects := c.subjects()
	kept := 0
	for _, s := range subjects {
		if c.Kept[s.name] || s.status != nil && s.status.Reason != reasonNotWanted || s.status == nil && s.here != nil {
			kept++
		}
	}
	switch {
	case kept > 0:
		c.holds(checkSlots, "", "%d slots are to be kept.", kept)
	case c.There != nil || !c.Passes.Last.IsZero():
		c.advise(checkSlots, "", "Parameter replsync.slots says which slots are to be kept.",
			"The primary has no slot that is to be kept here.")
		none = true
	default:
		c.unknown(checkSlots, "", "Nothing can be done while the primary is not there.",
			"There are no copies here, and the primary was not asked for slots since the worker was started.")
	}
	for _, s := range subjects {
		c.slot(s)
	}
	c.others(subjects)
	return none
}

// others is about logical slots that are nobody's copy, and take no name from one.
func (c *check) others(subjects []subject) {
	for _, s := range c.Here.Slots {
		if !s.Logical || s.Temporary || c.Here.IsCopy(s) ||
			slices.ContainsFunc(subjects, func(known subject) bool { return known.name == s.Name }) {
			continue
		}
		c.advise(checkLeftover, s.Name, fmt.Sprintf("If nobody reads from it here, drop it with SELECT pg_drop_replication_slot('%s').", s.Name),
			"The slot is not a copy. It holds WAL here, and catalog rows on the primary.")
	}
}

// subjects are the slots that are kept or should be, by name.
func (c *check) subjects() []subject {
	found := map[string]*subject{}
	of := func(name string) *subject {
		if found[name] == nil {
			found[name] = &subject{name: name}
		}
		return found[name]
	}
	for i := range c.Passes.Rows {
		of(c.Passes.Rows[i].Name).status = &c.Passes.Rows[i]
	}
	for name := range c.Kept {
		of(name)
	}
	for i := range c.Here.Slots {
		s := &c.Here.Slots[i]
		if found[s.Name] != nil || c.Here.IsCopy(*s) {
			of(s.Name).here = s
		}
	}
	if c.There != nil {
		for i := range c.There.Slots {
			if s := &c.There.Slots[i]; found[s.Name] != nil {
				found[s.Name].there = s
			}
		}
	}
	var subjects []subject
	for _, name := range slices.Sorted(maps.Keys(found)) {
		s := found[name]
		if c.There != nil && s.there == nil && s.here == nil {
			continue // gone on both servers since the last pass
		}
		subjects = append(subjects, *s)
	}
	return subjects
}

func (c *check) slot(s subject) {
	switch {
	case s.status == nil && s.here == nil:
		c.fails(checkSlot, s.name, "Wait for the next pass, or run SELECT * FROM replsync.sync_slots().", "No pass has looked at it yet.")
	case s.status == nil:
		c.fails(checkSlot, s.name, "Wait for the next pass, or run SELECT * FROM replsync.sync_slots().",
			"No pass has looked at the copy since the worker was started.")
	case s.status.State == stateForeign:
		c.fails(checkLeftover, s.name, s.status.Hint,
			"A slot of that name is here which replsync did not make: the slot of the primary cannot be copied.")
	case s.status.Reason == reasonNotWanted:
		c.advise(checkLeftover, s.name, s.status.Hint, "The copy is not to be kept any more; after a promotion it would be a slot that nobody uses.")
	case s.status.State != stateReady:
		c.fails(checkSlot, s.name, cmp.Or(s.status.Hint, "See last_error in replsync.slot_status."), "%s", c.explain(s))
	case s.here == nil:
		c.fails(checkSlot, s.name, "Find out who dropped the copy; the next pass makes it again.", "The copy has been dropped since the last pass.")
	case s.here.Invalidated:
		c.fails(checkSlot, s.name, "The next pass makes the copy again if it can.", "The copy has been invalidated since the last pass: %s.", s.here.Invalidation)
	default:
		c.readySlot(s)
	}
	c.leftover(s)
}

// explain says what a slot that is not ready waits for.
func (c *check) explain(s subject) string {
	text := fmt.Sprintf("It is %s: %s.", s.status.State, s.status.Reason)
	if s.status.Error != "" {
		text += " The last error was: " + strings.TrimSuffix(s.status.Error, ".") + "."
	}
	return text
}

// readySlot is about a copy that can be used, but may be behind what its consumer has.
func (c *check) readySlot(s subject) {
	confirmed := s.status.RemoteConfirmedFlushLSN
	if s.there != nil {
		confirmed = s.there.ConfirmedFlushLSN
	}
	text := "It is ready"
	if lag := behind(confirmed, s.here.ConfirmedFlushLSN); lag > 0 {
		text += fmt.Sprintf(", and %d bytes behind the primary's: the consumer may receive those again", lag)
	}
	if at := s.status.LastSyncAt; !at.IsZero() {
		text += ". It agreed with the primary's at " + at.UTC().Format("2006-01-02 15:04:05.000 UTC")
	}
	ahead := confirmed > c.Here.Recovery.FlushLSN
	switch {
	case c.Lapsed && c.major < firstConflict:
		// Later versions would notice if rows went.
		c.fails(checkSlot, s.name, "Wait for the next pass, or run SELECT * FROM replsync.sync_slots().",
			"It was ready, but hot standby feedback has been interrupted since: the primary may have removed catalog rows that it needs.")
	case ahead && c.There == nil:
		c.fails(checkSlot, s.name,
			"A promotion takes WAL away that the consumer has seen: it has to be made anew, or what it has received since be removed from it.",
			"The consumer has confirmed %s on the primary, and this standby has received only %s.", confirmed, c.Here.Recovery.FlushLSN)
	case s.status.Reason != "" && s.status.Reason != reasonNotFlushed:
		c.advise(checkSlot, s.name, s.status.Hint, "%s (%s).", text, s.status.Reason)
	default:
		c.holds(checkSlot, s.name, "%s.", text)
	}
}

// leftover is about a copy whose slot is gone from the primary.
func (c *check) leftover(s subject) {
	if c.There != nil && s.there == nil && s.here != nil && s.status != nil && s.status.State != stateForeign {
		c.advise(checkLeftover, s.name, "The next pass drops it.", "The primary has no such slot any more.")
	}
}

// plugins is about the output plugins, which this server may have to allow (output_plugin_libraries).
func (c *check) plugins() {
	if c.Here.OutputPlugins == "" {
		return
	}
	allowed := map[string]bool{}
	for _, name := range strings.Split(c.Here.OutputPlugins, ",") {
		allowed[strings.Trim(strings.TrimSpace(name), `"`)] = true
	}
	refused := map[string][]string{}
	for i := range c.Passes.Rows {
		row := &c.Passes.Rows[i]
		if row.Plugin != "" && !allowed[row.Plugin] && row.State != stateForeign && row.Reason != reasonNotWanted {
			refused[row.Plugin] = append(refused[row.Plugin], row.Name)
		}
	}
	if len(refused) == 0 {
		c.holds(checkPlugin, "", "Each is named in output_plugin_libraries here.")
	}
	for _, plugin := range slices.Sorted(maps.Keys(refused)) {
		c.fails(checkPlugin, plugin, fmt.Sprintf("Add \"%s\" to output_plugin_libraries here.", plugin),
			"Decoding would be refused after a promotion: output_plugin_libraries does not name it here. Slots: %s.",
			strings.Join(refused[plugin], ", "))
	}
}
