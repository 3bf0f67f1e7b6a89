-- Sequences: who may do what, and what is refused. The publisher is never there.
CREATE EXTENSION replsync;
SET client_min_messages = error;
CREATE SUBSCRIPTION regress_sub CONNECTION 'host=/nonexistent dbname=x user=y password=sesame' PUBLICATION p
	WITH (connect = false, slot_name = NONE);
RESET client_min_messages;

-- a subscription of this database
SELECT replsync.add_sequences('no_such');
SELECT replsync.remove_sequences('no_such');
SELECT replsync.refresh_selection('no_such');
SELECT * FROM replsync.sync_sequences('no_such');
SELECT * FROM replsync.sync_sequences('no_such', wait => false);
SELECT * FROM replsync.sequence_drift('no_such');
\set VERBOSITY terse
SELECT * FROM replsync.cutover_check('no_such');
\set VERBOSITY default

-- that has a selection
SELECT replsync.refresh_selection('regress_sub');
SELECT * FROM replsync.sync_sequences('regress_sub');
SELECT * FROM replsync.sync_sequences('regress_sub', wait => false);
SELECT * FROM replsync.sequence_drift('regress_sub');
SELECT check_name, object, ok FROM replsync.cutover_check('regress_sub') ORDER BY 1;
SELECT replsync.remove_sequences('regress_sub');

-- that says what it means
SELECT replsync.add_sequences('regress_sub', 'some');
SELECT replsync.add_sequences('regress_sub', margin => -1);
SELECT replsync.add_sequences('regress_sub', include => '{NULL}');
SELECT replsync.add_sequences('regress_sub', include => '{{a,b},{c,d}}');
SELECT replsync.add_sequences(NULL) IS NULL AS strict;

-- and whose publisher is there
SELECT replsync.add_sequences('regress_sub');
SELECT count(*) FROM replsync.sequence_status;

-- in a transaction that may write
BEGIN READ ONLY;
SELECT replsync.add_sequences('regress_sub');
ROLLBACK;
BEGIN READ ONLY;
SELECT replsync.remove_sequences('regress_sub');
ROLLBACK;
BEGIN READ ONLY;
SELECT replsync.refresh_selection('regress_sub');
ROLLBACK;
BEGIN READ ONLY;
SELECT * FROM replsync.sync_sequences('regress_sub');
ROLLBACK;

-- by its owner or a superuser
CREATE ROLE replsync_monitor IN ROLE pg_monitor;
CREATE ROLE replsync_nobody;
SET ROLE replsync_nobody;
SELECT replsync.add_sequences('regress_sub');
SELECT replsync.remove_sequences('regress_sub');
SELECT replsync.refresh_selection('regress_sub');
SELECT * FROM replsync.sync_sequences('regress_sub');
SELECT * FROM replsync.sequence_drift('regress_sub');
SELECT * FROM replsync.cutover_check('regress_sub');
SELECT * FROM replsync.sequence_status;
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA replsync TO replsync_nobody;
SET ROLE replsync_nobody;
SELECT replsync.add_sequences('regress_sub');
SELECT replsync.remove_sequences('regress_sub');
SELECT replsync.refresh_selection('regress_sub');
SELECT * FROM replsync.sync_sequences('regress_sub');
SELECT * FROM replsync.sync_sequences('regress_sub', wait => false);
SELECT * FROM replsync.sequence_drift('regress_sub');
RESET ROLE;

-- pg_monitor reads the views and the check
SET ROLE replsync_monitor;
SELECT count(*) FROM replsync.sequence_status;
SELECT count(*) > 0 AS has_rows FROM replsync.cutover_check('regress_sub');
SELECT replsync.remove_sequences('regress_sub');
RESET ROLE;

DROP OWNED BY replsync_nobody;
DROP ROLE replsync_nobody, replsync_monitor;
DROP SUBSCRIPTION regress_sub;
DROP EXTENSION replsync;
