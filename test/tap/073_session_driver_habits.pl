# SPDX-License-Identifier: PostgreSQL
#
# What drivers and frameworks send without being asked: statements they prepare
# and believe to be there, pipelines, and the strings they clean a session with.
# Each transaction has another backend, and the answers are those of a direct
# connection, message by message.

use strict;
use warnings;

use ForcedSwitch;
use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;

my $pair = ForcedSwitch->new('main', disturb => [
	"PREPARE a1 AS SELECT 'other %d'", "PREPARE \"S_1\" AS SELECT 'other %d'", "SET TimeZone = 'Asia/Tokyo'", "SET extra_float_digits = -%d",
	"SET application_name = 'other %d'", "SET client_min_messages = 'error'", "SELECT nextval('ids')", "SET search_path = 'other %d', public",
	"SET app.current = 'other %d'", "SET standard_conforming_strings = off", "SET bytea_output = 'escape'" ]);
my $server = $pair->server;
$server->sql($_) foreach 'CREATE SEQUENCE ids',
  q{CREATE TABLE item (id serial PRIMARY KEY, word text, amount numeric, at timestamptz DEFAULT '2020-01-01 00:00:00+00', bytes bytea, list int[])},
  q{INSERT INTO item (word, amount, bytes, list) SELECT 'word ' || i, i * 1.25, decode(lpad(to_hex(i), 4, '0'), 'hex'), ARRAY[i, i + 1] FROM generate_series(1, 20) i};

sub P { return RawClient::parse(@_) }
sub B { return RawClient::bind(@_) }
sub DS { return RawClient::describe_statement(@_) }
sub DP { return RawClient::describe_portal(@_) }
sub E { return RawClient::execute(@_) }
sub CS { return RawClient::close_statement(@_) }
sub CP { return RawClient::close_portal(@_) }
sub H { return RawClient::flush() }
sub S { return RawClient::sync() }
sub Q { return RawClient::query(@_) }
sub F { return RawClient::function_call(@_) }

# Bytes of one step.
sub step { my $bytes = join '', @_; return \$bytes }
sub int4 { return pack 'N', $_[0] }

sub same { my ($name, $steps, %option) = @_; return $pair->same($name, $steps, only => 'simple', %option) }

{
	my $client = $server->pool_raw;
	isnt(scalar $client->sql('SELECT pg_backend_pid()'), scalar $client->sql('SELECT pg_backend_pid()'),
		'each transaction is executed on another backend');
	$client->close;
}

# ----------------------------------------------------------------------------- asyncpg: named statements, introspection, reset

my $asyncpg_reset = 'SELECT pg_advisory_unlock_all();
CLOSE ALL;
UNLISTEN *;
RESET ALL;';
my @binary = (parameter_formats => [1], result_formats => [1]);
same('asyncpg', [
	step(P('__asyncpg_stmt_1__', 'SELECT id, word, amount, at, bytes, list FROM item WHERE id = $1'), DS('__asyncpg_stmt_1__'), H(), S()),
	step(B('', '__asyncpg_stmt_1__', [ int4(3) ], @binary), E(''), S()),
	step(B('', '__asyncpg_stmt_1__', [ int4(4) ], @binary), E(''), S()),
	"SET TimeZone = 'Europe/Paris'", 'BEGIN', 'SET LOCAL work_mem = 100', 'LISTEN channel', 'SELECT pg_advisory_lock(1)', 'COMMIT',
	$asyncpg_reset, 'SHOW TimeZone', q{SELECT count(*) FROM pg_listening_channels()}, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()},
	step(B('', '__asyncpg_stmt_1__', [ int4(5) ], @binary), E(''), S()),
	$asyncpg_reset, $asyncpg_reset,
	step(CS('__asyncpg_stmt_1__'), S()), step(B('', '__asyncpg_stmt_1__', [ int4(5) ], @binary), E(''), S()),
	# A cursor, as "async for" uses it.
	'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;', step(P('__asyncpg_stmt_2__', 'SELECT id FROM item ORDER BY id'), DS('__asyncpg_stmt_2__'), S()),
	step(B('__asyncpg_portal_1__', '__asyncpg_stmt_2__', [], result_formats => [1]), E('__asyncpg_portal_1__', 5), S()), step(E('__asyncpg_portal_1__', 5), S()),
	step(CP('__asyncpg_portal_1__'), S()), 'COMMIT;', step(B('p', '__asyncpg_stmt_2__', [], result_formats => [1]), E('p', 5), S()), step(E('p', 5), S()) ],
	parameters => { client_encoding => "'utf-8'", application_name => 'asyncpg' });

