# SPDX-License-Identifier: PostgreSQL
#
# The simple query protocol: the pool's answers are the server's.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

sub simple { return RawClient::query($_[0]) }

my $server = Dialogue::server('main');
my $dialogue = Dialogue->new($server);
my $setup = 'DROP TABLE IF EXISTS notes; CREATE TABLE notes (id int PRIMARY KEY, body text DEFAULT $$none$$)';

my @lines = $dialogue->same('one statement', [ simple('SELECT 1 AS a, NULL AS b, $$x$$::text AS c') ]);
is_deeply(
	\@lines,
	[
		'RowDescription a:0:0:23:4:4294967295:0|b:0:0:25:65535:4294967295:0|c:0:0:25:65535:4294967295:0',
		'DataRow 1|NULL|x',
		'CommandComplete SELECT 1',
		'ReadyForQuery I',
		'EOF'
	],
	'and the answer is the right one');

$dialogue->same('empty queries', [ map { simple($_) } '', ';', ' ;; ', '-- nothing', '/* nothing */' ]);
$dialogue->same('several statements in one string', [ simple('SELECT 1; SELECT 2, 3; SELECT'), simple('SELECT 4') ]);
$dialogue->same('an error of each kind', [
		map { simple($_) } 'SELEC', 'SELECT 1/0', 'SELECT nothing', 'SELECT * FROM nowhere', "SELECT 'abc'::int",
		'SELECT $1', "SELECT '",
			'DO $$BEGIN RAISE EXCEPTION $x$own$x$ USING ERRCODE = $x$AB123$x$, DETAIL = $x$d$x$, HINT = $x$h$x$; END$$',
		'SELECT 1' ]);
$dialogue->same(
	'statements of one string share a transaction, and an error undoes all',
	[
		simple("INSERT INTO notes VALUES (1); INSERT INTO notes VALUES (2); SELECT 1/0; INSERT INTO notes VALUES (3)"),
		simple('SELECT * FROM notes'),
		simple("INSERT INTO notes VALUES (1); INSERT INTO notes VALUES (2)"),
		simple('SELECT * FROM notes ORDER BY id')
	],
	setup => $setup);
$dialogue->same(
	'COMMIT and ROLLBACK in the middle of a string',
	[
		simple("INSERT INTO notes VALUES (1); COMMIT; INSERT INTO notes VALUES (2); SELECT 1/0"),
		simple('SELECT * FROM notes'),
		simple("BEGIN; INSERT INTO notes VALUES (3); ROLLBACK; INSERT INTO notes VALUES (4)"),
		simple('SELECT id FROM notes ORDER BY id'),
		simple("INSERT INTO notes VALUES (5); BEGIN; INSERT INTO notes VALUES (6)"),
		simple('SELECT 1/0'),
		simple('ROLLBACK'),
		simple('SELECT id FROM notes ORDER BY id'),
		simple("SELECT 1; ROLLBACK; SELECT 2"),
		simple('COMMIT'),
		simple("INSERT INTO notes VALUES (7); SAVEPOINT x")
	],
	setup => $setup);
$dialogue->same(
	'states of a transaction',
	[
		map { simple($_) } 'BEGIN', 'SELECT 1', 'BEGIN', 'SAVEPOINT s', 'SELECT 1/0', 'SELECT 1', '', 'ROLLBACK TO s',
			'SELECT 2',
		'COMMIT', 'ROLLBACK', 'BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY', 'CREATE TABLE never ()', 'COMMIT',
		'START TRANSACTION', 'SELECT 3', 'COMMIT AND CHAIN', 'SELECT 4', 'ABORT', 'END'
	]);
$dialogue->same(
	'an error at commit',
	[
		map { simple($_) } 'CREATE TABLE late (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)',
			'INSERT INTO late VALUES (1), (1)',
		'BEGIN', 'INSERT INTO late VALUES (1), (1)', 'COMMIT', 'SELECT * FROM late',
			'INSERT INTO late VALUES (1); INSERT INTO late VALUES (1)',
		'SELECT * FROM late'
	],
	setup => 'DROP TABLE IF EXISTS late');
