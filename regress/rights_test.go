package regress_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestPasswords looks for the password of the connection everywhere that anybody but a superuser may look.
func TestPasswords(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		const secret, next = "sEcret1 x", "oTher2pass"
		primary := newPrimary(t, major, cluster.HBA(
			"host all repl 127.0.0.1/32 scram-sha-256", "host replication repl 127.0.0.1/32 scram-sha-256"))
		primary.Exec(t, `create role repl login replication; grant usage on schema replsync to repl;
			grant execute on function replsync.logical_snapshot, replsync.logical_mappings, replsync.logical_slot_two_phase_at to repl;
			create role watcher login in role pg_monitor`)
		password := func(value string) {
			primary.Exec(t, "set password_encryption = 'scram-sha-256'; alter role repl password "+cluster.QuoteLiteral(value))
		}
		password(secret)
		p := pairOf(t, primary, cluster.Setting("log_min_messages", "debug1"),
			cluster.PrimaryConninfo(conninfo(primary, "repl")+" password="+cluster.QuoteConninfo(secret)))
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.waitReady(t, "s")
		require.Equal(t, []string{"repl"}, cluster.Query[string](t, p.primary,
			"select usename from pg_stat_activity where application_name ~ 'replsync'"))

		// The password is not right any more.
		mark := p.standby.LogMark()
		password(next)
		p.primary.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ 'replsync'")
		w := waitWorker(t, p.standby, "to be refused", func(w workerRow) bool {
			return strings.Contains(w.LastError, "password authentication failed")
		})
		require.Equal(t, "blocked", w.State)
		waitCycles(t, p.standby, 3)
		_, err := trySync(p.standby)
		hint := requireError(t, err, "28P01", "password authentication failed")
		require.NotEmpty(t, hint)
		require.Len(t, workerLines(p.standby.LogSince(mark), "password authentication failed"), 1)

		for _, given := range []string{
			"host=127.0.0.1 password=sEcret1", "postgresql://repl:sEcret1@127.0.0.1/postgres",
			"postgresql://127.0.0.1/?user=repl&password=sEcret1", "host=x sslpassword=sEcret1",
		} {
			for _, command := range []string{"alter system set", "set"} {
				_, err := p.standby.TryExec(background(t), command+" replsync.primary_conninfo = "+cluster.QuoteLiteral(given))
				if command == "set" {
					require.Error(t, err)
					continue
				}
				hint := requireError(t, err, "22023", "must not contain a password")
				require.Contains(t, hint, "password file")
			}
		}
		p.requireSecret(t, "sEcret1")

		// With the right one in a password file it goes on.
		p.standby.WriteFile(t, "passfile", fmt.Sprintf("127.0.0.1:%d:*:repl:%s\n", p.primary.Port, next))
		p.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "repl")+" passfile="+cluster.QuoteConninfo(p.standbyFile("passfile")))
		p.well(t)
		p.requireSecret(t, next)
	})
}

// requireSecret looks for a word in everything that both servers show.
func (p *pair) requireSecret(t *testing.T, word string) {
	t.Helper()
	var found []string
	look := func(where, text string) {
		for line := range strings.Lines(text) {
			// Core logs statements that fail: those are the test's own.
			if strings.Contains(line, word) && !strings.Contains(line, "STATEMENT:") {
				found = append(found, where+": "+line)
			}
		}
	}
	for _, s := range []*cluster.Server{p.primary, p.standby} {
		look(s.Name+"'s log", s.Log())
		watcher := s.With("user=watcher")
		for _, view := range []string{
			"replsync.slot_status", "replsync.worker_status", "replsync.progress", "pg_stat_activity", "pg_stat_replication",
			"pg_stat_wal_receiver", "pg_settings where name <> 'primary_conninfo'",
		} {
			rows := cluster.Query[string](t, watcher, "select to_jsonb(v)::text from (select * from "+view+") v")
			look(s.Name+"'s "+view, strings.Join(rows, "\n"))
		}
		for _, process := range s.Processes() {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process.PID))
			look("process title", process.Title+"\n"+string(cmdline))
		}
	}
	require.Empty(t, found)
}

// TestPrivileges: nothing is for everybody.
func TestPrivileges(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, onDemand)
		p.primary.Exec(t, `create role nobody login; create role watcher login in role pg_monitor;
			create role syncer login replication; create role granted login;
			grant execute on function replsync.sync_slots, replsync.drop_slots to syncer, granted`)
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.primary.WaitReplayed(t, p.standby)
		try := func(role, sql string) error {
			_, err := p.standby.With("user="+role).TryExec(background(t), sql)
			return err
		}
		for _, view := range []string{"slot_status", "worker_status", "progress"} {
			requireError(t, try("nobody", "select * from replsync."+view), "42501", "permission denied")
			require.NoError(t, try("watcher", "select * from replsync."+view))
		}
		calls := []string{"select * from replsync.sync_slots()", "select replsync.drop_slots('x')"}
		for _, call := range append([]string{"select replsync.reset_statistics()", "select replsync.version()"}, calls...) {
			requireError(t, try("nobody", call), "42501", "permission denied")
		}
		for _, call := range calls {
			requireError(t, try("watcher", call), "42501", "permission denied")
			requireError(t, try("granted", call), "42501", "permission denied")
			require.NoError(t, try("syncer", call))
		}
		require.NoError(t, try("watcher", "select replsync.version()"))
		for _, call := range []string{
			"select replsync.logical_snapshot('0/1')", "select * from replsync.logical_mappings(1, '0/1')",
			"select replsync.logical_slot_two_phase_at('s')",
		} {
			_, err := p.primary.With("user=nobody").TryExec(background(t), call)
			requireError(t, err, "42501", "permission denied")
		}
	})
}
