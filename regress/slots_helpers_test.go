package regress_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// statusRow is a row of slot_status.
type statusRow struct {
	SlotName                string `json:"slot_name"`
	Database                string
	Plugin                  string
	State, Reason, Hint     string
	RemoteRestartLSN        lsn        `json:"remote_restart_lsn"`
	RemoteConfirmedFlushLSN lsn        `json:"remote_confirmed_flush_lsn"`
	RestartLSN              lsn        `json:"restart_lsn"`
	ConfirmedFlushLSN       lsn        `json:"confirmed_flush_lsn"`
	LagBytes                *int64     `json:"lag_bytes"`
	LastSyncAt              *time.Time `json:"last_sync_at"`
	LastError               string     `json:"last_error"`
	LastErrorAt             *time.Time `json:"last_error_at"`
	ErrorCount              int64      `json:"error_count"`
}

// syncRow is a row of sync_slots().
type syncRow struct {
	SlotName string `json:"slot_name"`
	Database string
	Action   string
	Ready    bool
	Reason   string
}

// workerRow is a row of worker_status.
type workerRow struct {
	Kind        string
	PID         int
	State       string
	Cycles      int64
	LastError   string     `json:"last_error"`
	LastErrorAt *time.Time `json:"last_error_at"`
	StartedAt   *time.Time `json:"started_at"`
	NextCycleAt *time.Time `json:"next_cycle_at"`
}

func trySync(q cluster.Queryer) (map[string]syncRow, error) {
	rows, err := rowsOf[syncRow](q, "select * from replsync.sync_slots()")
	bySlot := map[string]syncRow{}
	for _, row := range rows {
		bySlot[row.SlotName] = row
	}
	return bySlot, err
}

// syncSlots makes a pass, of which every row of whose slot is of use to the caller.
func syncSlots(t *testing.T, q cluster.Queryer) map[string]syncRow {
	t.Helper()
	rows, err := trySync(q)
	require.NoError(t, err)
	return rows
}

func tryStatus(q cluster.Queryer) (map[string]statusRow, error) {
	rows, err := rowsOf[statusRow](q, "select * from replsync.slot_status")
	bySlot := map[string]statusRow{}
	for _, row := range rows {
		bySlot[row.SlotName] = row
	}
	return bySlot, err
}

func slotStatus(t *testing.T, q cluster.Queryer) map[string]statusRow {
	t.Helper()
	rows, err := tryStatus(q)
	require.NoError(t, err)
	return rows
}

func tryWorker(q cluster.Queryer) (workerRow, error) {
	rows, err := rowsOf[workerRow](q, "select * from replsync.worker_status where kind = 'slots'")
	if err != nil || len(rows) != 1 {
		return workerRow{}, errors.Join(err, fmt.Errorf("%d rows in worker_status", len(rows)))
	}
	return rows[0], nil
}

func workerStatus(t *testing.T, q cluster.Queryer) workerRow {
	t.Helper()
	var w workerRow
	cluster.Eventually(t, cluster.DefaultDeadline, "a row in worker_status", func() (err error) {
		w, err = tryWorker(q)
		return err
	})
	return w
}

// waitWorker waits until the worker is as wanted.
func waitWorker(t *testing.T, q cluster.Queryer, what string, wanted func(workerRow) bool) workerRow {
	t.Helper()
	var w workerRow
	cluster.Eventually(t, cluster.DefaultDeadline, "the worker "+what, func() (err error) {
		if w, err = tryWorker(q); err == nil && !wanted(w) {
			err = fmt.Errorf("it is %+v", w)
		}
		return err
	})
	return w
}

// waitCycles lets the worker make that many cycles.
func waitCycles(t *testing.T, q cluster.Queryer, n int64) {
	t.Helper()
	start := workerStatus(t, q).Cycles
	waitWorker(t, q, "to make cycles", func(w workerRow) bool { return w.Cycles >= start+n })
}

// waitStatus waits until the row of a slot is as wanted.
func waitStatus(t *testing.T, q cluster.Queryer, name, what string, wanted func(statusRow) bool) statusRow {
	t.Helper()
	var row statusRow
	cluster.Eventually(t, cluster.DefaultDeadline, "slot "+name+" "+what, func() error {
		rows, err := tryStatus(q)
		if err != nil {
			return err
		}
		var there bool
		if row, there = rows[name]; !there || !wanted(row) {
			return fmt.Errorf("slot_status says %+v", rows)
		}
		return nil
	})
	return row
}

func waitState(t *testing.T, q cluster.Queryer, name, state, reason string) statusRow {
	t.Helper()
	return waitStatus(t, q, name, fmt.Sprintf("to be %s for %q", state, reason), func(row statusRow) bool {
		return row.State == state && row.Reason == reason
	})
}

// waitReady waits until copies are ready and at the positions of the primary.
func (p *pair) waitReady(t *testing.T, names ...string) {
	t.Helper()
	p.wait(t, func() error { return nil }, names)
}

// syncReady makes passes until the copies are ready and at the positions of the primary.
func (p *pair) syncReady(t *testing.T, names ...string) {
	t.Helper()
	p.wait(t, func() error {
		_, err := trySync(p.standby)
		return err
	}, names)
}

func (p *pair) wait(t *testing.T, before func() error, names []string) {
	t.Helper()
	what := fmt.Sprintf("the copies %v to be ready at the primary's positions", names)
	cluster.Eventually(t, cluster.DefaultDeadline, what, func() error {
		if err := before(); err != nil {
			return err
		}
		rows, err := tryStatus(p.standby)
		if err != nil {
			return err
		}
		there, here := p.primary.Slots(t), p.standby.Slots(t)
		for _, name := range names {
			row, remote, local := rows[name], there[name], here[name]
			switch {
			case row.State != "ready":
				w, err := tryWorker(p.standby)
				return fmt.Errorf("%s: %+v; worker: %+v, %v", name, row, w, err)
			case local.RestartLSN == nil || *local.RestartLSN != *remote.RestartLSN,
				local.ConfirmedFlushLSN == nil || *local.ConfirmedFlushLSN != *remote.ConfirmedFlushLSN:
				w, err := tryWorker(p.standby)
				return fmt.Errorf("%s is at %v/%v, on the primary at %v/%v: %+v; worker: %+v, %v", name, local.RestartLSN,
					local.ConfirmedFlushLSN, remote.RestartLSN, remote.ConfirmedFlushLSN, row, w, err)
			}
		}
		return nil
	})
}

// waitDropped waits until a copy is gone.
func (p *pair) waitDropped(t *testing.T, name string) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, "the copy "+name+" to be dropped", func() bool {
		_, there := p.standby.Slots(t)[name]
		return !there
	})
}

// requireCopies checks that the standby has copies of these slots and no other slot.
func (p *pair) requireCopies(t *testing.T, names ...string) {
	t.Helper()
	var here []string
	for name := range p.standby.Slots(t) {
		here = append(here, name)
	}
	slices.Sort(here)
	slices.Sort(names)
	require.Equal(t, names, here)
}
