package slotsync

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/host/hosttest"
	"github.com/replsync/replsync/gosrc/internal/logicalfiles"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// fakePrimary is a primary in memory.
type fakePrimary struct {
	state     primary.State
	snapshots map[host.LSN][]byte
	mappings  map[string][]byte // for every database
	err       error             // of Read
	fetchErr  error             // of Snapshots and Mappings
	keepErr   error             // of KeepRows
	fileErr   map[host.LSN]error
	mapErr    map[uint32]error
	onRead    func() // before a read
	onFetch   func() // before snapshots are read
	calls     []string
	closed    bool

	inspection primary.Inspection
	hang       bool                            // Read waits for its end
	physical   map[string]primary.PhysicalSlot // others than that of state
}

func (p *fakePrimary) Read(ctx context.Context, physicalSlot string) (*primary.State, error) {
	p.calls = append(p.calls, "Read "+physicalSlot)
	if p.onRead != nil {
		p.onRead()
	}
	if p.hang {
		<-ctx.Done()
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if p.err != nil {
		return nil, p.err
	}
	s := p.state
	s.Slots = slices.Clone(s.Slots)
	if other, ok := p.physical[physicalSlot]; ok {
		s.Physical = other
	}
	return &s, nil
}

func (p *fakePrimary) Inspect(ctx context.Context, physicalSlot string) (*primary.Inspection, error) {
	state, err := p.Read(ctx, physicalSlot)
	if err != nil {
		return nil, err
	}
	found := p.inspection
	found.State = state
	return &found, nil
}

func (p *fakePrimary) Snapshots(ctx context.Context, lsns []host.LSN) (map[host.LSN]primary.Snapshot, error) {
	slices.Sort(lsns)
	p.calls = append(p.calls, fmt.Sprintf("Snapshots %v", lsns))
	if p.onFetch != nil {
		p.onFetch()
	}
	if p.fetchErr != nil {
		return nil, p.fetchErr
	}
	found := map[host.LSN]primary.Snapshot{}
	for _, lsn := range lsns {
		found[lsn] = primary.Snapshot{Content: p.snapshots[lsn], Err: p.fileErr[lsn]}
	}
	return found, ctx.Err()
}

func (p *fakePrimary) Mappings(ctx context.Context, sources []primary.Source, file func(string, []byte) error) error {
	for _, s := range sources {
		p.calls = append(p.calls, fmt.Sprintf("Mappings %d %s", s.Database, s.From))
	}
	if p.fetchErr != nil {
		return p.fetchErr
	}
	for _, s := range sources {
		if err := p.mapErr[s.Database]; err != nil {
			return err
		}
	}
	for name, content := range p.mappings {
		if err := file(name, content); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// KeepRows does what replsync_keep_catalog_rows() does.
func (p *fakePrimary) KeepRows(ctx context.Context, physicalSlot string, xid host.XID) error {
	p.calls = append(p.calls, fmt.Sprintf("KeepRows %s %d", physicalSlot, xid))
	if p.keepErr != nil {
		return p.keepErr
	}
	oldest := host.XID(0)
	for _, s := range p.state.Slots {
		if x := s.CatalogXmin; s.Invalidation == "" && (oldest == 0 || x.Precedes(oldest)) {
			oldest = x
		}
	}
	if xid.Precedes(oldest) {
		xid = oldest
	}
	if kept := &p.state.Physical.CatalogXmin; oldest != 0 && *kept != 0 && xid.Precedes(*kept) {
		*kept = xid
	}
	return ctx.Err()
}

func (p *fakePrimary) Watch(context.Context, time.Duration, func()) bool { return false }
func (p *fakePrimary) ErrNoAccess() error {
	return host.Errorf("42501", "permission denied to read files")
}
func (p *fakePrimary) Close() { p.closed = true }

func (p *fakePrimary) slot(name string) *primary.Slot {
	for i := range p.state.Slots {
		if p.state.Slots[i].Name == name {
			return &p.state.Slots[i]
		}
	}
	return nil
}

func (p *fakePrimary) drop(name string) {
	p.state.Slots = slices.DeleteFunc(p.state.Slots, func(s primary.Slot) bool { return s.Name == name })
}

// snapshotFile is a file as SnapBuildSerialize writes it, as far as anybody looks.
func snapshotFile(body string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x51A1E001)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 5)
	b = binary.LittleEndian.AppendUint32(b, uint32(16+len(body)))
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// bench is a standby and a primary without servers.
type bench struct {
	t       *testing.T
	dir     string
	host    *hosttest.Fake
	primary *fakePrimary
	between *fakePrimary // a standby that this one streams from
	worker  *Worker
}

const betweenConninfo = "host=between"

// inBench runs a test with a clock of its own (testing/synctest): time.Sleep in it takes no time, and is exact. It is how these
// tests let naps and timeouts go by.
func inBench(t *testing.T, major int, f func(t *testing.T, b *bench)) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"snapshots", "mappings"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "pg_logical", d), 0o700))
	}
	conf := filepath.Join(dir, "postgresql.conf")
	require.NoError(t, os.WriteFile(conf, nil, 0o600))
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, dir: dir, host: hosttest.New()}
		b.host.State = standby(major)
		b.host.State.ReloadTime = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
		b.host.Values = map[string]string{
			"replsync.sync_slots": "on", "replsync.slots": "*", "primary_conninfo": "host=p password=secret",
			"replsync.slot_naptime_min": "100", "replsync.slot_naptime_max": "1600",
			"primary_slot_name": "standby", "hot_standby_feedback": "on", "wal_receiver_status_interval": "10",
			"wal_level": "logical", "config_file": conf, "data_directory": dir,
		}
		b.primary = &fakePrimary{
			state: primary.State{
				VersionNum: major*10000 + 1, WALLevel: "logical", SystemIdentifier: 42, Timeline: 3, PostmasterStart: "1",
				Physical: primary.PhysicalSlot{Exists: true, WalSender: "10@1"},
				Files:    primary.ByExtension,
			},
			snapshots: map[host.LSN][]byte{1000: snapshotFile("one"), 1050: snapshotFile("two")},
			mappings:  map[string][]byte{},
			fileErr:   map[host.LSN]error{},
		}
		b.restart()
		b.feedback(true)
		f(t, b)
	})
}

