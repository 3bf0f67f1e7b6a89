package regress_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

const shopDDL = `
	create table orders (id serial primary key, item text);
	create table bills (id bigint generated always as identity primary key, total int);
	create sequence tickets start 1000; create table notes (id bigint primary key default nextval('tickets'), text text);
	create table counters (id int primary key, n bigint)`

// TestUpgrade moves from older versions to the newest while applications write.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	majors := cluster.Versions(t)
	newest := slices.Max(majors)
	for _, older := range append(cluster.Publishers(t), slices.Min(majors)) {
		beside(t, fmt.Sprintf("%d to %d", older, newest), func(t *testing.T) { testUpgrade(t, older, newest) })
	}
}

func testUpgrade(t *testing.T, older, newest int) {
	from, to := newPublisher(t, older), newSubscriber(t, newest, sequencesAtOnce)
	r := newReplica(t, from, to, shopDDL)
	r.add(t, 3, "")

	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	failures := make(chan error, 4)
	for range 4 {
		writers.Go(func() { failures <- write(ctx, r.pub) })
	}
	cluster.Eventually(t, cluster.DefaultDeadline, "the new server to follow", func() bool {
		return cluster.QueryOne[int64](t, r.sub, "select least((select last_value from orders_id_seq), (select last_value from tickets) - 1000)") > 200
	})
	// While rows come in, nobody can promise that the sequences are ahead of them; the last sync is after the last write.
	stop()
	writers.Wait()
	for range 4 {
		require.NoError(t, <-failures)
	}
	r.sub.WaitSubscribed(t, "s", r.pub)
	requireNotFailed(t, r.sync(t))
	r.requireReadyToCutOver(t)
	r.sub.Exec(t, "alter subscription s disable")
	from.Stop(t, cluster.Fast)

	ctx, stop = context.WithCancel(context.Background())
	for range 4 {
		writers.Go(func() { failures <- write(ctx, r.sub) })
	}
	before := cluster.QueryOne[int64](t, r.sub, "select count(*) from orders")
	cluster.Eventually(t, cluster.DefaultDeadline, "rows on the new server", func() bool {
		return cluster.QueryOne[int64](t, r.sub, "select count(*) from orders") > before+50
	})
	stop()
	writers.Wait()
	for range 4 {
		require.NoError(t, <-failures)
	}
}

// write inserts until the context ends. An id that was given out before is an error.
func write(ctx context.Context, db *cluster.Database) error {
	conn, err := db.TryConnect(context.Background())
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for ctx.Err() == nil {
		if _, err := conn.Exec(context.Background(), `insert into orders (item) values ('item'); insert into bills (total) values (1);
			insert into notes (text) values ('note')`); err != nil {
			return err
		}
	}
	return nil
}

// firstEmptySkipped is the first version that does not send a transaction whose changes are not published.
const firstEmptySkipped = 15

