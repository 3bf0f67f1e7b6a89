\echo Use "CREATE EXTENSION replsync" to load this file. \quit

-- The roles that the views and functions are granted to need this; each object has its own rights.
GRANT USAGE ON SCHEMA replsync TO PUBLIC;

CREATE FUNCTION replsync.version() RETURNS text
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'replsync_version';

-- Slots, on a standby

CREATE FUNCTION replsync.sync_slots(
	OUT slot_name name, OUT database name, OUT action text, OUT ready boolean, OUT reason text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_sync_slots_sql';

CREATE FUNCTION replsync.drop_slots(pattern text DEFAULT '*') RETURNS integer
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_drop_slots_sql';

CREATE FUNCTION replsync.slot_status_rows(
	OUT slot_name name, OUT database name, OUT plugin name, OUT state text, OUT reason text,
	OUT hint text, OUT remote_restart_lsn pg_lsn, OUT remote_confirmed_flush_lsn pg_lsn,
	OUT restart_lsn pg_lsn, OUT confirmed_flush_lsn pg_lsn, OUT lag_bytes bigint,
	OUT last_sync_at timestamptz, OUT last_error text, OUT last_error_at timestamptz,
	OUT error_count bigint)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'replsync_slot_status';

CREATE VIEW replsync.slot_status AS
	SELECT slot_name, database, plugin, state, reason, hint, remote_restart_lsn,
		remote_confirmed_flush_lsn, restart_lsn, confirmed_flush_lsn, lag_bytes, last_sync_at,
		last_error, last_error_at, error_count
	FROM replsync.slot_status_rows();

-- Slots, on a primary: what a standby cannot read otherwise

CREATE FUNCTION replsync.logical_snapshot(restart_lsn pg_lsn) RETURNS bytea
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'replsync_logical_snapshot';

CREATE FUNCTION replsync.logical_mappings(database oid, restart_lsn pg_lsn,
	OUT name text, OUT content bytea)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'replsync_logical_mappings';

CREATE FUNCTION replsync.logical_slot_two_phase_at(slot_name name) RETURNS pg_lsn
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'replsync_logical_slot_two_phase_at';

-- Workers

CREATE FUNCTION replsync.worker_status_rows(
	OUT kind text, OUT pid integer, OUT database name, OUT state text, OUT started_at timestamptz,
	OUT cycles bigint, OUT last_cycle_at timestamptz, OUT last_cycle_ms double precision,
	OUT next_cycle_at timestamptz, OUT last_error text, OUT last_error_at timestamptz)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'replsync_worker_status';

CREATE VIEW replsync.worker_status AS
	SELECT kind, pid, database, state, started_at, cycles, last_cycle_at, last_cycle_ms,
		next_cycle_at, last_error, last_error_at
	FROM replsync.worker_status_rows();

CREATE FUNCTION replsync.progress_rows(
	OUT pid integer, OUT kind text, OUT database name, OUT phase text, OUT done bigint,
	OUT total bigint)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'replsync_progress';

CREATE VIEW replsync.progress AS
	SELECT pid, kind, database, phase, done, total FROM replsync.progress_rows();

CREATE FUNCTION replsync.reset_statistics() RETURNS void
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_reset_statistics';

-- Slot names, positions and errors of other servers are not for everybody.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA replsync FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA replsync FROM PUBLIC;

GRANT SELECT ON replsync.slot_status, replsync.worker_status, replsync.progress TO pg_monitor;
GRANT EXECUTE ON FUNCTION replsync.version(), replsync.slot_status_rows(),
	replsync.worker_status_rows(), replsync.progress_rows() TO pg_monitor;