$dialogue->same('RETURNING, cursors and EXPLAIN', [
		map { simple($_) } "INSERT INTO notes VALUES (1, 'a'), (2) RETURNING *",
			"UPDATE notes SET body = 'b' WHERE id = 2 RETURNING body",
		'BEGIN', 'DECLARE c CURSOR FOR SELECT * FROM notes ORDER BY id', 'FETCH c', 'FETCH 5 c',
			'MOVE BACKWARD ALL c', 'FETCH c',
		'CLOSE c', 'DECLARE b BINARY CURSOR FOR SELECT id FROM notes ORDER BY id', 'FETCH ALL b', 'COMMIT', 'FETCH c',
		'EXPLAIN (COSTS OFF) SELECT * FROM notes WHERE id = 1', 'VALUES (1, 2), (3, 4)', 'TABLE notes',
			'DELETE FROM notes',
		'TRUNCATE notes', 'VACUUM notes', 'BEGIN; VACUUM notes', 'ROLLBACK', 'SELECT 1; VACUUM notes',
			'SHOW server_version' ],
	setup => $setup);
$dialogue->same('utility statements that commit by themselves', [
		map { simple($_) } 'CREATE INDEX CONCURRENTLY notes_body ON notes (body)',
			'REINDEX INDEX CONCURRENTLY notes_body',
		'DROP INDEX CONCURRENTLY notes_body', 'CALL twice()', 'SELECT id FROM notes ORDER BY id', 'BEGIN',
			'CALL twice()', 'ROLLBACK',
		'DO $$BEGIN INSERT INTO notes VALUES (50); COMMIT; INSERT INTO notes VALUES (51); ROLLBACK; END$$',
			'SELECT id FROM notes ORDER BY id' ],
	setup => "$setup; DROP PROCEDURE IF EXISTS twice; CREATE PROCEDURE twice() LANGUAGE plpgsql AS "
	  . '$$BEGIN INSERT INTO notes VALUES (1); COMMIT; INSERT INTO notes VALUES (2); END$$');
$dialogue->same('settings change within a transaction, and their reports', [
		simple("BEGIN; SET LOCAL application_name = 'inner'; SET LOCAL TimeZone = 'UTC'"),
			simple('SHOW application_name'),
		simple('COMMIT'), simple('SHOW application_name'),
		simple("BEGIN; SET LOCAL DateStyle = 'German'; SELECT '2024-02-01'::date"), simple("SELECT 1/0"),
			simple('ROLLBACK'),
		simple("SELECT '2024-02-01'::date"), simple("SET LOCAL DateStyle = 'German'"),
			simple('SET nothing.at_all = 1; SET nothing = 1'),
		simple("SET TimeZone = 'Nowhere/Land'") ]);
$dialogue->same('notices', [
		simple('DROP TABLE IF EXISTS nowhere'),
			simple('DO $$BEGIN RAISE NOTICE $x$hello$x$; RAISE WARNING $x$w$x$ USING HINT = $x$h$x$; RAISE INFO $x$i$x$; RAISE DEBUG $x$d$x$; END$$'),
		simple('BEGIN; SET LOCAL client_min_messages = error; DROP TABLE IF EXISTS nowhere; DO $$BEGIN RAISE INFO $x$i$x$; END$$; COMMIT'),
		simple('BEGIN; SET LOCAL client_min_messages = notice; DROP TABLE IF EXISTS nowhere; COMMIT') ]);
$dialogue->same('notices filtered by a start-up setting', [ simple('DROP TABLE IF EXISTS nowhere'),
	simple('SHOW client_min_messages') ],
	parameters => { client_min_messages => 'error' });
$dialogue->same('another encoding of the client', [
		simple("SELECT '\xe4'"), simple("SELECT length('\xe4\xf6'), chr(228)"), simple("SELECT U&'\\4E00'") ],
	parameters => { client_encoding => 'LATIN1' });
$dialogue->same('bytes that are no text', [ simple("SELECT '\xff\xfe'"), simple('SELECT 1') ]);
$dialogue->same('a result of many rows', [ simple(q{SELECT i, repeat('x', i % 300) FROM generate_series(1, 20000) i}),
	simple('SELECT 1') ]);
$dialogue->same('many short queries', [ map { simple("SELECT $_") } 1 .. 300 ], skip => ['a backend per step']);

# The server's own words about its state, seen from inside.
is($server->pool_sql('SELECT count(*) FROM pg_prepared_xacts'), '0', 'psql works through the pool');

$server->stop;
done_testing();
