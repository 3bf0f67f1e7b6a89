package primary

import "strings"

// Everything is schema-qualified, operators too: the database is not ours, and its users may have put functions and
// operators of their own anywhere. The session's search_path is pg_catalog as well.

// sessionSQL says who and where the session is.
const sessionSQL = `SELECT CURRENT_USER::pg_catalog.text, pg_catalog.current_database()::pg_catalog.text`

// accessSQL counts the functions of the extension that this role may call, and tells whether it may call the generic
// ones. It goes by the catalogs, since a lookup by name fails where USAGE on the schema is missing. The functions
// themselves ask for a superuser or REPLICATION.
const accessSQL = `
SELECT pg_catalog.count(*) FILTER (WHERE p.proname OPERATOR(pg_catalog.=) ANY
           (ARRAY['logical_snapshot', 'logical_mappings']::pg_catalog.name[]))::pg_catalog.text,
       pg_catalog.count(*) FILTER (WHERE p.proname OPERATOR(pg_catalog.=) 'logical_slot_two_phase_at')::pg_catalog.text,
       pg_catalog.count(*) FILTER (WHERE p.proname OPERATOR(pg_catalog.=) ANY
           (ARRAY['logical_slots', 'wait_for_slot_change']::pg_catalog.name[]))::pg_catalog.text,
       pg_catalog.count(*) FILTER (WHERE p.proname OPERATOR(pg_catalog.=) 'keep_catalog_rows')::pg_catalog.text,
       pg_catalog.has_function_privilege(
           'pg_catalog.pg_read_binary_file(pg_catalog.text,pg_catalog.int8,pg_catalog.int8,pg_catalog.bool)',
           'EXECUTE')::pg_catalog.text,
       pg_catalog.has_function_privilege('pg_catalog.pg_ls_logicalmapdir()', 'EXECUTE')::pg_catalog.text
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
  JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) CURRENT_USER AND (r.rolsuper OR r.rolreplication)
 WHERE n.nspname OPERATOR(pg_catalog.=) 'replsync'
   AND p.proname OPERATOR(pg_catalog.=) ANY
       (ARRAY['logical_snapshot', 'logical_mappings', 'logical_slot_two_phase_at', 'logical_slots',
              'wait_for_slot_change', 'keep_catalog_rows']::pg_catalog.name[])
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')`

// snapshotsSQL reads the snapshot files at positions; content is NULL where there is none. $1: LSNs, $2: file names.
var snapshotsSQL = map[Access]string{
	ByExtension: `
SELECT l.lsn, replsync.logical_snapshot(l.lsn::pg_catalog.pg_lsn)
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS l(lsn, name)`,
	// Given a length, pg_read_binary_file() allocates all of it: this one is far above any snapshot, and cheap.
	ByReadBinaryFile: `
SELECT l.lsn, pg_catalog.pg_read_binary_file(pg_catalog.concat('pg_logical/snapshots/', l.name), 0, 16777216, true)
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS l(lsn, name)`,
}

// mappingsSQL reads mapping files by the extension. $1: databases, $2: LSNs.
const mappingsSQL = `
SELECT m.name, m.content
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS s(database, lsn),
       LATERAL replsync.logical_mappings(s.database::pg_catalog.oid, s.lsn::pg_catalog.pg_lsn) AS m(name, content)`

// listMappingsSQL and readMappingsSQL do the same without it. $1: names, $2: sizes.
const (
	listMappingsSQL = `SELECT f.name, f.size::pg_catalog.text FROM pg_catalog.pg_ls_logicalmapdir() AS f`
	readMappingsSQL = `
SELECT f.name, pg_catalog.pg_read_binary_file(
           pg_catalog.concat('pg_logical/mappings/', f.name), 0, f.size::pg_catalog.int8, true)
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS f(name, size)`
)

