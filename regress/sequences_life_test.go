package regress_test

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestSequenceFollowing moves sequences, and no command is given.
func TestSequenceFollowing(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major, sequencesAtOnce)
		r := newReplica(t, s, s, "create table t (id serial primary key); create sequence other")
		r.waitNoWorker(t)
		r.add(t, 1, "")
		r.move(t, "t_id_seq", 100)
		waitPosition(t, r.sub, "t_id_seq", "100|t")
		r.move(t, "t_id_seq", 100)
		waitPosition(t, r.sub, "t_id_seq", "200|t")
		r.waitStatus(t, "public.t_id_seq", "ready", "")

		story(t, "status", func(t *testing.T) {
			w := r.waitWorker(t, "to pause", func(w sequenceWorker) bool { return w.Cycles > 0 && w.NextCycleAt != nil })
			require.Positive(t, w.PID)
			require.NotNil(t, w.StartedAt)
			require.NotNil(t, w.LastCycleAt)
			require.Empty(t, w.LastError)
			row := r.status(t, "public.t_id_seq")
			require.EqualValues(t, 200, *row.PublisherValue)
			require.True(t, *row.PublisherIsCalled)
			require.EqualValues(t, 200, *row.LocalValue)
			require.NotNil(t, row.PublisherLSN)
			require.NotNil(t, row.LastSyncAt)
			require.Zero(t, cluster.QueryOne[int](t, r.sub, "select count(*) from replsync.progress where kind <> 'sequences' and kind <> 'slots'"))
		})
		story(t, "a value of its own", func(t *testing.T) {
			r.sub.Exec(t, "select setval('t_id_seq', 500)")
			r.waitSequenceCycles(t)
			requirePositions(t, r.sub, "t_id_seq", "500|t")
			r.move(t, "t_id_seq", 301)
			waitPosition(t, r.sub, "t_id_seq", "501|t")
		})
		story(t, "switched off and on", func(t *testing.T) {
			s.Set(t, "replsync.sync_sequences", "off")
			r.waitNoWorker(t)
			r.move(t, "t_id_seq", 1)
			requirePositions(t, r.sub, "t_id_seq", "501|t")
			s.Set(t, "replsync.sync_sequences", "on")
			waitPosition(t, r.sub, "t_id_seq", "502|t")
		})
		story(t, "a disabled subscription", func(t *testing.T) {
			r.sub.Exec(t, "alter subscription s disable")
			r.move(t, "t_id_seq", 1)
			requireActions(t, r.sync(t), "public.t_id_seq", "set", "")
			r.sub.Exec(t, "alter subscription s enable")
			r.move(t, "t_id_seq", 1)
			waitPosition(t, r.sub, "t_id_seq", "504|t")
		})
		story(t, "a renamed subscription", func(t *testing.T) {
			r.sub.Exec(t, "alter subscription s rename to renamed")
			r.move(t, "t_id_seq", 1)
			waitPosition(t, r.sub, "t_id_seq", "505|t")
			require.Equal(t, []string{"renamed"}, cluster.Query[string](t, r.sub, "select distinct subscription::text from replsync.sequence_status"))
			r.sub.Exec(t, "alter subscription renamed rename to s")
		})
		story(t, "names that are swapped", func(t *testing.T) {
			// By one commit, so that no worker sees what is in between.
			r.sub.Subscribe(t, "z", r.pub, cluster.SubscriptionOptions{With: []string{"copy_data = false"}})
			r.sub.Exec(t, "select replsync.add_sequences('z', 'all', margin => 1000)")
			r.waitStatus(t, "public.t_id_seq", "ready", "")
			rules := func() []string {
				return cluster.Query[string](t, r.sub, `select s.subname || ' ' || r.subscription_name || ' ' || margin
					from replsync.sequence_selection r join pg_subscription s on s.oid = r.subscription order by margin`)
			}
			require.Equal(t, []string{"s s 0", "z z 1000"}, rules())
			for range 2 {
				before := rules()
				r.sub.Exec(t, "begin; alter subscription s rename to passing; alter subscription z rename to s; alter subscription passing rename to z; commit")
				r.move(t, "t_id_seq", 1)
				cluster.Eventually(t, cluster.DefaultDeadline, "the rules to follow", func() bool {
					now := rules()
					return now[0] != before[0] && now[0][:1] == now[0][2:3] && now[1][:1] == now[1][2:3]
				})
			}
			require.Equal(t, []string{"s s 0", "z z 1000"}, rules())
			r.sub.Exec(t, "drop subscription z")
			cluster.Eventually(t, cluster.DefaultDeadline, "its rules to go", func() bool { return len(rules()) == 1 })
			// Past where the margin has left the sequence here, which is not set back.
			r.pub.Exec(t, "select setval('t_id_seq', 5000)")
			waitPosition(t, r.sub, "t_id_seq", "5000|t")
		})
		story(t, "an error and its end", func(t *testing.T) {
			mark := s.LogMark()
			_, port, _ := strings.Cut(cluster.Refused(t), ":")
			r.sub.Exec(t, "alter subscription s connection "+cluster.QuoteLiteral("host=127.0.0.1 dbname=x user=postgres password=Sesame port="+port))
			w := r.waitWorker(t, "to fail", func(w sequenceWorker) bool { return w.LastError != "" })
			require.Contains(t, w.LastError, "publisher")
			require.NotNil(t, w.LastErrorAt)
			r.connectAs(t, "user=postgres")
			r.move(t, "t_id_seq", 1)
			waitPosition(t, r.sub, "t_id_seq", position(t, r.pub, "t_id_seq"))
			require.NotEmpty(t, sequenceLines(s.LogSince(mark), "publisher"))
			requireNoSecrets(t, r, "Sesame")
			r.sub.Exec(t, "select replsync.reset_statistics()")
			r.waitWorker(t, "to have forgotten its error", func(w sequenceWorker) bool { return w.LastError == "" })
		})
		story(t, "removed, and no more work", func(t *testing.T) {
			r.sub.Exec(t, "select replsync.remove_sequences('s')")
			r.waitNoWorker(t)
			r.move(t, "t_id_seq", 1)
			r.add(t, 2, "'all'")
			waitPosition(t, r.sub, "t_id_seq", position(t, r.pub, "t_id_seq"))
			r.sub.Exec(t, "drop subscription s")
			r.waitNoWorker(t)
			require.Empty(t, r.under(t))
		})
	})
}