// restart replaces the worker by one without memory.
func (b *bench) restart() {
	files, err := logicalfiles.Open(b.dir)
	require.NoError(b.t, err)
	b.worker = New(b.host, files, func(_ context.Context, _ host.Host, s *Settings) (Primary, error) {
		if b.between != nil && s.Conninfo == betweenConninfo {
			return b.between, nil
		}
		b.primary.closed = false
		return b.primary, nil
	})
}

// feedback makes requests for it work, or not.
func (b *bench) feedback(works bool) {
	b.host.Before = func(call string) {
		if works && call == "RequestFeedback now" {
			b.feed()
		}
	}
}

// feed is one feedback message (PhysicalReplicationSlotNewXmin).
func (b *bench) feed() {
	slots := b.host.Disk()
	if xmin := b.host.ReservedXmin(); xmin != 0 {
		slots = append(slots, host.Slot{CatalogXmin: xmin})
	}
	oldest, p := oldestXmin(slots), &b.primary.state.Physical.CatalogXmin
	if *p == 0 || oldest == 0 || p.Precedes(oldest) {
		*p = oldest
	}
}

// protect has the primary act on feedback from the start.
func (b *bench) protect(p host.XID) { b.primary.state.Physical.CatalogXmin = p }

// turn is one wake-up.
func (b *bench) turn(wake host.Wakeup) (time.Duration, host.State, error) {
	return b.worker.turn(b.t.Context(), wake)
}

// pass is one pass that must not fail; rows are "name action state reason".
func (b *bench) pass(want ...string) {
	b.t.Helper()
	require.NoError(b.t, b.passErr(want...))
}

func (b *bench) passErr(want ...string) error {
	b.t.Helper()
	b.worker.due = time.Time{}
	_, _, err := b.turn(host.Wakeup{Timeout: true, Sync: true})
	require.NoError(b.t, err)
	passes := b.host.Passes()
	require.Len(b.t, passes, 1)
	var rows []string
	for _, r := range passes[0].Slots {
		rows = append(rows, strings.TrimSpace(strings.Join([]string{r.Name, r.Action, r.State, r.Reason}, " ")))
		require.Equal(b.t, reason(r.Reason).hint(r.Name) == "", r.Hint == "", r.Name)
	}
	require.Equal(b.t, want, rows)
	require.Zero(b.t, b.host.Reserved(), "the reservation outlives the pass")
	return passes[0].Err
}

// calls compares what this server was asked to do, but for the reservation and questions.
func (b *bench) calls(want ...string) {
	b.t.Helper()
	calls := slices.DeleteFunc(b.host.Calls(), func(c string) bool {
		return strings.HasPrefix(c, "ReserveWAL") || strings.HasPrefix(c, "WALAvailable") || strings.HasPrefix(c, "IsRunningXacts")
	})
	require.Equal(b.t, want, calls)
}

// asked compares what the primary was asked, and forgets it.
func (b *bench) asked(want ...string) {
	b.t.Helper()
	require.Equal(b.t, want, b.primary.calls)
	b.primary.calls = nil
}

func (b *bench) slot(name string) host.Slot {
	b.t.Helper()
	s, ok := b.host.Slot(name)
	require.True(b.t, ok, name)
	return s
}

// usable compares whether a copy looks usable.
func (b *bench) usable(name string, want bool) {
	b.t.Helper()
	s := b.slot(name)
	mark, ok := parseMarker(s.Marker)
	require.True(b.t, ok)
	require.Equal(b.t, want, s.Plugin != placeholder)
	require.Equal(b.t, want, mark.Proven)
	if !want {
		require.False(b.t, s.Failover)
		require.False(b.t, s.Synced)
	}
}

// with brings a bench to where slots have ready copies.
func (b *bench) with(slots ...primary.Slot) {
	b.t.Helper()
	b.primary.state.Slots = append(b.primary.state.Slots, slots...)
	for _, s := range slots {
		b.host.Put(copyOf(s))
	}
	if b.primary.state.Physical.CatalogXmin == 0 {
		b.protect(700)
	}
	_, _, err := b.turn(host.Wakeup{})
	require.NoError(b.t, err)
	for _, r := range b.host.Passes()[0].Slots {
		require.Equal(b.t, stateReady, r.State)
	}
	b.host.Calls()
	b.host.Logs()
	b.primary.calls = nil
}

func (b *bench) snapshotHere(lsn host.LSN) []byte {
	content, err := os.ReadFile(filepath.Join(b.dir, "pg_logical", "snapshots", logicalfiles.SnapshotName(lsn)))
	if err != nil {
		require.ErrorIs(b.t, err, os.ErrNotExist)
	}
	return content
}
