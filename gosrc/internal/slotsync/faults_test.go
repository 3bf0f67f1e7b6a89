package slotsync

import (
	"errors"
	"testing"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// One slot's trouble is its own.
func TestFaults(t *testing.T) {
	tests := []struct {
		fault  string
		err    error
		row    string
		action string // of the row, if not the rule
	}{
		{"CreateSlot bad", errors.New("disk full"), "bad failed failed error", ""},
		{"CreateSlot bad", host.Errorf("3D000", "no database"), "bad skipped waiting database_not_replayed", ""},
		{"CreateSlot bad", host.Errorf("53400", "no slot"), "bad skipped waiting no_free_slot", ""},
		{"CreateSlot bad", host.Errorf("58P01", "no WAL"), "bad skipped waiting wal_or_rows_removed", ""},
		{"UpdateSlot moved", errors.New("disk full"), "moved failed failed error", ""},
		{"UpdateSlot moved", host.Errorf("55006", "active"), "moved skipped waiting slot_in_use", ""},
		{"DropSlot gone", errors.New("disk full"), "gone failed failed error", ""},
		{"DropSlot gone", host.Errorf("55006", "active"), "gone skipped waiting slot_in_use", ""},
		{"DropSlot gone", host.Errorf("42704", "does not exist"), "gone dropped", ""},
	}
	for _, tt := range tests {
		t.Run(tt.fault+" "+tt.err.Error(), func(t *testing.T) {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.with(row("gone"), row("moved"), row("also_moved"))
				b.primary.drop("gone")
				b.primary.slot("moved").ConfirmedFlushLSN = 1200
				b.primary.slot("also_moved").ConfirmedFlushLSN = 1200
				b.primary.state.Slots = append(b.primary.state.Slots, row("bad"), row("fine"))
				b.host.Faults[tt.fault] = tt.err
				b.host.Moves["moved"] = host.MoveRefused
				want := map[string]string{
					"also_moved": "also_moved updated ready", "bad": "bad created ready", "fine": "fine created ready",
					"gone": "gone dropped", "moved": "moved updated ready",
				}
				for name := range want {
					if tt.fault[len(tt.fault)-len(name):] == name && tt.fault[len(tt.fault)-len(name)-1] == ' ' {
						want[name] = tt.row
					}
				}
				b.pass(want["also_moved"], want["bad"], want["fine"], want["gone"], want["moved"])
			})
		})
	}
}

func TestMappingsOfOneDatabase(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		other := row("other")
		other.DatabaseOID = 6
		b.primary.state.Slots = []primary.Slot{row("a"), other}
		b.primary.mapErr = map[uint32]error{6: errors.New("I/O error")}
		b.pass("a created ready", "other failed failed error")
	})
}

// A code that the primary has raised says nothing about what is missing here.
func TestErrorsOfThePrimaryAreErrors(t *testing.T) {
	for _, code := range []string{"58P01", "53400", "55006", "3D000"} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.primary.fileErr[1000] = host.Errorf(code, "trouble at the primary")
			b.pass("a failed failed error")
		})
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.primary.state.Slots = []primary.Slot{row("a")}
			b.primary.mapErr = map[uint32]error{5: host.Errorf(code, "trouble at the primary")}
			b.pass("a failed failed error")
		})
	}
}
