package hosttest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Put makes slots, or replaces them.
func (f *Fake) Put(slots ...host.Slot) {
	f.Lock(func() {
		for _, s := range slots {
			f.slots[s.Name] = s
		}
	})
}

// Remove drops a slot behind the core's back.
func (f *Fake) Remove(name string) { f.Lock(func() { delete(f.slots, name) }) }

// Slot returns a slot as it is.
func (f *Fake) Slot(name string) (s host.Slot, ok bool) {
	f.Lock(func() { s, ok = f.slots[name] })
	return s, ok
}

// Reserved returns the position of the reservation.
func (f *Fake) Reserved() (lsn host.LSN) {
	f.Lock(func() { lsn = f.reserved })
	return lsn
}

// ReservedXmin is the catalog_xmin of the reservation, 0 without one.
func (f *Fake) ReservedXmin() (xmin host.XID) {
	f.Lock(func() { xmin = f.xmin })
	return xmin
}

// Slots implements host.Host.
func (f *Fake) Slots(ctx context.Context) ([]host.Slot, error) {
	end, err := f.begin(ctx, "Slots", "")
	if err != nil {
		return nil, err
	}
	defer end()
	slots := slices.Collect(maps.Values(f.slots))
	slices.SortFunc(slots, func(a, b host.Slot) int { return cmp.Compare(a.Name, b.Name) })
	return slots, nil
}

// ReserveWAL implements host.Host.
func (f *Fake) ReserveWAL(ctx context.Context, lsn host.LSN, catalogXmin host.XID) error {
	end, err := f.begin(ctx, "ReserveWAL", lsn.String())
	if err != nil {
		return err
	}
	defer end()
	f.reserved, f.xmin = lsn, catalogXmin
	return nil
}

// each does something for each of several slots.
func each[T any](ctx context.Context, of []T, do func(context.Context, T) error) []error {
	errs := make([]error, len(of))
	for i, one := range of {
		errs[i] = do(ctx, one)
	}
	return errs
}

// CreateSlots implements host.Host.
func (f *Fake) CreateSlots(ctx context.Context, slots []host.Slot) []error {
	return each(ctx, slots, f.CreateSlot)
}

// SaveSlots implements host.Host.
func (f *Fake) SaveSlots(ctx context.Context, slots []host.Slot) []error {
	return each(ctx, slots, f.SaveSlot)
}

// DropSlots implements host.Host.
func (f *Fake) DropSlots(ctx context.Context, names []string) []error {
	return each(ctx, names, f.DropSlot)
}

// CreateSlot is CreateSlots for one.
func (f *Fake) CreateSlot(ctx context.Context, s host.Slot) error {
	end, err := f.begin(ctx, "CreateSlot", s.Name)
	if err != nil {
		return err
	}
	defer end()
	_, taken := f.slots[s.Name]
	switch {
	case !f.State.InRecovery || f.State.PromoteTriggered:
		return host.Errorf("55000", "no standby")
	case f.Databases != nil && !f.Databases[s.Database]:
		return host.Errorf("3D000", "database with OID %d does not exist", s.Database)
	case taken:
		return host.Errorf("42710", "replication slot \"%s\" already exists", s.Name)
	case f.Limit > 0 && len(f.slots) >= f.Limit:
		return host.Errorf("53400", "all replication slots are in use")
	case f.reserved == 0 || f.reserved > s.RestartLSN:
		return fmt.Errorf("slot at %s without a reservation", s.RestartLSN)
	case s.RestartLSN < f.OldestWAL:
		return host.Errorf("58P01", "WAL that replication slot \"%s\" requires is not available", s.Name)
	case f.State.NextXID.Precedes(s.CatalogXmin):
		return fmt.Errorf("catalog_xmin %d is ahead of replay", s.CatalogXmin)
	}
	s.Logical, s.Marked = true, true
	f.slots[s.Name] = s
	return nil
}

// UpdateSlot implements host.Host.
func (f *Fake) UpdateSlot(ctx context.Context, s host.Slot) error {
	end, err := f.begin(ctx, "UpdateSlot", s.Name)
	if err != nil {
		return err
	}
	defer end()
	old, ok := f.slots[s.Name]
	switch {
	case !ok:
		return host.Errorf("42704", "replication slot \"%s\" does not exist", s.Name)
	case !old.Marked && !(old.Synced && f.State.InRecovery):
		return host.Errorf("55000", "replication slot \"%s\" is not a copy", s.Name)
	case !f.State.InRecovery:
		old.Marker = s.Marker
		f.slots[s.Name] = old
		return nil
	case old.ActivePID != 0:
		return host.Errorf("55006", "replication slot \"%s\" is active", s.Name)
	case old.Invalidated, old.Database != s.Database:
		return host.Errorf("55000", "cannot update replication slot \"%s\"", s.Name)
	case f.State.NextXID.Precedes(s.CatalogXmin):
		return fmt.Errorf("catalog_xmin %d is ahead of replay", s.CatalogXmin)
	case s.RestartLSN < old.RestartLSN || s.ConfirmedFlushLSN < old.ConfirmedFlushLSN || s.CatalogXmin.Precedes(old.CatalogXmin):
		return fmt.Errorf("replication slot \"%s\" would go back", s.Name)
	}
	s.Logical, s.Marked = true, true
	before := old
	before.ConfirmedFlushLSN = s.ConfirmedFlushLSN
	if s.Unsaved || s != before {
		s.Unsaved = false
		delete(f.disk, s.Name)
	}
	f.slots[s.Name] = s
	return nil
}

