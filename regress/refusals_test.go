package regress_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// fastCycles lets a trouble that is logged with each cycle be seen as such.
var fastCycles = cluster.Settings(map[string]string{
	"replsync.slot_naptime_min": "50ms", "replsync.slot_naptime_max": "100ms", "replsync.connect_timeout": "1s",
})

// refuses checks that the worker says what is in its way and what would help.
func (p *pair) refuses(t *testing.T, mark cluster.LogMark, code, message string) (hint string) {
	t.Helper()
	hint = p.complains(t, mark, code, message)
	require.NotEmpty(t, hint, "hint of "+message)
	return hint
}

// complains checks that the worker says what is in its way: to a caller, in the view, and once in the log since mark.
func (p *pair) complains(t *testing.T, mark cluster.LogMark, code, message string) (hint string) {
	t.Helper()
	expr := regexp.MustCompile(message)
	waitWorker(t, p.standby, "to complain of "+message, func(w workerRow) bool {
		return w.State == "blocked" && expr.MatchString(w.LastError)
	})
	waitCycles(t, p.standby, 5)
	_, err := trySync(p.standby)
	hint = requireError(t, err, code, message)
	require.Regexp(t, message, workerStatus(t, p.standby).LastError)
	require.Len(t, workerLines(p.standby.LogSince(mark), message), 1, "lines in the log")
	return hint
}

// TestRefusals takes away what the worker needs, one thing after another, and gives it back.
func TestRefusals(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, fastCycles)
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.waitReady(t, "s")
		works := func(t *testing.T) {
			t.Helper()
			p.move(t, "postgres", "s")
			p.waitReady(t, "s")
			waitWorker(t, p.standby, "to work again", func(w workerRow) bool { return w.State != "blocked" })
		}
		// with runs a story during which the standby has another setting.
		with := func(name, value, code, message string) {
			story(t, name+" = "+value, func(t *testing.T) {
				before := cluster.QueryOne[string](t, p.standby, "select current_setting($1)", name)
				mark := p.standby.LogMark()
				p.standby.Set(t, name, value)
				p.refuses(t, mark, code, message)
				p.standby.Set(t, name, before)
				works(t)
			})
		}
		with("primary_slot_name", "", "55000", `requires "primary_slot_name" to be set`)
		with("primary_slot_name", "no_such_slot", "55000", `physical replication slot "no_such_slot" does not exist`)
		with("hot_standby_feedback", "off", "55000", `requires "hot_standby_feedback" to be enabled`)
		with("wal_receiver_status_interval", "0", "55000", `requires "wal_receiver_status_interval"`)
		with("primary_conninfo", "", "55000", `requires "primary_conninfo" to be set`)
		// From 17 on pg_basebackup writes a dbname into primary_conninfo.
		p.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "postgres"))
		with("replsync.maintenance_database", "nowhere", "3D000", `database "nowhere" does not exist`)
		p.standby.Unset(t, "replsync.primary_conninfo")
		story(t, "no server", func(t *testing.T) {
			mark := p.standby.LogMark()
			_, port, _ := strings.Cut(cluster.Refused(t), ":")
			p.standby.Set(t, "replsync.primary_conninfo", "user=postgres host=127.0.0.1 port="+port)
			p.complains(t, mark, "08001", "could not connect to the primary: .* refused")
			p.standby.Unset(t, "replsync.primary_conninfo")
			works(t)
		})
		if major >= firstFailover {
			with("sync_replication_slots", "on", "55000", `synchronized by the server itself`)
		}
		story(t, "pg_hba.conf", func(t *testing.T) { p.testHBA(t, works) })
		story(t, "rights", func(t *testing.T) { p.testRights(t) })
		story(t, "another cluster", func(t *testing.T) {
			stranger := newPrimary(t, major)
			mark := p.standby.LogMark()
			p.standby.Set(t, "replsync.primary_conninfo", conninfo(stranger, "postgres"))
			p.refuses(t, mark, "55000", "not this standby's primary")
			p.standby.Unset(t, "replsync.primary_conninfo")
			works(t)
		})
		story(t, "cascading standby", func(t *testing.T) {
			cascaded := &pair{major: major, primary: p.standby, standby: p.standby.Standby(t, fastCycles)}
			cascaded.refuses(t, 0, "55000", "cannot synchronize replication slots from a standby server")
			require.Empty(t, cascaded.standby.Slots(t))
			mark := cascaded.standby.LogMark()
			cascaded.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "postgres"))
			// What it asks the standby in between to keep has to be passed on.
			if major < firstConflict {
				cascaded.refuses(t, mark, "55000", "cascading standby of this version")
				return
			}
			waitState(t, cascaded.standby, "s", "ready", "")
			mark = cascaded.standby.LogMark()
			p.standby.Set(t, "hot_standby_feedback", "off")
			cascaded.refuses(t, mark, "55000", "does not pass hot standby feedback on")
			p.standby.Set(t, "hot_standby_feedback", "on")
			waitState(t, cascaded.standby, "s", "ready", "")
			works(t)
		})
		story(t, "wal_level", func(t *testing.T) { p.testWALLevel(t) })
	})
}

