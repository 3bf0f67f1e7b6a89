package regress_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestSlotLifecycle follows slots of the primary from their creation to their end, pass by pass.
func TestSlotLifecycle(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, onDemand)
		p.primary.Exec(t, "create database other")
		story(t, "new moved dropped", p.testNewMovedDropped)
		story(t, "recreated", p.testRecreated)
		story(t, "dropped by another", p.testDroppedByAnother)
		story(t, "patterns", p.testPatterns)
		story(t, "flags", p.testFlags)
		story(t, "nothing left between passes", p.testNothingLeft)
		story(t, "drop_slots", p.testDropSlots)
		story(t, "restart and crash", p.testRestartAndCrash)
		story(t, "invalidated here", p.testInvalidatedHere)
		story(t, "invalidated on the primary", p.testInvalidatedThere)
	})
}

// clear drops all logical slots of the primary, and with a pass their copies.
func (p *pair) clear(t *testing.T) {
	t.Helper()
	p.primary.Exec(t, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_type = 'logical'")
	syncSlots(t, p.standby)
	p.requireCopies(t)
}

func (p *pair) testNewMovedDropped(t *testing.T) {
	require.Empty(t, syncSlots(t, p.standby))
	p.createSlot(t, "postgres", "a", "pgoutput")
	p.createSlot(t, "other", "b", "test_decoding")
	p.primary.WaitReplayed(t, p.standby)
	rows := syncSlots(t, p.standby)
	require.Len(t, rows, 2)
	require.Equal(t, "created", rows["a"].Action)
	require.Equal(t, "created", rows["b"].Action)
	require.Equal(t, "postgres", rows["a"].Database)
	require.Equal(t, "other", rows["b"].Database)
	p.syncReady(t, "a", "b")

	rows = syncSlots(t, p.standby)
	require.Equal(t, syncRow{SlotName: "a", Database: "postgres", Action: "unchanged", Ready: true}, rows["a"])
	here := p.standby.Slots(t)
	require.Equal(t, "pgoutput", here["a"].Plugin)
	require.Equal(t, "test_decoding", here["b"].Plugin)
	require.Equal(t, "other", here["b"].Database)
	require.False(t, here["a"].Active)

	p.move(t, "postgres", "a")
	p.primary.WaitReplayed(t, p.standby)
	rows = syncSlots(t, p.standby)
	require.Equal(t, "updated", rows["a"].Action, "%+v", rows)
	require.Equal(t, "unchanged", rows["b"].Action, "%+v", rows)
	there := p.primary.Slots(t)
	here = p.standby.Slots(t)
	require.Equal(t, there["a"].RestartLSN, here["a"].RestartLSN)
	require.Equal(t, there["a"].ConfirmedFlushLSN, here["a"].ConfirmedFlushLSN)

	row := slotStatus(t, p.standby)["a"]
	require.Equal(t, "ready", row.State)
	require.Equal(t, lsn(*there["a"].ConfirmedFlushLSN), row.RemoteConfirmedFlushLSN)
	require.Equal(t, lsn(*here["a"].RestartLSN), row.RestartLSN)
	require.NotNil(t, row.LagBytes)
	require.Zero(t, *row.LagBytes)
	require.NotNil(t, row.LastSyncAt)
	require.Zero(t, row.ErrorCount)

	require.DirExists(t, p.standbyFile("pg_replslot/a"))
	p.dropSlot(t, "a")
	require.Equal(t, "dropped", syncSlots(t, p.standby)["a"].Action)
	require.NotContains(t, p.standby.Slots(t), "a")
	require.NoDirExists(t, p.standbyFile("pg_replslot/a"))
	require.NotContains(t, slotStatus(t, p.standby), "a")
	require.NotContains(t, syncSlots(t, p.standby), "a")
	p.clear(t)
}

func (p *pair) standbyFile(name string) string { return filepath.Join(p.standby.DataDir(), name) }

func (p *pair) testRecreated(t *testing.T) {
	p.createSlot(t, "postgres", "r", "pgoutput")
	p.syncReady(t, "r")

	p.dropSlot(t, "r")
	p.createSlot(t, "postgres", "r", "test_decoding")
	p.primary.WaitReplayed(t, p.standby)
	require.Equal(t, "created", syncSlots(t, p.standby)["r"].Action)
	p.syncReady(t, "r")
	require.Equal(t, "test_decoding", p.standby.Slots(t)["r"].Plugin)

	p.dropSlot(t, "r")
	p.createSlot(t, "other", "r", "test_decoding")
	p.syncReady(t, "r")
	require.Equal(t, "other", p.standby.Slots(t)["r"].Database)
	p.clear(t)
}

// testDroppedByAnother takes a slot without synced, which anybody may drop on every version.
func (p *pair) testDroppedByAnother(t *testing.T) {
	p.standby.Set(t, "replsync.slots", "d")
	p.primary.CreateSlot(t, "d", cluster.SlotOptions{})
	p.syncReady(t, "d")
	p.standby.Exec(t, "select pg_drop_replication_slot('d')")
	row := slotStatus(t, p.standby)["d"]
	require.Equal(t, "waiting", row.State)
	require.Equal(t, "dropped_by_other", row.Reason)
	require.NotEmpty(t, row.Hint)
	require.Equal(t, "created", syncSlots(t, p.standby)["d"].Action)
	p.syncReady(t, "d")
	p.clear(t)
	p.standby.Unset(t, "replsync.slots")
}

func (p *pair) testPatterns(t *testing.T) {
	for _, name := range []string{"app_a", "app_b", "app_b1", "misc"} {
		p.primary.CreateSlot(t, name, cluster.SlotOptions{})
	}
	p.createSlot(t, "postgres", "marked", "pgoutput")
	p.primary.WaitReplayed(t, p.standby)

	type story struct {
		slots string
		want  []string
	}
	marked, all := []string{"marked"}, []string{"app_a", "app_b", "app_b1", "marked", "misc"}
	unmarked := []string{"app_a", "app_b", "app_b1", "misc"}
	stories := []story{
		{"app_*", []string{"app_a", "app_b", "app_b1"}},
		{"app_?", []string{"app_a", "app_b"}},
		{" app_* , !app_b* ", []string{"app_a"}},
		{"misc,@failover", []string{"misc", "marked"}},
		{"!misc", []string{"app_a", "app_b", "app_b1", "marked"}},
		{"*", all},
		{"", all},
		{"@failover", marked},
		{"@failover,!mark*", nil},
	}
	if p.major < firstFailover {
		stories[3].want = []string{"misc"}
		stories[7].want = nil
	} else {
		stories[6].want = marked
	}
	_ = unmarked
	for _, s := range stories {
		p.standby.Set(t, "replsync.slots", s.slots)
		rows := syncSlots(t, p.standby)
		var made []string
		for name, row := range rows {
			if row.Reason != "not_wanted" {
				made = append(made, name)
			}
		}
		require.ElementsMatch(t, s.want, made, "replsync.slots = '%s'", s.slots)
		for _, name := range s.want {
			require.Contains(t, p.standby.Slots(t), name, "replsync.slots = '%s'", s.slots)
		}
		// What is no longer wanted stays until it is asked for, and says so.
		for name := range p.standby.Slots(t) {
			require.Equal(t, !strings.Contains(strings.Join(s.want, " ")+" ", name+" "), rows[name].Reason == "not_wanted", "%+v", rows[name])
		}
		_, err := p.standby.TryExec(context.Background(), "select replsync.drop_slots()")
		require.NoError(t, err)
	}
	for _, bad := range []string{"a b", "A", "a,,b", "!", "x-y", "@other", strings.Repeat("x", 64)} {
		_, err := p.standby.TryExec(context.Background(), "alter system set replsync.slots = "+cluster.QuoteLiteral(bad))
		requireError(t, err, "22023", `invalid value for parameter "replsync.slots"`)
		pgErr, _ := cluster.AsPgError(err)
		require.NotEmpty(t, pgErr.Hint, "hint for %q", bad)
	}
	p.standby.Unset(t, "replsync.slots")
	p.clear(t)
}

// testFlags: copies of slots that are marked failover look like core's, and no others.
func (p *pair) testFlags(t *testing.T) {
	if p.major < firstFailover {
		return
	}
	p.standby.Set(t, "replsync.slots", "f,n")
	p.createSlot(t, "postgres", "f", "pgoutput")
	p.primary.CreateSlot(t, "n", cluster.SlotOptions{})
	p.syncReady(t, "f", "n")
	here := p.standby.Slots(t)
	require.True(t, here["f"].Failover && here["f"].Synced, "%+v", here["f"])
	require.False(t, here["n"].Failover || here["n"].Synced, "%+v", here["n"])
	// Core's guards see what replsync made.
	_, err := p.standby.TryExec(background(t), "select pg_drop_replication_slot('f')")
	requireError(t, err, "55000", `cannot drop replication slot "f"`)
	_, err = p.standby.TryExec(background(t), "select pg_logical_slot_get_changes('f', null, null)")
	requireError(t, err, "55000", `cannot use replication slot "f" for logical decoding`)

	replicationCommand(t, p.primary, "ALTER_REPLICATION_SLOT n (FAILOVER)")
	replicationCommand(t, p.primary, "ALTER_REPLICATION_SLOT f (FAILOVER false)")
	cluster.Eventually(t, cluster.DefaultDeadline, "the flags to follow", func() error {
		syncSlots(t, p.standby)
		here = p.standby.Slots(t)
		if !here["n"].Failover || !here["n"].Synced || here["f"].Failover || here["f"].Synced {
			return fmt.Errorf("%+v", here)
		}
		return nil
	})
	p.syncReady(t, "f", "n")

	if p.major >= firstAlter {
		replicationCommand(t, p.primary, "ALTER_REPLICATION_SLOT n (TWO_PHASE true)")
		p.syncReady(t, "n")
		require.True(t, p.standby.Slots(t)["n"].TwoPhase)
		const at = "select coalesce(two_phase_at, '0/0') from pg_replication_slots where slot_name = 'n'"
		require.Equal(t, cluster.QueryOne[cluster.LSN](t, p.primary, at), cluster.QueryOne[cluster.LSN](t, p.standby, at))
	}
	p.standby.Unset(t, "replsync.slots")
	p.clear(t)
}

func (p *pair) testNothingLeft(t *testing.T) {
	for i := range 3 {
		p.createSlot(t, "postgres", fmt.Sprintf("n%d", i), "pgoutput")
	}
	conn := p.standby.Connect(t)
	for i := range 30 {
		if i%3 == 0 {
			p.move(t, "postgres", fmt.Sprintf("n%d", i/3%3))
		}
		_, err := conn.Exec(background(t), "select * from replsync.sync_slots()")
		require.NoError(t, err)
		var left int
		require.NoError(t, conn.QueryRow(background(t), `select count(*) from pg_replication_slots where temporary
			or slot_name = 'replsync_reservation' or active or restart_lsn is null`).Scan(&left))
		require.Zero(t, left, "slots that outlive a pass")
	}
	p.clear(t)
}

func (p *pair) testDropSlots(t *testing.T) {
	drop := func(pattern string) (int, error) {
		return cluster.TryQueryOne[int](p.standby, "select replsync.drop_slots($1)", pattern)
	}
	for _, name := range []string{"d1", "d2", "e1"} {
		p.createSlot(t, "postgres", name, "pgoutput")
	}
	p.syncReady(t, "d1", "d2", "e1")
	p.standby.Exec(t, "select pg_create_physical_replication_slot('d_physical', true)")
	n, err := drop("d?")
	require.NoError(t, err)
	require.Equal(t, 2, n)
	p.requireCopies(t, "e1", "d_physical")
	n, err = drop("nothing*")
	require.NoError(t, err)
	require.Zero(t, n)

	// While they are wanted and the worker is on they would come back at once.
	p.standby.Set(t, "replsync.sync_slots", "on")
	p.waitReady(t, "d1", "d2", "e1")
	_, err = drop("*")
	hint := requireError(t, err, "55000", ".")
	require.NotEmpty(t, hint)
	p.requireCopies(t, "d1", "d2", "e1", "d_physical")
	p.standby.Set(t, "replsync.slots", "d*")
	waitState(t, p.standby, "e1", "waiting", "not_wanted")
	n, err = drop("e1")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	p.standby.Set(t, "replsync.sync_slots", "off")
	n, err = drop("*")
	require.NoError(t, err)
	require.Equal(t, 2, n)
	p.requireCopies(t, "d_physical")
	p.standby.Exec(t, "select pg_drop_replication_slot('d_physical')")
	p.standby.Unset(t, "replsync.slots")
	p.standby.Set(t, "replsync.sync_slots", "off")
	p.clear(t)
}

func (p *pair) testRestartAndCrash(t *testing.T) {
	for i := range 4 {
		p.createSlot(t, "postgres", fmt.Sprintf("c%d", i), "pgoutput")
	}
	p.syncReady(t, "c0", "c1", "c2", "c3")
	before := p.standby.Slots(t)
	p.standby.Restart(t)
	require.Equal(t, before, p.standby.Slots(t))
	p.syncReady(t, "c0", "c1", "c2", "c3")
	p.standby.Kill9(t)
	p.standby.Start(t)
	require.Equal(t, before, p.standby.Slots(t))
	p.syncReady(t, "c0", "c1", "c2", "c3")

	// A worker that dies in the middle takes the server's other processes with it, and leaves nothing half-made.
	for i := range 4 {
		p.primary.DB("postgres").Exec(t, "select pg_drop_replication_slot($1)", fmt.Sprintf("c%d", i))
		p.createSlot(t, "postgres", fmt.Sprintf("k%d", i), "pgoutput")
		done := make(chan error, 1)
		go func() {
			_, err := trySync(p.standby)
			done <- err
		}()
		killed := workerStatus(t, p.standby).PID
		require.NoError(t, killProcess(killed))
		<-done
		waitWorker(t, p.standby, "to be back", func(w workerRow) bool { return w.PID != killed })
		for name, slot := range p.standby.Slots(t) {
			require.NotEqual(t, "replsync_reservation", name)
			require.False(t, slot.Temporary, name)
			require.NotNil(t, slot.RestartLSN, name)
		}
	}
	p.primary.WaitFeedback(t, p.standby)
	p.syncReady(t, "k0", "k1", "k2", "k3")
	p.requireCopies(t, "k0", "k1", "k2", "k3")
	p.clear(t)
}

func killProcess(pid int) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return process.Kill()
}

