package failover

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// well is a standby with one copy, "a", of which nothing is wrong.
func well(version int) *Facts {
	return &Facts{
		Now: now,
		Here: Here{
			Recovery: host.Recovery{
				InRecovery: true, ServerVersionNum: version, FlushLSN: 2000, ReplayLSN: 1900,
			},
			Slots:     []host.Slot{{Name: "a", Logical: true, Marked: true, ConfirmedFlushLSN: 1000}},
			IsCopy:    func(s host.Slot) bool { return s.Marked },
			SyncSlots: true, HotStandbyFeedback: true, StatusInterval: 10, NaptimeMax: 10 * time.Second,
			PrimarySlotName: "standby", WALLevel: "logical", MaxReplicationSlots: 10, MaxSlotWALKeepSize: "-1",
			OutputPlugins: `pgoutput, "test_decoding"`,
		},
		There: &primary.Inspection{
			State: &primary.State{
				VersionNum: version, WALLevel: "logical", Timeline: 1,
				Physical: primary.PhysicalSlot{Exists: true, CatalogXmin: 700},
				Slots:    []primary.Slot{{Name: "a", ConfirmedFlushLSN: 1000}},
				Files:    primary.ByExtension,
			},
			Role: "r", Active: true, HoldBack: "standby", FlushLSN: 2000,
		},
		NoAccess: &host.Message{Text: "permission denied", Hint: "GRANT"},
		Passes: Passes{
			Rows: []host.SlotStatus{{
				Name: "a", Plugin: "pgoutput", State: stateReady, RemoteConfirmedFlushLSN: 1000, LastSyncAt: now.Add(-time.Second),
			}},
			Last: now.Add(-time.Second),
		},
		Kept: map[string]bool{"a": true},
	}
}

// another makes another slot on the primary.
func (f *Facts) another() {
	f.Kept["b"] = true
	f.There.Slots = append(f.There.Slots, primary.Slot{Name: "b"})
}

// gone takes the primary away.
func (f *Facts) gone() {
	f.There, f.Kept = nil, nil
	f.ThereErr = &host.Message{SQLState: "08006", Text: "could not connect"}
	f.Passes.Failed = f.ThereErr
	f.Passes.Trying = f.Passes.Last.Add(time.Second)
}

// verdict returns the rows that are not true, as "f setting wal_level" or "? primary".
func verdict(t *testing.T, f *Facts) (ready bool, rows []string) {
	t.Helper()
	ready = true
	for _, r := range Check(*f) {
		require.Regexp(t, `^[A-Z0-9].*\.$`, r.Detail, "a sentence")
		if r.OK != nil && *r.OK {
			continue
		}
		require.NotEmpty(t, r.Hint, "%v", r)
		mark := "?"
		if r.OK != nil {
			mark, ready = "f", false
		}
		rows = append(rows, fmt.Sprintf("%s %s %s", mark, r.Name, r.Object))
	}
	return ready, rows
}

