package failover

import (
	"cmp"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// The words of check_name, which the README explains.
const (
	checkWorker       = "worker"
	checkLastPass     = "last_pass"
	checkPrimary      = "primary"
	checkSetting      = "setting"
	checkSettingThere = "primary_setting"
	checkRights       = "rights"
	checkPhysicalSlot = "physical_slot"
	checkFeedback     = "feedback"
	checkHoldBack     = "hold_back"
	checkAfter        = "hold_back_after_promotion"
	checkPlugin       = "output_plugin"
	checkSlots        = "slots"
	checkSlot         = "slot"
	checkLeftover     = "leftover"
	checkLag          = "lag"
	checkRelease      = "minor_release"
)

const (
	firstConflict = 16 // replay invalidates slots whose rows it removes
	firstFailover = 17 // slots have the flag failover
	firstDynamic  = 19 // logical decoding is switched on by the first slot
)

// passLimit is how old a pass may be at least, whatever the pauses are: passes take time.
const passLimit = 30 * time.Second

// check collects rows.
type check struct {
	Facts
	major int
	rows  []host.CheckRow
}

var yes, no = true, false

func (c *check) holds(name, object, detail string, args ...any) {
	c.rows = append(c.rows, host.CheckRow{Name: name, Object: object, OK: &yes, Detail: fmt.Sprintf(detail, args...)})
}

// advise adds a row that stops nothing, with something to be done about it.
func (c *check) advise(name, object, hint, detail string, args ...any) {
	c.holds(name, object, detail, args...)
	c.rows[len(c.rows)-1].Hint = hint
}

func (c *check) fails(name, object, hint, detail string, args ...any) {
	c.advise(name, object, hint, detail, args...)
	c.rows[len(c.rows)-1].OK = &no
}

func (c *check) unknown(name, object, hint, detail string, args ...any) {
	c.advise(name, object, hint, detail, args...)
	c.rows[len(c.rows)-1].OK = nil
}

// Check returns the rows about a standby.
func Check(f Facts) []host.CheckRow {
	c := &check{Facts: f, major: f.Here.Recovery.ServerVersionNum / 10000}
	c.worker()
	c.primary()
	c.lastPass()
	c.settings()
	c.settingsThere()
	c.physicalSlot()
	c.holdBack()
	c.afterPromotion()
	none := c.slots()
	c.lag()
	c.releases()
	if none {
		// With nothing to keep, nothing stands in the way of a promotion.
		for i := range c.rows {
			if row := &c.rows[i]; row.OK != nil && !*row.OK {
				row.OK = nil
				row.Detail += " It matters once there is a slot to keep."
			}
		}
	}
	return c.rows
}

func (c *check) worker() {
	switch refused := c.Passes.Refused; {
	case refused != nil:
		c.fails(checkWorker, "", refused.Hint, "%s", sentence(refused))
	case !c.Here.SyncSlots:
		c.advise(checkWorker, "", "Set replsync.sync_slots to on, or run SELECT * FROM replsync.sync_slots() before a promotion.",
			"It is off: copies are as the last replsync.sync_slots() left them.")
	case c.Passes.Failed != nil && c.There != nil:
		// Without the primary it is no wonder.
		c.fails(checkWorker, "", cmp.Or(c.Passes.Failed.Hint, "See replsync.worker_status and the server log."),
			"Its last pass failed: %s", clause(c.Passes.Failed))
	default:
		c.holds(checkWorker, "", "It is running.")
	}
}

// sentence shows a message as a detail.
func sentence(m *host.Message) string {
	s := clause(m)
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:]
}

// clause shows a message after a colon.
func clause(m *host.Message) string {
	if m.Detail == "" {
		return m.Text + "."
	}
	return m.Text + ": " + m.Detail
}

func (c *check) primary() {
	switch {
	case c.Elsewhere && c.ThereErr != nil:
		c.fails(checkPrimary, "", c.ThereErr.Hint, "%s", sentence(c.ThereErr))
	case c.There == nil && c.ThereErr != nil:
		c.unknown(checkPrimary, "", cmp.Or(c.ThereErr.Hint, "If it is gone for good, what the last pass saw decides."),
			"%s", sentence(c.ThereErr))
	case c.There == nil:
		c.unknown(checkPrimary, "", "See the row \"worker\".", "It was not asked.")
	default:
		c.holds(checkPrimary, "", "It was reached, and writes timeline %d.", c.There.Timeline)
	}
}

