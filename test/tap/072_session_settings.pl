# SPDX-License-Identifier: PostgreSQL
#
# Settings, roles and names made up by clients are carried from backend to
# backend: each client sees what a direct connection shows, message by message.

use strict;
use warnings;

use ForcedSwitch;
use PoolTest;
use RawClient;
use SluiceTest;
use Test::More;

my $me = own_name();
# The other clients have something different in everything that is looked at.
my $pair = ForcedSwitch->new('main', conf => "max_stack_depth = '1MB'\n", disturb => [
	q{SET work_mem = '%d3MB'}, q{SET application_name = 'other %d'}, q{SET search_path = 'other %d', public},
	q{SET DateStyle = 'German'}, q{SET TimeZone = '+%d'}, q{SET IntervalStyle = 'iso_8601'}, q{SET extra_float_digits = -%d},
	q{SET client_encoding = 'LATIN%d'}, q{SET app.user_id = '10%d'}, q{SET app.tenant = 'other %d'}, q{SET other.only_%d = 1},
	q{SET random_page_cost = %d.5}, q{SET statement_timeout = '10%dmin'}, q{SET default_transaction_isolation = 'serializable'},
	q{SET log_statement_stats = on}, q{SET bytea_output = 'escape'}, q{SET plan_cache_mode = 'force_custom_plan'},
	q{SET idle_session_timeout = '20min'}, q{SET ROLE other} ]
);
my $server = $pair->server;
$server->sql($_) foreach 'CREATE ROLE other', 'CREATE ROLE visitor', 'CREATE ROLE plain LOGIN', 'CREATE ROLE member LOGIN IN ROLE visitor',
  "CREATE ROLE tuned LOGIN", "ALTER ROLE tuned SET work_mem = '14MB'", q{ALTER ROLE tuned SET app.user_id = '14'},
  "ALTER ROLE tuned SET search_path = 'of role', public", q{ALTER DATABASE postgres SET maintenance_work_mem = '70MB'},
  q{ALTER DATABASE postgres SET app.of_database = 'here'}, 'GRANT ALL ON SCHEMA public TO PUBLIC',
  'CREATE TABLE item AS SELECT i AS id, i % 3 AS owner FROM generate_series(1, 9) i', 'GRANT SELECT ON item TO PUBLIC',
  q{CREATE TABLE secured AS SELECT i AS id, i % 3 AS owner FROM generate_series(1, 9) i}, 'GRANT SELECT ON secured TO PUBLIC',
  'ALTER TABLE secured ENABLE ROW LEVEL SECURITY',
  q{CREATE POLICY own ON secured USING (owner = current_setting('app.user_id', true)::int)},
  q{CREATE FUNCTION run(sql text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; END$$},
  q{CREATE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN RETURN 'undone'; END$$},
  q{CREATE FUNCTION shown(name text) RETURNS text LANGUAGE sql SET work_mem = '1MB' SET app.tenant = 'function' AS 'SELECT current_setting($1, true)'},
  q{CREATE FUNCTION sets_it(sql text) RETURNS void LANGUAGE plpgsql SET work_mem = '2MB' AS $$BEGIN EXECUTE sql; END$$},
  'CREATE SCHEMA "of role"', 'CREATE SCHEMA "Odd, name"';

# All that a session may have changed.
my $all = q{SELECT name, setting, unit, source, sourcefile, sourceline, boot_val, reset_val, context, pending_restart FROM pg_settings
	WHERE source IN ('session', 'interactive', 'client', 'user', 'database') AND name NOT IN ('application_name', 'transaction_isolation', 'transaction_read_only') AND name NOT LIKE 'sluice.%' ORDER BY name};
my $again = q{SELECT current_user, session_user, current_setting('is_superuser')};

sub same
{
	my ($name, $steps, %option) = @_;
	return $pair->same($name, [ @$steps, $all, $again ], %option);
}

# Every transaction has another backend.
{
	my $client = $server->pool_raw;
	my @pids = map { scalar $client->sql('SELECT pg_backend_pid()') } 1 .. 4;
	isnt($pids[0], $pids[1], 'each transaction is executed on another backend');
	$client->close;
}

# ----------------------------------------------------------------------------- SET and RESET

same('a new client', [ 'SHOW ALL' ], mask => sub { $_ = '' if /^DataRow sluice|^DataRow (?:port|data_directory|.*_file)\|/ });
same('SET', [ "SET work_mem = '7MB'", 'SHOW work_mem', 'SHOW work_mem', "SET work_mem = '8MB'", 'SHOW work_mem', 'RESET work_mem', 'SHOW work_mem' ]);
same('SET to the default', [ "SET work_mem = '7MB'", 'SET work_mem TO DEFAULT', 'SHOW work_mem', "SET work_mem = '4MB'", 'SHOW work_mem' ]);
same('SET in a transaction', [ 'BEGIN', "SET work_mem = '7MB'", 'SHOW work_mem', 'COMMIT', 'SHOW work_mem', 'BEGIN', "SET work_mem = '8MB'", 'ROLLBACK', 'SHOW work_mem' ]);
same('SET LOCAL', [ 'BEGIN', "SET LOCAL work_mem = '7MB'", 'SHOW work_mem', 'COMMIT', 'SHOW work_mem', "SET work_mem = '9MB'", 'BEGIN', "SET LOCAL work_mem = '7MB'", 'COMMIT', 'SHOW work_mem', "SET LOCAL work_mem = '1MB'", 'SHOW work_mem' ]);
same('SET, then SET LOCAL', [ 'BEGIN', "SET work_mem = '6MB'", "SET LOCAL work_mem = '7MB'", 'SHOW work_mem', 'COMMIT', 'SHOW work_mem' ]);
same('SET LOCAL, then SET', [ 'BEGIN', "SET LOCAL work_mem = '6MB'", "SET work_mem = '7MB'", 'SHOW work_mem', 'COMMIT', 'SHOW work_mem' ]);
same('savepoints', [ 'BEGIN', "SET work_mem = '6MB'", 'SAVEPOINT s', "SET work_mem = '7MB'", 'ROLLBACK TO s', 'SHOW work_mem', 'SAVEPOINT t', "SET LOCAL maintenance_work_mem = '7MB'", 'RELEASE t', 'SHOW maintenance_work_mem', 'COMMIT', 'SHOW work_mem', 'SHOW maintenance_work_mem' ]);
same('an aborted transaction', [ "SET work_mem = '6MB'", 'BEGIN', "SET work_mem = '7MB'", 'SELECT 1/0', 'SHOW work_mem', 'ROLLBACK', 'SHOW work_mem' ]);
same('a string of statements', [ "SET work_mem = '6MB'; SHOW work_mem; SET LOCAL work_mem = '7MB'; SHOW work_mem", 'SHOW work_mem', "SET work_mem = '8MB'; SELECT 1/0", 'SHOW work_mem', "BEGIN; SET work_mem = '9MB'; COMMIT; SET work_mem = '10MB'; SELECT 1/0", 'SHOW work_mem' ]);
same('set_config', [ q{SELECT set_config('work_mem', '7MB', false)}, 'SHOW work_mem', q{SELECT set_config('work_mem', '8MB', true)}, 'SHOW work_mem', q{SELECT set_config('work_mem', NULL, false)}, 'SHOW work_mem', q{SELECT set_config(NULL, 'x', false)} ]);
same('pg_settings', [ q{UPDATE pg_settings SET setting = '5000' WHERE name = 'work_mem'}, 'SHOW work_mem' ]);
same('DO', [ q{DO $$BEGIN SET work_mem = '7MB'; SET LOCAL maintenance_work_mem = '8MB'; END$$}, 'SHOW work_mem', 'SHOW maintenance_work_mem' ]);
same('dynamic SQL', [ q{SELECT run('SET work_mem = ''7MB''')}, 'SHOW work_mem', q{SELECT run('SET LOCAL work_mem = ''8MB''')}, 'SHOW work_mem', q{SELECT run('RESET work_mem')}, 'SHOW work_mem' ]);
same('an exception undoes', [ q{SELECT try('SET work_mem = ''7MB''')}, 'SHOW work_mem' ]);
same('a procedure with transactions of its own', [ q{DO $$BEGIN SET work_mem = '6MB'; COMMIT; SET work_mem = '7MB'; ROLLBACK; SET LOCAL maintenance_work_mem = '9MB'; END$$}, 'SHOW work_mem', 'SHOW maintenance_work_mem' ]);
same('a function with SET', [ "SET work_mem = '7MB'", q{SET app.tenant = 'blue'}, q{SELECT shown('work_mem'), shown('app.tenant')}, q{SELECT current_setting('work_mem'), current_setting('app.tenant', true)} ]);
same('SET in a function with SET', [ q{SELECT sets_it('SET work_mem = ''7MB''')}, 'SHOW work_mem', q{SELECT sets_it('SET LOCAL work_mem = ''7MB''')}, 'SHOW work_mem', q{SELECT sets_it('SET maintenance_work_mem = ''7MB''')}, 'SHOW maintenance_work_mem' ]);
same('SET FROM CURRENT', [ "SET work_mem = '7MB'", 'CREATE OR REPLACE FUNCTION from_current() RETURNS text LANGUAGE sql SET work_mem FROM CURRENT AS $$SELECT current_setting(\'work_mem\')$$', 'RESET work_mem', 'SELECT from_current()', 'SHOW work_mem' ]);
same('RESET ALL', [ "SET work_mem = '7MB'", q{SET app.tenant = 'blue'}, 'SET ROLE visitor', 'RESET ALL', 'SHOW work_mem', q{SELECT current_setting('app.tenant', true)}, 'SELECT current_user' ]);
same('DISCARD ALL', [ "SET work_mem = '7MB'", q{SET app.tenant = 'blue'}, 'SET ROLE visitor', 'DISCARD ALL', 'SHOW work_mem', q{SELECT current_setting('app.tenant', true)}, 'SELECT current_user' ]);
same('errors', [ "SET work_mem = 'x'", 'SET nosuch = 1', "SET \"app.ta nt\" = 1", 'SET app.1x = 1', 'SET port = 1', 'SHOW nosuch', "SET TimeZone = 'Nowhere'", 'SET max_connections = 5', 'RESET nosuch', q{SET search_path = ''}, 'SHOW search_path', 'SET in_hot_standby = on', 'SET log_connections = on', 'SET ignore_system_indexes = on' ]);
same('kinds of values', [ 'SET enable_seqscan = off', 'SET statement_timeout = 61000', 'SET vacuum_cost_delay = 1.25', 'SET jit_above_cost = 1e5', "SET wal_compression = 'on'", 'SET synchronous_commit = remote_apply', "SET xmlbinary = 'hex'", 'SET lock_timeout = \'1h\'', "SET log_min_duration_statement = -1", "SET constraint_exclusion = 'off'", "SET effective_cache_size = '1GB'", "SET temp_file_limit = '1TB'", 'SET backend_flush_after = 3', 'SET default_statistics_target = 77', "SET lc_monetary = 'C'", 'SET timezone_abbreviations = \'India\'', "SET log_min_messages = 'debug1'", "SET session_replication_role = 'replica'", 'SELECT name, setting FROM pg_settings WHERE source = \'session\' ORDER BY name' ]);
same('numbers with all their digits', [ 'SET random_page_cost = 1.1000000000000001', 'SET seq_page_cost = 0.30000000000000004', 'SET cpu_tuple_cost = 1e-300', 'SET cursor_tuple_fraction = 0.1234567890123456789', 'SHOW random_page_cost', 'SHOW seq_page_cost', 'SHOW cpu_tuple_cost', 'EXPLAIN SELECT * FROM item WHERE id = 1', 'SHOW cursor_tuple_fraction', 'SET geqo_seed = 0.333333333333333333', 'SHOW geqo_seed' ]);
same('lists and quotes', [ q{SET search_path = "Odd, name", public, "$user", "with ""quotes"""}, 'SHOW search_path', 'SELECT current_schemas(true)', q{SET search_path TO 'a, b', 'c'}, 'SHOW search_path', q{SELECT set_config('search_path', 'pg_catalog,"Odd, name"', false)}, 'SELECT current_schemas(false)', 'SELECT to_regclass(\'item\')', q{SET DateStyle = 'SQL, DMY'}, 'SELECT DATE \'2020-12-31\'', 'SET DateStyle = ISO', 'SHOW DateStyle', q{SET debug_print_plan = 'tru'}, 'SHOW debug_print_plan' ]);
same('time zones', [ map { ($_, 'SHOW TimeZone', q{SELECT TIMESTAMPTZ '2020-01-01 00:00:00+00', TIMESTAMPTZ '2020-07-01 00:00:00+00'}) } "SET TimeZone = 'Asia/Tokyo'", 'SET TIME ZONE 3', 'SET TIME ZONE -7.5', q{SET TIME ZONE INTERVAL '-03:30' HOUR TO MINUTE}, "SET TimeZone = 'EST5EDT'", "SET TimeZone = '<+0330>-3:30'", 'SET TIME ZONE LOCAL', "SET TimeZone = 'utc'", 'SET TIME ZONE DEFAULT', q{SELECT set_config('TimeZone', 'INTERVAL ''+02:00''', false)} ]);
same('encodings', [ map { ($_, 'SHOW client_encoding', "SELECT length('\xc3\xa4'), chr(228)") } q{SET client_encoding = 'LATIN1'}, q{SET NAMES 'UTF8'}, q{SET client_encoding TO 'SJIS'}, 'SET NAMES DEFAULT', q{SET client_encoding = 'SQL_ASCII'}, q{SET client_encoding = 'nosuch'}, 'RESET client_encoding' ]);
same('reports', [ "SET TimeZone = 'Asia/Tokyo'", "SET application_name = 'x'", 'BEGIN', "SET TimeZone = 'Asia/Seoul'", 'ROLLBACK', "SET IntervalStyle = 'sql_standard'", "SET default_transaction_read_only = on", 'SELECT 1', 'SELECT 2', 'RESET ALL', 'SELECT 3' ]);
same('transactions', [ 'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE', 'SHOW transaction_isolation', 'CREATE TABLE nothing ()', 'BEGIN', 'SHOW transaction_read_only', 'SHOW transaction_deferrable', 'COMMIT', 'BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE', 'SHOW transaction_isolation', 'COMMIT', 'SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE', 'SHOW transaction_read_only', 'SET default_transaction_isolation = DEFAULT', 'SHOW transaction_isolation', 'SET transaction_isolation = serializable', 'SHOW transaction_isolation', 'SET TRANSACTION READ ONLY', 'SHOW transaction_read_only' ]);
same('what excludes each other', [ 'SET log_parser_stats = on', 'SET log_statement_stats = on', 'SET log_parser_stats = off', 'SET log_statement_stats = on', 'SET log_executor_stats = on', 'SHOW log_statement_stats', 'SET log_statement_stats = off', 'SET log_executor_stats = on', 'SHOW log_executor_stats' ]);
same('timeouts', [ "SET statement_timeout = '50ms'", 'SELECT pg_sleep(20)', 'SELECT 1', 'BEGIN', 'SELECT pg_sleep(20)', 'ROLLBACK', 'SET statement_timeout = 0', 'SELECT pg_sleep(0.06)', "SET lock_timeout = '30ms'", 'SHOW lock_timeout' ]);
same('many at once', [ (map { "SET app.x$_ = 'value $_'" } 1 .. 60), (map { "SHOW app.x$_" } 1, 30, 60), 'RESET app.x30', 'SHOW app.x30', 'RESET ALL', 'SHOW app.x60' ], only => 'simple');
same('a long value', [ q{SELECT length(set_config('app.long', repeat('x', 100000), false))}, q{SELECT length(current_setting('app.long'))}, q{SELECT md5(current_setting('app.long'))} ]);

# ----------------------------------------------------------------------------- start-up settings, role, database

same('start-up options', [ 'SHOW work_mem', 'SHOW search_path', "SET work_mem = '12MB'", 'SHOW work_mem', 'RESET work_mem', 'SHOW work_mem', 'SHOW TimeZone', q{SELECT current_setting('app.tenant', true)}, q{SET app.tenant = 'red'}, q{SELECT current_setting('app.tenant', true)}, 'RESET app.tenant', q{SELECT current_setting('app.tenant', true)}, 'DISCARD ALL', 'SHOW work_mem', q{SELECT current_setting('app.tenant', true)}, 'SHOW application_name', "SET application_name = 'y'", 'RESET application_name', 'SHOW application_name' ],
	parameters => { options => '-c work_mem=11MB -c app.tenant=green --search-path=aside', TimeZone => 'Asia/Tokyo', application_name => 'x', client_encoding => 'LATIN1' });
same('start-up options for the transaction', [ 'SHOW default_transaction_isolation', 'SHOW transaction_isolation', 'SHOW geqo', 'SHOW statement_timeout', 'SET statement_timeout = 0', 'SHOW statement_timeout', 'RESET ALL', 'SHOW statement_timeout' ],
	parameters => { options => '-c default_transaction_isolation=repeatable\\ read -c geqo=off', statement_timeout => '5min' });
same('settings of role and database', [ 'SHOW work_mem', 'SHOW maintenance_work_mem', 'SHOW search_path', q{SELECT current_setting('app.user_id', true), current_setting('app.of_database', true)}, q{SELECT count(*) FROM secured}, "SET work_mem = '1MB'", q{SET app.user_id = '2'}, q{SET app.of_database = 'mine'}, q{SELECT count(*) FROM secured}, q{SELECT current_setting('app.of_database')}, 'RESET ALL', 'SHOW work_mem', q{SELECT current_setting('app.user_id'), current_setting('app.of_database')}, 'SET work_mem TO DEFAULT', 'SHOW work_mem' ], user => 'tuned');

# ----------------------------------------------------------------------------- names made up

same('a name nobody has used', [ q{SELECT current_setting('never.used', true)}, q{SELECT current_setting('never.used', true) IS NULL}, 'SHOW never.used', q{SELECT current_setting('app.user_id', true) IS NULL, current_setting('other.only_1', true) IS NULL}, 'SHOW app.tenant', 'SHOW other.only_2' ]);
same('SET of a name', [ q{SET app.tenant = 'blue'}, 'SHOW app.tenant', 'SHOW APP.Tenant', q{SELECT current_setting('app.user_id', true) IS NULL}, 'RESET app.tenant', q{SELECT current_setting('app.tenant', true) IS NULL}, 'SHOW app.tenant', q{SET app.tenant TO DEFAULT}, 'SHOW app.tenant' ]);
same('SET LOCAL of a name', [ 'BEGIN', q{SET LOCAL app.tenant = 'blue'}, 'SHOW app.tenant', 'COMMIT', q{SELECT current_setting('app.tenant', true) IS NULL, current_setting('app.tenant', true)}, 'SHOW app.tenant', q{SET app.tenant = 'red'}, 'SHOW app.tenant' ]);
same('set_config of a name', [ q{SELECT set_config('app.tenant', 'blue', true)}, q{SELECT current_setting('app.tenant', true) IS NULL}, q{SELECT set_config('app.tenant', 'blue', false)}, 'SHOW app.tenant', q{SELECT set_config('app.tenant', NULL, false)}, 'SHOW app.tenant' ]);
same('a name rolled back', [ 'BEGIN', q{SET app.tenant = 'blue'}, 'ROLLBACK', q{SELECT current_setting('app.tenant', true) IS NULL}, 'SHOW app.tenant' ]);
same('a name set to nothing', [ q{SET app.tenant = ''}, 'SHOW app.tenant', q{SELECT current_setting('app.tenant') = ''}, q{SET app.user_id TO DEFAULT}, q{SELECT current_setting('app.user_id', true) IS NULL} ]);
same('RESET of a name never set', [ 'RESET app.tenant', q{SELECT current_setting('app.tenant', true) IS NULL}, 'SET app.tenant TO DEFAULT', q{SELECT current_setting('app.tenant', true) IS NULL} ]);
same('names that look alike', [ q{SET app.tenant = 'a'}, q{SET app.tenant_id = 'b'}, q{SET app.tenan = 'c'}, q{SET ap.p = 'd'}, q{SET "App.Tenant2" = 'e'}, q{SET app."tenant$" = 'f'}, q{SET a.b.c = 'g'}, map { "SHOW $_" } 'app.tenant', 'app.tenant_id', 'app.tenan', 'ap.p', 'app.tenant2', 'app."tenant$"', 'a.b.c' ]);
same('row-level security', [ 'SELECT count(*) FROM secured', q{SET app.user_id = '1'}, 'SELECT array_agg(id) FROM secured', q{SET app.user_id = '2'}, 'SELECT array_agg(id) FROM secured', 'BEGIN', q{SET LOCAL app.user_id = '0'}, 'SELECT array_agg(id) FROM secured', 'COMMIT', 'SELECT array_agg(id) FROM secured', q{SET app.user_id = ''}, 'SELECT array_agg(id) FROM secured' ], user => 'plain');
same('row-level security with a prepared statement', [ \(RawClient::parse('s', 'SELECT array_agg(id) FROM secured') . RawClient::sync()), q{SET app.user_id = '1'}, (map { \(RawClient::bind('', 's', []) . RawClient::execute('') . RawClient::sync()), "SET app.user_id = '$_'" } 2, 0, 1), 'SET row_security = off', \(RawClient::bind('', 's', []) . RawClient::execute('') . RawClient::sync()) ], user => 'plain');
{
	my @clients = map { $server->pool_raw(user => 'plain') } 0 .. 2;
	$clients[$_]->sql("SET app.user_id = '$_'") foreach 0 .. 2;
	my $wrong = 0;
	foreach (1 .. 20)
	{
		foreach my $i (0 .. 2)
		{
			my ($row) = $clients[$i]->sql(q{SELECT current_setting('app.user_id'), count(*), min(owner), max(owner) FROM secured});
			$wrong++ unless "@$row" eq "$i 3 $i $i";
		}
	}
	is($wrong, 0, 'three clients with the same name see three different things');
	my $fourth = $server->pool_raw(user => 'plain');
	is(scalar $fourth->sql(q{SELECT current_setting('app.user_id', true) IS NULL}), 't', 'and a fourth has no such name') for 1 .. 2;
	$_->close foreach @clients, $fourth;
}

# ----------------------------------------------------------------------------- roles

same('SET ROLE', [ 'SET ROLE visitor', 'SELECT current_user, session_user', 'SHOW role', 'SHOW is_superuser', 'SET ROLE NONE', 'SELECT current_user', 'SHOW role', 'SET ROLE visitor', 'RESET ROLE', 'SELECT current_user' ]);
same('SET LOCAL ROLE', [ 'BEGIN', 'SET LOCAL ROLE visitor', 'SELECT current_user', 'COMMIT', 'SELECT current_user', 'SET ROLE visitor', 'BEGIN', 'SET LOCAL ROLE NONE', 'SELECT current_user', 'COMMIT', 'SELECT current_user', 'BEGIN', 'SET LOCAL ROLE plain', 'ROLLBACK', 'SELECT current_user' ]);
same('SET SESSION AUTHORIZATION', [ 'SET SESSION AUTHORIZATION visitor', 'SELECT current_user, session_user', 'SHOW is_superuser', 'SHOW session_authorization', "SET SESSION AUTHORIZATION $me", 'SELECT session_user', 'SET SESSION AUTHORIZATION plain', 'SET ROLE plain', 'SET ROLE visitor', 'RESET SESSION AUTHORIZATION', 'SELECT session_user, current_user' ]);
same('both', [ 'SET SESSION AUTHORIZATION member', 'SET ROLE visitor', 'SELECT current_user, session_user', 'SET SESSION AUTHORIZATION plain', 'SELECT current_user, session_user', 'RESET SESSION AUTHORIZATION', 'SELECT current_user, session_user', 'SET ROLE plain', 'SET SESSION AUTHORIZATION member', 'SELECT current_user, session_user', 'SHOW role', 'RESET ROLE', 'SELECT current_user', 'SET SESSION AUTHORIZATION DEFAULT', 'SELECT current_user' ]);
same('local session authorization', [ 'BEGIN', 'SET LOCAL SESSION AUTHORIZATION plain', 'SELECT session_user', 'COMMIT', 'SELECT session_user', 'SET SESSION AUTHORIZATION member', 'BEGIN', 'SET LOCAL SESSION AUTHORIZATION DEFAULT', 'SELECT session_user', 'COMMIT', 'SELECT session_user', 'SHOW is_superuser' ]);
same('role as a setting', [ q{SELECT set_config('role', 'visitor', false)}, 'SELECT current_user', q{SELECT set_config('role', 'none', true)}, 'SELECT current_user', q{SELECT set_config('session_authorization', 'plain', false)}, 'SELECT session_user' ]);
same('roles of an ordinary client', [ 'SET ROLE visitor', 'SELECT current_user', 'SET ROLE plain', 'SELECT current_user', 'SET SESSION AUTHORIZATION visitor', 'RESET ROLE', 'SELECT current_user', 'SHOW is_superuser', 'SELECT count(*) FROM secured', q{SET ROLE visitor}, q{SET app.user_id = '2'}, 'SELECT count(*) FROM secured' ], user => 'member');
same('a role that is dropped', [ 'SET ROLE passing', 'SELECT current_user', sub { $server->sql('DROP ROLE passing') }, 'SHOW role', 'SELECT current_user', 'SELECT count(*) FROM item', 'RESET ROLE', 'SELECT current_user', 'SET ROLE passing' ],
	setup => 'CREATE ROLE passing', cleanup => 'DROP ROLE IF EXISTS passing', mask => sub { s/(role with OID|invalid role OID:) \d+/$1 (some)/g });
same('a role that is renamed', [ 'SET ROLE passing', sub { $server->sql('ALTER ROLE passing RENAME TO renamed') }, 'SELECT current_user', 'SHOW role', 'SET ROLE passing', 'SELECT current_user', 'SET ROLE renamed', 'SHOW role' ],
	setup => 'CREATE ROLE passing', cleanup => 'DROP ROLE renamed');
same('a role that is taken away', [ 'SET ROLE passing', 'SELECT current_user', sub { $server->sql('REVOKE passing FROM plain') }, 'SELECT current_user', 'SELECT count(*) FROM item', 'BEGIN', 'SET LOCAL ROLE NONE', 'SELECT current_user', 'ROLLBACK', 'SELECT current_user', 'RESET ROLE', 'SET ROLE passing', 'SELECT current_user' ],
	setup => 'CREATE ROLE passing; GRANT passing TO plain', cleanup => 'DROP ROLE passing', user => 'plain');
same('a role that becomes superuser, and the other way', [ 'SET SESSION AUTHORIZATION passing', 'SHOW is_superuser', sub { $server->sql('ALTER ROLE passing SUPERUSER') }, 'SHOW is_superuser', 'SET ROLE visitor', 'SELECT current_user', 'RESET ROLE', 'SELECT rolsuper FROM pg_roles WHERE rolname = current_user', 'SET log_statement = \'all\'', sub { $server->sql('ALTER ROLE passing NOSUPERUSER') }, "SET log_statement = 'ddl'", 'SHOW log_statement' ],
	setup => 'CREATE ROLE passing', cleanup => 'DROP ROLE passing');
same('what only a superuser may set', [ "SET log_min_duration_statement = '10min'", "SET session_replication_role = 'replica'", 'SET ROLE plain', 'SHOW log_min_duration_statement', 'SHOW session_replication_role', "SET log_min_duration_statement = 5", 'RESET log_min_duration_statement', 'SHOW log_min_duration_statement', "SET work_mem = '6MB'", 'RESET ROLE', 'SHOW log_min_duration_statement', 'RESET ALL', 'SHOW log_min_duration_statement' ]);
same('an ordinary client and such settings', [ 'SET log_min_duration_statement = 5', 'SHOW log_min_duration_statement', "SET session_replication_role = 'replica'", "SET log_statement = 'all'" ], user => 'plain');
same('a parameter that is granted, and taken away', [ "SET log_min_duration_statement = '10min'", 'SHOW log_min_duration_statement', sub { $server->sql('REVOKE SET ON PARAMETER log_min_duration_statement FROM plain') }, 'SHOW log_min_duration_statement', "SET log_min_duration_statement = '11min'", 'SHOW log_min_duration_statement', 'RESET log_min_duration_statement', 'SHOW log_min_duration_statement', 'RESET ALL', 'SHOW log_min_duration_statement' ],
	setup => 'GRANT SET ON PARAMETER log_min_duration_statement TO plain', cleanup => 'REVOKE SET ON PARAMETER log_min_duration_statement FROM plain', user => 'plain');

# ----------------------------------------------------------------------------- what settings refer to disappears

same('a text search configuration', [ "SET default_text_search_config = 'passing'", q{SELECT to_tsvector('some words')}, sub { $server->sql('DROP TEXT SEARCH CONFIGURATION passing') }, 'SHOW default_text_search_config', q{SELECT to_tsvector('some words')}, 'SELECT 1', "SET default_text_search_config = 'passing'", 'SHOW default_text_search_config', 'RESET default_text_search_config', q{SELECT to_tsvector('some words')} ],
	setup => 'CREATE TEXT SEARCH CONFIGURATION passing (COPY = english)', cleanup => 'DROP TEXT SEARCH CONFIGURATION IF EXISTS passing');
same('a schema', [ 'SET search_path = passing, public', 'SELECT * FROM inside', sub { $server->sql('DROP SCHEMA passing CASCADE') }, 'SELECT * FROM inside', 'SHOW search_path', 'SELECT current_schema()', sub { $server->sql('CREATE SCHEMA passing; CREATE TABLE passing.inside AS SELECT 2 AS two') }, 'SELECT * FROM inside' ],
	setup => 'CREATE SCHEMA passing; CREATE TABLE passing.inside AS SELECT 1 AS one', cleanup => 'DROP SCHEMA passing CASCADE');
same('tablespaces', [ 'SET default_tablespace = passing', 'SET temp_tablespaces = passing', sub { $server->sql('DROP TABLESPACE passing') }, 'SHOW default_tablespace', 'SHOW temp_tablespaces', 'CREATE TABLE placed (id int)', 'DROP TABLE placed', 'SELECT count(*) FROM (SELECT i FROM generate_series(1, 100000) i ORDER BY i DESC) s', "SET work_mem = '64kB'", 'SELECT count(*) FROM (SELECT i FROM generate_series(1, 100000) i ORDER BY i DESC) s', 'SET default_tablespace = passing' ],
	setup => q{SET allow_in_place_tablespaces = on; CREATE TABLESPACE passing LOCATION ''}, cleanup => 'DROP TABLE IF EXISTS placed');
same('a table access method', [ 'SET default_table_access_method = passing', 'CREATE TABLE placed (id int)', 'DROP TABLE placed', sub { $server->sql('DROP ACCESS METHOD passing') }, 'CREATE TABLE placed (id int)', 'SHOW default_table_access_method', 'SET default_table_access_method = passing', 'RESET default_table_access_method', 'CREATE TABLE placed (id int)' ],
	setup => 'CREATE ACCESS METHOD passing TYPE TABLE HANDLER heap_tableam_handler', cleanup => 'DROP TABLE IF EXISTS placed');
same('an encoding conversion', [ q{SET client_encoding = 'LATIN1'}, "SELECT 'a'", q{SELECT chr(8364)}, 'SELECT 1' ]);

# ----------------------------------------------------------------------------- settings of libraries

same('plpgsql', [ 'SET plpgsql.check_asserts = off', q{DO $$BEGIN ASSERT false; END$$}, 'SHOW plpgsql.check_asserts', q{DO $$BEGIN ASSERT false; END$$}, 'RESET plpgsql.check_asserts', q{DO $$BEGIN ASSERT false; END$$} ], only => 'simple');
same('plpgsql, after its first use', [ q{DO $$BEGIN NULL; END$$}, q{SET plpgsql.check_asserts = off}, q{DO $$BEGIN ASSERT false; END$$}, q{DO $$BEGIN ASSERT false; END$$} ], only => 'simple');
same('parallel workers', [ 'SET min_parallel_table_scan_size = 0', 'SET parallel_setup_cost = 0', 'SET parallel_tuple_cost = 0', q{SET app.user_id = 'x'},
	q{SELECT count(*), min(current_setting('app.user_id')), count(current_setting('other.only_1', true)), min(current_user::text) FROM item}, 'SET ROLE visitor',
	q{SELECT count(*), min(current_setting('app.user_id')), min(current_user::text), min(current_setting('search_path')) FROM item} ]);
same('LOAD', [ q{SET auto_explain.log_min_duration = 5}, q{LOAD 'auto_explain'}, 'SHOW auto_explain.log_min_duration', q{SET auto_explain.log_min_duration = '10min'}, 'SHOW auto_explain.log_min_duration', 'SET auto_explain.nosuch = 1', 'RESET ALL', 'SHOW auto_explain.log_min_duration', 'DISCARD ALL', 'SHOW auto_explain.log_min_duration' ]);
$pair->calm;

# A library that every session has.
$server->sql('CREATE DATABASE explained');
$server->sql(q{ALTER DATABASE explained SET session_preload_libraries = 'auto_explain'});
$pair->same('session_preload_libraries', [ 'SHOW auto_explain.log_min_duration', q{SET auto_explain.log_min_duration = '10min'}, 'SHOW auto_explain.log_min_duration', 'SET ROLE visitor', 'SHOW auto_explain.log_min_duration', 'SET auto_explain.log_min_duration = 1', 'RESET ROLE', 'RESET auto_explain.log_min_duration', 'SHOW auto_explain.log_min_duration', 'SET auto_explain.nosuch = 1' ], dbname => 'explained');
$pair->calm;

# ----------------------------------------------------------------------------- names that libraries claim

# A name that a client has made up may turn out to be a library's on the next backend.  It counts for no more than if
# that library came to the backend where it was set.
{
	$server->sql('CREATE DATABASE claimed');
	$server->sql('CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql AS $$DECLARE id int; BEGIN SELECT id INTO id FROM (SELECT 1 AS id) s; RETURN id; END$$', dbname => 'claimed');
	$server->sql(q{CREATE ROLE claimant LOGIN});
	foreach my $how ('invalid', 'unknown', 'forbidden')
	{
		# The library is in one of two backends.
		my @holders = map { $server->pool_raw(dbname => 'claimed', user => 'claimant') } 1 .. 2;
		$_->sql('BEGIN') foreach @holders;
		$holders[0]->sql('DO $$BEGIN NULL; END$$');
		my $loaded = scalar $holders[0]->sql('SELECT pg_backend_pid()');
		my $claimant = $server->pool_raw(dbname => 'claimed', user => 'claimant');
		$holders[1]->sql('COMMIT');
		my $sql = { invalid => q{SET plpgsql.check_asserts = 'banana'}, unknown => 'SET plpgsql.nosuch = 1',
			forbidden => q{SET plpgsql.variable_conflict = 'use_variable'} }->{$how};
		my @messages = $claimant->exchange(RawClient::query($sql));
		my $accepted = !grep { $_->{type} eq 'E' } @messages;
		$holders[0]->sql('COMMIT');
		ok($accepted, "a name that is $how for a library is accepted where it is not loaded");
		# The next transaction is the one on the backend that has it.
		my $pid = $claimant->sql('SELECT pg_backend_pid() FROM (SELECT 1) s') if $how ne 'forbidden';
		is($pid, $loaded, 'and does not end the client where it is') if $how ne 'forbidden';
		my @answers = map { $claimant->sql_error('SELECT f(1)') } 1 .. 4;
		is(scalar(grep { defined $_ && ($_->{M} || '') =~ /ambiguous/ } @answers), 4, 'it does not count for the library');
		$_->close foreach @holders, $claimant;
		$server->sql('SELECT sluice.retire_backends()');
	}
}

# The same at start-up: it does not depend on where the client is served.
foreach my $option ('plpgsql.check_asserts=banana', 'plpgsql.nosuch=1', 'plpgsql.variable_conflict=use_variable', 'app.1x=1', 'app.tenant=blue',
	'plpgsql.check_asserts=off')
{
	my $prepared = $server->pool_raw(dbname => 'claimed', user => 'claimant');
	$prepared->sql('DO $$BEGIN NULL; END$$') foreach 1 .. 2;
	my @outcomes;
	foreach my $method ('raw', 'pool_raw')
	{
		my $client = eval { $server->$method(dbname => 'claimed', user => 'claimant', parameters => { options => "-c $option" }) };
		push @outcomes, defined $client ? join ' ', map { scalar $client->sql(q{SELECT coalesce(current_setting('app.tenant', true), 'none')}) } 1 .. 3 : $@;
		if (defined $client)
		{
			my $error = $client->sql_error('DO $$BEGIN ASSERT false; END$$') || {};
			$outcomes[-1] .= ': ' . ($error->{M} || 'none');
			$error = $client->sql_error('SELECT f(1)') || {};
			$outcomes[-1] .= ', ' . ($error->{M} || 'none');
		}
	}
	is($outcomes[1], $outcomes[0], "start-up option $option");
}

# ----------------------------------------------------------------------------- buffers for temporary tables

{
	$server->sql('CREATE DATABASE buffers');
	my @holders = map { $server->pool_raw(dbname => 'buffers') } 1 .. 2;
	$_->sql('BEGIN') foreach @holders;
	$_->sql('CREATE TEMP TABLE own ON COMMIT DROP AS SELECT 1 AS id') foreach @holders;
	$_->sql('COMMIT') foreach @holders;
	# Its own session has not used any yet.
	$pair->same('temp_buffers', [ 'SET temp_buffers = 200', 'SHOW temp_buffers', 'SHOW temp_buffers', 'SHOW temp_buffers', 'CREATE TEMP TABLE mine AS SELECT i FROM generate_series(1, 100000) i',
		'SELECT count(*) FROM mine', 'SET temp_buffers = 300', 'DROP TABLE mine', 'SHOW temp_buffers' ], dbname => 'buffers');
	$_->close foreach @holders;
	$pair->calm;
}

# ----------------------------------------------------------------------------- the configuration is loaded again

sub reload
{
	my ($line) = @_;
	$server->node->append_conf('postgresql.conf', "$line\n");
	my ($name) = $line =~ /^(\S+)/;
	$server->sql('SELECT pg_reload_conf()');
	my ($expected) = $line =~ /= '?([^']*)'?$/;
	$server->wait_until("SHOW $name", $expected);
	# All backends have heard of it.
	my $probe = $server->pool_raw;
	my $same = 0;
	foreach (1 .. 1000)
	{
		$same = $probe->sql("SHOW $name") eq $expected ? $same + 1 : 0;
		last if $same >= 4;
		select(undef, undef, undef, 0.01);
	}
	$probe->close;
	return;
}