func conninfo(s *cluster.Server, user string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s sslmode=disable", s.Port, user)
}

// testHBA: an entry for replication is not one for a database.
func (p *pair) testHBA(t *testing.T, works func(*testing.T)) {
	hba := p.primary.ReadFile(t, "pg_hba.conf")
	p.primary.Exec(t, "create role repl login replication")
	p.primary.WriteFile(t, "pg_hba.conf", "host replication all 127.0.0.1/32 trust\nhost all postgres 127.0.0.1/32 trust\n")
	p.primary.Reload(t)
	mark := p.standby.LogMark()
	p.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "repl"))
	hint := p.refuses(t, mark, "28000", "no pg_hba.conf entry")
	require.Contains(t, hint, "pg_hba.conf")
	p.primary.WriteFile(t, "pg_hba.conf", hba)
	p.primary.Reload(t)
	// What the role lacks now is the next story's.
	waitWorker(t, p.standby, "to connect", func(w workerRow) bool { return !strings.Contains(w.LastError, "pg_hba") || w.State != "blocked" })
	p.standby.Unset(t, "replsync.primary_conninfo")
	works(t)
}

// testRights: a role with REPLICATION alone can't read the files, and what the hint says mends that.
func (p *pair) testRights(t *testing.T) {
	mark := p.standby.LogMark()
	// The session of the other role would hear of the slot and copy it.
	p.standby.Set(t, "replsync.sync_slots", "off")
	waitWorker(t, p.standby, "to be off", func(w workerRow) bool { return w.State == "off" })
	p.standby.Set(t, "replsync.primary_conninfo", conninfo(p.primary, "repl"))
	p.createSlot(t, "postgres", "new", "test_decoding")
	p.primary.CreateSlot(t, "prepared", cluster.SlotOptions{Plugin: "test_decoding", TwoPhase: true, Failover: p.major >= firstFailover})
	p.standby.Unset(t, "replsync.sync_slots")
	hint := p.refuses(t, mark, "42501", "permission denied to read the files of replication slots")
	require.NotContains(t, p.standby.Slots(t), "new")
	grants := regexp.MustCompile(`GRANT [^;]*;`).FindAllString(hint, -1)
	require.NotEmpty(t, grants, hint)
	p.primary.Exec(t, strings.Join(grants, " "))
	p.move(t, "postgres", "s")
	p.waitReady(t, "s", "new", "prepared")
	// The first pass that may read has all that it needs.
	require.NotContains(t, p.standby.LogSince(mark), "two_phase_at_unknown")
	p.standby.Unset(t, "replsync.primary_conninfo")
	p.dropSlot(t, "new")
	p.dropSlot(t, "prepared")
}

// testWALLevel restarts servers with wal_level = replica.
func (p *pair) testWALLevel(t *testing.T) {
	if p.major < firstDynamic {
		// The standby would not start with the copies that it has.
		p.standby.Set(t, "replsync.sync_slots", "off")
		p.standby.Exec(t, "select replsync.drop_slots()")
		p.standby.Exec(t, "alter system set wal_level = 'replica'")
		p.standby.Exec(t, "alter system reset replsync.sync_slots")
		mark := p.standby.LogMark()
		p.standby.Restart(t)
		p.refuses(t, mark, "55000", `requires "wal_level" to be "logical"`)
		p.standby.Exec(t, "alter system reset wal_level")
		p.standby.Restart(t)
		p.primary.WaitFeedback(t, p.standby)
		p.waitReady(t, "s")
	}

	p.dropSlot(t, "s")
	p.waitDropped(t, "s")
	mark := p.standby.LogMark()
	p.primary.Exec(t, "alter system set wal_level = 'replica'")
	p.primary.Restart(t)
	p.caughtUp(t)
	if p.major < firstDynamic {
		p.refuses(t, mark, "55000", `requires "wal_level" to be "logical" on the primary`)
		p.primary.Exec(t, "alter system reset wal_level")
		p.primary.Restart(t)
		p.caughtUp(t)
	} else {
		// The first slot switches logical decoding on, and the last one off.
		waitWorker(t, p.standby, "to see nothing wrong", func(w workerRow) bool { return w.State == "napping" })
	}
	p.createSlot(t, "postgres", "s", "test_decoding")
	p.waitReady(t, "s")
	p.dropSlot(t, "s")
	p.waitDropped(t, "s")
	p.createSlot(t, "postgres", "s", "test_decoding")
	p.waitReady(t, "s")
}
