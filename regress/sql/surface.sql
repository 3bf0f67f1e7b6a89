-- The names that users and monitoring rely on, and who may use them.
CREATE EXTENSION replsync;
SELECT extversion = replsync.version() AS version_fits FROM pg_extension WHERE extname = 'replsync';

SELECT p.proname AS function, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
FROM pg_proc p WHERE p.pronamespace = 'replsync'::regnamespace ORDER BY 1, 2;

SELECT c.relname AS view, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'replsync'::regnamespace AND c.relkind = 'v' GROUP BY 1 ORDER BY 1;

SELECT name, setting, unit, context, vartype, short_desc
FROM pg_settings WHERE name LIKE 'replsync.%' ORDER BY name;

-- nothing is granted to PUBLIC
SELECT p.proname FROM pg_proc p
WHERE p.pronamespace = 'replsync'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'replsync'::regnamespace AND has_table_privilege('public', c.oid, 'SELECT');

-- pg_monitor reads the views and the checks
CREATE ROLE replsync_monitor IN ROLE pg_monitor;
SET ROLE replsync_monitor;
SELECT count(*) FROM replsync.slot_status;
SELECT kind, state FROM replsync.worker_status WHERE kind = 'slots';
SELECT count(*) FROM replsync.progress;
SELECT check_name, object, ok, detail, hint FROM replsync.failover_check();
SELECT replsync.failover_ready();
SELECT * FROM replsync.sync_slots();
SELECT replsync.drop_slots();
SELECT replsync.reset_statistics();
RESET ROLE;

-- EXECUTE alone is not enough: slots need REPLICATION
GRANT EXECUTE ON FUNCTION replsync.sync_slots, replsync.drop_slots, replsync.logical_snapshot TO replsync_monitor;
SET ROLE replsync_monitor;
SELECT * FROM replsync.sync_slots();
SELECT replsync.drop_slots();
SELECT replsync.logical_snapshot('0/1');
RESET ROLE;
ALTER ROLE replsync_monitor REPLICATION;
SET ROLE replsync_monitor;
SELECT replsync.logical_snapshot('0/1') IS NULL AS no_such_snapshot;
SELECT * FROM replsync.sync_slots();
RESET ROLE;
DROP OWNED BY replsync_monitor;
DROP ROLE replsync_monitor;

-- on a primary
SELECT * FROM replsync.sync_slots();
SELECT replsync.drop_slots();
SELECT count(*) FROM replsync.slot_status;
SELECT kind, pid > 0 AS has_pid, database, state, cycles, last_error FROM replsync.worker_status WHERE kind = 'slots';
SELECT replsync.reset_statistics();

-- the files of logical decoding, and no others
SELECT count(*) FROM replsync.logical_mappings(0, '0/1');
SELECT replsync.logical_slot_two_phase_at('no_such_slot');
SELECT 'init' FROM pg_create_logical_replication_slot('replsync_regress', 'pgoutput');
SELECT replsync.logical_slot_two_phase_at('replsync_regress') IS NULL AS not_two_phase;
SELECT pg_drop_replication_slot('replsync_regress');
