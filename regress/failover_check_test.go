package regress_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// checkRow is a row of failover_check().
type checkRow struct {
	CheckName string `json:"check_name"`
	Object    string
	OK        *bool
	Detail    string
	Hint      string
}

func (r checkRow) String() string {
	ok := "unknown"
	if r.OK != nil {
		ok = fmt.Sprint(*r.OK)
	}
	return fmt.Sprintf("%s %s %s: %s | %s", ok, r.CheckName, r.Object, r.Detail, r.Hint)
}

// failoverCheck returns the rows, and checks what holds for all of them. The server's own timeout stands for the promise
// that the answer comes within replsync.connect_timeout, whatever the primary does.
func failoverCheck(t *testing.T, s *cluster.Server) []checkRow {
	t.Helper()
	var rows []checkRow
	timeout := cluster.QueryOne[string](t, s, "show replsync.connect_timeout")
	db := s.DB("postgres").With("options=-cstatement_timeout=" + timeout)
	cluster.Eventually(t, cluster.DefaultDeadline, "failover_check()", func() (err error) {
		rows, err = rowsOf[checkRow](db, "select * from replsync.failover_check()")
		return err
	})
	for _, row := range rows {
		require.NotEmpty(t, row.Detail, row)
		require.True(t, row.OK != nil && *row.OK || row.Hint != "", "no hint: %s", row)
	}
	return rows
}

func failoverReady(t *testing.T, s *cluster.Server) *bool {
	t.Helper()
	return cluster.QueryOne[*bool](t, s, "select replsync.failover_ready()")
}

// waitReadiness waits until failover_ready() says so, and, where it is false, for nothing but these "check_name object".
func waitReadiness(t *testing.T, s *cluster.Server, because ...string) (rows []checkRow) {
	t.Helper()
	slices.Sort(because)
	cluster.Eventually(t, cluster.DefaultDeadline, fmt.Sprintf("the standby to be unready for %q", because), func() error {
		var failed []string
		rows = failoverCheck(t, s)
		for _, row := range rows {
			if row.OK != nil && !*row.OK {
				failed = append(failed, row.CheckName+" "+row.Object)
			}
		}
		slices.Sort(failed)
		ready := failoverReady(t, s)
		if ready == nil || *ready != (len(because) == 0) || !slices.Equal(failed, because) {
			return fmt.Errorf("it is %v for %q: %v", ready, failed, rows)
		}
		return nil
	})
	return rows
}

func checkOf(t *testing.T, rows []checkRow, name string) checkRow {
	t.Helper()
	for _, row := range rows {
		if row.CheckName == name {
			return row
		}
	}
	require.Failf(t, "no such check", "%s in %v", name, rows)
	return checkRow{}
}

func TestFailoverCheck(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		proxy := primary.Proxy(t)
		p := pairOf(t, primary, cluster.PrimaryConninfo(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", proxy.Port)),
			cluster.Setting("replsync.connect_timeout", "3s"))
		story(t, "NothingToKeep", p.checkNothingToKeep)
		p.createSlot(t, "postgres", "a", "test_decoding")
		p.waitReady(t, "a")
		story(t, "Ready", p.checkReady)
		story(t, "SettingsHere", p.checkSettingsHere)
		story(t, "HoldBack", p.checkHoldBack)
		story(t, "Plugin", p.checkPlugin)
		story(t, "Rights", p.checkRights)
		story(t, "PrimaryGone", func(t *testing.T) { p.checkPrimaryGone(t, proxy) })
		story(t, "OnPrimary", p.checkOnPrimary)
	})
}

// Without a slot to keep nothing stands in the way, not even what a slot would need.
func (p *pair) checkNothingToKeep(t *testing.T) {
	rows := waitReadiness(t, p.standby)
	require.True(t, *checkOf(t, rows, "slots").OK)
	p.standby.Set(t, "hot_standby_feedback", "off")
	rows = waitReadiness(t, p.standby)
	require.Nil(t, checkOf(t, rows, "worker").OK)
	p.standby.Unset(t, "hot_standby_feedback")
}

func (p *pair) checkReady(t *testing.T) {
	rows := waitReadiness(t, p.standby)
	require.Equal(t, "a", checkOf(t, rows, "slot").Object)
	for _, name := range []string{
		"worker", "primary", "last_pass", "setting", "primary_setting", "rights", "physical_slot", "feedback", "slots", "lag",
		"minor_release",
	} {
		require.True(t, *checkOf(t, rows, name).OK, name)
	}
	require.Nil(t, checkOf(t, rows, "hold_back").OK)

	// A new slot is missing until a pass has looked at it.
	p.standby.Set(t, "replsync.sync_slots", "off")
	p.createSlot(t, "postgres", "b", "test_decoding")
	if p.major >= firstConflict {
		rows = waitReadiness(t, p.standby, "slot b")
		require.Contains(t, checkOf(t, rows, "worker").Hint, "replsync.sync_slots")
	} else {
		waitReadiness(t, p.standby, "slot a", "slot b") // nobody watches a's proof
	}
	p.standby.Unset(t, "replsync.sync_slots")
	waitReadiness(t, p.standby)
	p.dropSlot(t, "b")
	p.waitDropped(t, "b")
}