# ----------------------------------------------------------------------------- PgJDBC

my $jdbc_begin = B('', 'S_0', []) . E('', 0);
same('PgJDBC: prepare threshold', [
	step(P('', 'SET extra_float_digits = 3'), B('', '', []), E('', 1), S()), step(P('', "SET application_name = 'PostgreSQL JDBC Driver'"), B('', '', []), E('', 1), S()),
	(map { step(P('', 'SELECT word, amount::float8 / 3 FROM item WHERE id = $1', 23), B('', '', [$_]), DP(''), E('', 0), S()) } 1 .. 4),
	step(P('S_1', 'SELECT word, amount::float8 / 3 FROM item WHERE id = $1', 23), DS('S_1'), B('', 'S_1', [5]), DP(''), E('', 0), S()),
	(map { step(B('', 'S_1', [ int4($_) ], parameter_formats => [1], result_formats => [ 0, 1 ]), E('', 0), S()) } 6 .. 9),
	# In transactions: BEGIN is a statement of its own in front of the first one.
	step(P('S_0', 'BEGIN'), $jdbc_begin, B('', 'S_1', [ int4(1) ], @binary), E('', 0), S()), step(B('', 'S_1', [ int4(2) ], @binary), E('', 0), S()),
	step(P('S_2', 'COMMIT'), B('', 'S_2', []), E('', 1), S()),
	step($jdbc_begin, P('S_3', 'INSERT INTO item (word) VALUES ($1) RETURNING word', 1043), DS('S_3'), B('', 'S_3', ['made']), E('', 0), S()), step(P('S_4', 'ROLLBACK'), B('', 'S_4', []), E('', 1), S()),
	# Fetch size: portals within a transaction.
	step($jdbc_begin, P('S_5', 'SELECT id FROM item ORDER BY id'), B('C_6', 'S_5', []), DP('C_6'), E('C_6', 3), S()), step(E('C_6', 3), S()), step(E('C_6', 100), S()), step(CP('C_6'), S()),
	step(B('', 'S_2', []), E('', 1), S()), step(E('C_6', 3), S()),
	# A batch, with an error in the middle.
	step($jdbc_begin, (map { B('', 'S_3', ["batch $_"]) . DP('') . E('', 1) } 1 .. 3), S()), step(B('', 'S_4', []), E('', 1), S()),
	step((map { P('', 'SELECT 1 / $1', 23) . B('', '', [$_]) . E('', 1) } 1, 0, 2), S()),
	# Statements that are no longer used are closed in front of the next.
	step(CS('S_1'), CS('S_3'), P('', 'SELECT 1'), B('', '', []), E('', 0), S()), step(B('', 'S_1', [ int4(1) ], @binary), E('', 0), S()),
	step(P('S_1', 'SELECT 2 AS another'), DS('S_1'), B('', 'S_1', []), E('', 0), S()), step(B('', 'S_1', []), E('', 0), S()),
	'SHOW extra_float_digits', 'SHOW application_name', step(P('', 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY'), B('', '', []), E('', 1), S()), 'SHOW default_transaction_read_only', 'SHOW transaction_read_only' ],
	parameters => { client_encoding => 'UTF8', DateStyle => 'ISO', TimeZone => 'Europe/Berlin', extra_float_digits => 2 });
same('PgJDBC: DISCARD ALL and DEALLOCATE ALL behind its back', [
	step(P('S_1', 'SELECT 7'), B('', 'S_1', []), E(''), S()), 'DEALLOCATE ALL', step(B('', 'S_1', []), E(''), S()), step(P('S_1', 'SELECT 8'), B('', 'S_1', []), E(''), S()),
	'DISCARD ALL', step(B('', 'S_1', []), E(''), S()), step(P('S_1', 'SELECT 9'), S()), 'DEALLOCATE "S_1"', step(B('', 'S_1', []), E(''), S()), 'DEALLOCATE "S_1"', 'DEALLOCATE nosuch', 'DEALLOCATE PREPARE ALL' ]);
same('PgJDBC: a changed table', [
	step(P('S_1', 'SELECT * FROM changing'), DS('S_1'), B('', 'S_1', []), E(''), S()), 'ALTER TABLE changing ADD other int',
	# The driver closes the statement and prepares it anew whatever the answer is.
	step(CS('S_1'), S()), step(P('S_2', 'SELECT * FROM changing'), DS('S_2'), B('', 'S_2', []), E(''), S()), step(B('', 'S_2', []), E(''), S()) ],
	setup => 'DROP TABLE IF EXISTS changing; CREATE TABLE changing AS SELECT 1 AS id');

# ----------------------------------------------------------------------------- psycopg 3 and libpq pipelines

same('psycopg: pipelines', [
	step((map { P("_pg3_$_", "SELECT \$1::int + $_") . B('', "_pg3_$_", [$_]) . DP('') . E('') } 0 .. 4), S()),
	step((map { B('', "_pg3_$_", [$_]) . DP('') . E('') } 0 .. 4), S()),
	step(P('', 'INSERT INTO item (word) VALUES ($1) RETURNING word'), (map { B('', '', ["pipe $_"]) . E('') } 1 .. 3), S()),
	# An error aborts what is behind it up to Sync.
	step(B('', '_pg3_0', [1]), E(''), B('', '_pg3_1', ['x']), E(''), P('_pg3_9', 'SELECT 9'), B('', '_pg3_9', []), E(''), S()), step(B('', '_pg3_9', []), E(''), S()),
	step(P('_pg3_8', 'SELECT 8'), P('', 'SELECT 1/0'), B('', '', []), E(''), S()), step(B('', '_pg3_8', []), E(''), S()),
	# Several Syncs in one write; the error of one does not touch the others.
	step(B('', '_pg3_0', [1]), E(''), S(), B('', '_pg3_1', ['x']), E(''), S(), B('', '_pg3_2', [3]), E(''), S(), P('', "SET TimeZone = 'Asia/Seoul'"), B('', '', []), E(''), S(), P('', 'SHOW TimeZone'), B('', '', []), E(''), S()),
	# A transaction within a pipeline.
	step(P('', 'BEGIN'), B('', '', []), E(''), B('', '_pg3_0', [1]), E(''), P('', "SET LOCAL work_mem = '1MB'"), B('', '', []), E(''), P('', 'SHOW work_mem'), B('', '', []), E(''), P('', 'COMMIT'), B('', '', []), E(''), P('', 'SHOW work_mem'), B('', '', []), E(''), S()),
	step(P('', 'BEGIN'), B('', '', []), E(''), S(), B('', '_pg3_0', ['x']), E(''), S(), B('', '_pg3_0', [1]), E(''), S(), P('', 'ROLLBACK'), B('', '', []), E(''), S(), B('', '_pg3_0', [1]), E(''), S()),
	# Flush instead of Sync.
	step(B('', '_pg3_0', [5]), E(''), H(), B('', '_pg3_1', [5]), E(''), H(), S()),
	'DEALLOCATE ALL', step(B('', '_pg3_0', [1]), E(''), S()), 'DEALLOCATE "_pg3_3"' ],
	setup => q{DELETE FROM item WHERE word LIKE 'pipe%'});
same('psycopg: server-side cursors', [
	'BEGIN', 'DECLARE "named" CURSOR FOR SELECT id FROM item ORDER BY id', step(DP('named'), S()), 'FETCH FORWARD 3 FROM "named"', 'FETCH FORWARD 3 FROM "named"', 'MOVE ABSOLUTE 0 IN "named"', 'CLOSE "named"', 'COMMIT',
	'FETCH 1 FROM "named"', 'DECLARE "hold" SCROLL CURSOR WITH HOLD FOR SELECT id FROM item ORDER BY id', 'FETCH FORWARD 3 FROM "hold"', 'FETCH FORWARD 3 FROM "hold"', step(DP('hold'), S()), 'FETCH LAST FROM hold', 'SELECT name, is_holdable, is_scrollable FROM pg_cursors WHERE is_holdable', 'CLOSE "hold"', 'FETCH 1 FROM hold', 'DECLARE "outside" CURSOR FOR SELECT 1' ]);

# ----------------------------------------------------------------------------- Npgsql

same('Npgsql', [
	# Types are loaded first; several statements share one Sync.
	'SELECT version() IS NOT NULL', step(P('', 'SELECT $1', 25), DS(''), B('', '', ['x'], result_formats => [1]), E(''), P('', 'SELECT $1::int8', 20), DS(''), B('', '', [ pack('NN', 0, 7) ], @binary), E(''), S()),
	step(P('_auto1', 'UPDATE item SET word = word WHERE id = $1', 23), DS('_auto1'), B('', '_auto1', [ int4(1) ], @binary), E(''), P('_auto2', 'SELECT 2'), DS('_auto2'), B('', '_auto2', []), E(''), S()),
	step(B('', '_auto1', [ int4(1) ], @binary), E(''), B('', '_auto2', []), E(''), S()),
	"SET work_mem = '7MB'", 'CREATE TEMP TABLE scratch (id int)', 'SELECT count(*) FROM scratch',
	# Returned to its pool: the whole reset, in front of the next user's first statement.
	step(Q('DISCARD ALL'), P('', 'SHOW work_mem'), B('', '', []), E(''), S()), 'SELECT count(*) FROM scratch', step(B('', '_auto2', []), E(''), S()),
	# With prepared statements kept: all but DEALLOCATE.
	step(P('_p1', 'SELECT 3'), S()), q{SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP}, step(B('', '_p1', []), E(''), S()),
	'BEGIN; SELECT 1', 'DISCARD ALL', 'ROLLBACK', 'BEGIN', step(P('', 'DISCARD ALL'), B('', '', []), E(''), S()), 'ROLLBACK' ]);

# ----------------------------------------------------------------------------- Rails, Django, Hibernate, PHP, SQLAlchemy

same('Rails', [
	"SET client_min_messages TO 'warning'", 'SET standard_conforming_strings = on', "SET SESSION timezone TO 'UTC'", "SET SESSION statement_timeout TO '30s'", 'SET intervalstyle = iso_8601', 'SHOW client_min_messages',
	step(P('a1', 'SELECT "item".* FROM "item" WHERE "item"."id" = $1 LIMIT $2'), S()), step(DS('a1'), S()), (map { step(B('', 'a1', [ $_, 1 ]), DP(''), E(''), S()) } 1 .. 4),
	'BEGIN', step(P('a2', 'INSERT INTO "item" ("word") VALUES ($1) RETURNING "word"'), S()), step(B('', 'a2', ['rails']), DP(''), E(''), S()), 'SAVEPOINT active_record_1', step(B('', 'a1', [ 'x', 1 ]), DP(''), E(''), S()), 'ROLLBACK TO SAVEPOINT active_record_1', 'RELEASE SAVEPOINT active_record_1', 'ROLLBACK',
	step(B('', 'a2', ['again']), E(''), S()), 'SELECT 1', 'DEALLOCATE a1', step(B('', 'a1', [ 1, 1 ]), E(''), S()), step(P('a1', 'SELECT 1'), S()), step(P('a1', 'SELECT 2'), S()), step(B('', 'a1', []), E(''), S()),
	'SELECT pg_try_advisory_lock(2053462845, 5)', 'CREATE TABLE migrated (id int)', 'SELECT pg_advisory_unlock(2053462845, 5)', 'SELECT pg_advisory_unlock(2053462845, 5)' ],
	cleanup => q{DROP TABLE IF EXISTS migrated; DELETE FROM item WHERE word = 'again'});
same('Django', [
	q{SELECT set_config('TimeZone', 'America/Chicago', false)}, 'SHOW TimeZone', q{SELECT at FROM item LIMIT 1}, 'BEGIN', q{SAVEPOINT "s140_x1"}, 'SELECT 1/0', q{ROLLBACK TO SAVEPOINT "s140_x1"}, q{RELEASE SAVEPOINT "s140_x1"}, 'COMMIT',
	q{DECLARE "_django_curs_1_sync_1" NO SCROLL CURSOR WITH HOLD FOR SELECT id FROM item ORDER BY id}, 'FETCH FORWARD 2 FROM "_django_curs_1_sync_1"', 'FETCH FORWARD 2 FROM "_django_curs_1_sync_1"', 'CLOSE "_django_curs_1_sync_1"',
	'SET ROLE pg_read_all_data', 'SELECT current_user', 'RESET ROLE', q{SELECT set_config('app.current', '5', false)}, q{SELECT current_setting('app.current')}, 'SELECT at FROM item LIMIT 1' ]);
same('Hibernate', [
	step(P('', q{select nextval('own_ids')}), B('', '', []), DP(''), E(''), S()), step(P('S_1', q{select nextval('own_ids')}), DS('S_1'), B('', 'S_1', []), E(''), S()), step(B('', 'S_1', []), E(''), S()), q{select currval('own_ids')} ],
	setup => 'DROP SEQUENCE IF EXISTS own_ids; CREATE SEQUENCE own_ids INCREMENT 50');
same('PHP', [
	step(P('pdo_stmt_00000001', 'INSERT INTO own_rows (word) VALUES ($1)'), S()), step(B('', 'pdo_stmt_00000001', ['x']), DP(''), E(''), S()), 'SELECT LASTVAL()', 'DEALLOCATE pdo_stmt_00000001', q{SELECT CURRVAL('own_rows_id_seq')}, 'DEALLOCATE pdo_stmt_00000001',
	step(P('pdo_stmt_00000002', 'SELECT $1::int'), S()), step(B('', 'pdo_stmt_00000002', [3]), E(''), S()), step(B('', 'pdo_stmt_00000002', [4]), E(''), S()), 'INSERT INTO own_rows (word) VALUES (\'y\') RETURNING id', 'SELECT LASTVAL()' ],
	setup => 'DROP TABLE IF EXISTS own_rows; CREATE TABLE own_rows (id serial, word text)');
same('a connection that has inserted nothing', [ 'SELECT lastval()', q{SELECT currval('ids')} ]);
same('SQLAlchemy', [ 'select pg_catalog.version() is not null', 'select current_schema()', 'show standard_conforming_strings', 'BEGIN;', 'SELECT 1', 'ROLLBACK;', 'SHOW TRANSACTION ISOLATION LEVEL', 'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'SHOW TRANSACTION ISOLATION LEVEL', 'BEGIN', 'SHOW TRANSACTION ISOLATION LEVEL', 'ROLLBACK', 'RESET ALL', 'SHOW TRANSACTION ISOLATION LEVEL' ]);

# ----------------------------------------------------------------------------- Go

same('pgx: statement cache', [
	step(P('stmtcache_1', 'select word, list from item where id = $1'), DS('stmtcache_1'), S()), (map { step(B('', 'stmtcache_1', [ int4($_) ], parameter_formats => [1], result_formats => [ 0, 1 ]), DP(''), E(''), S()) } 1 .. 3),
	# describe_exec and describe cache: unnamed, described first.
	step(P('', 'select $1::text'), DS(''), S()), step(B('', '', ['x'], result_formats => [0]), DP(''), E(''), S()), step(P('', 'select $1::int'), DS(''), S()), step(B('', '', [ int4(5) ], @binary), DP(''), E(''), S()),
	# A batch.
	step((map { P("stmtcache_$_", "select $_ + \$1::int") . DS("stmtcache_$_") } 2 .. 4), S()), step((map { B('', "stmtcache_$_", [ int4(1) ], @binary) . DP('') . E('') } 2 .. 4), S()),
	step((map { B('', "stmtcache_$_", [ $_ == 3 ? 'bad' : int4(1) ], @binary) . DP('') . E('') } 2 .. 4), S()), step(B('', 'stmtcache_4', [ int4(1) ], @binary), DP(''), E(''), S()),
	# Invalidated statements.
	step(CS('stmtcache_2'), S()), 'deallocate "stmtcache_3"', step(B('', 'stmtcache_2', [ int4(1) ], @binary), E(''), S()), step(B('', 'stmtcache_3', [ int4(1) ], @binary), E(''), S()), 'deallocate all', step(B('', 'stmtcache_1', [ int4(1) ], @binary), E(''), S()),
	'-- ping', ';', step(P('', ''), B('', '', []), DP(''), E(''), S()) ], parameters => { client_encoding => 'UTF8' });
same('pgx: COPY', [ 'begin', step(P('', 'select "word" from "item"'), DS(''), S()), step(Q('copy "item" ("word") from stdin'), RawClient::copy_data("copied\n"), RawClient::copy_done()), 'rollback', step(Q('copy "item" ("word") from stdin'), RawClient::copy_fail('no')), 'copy (select 1) to stdout', 'select count(*) from item where word = \'copied\'' ]);
same('lib/pq', [
	step(P('', 'SELECT id, bytes FROM item WHERE id = $1'), DS(''), S()), step(B('', '', ['3'], result_formats => [ 0, 1 ]), E(''), S()),
	step(P('1', 'SELECT $1::bytea'), DS('1'), S()), step(B('', '1', ['\\x0102'], result_formats => [1]), E(''), S()), step(B('', '1', ['\\x03']), E(''), S()), step(CS('1'), S()), step(B('', '1', ['\\x03']), E(''), S()),
	'BEGIN', step(P('2', 'SELECT 1/$1::int'), DS('2'), S()), step(B('', '2', ['0']), E(''), S()), 'ROLLBACK', step(B('', '2', ['1']), E(''), S()), 'SET search_path TO nowhere, public', step(P('3', 'SELECT count(*) FROM item WHERE id < 5'), DS('3'), S()), step(B('', '3', []), E(''), S()), ';' ],
	parameters => { extra_float_digits => 2, client_encoding => 'UTF8', datestyle => 'ISO, MDY' });

# ----------------------------------------------------------------------------- session resets of other poolers and libraries

same('resets', [ (map { ("SET work_mem = '7MB'", 'PREPARE kept AS SELECT 1', "SET TimeZone = 'Asia/Tokyo'", $_, 'SHOW work_mem', 'SHOW TimeZone', 'EXECUTE kept', 'DEALLOCATE ALL', 'RESET ALL') }
	'DISCARD ALL', 'RESET ALL', 'DISCARD PLANS', 'DISCARD SEQUENCES', 'DISCARD TEMP', 'DEALLOCATE ALL', 'RESET SESSION AUTHORIZATION; RESET ALL', 'CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD PLANS', 'ABORT; DISCARD ALL', 'ROLLBACK; RESET ALL') ]);
same('statements by both names', [
	'PREPARE both AS SELECT 1', step(B('', 'both', []), E(''), S()), step(P('other', 'SELECT $1::int'), S()), 'EXECUTE other (2)', 'EXPLAIN (COSTS off) EXECUTE other (2)', 'CREATE TEMP TABLE made ON COMMIT DROP AS EXECUTE other (3)', 'SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY name',
	'PREPARE other AS SELECT 5', step(P('both', 'SELECT 5'), S()), step(CS('both'), S()), 'EXECUTE both', 'DEALLOCATE other', step(B('', 'other', [1]), E(''), S()), 'SELECT count(*) FROM pg_prepared_statements',
	'BEGIN', 'PREPARE undone AS SELECT 6', 'ROLLBACK', 'EXECUTE undone', 'BEGIN', step(P('kept', 'SELECT 7'), S()), 'SELECT 1/0', 'ROLLBACK', step(B('', 'kept', []), E(''), S()) ]);

$pair->calm;

# ----------------------------------------------------------------------------- psql and libpq themselves

{
	my $script = join "\n", 'SELECT 1 AS one \gset', '\echo :one', '\set AUTOCOMMIT off', 'SELECT 2;', "SET TimeZone = 'Asia/Tokyo';", 'COMMIT;', 'SHOW TimeZone;',
	  'ROLLBACK;', '\set AUTOCOMMIT on', 'SHOW TimeZone;', '\set FETCH_COUNT 3', 'SELECT id FROM item ORDER BY id LIMIT 7;', '\unset FETCH_COUNT', 'SELECT id FROM item WHERE id < 3 \gdesc',
	  '\set ON_ERROR_ROLLBACK on', 'BEGIN;', 'SELECT 1/0;', 'SELECT 3;', 'COMMIT;', 'PREPARE p AS SELECT 4;', 'EXECUTE p;', 'EXECUTE p;', q{SELECT 'SELECT ' || i FROM generate_series(5, 7) i \gexec}, '\d item', '\encoding LATIN1', '\encoding',
	  'SHOW client_encoding;', '\copy (SELECT 8) to stdout', '\! true', 'SELECT pg_backend_pid() > 0;', '\c', 'SHOW TimeZone;', "DO \$\$BEGIN RAISE NOTICE 'nine'; END\$\$;", '\watch i=0 c=1' x 0;
	my @outputs;
	foreach my $connstr ($server->connstr, $server->pool_connstr)
	{
		my ($output, $errors) = ('', '');
		$server->node->psql('postgres', $script, connstr => $connstr, stdout => \$output, stderr => \$errors, on_error_stop => 0, timeout => $SluiceTest::patience_s);
		$errors =~ s/port \d+|\.s\.PGSQL\.\d+|port "\d+"//g;
		$output =~ s/You are now connected.*//g;
		push @outputs, "$output\n$errors";
	}
	is($outputs[1], $outputs[0], 'a psql script');
	like($outputs[0], qr/\nAsia\/Tokyo\n/, 'it did something');
}

# pgbench speaks all three protocols, in scripts with pipelines as well.
{
	my $directory = PostgreSQL::Test::Utils::tempdir();
	PostgreSQL::Test::Utils::append_to_file("$directory/habits.sql", <<'SQL');
\set id random(1, 20)
SET application_name = 'bench :id';
BEGIN;
SELECT word FROM item WHERE id = :id;
SET LOCAL work_mem = '2MB';
END;
SELECT set_config('app.current', ':id', false);
SELECT 1 / (current_setting('app.current') = ':id' AND current_setting('application_name') = 'bench :id')::int;
SQL
	PostgreSQL::Test::Utils::append_to_file("$directory/pipeline.sql", <<'SQL');
\set id random(1, 20)
\startpipeline
SELECT word FROM item WHERE id = :id;
SELECT amount FROM item WHERE id = :id;
SELECT set_config('app.current', :id::text, false);
SELECT 1 / (current_setting('app.current') = :id::text)::int;
\endpipeline
SELECT 1 / (current_setting('app.current') = :id::text)::int;
SQL
	foreach my $run ([ 'simple', 'habits' ], [ 'extended', 'habits' ], [ 'prepared', 'habits' ], [ 'extended', 'pipeline' ], [ 'prepared', 'pipeline' ])
	{
		my ($protocol, $script) = @$run;
		# A quoted variable is not replaced in the other protocols: they get a text without quotes.
		next if $script eq 'habits' && $protocol ne 'simple';
		my @command = ('pgbench', '-n', '-M', $protocol, '-c', 4, '-t', 50, '-f', "$directory/$script.sql", '-h', $server->host, '-p', $server->pool_port, 'postgres');
		my ($output, $errors) = PostgreSQL::Test::Utils::run_command(\@command);
		like($output, qr{transactions actually processed: 200/200}, "pgbench, $protocol, $script") or diag($errors);
		unlike($errors, qr/ERROR|FATAL|division/, 'without an error');
	}
}

$server->stop;
done_testing();
