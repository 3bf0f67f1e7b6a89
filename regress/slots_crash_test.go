package regress_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
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

// crashing is a pair whose slots always have a transaction running at their restart_lsn, so that decoding from there
// needs the snapshot file of exactly that position.
type crashing struct {
	*pair
	slots   []string
	open    *pgx.Conn
	openID  int // of its row
	id      int
	pending []int // ids of rows that no slot has confirmed
}

func newCrashing(t *testing.T, major int) *crashing {
	c := &crashing{pair: newPair(t, major, cluster.Setting("replsync.slot_naptime_min", "10ms"))}
	c.primary.Exec(t, "create table t (id int)")
	for i := range 4 {
		c.slots = append(c.slots, fmt.Sprintf("s%d", i))
		c.createSlot(t, "postgres", c.slots[i], "test_decoding")
	}
	c.begin(t)
	c.move(t)
	c.waitReady(t, c.slots...)
	return c
}

// insert writes a row that a transaction of its own commits.
func (c *crashing) insert(t *testing.T) {
	c.id++
	c.primary.Exec(t, "insert into t values ($1)", c.id)
	c.pending = append(c.pending, c.id)
}

// begin leaves a transaction open that has written, and commits the one before. That is what decoding without the snapshot file
// loses: those that begin later it may find all the same.
func (c *crashing) begin(t *testing.T) {
	before, id := c.open, c.openID
	c.open = c.primary.Connect(t)
	c.id++
	c.openID = c.id
	_, err := c.open.Exec(t.Context(), fmt.Sprintf("begin; insert into t values (%d)", c.openID))
	require.NoError(t, err)
	if before != nil {
		_, err = before.Exec(t.Context(), "commit")
		require.NoError(t, err)
		require.NoError(t, before.Close(t.Context()))
		c.pending = append(c.pending, id)
	}
}

// move moves restart_lsn, confirmed_flush_lsn and catalog_xmin of all slots.
func (c *crashing) move(t *testing.T) {
	for range 2 {
		c.insert(t)
		c.primary.LogStandbySnapshot(t)
		c.begin(t)
		c.primary.LogStandbySnapshot(t)
		c.insert(t) // its commit flushes that record: with it restart_lsn comes so near that decoding needs the snapshot file
		c.primary.Exec(t, "select pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn()) from pg_replication_slots where slot_type = 'logical'")
	}
	c.pending = nil
}

// follow waits until a copy has followed the primary's slot, so that disk is about to.
func (c *crashing) follow(t *testing.T) {
	want := *c.primary.Slots(t)[c.slots[0]].ConfirmedFlushLSN
	cluster.Eventually(t, cluster.DefaultDeadline, "a copy to follow", func() bool {
		return cluster.QueryOne[bool](t, c.standby, "select bool_or(confirmed_flush_lsn >= $1) from pg_replication_slots", want)
	})
}

// decode checks that the standby, as it is promoted, gives everything that was not confirmed.
func (c *crashing) decode(t *testing.T, server *cluster.Server) {
	for _, slot := range c.slots {
		text := strings.Join(cluster.Query[string](t, server, "select data from pg_logical_slot_peek_changes($1, null, null)", slot), "\n")
		for _, id := range c.pending {
			require.Contains(t, text, fmt.Sprintf("id[integer]:%d\n", id), slot)
		}
	}
}

// finish writes rows that nobody confirms, and ends the primary.
func (c *crashing) finish(t *testing.T) {
	c.insert(t)
	c.begin(t)
	c.insert(t)
	c.primary.WaitReplayed(t, c.standby)
	c.primary.Kill9(t)
}

// Copies are moved in memory, and disk follows. Whenever the standby dies in between, what disk brings back is older, complete,
// and never ahead of the primary; and it goes on from there.
func TestCrashWhileCopiesMove(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		c := newCrashing(t, major)
		random := rand.New(rand.NewPCG(1, uint64(major)))
		for round := range 6 {
			c.move(t)
			if round%2 == 1 {
				c.primary.Exec(t, "checkpoint")
			}
			c.primary.WaitReplayed(t, c.standby)
			c.follow(t)
			if round%2 == 1 {
				// A restartpoint writes the copies, and removes files that none of them needs.
				go func() { _, _ = c.standby.TryExec(background(t), "checkpoint") }()
			}
			time.Sleep(time.Duration(random.IntN(20000)) * time.Microsecond) // a moment of the saving, not a wait for anything
			c.standby.Kill9(t)
			c.standby.Start(t)
			primary := c.primary.Slots(t)
			for name, slot := range c.standby.Slots(t) {
				require.LessOrEqual(t, *slot.ConfirmedFlushLSN, *primary[name].ConfirmedFlushLSN)
				require.LessOrEqual(t, *slot.RestartLSN, *primary[name].RestartLSN)
			}
			c.waitReady(t, c.slots...)
		}
		c.move(t)
		c.finish(t)
		c.standby.Kill9(t)
		c.standby.Start(t)
		c.standby.Promote(t)
		c.decode(t, c.standby)
	})
}