// MoveSlots implements host.Host.
func (f *Fake) MoveSlots(ctx context.Context, slots []host.Slot) ([]host.Move, error) {
	moves := make([]host.Move, len(slots))
	for i, s := range slots {
		end, err := f.begin(ctx, "MoveSlots", s.Name)
		if err != nil {
			return nil, err
		}
		moves[i] = f.moveSlot(s)
		end()
	}
	return moves, nil
}

func (f *Fake) moveSlot(s host.Slot) host.Move {
	old, ok := f.slots[s.Name]
	moved := old
	moved.RestartLSN, moved.ConfirmedFlushLSN, moved.CatalogXmin = s.RestartLSN, s.ConfirmedFlushLSN, s.CatalogXmin
	moved.Unsaved = s.Unsaved
	move, planned := f.Moves[s.Name]
	switch {
	case !ok || !old.Marked || old.ActivePID != 0 || old.Invalidated || moved != s || !f.State.InRecovery,
		s.RestartLSN < old.RestartLSN || s.ConfirmedFlushLSN < old.ConfirmedFlushLSN || s.CatalogXmin.Precedes(old.CatalogXmin),
		planned && move == host.MoveRefused:
		return host.MoveRefused
	case move == host.MoveConfirmed:
		old.ConfirmedFlushLSN = s.ConfirmedFlushLSN
		f.slots[s.Name] = old
		return host.MoveConfirmed
	}
	if _, ahead := f.disk[s.Name]; !ahead {
		f.disk[s.Name] = old
	}
	moved.Unsaved = old.Unsaved || old.RestartLSN != s.RestartLSN || old.CatalogXmin != s.CatalogXmin
	f.slots[s.Name] = moved
	return host.MoveAll
}

// SaveSlot is SaveSlots for one.
func (f *Fake) SaveSlot(ctx context.Context, s host.Slot) error {
	end, err := f.begin(ctx, "SaveSlot", s.Name)
	if err != nil {
		return err
	}
	defer end()
	old, ok := f.slots[s.Name]
	if !ok || !old.Marked || old.Marker != s.Marker || !f.State.InRecovery {
		return host.Errorf("42704", "replication slot \"%s\" is not the copy that it was", s.Name)
	}
	old.RestartLSN, old.CatalogXmin = max(old.RestartLSN, s.RestartLSN), s.CatalogXmin
	held, ahead := f.disk[s.Name]
	delete(f.disk, s.Name)
	if old.Unsaved = !s.Unsaved && ahead; old.Unsaved {
		disk := old
		disk.CatalogXmin = held.CatalogXmin
		f.disk[s.Name] = disk
	}
	f.slots[s.Name] = old
	return nil
}

// Disk returns the slots as they are on disk; what they hold back is what is there.
func (f *Fake) Disk() (slots []host.Slot) {
	f.Lock(func() {
		disk := maps.Clone(f.slots)
		maps.Copy(disk, f.disk)
		slots = slices.Collect(maps.Values(disk))
	})
	return slots
}

// Crash brings back what is on disk.
func (f *Fake) Crash() {
	f.Lock(func() {
		maps.Copy(f.slots, f.disk)
		clear(f.disk)
	})
}

// DropSlot is DropSlots for one.
func (f *Fake) DropSlot(ctx context.Context, name string) error {
	end, err := f.begin(ctx, "DropSlot", name)
	if err != nil {
		return err
	}
	defer end()
	s, ok := f.slots[name]
	leftover := s.Logical && !s.Temporary && (s.Failover && !s.Synced || f.State.ServerVersionNum < 160000)
	switch {
	case !f.State.InRecovery || f.State.PromoteTriggered:
		return host.Errorf("55000", "no standby")
	case !ok:
		return host.Errorf("42704", "replication slot \"%s\" does not exist", name)
	case s.ActivePID != 0:
		return host.Errorf("55006", "replication slot \"%s\" is active", name)
	case !s.Marked && !s.Synced && !leftover:
		return host.Errorf("55000", "replication slot \"%s\" is not a copy", name)
	}
	delete(f.slots, name)
	delete(f.disk, name)
	return nil
}

// DropPromoted implements host.Host.
func (f *Fake) DropPromoted(ctx context.Context, name string) error {
	end, err := f.begin(ctx, "DropPromoted", name)
	if err != nil {
		return err
	}
	defer end()
	if s, ok := f.slots[name]; !ok || !s.Marked {
		return host.Errorf("55000", "replication slot \"%s\" is not a copy", name)
	}
	delete(f.slots, name)
	return nil
}

// WALAvailable implements host.Host.
func (f *Fake) WALAvailable(ctx context.Context, lsn host.LSN) (bool, error) {
	end, err := f.begin(ctx, "WALAvailable", lsn.String())
	if err != nil {
		return false, err
	}
	defer end()
	return lsn >= f.OldestWAL, nil
}

// IsRunningXacts implements host.Host.
func (f *Fake) IsRunningXacts(ctx context.Context, lsn host.LSN) (bool, error) {
	end, err := f.begin(ctx, "IsRunningXacts", lsn.String())
	if err != nil {
		return false, err
	}
	defer end()
	return !f.Starts[lsn], nil
}