// TestSequenceBystanders does what a worker that stays connected stands in the way of.
func TestSequenceBystanders(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major, sequencesAtOnce)
		atWork := func(t *testing.T) *replica {
			t.Helper()
			r := newReplica(t, s, s, "create table t (id serial primary key)")
			r.add(t, 1, "")
			r.move(t, "t_id_seq", 10)
			waitPosition(t, r.sub, "t_id_seq", "10|t")
			return r
		}
		mark := s.LogMark()
		story(t, "drop extension", func(t *testing.T) {
			r := atWork(t)
			r.sub.Exec(t, "drop extension replsync")
			// With nobody to write the log, or to hold what is dropped.
			r.sub.Exec(t, "create extension replsync")
			require.Empty(t, r.under(t))
			r.waitNoWorker(t)
			r.add(t, 1, "")
			r.move(t, "t_id_seq", 10)
			waitPosition(t, r.sub, "t_id_seq", "20|t")
		})
		story(t, "drop subscription and database", func(t *testing.T) {
			r := atWork(t)
			r.sub.Exec(t, "drop subscription s")
			s.Exec(t, "drop database sub_"+r.name)
		})
		story(t, "drop database with force", func(t *testing.T) {
			r := atWork(t)
			r.sub.Exec(t, "alter subscription s disable; alter subscription s set (slot_name = none)")
			r.sub.Exec(t, "drop subscription s")
			s.Exec(t, "drop database sub_"+r.name+" with (force)")
		})
		story(t, "template, rename", func(t *testing.T) {
			r := atWork(t)
			r.sub.Exec(t, "alter subscription s disable")
			waitNoSession(t, s, "sub_"+r.name, "logical replication")
			s.Exec(t, "create database copy_of_"+r.name+" template sub_"+r.name)
			s.Exec(t, "alter database sub_"+r.name+" rename to renamed_"+r.name)
			r.sub = s.DB("renamed_" + r.name)
			r.move(t, "t_id_seq", 10)
			waitPosition(t, r.sub, "t_id_seq", "20|t")
			// The copy has the extension and no subscription.
			copied := s.DB("copy_of_" + r.name)
			require.Zero(t, cluster.QueryOne[int](t, copied, "select count(*) from replsync.sequence_status"))
			require.Equal(t, "10|t", position(t, copied, "t_id_seq"))
		})
		story(t, "tables go on", func(t *testing.T) {
			// A sequence that fails does not concern the apply worker.
			r := atWork(t)
			r.sub.Exec(t, "alter subscription s set (disable_on_error = true); drop sequence t_id_seq cascade")
			r.waitStatus(t, "public.t_id_seq", "failed", reasonMissingHere)
			r.pub.Exec(t, "insert into t default values")
			r.sub.WaitSubscribed(t, "s", r.pub)
			require.True(t, cluster.QueryOne[bool](t, r.sub, "select subenabled from pg_subscription where subname = 's' and subdbid = (select oid from pg_database where datname = current_database())"))
		})
		require.Empty(t, sequenceLines(s.LogSince(mark), "PANIC|FATAL|ERROR"))
	})
}