// serverSQL identifies the server and shows the physical slot in one row. $1: name of the physical slot.
//
// The slots are read once, as each of them costs the primary time. The walsender is known by its pid and start. backend_start is NULL for a role that may not see it; the pid still is there.
func serverSQL(major int) string {
	level := "wal_level"
	if major >= 19 {
		level = "effective_wal_level"
	}
	return `
SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text,
       pg_catalog.current_setting('server_version_num'),
       pg_catalog.current_setting('` + level + `'),
       c.system_identifier::pg_catalog.text,
       pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())::pg_catalog.text,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END,
       pg_catalog.current_setting('primary_slot_name'),
       (pg_catalog.current_setting('hot_standby_feedback')::pg_catalog.bool
        AND pg_catalog.current_setting('wal_receiver_status_interval') OPERATOR(pg_catalog.<>) '0')::pg_catalog.text,
       s.xmins,
       s.slot_name,
       s.xmin,
       s.catalog_xmin,
       s.active_pid::pg_catalog.text,
       pg_catalog.date_part('epoch', a.backend_start)::pg_catalog.text
  FROM pg_catalog.pg_control_system() AS c
 CROSS JOIN (SELECT pg_catalog.string_agg(h.xmin::pg_catalog.text, ' ') AS xmins,
                    pg_catalog.max(h.slot_name::pg_catalog.text) FILTER (WHERE h.own) AS slot_name,
                    pg_catalog.max(h.xmin::pg_catalog.text) FILTER (WHERE h.own) AS xmin,
                    pg_catalog.max(h.catalog_xmin::pg_catalog.text) FILTER (WHERE h.own) AS catalog_xmin,
                    pg_catalog.max(h.active_pid) FILTER (WHERE h.own) AS active_pid
               FROM (SELECT *, slot_type OPERATOR(pg_catalog.=) 'physical' AND
                               slot_name OPERATOR(pg_catalog.=) $1::pg_catalog.text AS own
                       FROM pg_catalog.pg_get_replication_slots()
                      WHERE xmin IS NOT NULL OR slot_type OPERATOR(pg_catalog.=) 'physical') AS h) AS s
  LEFT JOIN LATERAL pg_catalog.pg_stat_get_activity(COALESCE(s.active_pid, 0)) AS a ON true`
}

// inspectSQL is for a check before a failover. $1: name of the physical slot, $2: name of the parameter.
const inspectSQL = `
SELECT COALESCE(pg_catalog.bool_or(s.active), false)::pg_catalog.text,
       COALESCE(pg_catalog.bool_or(s.wal_status OPERATOR(pg_catalog.=) 'lost'), false)::pg_catalog.text,
       pg_catalog.current_setting($2::pg_catalog.text, true),
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_flush_lsn() END::pg_catalog.text
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.slot_type OPERATOR(pg_catalog.=) 'physical' AND s.slot_name OPERATOR(pg_catalog.=) $1::pg_catalog.text`

// twoPhaseAccess is how two_phase_at is read.
type twoPhaseAccess int

const (
	twoPhaseUnknown twoPhaseAccess = iota
	twoPhaseByView
	twoPhaseByExtension
	twoPhaseByStateFile
)

// slotColumns begins a list of slots, with the columns that every version and the extension have.
const slotColumns = `
SELECT s.slot_name::pg_catalog.text,
       s.plugin::pg_catalog.text,
       s.database::pg_catalog.text,
       s.datoid::pg_catalog.text,
       s.restart_lsn::pg_catalog.text,
       s.confirmed_flush_lsn::pg_catalog.text,
       s.catalog_xmin::pg_catalog.text,
       s.two_phase::pg_catalog.text,`

// changedSlotsSQL lists the logical slots by the extension, with the columns of slotsSQL; with $1 true only those that differ
// from what the session was shown before.
const changedSlotsSQL = slotColumns + `
       s.two_phase_at::pg_catalog.text,
       NULL::pg_catalog.bytea,
       s.failover::pg_catalog.text,
       s.invalidation_reason
  FROM replsync.logical_slots($1::pg_catalog.bool) AS s`

// keepRowsSQL asks for what feedback cannot. $1: name of the physical slot, $2: a transaction ID.
const keepRowsSQL = `SELECT replsync.keep_catalog_rows($1::pg_catalog.name, $2::pg_catalog.xid)`

// watchSQL waits for a change; the time follows, in parentheses.
const watchSQL = `CALL replsync.wait_for_slot_change`

// slotsSQL lists the logical slots; its columns are those that readSlot reads.
func slotsSQL(major int, twoPhase twoPhaseAccess) string {
	at, state := "NULL::pg_catalog.text", "NULL::pg_catalog.bytea"
	switch twoPhase {
	case twoPhaseByView:
		at = "s.two_phase_at::pg_catalog.text"
	case twoPhaseByExtension:
		at = "CASE WHEN s.two_phase THEN replsync.logical_slot_two_phase_at(s.slot_name) END::pg_catalog.text"
	case twoPhaseByStateFile:
		state = `CASE WHEN s.two_phase THEN pg_catalog.pg_read_binary_file(
           pg_catalog.concat('pg_replslot/', s.slot_name, '/state'), 0, 1024, true) END`
	case twoPhaseUnknown:
	}

	failover := "false"
	invalidation := "CASE WHEN s.wal_status OPERATOR(pg_catalog.=) 'lost' THEN 'wal_removed' END"
	switch {
	case major >= 17:
		failover = "s.failover"
		invalidation = "s.invalidation_reason"
	case major == 16:
		invalidation = "CASE WHEN s.conflicting THEN 'conflicting'" + strings.TrimPrefix(invalidation, "CASE")
	}

	return slotColumns + `
       ` + at + `,
       ` + state + `,
       (` + failover + `)::pg_catalog.text,
       (` + invalidation + `)::pg_catalog.text
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.slot_type OPERATOR(pg_catalog.=) 'logical' AND NOT s.temporary`
}
