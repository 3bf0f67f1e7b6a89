package regress_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestDropDatabase drops databases whose slots are being copied. A standby that meets a slot in use when it replays that
// shuts down.
func TestDropDatabase(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Settings(map[string]string{
			"replsync.slot_naptime_min": "10ms", "replsync.slot_naptime_max": "10ms",
		}))
		p.createSlot(t, "postgres", "stays", "pgoutput")
		p.waitReady(t, "stays")
		startup, mark := p.standby.WorkerPID(t, "startup"), p.standby.LogMark()
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = trySync(p.standby)
				}
			}
		}()
		for i := range 12 {
			name := fmt.Sprintf("d%d", i)
			p.primary.Exec(t, "create database "+name+" strategy file_copy")
			p.createSlot(t, name, name, "test_decoding")
			switch i % 3 {
			case 0:
				p.waitReady(t, name)
			case 1:
				cluster.Eventually(t, cluster.DefaultDeadline, "the copy of "+name, func() bool {
					_, there := p.standby.Slots(t)[name]
					return there
				})
			}
			p.dropSlot(t, name)
			p.primary.Exec(t, "drop database "+name)
		}
		p.primary.WaitReplayed(t, p.standby)
		close(stop)
		<-stopped
		require.Equal(t, startup, p.standby.WorkerPID(t, "startup"))
		require.NotContains(t, p.standby.LogSince(mark), "FATAL")
		p.waitReady(t, "stays")
		cluster.Eventually(t, cluster.DefaultDeadline, "the copies to be gone", func() bool {
			return len(p.standby.Slots(t)) == 1
		})
		require.Empty(t, workerLines(p.standby.LogSince(mark), "WARNING|ERROR|PANIC"))
	})
}

// TestOtherSlots has slots on the standby that are nobody's copy.
func TestOtherSlots(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, onDemand)
		p.standby.Exec(t, "select pg_create_physical_replication_slot('physical', true)")
		p.createSlot(t, "postgres", "physical", "pgoutput")
		p.createSlot(t, "postgres", "fine", "pgoutput")
		mine := []string{"physical"}
		if major >= firstConflict {
			p.createOnStandby(t, "mine")
			p.createOnStandby(t, "extra")
			p.createSlot(t, "postgres", "mine", "pgoutput")
			mine = append(mine, "mine", "extra")
		}
		before := p.standby.Slots(t)
		p.syncReady(t, "fine")
		rows := slotStatus(t, p.standby)
		for _, name := range mine {
			if name == "extra" {
				require.NotContains(t, rows, name)
				continue
			}
			require.Equal(t, "foreign", rows[name].State, "%+v", rows[name])
			require.NotEmpty(t, rows[name].Hint)
			row := syncSlots(t, p.standby)[name]
			require.Equal(t, "skipped", row.Action)
			require.False(t, row.Ready)
		}
		unchanged := func() {
			t.Helper()
			after := p.standby.Slots(t)
			for _, name := range mine {
				require.Equal(t, before[name], after[name])
			}
		}
		unchanged()
		require.Equal(t, 1, cluster.QueryOne[int](t, p.standby, "select replsync.drop_slots()"))
		unchanged()
		for _, name := range []string{"physical", "fine"} {
			p.dropSlot(t, name)
		}
		if major >= firstConflict {
			p.dropSlot(t, "mine")
		}
		syncSlots(t, p.standby)
		unchanged()
		require.Empty(t, slotStatus(t, p.standby))

		// The name becomes free.
		p.createSlot(t, "postgres", "physical", "pgoutput")
		require.Equal(t, "foreign", func() string { syncSlots(t, p.standby); return slotStatus(t, p.standby)["physical"].State }())
		p.standby.Exec(t, "select pg_drop_replication_slot('physical')")
		p.syncReady(t, "physical")
	})
}

