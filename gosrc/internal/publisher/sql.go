package publisher

import (
	"strconv"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// sessionSQL makes the session one that neither settings of the role or the database nor objects of other users can
// disturb, and that writes nothing. It is the only statement that runs with whatever search_path there is; with an empty one
// pg_catalog comes first. $1: lock_timeout.
//
// Nested loops by index are right for a batch of names at any size of the catalogs. A planner that has no statistics of
// them, which is so after an upgrade, takes to reading all of pg_class for each batch.
const sessionSQL = `
SELECT pg_catalog.set_config(v.name, v.setting, false)
  FROM (VALUES ('search_path', ''), ('default_transaction_read_only', 'on'), ('lock_timeout', $1::pg_catalog.text),
               ('idle_session_timeout', '0'),
               ('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off'),
               ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_seqscan', 'off'),
               ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off')) AS v(name, setting)
 WHERE pg_catalog.current_setting(v.name, true) IS NOT NULL`

// plannerSQL puts back for one transaction what sessionSQL took from the planner.
const plannerSQL = `SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on`

// markSQL reads where the publisher stands. WAL that is not flushed can be lost in a crash and its positions used again, by
// rows that are not the ones read: the flushed end is what can be relied on.
//
// The last column is the same as long as nothing has changed that a transaction can change. A crash takes transactions back that were
// not flushed, and gives their numbers to others: a recovery ends with a checkpoint.
const markSQL = `
SELECT CURRENT_USER::pg_catalog.text,
       pg_catalog.pg_is_in_recovery(),
       c.system_identifier,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END,
       (SELECT greatest(p.timeline_id, r.min_recovery_end_timeline)
          FROM pg_catalog.pg_control_checkpoint() AS p, pg_catalog.pg_control_recovery() AS r)::pg_catalog.int8,
       (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
             ELSE pg_catalog.pg_current_wal_flush_lsn() END)::pg_catalog.text,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN ''
            ELSE pg_catalog.concat(c.system_identifier, ' ', (SELECT checkpoint_lsn FROM pg_catalog.pg_control_checkpoint()), ' ',
                                   pg_catalog.txid_current_snapshot()) END
  FROM pg_catalog.pg_control_system() AS c`

// valuesSQL reads a batch. $1: schemas, $2: names.
//
// From 18 one function gives both fields of a position. Before, pg_sequence_last_value() does for a sequence that is_called,
// and is NULL else; it raises without the right to use the sequence.
func valuesSQL(major int) string {
	last, called, data := "CASE WHEN r.readable THEN pg_catalog.pg_sequence_last_value(r.seqrelid) END", "true", ""
	if major >= firstSequenceData {
		last, called = "d.last_value", "d.is_called"
		data = `
  LEFT JOIN LATERAL pg_catalog.pg_get_sequence_data(CASE WHEN r.readable THEN r.seqrelid END)
       AS d(last_value, is_called) ON r.readable`
	}
	return `
SELECT r.ord, r.oid, r.relkind, r.may_select, r.may_use_schema, r.no_content,
       r.seqtypid::pg_catalog.int8, r.seqstart, r.seqincrement, r.seqmin, r.seqmax, r.seqcycle,
       ` + last + `, ` + called + `
  FROM (SELECT i.ord, c.oid::pg_catalog.int8 AS oid, c.relkind::pg_catalog.text AS relkind, s.*, x.*,
               x.may_select AND NOT x.no_content AS readable
          FROM ROWS FROM (unnest($1::pg_catalog.text[]), unnest($2::pg_catalog.text[])) WITH ORDINALITY AS i(nspname, relname, ord)
          JOIN pg_catalog.pg_namespace AS n ON n.nspname = i.nspname::pg_catalog.name
          JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = i.relname::pg_catalog.name
          LEFT JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = c.oid
          LEFT JOIN LATERAL (SELECT pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT') AS may_select,
                                    pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
                                    c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery() AS no_content) AS x ON true
        OFFSET 0) AS r` + data
}

// xminOfR is the xmin of a row as a number, which has no cast but through text: from its age it takes a quarter of the time.
const xminOfR = `((SELECT pg_catalog.age('3'::pg_catalog.xid))::pg_catalog.int8 - pg_catalog.age(r.xmin)) & 4294967295`

// catalogsSQL digests the versions of the rows that say what sequences there are, unless pg_class is larger than $1. Temporary ones
// come and go. What an update leaves has another xmin, and a sequence has the oid of none before it.
const catalogsSQL = `
SELECT CASE WHEN pg_catalog.pg_relation_size('pg_catalog.pg_class'::pg_catalog.regclass) <= $1::pg_catalog.int8 THEN (
         WITH class AS (
                  SELECT count(*) FILTER (WHERE r.relpersistence <> 't') AS count,
                         sum(pg_catalog.hashint8extended(` + xminOfR + `, r.oid::pg_catalog.int8))
                         FILTER (WHERE r.relpersistence <> 't') AS sum,
                         pg_catalog.array_agg(r.oid) FILTER (WHERE r.relpersistence = 't') AS temporary
                    FROM pg_catalog.pg_class AS r
                   WHERE r.relkind = 'S'
              )
         SELECT pg_catalog.concat(class.count, ' ', class.sum, ' ',
                  (SELECT sum(pg_catalog.hashint8extended(` + xminOfR + `, r.seqrelid::pg_catalog.int8))
                     FROM pg_catalog.pg_sequence AS r
                    WHERE (r.seqrelid = ANY (class.temporary)) IS NOT TRUE), ' ',
                  (SELECT sum(pg_catalog.hashint8extended(n.xmin::pg_catalog.text::pg_catalog.int8, n.oid::pg_catalog.int8))
                     FROM pg_catalog.pg_namespace AS n))
           FROM class)
       END`

// currentSQL reads nothing but the positions of sequences: that they are there, and what they are, is known. $1: oids. It has them
// in one row: the last values, in the order of the oids, and the numbers of those that are not called. Of one that is not
// called a server before 18 does not tell the value; that of another one is NULL where there is more to know.
func currentSQL(major int) string {
	position, last, uncalled := `pg_catalog.pg_get_sequence_data(i.oid)`, `(r.position).last_value`, `NOT (r.position).is_called`
	if major < firstSequenceData {
		position, last, uncalled = `pg_catalog.pg_sequence_last_value(i.oid)`, `r.position`, `r.position IS NULL`
	}
	return `
SELECT pg_catalog.array_agg(` + last + `), pg_catalog.array_agg(r.ord) FILTER (WHERE ` + uncalled + `)
  FROM (SELECT i.ord, ` + position + ` AS position
          FROM unnest($1::pg_catalog.oid[]) WITH ORDINALITY AS i(oid, ord)
         ORDER BY i.ord
        OFFSET 0) AS r`
}

// knownSQL reads sequences by their oids, in a session with an empty search_path: the name that a regclass is shown with has its
// schema then. $1: oids. Of one that is called, or from 18 on of any, it has the position.
func knownSQL(major int) string {
	position := `SELECT pg_catalog.pg_sequence_last_value(CASE WHEN r.readable THEN r.oid END), true`
	if major >= firstSequenceData {
		position = `SELECT d.last_value, d.is_called FROM pg_catalog.pg_get_sequence_data(CASE WHEN r.readable THEN r.oid END) AS d`
	}
	return `
SELECT r.ord, r.name, r.readable, s.seqtypid::pg_catalog.int8, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
       p.last_value IS NULL, coalesce(p.last_value, 0), coalesce(p.is_called, false)
  FROM (SELECT i.ord, i.oid, i.oid::pg_catalog.regclass::pg_catalog.text AS name,
               coalesce(pg_catalog.has_sequence_privilege(i.oid, 'SELECT'), false) AS readable
          FROM unnest($1::pg_catalog.oid[]) WITH ORDINALITY AS i(oid, ord)
        OFFSET 0) AS r
  JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = r.oid
  LEFT JOIN LATERAL (` + position + `) AS p(last_value, is_called) ON r.readable`
}

// lockedSQL tells which of some sequences a lock keeps from being read, that is held or waited for. $1, $2 as in valuesSQL.
// To read a sequence takes a RowExclusiveLock before 19, an AccessShareLock since.
func lockedSQL(major int) string {
	modes := "'AccessExclusiveLock'"
	if major < firstLightRead {
		modes += ", 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock'"
	}
	return `
SELECT DISTINCT i.ord
  FROM ROWS FROM (unnest($1::pg_catalog.text[]), unnest($2::pg_catalog.text[])) WITH ORDINALITY AS i(nspname, relname, ord)
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = i.nspname::pg_catalog.name
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = i.relname::pg_catalog.name
  JOIN pg_catalog.pg_locks AS l ON l.relation = c.oid
 WHERE l.locktype = 'relation' AND l.mode IN (` + modes + `)
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())`
}

// positionsSQL reads sequences as the tables that they are.
func positionsSQL(names []host.SequenceName, which []int) string {
	var b strings.Builder
	for i, n := range which {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		b.WriteString("SELECT " + strconv.Itoa(n) + ", last_value, is_called FROM " + QuoteName(names[n]))
	}
	return b.String()
}

// confirmedSQL reads what anybody may see of a slot. $1: its name.
const confirmedSQL = `
SELECT s.confirmed_flush_lsn::pg_catalog.text
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.slot_name = $1::pg_catalog.name AND s.database = pg_catalog.current_database() AND s.confirmed_flush_lsn IS NOT NULL`

// noPublicationSQL finds publications that are not there. $1: names.
const noPublicationSQL = `
SELECT w.name FROM unnest($1::pg_catalog.text[]) AS w(name)
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_publication AS p WHERE p.pubname = w.name::pg_catalog.name)
 ORDER BY 1 LIMIT 1`

// sequencesSQL lists the permanent sequences, and of each whether it feeds a table of the publications: whether a column
// owns it, has it as its identity, or calls it in its default. Of a published partition the tables above it count, which own
// the sequence of a serial column, and of a published partitioned table the partitions below, which can have defaults of
// their own. One of an extension belongs to that, unless a table needs it. $1: publications, $2: all sequences, also those that
// feed none.
const sequencesSQL = `
WITH RECURSIVE published AS (
         SELECT c.oid
           FROM pg_catalog.pg_publication_tables AS p
           JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname
           JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename
          WHERE p.pubname = ANY ($1::pg_catalog.text[]::pg_catalog.name[])
     ), above AS (
         SELECT oid FROM published
          UNION
         SELECT h.inhparent
           FROM above AS a
           JOIN pg_catalog.pg_class AS c ON c.oid = a.oid AND c.relispartition
           JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = c.oid
     ), below AS (
         SELECT oid FROM published
          UNION
         SELECT h.inhrelid
           FROM below AS b
           JOIN pg_catalog.pg_inherits AS h ON h.inhparent = b.oid
           JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND c.relispartition
     ), tables AS (
         SELECT oid FROM above UNION SELECT oid FROM below
     ), feeding AS (
         SELECT d.objid AS oid
           FROM tables AS t
           JOIN pg_catalog.pg_depend AS d
             ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.oid
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
          UNION
         SELECT d.refobjid
           FROM tables AS t
           JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = t.oid
           JOIN pg_catalog.pg_depend AS d
             ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
          WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     )
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, f.oid IS NOT NULL, c.oid::pg_catalog.int8,
       s.seqtypid::pg_catalog.int8, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = c.oid
  LEFT JOIN feeding AS f ON f.oid = c.oid
 WHERE c.relkind = 'S' AND c.relpersistence = 'p'
   AND (f.oid IS NOT NULL
        OR $2::pg_catalog.bool AND c.oid >= 16384 AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                            WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e'))
 ORDER BY n.nspname::pg_catalog.text COLLATE "C", c.relname::pg_catalog.text COLLATE "C"`

// QuoteName quotes a name for SQL, always: which parts are keywords depends on the version.
func QuoteName(n host.SequenceName) string {
	return remote.QuoteIdentifier(n.Schema) + "." + remote.QuoteIdentifier(n.Name)
}
