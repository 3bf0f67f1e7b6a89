package slotsync

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// cascade puts a standby between this one and the primary.
func (b *bench) cascade() {
	b.host.Values["replsync.primary_conninfo"], b.host.Values["primary_conninfo"] = "host=p", betweenConninfo
	b.primary.state.Physical = primary.PhysicalSlot{} // as for the name of this standby's slot
	b.between = &fakePrimary{state: primary.State{
		InRecovery: true, SystemIdentifier: 42, PostmasterStart: "7", PrimarySlotName: "between", Feedback: true,
		Physical: primary.PhysicalSlot{Exists: true, WalSender: "20@1"},
	}}
	b.primary.physical = map[string]primary.PhysicalSlot{"between": {Exists: true, WalSender: "10@1"}}
	b.feedback(false)
}

// hold is what the two physical slots hold.
func (b *bench) hold(between, there host.XID) {
	b.between.state.Physical.CatalogXmin = between
	s := b.primary.physical["between"]
	s.CatalogXmin = there
	b.primary.physical["between"] = s
}

func TestCascade(t *testing.T) {
	inBench(t, 16, func(t *testing.T, b *bench) {
		b.cascade()
		b.primary.state.Slots = []primary.Slot{row("a")}
		b.pass("a created waiting feedback_pending")
		b.hold(0, 650)
		b.pass("a unchanged waiting feedback_pending")
		b.hold(700, 0)
		b.pass("a unchanged waiting feedback_pending")
		b.hold(700, 650)
		time.Sleep(time.Second) // of the fake clock
		b.pass("a updated ready")
		name, cascaded := b.worker.record.slot(&Settings{PrimarySlotName: "standby"})
		require.Equal(t, "between", name)
		require.True(t, cascaded)

		// The younger of the two counts, and a restart of the one in between is a lapse.
		b.primary.slot("a").CatalogXmin, b.primary.slot("a").ConfirmedFlushLSN = 710, 6000
		b.hold(705, 650)
		b.between.state.PostmasterStart = "8"
		b.pass("a skipped waiting catalog_xmin_not_protected")
	})
}

func TestCascadeRefusals(t *testing.T) {
	tests := map[string]struct {
		major int
		spoil func(b *bench)
		want  string
	}{
		"15":            {15, func(*bench) {}, "cascading standby of this version"},
		"no slot here":  {16, func(b *bench) { b.between.state.Physical = primary.PhysicalSlot{} }, "does not exist on the standby"},
		"no feedback":   {16, func(b *bench) { b.between.state.Feedback = false }, "does not pass hot standby feedback on"},
		"no slot name":  {16, func(b *bench) { b.between.state.PrimarySlotName = "" }, "does not pass hot standby feedback on"},
		"no slot there": {16, func(b *bench) { b.primary.physical = nil }, `"between" does not exist on the primary`},
		"the primary":   {16, func(b *bench) { b.between.state.InRecovery = false }, `"standby" does not exist on the primary`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBench(t, test.major, func(t *testing.T, b *bench) {
				b.with(row("a"))
				b.cascade()
				test.spoil(b)
				_, _, err := b.turn(host.Wakeup{})
				require.NoError(t, err)
				pass := b.host.Passes()[0]
				require.ErrorContains(t, pass.Err, test.want)
				require.Equal(t, stateWaiting, pass.Slots[0].State)
				b.usable("a", false)
			})
		})
	}
}