// TestNameOfFormerCopy has a user make a slot in the place, and under the name, of a copy that was here. What is remembered of the
// copy must not come back once the directory of slots has not changed for a while.
func TestNameOfFormerCopy(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		if major < firstConflict {
			t.Skip("nobody else makes a logical slot on a standby")
		}
		p := newPair(t, major, onDemand)
		p.createSlot(t, "postgres", "name", "test_decoding")
		p.syncReady(t, "name")
		p.standby.Exec(t, "select pg_create_physical_replication_slot('other')") // where the pass had its reservation
		syncSlots(t, p.standby)
		require.Equal(t, 1, cluster.QueryOne[int](t, p.standby, "select replsync.drop_slots('name')"))
		p.createOnStandby(t, "name")
		before := p.standby.Slots(t)["name"]
		cluster.Eventually(t, cluster.DefaultDeadline, "the directory of slots to be at rest", func() bool {
			return cluster.QueryOne[bool](t, p.standby,
				"select clock_timestamp() - (pg_stat_file('pg_replslot')).change > interval '3 seconds'")
		})
		for range 3 {
			require.Equal(t, "skipped", syncSlots(t, p.standby)["name"].Action)
			require.Equal(t, "foreign", slotStatus(t, p.standby)["name"].State)
		}
		require.Equal(t, before, p.standby.Slots(t)["name"])
	})
}

// createOnStandby makes a logical slot on the standby, which needs a record of running transactions.
func (p *pair) createOnStandby(t *testing.T, name string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := p.standby.TryExec(context.Background(), "select pg_create_logical_replication_slot($1, 'test_decoding')", name)
		done <- err
	}()
	cluster.Eventually(t, cluster.DefaultDeadline, "slot "+name+" on the standby", func() bool {
		p.primary.LogStandbySnapshot(t)
		select {
		case err := <-done:
			require.NoError(t, err)
			return true
		default:
			return false
		}
	})
}

// TestBrokenSlots has slots that cannot be copied beside others that can.
func TestBrokenSlots(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		// Older than the base backup, and with WAL that the backup does not bring.
		primary := newPrimary(t, major)
		p := &pair{major: major, primary: primary}
		p.createSlot(t, "postgres", "old", "pgoutput")
		for range 2 {
			primary.Exec(t, "select pg_logical_emit_message(false, 'x', 'x'); select pg_switch_wal()")
		}
		p = pairOf(t, primary, cluster.Setting("max_replication_slots", 4))
		p.createSlot(t, "postgres", "a", "pgoutput")
		p.waitReady(t, "a")
		row := waitState(t, p.standby, "old", "waiting", "wal_or_rows_removed")
		require.NotEmpty(t, row.Hint)
		require.NotContains(t, p.standby.Slots(t), "old")

		// One more slot than the standby has room for, as a pass needs one for itself.
		p.standby.Exec(t, "select pg_create_physical_replication_slot('x')")
		p.createSlot(t, "postgres", "b", "pgoutput")
		p.waitReady(t, "a", "b")
		p.createSlot(t, "postgres", "c", "pgoutput")
		p.createSlot(t, "postgres", "d", "pgoutput")
		row = waitStatus(t, p.standby, "d", "to find no room", func(row statusRow) bool { return row.Reason == "no_free_slot" })
		require.NotEqual(t, "ready", row.State)
		require.NotEmpty(t, row.Hint)
		p.move(t, "postgres", "a")
		p.confirm(t, "postgres", "b")
		p.waitReady(t, "a", "b")
		require.Equal(t, "no_free_slot", slotStatus(t, p.standby)["d"].Reason)

		p.dropSlot(t, "c")
		p.standby.Exec(t, "select pg_drop_replication_slot('x')")
		cluster.Eventually(t, cluster.DefaultDeadline, "room for another slot", func() bool {
			return slotStatus(t, p.standby)["d"].State == "ready"
		})
		p.dropSlot(t, "b")
		p.dropSlot(t, "d")
		p.move(t, "postgres", "old")
		p.waitReady(t, "a", "old")
	})
}

