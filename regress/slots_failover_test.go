package regress_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// vacuumFull rewrites the catalogs that decoding looks up relations in. What a transaction did to them before that is found
// through the mapping files only.
func vacuumFull(t *testing.T, db *cluster.Database) {
	t.Helper()
	for _, catalog := range []string{"pg_class", "pg_attribute", "pg_type", "pg_attrdef"} {
		db.Exec(t, "vacuum full "+catalog)
	}
}

// TestFailover kills a primary whose slots are in every difficult position at once.
func TestFailover(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		// wal_keep_size: the copy of a slot is made late, from WAL that nothing else holds on the standby.
		p := newPair(t, major, onDemand, cluster.Setting("wal_keep_size", "512MB"))
		for _, name := range []string{"app1", "app2"} {
			p.primary.Exec(t, "create database "+name)
			p.primary.DB(name).Exec(t, `create table t (id int primary key); create publication p for all tables`)
		}
		p.primary.Exec(t, `create table t (id int primary key); create publication p for all tables`)
		p.createSlot(t, "app1", "mapped", "test_decoding")
		p.createSlot(t, "app1", "running", "test_decoding")
		p.createSlot(t, "app2", "plain", "pgoutput")
		p.createSlot(t, "postgres", "idle", "pgoutput")
		p.primary.DB("app2").CreateSlot(t, "prepared", cluster.SlotOptions{TwoPhase: true, Failover: major >= firstFailover})

		p.loseMappings(t)
		p.standby.Set(t, "replsync.sync_slots", "on")
		p.waitReady(t, "mapped", "running", "plain", "idle", "prepared")

		running := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "running", Database: "app1", Plugin: "test_decoding", FromSlot: true})
		plain := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "plain", Database: "app2", Publication: "p", FromSlot: true})
		prepared := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "prepared", Database: "app2", Publication: "p", TwoPhase: true, FromSlot: true})
		for _, c := range []*cluster.Consumer{running, plain, prepared} {
			c.Start(t, p.primary)
		}
		// First this: a prepared transaction holds the restart_lsn of every slot that does not decode it at once.
		open := p.restartAtRunningTransaction(t, running)
		p.primary.DB("app2").Exec(t, "insert into t select generate_series(1, 3)")
		p.primary.DB("app2").Exec(t, "begin; insert into t values (4); prepare transaction 'seen'")
		plain.WaitValues(t, "public.t", "id", ids(1, 3)...)
		prepared.WaitValues(t, "public.t", "id", ids(1, 4)...)
		for _, c := range []*cluster.Consumer{running, plain, prepared} {
			c.WaitConfirmed(t, p.primary)
			c.Stop()
		}

		// Nobody has seen what follows when the primary dies.
		app1, app2 := p.primary.DB("app1"), p.primary.DB("app2")
		for id := 21; id <= 25; id++ {
			app1.Exec(t, "insert into t values ($1)", id)
		}
		_, err := open.Exec(background(t), "insert into t values (26); commit")
		require.NoError(t, err)
		makeTable(t, app1, "late")
		vacuumFull(t, app1)
		app1.Exec(t, "insert into t values (27)")
		app2.Exec(t, "insert into t values (5)")
		app2.Exec(t, "begin; insert into t values (6); prepare transaction 'unseen'")
		p.primary.Exec(t, "insert into t select generate_series(1, 10)")
		p.primary.LogStandbySnapshot(t)
		p.primary.Exec(t, "checkpoint")
		p.primary.WaitReplayed(t, p.standby)
		p.standby.Exec(t, "checkpoint")
		p.waitReady(t, "mapped", "running", "plain", "idle", "prepared")

		p.primary.Kill9(t)
		p.standby.Promote(t)
		requireNoCore(t, p.standby)
		for name, slot := range p.standby.Slots(t) {
			require.False(t, slot.Temporary, name)
			require.Equal(t, major >= firstFailover, slot.Failover, name)
		}

		app1, app2 = p.standby.DB("app1"), p.standby.DB("app2")
		app1.Exec(t, "insert into t values (28)")
		app2.Exec(t, "commit prepared 'seen'")
		app2.Exec(t, "commit prepared 'unseen'")
		app2.Exec(t, "insert into t values (7)")
		p.standby.Exec(t, "insert into t values (11)")

		// First and alone: what another slot's decoding passes it leaves a snapshot of.
		running.Start(t, p.standby)
		running.WaitValues(t, "public.t", "id", cluster.Query[string](t, app1, "select id::text from t order by t.id")...)
		mapped := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "mapped", Database: "app1", Plugin: "test_decoding", FromSlot: true})
		idle := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "idle", Publication: "p", FromSlot: true})
		for _, c := range []*cluster.Consumer{mapped, plain, prepared, idle} {
			c.Start(t, p.standby)
		}
		idle.WaitValues(t, "public.t", "id", ids(1, 11)...)
		requireSameSet(t, mapped, app1)
		mapped.WaitValues(t, "public.early", "id", "1", "2")
		mapped.WaitValues(t, "public.late", "id", "1", "2")
		requireSameSet(t, plain, app2)
		requireSameSet(t, prepared, app2)
		requirePrepared(t, prepared, "seen", "unseen")
		for _, c := range []*cluster.Consumer{running, mapped, plain, prepared, idle} {
			c.WaitConfirmed(t, p.standby)
		}
	})
}