func waitNoSession(t *testing.T, s *cluster.Server, database, pattern string) {
	t.Helper()
	cluster.Eventually(t, cluster.DefaultDeadline, "the sessions of "+database+" to end", func() bool {
		return cluster.QueryOne[int](t, s, "select count(*) from pg_stat_activity where datname = $1 and backend_type ~ $2", database, pattern) == 0
	})
}

// TestSequenceManySubscriptions has subscriptions of several databases, and two that contain the same sequence.
func TestSequenceManySubscriptions(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major, sequencesAtOnce)
		const ddl = "create sequence one; create table t (id serial primary key)"
		first, second := newReplica(t, s, s, ddl), newReplica(t, s, s, ddl)
		other := replicaDatabases(t, s, s, ddl)
		other.pub.Exec(t, "alter publication p rename to q")
		first.sub.Subscribe(t, "other", other.pub, cluster.SubscriptionOptions{Publications: []string{"q"}, With: []string{"copy_data = false"}})
		first.add(t, 2, "'all'")
		second.add(t, 2, "'all'")
		first.sub.Exec(t, "select replsync.add_sequences('other', 'all')")
		first.move(t, "one", 10)
		other.move(t, "one", 20)
		second.move(t, "one", 30)
		waitPosition(t, first.sub, "one", "20|t")
		waitPosition(t, second.sub, "one", "30|t")
		first.move(t, "one", 15)
		waitPosition(t, first.sub, "one", "25|t")
		first.waitStatus(t, "public.one", "ready", "")
		require.Len(t, cluster.Query[string](t, first.sub, "select subscription::text from replsync.sequence_status where sequence_name = 'one'"), 2)

		// One whose publisher is out of reach does not hold the other up.
		_, port, _ := strings.Cut(cluster.Mute(t), ":")
		first.sub.Exec(t, "alter subscription other disable; alter subscription other connection "+
			cluster.QuoteLiteral("host=127.0.0.1 dbname=x user=postgres port="+port))
		first.move(t, "one", 15)
		waitPosition(t, first.sub, "one", "40|t")
		first.move(t, "one", 1)
		waitPosition(t, first.sub, "one", "41|t")
		first.sub.Exec(t, "alter subscription other set (slot_name = none); drop subscription other")
		first.move(t, "one", 1)
		waitPosition(t, first.sub, "one", "42|t")
	})
}