// lastPass is about the age of what is known. While there is no primary that can be asked, it does not grow older, unless WAL
// still arrives: then there is one.
func (c *check) lastPass() {
	p := c.Passes
	if p.Last.IsZero() {
		if c.There == nil {
			c.unknown(checkLastPass, "", "What is known of the copies is what was stored with them.",
				"No pass has reached the primary since the worker was started.")
			return
		}
		c.fails(checkLastPass, "", "Wait for one, or run SELECT * FROM replsync.sync_slots(); see the row \"worker\".",
			"No pass has been completed since the worker was started.")
		return
	}
	until := c.Now
	if !p.Trying.IsZero() && (c.There == nil || p.Failed == nil) {
		until = p.Trying
		if p.LastWAL.After(until) {
			until = p.LastWAL
		}
	}
	limit := max(3*c.Here.NaptimeMax, passLimit)
	age, ago := until.Sub(p.Last), c.Now.Sub(p.Last).Round(time.Millisecond)
	switch {
	case age > limit && c.There != nil:
		c.fails(checkLastPass, "", "Run SELECT * FROM replsync.sync_slots(), and see the row \"worker\".",
			"It was %s ago, and the primary is there.", ago)
	case age > limit:
		c.fails(checkLastPass, "", "Slots may have been made or moved since on the primary, and are not as they should be here.",
			"It was %s ago; the primary was there for %s after it.", ago, age.Round(time.Millisecond))
	default:
		c.holds(checkLastPass, "", "It was %s ago.", ago)
	}
}

// settings is about the parameters of this server.
func (c *check) settings() {
	h := c.Here
	c.must(checkSetting, "sync_replication_slots", !h.CoreSync, c.major >= firstFailover, "off", "on",
		"Set sync_replication_slots to off: while it is on, replsync leaves the slots to the server itself.")
	c.must(checkSetting, "hot_standby_feedback", h.HotStandbyFeedback, true, "on", "off",
		"Set hot_standby_feedback to on: without it the primary removes catalog rows that the copies need.")
	c.must(checkSetting, "wal_receiver_status_interval", h.StatusInterval > 0, true, "more than 0", "0",
		"Set wal_receiver_status_interval to a few seconds: with 0 no hot standby feedback is sent.")
	c.must(checkSetting, "primary_slot_name", h.PrimarySlotName != "", true, "\""+h.PrimarySlotName+"\"", "empty",
		"Make a physical slot on the primary and name it in primary_slot_name: only that keeps what the copies need.")
	if c.major < firstDynamic {
		c.must(checkSetting, "wal_level", h.WALLevel == "logical", true, "logical", h.WALLevel,
			"Set wal_level to logical here: after a promotion it is this server's that counts.")
	} else {
		c.must(checkSetting, "wal_level", h.WALLevel != "minimal", true, h.WALLevel, h.WALLevel,
			"Set wal_level to replica or logical here.")
	}
	c.room()
	if h.MaxSlotWALKeepSize != "" && h.MaxSlotWALKeepSize != "-1" {
		c.advise(checkSetting, "max_slot_wal_keep_size", "Set it to -1 here, or watch how far consumers are behind.",
			"It is %s MB: a copy whose consumer is further behind is invalidated here.", h.MaxSlotWALKeepSize)
	}
	if h.IdleTimeout != "" && h.IdleTimeout != "0" {
		c.advise(checkSetting, "idle_replication_slot_timeout", "Make it longer than consumers need to come to this server after a promotion.",
			"It is not 0: from a promotion on, a slot that no consumer uses for that long is invalidated.")
	}
	c.plugins()
}

// must adds a row for what a parameter has to be.
func (c *check) must(name, object string, ok, applies bool, good, bad, hint string) {
	switch {
	case !applies:
	case ok:
		c.holds(name, object, "It is %s.", good)
	default:
		c.fails(name, object, hint, "It is %s.", bad)
	}
}

