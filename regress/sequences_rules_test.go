package regress_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestSequenceDirection sets sequences of every kind, and never moves one backwards.
func TestSequenceDirection(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, `
			create sequence up; create sequence down increment by -1;
			create sequence tie; create sequence fresh;
			create sequence cycling maxvalue 5 cycle; create sequence cycling_down increment by -1 minvalue -5 cycle;
			create sequence small as smallint; create sequence int as int; create sequence big;
			create sequence small_down as smallint increment by -1; create sequence big_down increment by -1;
			create sequence step increment by 10; create sequence bounds minvalue 100 maxvalue 200 start 150;
			create sequence cached cache 20`)
		r.add(t, 14, "'all'")
		r.pub.Exec(t, `
			select setval('up', 200), setval('down', -200), setval('tie', 50, false), setval('fresh', 1, true),
				setval('cycling', 2), setval('cycling_down', -2), setval('small', 32767), setval('int', 2147483647),
				setval('big', 9223372036854775807), setval('small_down', -32768), setval('big_down', -9223372036854775807),
				setval('step', 21), setval('bounds', 170, false), nextval('cached')`)
		r.sub.Exec(t, `select setval('up', 300), setval('down', -300), setval('tie', 50), setval('cycling', 4), setval('cycling_down', -4)`)

		drift := r.drift(t)
		requirePositions(t, r.sub, "up", "300|t", "small", "1|f", "cycling", "4|t")
		rows := r.sync(t)
		for name, row := range drift {
			require.Equal(t, row.Action, rows[name].Action, "sequence_drift() foretells what is done: %+v and %+v", row, rows[name])
			require.Equal(t, row.LocalBefore, rows[name].LocalBefore)
			require.Equal(t, row.LocalAfter, rows[name].LocalAfter)
		}
		for _, name := range []string{"up", "down", "tie"} {
			require.Equal(t, []string{"kept", reasonAhead}, []string{rows["public."+name].Action, rows["public."+name].Reason}, name)
			require.Equal(t, "ready", r.status(t, "public."+name).State)
		}
		requirePositions(t, r.sub, "up", "300|t", "down", "-300|t", "tie", "50|t", "fresh", "1|t",
			"cycling", "2|t", "cycling_down", "-2|t", "small", "32767|t", "int", "2147483647|t",
			"big", "9223372036854775807|t", "small_down", "-32768|t", "big_down", "-9223372036854775807|t",
			"step", "21|t", "bounds", "170|f", "cached", "20|t")
		for name, row := range r.sync(t) {
			if row.Action != "kept" {
				require.Equal(t, "unchanged", row.Action, "%s: %+v", name, row)
			}
		}

		story(t, "back where asked for", func(t *testing.T) {
			rows, err := r.trySequences(", allow_backwards => true")
			require.NoError(t, err)
			require.Equal(t, "set", rows["public.up"].Action)
			require.EqualValues(t, 300, *rows["public.up"].LocalBefore)
			require.EqualValues(t, 200, *rows["public.up"].LocalAfter)
			requirePositions(t, r.sub, "up", "200|t", "down", "-200|t", "tie", "50|f")
			// Only then.
			r.sub.Exec(t, "select setval('up', 300)")
			require.Equal(t, "kept", r.sync(t)["public.up"].Action)
			requirePositions(t, r.sub, "up", "300|t")
		})
	})
}