// growWAL makes WAL that lets max_slot_wal_keep_size run out.
func (p *pair) growWAL(t *testing.T) {
	t.Helper()
	for range 3 {
		p.primary.Exec(t, "select pg_logical_emit_message(false, 'x', 'x'); select pg_switch_wal()")
	}
	// The standby's own slot must not be caught by it.
	end := p.primary.CurrentLSN(t)
	cluster.Eventually(t, cluster.DefaultDeadline, "the primary to know how far the standby is", func() bool {
		return *p.primary.Slots(t)[p.standby.Slot].RestartLSN+1<<19 > end
	})
	p.primary.Exec(t, "checkpoint")
	p.primary.WaitReplayed(t, p.standby)
}

// testInvalidatedHere has a restartpoint invalidate the copy alone.
func (p *pair) testInvalidatedHere(t *testing.T) {
	p.createSlot(t, "postgres", "i", "pgoutput")
	p.syncReady(t, "i")
	p.standby.Set(t, "max_slot_wal_keep_size", "1MB")
	p.growWAL(t)
	p.standby.Exec(t, "checkpoint")
	require.Equal(t, "lost", p.standby.Slots(t)["i"].WALStatus)
	require.Nil(t, p.standby.Slots(t)["i"].RestartLSN)
	require.NotEqual(t, "ready", slotStatus(t, p.standby)["i"].State)
	require.False(t, syncSlots(t, p.standby)["i"].Ready)
	p.standby.Unset(t, "max_slot_wal_keep_size")

	// Its WAL is gone here: it waits until the consumer has gone on.
	row := syncSlots(t, p.standby)["i"]
	require.Equal(t, "wal_or_rows_removed", row.Reason, "%+v", row)
	require.NotEmpty(t, slotStatus(t, p.standby)["i"].Hint)
	p.move(t, "postgres", "i")
	p.syncReady(t, "i")
	require.Empty(t, p.standby.Slots(t)["i"].InvalidationReason)
	p.clear(t)
}

func (p *pair) testInvalidatedThere(t *testing.T) {
	p.createSlot(t, "postgres", "lost", "pgoutput")
	p.syncReady(t, "lost")
	p.primary.Set(t, "max_slot_wal_keep_size", "1MB")
	p.growWAL(t)
	p.primary.Exec(t, "checkpoint")
	require.Equal(t, "lost", p.primary.Slots(t)["lost"].WALStatus)
	p.primary.Unset(t, "max_slot_wal_keep_size")
	p.createSlot(t, "postgres", "fine", "pgoutput")
	p.primary.WaitReplayed(t, p.standby)
	rows := syncSlots(t, p.standby)
	require.Equal(t, "slot_invalidated", rows["lost"].Reason, "%+v", rows)
	require.NotContains(t, p.standby.Slots(t), "lost")
	p.syncReady(t, "fine")
	row := slotStatus(t, p.standby)["lost"]
	require.Equal(t, "invalidated", row.State, "%+v", row)
	require.NotEmpty(t, row.Hint)

	// The consumer makes a new one, as the hint says.
	p.dropSlot(t, "lost")
	p.createSlot(t, "postgres", "lost", "pgoutput")
	p.syncReady(t, "lost", "fine")
	p.clear(t)
}
