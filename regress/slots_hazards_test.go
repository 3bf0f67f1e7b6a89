package regress_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestDiskFull lets the file system of the snapshot files run full. That is the trouble of the slots that need one, and of
// nobody else, and it ends with its cause.
func TestDiskFull(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := &pair{major: major, primary: newPrimary(t, major)}
		p.standby = p.primary.Standby(t, cluster.NotStarted())
		dir := smallDirectory(t, p.standby.DataDir())
		snapshots := p.standbyFile("pg_logical/snapshots")
		require.NoError(t, os.RemoveAll(snapshots))
		require.NoError(t, os.Symlink(dir, snapshots))
		p.standby.Start(t)
		p.caughtUp(t)
		p.createSlot(t, "postgres", "moving", "test_decoding")
		p.createSlot(t, "postgres", "resting", "test_decoding")
		p.waitReady(t, "moving", "resting")

		junk := filepath.Join(dir, "junk")
		require.ErrorIs(t, os.WriteFile(junk, make([]byte, 1<<20), 0o600), syscall.ENOSPC)
		mark := p.standby.LogMark()
		p.move(t, "postgres", "moving")
		p.createSlot(t, "postgres", "new", "test_decoding")
		row := waitState(t, p.standby, "moving", "failed", "error")
		require.Contains(t, row.LastError, "no space left")
		p.waitReady(t, "resting")
		waitCycles(t, p.standby, 5)
		require.Len(t, workerLines(p.standby.LogSince(mark), `"moving".*no space left`), 1)

		require.NoError(t, os.Remove(junk))
		p.waitReady(t, "moving", "resting", "new")
	})
}

// smallDirectory makes a directory in a file system of 16 kB, for the owner of another. It lies where every server of these tests
// sees it.
func smallDirectory(t *testing.T, owned string) string {
	t.Helper()
	info, err := os.Stat(owned)
	require.NoError(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	dir, err := os.MkdirTemp("/dev/shm", "replsync-*")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.Remove(dir) })
	err = syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=16k,mode=700,uid=%d,gid=%d", owner.Uid, owner.Gid))
	if errors.Is(err, syscall.EPERM) {
		t.Skip("file systems cannot be mounted here")
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestSlotFile has the state of a copy not get to disk. What it holds here, and on the primary, then stays what is on disk, and a
// crash brings that back.
func TestSlotFile(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, onDemand)
		p.createSlot(t, "postgres", "stuck", "test_decoding")
		p.createSlot(t, "postgres", "fine", "test_decoding")
		p.syncReady(t, "stuck", "fine")
		before := p.standby.Slots(t)["stuck"]
		dir := p.standbyFile("pg_replslot/stuck")
		require.NoError(t, os.Chmod(dir, 0o500))
		p.move(t, "postgres", "stuck")
		p.move(t, "postgres", "fine")
		p.waitNextFeedback(t) // queries here hold no rows that the copies could let go of
		cluster.Eventually(t, cluster.DefaultDeadline, "the failure to show", func() bool {
			row := syncSlots(t, p.standby)["stuck"]
			return row.Action == "failed" && strings.Contains(row.Reason, "could not create file")
		})
		p.standby.Reload(t) // feedback comes at once
		cluster.Never(t, 500*time.Millisecond, "more to be given up than disk has", func() bool {
			return cluster.QueryOne[bool](t, p.primary, `select catalog_xmin::text::bigint > $1 from pg_replication_slots
				where slot_type = 'physical'`, *before.CatalogXmin)
		})
		p.syncReady(t, "fine")
		p.standby.Kill9(t)
		p.standby.Start(t)
		require.Equal(t, before, p.standby.Slots(t)["stuck"])
		p.syncReady(t, "fine")
		require.NoError(t, os.Chmod(dir, 0o700))
		p.syncReady(t, "stuck", "fine")
	})
}

// A copy whose directory cannot get its name leaves nothing behind, and is made when it can.
func TestSlotDirectory(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, onDemand)
		p.createSlot(t, "postgres", "fine", "test_decoding")
		p.syncReady(t, "fine")
		inTheWay := p.standbyFile("pg_replslot/stuck")
		require.NoError(t, os.MkdirAll(filepath.Join(inTheWay, "file"), 0o700))
		p.createSlot(t, "postgres", "stuck", "test_decoding")
		p.primary.WaitReplayed(t, p.standby)
		for range 3 {
			row := syncSlots(t, p.standby)["stuck"]
			require.Equal(t, "failed", row.Action)
			require.Contains(t, row.Reason, "could not rename file")
		}
		require.Len(t, p.standby.Slots(t), 1)
		left, err := filepath.Glob(p.standbyFile("pg_replslot/*.tmp"))
		require.NoError(t, err)
		require.Empty(t, left)
		p.syncReady(t, "fine")
		require.NoError(t, os.RemoveAll(inTheWay))
		p.syncReady(t, "stuck", "fine")
		p.standby.Kill9(t)
		p.standby.Start(t)
		require.Len(t, p.standby.Slots(t), 2)
	})
}

