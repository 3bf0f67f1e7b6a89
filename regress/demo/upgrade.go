package main

import (
	"context"
	"fmt"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

// upgrade is the second story: a server is replaced by another one of the same or a newer version while applications
// write to it, and the new one goes on where the old one's sequences stood.
func upgrade(d *demo) {
	d.step("An old server of PostgreSQL %d, and a new one of PostgreSQL %d which subscribes to it", *major, *to)
	old := cluster.New(d, *major, cluster.Name("old"))
	successor := cluster.New(d, *to, cluster.Name("new"), cluster.Preload("replsync"),
		cluster.Setting("replsync.sequence_naptime_min", "100ms"), cluster.Setting("replsync.sequence_naptime_max", "1s"))
	const tables = `create table orders (id serial primary key, item text);
		create table bills (nr bigint generated always as identity primary key, order_id int)`
	old.Exec(d, tables+"; create publication upgrade for all tables")
	successor.Exec(d, tables+"; create extension replsync")
	d.say("old: 127.0.0.1:%d    new: 127.0.0.1:%d    nothing of replsync is on the old server", old.Port, successor.Port)

	ctx, stop := context.WithCancel(context.Background())
	load := make(chan error, 1)
	d.Cleanup(stop)
	go func() { load <- write(ctx, old) }()
	successor.Subscribe(d, "upgrade", old.Database, cluster.SubscriptionOptions{Publications: []string{"upgrade"}})

	d.step("Orders come in all the time. Logical replication brings the rows, and replsync the sequences")
	d.query(successor, `select replsync.add_sequences('upgrade')`)
	cluster.Eventually(d, *deadline, "the new server to follow", func() bool {
		return cluster.QueryOne[int64](d, successor, "select last_value from orders_id_seq") > 100
	})
	d.query(successor, `select sequence_name, state, publisher_value, local_value from replsync.sequence_status`)

	d.step("Cutover: the applications stop, the last rows arrive, and the last values are fetched")
	stop()
	if err := <-load; err != nil {
		d.Fatalf("%v", err)
	}
	start := time.Now()
	successor.WaitSubscribed(d, "upgrade", old.Database)
	d.query(successor, `select sequence_name, publisher_value, local_after, action from replsync.sync_sequences('upgrade')`)
	cluster.Eventually(d, *deadline, "the new server to be ready to take over", func() bool {
		return cluster.QueryOne[bool](d, successor, "select bool_and(ok is true) from replsync.cutover_check('upgrade')")
	})
	d.query(successor, `select count(*) as checks, bool_and(ok) as may_take_over from replsync.cutover_check('upgrade')`)
	successor.Exec(d, "alter subscription upgrade disable")
	old.Stop(d, cluster.Fast)

	d.step("The first orders on the new server")
	last := cluster.QueryOne[int](d, successor, "select max(id) from orders")
	const more = 5
	for range more {
		if err := writeOne(context.Background(), successor); err != nil {
			d.Fatalf("%v", err)
		}
	}
	d.query(successor, fmt.Sprintf(`select o.id, nr from orders o join bills on order_id = o.id where o.id > %d order by 1`, last))
	if count := cluster.QueryOne[int](d, successor, "select count(distinct id) from orders where id <= $1", last+more); count != last+more {
		d.Fatalf("wanted %d orders with ids without a gap, got %d", last+more, count)
	}
	fmt.Printf("\nThe new server went on with order %d, %v after the last one on the old server: no id came twice.\n",
		last+1, time.Since(start).Round(time.Millisecond))
}

// write takes orders until the context ends.
func write(ctx context.Context, s *cluster.Server) error {
	for ctx.Err() == nil {
		if err := writeOne(context.Background(), s); err != nil {
			return err
		}
	}
	return nil
}

func writeOne(ctx context.Context, s *cluster.Server) error {
	_, err := s.TryExec(ctx, `with o as (insert into orders (item) values ('item') returning id) insert into bills (order_id) select id from o`)
	return err
}
