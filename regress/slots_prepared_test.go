package regress_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// A transaction that changed catalogs is prepared, and the primary crashes. Where the primary started again a slot can begin,
// but before 16 decoding from there does not know of that transaction: it fails at the first row of a table that it changed.
// A copy does not go there.
func TestPreparedOverCrash(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major)
		p.primary.Exec(t, "create table changed (a int); create table other (a int)")
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.waitReady(t, "s")
		consume := func() {
			p.primary.Exec(t, "select count(*) from pg_logical_slot_get_changes('s', null, null)")
		}

		prepared := p.primary.Connect(t)
		for _, sql := range []string{
			"begin", "alter table changed alter column a type bigint", "insert into changed values (1)", "prepare transaction 'p'",
		} {
			_, err := prepared.Exec(t.Context(), sql)
			require.NoError(t, err)
		}
		consume()
		p.primary.Kill9(t)
		p.primary.Start(t)
		p.primary.WaitFeedback(t, p.standby)
		p.syncReady(t, "s")
		started := cluster.QueryOne[cluster.LSN](t, p.primary, "select checkpoint_lsn from pg_control_checkpoint()")

		// It begins after the start and before the next snapshot, so the slot is to begin at the start as long as it runs.
		open := p.primary.Connect(t)
		_, err := open.Exec(t.Context(), "begin; insert into other values (1)")
		require.NoError(t, err)
		p.primary.Exec(t, "commit prepared 'p'")
		for range 2 {
			p.primary.LogStandbySnapshot(t)
			p.primary.Exec(t, "insert into other values (2)")
			consume()
		}
		slot := p.primary.Slots(t)["s"]
		require.Equal(t, started, *slot.RestartLSN, "the slot begins at the start of the server")
		cluster.Eventually(t, cluster.DefaultDeadline, "the copy to follow and be ready", func() bool {
			row := slotStatus(t, p.standby)["s"]
			return row.State == "ready" && cluster.LSN(row.ConfirmedFlushLSN) == *slot.ConfirmedFlushLSN
		})

		_, err = open.Exec(t.Context(), "commit")
		require.NoError(t, err)
		p.primary.Exec(t, "insert into changed values (17)")
		p.primary.WaitReplayed(t, p.standby)
		p.primary.Kill9(t)
		p.standby.Promote(t)
		text := strings.Join(cluster.Query[string](t, p.standby, "select data from pg_logical_slot_get_changes('s', null, null)"), "\n")
		require.Contains(t, text, "table public.changed: INSERT: a[bigint]:17")
		require.NotContains(t, text, "a[bigint]:1\n", "what was consumed")
	})
}