// A promotion right after copies were moved finds them usable, and so does a crash right after the promotion.
func TestPromotionWhileCopiesMove(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		c := newCrashing(t, major)
		c.move(t)
		c.primary.WaitReplayed(t, c.standby)
		c.follow(t)
		c.finish(t)
		c.standby.Promote(t)
		c.decode(t, c.standby)
		c.standby.Kill9(t)
		c.standby.Start(t)
		c.decode(t, c.standby)
	})
}

// some is how many copies are made at a time.
const some = 12

// making are copies that are about to be made.
type making struct {
	*pair
	slots []string
}

// create makes some slots more on the primary.
func (m *making) create(t *testing.T) {
	flags := "false, false"
	if m.major >= firstFailover {
		flags = "false, false, true"
	}
	for range some {
		m.slots = append(m.slots, fmt.Sprintf("s%d", len(m.slots)))
	}
	m.primary.Exec(t, "select pg_create_logical_replication_slot(name, 'test_decoding', "+flags+") from unnest($1::text[]) name", m.slots[len(m.slots)-some:])
}

// kill kills the standby when so many new copies are there, and the next is half made if it can be caught so. To what is half made
// it does what a crash of the machine may do.
func (m *making) kill(t *testing.T, copies int) {
	worker := m.standby.WorkerPID(t, "replsync slot worker")
	want := len(m.slots) - some + copies
	cluster.Eventually(t, cluster.DefaultDeadline, "copies to be made", func() bool {
		whole, _ := m.directories(t)
		return whole >= want
	})
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
		if _, half := m.directories(t); len(half) == 0 {
			continue
		}
		require.NoError(t, syscall.Kill(worker, syscall.SIGSTOP))
		if _, half := m.directories(t); len(half) > 0 {
			break
		}
		require.NoError(t, syscall.Kill(worker, syscall.SIGCONT))
	}
	m.standby.Kill9(t)
	_, half := m.directories(t)
	for _, dir := range half {
		t.Logf("killed while %s was made", dir)
		require.Equal(t, ".tmp", filepath.Ext(dir), "a restart removes only these")
		for _, file := range []string{"state", "replsync"} {
			if err := os.Truncate(filepath.Join(dir, file), 0); !errors.Is(err, fs.ErrNotExist) {
				require.NoError(t, err)
			}
		}
	}
}

// directories counts those of copies that are whole, and names the others.
func (m *making) directories(t *testing.T) (whole int, half []string) {
	all, err := filepath.Glob(filepath.Join(m.standby.DataDir(), "pg_replslot", "s*"))
	require.NoError(t, err)
	for _, dir := range all {
		state, _ := os.Stat(filepath.Join(dir, "state"))
		marker, _ := os.Stat(filepath.Join(dir, "replsync"))
		switch {
		case filepath.Ext(dir) == "" && state != nil && state.Size() > 0 && marker != nil && marker.Size() > 0:
			whole++
		case exists(dir):
			half = append(half, dir)
		}
	}
	return whole, half
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Whenever the standby dies while copies are made, each is there as a whole afterwards, or not at all, and the rest follow. Those
// that are ready at that moment are, should the standby be promoted next.
func TestCrashWhileCopiesAreMade(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		const rounds = 4
		slots := cluster.Setting("max_replication_slots", some*(rounds+1)+4)
		m := &making{pair: pairOf(t, newPrimary(t, major, slots), slots, cluster.Fsync())}
		m.primary.Exec(t, "create table t (id int)")
		whole := func() {
			here, there := m.standby.Slots(t), m.primary.Slots(t)
			for name, slot := range here {
				if slot.Temporary {
					continue // the reservation of a pass
				}
				require.Contains(t, there, name)
				require.Equal(t, there[name].RestartLSN, slot.RestartLSN, name)
				require.Equal(t, there[name].ConfirmedFlushLSN, slot.ConfirmedFlushLSN, name)
			}
		}
		for round := range rounds {
			m.create(t)
			m.kill(t, 1+round*some/rounds)
			m.standby.Start(t)
			whole()
			m.waitReady(t, m.slots...)
		}
		ready := m.slots
		m.primary.Exec(t, "insert into t values (1)")
		m.primary.WaitReplayed(t, m.standby)
		m.create(t)
		m.kill(t, some/2)
		m.primary.Kill9(t)
		m.standby.Start(t)
		m.standby.Promote(t)
		here := m.standby.Slots(t)
		for _, name := range ready {
			require.Contains(t, here, name)
		}
		for name, slot := range here {
			if slot.Plugin != "test_decoding" {
				require.NotContains(t, ready, name)
				continue
			}
			data := cluster.Query[string](t, m.standby, "select data from pg_logical_slot_peek_changes($1, null, null)", name)
			if slices.Contains(ready, name) {
				require.Contains(t, strings.Join(data, "\n"), "id[integer]:1", name)
			}
		}
	})
}

