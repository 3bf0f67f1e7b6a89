package regress_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// promotionDeadline is what a promotion may take on a busy machine. What it must not wait for takes longer.
const promotionDeadline = 15 * time.Second

// TestPromotionWithFrozenPrimary promotes a standby whose worker waits for a server that does not answer.
func TestPromotionWithFrozenPrimary(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major)
		p.primary.Exec(t, "create table t (id int primary key); create publication p for all tables")
		p.createSlot(t, "postgres", "s", "pgoutput")
		p.waitReady(t, "s")
		p.primary.WaitReplayed(t, p.standby)
		before := workerStatus(t, p.standby)
		p.primary.Freeze(t)
		called := make(chan error, 1)
		go func() {
			_, err := trySync(p.standby)
			called <- err
		}()
		waitWorker(t, p.standby, "to wait for the primary", func(w workerRow) bool { return w.State == "running" })
		promoted := time.Now()
		require.Less(t, p.standby.Promote(t), promotionDeadline)
		require.Error(t, <-called)
		requireNoCore(t, p.standby)
		require.Less(t, time.Since(promoted), promotionDeadline, "the worker waits on for the former primary")
		require.NotEqual(t, before.PID, workerStatus(t, p.standby).PID)
		p.standby.Exec(t, "insert into t values (1)")
		c := cluster.NewConsumer(t, cluster.ConsumerConfig{Slot: "s", Publication: "p", FromSlot: true})
		c.Start(t, p.standby)
		c.WaitValues(t, "public.t", "id", "1")
	})
}

// TestPromotionOfBusyWorker promotes a standby while its worker makes and drops copies as fast as it can.
func TestPromotionOfBusyWorker(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		p := newPair(t, major, cluster.Settings(map[string]string{
			"replsync.slot_naptime_min": "10ms", "replsync.slot_naptime_max": "10ms",
		}))
		p.primary.Exec(t, "create table t (id int)")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			failover := ""
			if major >= firstFailover {
				failover = ", failover => true"
			}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("s%d", i%8)
				for _, sql := range []string{
					"insert into t values (1)",
					"select pg_drop_replication_slot('" + name + "')",
					"select pg_create_logical_replication_slot('" + name + "', 'test_decoding'" + failover + ")",
				} {
					_, _ = p.primary.TryExec(context.Background(), sql)
				}
			}
		}()
		cluster.Eventually(t, cluster.DefaultDeadline, "copies", func() bool { return len(p.standby.Slots(t)) >= 3 })
		took := p.standby.Promote(t)
		close(stop)
		<-stopped
		require.Less(t, took, promotionDeadline)
		requireNoCore(t, p.standby)

		// What is left can be used.
		cluster.Eventually(t, cluster.DefaultDeadline, "the copies that were not ready to be gone", func() error {
			for name, slot := range p.standby.Slots(t) {
				if slot.Temporary || slot.Plugin != "test_decoding" || slot.RestartLSN == nil {
					return fmt.Errorf("%s: %+v", name, slot)
				}
			}
			return nil
		})
		for name := range p.standby.Slots(t) {
			p.standby.Exec(t, "select count(*) from pg_logical_slot_get_changes($1, null, null)", name)
		}
	})
}