// TestCutoverCheck asks whether the subscriber may take over, also with the publisher gone.
func TestCutoverCheck(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, from, to int) {
		publisher, subscriber := newPublisher(t, from), newSubscriber(t, to)
		r := newReplica(t, publisher, subscriber, shopDDL)
		r.add(t, 3, "")
		story(t, "before the first sync", func(t *testing.T) {
			require.NotEmpty(t, r.check(t, "false"), "nothing has been synchronized yet: %+v", r.checks(t))
		})
		story(t, "all is well", func(t *testing.T) {
			r.pub.Exec(t, "insert into orders (item) select 'item' from generate_series(1, 10); insert into notes default values")
			r.sub.WaitSubscribed(t, "s", r.pub)
			r.sync(t)
			r.requireReadyToCutOver(t)
		})
		story(t, "publisher ahead", func(t *testing.T) {
			r.move(t, "orders_id_seq", 1)
			require.NotEmpty(t, r.check(t, "false"), "%+v", r.checks(t))
			r.sync(t)
			r.requireReadyToCutOver(t)
		})
		story(t, "rows under way", func(t *testing.T) {
			end := hold(t, r.sub, "lock table counters")
			r.pub.Exec(t, "insert into counters values (1, 1)")
			r.sync(t)
			require.Contains(t, r.check(t, "false"), "received s", "%+v", r.checks(t))
			end("rollback")
			r.requireReadyToCutOver(t)
			r.sub.Exec(t, "alter subscription s disable")
			cluster.Eventually(t, cluster.DefaultDeadline, "an answer that is not known", func() bool {
				return slices.Contains(r.check(t, "null"), "received s")
			})
			r.sub.Exec(t, "alter subscription s enable")
			r.requireReadyToCutOver(t)
		})
		story(t, "rows that have come and are not committed", func(t *testing.T) {
			r.sub.Exec(t, `create table gate ();
				create function pass() returns trigger language plpgsql as 'begin lock table public.gate; return null; end';
				create constraint trigger pass after insert on counters deferrable initially deferred for each row execute function pass();
				alter table counters enable always trigger pass`)
			end := hold(t, r.sub, "lock table gate")
			r.pub.Exec(t, "insert into counters values (2, 2)")
			waitBlocked(t, r.sub)
			r.sync(t)
			require.Contains(t, r.check(t, "false"), "received s", "%+v", r.checks(t))
			end("rollback")
			r.requireReadyToCutOver(t)
			require.Equal(t, 1, cluster.QueryOne[int](t, r.sub, "select count(*) from counters where id = 2"))
			r.sub.Exec(t, "drop function pass() cascade; drop table gate")
		})
		story(t, "nothing comes after the last commit", func(t *testing.T) {
			// The publisher is not to write anything by itself.
			writer := cluster.QueryOne[int](t, r.pub, "select pid from pg_stat_activity where backend_type = 'background writer'")
			require.NoError(t, syscall.Kill(writer, syscall.SIGSTOP))
			defer func() { require.NoError(t, syscall.Kill(writer, syscall.SIGCONT)) }()
			r.connectAs(t, fmt.Sprintf("user=postgres port=%d", publisher.WithoutKeepalives(t).Port))
			received := func(sql string) {
				t.Helper()
				r.pub.Exec(t, sql)
				end := cluster.QueryOne[cluster.LSN](t, r.pub, "select pg_current_wal_flush_lsn()")
				cluster.Eventually(t, cluster.DefaultDeadline, "the last commit to be applied", func() bool {
					return cluster.QueryOne[bool](t, r.pub, "select confirmed_flush_lsn >= $1 from pg_replication_slots where database = current_database()", end)
				})
				r.sync(t)
				require.Contains(t, r.check(t, "true"), "received s", "%+v", r.checks(t))
				require.True(t, cluster.QueryOne[bool](t, r.sub, "select latest_end_lsn is null from pg_stat_subscription where subname = 's'"),
					"a keepalive has come")
			}
			received("insert into counters values (3, 3)")
			if from < firstEmptySkipped {
				received("comment on table counters is 'a change that is not published'")
			}
			r.connectAs(t, "user=postgres")
			r.requireReadyToCutOver(t)
		})
		story(t, "tables that are copied", func(t *testing.T) {
			for _, db := range []*cluster.Database{r.pub, r.sub} {
				db.Exec(t, "create table late (id serial primary key)")
			}
			r.pub.Exec(t, "insert into late select from generate_series(1, 3)")
			// It cannot be copied while somebody else has the row.
			r.sub.Exec(t, "insert into late values (2)")
			r.sub.Exec(t, "alter subscription s refresh publication")
			r.sub.Exec(t, "select replsync.refresh_selection('s')")
			r.sync(t)
			require.NotEmpty(t, r.check(t, "false"), "a table is being copied: %+v", r.checks(t))
			r.sub.Exec(t, "truncate late")
			r.sub.WaitSubscribed(t, "s", r.pub)
			r.sync(t)
			r.requireReadyToCutOver(t)
		})
		story(t, "who may ask", func(t *testing.T) {
			subscriber.Exec(t, "create role monitor login in role pg_monitor; create role nobody login")
			rows := cluster.Query[string](t, r.sub.With("user=monitor"), "select check_name from replsync.cutover_check('s')")
			require.NotEmpty(t, rows)
			failure(t, r.sub.With("user=nobody"), "select * from replsync.cutover_check('s')", "42501", "permission denied")
		})

		died := func(t *testing.T) {
			t.Helper()
			publisher.Kill9(t)
			// What is known survives a crash here too. The apply worker commits asynchronously: without a checkpoint the crash
			// takes the last rows back, and the position up to which it has applied.
			subscriber.Exec(t, "checkpoint")
			subscriber.Kill9(t)
			subscriber.Start(t)
		}
		back := func(t *testing.T) {
			t.Helper()
			publisher.Start(t)
			r.sub.WaitSubscribed(t, "s", r.pub)
			r.sync(t)
			r.requireReadyToCutOver(t)
		}
		about := func(t *testing.T, object string) checkRow {
			t.Helper()
			for _, row := range r.checks(t) {
				if strings.Contains(row.Object, object) {
					return row
				}
			}
			return checkRow{}
		}
		story(t, "publisher dead, and nothing came after the last sync", func(t *testing.T) {
			r.pub.Exec(t, "insert into orders (item) values ('one more')")
			r.sub.WaitSubscribed(t, "s", r.pub)
			r.sync(t)
			died(t)
			require.Empty(t, r.check(t, "false"), "%+v", r.checks(t))
			next := cluster.QueryOne[int64](t, r.sub, "select nextval('orders_id_seq')")
			require.Greater(t, next, cluster.QueryOne[int64](t, r.sub, "select max(id) from orders"))
			back(t)
		})
		story(t, "publisher dead, and rows came after the last sync", func(t *testing.T) {
			r.pub.Exec(t, "insert into orders (item) select 'late' from generate_series(1, 5)")
			r.sub.WaitSubscribed(t, "s", r.pub)
			died(t)
			// Without that they would be no rows that came.
			require.Equal(t, 5, cluster.QueryOne[int](t, r.sub, "select count(*) from orders where item = 'late'"))
			require.NotEmpty(t, r.check(t, "false"), "rows were applied that the sequences may be behind of: %+v", r.checks(t))
			row := about(t, "orders_id_seq")
			require.True(t, row.OK != nil && !*row.OK, "%+v in %+v", row, r.checks(t))
			require.NotEmpty(t, row.Hint)
			back(t)
		})
		if from < firstSignal {
			return
		}
		story(t, "publisher promoted", func(t *testing.T) {
			// A position of another timeline says nothing about this one's.
			standby := publisher.Standby(t)
			r.pub.Exec(t, "insert into orders (item) values ('a')")
			r.sub.WaitSubscribed(t, "s", r.pub)
			r.sync(t)
			publisher.WaitReplayed(t, standby)
			publisher.Kill9(t)
			standby.Promote(t)
			r.publisher, r.pub = standby, standby.DB("pub_"+r.name)
			r.connectAs(t, "user=postgres")
			r.pub.Exec(t, "insert into orders (item) values ('b')")
			r.sync(t)
			require.Equal(t, position(t, r.pub, "orders_id_seq"), position(t, r.sub, "orders_id_seq"))
		})
	})
}