func TestWell(t *testing.T) {
	for _, version := range []int{150020, 160016, 170011, 180006, 190000} {
		ready, rows := verdict(t, well(version))
		require.True(t, ready)
		require.Empty(t, rows)
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		spoil func(f *Facts)
		want  []string
	}{
		"worker is blocked": {func(f *Facts) { f.Passes.Refused = &host.Message{Text: "x", Hint: "h"} }, []string{"f worker "}},
		"worker fails":      {func(f *Facts) { f.Passes.Failed = &host.Message{Text: "x"} }, []string{"f worker "}},
		"worker is off":     {func(f *Facts) { f.Here.SyncSlots = false }, nil},
		"wrong server": {func(f *Facts) {
			f.There, f.Kept = nil, nil
			f.ThereErr, f.Elsewhere = &host.Message{Text: "x", Hint: "h"}, true
		}, []string{"f primary ", "? rights ", "? physical_slot standby", "? lag "}},
		"no pass yet": {func(f *Facts) { f.Passes.Last = time.Time{} }, []string{"f last_pass "}},
		"pass is old": {func(f *Facts) { f.Passes.Last = now.Add(-time.Minute) }, []string{"f last_pass "}},
		"pass is not so old": {func(f *Facts) {
			f.Passes.Last, f.Here.NaptimeMax = now.Add(-time.Minute), time.Minute
		}, nil},
		"long pass under way": {func(f *Facts) { f.Passes.Last, f.Passes.Trying = now.Add(-time.Minute), now.Add(-50*time.Second) }, nil},
		"core synchronizes":   {func(f *Facts) { f.Here.CoreSync = true }, []string{"f setting sync_replication_slots"}},
		"feedback":            {func(f *Facts) { f.Here.HotStandbyFeedback = false }, []string{"f setting hot_standby_feedback"}},
		"interval":            {func(f *Facts) { f.Here.StatusInterval = 0 }, []string{"f setting wal_receiver_status_interval"}},
		"slot name":           {func(f *Facts) { f.Here.PrimarySlotName = "" }, []string{"f setting primary_slot_name", "? hold_back synchronized_standby_slots"}},
		"wal_level":           {func(f *Facts) { f.Here.WALLevel = "replica" }, []string{"f setting wal_level"}},
		"wal_level there":     {func(f *Facts) { f.There.WALLevel = "replica" }, []string{"f primary_setting wal_level"}},
		"no room": {func(f *Facts) {
			f.another()
			f.Here.MaxReplicationSlots = 2
		}, []string{"f setting max_replication_slots", "f slot b"}},
		"full of copies":  {func(f *Facts) { f.Here.MaxReplicationSlots = 1 }, nil},
		"advice":          {func(f *Facts) { f.Here.MaxSlotWALKeepSize, f.Here.IdleTimeout = "1", "1" }, nil},
		"plugin":          {func(f *Facts) { f.Passes.Rows[0].Plugin = "wal2json" }, []string{"f output_plugin wal2json"}},
		"rights":          {func(f *Facts) { f.There.Files = primary.NoAccess }, []string{"f rights r"}},
		"no such slot":    {func(f *Facts) { f.There.Physical = primary.PhysicalSlot{} }, []string{"f physical_slot standby"}},
		"slot is lost":    {func(f *Facts) { f.There.Lost = true }, []string{"f physical_slot standby"}},
		"slot is idle":    {func(f *Facts) { f.There.Active = false }, []string{"f physical_slot standby"}},
		"no catalog_xmin": {func(f *Facts) { f.There.Physical.CatalogXmin = 0 }, []string{"f feedback standby"}},
		"no hold-back":    {func(f *Facts) { f.There.HoldBack = "" }, []string{"? hold_back synchronized_standby_slots"}},
		"cascaded":        {func(f *Facts) { f.Here.Cascaded = true }, []string{"? hold_back synchronized_standby_slots"}},
		"other hold-back": {func(f *Facts) { f.There.HoldBack = "a, b" }, []string{"? hold_back synchronized_standby_slots"}},
		"hold-back here":  {func(f *Facts) { f.Here.HoldBack = "standby" }, []string{"f hold_back_after_promotion synchronized_standby_slots"}},
		"hold-back here, by a slot": {func(f *Facts) {
			f.Here.HoldBack, f.Here.Slots = "other", append(f.Here.Slots, host.Slot{Name: "other"})
		}, nil},
		"hold-back here, by any of two": {func(f *Facts) {
			f.Here.HoldBack, f.Here.Slots = "ANY 1 (standby, other)", append(f.Here.Slots, host.Slot{Name: "other"})
		}, nil},
		"slot waits": {func(f *Facts) {
			f.Passes.Rows[0].State, f.Passes.Rows[0].Reason, f.Passes.Rows[0].Hint = "waiting", "feedback_pending", "h"
		}, []string{"f slot a"}},
		"slot failed": {func(f *Facts) {
			f.Passes.Rows[0].State, f.Passes.Rows[0].Reason, f.Passes.Rows[0].Error = "failed", "error", "x"
		}, []string{"f slot a"}},
		"slot is foreign": {func(f *Facts) {
			f.Passes.Rows[0].State, f.Passes.Rows[0].Hint, f.Here.Slots[0].Marked = stateForeign, "h", false
		}, []string{"f leftover a"}},
		"not wanted": {func(f *Facts) {
			f.Passes.Rows[0].State, f.Passes.Rows[0].Reason, f.Passes.Rows[0].Hint = "waiting", reasonNotWanted, "h"
			f.Here.Slots = append(f.Here.Slots, host.Slot{Name: "b", Logical: true, Marked: true})
			f.Passes.Rows = append(f.Passes.Rows, host.SlotStatus{Name: "b", State: stateReady})
		}, nil},
		"another slot":        {func(f *Facts) { f.Here.Slots = append(f.Here.Slots, host.Slot{Name: "z", Logical: true}) }, nil},
		"copy is gone":        {func(f *Facts) { f.Here.Slots = nil }, []string{"f slot a"}},
		"copy is invalidated": {func(f *Facts) { f.Here.Slots[0].Invalidated = true }, []string{"f slot a"}},
		"copy without a pass": {func(f *Facts) { f.Passes.Rows = nil }, []string{"f slot a"}},
		"new slot":            {(*Facts).another, []string{"f slot b"}},
		"slot is gone there":  {func(f *Facts) { f.There.Slots, f.Kept = nil, nil }, nil},
		"ahead, and it comes": {func(f *Facts) { f.There.Slots[0].ConfirmedFlushLSN = 2500 }, nil},

		"primary is gone": {(*Facts).gone, []string{"? primary ", "? rights ", "? physical_slot standby", "? lag "}},
		"gone for long": {func(f *Facts) {
			f.gone()
			f.Now = now.Add(100 * time.Hour)
		}, []string{"? primary ", "? rights ", "? physical_slot standby", "? lag "}},
		"gone for the worker alone": {func(f *Facts) {
			f.gone()
			f.Passes.LastWAL = now.Add(time.Minute)
			f.Now = now.Add(100 * time.Hour)
		}, []string{"? primary ", "f last_pass ", "? rights ", "? physical_slot standby", "? lag "}},
		"off for long, then gone": {func(f *Facts) {
			f.gone()
			f.Here.SyncSlots, f.Passes.Trying, f.Passes.Failed = false, time.Time{}, nil
			f.Now = now.Add(time.Minute)
		}, []string{"? primary ", "f last_pass ", "? rights ", "? physical_slot standby", "? lag "}},
		"gone, and the consumer ahead": {func(f *Facts) {
			f.gone()
			f.Passes.Rows[0].RemoteConfirmedFlushLSN = 2500
		}, []string{"? primary ", "? rights ", "? physical_slot standby", "f slot a", "? lag "}},
		"gone before the first pass": {func(f *Facts) {
			f.gone()
			f.Passes.Last = time.Time{}
		}, []string{"? primary ", "? last_pass ", "? rights ", "? physical_slot standby", "? lag "}},
		"gone before the first pass, and no copy": {func(f *Facts) {
			f.gone()
			f.Passes.Last, f.Passes.Rows, f.Here.Slots = time.Time{}, nil, nil
		}, []string{"? primary ", "? last_pass ", "? rights ", "? physical_slot standby", "? slots ", "? lag "}},

		"nothing to keep": {func(f *Facts) {
			f.There.Slots, f.Kept, f.Passes.Rows, f.Here.Slots = nil, nil, nil, nil
			f.Here.HotStandbyFeedback = false
		}, []string{"? setting hot_standby_feedback"}},
		"nothing to keep, and gone": {func(f *Facts) {
			f.gone()
			f.Passes.Rows, f.Here.Slots = nil, nil
		}, []string{"? primary ", "? rights ", "? physical_slot standby", "? lag "}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := well(170011)
			test.spoil(f)
			ready, rows := verdict(t, f)
			require.Equal(t, test.want, rows)
			require.Equal(t, !slices.ContainsFunc(test.want, func(s string) bool { return s[0] == 'f' }), ready)
		})
	}
}

