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

CREATE FUNCTION replsync.failover_check(
	OUT check_name text, OUT object text, OUT ok boolean, OUT detail text, OUT hint text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'replsync_failover_check';

CREATE FUNCTION replsync.failover_ready() RETURNS boolean
	LANGUAGE SQL VOLATILE PARALLEL RESTRICTED
	RETURN (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.bool_and(ok IS NOT FALSE) END
		FROM replsync.failover_check());

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

-- The slots themselves: all, or what has changed for the caller
CREATE FUNCTION replsync.logical_slots(changed boolean DEFAULT false,
	OUT slot_name name, OUT plugin name, OUT database name, OUT datoid oid, OUT restart_lsn pg_lsn,
	OUT confirmed_flush_lsn pg_lsn, OUT catalog_xmin xid, OUT two_phase boolean,
	OUT two_phase_at pg_lsn, OUT failover boolean, OUT invalidation_reason text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_logical_slots';

CREATE PROCEDURE replsync.wait_for_slot_change(timeout_ms integer)
	LANGUAGE C
	AS 'MODULE_PATHNAME', 'replsync_wait_for_slot_change';

-- What feedback cannot ask for: to keep catalog rows that the slot of the standby kept no more, and a logical slot still keeps
CREATE FUNCTION replsync.keep_catalog_rows(slot_name name, catalog_xmin xid) RETURNS xid
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_keep_catalog_rows';

-- Sequences, on a subscriber

-- The rules: which sequences of a subscription's publisher are under care. They are dumped; after a
-- restore the name says which subscription is meant.
CREATE TABLE replsync.sequence_selection (
	subscription oid PRIMARY KEY,
	subscription_name name NOT NULL,	-- that of two rows may be the same until a worker has seen a rename
	selection text NOT NULL,
	include text[] NOT NULL,
	exclude text[] NOT NULL,
	margin bigint NOT NULL,
	requested_generation bigint NOT NULL DEFAULT 1,	-- the last sync that was asked for
	resync_generation bigint NOT NULL DEFAULT 1,	-- the last one that was asked of all sequences
	-- the system identifier of the server that has written the row: the oid, and all that the other tables have
	-- for it, mean nothing to another (pg_upgrade carries the tables over, and subscriptions get new oids)
	written_by bigint NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('replsync.sequence_selection', '');

CREATE TABLE replsync.sequence_member (
	subscription oid,
	schema_name name,
	sequence_name name,
	generation bigint NOT NULL,	-- that of its first sync
	PRIMARY KEY (subscription, schema_name, sequence_name)
);

CREATE TABLE replsync.sequence_problem (
	subscription oid,
	schema_name name,
	sequence_name name,
	reason text NOT NULL,
	detail text NOT NULL,
	hint text NOT NULL,
	first_at timestamptz NOT NULL DEFAULT now(),
	last_at timestamptz NOT NULL DEFAULT now(),
	error_count bigint NOT NULL DEFAULT 1,
	PRIMARY KEY (subscription, schema_name, sequence_name)
);

CREATE TABLE replsync.sequence_watermark (
	subscription oid PRIMARY KEY,
	done_generation bigint NOT NULL,
	publisher_lsn pg_lsn NOT NULL,
	system_identifier bigint NOT NULL,
	timeline integer NOT NULL,
	written_at timestamptz NOT NULL
);

CREATE FUNCTION replsync.add_sequences(subscription name, selection text DEFAULT 'tables',
	include text[] DEFAULT '{}', exclude text[] DEFAULT '{}', margin bigint DEFAULT 0)
	RETURNS integer
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_add_sequences';

CREATE FUNCTION replsync.remove_sequences(subscription name) RETURNS integer
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_remove_sequences';

CREATE FUNCTION replsync.refresh_selection(subscription name) RETURNS integer
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_refresh_selection';

CREATE FUNCTION replsync.sync_sequences(subscription name, wait boolean DEFAULT true,
	allow_backwards boolean DEFAULT false,
	OUT schema_name name, OUT sequence_name name, OUT publisher_value bigint,
	OUT publisher_is_called boolean, OUT local_before bigint, OUT local_after bigint,
	OUT action text, OUT reason text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_sync_sequences_sql';

CREATE FUNCTION replsync.sequence_drift(subscription name,
	OUT schema_name name, OUT sequence_name name, OUT publisher_value bigint,
	OUT publisher_is_called boolean, OUT local_before bigint, OUT local_after bigint,
	OUT action text, OUT reason text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_sequence_drift';

CREATE FUNCTION replsync.check_publisher(subscription name,
	OUT check_name text, OUT object text, OUT ok boolean, OUT detail text, OUT hint text, OUT lsn pg_lsn)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'replsync_check_publisher';

-- What workers keep in memory; a row without a sequence is the watermark of a subscription.
CREATE FUNCTION replsync.sequence_live(
	OUT subscription oid, OUT sequence oid, OUT publisher_value bigint, OUT publisher_is_called boolean,
	OUT last_sync_at timestamptz, OUT error_count bigint, OUT publisher_lsn pg_lsn,
	OUT system_identifier bigint, OUT timeline integer)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'replsync_sequence_live';

CREATE FUNCTION replsync.sequence_local_value(sequence oid) RETURNS bigint
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'replsync_sequence_local_value';

CREATE VIEW replsync.sequence_status AS
	WITH live AS MATERIALIZED (SELECT * FROM replsync.sequence_live()),
		rules AS (
			SELECT * FROM replsync.sequence_selection
			WHERE written_by = (SELECT system_identifier FROM pg_catalog.pg_control_system())),
		watermark AS (
			SELECT r.subscription, coalesce(w.done_generation, 0) AS done_generation,
				coalesce(l.publisher_lsn, w.publisher_lsn) AS publisher_lsn,
				coalesce(l.last_sync_at, w.written_at) AS last_sync_at
			FROM rules r
				LEFT JOIN replsync.sequence_watermark w ON w.subscription = r.subscription
				LEFT JOIN live l ON l.subscription = r.subscription AND l.sequence IS NULL)
	SELECT s.subname AS subscription, m.schema_name, m.sequence_name,
		CASE WHEN p.reason IS NOT NULL THEN 'failed'
			WHEN greatest(m.generation, r.resync_generation) <= w.done_generation THEN 'ready'
			ELSE 'init' END AS state,
		l.publisher_value, l.publisher_is_called,
		replsync.sequence_local_value(c.oid) AS local_value,
		-- it would prove nothing about one that no cycle has reached yet, or that is not in step
		CASE WHEN i.in_step AND k.reason IS NULL THEN w.publisher_lsn END AS publisher_lsn,
		-- a value that nobody moves is looked at in every cycle
		CASE WHEN i.in_step THEN greatest(l.last_sync_at, w.last_sync_at) ELSE l.last_sync_at END AS last_sync_at,
		coalesce(p.reason, k.reason) AS reason,
		coalesce(p.hint, k.hint) AS hint,
		greatest(l.error_count, p.error_count, 0) AS error_count
	FROM rules r
		JOIN watermark w ON w.subscription = r.subscription
		JOIN pg_catalog.pg_subscription s ON s.oid = r.subscription
		JOIN pg_catalog.pg_database d ON d.oid = s.subdbid AND d.datname = pg_catalog.current_database()
		JOIN replsync.sequence_member m ON m.subscription = r.subscription
		LEFT JOIN (pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind = 'S')
			ON n.nspname = m.schema_name AND c.relname = m.sequence_name
		LEFT JOIN replsync.sequence_problem p ON p.subscription = m.subscription
			AND p.schema_name = m.schema_name AND p.sequence_name = m.sequence_name
		LEFT JOIN live l ON l.subscription = m.subscription AND l.sequence = c.oid
		-- before 19 no sequence is there
		LEFT JOIN LATERAL (SELECT 'synchronized_by_core' AS reason,
				'Use ALTER SUBSCRIPTION ' || pg_catalog.quote_ident(o.subname) || ' REFRESH SEQUENCES.' AS hint
			FROM (SELECT (SELECT subname FROM pg_catalog.pg_subscription WHERE oid = srsubid)
				FROM pg_catalog.pg_subscription_rel WHERE srrelid = c.oid LIMIT 1) o) k ON true
		CROSS JOIN LATERAL (SELECT p.reason IS NULL AND m.generation <= w.done_generation AS in_step) i;

-- What is known here, and what the publisher says if it is there.
CREATE FUNCTION replsync.cutover_check(subscription name,
	OUT check_name text, OUT object text, OUT ok boolean, OUT detail text, OUT hint text)
	RETURNS SETOF record
	LANGUAGE SQL VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	-- else temporary objects of the caller would come first
	SET search_path = pg_catalog, pg_temp
	AS $$
	WITH sub AS MATERIALIZED (
		SELECT s.oid, s.subname, 'SELECT * FROM replsync.sync_sequences(' || quote_literal(s.subname) || ')' AS sync
		FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
		WHERE s.subname = $1 AND d.datname = current_database()),
	members AS MATERIALIZED (
		SELECT m.schema_name || '.' || m.sequence_name AS name, m.state, m.reason, m.hint, p.detail
		FROM sub JOIN replsync.sequence_status m ON m.subscription = sub.subname
			LEFT JOIN replsync.sequence_problem p ON p.subscription = sub.oid
				AND p.schema_name = m.schema_name AND p.sequence_name = m.sequence_name),
	watermark AS MATERIALIZED (
		SELECT coalesce(l.publisher_lsn, w.publisher_lsn) AS lsn, coalesce(l.last_sync_at, w.written_at) AS at
		FROM sub LEFT JOIN (replsync.sequence_watermark w
				JOIN replsync.sequence_selection r ON r.subscription = w.subscription
					AND r.written_by = (SELECT system_identifier FROM pg_control_system()))
				ON w.subscription = sub.oid
			LEFT JOIN replsync.sequence_live() l ON l.subscription = sub.oid AND l.sequence IS NULL),
	tables AS MATERIALIZED (
		SELECT r.srrelid::regclass::text AS name, r.srsubstate::text AS state, r.srsublsn AS lsn
		FROM sub JOIN pg_subscription_rel r ON r.srsubid = sub.oid JOIN pg_class c ON c.oid = r.srrelid
		WHERE c.relkind <> 'S'),
	applied AS MATERIALIZED (
		SELECT max(lsn) AS lsn FROM (
			SELECT lsn FROM tables
			UNION ALL SELECT o.remote_lsn FROM sub JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || sub.oid) a),
	publisher AS MATERIALIZED (SELECT * FROM replsync.check_publisher($1)),
	-- A keepalive is looked at when all before it is applied, but none need follow the last commit until the publisher writes something
	-- by itself. That commit counts when it has been applied: commits are, in their order. If it brought no rows, as one of a publisher
	-- before 15 may, only its message has come, and that may be ahead of what is being applied: it counts once the publisher has word
	-- that nothing is left to apply up to it. That word alone may be another server's, which uses the same slot. What was applied
	-- before tells nothing of what is under way.
	received AS MATERIALIZED (
		SELECT greatest(t.latest_end_lsn, CASE WHEN t.remote_lsn >= w.lsn THEN t.remote_lsn END,
				CASE WHEN t.received_lsn < c.lsn THEN t.received_lsn WHEN t.received_lsn >= c.lsn THEN c.lsn END) AS lsn
		FROM (SELECT max(s.latest_end_lsn) AS latest_end_lsn, max(s.received_lsn) AS received_lsn, max(o.remote_lsn) AS remote_lsn
				FROM sub JOIN pg_stat_subscription s ON s.subid = sub.oid
					LEFT JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || sub.oid
				WHERE s.relid IS NULL AND s.pid IS NOT NULL) t, watermark w,
			(SELECT max(lsn) AS lsn FROM publisher WHERE check_name = 'publisher_confirmed') c)
	SELECT 'selection', sub.subname::text, EXISTS (SELECT FROM members),
		(SELECT count(*) FROM members) || ' sequences are under care.',
		CASE WHEN NOT EXISTS (SELECT FROM members) THEN
			'SELECT replsync.add_sequences(' || quote_literal(sub.subname) || ')' END
	FROM sub
	UNION ALL
	SELECT 'last_sync', sub.subname::text,
		CASE WHEN m.at > clock_timestamp() - 3 * s.setting::bigint * interval '1 ms' THEN true END,
		coalesce('The sequences were last gone over at ' || m.at || '.', 'The sequences have not been gone over yet.'),
		CASE WHEN w.last_error_at > coalesce(m.at, '-infinity') THEN 'The last error was: ' || w.last_error END
	FROM sub, watermark m, (SELECT setting FROM pg_settings WHERE name = 'replsync.sequence_naptime_max') s
		LEFT JOIN replsync.worker_status w ON w.kind = 'sequences' AND w.database = current_database()
	UNION ALL
	SELECT 'tables', sub.subname::text, NOT EXISTS (SELECT FROM tables WHERE state <> 'r'),
		(SELECT count(*) FILTER (WHERE state = 'r') || ' of ' || count(*) || ' tables have been copied.' FROM tables), NULL
	FROM sub
	UNION ALL
	SELECT 'table', name, false, 'The table is still being copied (state ' || state || ').',
		'Wait, or see pg_stat_subscription and the server log.'
	FROM tables WHERE state <> 'r'
	UNION ALL
	SELECT 'applied', sub.subname::text, CASE WHEN w.lsn IS NULL THEN false ELSE coalesce(a.lsn <= w.lsn, true) END,
		CASE WHEN w.lsn IS NULL THEN 'The sequences have not been synchronized yet.'
			ELSE 'Rows have been applied up to ' || coalesce(a.lsn, '0/0')::text || ' of the publisher''s WAL; the sequences cover '
				|| w.lsn::text || '.' END,
		CASE WHEN w.lsn IS NULL OR a.lsn > w.lsn THEN 'Stop all writes on the publisher, wait until they are applied here, and run '
			|| sub.sync || '.' END
	FROM sub, watermark w, applied a
	UNION ALL
	-- With the sequences in step and rows under way, a switch would lose the rows.
	SELECT 'received', sub.subname::text, a.lsn >= w.lsn,
		CASE WHEN a.lsn IS NULL OR w.lsn IS NULL THEN 'The subscription is not receiving, so whether rows are under way is not known here.'
			ELSE 'The publisher''s WAL has been received up to ' || a.lsn::text || '; at the last sync it ended at ' || w.lsn::text || '.' END,
		CASE WHEN a.lsn < w.lsn THEN 'Wait until the last rows are here, and see pg_stat_subscription. If none are left, it takes at most the 15 seconds '
			|| 'after which the publisher writes something by itself.' END
	FROM sub, watermark w, received a
	UNION ALL
	SELECT 'sequences', sub.subname::text, NOT EXISTS (SELECT FROM members WHERE state <> 'ready'),
		(SELECT count(*) FILTER (WHERE state = 'ready') || ' of ' || count(*) || ' sequences are synchronized.' FROM members),
		NULL
	FROM sub
	UNION ALL
	SELECT 'sequence', m.name, false,
		CASE WHEN m.reason IS NOT NULL THEN m.reason || '.' || coalesce(' ' || nullif(m.detail, ''), '')
			WHEN m.state <> 'ready' THEN 'It has not been synchronized yet.'
			ELSE 'Rows have been applied since it was synchronized, so ids beyond it may be in use.' END,
		CASE WHEN m.state = 'failed' THEN m.hint
			ELSE 'Run ' || sub.sync || '; without the publisher, set it beyond the largest id in use.' END
	FROM sub, members m, watermark w, applied a
	WHERE m.reason IS DISTINCT FROM 'synchronized_by_core' AND (m.state <> 'ready' OR w.lsn IS NULL OR a.lsn > w.lsn)
	UNION ALL
	SELECT 'sequence', m.name, NULL, 'The subscription synchronizes it itself, and how far is not known here.', m.hint
	FROM members m WHERE m.reason = 'synchronized_by_core'
	UNION ALL
	SELECT check_name, object, ok, detail, hint FROM publisher WHERE check_name <> 'publisher_confirmed'
	$$;

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
REVOKE ALL ON ALL PROCEDURES IN SCHEMA replsync FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA replsync FROM PUBLIC;

GRANT SELECT ON replsync.slot_status, replsync.sequence_status, replsync.worker_status, replsync.progress
	TO pg_monitor;
GRANT EXECUTE ON FUNCTION replsync.version(), replsync.slot_status_rows(),
	replsync.worker_status_rows(), replsync.progress_rows(), replsync.failover_check(),
	replsync.failover_ready(), replsync.sequence_live(), replsync.sequence_local_value(oid),
	replsync.cutover_check(name) TO pg_monitor;
