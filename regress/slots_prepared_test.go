package regress_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// On 15 the worker reads the WAL where a slot begins. Where that fails the copy stays where it is, and no file stays open.
func TestDamagedWAL(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		if major >= firstConflict {
			t.Skip("nobody reads WAL")
		}
		p := newPair(t, major, onDemand)
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.syncReady(t, "s")
		before := *p.standby.Slots(t)["s"].RestartLSN
		p.move(t, "postgres", "s")
		p.primary.WaitReplayed(t, p.standby)
		p.damageWAL(t, *p.primary.Slots(t)["s"].RestartLSN)

		var open int
		for i := range 3 {
			row := syncSlots(t, p.standby)["s"]
			require.Equal(t, "failed", row.Action, "%+v", row)
			if i == 0 {
				open = openWAL(t, p.standby)
			}
		}
		require.Equal(t, open, openWAL(t, p.standby))
		require.Equal(t, before, *p.standby.Slots(t)["s"].RestartLSN)
	})
}

// damageWAL takes the header from a page of the standby's WAL.
func (p *pair) damageWAL(t *testing.T, at cluster.LSN) {
	t.Helper()
	const page, segment = 8192, 16 << 20
	name := cluster.QueryOne[string](t, p.primary, "select pg_walfile_name($1)", at)
	file, err := os.OpenFile(filepath.Join(p.standby.DataDir(), "pg_wal", name), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteAt(make([]byte, 24), int64(at%segment/page*page))
	require.NoError(t, errors.Join(err, file.Close()))
}

// openWAL counts the files of WAL that the slot worker has open.
func openWAL(t *testing.T, standby *cluster.Server) (n int) {
	t.Helper()
	files := fmt.Sprintf("/proc/%d/fd", workerStatus(t, standby).PID)
	entries, err := os.ReadDir(files)
	require.NoError(t, err)
	for _, entry := range entries {
		target, _ := os.Readlink(filepath.Join(files, entry.Name()))
		if strings.Contains(target, "/pg_wal/") {
			n++
		}
	}
	return n
}
