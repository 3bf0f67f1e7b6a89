package regress_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

const (
	firstReadAll = 14 // the role pg_read_all_data
	firstSCRAM   = 14 // passwords are kept for that by default
	firstOwner   = 16 // subscriptions may belong to others than superusers: run_as_owner, password_required
)

// conninfoOf is how a role connects to the publisher.
func (r *replica) conninfoOf(role string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d dbname=pub_%s sslmode=disable %s", r.publisher.Port, r.name, role)
}

// connectAs changes the subscription's connection.
func (r *replica) connectAs(t *testing.T, role string) {
	t.Helper()
	r.sub.Exec(t, "alter subscription s connection "+cluster.QuoteLiteral(r.conninfoOf(role)))
}

// TestSequencePublisherRights has a role on the publisher that may not read everything.
func TestSequencePublisherRights(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, publisher, subscriber int) {
		p, s := newSides(t, publisher, subscriber)
		r := newReplica(t, p, s, `create schema app; create sequence app.one; create sequence app.two; create sequence app.three`)
		r.pub.Exec(t, `create role reader login replication; grant usage on schema app to reader; grant select on app.one, app.three to reader`)
		r.connectAs(t, "user=reader")
		r.add(t, 3, "'all'")
		r.move(t, "app.one", 100)
		r.move(t, "app.two", 100)
		r.move(t, "app.three", 100)
		requireActions(t, r.sync(t), "app.one", "set", "", "app.two", "failed", reasonNoRightThere, "app.three", "set", "")
		status := r.status(t, "app.two")
		require.Equal(t, []string{"failed", reasonNoRightThere}, []string{status.State, status.Reason})

		// It was there, and then it is gone.
		r.pub.Exec(t, "alter sequence app.two rename to gone")
		requireActions(t, r.sync(t), "app.one", "unchanged", "", "app.two", "failed", reasonMissingThere, "app.three", "unchanged", "")
		r.pub.Exec(t, "alter sequence app.gone rename to two")

		// What the hint says mends it.
		r.sync(t)
		r.pub.Exec(t, sqlIn(t, r.status(t, "app.two").Hint))
		require.Equal(t, "set", r.sync(t)["app.two"].Action)
		requirePositions(t, r.sub, "app.two", "100|t")

		// USAGE on a schema is a right too.
		r.pub.Exec(t, "revoke usage on schema app from reader")
		r.move(t, "app.one", 100)
		for _, row := range r.sync(t) {
			if row.Action == "failed" {
				require.Equal(t, reasonNoRightThere, row.Reason)
				require.Contains(t, r.status(t, "app.one").Hint, "USAGE")
			}
		}
		r.pub.Exec(t, "drop owned by reader")
		if publisher >= firstReadAll {
			r.pub.Exec(t, "grant pg_read_all_data to reader")
		} else {
			r.pub.Exec(t, "grant usage on schema app to reader; grant select on all sequences in schema app to reader")
		}
		r.sync(t)
		requirePositions(t, r.sub, "app.one", "200|t")
		r.connectAs(t, "user=postgres")
		r.pub.Exec(t, "drop owned by reader; drop role reader")
	})
}