$pair->calm;
$server->sql(q{SELECT pg_reload_conf()});
my $number = 20;
foreach my $case ([ 'a setting of the session stays', "SET work_mem = '7MB'" ], [ 'one of the file changes', "SET enable_seqscan = off" ], [ 'one of the session lies above', 'SET work_mem TO DEFAULT' ])
{
	my ($name, $set) = @$case;
	# Both holdings must find the same file.
	same("reload: $name", [ $set, 'SHOW work_mem', 'SHOW maintenance_work_mem', sub { reload('work_mem = \'5MB\'') }, 'SHOW work_mem', 'SHOW work_mem', 'RESET work_mem', 'SHOW work_mem', sub { reload('work_mem = \'4MB\'') }, 'SHOW work_mem' ],
		only => 'simple', parameters => { application_name => 'reloaded', options => '-c geqo_threshold=13' }, mask => sub { s/\|\d+\|/|(line)|/ if /postgresql\.conf/ });
}

# ----------------------------------------------------------------------------- idle_session_timeout

{
	my $client = $server->pool_raw;
	my $other = $server->pool_raw;
	$other->sql("SET idle_session_timeout = '100ms'; SET idle_session_timeout = 0");
	$client->sql("SET idle_session_timeout = '200ms'");
	my @messages = $client->read_until('');
	is(join(', ', map { RawClient::describe($_) } @messages), 'ErrorResponse C=57P05; M=terminating connection due to idle-session timeout; S=FATAL; V=FATAL, EOF',
		'idle_session_timeout of the session ends a client without a backend');
	is(scalar $other->sql('SELECT 1'), '1', 'and nobody else');
	$other->close;
}

# Nothing went wrong behind the scenes.
unlike($server->log_since(0), qr/PANIC|terminated by signal|could not restore parameter|invalid memory/, 'the log has nothing about crashes');

$server->stop;
done_testing();
