package regress_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestIdleSlot has slots become ready that nobody consumes, with the server's default pause between two messages of feedback and beside another
// standby whose long query holds old rows. What they deliver after a promotion depends on catalog rows that everything here
// is out to remove.
func TestIdleSlot(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Setting("wal_receiver_status_interval", "10s"))
		other := p.primary.Standby(t, onDemand)
		p.primary.Exec(t, `create table t (id int primary key, a text); create table moved (id int);
			insert into t select i, 'old' from generate_series(-9, 0) i`)
		p.createSlot(t, "postgres", "busy", "test_decoding")
		p.waitReady(t, "busy")

		// The other standby's query is older than everything that the first one asks for.
		p.primary.WaitReplayed(t, other)
		query := other.Connect(t)
		_, err := query.Exec(background(t), "begin isolation level repeatable read; select count(*) from t")
		require.NoError(t, err)
		p.holdXmin(t, other)
		for range 3 {
			p.primary.Exec(t, "insert into moved values (1)")
			p.move(t, "postgres", "busy")
		}
		p.waitReady(t, "busy")
		asked := *p.primary.Slots(t)[p.standby.Slot].Xmin
		p.primary.Exec(t, "insert into moved values (1)")
		p.primary.WaitReplayed(t, p.standby)
		p.standby.Reload(t)
		cluster.Eventually(t, cluster.DefaultDeadline, "new feedback of the standby", func() bool {
			return *p.primary.Slots(t)[p.standby.Slot].Xmin > asked
		})

		// Columns go and come while a slot is made, and after it is ready.
		p.primary.Exec(t, "alter table t drop column a; alter table t add column b int default 7")
		p.createSlot(t, "postgres", "idle", "test_decoding")
		p.createSlot(t, "postgres", "idle2", "test_decoding")
		p.waitReady(t, "idle", "idle2")
		waitReadiness(t, p.standby)

		rows := 0
		insert := func() {
			rows++
			p.primary.Exec(t, "insert into t (id) values ($1)", rows)
		}
		vacuum := func() {
			vacuumFull(t, p.primary.DB("postgres"))
			p.primary.Exec(t, "checkpoint")
			p.primary.WaitReplayed(t, p.standby)
			p.standby.Exec(t, "checkpoint")
		}
		insert()
		p.primary.Exec(t, "alter table t drop column b; alter table t add column a text default 'new'")
		insert()
		vacuum()
		insert()
		_, err = query.Exec(background(t), "commit")
		require.NoError(t, err)
		p.standby.Restart(t)
		p.waitReady(t, "idle", "idle2")
		p.primary.Exec(t, "alter table t drop column a; alter table t add column b text default 'again'; drop table moved")
		insert()
		vacuum()

		p.primary.WaitReplayed(t, p.standby)
		p.standby.Exec(t, "select pg_wal_replay_pause()")
		insert()
		p.waitReady(t, "idle", "idle2", "busy")
		p.waitReceived(t)
		p.primary.Kill9(t)
		p.standby.Promote(t)
		insertHere := func() {
			rows++
			p.standby.Exec(t, "insert into t (id) values ($1)", rows)
		}
		insertHere()
		p.standby.Exec(t, "alter table t drop column b")
		vacuumFull(t, p.standby.DB("postgres"))
		insertHere()
		for _, slot := range []string{"idle", "idle2"} {
			c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: slot, Plugin: "test_decoding", FromSlot: true})
			c.Start(t, p.standby)
			c.WaitValues(t, "public.t", "id", ids(1, rows)...)
			var columns []string
			for _, tx := range c.Received() {
				for _, change := range tx.Changes {
					if change.Relation == "public.t" {
						columns = append(columns, strings.TrimPrefix(change.String(), "insert public.t "))
					}
				}
			}
			require.Equal(t, []string{
				"b=7 id=1", "a=new id=2", "a=new id=3", "b=again id=4", "b=again id=5", "b=again id=6", "id=7",
			}, columns)
		}
	})
}

// TestReadyInTwoCycles counts passes. The one that first sees an idle slot has its feedback sent, and waits for it; at worst
// that comes by itself, and the pass after it makes the copy ready.
func TestReadyInTwoCycles(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, onDemand, cluster.Setting("wal_receiver_status_interval", "1s"))
		p.primary.Exec(t, "create table t (id int)")
		ready := func(name string) {
			t.Helper()
			p.createSlot(t, "postgres", name, "test_decoding")
			p.primary.WaitReplayed(t, p.standby)
			before := workerStatus(t, p.standby).Cycles
			row := syncSlots(t, p.standby)[name]
			require.Equal(t, "created", row.Action, "%+v", row)
			if !row.Ready {
				require.Equal(t, "feedback_pending", row.Reason)
				// The first message may have been on its way when the copy was made. The next one counts.
				p.waitNextFeedback(t)
				p.waitNextFeedback(t)
				row = syncSlots(t, p.standby)[name]
			}
			require.True(t, row.Ready, "%+v", row)
			require.Equal(t, "ready", slotStatus(t, p.standby)[name].State)
			require.LessOrEqual(t, workerStatus(t, p.standby).Cycles, before+2)
		}
		ready("first")
		ready("second")
		p.move(t, "postgres", "first")
		p.syncReady(t, "first")
		ready("third")
		// A SIGHUP would make the walreceiver read a change that nobody has reloaded: the worker sends none.
		p.standby.Exec(t, "alter system set wal_receiver_timeout = '50s'")
		ready("fourth")
	})
}

