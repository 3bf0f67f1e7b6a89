-- A value that cannot work is refused when it is set.
ALTER SYSTEM SET replsync.slots = 'a*, !a_?, @failover';
ALTER SYSTEM SET replsync.slots = '';
ALTER SYSTEM SET replsync.slots = 'Upper';
ALTER SYSTEM SET replsync.slots = 'a,,b';
ALTER SYSTEM SET replsync.slots = '!';
ALTER SYSTEM SET replsync.slots = '@other';
ALTER SYSTEM SET replsync.primary_conninfo = 'host=127.0.0.1 user=standby passfile=/nowhere';
ALTER SYSTEM SET replsync.primary_conninfo = 'host=127.0.0.1 password=hunter2';
ALTER SYSTEM SET replsync.primary_conninfo = 'postgresql://standby:hunter2@127.0.0.1/postgres';
ALTER SYSTEM SET replsync.primary_conninfo = 'host=127.0.0.1 sslpassword=hunter2';
ALTER SYSTEM SET replsync.primary_conninfo = 'host=127.0.0.1 hunter2';
ALTER SYSTEM SET replsync.slot_naptime_min = '1ms';
ALTER SYSTEM SET replsync.slot_naptime_max = '0';
ALTER SYSTEM SET replsync.connect_timeout = '0';
ALTER SYSTEM SET replsync.remote_timeout = '-1';
ALTER SYSTEM SET replsync.no_such_parameter = '1';
SET replsync.slots = 'a';
ALTER SYSTEM RESET ALL;
