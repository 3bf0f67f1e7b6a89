package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

const (
	before = 5 // rows that the consumer gets from the primary
	unread = 5 // rows that the primary has sent to nobody when it dies
	after  = 5 // rows that are written after the promotion
)

// failover is the first story.
func failover(d *demo) {
	d.step("A primary and a standby of PostgreSQL %d, both with shared_preload_libraries = 'replsync'", *major)
	primary := cluster.New(d, *major, cluster.Preload("replsync"), cluster.Setting("replsync.slot_naptime_max", "1s"))
	primary.Exec(d, "create extension replsync")
	standby := primary.Standby(d)
	primary.WaitReplayed(d, standby)
	primary.WaitFeedback(d, standby)
	d.say("primary: 127.0.0.1:%d    standby: 127.0.0.1:%d    %s", primary.Port, standby.Port, primary.Install().Version())

	d.step("A table, a publication, and a logical slot with a consumer at the primary")
	primary.Exec(d, "create table orders (id int primary key, item text); create publication shop for table orders")
	primary.CreateSlot(d, "shop", cluster.SlotOptions{Failover: *major >= 17})
	consumer := cluster.NewConsumer(d, cluster.ConsumerConfig{Slot: "shop", Publication: "shop"})
	consumer.Start(d, primary)
	insert(d, primary, 1, before)
	consumer.WaitValues(d, "public.orders", "id", ids(before)...)
	consumer.WaitConfirmed(d, primary)
	d.say("the consumer has orders %s", strings.Join(consumer.Values("public.orders", "id"), ", "))

	d.step("replsync keeps a copy of the slot on the standby")
	waitReady(d, standby)
	d.query(standby, `select slot_name, state, confirmed_flush_lsn, lag_bytes, last_sync_at is not null as synced
		from replsync.slot_status`)
	d.query(standby, `select slot_name, plugin, restart_lsn, confirmed_flush_lsn from pg_replication_slots`)

	d.step("%d more orders, which the standby gets and the consumer does not; then the primary is killed (kill -9)", unread)
	consumer.Stop()
	insert(d, primary, before+1, before+unread)
	primary.WaitReplayed(d, standby)
	start := time.Now()
	primary.Kill9(d)

	d.step("The standby is promoted, and the consumer goes on there")
	if cluster.QueryOne[bool](d, standby, "select to_regprocedure('replsync.failover_ready()') is not null") {
		d.query(standby, `select replsync.failover_ready()`)
	}
	took := standby.Promote(d)
	d.say("promoted in %v", took.Round(time.Millisecond))
	consumer.Start(d, standby)
	insert(d, standby, before+unread+1, before+unread+after)
	all := before + unread + after
	consumer.WaitReceived(d, "all orders", func([]cluster.Tx) bool {
		return len(consumer.Values("public.orders", "id")) >= all
	})
	d.say("%v after the kill the consumer has everything", time.Since(start).Round(time.Millisecond))

	d.step("What arrived")
	for _, tx := range consumer.Received() {
		for _, change := range tx.Changes {
			d.say("from %-9s %s", tx.Server, change)
		}
	}
	if got := consumer.Values("public.orders", "id"); !slices.Equal(got, ids(all)) {
		d.Fatalf("wanted each of %d orders once and in order, got %v", all, got)
	}
	fmt.Printf("\n%d orders written, %d arrived: nothing was lost, nothing came twice.\n", all, all)
}

// waitReady waits until replsync says that the slot is safe to use.
func waitReady(d *demo, standby *cluster.Server) {
	cluster.Eventually(d, *deadline, "the slot to be ready on the standby", func() error {
		state, err := cluster.TryQueryOne[string](standby,
			"select state || coalesce(', ' || reason, '') || coalesce(', ' || hint, '') from replsync.slot_status where slot_name = 'shop'")
		if err == nil && !strings.HasPrefix(state, "ready") {
			err = fmt.Errorf("its state is %s", state)
		}
		return err
	})
}

func insert(d *demo, s *cluster.Server, first, last int) {
	for id := first; id <= last; id++ {
		s.Exec(d, "insert into orders values ($1, $2)", id, fmt.Sprintf("item-%d", id))
	}
	d.say("orders %d to %d are written to the %s", first, last, s.Name)
}

func ids(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(i + 1)
	}
	return list
}