// TestSwitchover lets two servers take turns. What is left on the former primary must not stop its successor's slots: neither
// the slots that it had as a primary, nor copies from the time before, be they marked failover or not.
func TestSwitchover(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := pairOf(t, newPrimary(t, major, cluster.Settings(map[string]string{
			"replsync.slots": "*", "wal_log_hints": "on", "wal_keep_size": "512MB",
		})))
		p.primary.Exec(t, "create table t (id int primary key); create publication p for all tables")
		p.createSlot(t, "postgres", "s1", "pgoutput")
		p.primary.CreateSlot(t, "s2", cluster.SlotOptions{})
		p.primary.Exec(t, "select pg_create_physical_replication_slot('physical', true)")
		consumers := []*cluster.Consumer{
			cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s1", Publication: "p", FromSlot: true}),
			cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s2", Publication: "p", FromSlot: true}),
		}
		rows := 0
		// turn has the consumers receive a row, and the servers change their roles. back is how the former primary becomes a standby.
		turn := func(stop cluster.StopMode, back func()) {
			t.Helper()
			rows++
			p.primary.Exec(t, "insert into t values ($1)", rows)
			for _, c := range consumers {
				c.Start(t, p.primary)
				c.WaitValues(t, "public.t", "id", ids(1, rows)...)
				c.WaitConfirmed(t, p.primary)
				c.Stop()
			}
			p.waitReady(t, "s1", "s2")
			waitReadiness(t, p.standby)
			p.waitMarked(t, "s1", "s2")
			p.primary.Stop(t, stop)
			p.standby.Promote(t)
			requireNoCore(t, p.standby)
			p.swap(t)
			back()
			p.waitReady(t, "s1", "s2")
			s1, s2 := p.standby.Slots(t)["s1"], p.standby.Slots(t)["s2"]
			require.Equal(t, major >= firstFailover, s1.Synced && s1.Failover, "%+v", s1)
			require.False(t, s2.Synced || s2.Failover, "%+v", s2)
		}
		rejoin := func() { p.rejoin(t) }
		turn(cluster.Fast, rejoin)
		require.Contains(t, p.standby.Slots(t), "physical", "a slot that nobody made is nobody's to drop")
		turn(cluster.Fast, rejoin)
		turn(cluster.Immediate, func() { p.rewind(t) })
		turn(cluster.Fast, rejoin)
		turn(cluster.Immediate, func() {
			p.standby = p.primary.Standby(t)
			p.caughtUp(t)
			// They are older than the base backup.
			for end := p.primary.CurrentLSN(t); ; {
				p.move(t, "postgres", "s1")
				p.move(t, "postgres", "s2")
				if slots := p.primary.Slots(t); *slots["s1"].RestartLSN > end && *slots["s2"].RestartLSN > end {
					break
				}
			}
		})
		turn(cluster.Fast, rejoin)
	})
}

// waitMarked waits until the primary has marked its slots as its own.
func (p *pair) waitMarked(t *testing.T, names ...string) {
	t.Helper()
	if p.major < firstConflict {
		return // there is no need
	}
	for _, name := range names {
		cluster.Eventually(t, cluster.DefaultDeadline, "the mark of slot "+name, func() error {
			_, err := os.Stat(filepath.Join(p.primary.DataDir(), "pg_replslot", name, "replsync"))
			return err
		})
	}
}

// swap exchanges the names after a promotion, and makes the physical slot for the way back.
func (p *pair) swap(t *testing.T) {
	t.Helper()
	p.primary, p.standby = p.standby, p.primary
	p.standby.Slot = "back"
	p.primary.Exec(t, "select pg_create_physical_replication_slot('back', true) where not exists (select from pg_replication_slots where slot_name = 'back')")
}

