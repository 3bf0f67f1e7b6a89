-- The extension installs, and shows its users what it has
CREATE EXTENSION replsync;
SELECT replsync.version() = extversion AS same_version FROM pg_extension WHERE extname = 'replsync';
SELECT nspname, extrelocatable FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'replsync';

-- Nothing is for PUBLIC
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = 'replsync'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = 'replsync'::regnamespace AND has_table_privilege('public', c.oid, 'SELECT');

-- A server that is not a standby has no slots to synchronize
\set VERBOSITY sqlstate
SELECT * FROM replsync.sync_slots();
\set VERBOSITY default

DROP EXTENSION replsync;