func (p *pair) checkSettingsHere(t *testing.T) {
	p.standby.Set(t, "hot_standby_feedback", "off")
	waitReadiness(t, p.standby, "worker ", "setting hot_standby_feedback", "feedback "+p.standby.Slot, "slot a")
	p.standby.Unset(t, "hot_standby_feedback")
	waitReadiness(t, p.standby)
}

// A list that a base backup has brought along would keep this server from sending anything after a promotion.
func (p *pair) checkHoldBack(t *testing.T) {
	if p.major < firstFailover {
		t.Skip("the server has no such parameter")
	}
	p.primary.Set(t, "synchronized_standby_slots", p.standby.Slot)
	rows := waitReadiness(t, p.standby)
	require.True(t, *checkOf(t, rows, "hold_back").OK)
	p.standby.Set(t, "synchronized_standby_slots", p.standby.Slot)
	waitReadiness(t, p.standby, "hold_back_after_promotion synchronized_standby_slots")
	p.standby.Set(t, "synchronized_standby_slots", "")
	p.primary.Unset(t, "synchronized_standby_slots")
	waitReadiness(t, p.standby)
}

func (p *pair) checkPlugin(t *testing.T) {
	if cluster.QueryOne[int](t, p.standby, "select count(*) from pg_settings where name = 'output_plugin_libraries'") == 0 {
		t.Skip("the server has no such parameter")
	}
	p.standby.Set(t, "output_plugin_libraries", "pgoutput")
	waitReadiness(t, p.standby, "output_plugin test_decoding")
	p.standby.Unset(t, "output_plugin_libraries")
	waitReadiness(t, p.standby)
}

func (p *pair) checkRights(t *testing.T) {
	p.primary.Exec(t, "create role monitor login in role pg_monitor; create role nobody login")
	p.caughtUp(t)
	monitor := p.standby.DB("postgres").With("user=monitor")
	require.True(t, *cluster.QueryOne[*bool](t, monitor, "select replsync.failover_ready()"))
	_, err := p.standby.DB("postgres").With("user=nobody").TryExec(background(t), "select replsync.failover_ready()")
	requireError(t, err, "42501", "permission denied")
}

// With the primary gone what the last pass saw decides, and the answer comes in time.
func (p *pair) checkPrimaryGone(t *testing.T, proxy *cluster.Proxy) {
	proxy.Freeze()
	rows := waitReadiness(t, p.standby)
	require.Nil(t, checkOf(t, rows, "primary").OK)
	require.True(t, *checkOf(t, rows, "slot").OK)
	proxy.Thaw()

	p.primary.Stop(t, cluster.Immediate)
	rows = waitReadiness(t, p.standby)
	require.Nil(t, checkOf(t, rows, "primary").OK)
	require.True(t, *checkOf(t, rows, "last_pass").OK)
}

func (p *pair) checkOnPrimary(t *testing.T) {
	p.standby.Promote(t)
	rows := failoverCheck(t, p.standby)
	require.Len(t, rows, 1)
	require.Equal(t, "standby", rows[0].CheckName)
	require.Nil(t, rows[0].OK)
	require.Nil(t, failoverReady(t, p.standby))
}

// TestCheckBetweenPasses interrupts feedback while a pass waits for a primary that does not answer. On 15 nobody would notice if
// rows went meanwhile, so the copies that the last pass has found ready do not count.
func TestCheckBetweenPasses(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		if major >= firstConflict {
			t.Skip("replay would invalidate the copy")
		}
		p := newPair(t, major, cluster.Settings(map[string]string{
			"replsync.connect_timeout": "2s", "replsync.remote_timeout": "1h",
		}))
		proxy := p.primary.Proxy(t)
		p.standby.Set(t, "replsync.primary_conninfo", fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", proxy.Port))
		p.createSlot(t, "postgres", "s", "test_decoding")
		p.waitReady(t, "s")
		waitReadiness(t, p.standby)
		proxy.Freeze()
		go func() { _, _ = trySync(p.standby) }()
		waitWorker(t, p.standby, "to wait for the primary", func(w workerRow) bool { return w.State == "running" })

		held := func() bool { return p.primary.Slots(t)[p.standby.Slot].CatalogXmin != nil }
		p.standby.Set(t, "hot_standby_feedback", "off")
		cluster.Eventually(t, cluster.DefaultDeadline, "the primary to forget what it kept", func() bool { return !held() })
		p.standby.Unset(t, "hot_standby_feedback")
		cluster.Eventually(t, cluster.DefaultDeadline, "the primary to keep it again", held)
		// At once, whenever that pass ends.
		require.False(t, *checkOf(t, failoverCheck(t, p.standby), "slot").OK)
		require.False(t, *failoverReady(t, p.standby))
		proxy.Thaw()
		waitReadiness(t, p.standby)
	})
}