// TestSequenceMargin lets sequences stand ahead.
func TestSequenceMargin(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, `
			create sequence up; create sequence down increment by -1; create sequence step increment by 7;
			create sequence cycling maxvalue 50 cycle; create sequence unused;
			create sequence near_end as smallint; create sequence at_end as smallint; create sequence near_end_down as smallint increment by -3;
			create sequence huge increment by 4611686018427387904;
			create sequence huge_down increment by -4611686018427387904 minvalue -9223372036854775808 maxvalue 9223372036854775807 start 9223372036854775807`)
		r.pub.Exec(t, `
			select setval('up', 10), setval('down', -10), setval('step', 10), setval('cycling', 10),
				setval('near_end', 32760), setval('at_end', 32767), setval('near_end_down', -32761), nextval('huge'), nextval('huge_down')`)
		r.add(t, 10, "'all', margin => 1000")
		rows := r.sync(t)
		requirePositions(t, r.sub, "up", "1010|t", "down", "-1010|t", "step", "7010|t", "cycling", "10|t")
		require.EqualValues(t, 10, *rows["public.up"].PublisherValue)
		require.EqualValues(t, 1010, *rows["public.up"].LocalAfter)

		// Never past the bounds, and a sequence that can go on there can go on here.
		for _, name := range []string{"near_end", "near_end_down", "huge", "huge_down"} {
			require.Equal(t, reasonClamped, rows["public."+name].Reason, "%+v", rows["public."+name])
			require.Equal(t, "set", rows["public."+name].Action, "%+v", rows["public."+name])
			r.sub.Exec(t, "select nextval($1::regclass)", name)
		}
		requirePositions(t, r.sub, "at_end", "32767|t")
		require.Equal(t, "set", rows["public.at_end"].Action)

		// As it was ahead already, it stays; and it follows when the publisher comes near.
		r.move(t, "up", 5)
		require.Equal(t, "1015|t", func() string { r.sync(t); return position(t, r.sub, "up") }())
		for name, row := range r.sync(t) {
			require.Contains(t, []string{"unchanged", "kept"}, row.Action, "%s: %+v", name, row)
		}
		failure(t, r.sub, "select replsync.add_sequences('s', margin => -1)", "22023", "margin")
	})
}

// TestSequenceDefinitions changes each property that has to be the same, and mends it.
func TestSequenceDefinitions(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, publisher, subscriber int) {
		p, s := newSides(t, publisher, subscriber)
		r := newReplica(t, p, s, `
			create sequence type as int; create sequence start; create sequence increment; create sequence min minvalue 1 start 50;
			create sequence max; create sequence cycle; create sequence cache; create sequence fine`)
		r.add(t, 8, "'all'")
		r.sub.Exec(t, `alter sequence type as bigint; alter sequence start start 5; alter sequence increment increment 10;
			alter sequence min minvalue 10; alter sequence max maxvalue 1000; alter sequence cycle cycle; alter sequence cache cache 5`)
		r.pub.Exec(t, "select setval(c, 60) from unnest('{type,start,increment,min,max,cycle,cache,fine}'::regclass[]) c")
		rows := r.sync(t)
		differs := map[string]string{"type": "type", "start": "start", "increment": "increment", "min": "min", "max": "max", "cycle": "cycle"}
		for name, word := range differs {
			row := rows["public."+name]
			require.Equal(t, []string{"failed", reasonDefinition}, []string{row.Action, row.Reason}, name)
			status := r.status(t, "public."+name)
			require.Equal(t, []string{"failed", reasonDefinition}, []string{status.State, status.Reason})
			require.Regexp(t, "(?i)alter sequence", status.Hint)
			require.Regexp(t, `(?i)\b`+word, status.Hint)
			require.EqualValues(t, 1, status.ErrorCount)
			require.Nil(t, status.PublisherLSN, "it would prove nothing")
			require.Nil(t, status.LastSyncAt)
		}
		require.NotNil(t, r.status(t, "public.fine").PublisherLSN)
		require.NotNil(t, r.status(t, "public.fine").LastSyncAt)
		requirePositions(t, r.sub, "fine", "60|t", "cache", "60|t", "start", "1|f")
		require.Contains(t, r.check(t, "false"), strings.TrimSpace(findCheck(t, r, "public.increment")))

		story(t, "each failure counts", func(t *testing.T) {
			r.sync(t)
			require.EqualValues(t, 2, r.status(t, "public.type").ErrorCount)
			r.sub.Exec(t, "select replsync.reset_statistics()")
			require.Zero(t, r.status(t, "public.type").ErrorCount)
			r.sync(t)
			require.EqualValues(t, 1, r.status(t, "public.type").ErrorCount)
		})
		story(t, "the hint mends it", func(t *testing.T) {
			for name := range differs {
				hint := r.status(t, "public."+name).Hint
				r.sub.Exec(t, sqlIn(t, hint))
			}
			for name, row := range r.sync(t) {
				require.NotEqual(t, "failed", row.Action, "%s: %+v", name, row)
			}
			for name := range differs {
				requirePositions(t, r.sub, name, "60|t")
				require.Equal(t, "ready", r.status(t, "public."+name).State)
			}
		})
	})
}

