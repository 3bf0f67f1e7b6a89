package primary

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// Read shows the primary in one round trip; in two where a slot has come to decode prepared transactions. physicalSlot is
// the standby's primary_slot_name.
func (c *Client) Read(ctx context.Context, physicalSlot string) (*State, error) {
	way, shown := c.twoPhaseWay(), c.access.slots
	state, err := c.read(ctx, physicalSlot)
	if err == nil && c.noticeTwoPhase(state.Slots, way) && !shown {
		state, err = c.read(ctx, physicalSlot)
	}
	if remote.Refusal(err) != nil {
		// What the role may do was found out when the connection was made, and may have changed since.
		c.Close()
	}
	return state, err
}

// noticeTwoPhase tells whether a slot decodes prepared transactions and there is a way to read from where on that the last read
// did not take: it did not expect the slot, or the role was not allowed to.
func (c *Client) noticeTwoPhase(slots []Slot, way twoPhaseAccess) (again bool) {
	c.twoPhase = slices.ContainsFunc(slots, func(s Slot) bool { return s.TwoPhase })
	return c.twoPhase && c.access.twoPhase != twoPhaseByView && way != c.twoPhaseWay()
}

// twoPhaseWay is how two_phase_at is to be read. A function is named only where a slot needs it: the query fails as a whole
// without it.
func (c *Client) twoPhaseWay() twoPhaseAccess {
	if c.access.twoPhase == twoPhaseByView || c.twoPhase {
		return c.access.twoPhase
	}
	return twoPhaseUnknown
}

func (c *Client) read(ctx context.Context, physicalSlot string) (*State, error) {
	var state *State
	err := c.do(ctx, "read the replication slots", func(ctx context.Context, conn *pgx.Conn) error {
		batch := &pgx.Batch{}
		batch.Queue(serverSQL(c.major), physicalSlot)
		changed := c.access.slots
		if changed {
			batch.Queue(changedSlotsSQL, strconv.FormatBool(c.base != nil))
		} else {
			c.base = nil
			batch.Queue(slotsSQL(c.major, c.twoPhaseWay()))
		}
		batch.Queue(accessSQL)
		results := conn.SendBatch(ctx, batch)
		defer func() { _ = results.Close() }()

		var err error
		if state, err = readServer(results); err != nil {
			return err
		}
		slots, err := readSlots(results)
		if err != nil {
			return err
		}
		if changed {
			state.Slots = c.merge(slots)
		} else {
			state.Slots = made(slots)
		}
		if c.access, err = readAccess(results, c.major); err != nil {
			return err
		}
		state.Files, state.KeepsRows = c.access.files, c.access.keeps
		return results.Close()
	})
	if err != nil {
		return nil, err
	}
	return state, nil
}

type results interface {
	QueryRow() pgx.Row
	Query() (pgx.Rows, error)
}

func readServer(r results) (*State, error) {
	var recovery, version, level, system, start, primarySlot, feedback string
	var timeline, xmins, slot, xmin, catalogXmin, pid, backendStart *string
	err := r.QueryRow().Scan(&recovery, &version, &level, &system, &start, &timeline, &primarySlot, &feedback, &xmins, &slot, &xmin, &catalogXmin, &pid, &backendStart)
	if err != nil {
		return nil, err
	}
	var p parser
	s := &State{
		InRecovery:       p.bool(recovery),
		VersionNum:       int(p.uint(version, 31)),
		WALLevel:         level,
		SystemIdentifier: uint64(p.int(system)),
		Timeline:         p.timeline(timeline),
		PostmasterStart:  start,
		PrimarySlotName:  primarySlot,
		Feedback:         p.bool(feedback),
		OldestXmin:       p.oldest(text(xmins)),
		Physical: PhysicalSlot{
			Exists:      slot != nil,
			Xmin:        p.xid(xmin),
			CatalogXmin: p.xid(catalogXmin),
		},
	}
	if pid != nil {
		s.Physical.WalSender = *pid + "@" + text(backendStart)
	}
	return s, p.err
}

func readSlots(r results) ([]Slot, error) {
	rows, err := r.Query()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var slots []Slot
	for rows.Next() {
		slot, err := readSlot(rows)
		if err != nil {
			return nil, err
		}
		slots = append(slots, slot)
	}
	return slots, rows.Err()
}

// made returns the slots that are complete, by name.
func made(slots []Slot) []Slot {
	slots = slices.DeleteFunc(slots, func(s Slot) bool { return !s.made() })
	slices.SortFunc(slots, func(a, b Slot) int { return cmp.Compare(a.Name, b.Name) })
	return slots
}