// rejoin makes a stopped former primary a standby of the new one.
func (p *pair) rejoin(t *testing.T) {
	t.Helper()
	p.standby.AppendConf(t, map[string]string{
		"primary_conninfo":  fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", p.primary.Port),
		"primary_slot_name": "back",
	})
	p.standby.WriteFile(t, "postgresql.auto.conf", "")
	p.standby.WriteFile(t, "standby.signal", "")
	p.standby.Start(t)
	p.caughtUp(t)
}

// rewind takes a former primary back that may have written what its successor does not have.
func (p *pair) rewind(t *testing.T) {
	t.Helper()
	p.primary.Exec(t, "checkpoint")
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", p.primary.Port)
	p.standby.Run(t, "pg_rewind", "--no-sync", "-D", p.standby.DataDir(), "--source-server="+source)
	p.standby.AppendConf(t, map[string]string{"port": fmt.Sprint(p.standby.Port)})
	p.rejoin(t)
}

// TestRewind takes a primary back that has written what its successor does not have.
func TestRewind(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major, cluster.Settings(map[string]string{"wal_log_hints": "on", "wal_keep_size": "512MB"}))
		p := pairOf(t, primary)
		p.primary.Exec(t, "create table t (id int primary key); create publication p for all tables")
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.waitReady(t, "s")
		// The standby goes its own way first, so that the old primary's slot may be confirmed beyond the fork.
		p.standby.Promote(t)
		p.primary.Exec(t, "insert into t values (1)")
		p.move(t, "postgres", "s")
		p.primary.Kill9(t)
		p.swap(t)
		p.primary.Exec(t, "insert into t values (2)")
		p.rewind(t)
		p.waitReady(t, "s")
		p.primary.Exec(t, "insert into t values (3)")
		p.primary.WaitReplayed(t, p.standby)
		p.primary.Kill9(t)
		require.Less(t, p.standby.Promote(t), 20*time.Second)
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s", Publication: "p", FromSlot: true})
		c.Start(t, p.standby)
		c.WaitValues(t, "public.t", "id", "2", "3")
	})
}

// TestDropDatabaseMeetsCopyInUse replays the drop of a database while the worker has a copy of a slot of it in use, for as long as a
// write to a pipe takes that nobody reads. Replay waits; a slot in use that it came upon would end it.
func TestDropDatabaseMeetsCopyInUse(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Fsync()) // a pipe has none, so the write fails
		p.primary.Exec(t, "create database doomed strategy file_copy")
		p.createSlot(t, "doomed", "d", "test_decoding")
		p.waitReady(t, "d")
		startup, mark := p.standby.WorkerPID(t, "startup"), p.standby.LogMark()

		pipe := p.standbyFile("pg_replslot/d/replsync.tmp")
		require.NoError(t, syscall.Mkfifo(pipe, 0o666))
		require.NoError(t, os.Chmod(pipe, 0o666))
		p.standby.Set(t, "hot_standby_feedback", "off") // the copy is taken out of use, which its marker says
		cluster.Eventually(t, cluster.DefaultDeadline, "the worker to have the copy in use", func() bool {
			return p.standby.Slots(t)["d"].Active
		})
		p.dropSlot(t, "d")
		p.primary.Exec(t, "drop database doomed")
		cluster.Eventually(t, cluster.DefaultDeadline, "replay to wait for the worker", func() bool {
			return cluster.QueryOne[bool](t, p.standby,
				"select exists (select from pg_locks where not granted and classid = 'pg_database'::regclass)")
		})
		reader, err := os.Open(pipe)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, reader)
		require.NoError(t, err)
		require.NoError(t, reader.Close())

		p.primary.WaitReplayed(t, p.standby)
		require.Equal(t, startup, p.standby.WorkerPID(t, "startup"))
		require.NotContains(t, p.standby.LogSince(mark), "FATAL")
		p.requireCopies(t)
	})
}