// TestSequenceCrashes kills the subscriber while a worker is in the midst of setting sequences, and restarts the publisher.
func TestSequenceCrashes(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		publisher, subscriber := newSubscriber(t, major), newSubscriber(t, major)
		r := newReplica(t, publisher, subscriber, `do $$ begin for i in 1 .. 400 loop execute format('create sequence q%s', to_char(i, 'FM000')); end loop; end $$`)
		r.add(t, 400, "'all'")
		r.sync(t)
		for round, mode := range []cluster.StopMode{cluster.Immediate, cluster.StopMode(syscall.SIGKILL)} {
			value := 10 * (round + 1)
			r.pub.Exec(t, "select setval(oid, $1) from pg_class where relkind = 'S'", value)
			hold(t, r.sub, "alter sequence q300 cache 3")
			done := inBackground(r.sub, "select replsync.sync_sequences('s')")
			waitPosition(t, r.sub, "q200", fmt.Sprint(value, "|t"))
			if mode == cluster.Immediate {
				subscriber.Stop(t, mode)
			} else {
				subscriber.Kill9(t)
			}
			// On a slow machine the worker may have gone on already.
			_ = finish(t, done, "the sync to end")
			subscriber.Start(t)
			// Nothing says that it stands where it does not.
			for name, row := range r.drift(t) {
				local := position(t, r.sub, name)
				require.Equal(t, row.Action == "unchanged", local == fmt.Sprint(value, "|t"), "%s at %s: %+v", name, local, row)
			}
			requireNotFailed(t, r.sync(t))
			require.Equal(t, 400, r.standing(t, int64(value)))
		}
		story(t, "the publisher restarts", func(t *testing.T) {
			subscriber.Set(t, "replsync.sequence_naptime_min", "100ms")
			subscriber.Set(t, "replsync.sequence_naptime_max", "200ms")
			subscriber.Set(t, "replsync.sync_sequences", "on")
			r.waitSequenceCycles(t)
			pid := r.waitWorker(t, "to exist", func(sequenceWorker) bool { return true }).PID
			publisher.Stop(t, cluster.Immediate)
			r.waitWorker(t, "to miss the publisher", func(w sequenceWorker) bool { return w.LastError != "" })
			_, err := r.trySequences("")
			require.Error(t, err)
			pgErr, ok := cluster.AsPgError(err)
			require.True(t, ok, "%v", err)
			require.Equal(t, "08", pgErr.Code[:2], "%v", err)
			require.NotEmpty(t, r.under(t))
			publisher.Start(t)
			r.pub.Exec(t, "select setval(oid, 77) from pg_class where relkind = 'S'")
			waitPosition(t, r.sub, "q400", "77|t")
			require.Equal(t, pid, r.waitWorker(t, "to exist", func(sequenceWorker) bool { return true }).PID)
		})
	})
}

// TestSequenceSynchronousCommit has a subscriber whose synchronous standby is gone.
func TestSequenceSynchronousCommit(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, "create sequence one")
		local := r.sub.With("options='-c synchronous_commit=local'")
		r.add(t, 1, "'all'")
		r.move(t, "one", 10)
		r.waitNoWorker(t)
		s.Set(t, "synchronous_commit", "on")
		s.Set(t, "synchronous_standby_names", "nobody")
		rows, err := rowsOf[sequenceRow](local, "select * from replsync.sync_sequences('s')")
		require.NoError(t, err)
		require.Equal(t, "set", rows[0].Action)
		local.Exec(t, "alter subscription s disable; alter subscription s set (slot_name = none)")
		local.Exec(t, "drop subscription s")
		s.DB("postgres").With("options='-c synchronous_commit=local'").Exec(t, "drop database sub_"+r.name)
	})
}

// TestSequenceWorkerSlots leaves no room for a worker.
func TestSequenceWorkerSlots(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, "create sequence one")
		r.add(t, 1, "'all'")
		r.move(t, "one", 10)
		mark := s.LogMark()
		workers := cluster.QueryOne[int](t, s, `select count(*) from pg_stat_activity where backend_type not in
			('client backend', 'walsender', 'replsync sequence worker', 'checkpointer', 'background writer', 'walwriter', 'startup', 'archiver', 'io worker', 'autovacuum launcher')`)
		s.AppendConf(t, map[string]string{"max_worker_processes": strconv.Itoa(workers)})
		s.Restart(t)
		r.sub.WaitSubscribed(t, "s", r.pub)
		_, err := r.trySequences("")
		require.Error(t, err)
		pgErr, ok := cluster.AsPgError(err)
		require.True(t, ok, "%v", err)
		require.Contains(t, pgErr.Message+pgErr.Detail+pgErr.Hint, "max_worker_processes", "%v", err)
		s.AppendConf(t, map[string]string{"max_worker_processes": "60"})
		s.Restart(t)
		requireActions(t, r.sync(t), "public.one", "set", "")
		require.NotContains(t, s.LogSince(mark), "PANIC")
	})
}