// TestIdleTimeout: copies are not idle, whatever their consumers do on the primary.
func TestIdleTimeout(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		if major < firstAlter {
			t.Skip("slots have no timeout")
		}
		p := newPair(t, major, cluster.Setting("replsync.slots", "*"))
		p.primary.CreateSlot(t, "plain", cluster.SlotOptions{})
		p.primary.CreateSlot(t, "marked", cluster.SlotOptions{Failover: true})
		p.waitReady(t, "plain", "marked")
		p.standby.Set(t, "idle_replication_slot_timeout", "1s")
		p.standby.Restart(t) // for core the copies are idle from then on
		p.standby.Exec(t, "select pg_create_physical_replication_slot('idle', true)")
		cluster.Eventually(t, cluster.DefaultDeadline, "a slot to be invalidated", func() bool {
			p.primary.Exec(t, "checkpoint")
			p.primary.WaitReplayed(t, p.standby)
			p.standby.Exec(t, "checkpoint")
			return p.standby.Slots(t)["idle"].InvalidationReason == "idle_timeout"
		})
		p.waitReady(t, "plain", "marked")
		require.NotContains(t, p.standby.Log(), "dropped replication slot")
	})
}

// TestRestartpoints makes and moves copies while restartpoints remove WAL, snapshots and mapping files.
func TestRestartpoints(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Settings(map[string]string{"replsync.slot_naptime_max": "50ms", "wal_recycle": "off"}))
		p.primary.Exec(t, "create table t (id int)")
		p.createSlot(t, "postgres", "s", "test_decoding")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = p.standby.TryExec(t.Context(), "checkpoint")
				}
			}
		}()
		var names []string
		for i := range 8 {
			name := fmt.Sprintf("n%d", i)
			names = append(names, name)
			p.createSlot(t, "postgres", name, "test_decoding")
			p.primary.Exec(t, "insert into t values (1); select pg_switch_wal()")
			vacuumFull(t, p.primary.DB("postgres"))
			p.primary.Exec(t, "checkpoint")
			p.move(t, "postgres", "s")
		}
		p.waitReady(t, append(names, "s")...)
		close(stop)
		<-stopped
		for name, slot := range p.standby.Slots(t) {
			require.NotEqual(t, "lost", slot.WALStatus, name)
		}
		p.standby.Restart(t) // it would not start with a slot whose WAL is not there
		p.waitReady(t, append(names, "s")...)
		p.primary.Kill9(t)
		p.standby.Promote(t)
		for i, name := range names {
			c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: name, Plugin: "test_decoding", FromSlot: true})
			c.Start(t, p.standby)
			c.WaitReceived(t, "the rows", func([]cluster.Tx) bool { return len(c.Values("public.t", "id")) == 8-i })
		}
	})
}

// TestRestartpointInPass has a restartpoint come after a pass has brought the files of a slot here, and before it has made the
// copy: what the pass has reserved stays. Feedback that does not come makes that moment long.
func TestRestartpointInPass(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		proxy := primary.Proxy(t)
		p := pairOf(t, primary, onDemand, cluster.Setting("wal_recycle", "off"),
			cluster.PrimaryConninfo(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", proxy.Port)),
			cluster.Setting("replsync.primary_conninfo", conninfo(primary, "postgres")))
		p.primary.Exec(t, "create table t (id int)")
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.move(t, "postgres", "s") // to a position that has a snapshot file
		p.primary.Exec(t, "insert into t values (1)")
		for range 2 {
			p.primary.Exec(t, "insert into t values (2); select pg_switch_wal()")
		}
		vacuumFull(t, p.primary.DB("postgres"))
		p.primary.Exec(t, "checkpoint")
		p.primary.WaitReplayed(t, p.standby)

		restart := *p.primary.Slots(t)["s"].RestartLSN
		snapshot := p.standbyFile(fmt.Sprintf("pg_logical/snapshots/%X-%X.snap", uint32(restart>>32), uint32(restart)))
		require.NoFileExists(t, snapshot)
		proxy.Freeze()
		ended := make(chan error, 1)
		go func() {
			_, err := trySync(p.standby)
			ended <- err
		}()
		cluster.Eventually(t, cluster.DefaultDeadline, "the snapshot file", func() error {
			_, err := os.Stat(snapshot)
			return err
		})
		p.standby.Exec(t, "checkpoint")
		proxy.Thaw()
		require.NoError(t, next(t, ended))
		p.syncReady(t, "s")
		p.primary.Kill9(t)
		p.standby.Promote(t)
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s", Plugin: "test_decoding", FromSlot: true})
		c.Start(t, p.standby)
		c.WaitValues(t, "public.t", "id", "1", "2", "2")
	})
}