// TestSequenceDump takes the selection along, and nothing of the state.
func TestSequenceDump(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, shopDDL+"; create sequence excluded")
		r.add(t, 3, "'all', exclude => '{public.exc*}', margin => 7")
		r.move(t, "orders_id_seq", 10)
		r.sync(t)
		requirePositions(t, r.sub, "orders_id_seq", "17|t")
		dump := s.Run(t, "pg_dump", "sub_"+r.name)
		// No cycle puts in order what is restored.
		s.Set(t, "replsync.sync_sequences", "off")
		s.Exec(t, "create database restored")
		restored := *r
		restored.sub = s.DB("restored")
		cmd := s.Command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored")
		cmd.Stdin = strings.NewReader(dump)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		for name, row := range func() map[string]sequenceStatusRow { rows, _ := restored.tryStatus(); return rows }() {
			require.Nil(t, row.PublisherLSN, name)
			require.Nil(t, row.LastSyncAt, name)
		}
		require.Equal(t, slices.Sorted(maps.Keys(r.drift(t))), slices.Sorted(maps.Keys(restored.drift(t))))
		s.Set(t, "replsync.sync_sequences", "on")
		r.move(t, "orders_id_seq", 10)
		rows := restored.sync(t)
		require.Len(t, rows, 3, "%+v", rows)
		requirePositions(t, restored.sub, "orders_id_seq", "27|t", "excluded", "1|f")
		require.Equal(t, r.under(t), restored.under(t))
	})
}