// TestSequenceSubscriberRights has sequences that their owner, or the subscription's, may not set.
func TestSequenceSubscriberRights(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major, cluster.HBA("host all counter 127.0.0.1/32 trust"))
		r := newReplica(t, s, s, `create sequence one; create sequence two`)
		s.Exec(t, "create role counter; create role keeper; create role login_keeper login in role keeper")
		r.add(t, 2, "'all'")
		syncs := func(t *testing.T, value int, one, two, reason string) {
			t.Helper()
			r.pub.Exec(t, "select setval('one', $1), setval('two', $1)", value)
			reasonOf := map[string]string{"failed": reason}
			requireActions(t, r.sync(t), "public.one", one, reasonOf[one], "public.two", two, reasonOf[two])
		}
		story(t, "the owner of the sequence", func(t *testing.T) {
			r.sub.Exec(t, "alter sequence one owner to counter; revoke all on one from counter")
			// An owner who took his own right away, as core has it.
			syncs(t, 10, "failed", "set", reasonNoRightHere)
			require.Equal(t, "failed", r.status(t, "public.one").State)
			r.sub.Exec(t, sqlIn(t, r.status(t, "public.one").Hint))
			syncs(t, 11, "set", "set", "")
		})
		if major < firstOwner {
			return
		}
		story(t, "a subscription of another role", func(t *testing.T) {
			s.Exec(t, "grant pg_create_subscription to keeper")
			r.sub.Exec(t, "grant create on database sub_"+r.name+" to keeper; alter subscription s set (password_required = false); alter subscription s owner to keeper")
			// keeper cannot become counter or postgres, who own the sequences.
			syncs(t, 20, "failed", "failed", reasonNoRightHere)
			s.Exec(t, "grant counter to keeper")
			syncs(t, 21, "set", "failed", reasonNoRightHere)
			s.Exec(t, "revoke counter from keeper")
		})
		story(t, "run_as_owner", func(t *testing.T) {
			r.sub.Exec(t, "alter subscription s set (run_as_owner = true)")
			syncs(t, 30, "failed", "failed", reasonNoRightHere)
			require.Regexp(t, "(?i)grant update", r.status(t, "public.two").Hint)
			r.sub.Exec(t, sqlIn(t, r.status(t, "public.two").Hint))
			syncs(t, 31, "failed", "set", reasonNoRightHere)
			r.sub.Exec(t, "grant update on one to keeper")
			syncs(t, 32, "set", "set", "")
		})
		story(t, "who may call", func(t *testing.T) {
			s.Exec(t, "create role stranger login")
			grant := "grant execute on all functions in schema replsync to stranger, login_keeper; grant select on all tables in schema replsync to stranger, login_keeper"
			r.sub.Exec(t, grant)
			calls := []string{"add_sequences('s', 'all')", "sync_sequences('s')", "sequence_drift('s')", "refresh_selection('s')", "remove_sequences('s')"}
			for _, call := range calls {
				failure(t, r.sub.With("user=stranger"), "select replsync."+call, "42501", `must be owner of subscription s`)
			}
			for _, call := range calls {
				r.sub.With("user=login_keeper").Exec(t, "select replsync."+call)
			}
		})
	})
}

// TestCutoverCheckRights has a caller whose temporary objects stand in front of the catalogs: nothing of them may run with
// the rights of the extension's owner.
func TestCutoverCheckRights(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, "create sequence one")
		r.add(t, 1, "'all'")
		s.Exec(t, "create role watcher login in role pg_monitor")
		r.sub.Exec(t, "create table ran_as (who text); grant insert on ran_as to public; grant create on schema public to watcher")
		watcher := r.sub.With("user=watcher").Connect(t)
		_, err := watcher.Exec(background(t), `create function leak() returns boolean language plpgsql as
			$$ begin insert into public.ran_as values (current_user); return true; end $$`)
		require.NoError(t, err)
		for _, catalog := range []string{"pg_database", "pg_subscription", "pg_subscription_rel", "pg_class", "pg_settings", "pg_replication_origin_status"} {
			_, err := watcher.Exec(background(t), "create temp view "+catalog+" as select * from pg_catalog."+catalog+" where public.leak()")
			require.NoError(t, err)
		}
		_, err = watcher.Exec(background(t), "create domain pg_temp.text as pg_catalog.text check (public.leak())")
		require.NoError(t, err)
		for _, call := range []string{"* from replsync.cutover_check('s')", "* from replsync.sequence_status", "* from replsync.failover_check()", "replsync.failover_ready()"} {
			_, err = watcher.Exec(background(t), "select "+call)
			require.NoError(t, err, call)
		}
		require.Empty(t, cluster.Query[string](t, r.sub, "select who from ran_as where who <> 'watcher'"))
	})
}