// sqlIn returns the statement that a hint names.
func sqlIn(t *testing.T, hint string) string {
	t.Helper()
	for _, word := range []string{"ALTER SEQUENCE", "GRANT", "CREATE SEQUENCE", "SELECT replsync"} {
		if at := strings.Index(hint, word); at >= 0 {
			sql, _, _ := strings.Cut(hint[at:], ";")
			return strings.TrimSuffix(strings.TrimSpace(sql), ".")
		}
	}
	t.Fatalf("no statement in %q", hint)
	return ""
}

// findCheck returns the name of the row of cutover_check() about an object.
func findCheck(t *testing.T, r *replica, object string) string {
	t.Helper()
	for _, row := range r.checks(t) {
		if row.Object == object {
			return row.CheckName + " " + row.Object
		}
	}
	t.Fatalf("cutover_check() has no row about %s: %+v", object, r.checks(t))
	return ""
}

// TestSequenceBatches has the sizes around those of batches, and sequences that cannot be set in the midst of others.
func TestSequenceBatches(t *testing.T) {
	withPublishers(t, since10, func(t *testing.T, publisher, subscriber int) {
		p, s := newSides(t, publisher, subscriber)
		for _, n := range []int{99, 100, 101, 1205} {
			story(t, fmt.Sprint(n), func(t *testing.T) {
				r := newReplica(t, p, s, fmt.Sprintf(`
					do $$ begin for i in 1 .. %d loop execute format('create sequence q%%s', to_char(i, 'FM0000')); end loop; end $$`, n))
				r.add(t, n, "'all'")
				setAll := func(value int) {
					r.pub.Exec(t, "select setval(oid, $1) from pg_class where relkind = 'S'", value)
				}
				require.Equal(t, n, r.standing(t, 1))
				setAll(7)
				rows := r.sync(t)
				require.Len(t, rows, n)
				require.Equal(t, n, r.standing(t, 7))

				r.pub.Exec(t, "drop sequence q0098")
				r.sub.Exec(t, "drop sequence q0002")
				setAll(8)
				rows = r.sync(t)
				require.Equal(t, []string{"failed", reasonMissingThere}, []string{rows["public.q0098"].Action, rows["public.q0098"].Reason})
				require.Equal(t, []string{"failed", reasonMissingHere}, []string{rows["public.q0002"].Action, rows["public.q0002"].Reason})
				require.Equal(t, n-2, r.standing(t, 8))

				// They recover by themselves when they are back.
				r.pub.Exec(t, "create sequence q0098; select setval('q0098', 9)")
				r.sub.Exec(t, "create sequence q0002")
				setAll(9)
				r.sync(t)
				require.Equal(t, n, r.standing(t, 9))
				require.Empty(t, r.failed(t))
				if n <= 1000 {
					return
				}
				// What waits for a lock in the second portion is seen waiting.
				end := hold(t, r.pub, "drop sequence q1204")
				done := inBackground(r.sub, "select replsync.sync_sequences('s')")
				cluster.Eventually(t, cluster.DefaultDeadline, "progress", func() bool {
					return cluster.QueryOne[bool](t, r.sub, "select exists (select from replsync.progress where done = 1000 and total = 1205)")
				})
				end("rollback")
				require.NoError(t, finish(t, done, "the sync"))
				require.Zero(t, cluster.QueryOne[int](t, r.sub, "select count(*) from replsync.progress"))
			})
		}
	})
}