// loseMappings brings about that decoding the slot "mapped" needs mapping files that only the primary has: a standby
// without logical slots removes all of them at a restartpoint.
func (p *pair) loseMappings(t *testing.T) {
	t.Helper()
	app1 := p.primary.DB("app1")
	app1.Exec(t, "insert into t select generate_series(1, 5)")
	makeTable(t, app1, "early")
	vacuumFull(t, app1)
	app1.Exec(t, "insert into t select generate_series(6, 10)")
	p.primary.Exec(t, "checkpoint")
	p.primary.WaitReplayed(t, p.standby)
	p.standby.Exec(t, "checkpoint")
	require.NotEmpty(t, filesIn(t, p.primary, "pg_logical/mappings"), "the primary's mapping files")
	require.Empty(t, filesIn(t, p.standby, "pg_logical/mappings"), "the standby's mapping files")
}

// makeTable makes a table and rows of it in one transaction, whose own changes to the catalogs decide how each row is read.
func makeTable(t *testing.T, db *cluster.Database, name string) {
	t.Helper()
	db.Exec(t, fmt.Sprintf(`begin; create table %[1]s (id int primary key); insert into %[1]s values (1);
		alter table %[1]s add column v text default 'x'; insert into %[1]s values (2); commit`, name))
}

func filesIn(t *testing.T, s *cluster.Server, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.DataDir(), dir))
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// restartAtRunningTransaction moves the slot of a consumer to a record of running transactions that has one, which it
// returns. Decoding that starts there without the snapshot file becomes consistent only when that transaction has ended,
// and skips what is committed until then.
func (p *pair) restartAtRunningTransaction(t *testing.T, c *cluster.Consumer) *pgx.Conn {
	t.Helper()
	app1 := p.primary.DB("app1")
	open := app1.Connect(t)
	_, err := open.Exec(background(t), "begin; select txid_current()")
	require.NoError(t, err)
	from := p.primary.CurrentLSN(t)
	id := 10
	cluster.Eventually(t, cluster.DefaultDeadline, "restart_lsn to move to a running transaction", func() bool {
		p.primary.LogStandbySnapshot(t)
		if id < 20 {
			id++
			app1.Exec(t, "insert into t values ($1)", id)
		}
		restart := *p.primary.Slots(t)["running"].RestartLSN
		return restart >= from
	})
	for id < 20 {
		id++
		app1.Exec(t, "insert into t values ($1)", id)
	}
	c.WaitReceived(t, "the rows of the slot at a running transaction", func([]cluster.Tx) bool {
		return slices.Contains(c.Values("public.t", "id"), "20")
	})
	restart := *p.primary.Slots(t)["running"].RestartLSN
	name := fmt.Sprintf("%X-%X.snap", uint32(restart>>32), uint32(restart))
	require.Contains(t, filesIn(t, p.primary, "pg_logical/snapshots"), name)
	return open
}

// requireSameSet checks that a consumer gets each row of the table once.
func requireSameSet(t *testing.T, c *cluster.Consumer, db *cluster.Database) {
	t.Helper()
	want := cluster.Query[string](t, db, "select id::text from t")
	slices.Sort(want)
	var got []string
	cluster.Eventually(t, cluster.DefaultDeadline, "all rows of the table", func() error {
		got = c.Values("public.t", "id")
		slices.Sort(got)
		if len(got) < len(want) {
			return fmt.Errorf("received %v of %v", got, want)
		}
		return nil
	})
	require.Equal(t, want, got)
}

// requirePrepared checks that a consumer gets both parts of each prepared transaction once.
func requirePrepared(t *testing.T, c *cluster.Consumer, gids ...string) {
	t.Helper()
	count := func(received []cluster.Tx, kind, gid string) (n int) {
		for _, tx := range received {
			if tx.Kind == kind && tx.GID == gid {
				n++
			}
		}
		return n
	}
	for _, gid := range gids {
		c.WaitReceived(t, "the commit of "+gid, func(received []cluster.Tx) bool {
			return count(received, "commit prepared", gid) > 0
		})
		for _, kind := range []string{"prepare", "commit prepared"} {
			require.Equal(t, 1, count(c.Received(), kind, gid), "%s %s", kind, gid)
		}
	}
}

