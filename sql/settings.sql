-- The settings: that they exist, who may change them and when, and that bad
-- values are refused with a reason.

SELECT name, vartype, unit, min_val, max_val, boot_val, context
FROM pg_settings WHERE name LIKE 'sluice.%' ORDER BY name COLLATE "C";

SELECT name, enumvals FROM pg_settings WHERE name LIKE 'sluice.%' AND enumvals IS NOT NULL
ORDER BY name COLLATE "C";

-- descriptions are sentences
SELECT name AS without_description FROM pg_settings
WHERE name LIKE 'sluice.%' AND (short_desc !~ '^[A-Z][a-z]+s .*[.]$' OR extra_desc !~ '[.]$')
ORDER BY name COLLATE "C";

-- a special value is explained
SELECT name AS minus_one_not_explained FROM pg_settings
WHERE name LIKE 'sluice.%' AND min_val = '-1' AND coalesce(extra_desc, '') !~ '-1'
ORDER BY name COLLATE "C";

\set VERBOSITY default
\set SHOW_CONTEXT never

-- refused: out of range, not a number, not in the list
SET sluice.min_pool_size = -1;
SET sluice.max_pool_size = -2;
SET sluice.max_pool_size = 0;
SET sluice.max_pool_size = 'many';
SET sluice.pool_mode = 'query';
SET sluice.on_session_state = 'reset';
SET sluice.acquire_timeout = '30 parsecs';
-- (ranges with units are written differently by different versions of the server)
\set VERBOSITY sqlstate
SET sluice.acquire_timeout = '-1ms';
SET sluice.idle_timeout = -1;
SET sluice.max_lifetime = -1;
ALTER SYSTEM SET sluice.debug_backend_start_delay = -1;
\set VERBOSITY default

-- refused for the configuration file as well
ALTER SYSTEM SET sluice.port = 65536;
ALTER SYSTEM SET sluice.port = 0;
ALTER SYSTEM SET sluice.max_clients = 0;
ALTER SYSTEM SET sluice.max_backends = 0;
ALTER SYSTEM SET sluice.max_pools = 0;
ALTER SYSTEM SET sluice.max_unauthenticated_clients = 0;
ALTER SYSTEM SET sluice.cores = 0;
ALTER SYSTEM SET sluice.cores = -0.5;
ALTER SYSTEM SET sluice.spindles = -2;
ALTER SYSTEM SET sluice.procfs = '';
ALTER SYSTEM SET sluice.sysfs = 'sys';
ALTER SYSTEM SET sluice.max_prepared_statements = 0;

-- there is no hidden setting: the prefix is reserved
SET sluice.no_such_setting = 1;

-- not while the server runs, not for one session
SET sluice.port = 6433;
SET sluice.max_clients = 100;
SET sluice.cores = 4;

-- units
SET sluice.acquire_timeout = '2min';
SHOW sluice.acquire_timeout;
SET sluice.acquire_timeout = 1500;
SHOW sluice.acquire_timeout;
RESET sluice.acquire_timeout;
SHOW sluice.acquire_timeout;

-- a pool's settings can be set for a role and a database, by a superuser
CREATE ROLE regress_sluice_app;
ALTER ROLE regress_sluice_app SET sluice.pool_mode = 'session';
ALTER ROLE regress_sluice_app SET sluice.max_pool_size = 4;
SELECT unnest(setconfig) AS setting FROM pg_db_role_setting
WHERE setrole = 'regress_sluice_app'::regrole ORDER BY 1;
SET ROLE regress_sluice_app;
SET sluice.pool_mode = 'session';
ALTER ROLE regress_sluice_app SET sluice.max_pool_size = 5;
RESET ROLE;
DROP ROLE regress_sluice_app;