// room is about the slots that there can be here.
func (c *check) room() {
	copies, missing := 0, 0
	here := map[string]bool{}
	for _, s := range c.Here.Slots {
		here[s.Name] = true
		if c.Here.IsCopy(s) {
			copies++
		}
	}
	for name := range c.Kept {
		if !here[name] {
			missing++
		}
	}
	used, limit := len(c.Here.Slots), c.Here.MaxReplicationSlots
	if missing > 0 && used+missing >= limit {
		c.fails(checkSetting, "max_replication_slots",
			fmt.Sprintf("Set max_replication_slots to at least %d here and restart: one more than there are slots is needed while a copy is made.", used+missing+1),
			"It is %d; %d slots are here, and %d more are to be copied.", limit, used, missing)
		return
	}
	c.holds(checkSetting, "max_replication_slots", "It is %d; %d slots are here, %d of them copies.", limit, used, copies)
}

// settingsThere is about the primary and what may be done there.
func (c *check) settingsThere() {
	if c.There == nil {
		c.unknown(checkRights, "", "Nothing can be done while the primary is not there.", "The primary was not reached.")
		return
	}
	level := c.There.WALLevel
	c.must(checkSettingThere, "wal_level", level == "logical" || c.There.VersionNum/10000 >= firstDynamic, true, level, level,
		"Set wal_level to logical on the primary and restart it.")
	if c.There.Files == primary.NoAccess && c.NoAccess != nil {
		c.fails(checkRights, c.There.Role, c.NoAccess.Hint, "%s", sentence(c.NoAccess))
	} else {
		c.holds(checkRights, c.There.Role, "The role may read what copies need.")
	}
}

// physicalSlot is about the slot that this standby streams from.
func (c *check) physicalSlot() {
	name := c.Here.PrimarySlotName
	if name == "" {
		return // a setting's row says so
	}
	if c.There == nil {
		c.unknown(checkPhysicalSlot, name, "Nothing can be done while the primary is not there.", "The primary was not reached.")
		return
	}
	p := c.There.Physical
	switch {
	case !p.Exists:
		c.fails(checkPhysicalSlot, name, fmt.Sprintf("Run SELECT pg_create_physical_replication_slot('%s') on the primary.", name),
			"It does not exist on the primary.")
		return
	case c.There.Lost:
		c.fails(checkPhysicalSlot, name, "Drop it and make it again; see max_slot_wal_keep_size on the primary. The standby may have to be made anew.",
			"It is invalidated on the primary, which no longer keeps WAL for this standby.")
		return
	case !c.There.Active:
		c.fails(checkPhysicalSlot, name, "See the server log for why this standby does not stream: primary_conninfo, or WAL that is no longer there.",
			"This standby does not stream from the primary.")
	case c.Here.Cascaded:
		c.holds(checkPhysicalSlot, name, "The standby that this one streams from uses it.")
	default:
		c.holds(checkPhysicalSlot, name, "This standby streams from it.")
	}
	copies := false
	for _, s := range c.Here.Slots {
		copies = copies || c.Here.IsCopy(s)
	}
	switch {
	case p.CatalogXmin != 0:
		c.holds(checkFeedback, name, "The primary keeps catalog rows for this standby from transaction %d on.", p.CatalogXmin)
	case copies:
		c.fails(checkFeedback, name, "It comes with the next hot standby feedback; see hot_standby_feedback and wal_receiver_status_interval.",
			"The primary keeps no catalog rows for the copies.")
	default:
		c.holds(checkFeedback, name, "There is no copy that needs it yet.")
	}
}

// lag is about how far this standby is behind.
func (c *check) lag() {
	switch {
	case c.There == nil || c.There.FlushLSN == 0:
		c.unknown(checkLag, "", "What the primary wrote after that is lost with it, unless it comes back.",
			"WAL has been received up to %s, and replayed up to %s.", c.Here.Recovery.FlushLSN, c.Here.Recovery.ReplayLSN)
	default:
		c.holds(checkLag, "", "%d bytes of WAL are on the primary and not here; %d bytes are not yet replayed.",
			behind(c.There.FlushLSN, c.Here.Recovery.FlushLSN), behind(c.Here.Recovery.FlushLSN, c.Here.Recovery.ReplayLSN))
	}
}

func behind(ahead, at host.LSN) uint64 {
	if ahead <= at {
		return 0
	}
	return uint64(ahead - at)
}