// waitNextFeedback waits for feedback of the standby that was sent after now.
func (p *pair) waitNextFeedback(t *testing.T) {
	t.Helper()
	const xmin = "select xmin::text::bigint from pg_replication_slots where slot_name = $1"
	next := cluster.QueryOne[int64](t, p.primary, "select txid_current()")
	p.primary.WaitReplayed(t, p.standby)
	cluster.Eventually(t, cluster.DefaultDeadline, "new feedback of the standby", func() bool {
		return cluster.QueryOne[int64](t, p.primary, xmin, p.standby.Slot) > next
	})
}

// holdXmin waits until the primary holds rows for a standby's query that began now, and lets transactions go by.
func (p *pair) holdXmin(t *testing.T, standby *cluster.Server) {
	t.Helper()
	const sql = "select xmin::text::bigint from pg_replication_slots where slot_name = $1"
	oldest := cluster.QueryOne[int64](t, p.primary, "select txid_snapshot_xmin(txid_current_snapshot())")
	for range 3 {
		p.primary.Exec(t, "select txid_current()")
	}
	cluster.Eventually(t, cluster.DefaultDeadline, "the feedback of the query", func() error {
		xmin := cluster.QueryOne[*int64](t, p.primary, sql, standby.Slot)
		if xmin == nil || *xmin > oldest {
			return fmt.Errorf("xmin is %v, wanted at most %d", xmin, oldest)
		}
		return nil
	})
}

// waitReceived waits until the standby, which may not replay, has the primary's WAL.
func (p *pair) waitReceived(t *testing.T) {
	t.Helper()
	end := p.primary.CurrentLSN(t)
	cluster.Eventually(t, cluster.DefaultDeadline, "the standby to receive WAL", func() bool {
		return cluster.QueryOne[cluster.LSN](t, p.standby, "select pg_last_wal_receive_lsn()") >= end
	})
}

// TestReplayHeldUp has a query on the standby hold replay up. Slots go on, also new ones.
func TestReplayHeldUp(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Setting("max_standby_streaming_delay", "-1"))
		p.primary.Exec(t, "create table t (id int); create table locked (id int)")
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.waitReady(t, "s")
		p.primary.WaitReplayed(t, p.standby)
		query, err := p.standby.TryConnect(context.Background())
		require.NoError(t, err)
		t.Cleanup(func() { _ = query.Close(context.Background()) })
		_, err = query.Exec(background(t), "begin; select * from locked")
		require.NoError(t, err)
		p.primary.Exec(t, "truncate locked")
		cluster.Eventually(t, cluster.DefaultDeadline, "replay to wait for the query", func() bool {
			return cluster.QueryOne[bool](t, p.standby, "select exists (select from pg_locks where not granted and relation = 'locked'::regclass)")
		})
		held := p.standby.CurrentLSN(t)
		p.move(t, "postgres", "s")
		p.createSlot(t, "postgres", "new", "test_decoding")
		p.waitReady(t, "s", "new")
		waitReadiness(t, p.standby)
		require.Equal(t, held, p.standby.CurrentLSN(t))
		_, err = query.Exec(background(t), "rollback")
		require.NoError(t, err)
		p.primary.WaitReplayed(t, p.standby)
		p.waitReady(t, "s", "new")
	})
}

// TestCascade keeps slots on a standby of a standby, which what happens to the primary's catalogs reaches by way of that.
func TestCascade(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		if major < firstConflict {
			t.Skip("it is refused: see TestRefusals")
		}
		p := newPair(t, major, onDemand)
		last := p.standby.Standby(t, cluster.Setting("replsync.sync_slots", "on"),
			cluster.Setting("replsync.primary_conninfo", conninfo(p.primary, "postgres")))
		c := &pair{major: major, primary: p.primary, standby: last}
		p.primary.Exec(t, "create table t (id int primary key); insert into t values (-1)")
		p.createSlot(t, "postgres", "idle", "test_decoding")
		p.createSlot(t, "postgres", "moved", "test_decoding")
		c.waitReady(t, "idle", "moved")
		c.move(t, "postgres", "moved")
		c.waitReady(t, "idle", "moved")
		rows := waitReadiness(t, last)
		require.Equal(t, p.standby.Slot, checkOf(t, rows, "physical_slot").Object)
		p.requireCopies(t, last.Slot) // its physical slot alone

		p.primary.Exec(t, "insert into t values (1); alter table t add column a text default 'x'; insert into t values (2)")
		vacuumFull(t, p.primary.DB("postgres"))
		p.primary.Exec(t, "alter table t drop column a; insert into t values (3); checkpoint")
		p.primary.WaitReplayed(t, last)
		last.Exec(t, "checkpoint")
		c.waitReady(t, "idle", "moved")
		p.primary.Kill9(t)
		waitReadiness(t, last)
		last.Promote(t)
		last.Exec(t, "insert into t values (4)")
		for _, slot := range []string{"idle", "moved"} {
			consumer := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: slot, Plugin: "test_decoding", FromSlot: true})
			consumer.Start(t, last)
			consumer.WaitValues(t, "public.t", "id", ids(1, 4)...)
		}
	})
}
