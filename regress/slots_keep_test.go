package regress_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// outrun gives the pair a ready copy of the slot "busy", and has the standby's feedback let go of rows that the primary holds for
// another standby still: a slot that is made next is older than what feedback asks for.
func outrun(t *testing.T, major int) *pair {
	t.Helper()
	p := newPair(t, major, onDemand)
	p.primary.Exec(t, `create table t (id int primary key, a text); insert into t select i, 'old' from generate_series(-9, 0) i`)
	other := &pair{major: major, primary: p.primary, standby: p.primary.Standby(t, onDemand)}
	other.caughtUp(t)
	p.createSlot(t, "postgres", "busy", "test_decoding")
	p.syncReady(t, "busy")
	other.syncReady(t, "busy")
	for range 3 {
		p.primary.Exec(t, "update t set a = a where id = 0")
		p.move(t, "postgres", "busy")
	}
	cluster.Eventually(t, cluster.DefaultDeadline, "the standby's feedback to pass the other's", func() bool {
		p.syncReady(t, "busy") // it is not to be older than what the other's queries hold, either
		p.standby.Reload(t)
		slots := p.primary.Slots(t)
		return *slots[p.standby.Slot].CatalogXmin > *slots[other.standby.Slot].CatalogXmin
	})
	p.primary.Exec(t, "alter table t drop column a; alter table t add column b int default 7")
	p.createSlot(t, "postgres", "idle", "test_decoding")
	slots := p.primary.Slots(t)
	require.Greater(t, *slots[p.standby.Slot].CatalogXmin, *slots["idle"].CatalogXmin)
	p.primary.WaitReplayed(t, p.standby)

	// Nothing but the slots of this test holds anything now.
	other.standby.Stop(t, cluster.Fast)
	p.dropSlot(t, other.standby.Slot)
	return p
}

// TestSlotOlderThanFeedback has a slot that begins before what the standby's feedback can ask for become ready without being
// consumed. Then the primary keeps the rows for the copy: the slot moves on, the copy does not, and everything is out to remove
// what only the copy needs.
func TestSlotOlderThanFeedback(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := outrun(t, major)
		row := syncSlots(t, p.standby)["idle"]
		require.Equal(t, "created", row.Action, "%+v", row)
		if !row.Ready {
			require.Equal(t, "feedback_pending", row.Reason)
			p.waitNextFeedback(t)
			p.waitNextFeedback(t)
			row = syncSlots(t, p.standby)["idle"]
		}
		require.True(t, row.Ready, "%+v", row)
		copied := *p.standby.Slots(t)["idle"].CatalogXmin
		require.LessOrEqual(t, *p.primary.Slots(t)[p.standby.Slot].CatalogXmin, copied)
		p.waitNextFeedback(t)
		require.Equal(t, copied, *p.primary.Slots(t)[p.standby.Slot].CatalogXmin, "feedback asks for the same")

		p.primary.Exec(t, "insert into t values (1)")
		p.primary.Exec(t, "alter table t drop column b; alter table t add column a text default 'new'; insert into t values (2)")
		for _, slot := range []string{"idle", "busy"} {
			p.move(t, "postgres", slot)
			require.Greater(t, *p.primary.Slots(t)[slot].CatalogXmin, copied)
		}
		p.primary.Exec(t, "vacuum pg_class, pg_attribute, pg_type, pg_attrdef")
		vacuumFull(t, p.primary.DB("postgres"))
		p.primary.WaitReplayed(t, p.standby)
		p.primary.Kill9(t)
		p.standby.Promote(t)
		p.standby.Exec(t, "insert into t values (3)")
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "idle", Plugin: "test_decoding", FromSlot: true})
		c.Start(t, p.standby)
		c.WaitValues(t, "public.t", "id", ids(1, 3)...)
	})
}

// TestKeepCatalogRows calls what the worker calls, and goes without it.
func TestKeepCatalogRows(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := outrun(t, major)
		const create = `create function replsync.keep_catalog_rows(name, xid) returns xid
			as '$libdir/replsync', 'replsync_keep_catalog_rows' language c strict`
		p.primary.Exec(t, `alter extension replsync drop function replsync.keep_catalog_rows(name, xid);
			drop function replsync.keep_catalog_rows(name, xid)`)
		story(t, "without it", func(t *testing.T) {
			for range 3 {
				row := syncSlots(t, p.standby)["idle"]
				require.Equal(t, major >= firstConflict, row.Ready, "%+v", row)
				if !row.Ready {
					require.Equal(t, "catalog_xmin_not_protected", row.Reason)
				}
			}
		})
		p.primary.Exec(t, create)
		idle, held := *p.primary.Slots(t)["idle"].CatalogXmin, *p.primary.Slots(t)[p.standby.Slot].CatalogXmin
		keep := func(slot string, xid int64) *int64 {
			t.Helper()
			return cluster.QueryOne[*int64](t, p.primary, "select replsync.keep_catalog_rows($1, $2::int8::text::xid)::text::int8", slot, xid)
		}
		story(t, "refused", func(t *testing.T) {
			_, err := p.primary.TryExec(background(t), "select replsync.keep_catalog_rows($1, '0')", p.standby.Slot)
			requireError(t, err, "22023", "transaction ID")
			p.primary.WaitReplayed(t, p.standby)
			_, err = p.standby.TryExec(background(t), "select replsync.keep_catalog_rows('busy', '700')")
			requireError(t, err, "55000", "recovery is in progress")
			_, err = p.primary.TryExec(background(t), `create role other; set role other;
				select replsync.keep_catalog_rows('busy', '700')`)
			requireError(t, err, "42501", "permission denied to use replication slots")
		})
		story(t, "nothing is kept", func(t *testing.T) {
			p.primary.Exec(t, "select pg_create_physical_replication_slot('resting')")
			for _, slot := range []string{"resting", "idle", "nobody"} {
				require.Nil(t, keep(slot, idle), slot)
			}
			require.Nil(t, p.primary.Slots(t)["resting"].CatalogXmin)
			require.Equal(t, idle, *p.primary.Slots(t)["idle"].CatalogXmin)
		})
		story(t, "only what is there", func(t *testing.T) {
			require.Equal(t, held, *keep(p.standby.Slot, held+1), "not less than before")
			p.primary.Exec(t, "checkpoint")
			require.Equal(t, idle, *keep(p.standby.Slot, 3))
			require.Equal(t, idle, *p.primary.Slots(t)[p.standby.Slot].CatalogXmin)
		})
		story(t, "it stays after a crash", func(t *testing.T) {
			p.primary.Kill9(t)
			p.primary.Start(t)
			require.NotNil(t, p.primary.Slots(t)[p.standby.Slot].CatalogXmin)
			require.Equal(t, idle, *p.primary.Slots(t)[p.standby.Slot].CatalogXmin)
			p.caughtUp(t)
			p.syncReady(t, "idle")
		})
	})
}