// TestSequencePassword has an owner who is not a superuser: the connection string must have a password, and the
// publisher must ask for it.
func TestSequencePassword(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, publisher, major int) {
		s := newSubscriber(t, major)
		method := "scram-sha-256"
		if publisher < firstSCRAM {
			method = "md5"
		}
		p := newPublisher(t, publisher, cluster.HBA("host all secret 127.0.0.1/32 "+method))
		r := newReplica(t, p, s, "create sequence one")
		p.Exec(t, "create role secret login replication superuser password 'Sesame'; create role open login replication superuser")
		s.Exec(t, "create role keeper")
		r.add(t, 1, "'all'")
		r.move(t, "one", 10)

		// A superuser's subscription may do without.
		r.connectAs(t, "user=open")
		requireActions(t, r.sync(t), "public.one", "set", "")
		if major >= firstOwner {
			r.sub.Exec(t, "grant pg_create_subscription to keeper; grant all on one to keeper; grant create on database sub_"+r.name+
				" to keeper; alter subscription s set (run_as_owner = true)")
			r.connectAs(t, "user=secret password=Sesame")
			r.sub.Exec(t, "alter subscription s owner to keeper")
			r.move(t, "one", 10)
			requireActions(t, r.sync(t), "public.one", "set", "")
			for _, role := range []string{"user=open", "user=open password=Sesame"} {
				// A superuser can leave such a connection string behind.
				r.sub.Exec(t, "alter subscription s set (password_required = false)")
				r.connectAs(t, role)
				r.sub.Exec(t, "alter subscription s set (password_required = true)")
				_, err := r.trySequences("")
				requireError(t, err, "2F003", "password is required")
			}
			r.sub.Exec(t, "alter subscription s set (password_required = false)")
			r.move(t, "one", 10)
			requireActions(t, r.sync(t), "public.one", "set", "")
		}
		r.sub.Exec(t, "alter subscription s owner to postgres")
		r.connectAs(t, "user=secret password=Wrong")
		_, err := r.trySequences("")
		requireError(t, err, "28P01", "password authentication failed")
		require.NotContains(t, s.Log(), "Sesame' conn")
		requireNoSecrets(t, r, "Sesame", "Wrong")
	})
}

// requireNoSecrets looks for passwords in everything that replsync shows, and in its lines of the log.
func requireNoSecrets(t *testing.T, r *replica, secrets ...string) {
	t.Helper()
	shown := ""
	for _, view := range []string{"sequence_status", "worker_status", "progress", "cutover_check('s')"} {
		shown += cluster.QueryOne[string](t, r.sub, "select coalesce(string_agg(v::text, ' '), '') from replsync."+view+" v")
	}
	for _, line := range sequenceLines(r.subscriber.Log(), ".") {
		shown += line
	}
	for _, secret := range secrets {
		require.NotContains(t, shown, secret)
	}
}

// TestSequenceSettings has settings of roles and databases that stand in the way of others.
func TestSequenceSettings(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, publisher, subscriber int) {
		p, s := newSides(t, publisher, subscriber)
		r := newReplica(t, p, s, "create sequence one; create table t (id serial primary key)")
		r.add(t, 2, "'all'")
		settings := []string{"default_transaction_read_only = on", "statement_timeout = 1", "lock_timeout = 1",
			"search_path = nowhere", "default_transaction_isolation = 'serializable'", "idle_in_transaction_session_timeout = 1",
			"row_security = off", "datestyle = 'german'", "enable_indexscan = off", "client_encoding = 'latin1'"}
		disturb := func(s *cluster.Server, db string) {
			for _, setting := range settings {
				s.Exec(t, "alter database "+db+" set "+setting)
			}
			if s.Major < 19 {
				s.Exec(t, "alter database "+db+" set standard_conforming_strings = off")
			}
		}
		disturb(p, "pub_"+r.name)
		disturb(s, "sub_"+r.name)
		for _, server := range slices.Compact([]*cluster.Server{p, s}) {
			server.Exec(t, `alter role postgres set extra_float_digits = 0; alter role postgres set statement_timeout = 1;
				alter role postgres set default_transaction_read_only = on`)
		}
		// A session whose settings are not disturbed by them.
		quiet := r.sub.With("options='-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c idle_in_transaction_session_timeout=0'")
		source := r.pub.With("options='-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c idle_in_transaction_session_timeout=0'")
		source.Exec(t, "select nextval('public.one') from generate_series(1, 100); select nextval('public.t_id_seq')")
		rows, err := rowsOf[sequenceRow](quiet, "select * from replsync.sync_sequences('s')")
		require.NoError(t, err)
		all, err := byName(rows)
		require.NoError(t, err)
		requireActions(t, all, "public.one", "set", "", "public.t_id_seq", "set", "")
		requirePositions(t, quiet, "public.one", "100|t", "public.t_id_seq", "1|t")
		// A caller who may not write does not.
		failure(t, quiet, "begin read only; select * from replsync.sync_sequences('s')", "25006", "read-only transaction")
		failure(t, quiet, "begin read only; select replsync.add_sequences('s')", "25006", "read-only transaction")
		failure(t, quiet, "begin read only; select replsync.remove_sequences('s')", "25006", "read-only transaction")
		quiet.Exec(t, "begin read only; select * from replsync.sequence_drift('s'); select * from replsync.cutover_check('s')")
	})
}