// The releases are those that the fixes came with.
func TestReleases(t *testing.T) {
	for version, update := range map[int]string{
		150012: "Update to 15.16 or later.", 150015: "Update to 15.16 or later.", 150016: "", 160011: "Update to 16.12 or later.",
		170007: "Update to 17.8 or later.", 180001: "Update to 18.2 or later.", 180002: "", 190000: "",
	} {
		for _, row := range Check(*well(version)) {
			require.True(t, *row.OK)
			if row.Name == checkRelease {
				require.Equal(t, update, row.Hint, version)
			}
		}
	}
}

func TestPhysicalSlots(t *testing.T) {
	for value, want := range map[string]string{
		"": "[] 0", "a": "[a] 1", " a , \"b\" ": "[a b] 2", "ANY 1 (a, b)": "[a b] 1", "first 2(a,b,c)": "[a b c] 2", "ANY (": "[] 0",
	} {
		names, enough := physicalSlots(value)
		require.Equal(t, want, fmt.Sprint(names, " ", enough), value)
	}
}

// The README explains each word, and no other.
func TestChecksAreDocumented(t *testing.T) {
	words := func(text, pattern string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	_, table, found := strings.Cut(read("../../../README.md"), "| check_name |")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	known := append(words(read("check.go"), `(?m)^\tcheck\w+ += "(\w+)"`), "standby", "rows") // these two are of ext/check.c
	slices.Sort(known)
	require.Equal(t, known, words(table, "(?m)^\\| `([a-z_]+)` \\|"))
}