// made is false for a slot that is still being made: ReplicationSlotReserveWal and DecodingContextFindStartpoint set
// the three values one after another, and an invalidated slot loses restart_lsn (WAL) or catalog_xmin.
func (s *Slot) made() bool {
	return s.Invalidation != "" || s.RestartLSN != 0 && s.ConfirmedFlushLSN != 0 && s.CatalogXmin != 0
}

// merge adds what has changed to what the session was shown before. A slot without a plugin is gone. What was returned before
// stays as it is.
func (c *Client) merge(changes []Slot) []Slot {
	if c.base == nil {
		c.base = make(map[string]Slot, len(changes))
	} else if len(changes) == 0 {
		return c.slots
	}
	for _, slot := range changes {
		if slot.Plugin == "" {
			delete(c.base, slot.Name)
		} else {
			c.base[slot.Name] = slot
		}
	}
	c.slots = made(slices.Collect(maps.Values(c.base)))
	return c.slots
}

func readSlot(row pgx.Row) (slot Slot, err error) {
	var name string
	var plugin, oid, twoPhase, failover *string
	var database, restart, confirmed, catalogXmin, twoPhaseAt, invalidation *string
	var state []byte
	err = row.Scan(&name, &plugin, &database, &oid, &restart, &confirmed, &catalogXmin, &twoPhase, &twoPhaseAt,
		&state, &failover, &invalidation)
	if err != nil {
		return Slot{}, err
	}
	if plugin == nil {
		return Slot{Name: name}, nil
	}
	var p parser
	slot = Slot{
		Name:              name,
		Plugin:            *plugin,
		Database:          text(database),
		DatabaseOID:       uint32(p.uint(text(oid), 32)),
		RestartLSN:        p.lsn(restart),
		ConfirmedFlushLSN: p.lsn(confirmed),
		CatalogXmin:       p.xid(catalogXmin),
		TwoPhase:          p.bool(text(twoPhase)),
		TwoPhaseAt:        p.lsn(twoPhaseAt),
		Failover:          p.bool(text(failover)),
		Invalidation:      text(invalidation),
	}
	if slot.TwoPhase && state != nil {
		// An unreadable file leaves 0, which makes this one slot wait.
		slot.TwoPhaseAt, _ = parseTwoPhaseAt(state, name)
	}
	return slot, p.err
}

type access struct {
	files    Access
	twoPhase twoPhaseAccess
	slots    bool // by the extension, which can wait for changes too
	keeps    bool // see State.KeepsRows
}

func readAccess(r results, major int) (access, error) {
	var files, twoPhase, slots, keeps, binary, list string
	if err := r.QueryRow().Scan(&files, &twoPhase, &slots, &keeps, &binary, &list); err != nil {
		return access{}, err
	}
	a := access{slots: slots == "2", keeps: keeps == "1"}
	switch {
	case files == "2":
		a.files = ByExtension
	case binary == "true" && list == "true":
		a.files = ByReadBinaryFile
	}
	switch {
	case major >= 18:
		a.twoPhase = twoPhaseByView
	case twoPhase == "1":
		a.twoPhase = twoPhaseByExtension
	case binary == "true":
		a.twoPhase = twoPhaseByStateFile
	}
	return a, nil
}

// parser reads values in text form and remembers the first error.
type parser struct{ err error }

func (p *parser) fail(kind, value string) {
	if p.err == nil {
		p.err = fmt.Errorf("unexpected %s %q", kind, value)
	}
}

func (p *parser) uint(s string, bits int) uint64 {
	v, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		p.fail("number", s)
	}
	return v
}

// int reads a system identifier: SQL shows the unsigned number as a signed one.
func (p *parser) int(s string) int64 {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.fail("number", s)
	}
	return v
}

// timeline reads the first part of the name of a WAL file.
func (p *parser) timeline(s *string) uint32 {
	if s == nil {
		return 0
	}
	v, err := strconv.ParseUint(*s, 16, 32)
	if err != nil {
		p.fail("timeline", *s)
	}
	return uint32(v)
}

func (p *parser) xid(s *string) host.XID {
	if s == nil {
		return 0
	}
	return host.XID(p.uint(*s, 32))
}

// oldest reads a list and returns the oldest of it, 0 if it is empty.
func (p *parser) oldest(list string) (oldest host.XID) {
	for _, word := range strings.Fields(list) {
		if x := p.xid(&word); oldest == 0 || x.Precedes(oldest) {
			oldest = x
		}
	}
	return oldest
}

func (p *parser) lsn(s *string) host.LSN {
	if s == nil {
		return 0
	}
	v, err := host.ParseLSN(*s)
	if err != nil {
		p.fail("LSN", *s)
	}
	return v
}

func (p *parser) bool(s string) bool {
	if s != "true" && s != "false" {
		p.fail("boolean", s)
	}
	return s == "true"
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