// TestReplayPaused synchronizes and promotes a standby that does not replay.
func TestReplayPaused(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major)
		p.primary.Exec(t, "create table t (id int primary key); create publication p for all tables")
		p.createSlot(t, "postgres", "moving", "pgoutput")
		p.createSlot(t, "postgres", "resting", "pgoutput")
		p.waitReady(t, "moving", "resting")

		p.standby.Exec(t, "select pg_wal_replay_pause()")
		cluster.Eventually(t, cluster.DefaultDeadline, "replay to pause", func() bool {
			return cluster.QueryOne[string](t, p.standby, "select pg_get_wal_replay_pause_state()") == "paused"
		})
		replayed := p.standby.CurrentLSN(t)
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "moving", Publication: "p", FromSlot: true})
		c.Start(t, p.primary)
		p.primary.Exec(t, "insert into t values (1)")
		p.primary.LogStandbySnapshot(t)
		p.primary.Exec(t, "insert into t values (2)")
		c.WaitValues(t, "public.t", "id", "1", "2")
		c.WaitConfirmed(t, p.primary)
		c.Stop()
		p.createSlot(t, "postgres", "late", "pgoutput")
		p.primary.Exec(t, "create database unseen")
		p.createSlot(t, "unseen", "elsewhere", "pgoutput")
		p.primary.Exec(t, "insert into t values (3)")

		p.waitReady(t, "moving", "resting", "late")
		waiting := waitState(t, p.standby, "elsewhere", "waiting", "database_not_replayed")
		require.NotEmpty(t, waiting.Hint)
		require.Equal(t, replayed, p.standby.CurrentLSN(t), "replay is paused")

		require.Less(t, p.standby.Promote(t), 15*time.Second)
		resting := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "resting", Publication: "p", FromSlot: true})
		late := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "late", Publication: "p", FromSlot: true})
		for _, c := range []*cluster.Consumer{c, resting, late} {
			c.Start(t, p.standby)
		}
		c.WaitValues(t, "public.t", "id", ids(1, 3)...)
		resting.WaitValues(t, "public.t", "id", ids(1, 3)...)
		late.WaitValues(t, "public.t", "id", "3")
	})
}

// TestUnreadyPromotion promotes a standby while it is not known whether the catalog rows for a copy were kept.
func TestUnreadyPromotion(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Setting("wal_receiver_status_interval", "1h"))
		p.primary.Exec(t, "create table t (id int primary key)")
		// Feedback is an hour away, and a SIGHUP would make the walreceiver read a change that nobody has reloaded.
		p.standby.Exec(t, "alter system set wal_receiver_timeout = '50s'")
		p.createSlot(t, "postgres", "unproven", "test_decoding")
		row := waitState(t, p.standby, "unproven", "waiting", "feedback_pending")
		require.NotEmpty(t, row.Hint)
		waitCycles(t, p.standby, 5)
		require.Equal(t, "waiting", slotStatus(t, p.standby)["unproven"].State)
		require.False(t, syncSlots(t, p.standby)["unproven"].Ready)
		require.Equal(t, "1min", cluster.QueryOne[string](t, p.standby, "select current_setting('wal_receiver_timeout')"))
		p.primary.Exec(t, "insert into t values (1)")
		p.primary.WaitReplayed(t, p.standby)

		p.primary.Stop(t, cluster.Immediate)
		p.standby.Promote(t)
		_, err := p.standby.TryExec(background(t), "select * from pg_logical_slot_get_changes('unproven', null, null)")
		require.Error(t, err, "a copy that was not ready can be used")
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "unproven", Plugin: "test_decoding", FromSlot: true})
		require.Error(t, c.TryStart(p.standby), "a copy that was not ready can be used")
		slot := p.standby.Slots(t)["unproven"]
		require.False(t, slot.Failover || slot.Synced, "flags of a copy that was not ready")
		// It must not hold WAL and rows on the new primary for ever either.
		cluster.Eventually(t, cluster.DefaultDeadline, "the copy that was not ready to be dropped", func() bool {
			_, there := p.standby.Slots(t)["unproven"]
			return !there
		})
	})
}