// A pass that has planned a drop, and has not noticed that its server was promoted, does not get at what is a slot now.
func TestPlannedDropAfterPromotion(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major)
		p.primary.Exec(t, "create function selftest_start(text) returns integer language c as 'replsync_selftest'")
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.waitReady(t, "s")
		p.primary.WaitReplayed(t, p.standby)
		p.primary.Kill9(t)
		p.standby.Promote(t)
		requireNoCore(t, p.standby)
		mark := p.standby.LogMark()
		p.standby.Exec(t, "select selftest_start('drop s')")
		p.standby.WaitLog(t, mark, `selftest drop s planned: 55000 replication slots can only be synchronized to a standby server`)
		// What settles the copies after a promotion may drop it, so it was there.
		p.standby.WaitLog(t, mark, `selftest drop s promoted: dropped`)
		require.NotContains(t, p.standby.Slots(t), "s")
	})
}

// The same in between: a promotion was asked for, and recovery goes on for as long as what is left to replay takes. A query here
// holds that up.
func TestPlannedDropDuringPromotion(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Settings(map[string]string{
			"max_standby_streaming_delay": "-1", "max_standby_archive_delay": "-1",
		}))
		p.primary.Exec(t, `create function selftest_start(text) returns integer language c as 'replsync_selftest';
			create table locked (id int)`)
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.waitReady(t, "s")
		p.primary.WaitReplayed(t, p.standby)
		query := p.standby.Connect(t)
		_, err := query.Exec(background(t), "begin; select * from locked")
		require.NoError(t, err)
		p.standby.Exec(t, "select pg_wal_replay_pause()")
		cluster.Eventually(t, cluster.DefaultDeadline, "replay to be paused", func() bool {
			return cluster.QueryOne[string](t, p.standby, "select pg_get_wal_replay_pause_state()") == "paused"
		})
		p.primary.Exec(t, "truncate locked")
		p.waitReceived(t)
		p.primary.Kill9(t)

		p.standby.Exec(t, "select pg_promote(false)")
		cluster.Eventually(t, cluster.DefaultDeadline, "the promotion to wait for replay, which waits for the query", func() bool {
			return cluster.QueryOne[bool](t, p.standby, "select exists (select from pg_locks where not granted and relation = 'locked'::regclass)")
		})
		_, err = p.standby.TryExec(background(t), "select pg_wal_replay_pause()")
		requireError(t, err, "55000", "standby promotion is ongoing")
		mark := p.standby.LogMark()
		p.standby.Exec(t, "select selftest_start('plan s')")
		p.standby.WaitLog(t, mark, `selftest drop s planned: 55000 replication slots cannot be synchronized while the server is being promoted`)
		require.True(t, cluster.QueryOne[bool](t, p.standby, "select pg_is_in_recovery()"))
		_, err = query.Exec(background(t), "commit")
		require.NoError(t, err)
		cluster.Eventually(t, cluster.DefaultDeadline, "the end of the promotion", func() bool {
			return !cluster.QueryOne[bool](t, p.standby, "select pg_is_in_recovery()")
		})
		require.Equal(t, "test_decoding", p.standby.Slots(t)["s"].Plugin)
		p.standby.Exec(t, "select pg_logical_slot_peek_changes('s', null, null)")
	})
}
