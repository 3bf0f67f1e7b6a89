package regress_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/replsync/replsync/regress/cluster"
)

// sequenceWorker is a row of worker_status of kind sequences.
type sequenceWorker struct {
	workerRow
	Database    string
	LastCycleAt *string `json:"last_cycle_at"`
}

// tryWorkers returns the sequence workers of the server; of this database if there is one. The launcher has none.
func (r *replica) tryWorkers() ([]sequenceWorker, error) {
	rows, err := rowsOf[sequenceWorker](r.sub, "select * from replsync.worker_status where kind = 'sequences'")
	return slices.DeleteFunc(rows, func(w sequenceWorker) bool { return w.Database != "sub_"+r.name }), err
}

// waitWorker waits until this database has a worker as wanted.
func (r *replica) waitWorker(t *testing.T, what string, wanted func(sequenceWorker) bool) sequenceWorker {
	t.Helper()
	var found sequenceWorker
	cluster.Eventually(t, cluster.DefaultDeadline, "a sequence worker "+what, func() error {
		rows, err := r.tryWorkers()
		if err != nil {
			return err
		}
		for _, found = range rows {
			if wanted(found) {
				return nil
			}
		}
		return fmt.Errorf("worker_status says %+v", rows)
	})
	return found
}

// waitNoWorker waits until this database has no sequence worker.
func (r *replica) waitNoWorker(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, "the sequence worker to end", func() error {
		rows, err := r.tryWorkers()
		if err == nil && len(rows) > 0 {
			err = fmt.Errorf("worker_status says %+v", rows)
		}
		return err
	})
}

// waitSequenceCycles lets the worker of this database begin and end a cycle.
func (r *replica) waitSequenceCycles(t *testing.T) {
	t.Helper()
	start := r.waitWorker(t, "to exist", func(sequenceWorker) bool { return true }).Cycles
	r.waitWorker(t, "to make cycles", func(w sequenceWorker) bool { return w.Cycles >= start+2 })
}