// TestSequencesOfAnotherServer has what pg_upgrade carries over: the tables of another server, while subscriptions have new
// oids, here even those of each other. Rules go by the name, and nothing is proven before the sequences were gone over.
func TestSequencesOfAnotherServer(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, "create table t (id serial primary key); create sequence other")
		r.sub.Subscribe(t, "z", r.pub, cluster.SubscriptionOptions{With: []string{"copy_data = false"}})
		r.sub.WaitSubscribed(t, "z", r.pub)
		rules := func() []string {
			return cluster.Query[string](t, r.sub, `select s.subname || ' ' || r.margin from replsync.sequence_selection r
				join pg_subscription s on s.oid = r.subscription and s.subname = r.subscription_name order by 1`)
		}
		both := func(t *testing.T) {
			r.add(t, 1, "'all', exclude => '{public.other}', margin => 7")
			require.Equal(t, 1, cluster.QueryOne[int](t, r.sub, "select replsync.add_sequences('z', 'all', exclude => '{public.t_id_seq}')"))
			r.sync(t)
			r.sub.Exec(t, "select replsync.sync_sequences('z')")
			require.Equal(t, []string{"s 7", "z 0"}, rules())
			r.requireReadyToCutOver(t)
		}
		carryOver := func() {
			// What a worker has in memory is gone too, and none looks before the change is complete.
			s.Restart(t)
			sql := "begin; update replsync.sequence_selection set written_by = written_by + 1; "
			for _, table := range []string{"selection", "member", "problem", "watermark"} {
				for _, pair := range [][2]string{{"s", "passing"}, {"z", "s"}, {"passing", "z"}} {
					oid := "coalesce((select oid from pg_subscription where subname = '%s'), 1)"
					sql += fmt.Sprintf("update replsync.sequence_%s set subscription = "+oid+" where subscription = "+oid+"; ",
						table, pair[1], pair[0])
				}
			}
			r.sub.Exec(t, sql+"commit")
		}
		requireNothingProven := func(t *testing.T) {
			t.Helper()
			require.Contains(t, r.check(t, "false"), "applied s")
			require.Zero(t, cluster.QueryOne[int](t, r.sub, "select count(*) from replsync.sequence_status where state = 'ready'"))
		}
		// The question to the publisher may have found the members anew.
		requireNothingKept := func(t *testing.T) {
			t.Helper()
			require.Empty(t, cluster.Query[string](t, r.sub, `select s.subname || ' ' || m.sequence_name
				from replsync.sequence_member m left join pg_subscription s on s.oid = m.subscription
				where (s.subname, m.sequence_name) is distinct from ('s', 't_id_seq')`))
			require.Zero(t, cluster.QueryOne[int](t, r.sub, "select count(*) from replsync.sequence_watermark"))
		}

		story(t, "a worker sees it first", func(t *testing.T) {
			both(t)
			carryOver()
			require.Empty(t, cluster.Query[string](t, r.sub, "select sequence_name::text from replsync.sequence_status"))
			// The worker is started by the question to the publisher.
			requireNothingProven(t)
			cluster.Eventually(t, cluster.DefaultDeadline, "the rules to follow", func() bool {
				return slices.Equal(rules(), []string{"s 7", "z 0"})
			})
			requireNothingKept(t)
			requireNothingProven(t)
			requireActions(t, r.sync(t), "public.t_id_seq", "unchanged", "")
			r.requireReadyToCutOver(t)
		})
		story(t, "a function sees it first", func(t *testing.T) {
			both(t)
			carryOver()
			require.Zero(t, cluster.QueryOne[int](t, r.sub, "select replsync.remove_sequences('z')"))
			requireNothingKept(t)
			requireNothingProven(t)
			requireActions(t, r.sync(t), "public.t_id_seq", "unchanged", "")
			require.Equal(t, []string{"s 7"}, rules())
			r.requireReadyToCutOver(t)
		})
		story(t, "the members are found anew", func(t *testing.T) {
			both(t)
			carryOver()
			require.Equal(t, 1, cluster.QueryOne[int](t, r.sub, "select replsync.refresh_selection('s')"))
			requireNothingKept(t)
			requireNothingProven(t)
			requireActions(t, r.sync(t), "public.t_id_seq", "unchanged", "")
			r.requireReadyToCutOver(t)
		})
		story(t, "rules are given anew", func(t *testing.T) {
			both(t)
			carryOver()
			r.add(t, 2, "'all', margin => 8")
			require.Contains(t, r.check(t, "false"), "applied s")
			require.Zero(t, cluster.QueryOne[int](t, r.sub, "select count(*) from replsync.sequence_watermark"))
			r.sync(t)
			cluster.Eventually(t, cluster.DefaultDeadline, "the rules to follow", func() bool {
				return slices.Equal(rules(), []string{"s 8", "z 0"})
			})
			r.requireReadyToCutOver(t)
		})
		story(t, "rules without a subscription", func(t *testing.T) {
			both(t)
			carryOver()
			r.sub.Exec(t, "alter subscription z rename to later")
			r.sync(t)
			require.Equal(t, []string{"s 7"}, rules())
			r.sub.Exec(t, "alter subscription later rename to z")
			r.sub.Exec(t, "select replsync.sync_sequences('z')")
			require.Equal(t, []string{"s 7", "z 0"}, rules())
		})
	})
}
