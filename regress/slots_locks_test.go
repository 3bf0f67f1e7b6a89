package regress_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestLockOrders publishes what slots hold in the order of locks of releases before and after it was turned round. Both do the
// same where nobody else takes the two locks; beside sessions that make slots only that of the running release goes on, and
// with the other one everything would hang.
func TestLockOrders(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major, cluster.Setting("max_replication_slots", 20))
		primary.Exec(t, `create function selftest_hold(name, xid, integer, integer) returns xid
			language c strict as 'replsync_selftest'`)
		primary.CreateSlot(t, "logical", cluster.SlotOptions{Plugin: "test_decoding"})
		primary.Exec(t, "select pg_create_physical_replication_slot('physical')")
		held := *primary.Slots(t)["logical"].CatalogXmin
		hold := func(ctx context.Context, xid int64, version, rounds int) (int64, error) {
			const sql = "select selftest_hold('physical', $1::int8::text::xid, $2, $3)::text::int8"
			conn, err := primary.TryConnect(ctx)
			if err != nil {
				return 0, err
			}
			defer func() { _ = conn.Close(context.Background()) }()
			var all int64
			err = conn.QueryRow(ctx, sql, xid, version, rounds).Scan(&all)
			return all, err
		}
		for _, version := range []int{major * 10000, major*10000 + 99} {
			for xid, want := range map[int64]int64{held - 1: held - 1, held + 1: held} {
				all, err := hold(background(t), xid, version, 1)
				require.NoError(t, err)
				require.Equal(t, want, all, "%d: %d", version, xid)
			}
		}

		version := cluster.QueryOne[int](t, primary, "select current_setting('server_version_num')::int")
		ctx, cancel := context.WithCancel(background(t))
		defer cancel()
		ended := make(chan error, 4)
		for i := range 3 {
			go func() {
				for n := range 100 {
					name := fmt.Sprintf("made%d_%d", i, n)
					_, err := primary.TryExec(ctx, "select pg_create_logical_replication_slot($1, 'test_decoding', true)", name)
					if err != nil {
						ended <- err
						return
					}
				}
				ended <- nil
			}()
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				_, _ = hold(ctx, held, version, 10000)
			}
		}()
		for range 3 {
			require.NoError(t, next(t, ended))
		}
		cancel()
		<-done
	})
}