// TestFeedbackLapse has the primary remove catalog rows that a copy needs, while it gets no feedback.
func TestFeedbackLapse(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major)
		p.primary.Exec(t, "create table t (id int primary key)")
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.waitReady(t, "s")

		p.standby.Set(t, "hot_standby_feedback", "off")
		waitWorker(t, p.standby, "to see that feedback is off", func(w workerRow) bool {
			return strings.Contains(w.LastError, "hot_standby_feedback")
		})
		cluster.Eventually(t, cluster.DefaultDeadline, "the primary to forget what it kept", func() bool {
			return p.primary.Slots(t)[p.standby.Slot].CatalogXmin == nil
		})
		p.primary.Exec(t, "insert into t values (1); alter table t add column a int; alter table t drop column a; alter table t add column b text")
		p.move(t, "postgres", "s")
		p.confirm(t, "postgres", "s")
		for _, catalog := range []string{"pg_class", "pg_attribute", "pg_type"} {
			p.primary.Exec(t, "vacuum "+catalog)
		}
		p.primary.WaitReplayed(t, p.standby)
		cluster.Eventually(t, cluster.DefaultDeadline, "the copy not to be ready", func() error {
			row, err := tryStatus(p.standby)
			if err == nil && row["s"].State == "ready" {
				err = fmt.Errorf("%+v", row["s"])
			}
			return err
		})

		// What was lost can't be had back, but the slot has moved past it.
		p.standby.Set(t, "hot_standby_feedback", "on")
		p.waitReady(t, "s")
		require.Empty(t, p.standby.Slots(t)["s"].InvalidationReason)
		p.primary.Exec(t, "insert into t values (2, 'two')")
		p.primary.WaitReplayed(t, p.standby)
		p.primary.Kill9(t)
		p.standby.Promote(t)
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s", Plugin: "test_decoding", FromSlot: true})
		c.Start(t, p.standby)
		c.WaitValues(t, "public.t", "id", "2")
	})
}

// lapsed has feedback go off and on again while the worker, which is returned stopped, cannot look. The primary removes rows that
// the copy of the slot "s" needs.
func lapsed(t *testing.T, major int) (*pair, workerRow) {
	t.Helper()
	p := newPair(t, major)
	p.primary.Exec(t, "create table t (id int primary key)")
	p.createSlot(t, "postgres", "s", "test_decoding")
	p.waitReady(t, "s")

	worker := workerStatus(t, p.standby)
	require.NoError(t, syscall.Kill(worker.PID, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(worker.PID, syscall.SIGCONT) })
	p.standby.Set(t, "hot_standby_feedback", "off")
	cluster.Eventually(t, cluster.DefaultDeadline, "the primary to forget what it kept", func() bool {
		return p.primary.Slots(t)[p.standby.Slot].CatalogXmin == nil
	})
	p.primary.Exec(t, "insert into t values (1)")
	p.primary.Exec(t, "alter table t add column a int; alter table t drop column a; alter table t add column b text")
	p.move(t, "postgres", "s")
	vacuumFull(t, p.primary.DB("postgres"))
	p.standby.Set(t, "hot_standby_feedback", "on")
	p.caughtUp(t)
	return p, worker
}

// TestLapseBeforePromotion promotes while the worker, which knows of a lapse, asks a primary that does not answer.
func TestLapseBeforePromotion(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p, worker := lapsed(t, major)
		p.primary.Freeze(t)
		require.NoError(t, syscall.Kill(worker.PID, syscall.SIGCONT))
		cluster.Eventually(t, cluster.DefaultDeadline, "the worker to read the primary", func() bool {
			return cluster.QueryOne[bool](t, p.standby, "select exists (select from replsync.progress where phase = 'reading')")
		})
		p.standby.Promote(t)
		_, err := p.standby.TryExec(background(t), "select pg_logical_slot_peek_changes('s', null, null)")
		require.Error(t, err)
	})
}

// TestLapseWhileWorkerStopped has feedback go off and on again while the worker cannot look. Once one can, nothing at the primary
// tells of it any more: that is gone, after it has removed rows that the copy needs.
func TestLapseWhileWorkerStopped(t *testing.T) {
	for name, end := range map[string]syscall.Signal{"frozen": syscall.SIGCONT, "replaced": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			onEachVersion(t, func(t *testing.T, major int) {
				p, worker := lapsed(t, major)
				p.primary.Kill9(t)

				for _, signal := range []syscall.Signal{end, syscall.SIGCONT} {
					require.NoError(t, syscall.Kill(worker.PID, signal))
				}
				waitWorker(t, p.standby, "to find the primary gone", func(w workerRow) bool {
					return w.LastError != "" && w.Cycles > 0 && (end == syscall.SIGCONT || w.PID != worker.PID)
				})
				// Replay may have seen something on 16 and later. What VACUUM FULL leaves out it does not see.
				row := slotStatus(t, p.standby)["s"]
				require.Contains(t, []string{"waiting", "invalidated"}, row.State, "%+v", row)
				if major < firstConflict {
					require.Equal(t, "feedback_off", row.Reason)
				}
				p.standby.Promote(t)
				_, err := p.standby.TryExec(background(t), "select pg_logical_slot_peek_changes('s', null, null)")
				require.Error(t, err)
			})
		})
	}
}