// standing counts the sequences here that stand at a value.
func (r *replica) standing(t *testing.T, value int64) int {
	t.Helper()
	return cluster.QueryOne[int](t, r.sub, "select count(*) from pg_sequences where coalesce(last_value, start_value) = $1", value)
}

// failed returns the sequences that sequence_status says have failed.
func (r *replica) failed(t *testing.T) []string {
	t.Helper()
	return cluster.Query[string](t, r.sub, "select sequence_name::text || ' ' || reason from replsync.sequence_status where state <> 'ready'")
}

// TestSequenceCatalogs changes the catalogs here between two syncs of one worker, which keeps what it has read of them.
func TestSequenceCatalogs(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, "create schema x; create sequence x.one; create sequence x.two")
		r.add(t, 2, "'all'")
		value := 0
		after := func(sql, action, reason string) {
			t.Helper()
			r.sub.Exec(t, sql)
			value += 10
			r.pub.Exec(t, "select setval('x.one', $1), setval('x.two', $1)", value)
			row := r.sync(t)["x.one"]
			require.Equal(t, []string{action, reason}, []string{row.Action, row.Reason}, "%s: %+v", sql, row)
			if action == "set" {
				requirePositions(t, r.sub, "x.one", fmt.Sprint(value, "|t"))
			}
		}
		after("select 1", "set", "")
		after("alter schema x rename to y", "failed", reasonMissingHere)
		after("alter schema y rename to x", "set", "")
		after("alter sequence x.one rename to away", "failed", reasonMissingHere)
		after("create sequence other; alter sequence other set schema x; alter sequence x.other rename to one", "set", "")
		after("drop sequence x.one", "failed", reasonMissingHere)
		after("create table x.one ()", "failed", reasonNotSequence)
		after("alter table x.one rename to gone", "failed", reasonMissingHere)
		after("create view x.one as select 1", "failed", reasonNotSequence)
		after("drop view x.one", "failed", reasonMissingHere)
		after("alter sequence x.away rename to one", "set", "")
		after("alter sequence x.one increment 2", "failed", reasonDefinition)
		after("alter sequence x.one increment 1 restart 1", "set", "")
		after("drop sequence x.one; create sequence x.one", "set", "")
		after("create table x.t (id serial); drop table x.t; alter sequence x.one set schema public; alter sequence one set schema x", "set", "")
		// Other members by the same rules.
		r.pub.Exec(t, "create sequence x.three")
		r.sub.Exec(t, "create sequence x.three")
		require.Equal(t, 3, cluster.QueryOne[int](t, r.sub, "select replsync.refresh_selection('s')"))
		require.Equal(t, "init", r.status(t, "x.three").State)
		require.Nil(t, r.status(t, "x.three").PublisherLSN, "nobody has looked at it")
		require.Nil(t, r.status(t, "x.three").LastSyncAt)
		require.NotNil(t, r.status(t, "x.one").PublisherLSN)
		require.Len(t, r.sync(t), 3)
		r.sub.Exec(t, "select replsync.remove_sequences('s')")
		r.add(t, 1, "'all', exclude => '{x.t*}'")
		require.Len(t, r.sync(t), 1)
	})
}

// TestSequencePersistence has sequences that replication does not know.
func TestSequencePersistence(t *testing.T) {
	onTheEnds(t, func(t *testing.T, major int) {
		s := newSubscriber(t, major)
		r := newReplica(t, s, s, `create sequence logged; create unlogged sequence unlogged`)
		r.pub.Connect(t).Exec(background(t), "create temp sequence temporary; select nextval('temporary')")
		r.pub.Exec(t, "create unlogged sequence unlogged_there; select nextval('logged')")
		r.sub.Exec(t, "create sequence unlogged_there")
		r.add(t, 1, "'all'")
		requireActions(t, r.sync(t), "public.logged", "set", "")
		requirePositions(t, r.sub, "unlogged", "1|f", "unlogged_there", "1|f")
	})
}