// TestLeaving takes replsync away: from the primary's database, then from the standby's configuration, and for good.
func TestLeaving(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major)
		p.primary.Exec(t, "create database app")
		p.primary.Exec(t, "create role repl login replication")
		p.createSlot(t, "app", "s", "test_decoding")
		p.createSlot(t, "app", "extra", "test_decoding")
		p.waitReady(t, "s", "extra")

		// A database with slots can be a template while the worker runs. The one that the worker connects to cannot.
		p.primary.Exec(t, "create database copy template app")
		_, err := p.primary.TryExec(background(t), "create database copy2 template postgres")
		require.Error(t, err)
		p.waitReady(t, "s")

		// Without the extension a role that may not read files otherwise is refused, and nothing is lost.
		p.primary.Exec(t, `grant execute on function replsync.logical_snapshot, replsync.logical_mappings,
			replsync.logical_slot_two_phase_at to repl`)
		p.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "repl"))
		p.move(t, "app", "s")
		p.waitReady(t, "s")
		mark := p.standby.LogMark()
		p.primary.Exec(t, "drop extension replsync") // here too, by replay
		p.move(t, "app", "s")
		p.standby.WaitLog(t, mark, "permission denied to read the files")
		require.Contains(t, p.standby.Slots(t), "s")
		p.standby.Unset(t, "replsync.primary_conninfo")
		p.primary.Exec(t, "create extension replsync")
		p.primary.WaitReplayed(t, p.standby)
		p.waitReady(t, "s")

		// Without the library the copies stay, hold what they held, and are taken up again.
		p.standby.AppendConf(t, map[string]string{"shared_preload_libraries": ""})
		p.standby.Restart(t)
		before := p.standby.Slots(t)["s"]
		require.NotNil(t, before.RestartLSN)
		_, err = trySync(p.standby)
		requireError(t, err, "55000", "replsync is not loaded")
		_, err = p.standby.TryExec(background(t), "select replsync.failover_check()")
		requireError(t, err, "55000", "replsync is not loaded")
		_, err = p.standby.TryExec(background(t), "select pg_drop_replication_slot('extra')")
		if major >= firstFailover {
			requireError(t, err, "55000", "cannot drop replication slot")
		} else {
			require.NoError(t, err)
			p.requireCopies(t, "s")
		}
		p.standby.AppendConf(t, map[string]string{"shared_preload_libraries": "replsync"})
		p.standby.Restart(t)
		p.primary.WaitFeedback(t, p.standby)
		p.move(t, "app", "s")
		p.createSlot(t, "app", "late", "test_decoding")
		p.waitReady(t, "s", "extra", "late")

		// A part goes: what only it held on the primary is free.
		p.standby.Set(t, "replsync.slots", "s")
		for _, name := range []string{"extra", "late"} {
			waitState(t, p.standby, name, "waiting", "not_wanted")
		}
		_, err = p.standby.TryExec(background(t), "select replsync.drop_slots()")
		requireError(t, err, "55000", "\"s\" is still to be kept")
		p.requireCopies(t, "s", "extra", "late")
		held := *p.standby.Slots(t)["extra"].CatalogXmin
		for _, name := range []string{"extra", "late"} {
			require.Equal(t, 1, cluster.QueryOne[int](t, p.standby, "select replsync.drop_slots($1)", name))
			p.dropSlot(t, name)
		}
		p.requireCopies(t, "s")
		cluster.Eventually(t, cluster.DefaultDeadline, "the primary to hold no more than the other copy needs", func() bool {
			p.move(t, "app", "s")
			p.waitReady(t, "s")
			p.standby.Reload(t)
			return *p.primary.Slots(t)[p.standby.Slot].CatalogXmin > held
		})

		// The way to leave, just after a copy was made.
		p.standby.Unset(t, "replsync.slots")
		p.createSlot(t, "app", "last", "test_decoding")
		p.waitReady(t, "s", "last")
		p.standby.Set(t, "replsync.sync_slots", "off")
		require.Equal(t, 2, cluster.QueryOne[int](t, p.standby, "select replsync.drop_slots()"))
		p.requireCopies(t)
		require.Empty(t, slotStatus(t, p.standby))
		p.standby.Reload(t)
		cluster.Eventually(t, cluster.DefaultDeadline, "the primary to hold nothing for copies", func() bool {
			return p.primary.Slots(t)[p.standby.Slot].CatalogXmin == nil
		})
		p.primary.Exec(t, "drop database copy")
		p.dropSlot(t, "s")
		p.dropSlot(t, "last")
		p.primary.Exec(t, "drop database app")
		p.primary.Exec(t, "drop extension replsync")
		p.primary.WaitReplayed(t, p.standby)
	})
}
