# SPDX-License-Identifier: PostgreSQL
#
# The extended query protocol: the pool's answers are the server's, also in a
# pipeline, after errors, and when every cycle is executed on another backend.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = Dialogue::server('main');
my $dialogue = Dialogue->new($server);
my $setup = 'DROP TABLE IF EXISTS notes; CREATE TABLE notes (id int PRIMARY KEY, body text);'
  . 'DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ($$sad$$, $$ok$$)';

# Short names, so that a step reads like a sentence of messages.
sub simple { return RawClient::query($_[0]) }
sub P { return RawClient::parse(@_) }
sub B { return RawClient::bind(@_) }
sub DS { return RawClient::describe_statement($_[0]) }
sub DP { return RawClient::describe_portal($_[0]) }
sub E { return RawClient::execute(@_) }
sub CS { return RawClient::close_statement($_[0]) }
sub CP { return RawClient::close_portal($_[0]) }
sub H { return RawClient::flush() }
sub S { return RawClient::sync() }
sub run { my ($sql, @parameters) = @_; return P('', $sql) . B('', '', \@parameters) . E('') }

my @lines = $dialogue->same('the unnamed statement', [ P('', 'SELECT $1::int + 1 AS a', 23) . DS('') . B('', '', [41])
	. DP('') . E('') . S() ]);
is_deeply(
	\@lines,
	[
		'ParseComplete', 'ParameterDescription 23', 'RowDescription a:0:0:23:4:4294967295:0', 'BindComplete',
		'RowDescription a:0:0:23:4:4294967295:0', 'DataRow 42', 'CommandComplete SELECT 1', 'ReadyForQuery I', 'EOF'
	],
	'and the answer is the right one');

$dialogue->same('named statements live on across cycles',
	[ P('s1', 'SELECT $1::text || $2', 0, 25) . S(), B('', 's1', [ 'a', 'b' ]) . E('') . S(), DS('s1') . S(),
		B('', 's1', [ 'c', undef ]) . E('') . S(), CS('s1') . S(), B('', 's1', [ 'a', 'b' ]) . E('') . S(), CS('s1')
			. S() ]);
$dialogue->same('the unnamed statement lives on across cycles, until a simple query',
	[ P('', 'SELECT $1::int') . S(), B('', '', [1]) . E('') . S(), DS('') . S(), B('', '', [2]) . E('') . S(),
		simple('SELECT 1'),
		B('', '', [3]) . E('') . S(), DS('') . S(), P('', 'SELECT 7') . S(), P('', 'SELEC') . S(), B('', '', [])
			. E('') . S(),
		P('', 'SELECT 8') . CS('') . S(), B('', '', []) . S() ]);
$dialogue->same('an unnamed statement with given types is executed with them',
	[ P('', 'SELECT pg_typeof($1), pg_typeof($2), pg_typeof($3)', 1700, 0, 25) . S(), B('', '', [ 1, 2, 3 ]) . E('')
		. S() ]);
$dialogue->same('types of parameters that the client leaves open',
	[ P('t', 'SELECT pg_typeof($1), pg_typeof($2 + 1), pg_typeof($3::mood), $4 = ANY (ARRAY[1.5])') . DS('t') . S(),
		B('', 't', [ 'x', 1, 'ok', 2 ]) . E('') . S(), P('u', 'SELECT $2::int') . DS('u') . S(), P('v',
			'SELECT $1 + $1') . S(),
		P('w', 'INSERT INTO notes VALUES ($1, $2)') . DS('w') . B('', 'w', [ 1, 'x' ]) . E('') . S() ],
	setup => $setup, skip => [ 'in session mode' ]);
$dialogue->same('Parse twice under one name', [ P('d', 'SELECT 1') . S(), P('d', 'SELECT 2') . S(), B('', 'd', [])
	. E('') . S(),
		P('d', 'SELECT 3') . P('e', 'SELECT 4') . S(), B('', 'e', []) . S(), CS('d') . P('d', 'SELECT 5') . B('', 'd',
			[]) . E('') . S() ]);
$dialogue->same('unknown names', [ B('', 'nobody', []) . S(), DS('nobody') . S(), DP('nobody') . S(), E('nobody')
	. S(), CS('nobody') . CP('nobody') . S(),
		DS('') . S(), DP('') . S(), E('') . S(), B('', '', []) . S() ]);
$dialogue->same('syntax errors and several commands', [ P('x', 'SELEC') . S(), P('x', 'SELECT 1; SELECT 2') . S(),
	P('x', '') . DS('x') . B('', 'x', []) . DP('') . E('') . S(),
		P('y', ' ; ') . B('', 'y', []) . E('') . S(), P('z', 'SELECT $0') . S() ]);
$dialogue->same('wrong counts and formats', [
		P('c', 'SELECT $1::int, $2::text') . S(), B('', 'c', [1]) . S(), B('', 'c', [ 1, 2, 3 ]) . S(),
		B('', 'c', [ 1, 2 ], parameter_formats => [ 0, 0, 0 ]) . S(), B('', 'c', [ 1, 2 ], result_formats => [ 0, 0,
			0 ]) . E('') . S(),
		B('', 'c', [ 'abc', 2 ]) . E('') . S(), B('', 'c', [ 1, 2 ], parameter_formats => [7]) . E('') . S(),
		B('', 'c', [ 1, 2 ], result_formats => [9]) . E('') . S(), B('', 'c', [ "\0\0", 'x' ],
			parameter_formats => [ 1, 0 ]) . E('') . S(),
		B('', 'c', [ "\0\0\0\0\1", 'x' ], parameter_formats => [ 1, 0 ]) . E('') . S(), B('', 'c', [ 1, "\xff" ])
			. E('') . S(), simple('SELECT 1') ]);
$dialogue->same('binary parameters and results', [
		P('b', 'SELECT $1::int, $2::text, $3::bytea, $4::float8, $5::bool', 23, 25, 17, 701, 16) . DS('b') . S(),
		B('', 'b', [ pack('N', 7), 'text', "\0\1\2", pack('d>', 1.5), "\1" ], parameter_formats => [1],
			result_formats => [1]) . DP('') . E('') . S(),
		B('', 'b', [ pack('N', 8), 'text', '\\x00ff', '2.5', 't' ], parameter_formats => [ 1, 0, 0, 0, 0 ],
			result_formats => [ 0, 1, 1, 0, 1 ]) . DP('') . E('') . S(),
		B('', 'b', [ undef, undef, undef, undef, undef ], result_formats => [1]) . E('') . S() ]);
$dialogue->same('portals with row limits', [
		P('p', 'SELECT i FROM generate_series(1, 7) i') . B('', 'p', []) . E('', 3) . E('', 3) . E('', 3) . E('', 3)
			. S(),
		simple('BEGIN'), B('q', 'p', []) . E('q', 2) . S(), E('q', 2) . DP('q') . S(), simple('SELECT 1'), E('q', 0)
			. S(), E('q', 0) . S(), B('q', 'p', []) . S(),
		simple('ROLLBACK'), B('q', 'p', []) . B('q2', 'p', []) . E('q', 1) . E('q2', 2) . E('q', 1) . CP('q')
			. E('q2', 1) . E('q', 1) . S(), E('q2', 1) . S(),
		B('', 'p', []) . E('', 7) . E('', 1) . S(), B('', 'p', []) . E('', -1) . S() ]);
$dialogue->same('a portal executed by FETCH', [ simple('BEGIN'), P('p', 'SELECT i FROM generate_series(1, 5) i')
	. B('portal', 'p', []) . E('portal', 1) . S(),
		simple('FETCH 2 FROM portal'), run('FETCH 1 FROM portal') . S(), simple('CLOSE portal'), E('portal', 1) . S(),
			simple('ROLLBACK') ]);
$dialogue->same('data changed with row limits', [
		P('i', 'INSERT INTO notes SELECT i, $1 FROM generate_series(1, 5) i RETURNING id') . B('', 'i', ['x']) . E('',
			2) . E('', 2) . E('', 2) . S(),
		simple('SELECT count(*) FROM notes'), P('', 'UPDATE notes SET body = $1') . DS('') . B('', '', ['y']) . DP('')
			. E('', 1) . S(),
		simple('SELECT DISTINCT body FROM notes') ], setup => $setup);
$dialogue->same('a pipeline with an error in the middle is skipped until Sync', [
		run('INSERT INTO notes VALUES (1)') . run('INSERT INTO notes VALUES (1)')
			. run('INSERT INTO notes VALUES (2)') . DS('') . CS('x') . H() . S(),
		run('SELECT count(*) FROM notes') . S(), [ run('SELECT 1') . run('SELECT 1/0') . simple('SELECT 2') . S(),
			1 ] ],
	setup => $setup);
$dialogue->same('a pipeline is one transaction, several Syncs are several', [
		run('INSERT INTO notes VALUES (1)') . run('INSERT INTO notes VALUES (2)') . S()
			. run('INSERT INTO notes VALUES (3)') . run('SELECT 1/0') . S()
		  . run('INSERT INTO notes VALUES (4)') . S(),
		run('SELECT id FROM notes ORDER BY id') . S() ], setup => $setup);
$dialogue->same('BEGIN and COMMIT inside a pipeline', [
		run('BEGIN') . run('INSERT INTO notes VALUES (1)') . S(), run('SELECT 1/0') . S(), run('SELECT 1') . S(),
			P('g', 'ROLLBACK') . S(), B('', 'g', []) . E('') . S(),
		run('ROLLBACK') . S(), run('INSERT INTO notes VALUES (2)') . run('COMMIT')
			. run('INSERT INTO notes VALUES (3)') . run('SELECT 1/0') . S(),
		run('BEGIN') . run('INSERT INTO notes VALUES (4)') . run('COMMIT') . run('SELECT count(*) FROM notes') . S(),
			run('ROLLBACK') . S(),
		run('SELECT 1') . run('VACUUM notes') . S(), run('VACUUM notes') . S(), run('SAVEPOINT s') . S() ],
	setup => $setup);
$dialogue->same('in an aborted transaction', [ P('k', 'SELECT 1') . P('r', 'ROLLBACK') . S(), simple('BEGIN'),
	simple('SELECT 1/0'), DS('k') . S(), B('', 'k', []) . S(),
		P('n', 'SELECT 2') . S(), P('n2', 'COMMIT') . S(), CS('k') . S(), B('', 'r', []) . E('') . S(), B('', 'k', [])
			. S(), B('', 'n2', []) . E('') . S() ]);
$dialogue->same('a statement parsed in a transaction that is rolled back stays', [ simple('BEGIN'), P('stay',
	'SELECT 11') . S(), simple('ROLLBACK'),
		B('', 'stay', []) . E('') . S(), P('other', 'SELECT 12') . run('SELECT 1/0') . S(), B('', 'other', []) . E('')
			. S() ]);
$dialogue->same('two Syncs, and nothing but Sync', [ S(), S() . S(), H() . S() ]);
$dialogue->same('simple and extended mixed in one write', [ simple('SELECT 1') . run('SELECT 2') . S()
	. simple('SELECT 3') . run('SELECT 4') . simple('SELECT 5') ]);
$dialogue->same('EXPLAIN, SHOW, FETCH, CALL and DO by the extended protocol', [ run('EXPLAIN (COSTS OFF) SELECT 1')
	. S(), run('SHOW integer_datetimes') . S(),
		P('', 'SHOW TimeZone') . DS('') . B('', '', []) . DP('') . E('') . S(),
			run('DO $$BEGIN RAISE NOTICE $x$n$x$; END$$') . S(), run('VALUES (1), (2)') . S(),
		run("SET LOCAL work_mem = '5MB'") . S(), run('CREATE TABLE IF NOT EXISTS notes (id int)') . S() ],
			setup => $setup);
$dialogue->same('the context of an error names the parameters', [ P('', 'SELECT 1 / $1::int') . B('', '', [0]) . E('')
	. S(),
		simple("BEGIN; SET LOCAL log_parameter_max_length_on_error = -1"), P('', 'SELECT 1 / $1::int') . B('', '',
			[0]) . E('') . S(), simple('ROLLBACK') ]);
$dialogue->same('wrong bytes in messages', [ RawClient::message('P', "name without end") . S(),
	RawClient::message('P', "n\0SELECT 1\0") . S(),
		RawClient::message('B', "\0\0") . S(), RawClient::message('B', "\0\0\0\0\0\1\377\377\377\376") . S(),
			RawClient::message('D', "Q\0") . S(), RawClient::message('C', "Q\0") . S(),
		RawClient::message('E', "\0") . S(), RawClient::message('Q', "no end"), RawClient::message('Q',
			"SELECT 1\0and more\0"),
		RawClient::message('S', 'x') . S(), RawClient::message('H', 'x') . S(), simple('SELECT 1') ],
			skip => ['a backend per step']);
$dialogue->same('a message of an unknown type ends the connection', [ [ RawClient::message('y', '')
	. simple('SELECT 1'), 1 ] ]);
$dialogue->same('and so does a message too short', [ [ "Q\0\0\0\3" . simple('SELECT 1'), 1 ] ]);

# DEALLOCATE and the like, on statements of the protocol.
$dialogue->same('DEALLOCATE of a protocol statement', [ P('a', 'SELECT 1') . P('b', 'SELECT 2') . S(),
	simple('DEALLOCATE a'), B('', 'a', []) . S(), simple('DEALLOCATE a'),
		B('', 'b', []) . E('') . S(), P('a', 'SELECT 3') . B('', 'a', []) . E('') . S(), run('DEALLOCATE b') . S(),
			B('', 'b', []) . S(), simple('DEALLOCATE PREPARE a'), DS('a') . S() ]);
$dialogue->same('DEALLOCATE ALL', [ P('a', 'SELECT 1') . P('b', 'SELECT 2') . S(), simple('DEALLOCATE ALL'), B('',
	'a', []) . S(), B('', 'b', []) . S(), P('a', 'SELECT 3') . S(),
		B('', 'a', []) . E('') . S(), simple('DEALLOCATE ALL') ]);
$dialogue->same('DISCARD ALL', [ P('a', 'SELECT 1') . S(), simple('DISCARD ALL'), B('', 'a', []) . S(), P('a',
	'SELECT 3') . S(), B('', 'a', []) . E('') . S(),
		simple('DISCARD PLANS; DISCARD SEQUENCES; DISCARD TEMP'), B('', 'a', []) . E('') . S() ]);
$dialogue->same('SQL EXECUTE of a protocol statement', [ P('a', 'SELECT $1::int + $2::int') . S(),
	simple('EXECUTE a(1, 2)'), simple('EXPLAIN (COSTS OFF) EXECUTE a(1, 2)'), simple('EXECUTE a(1)'),
		simple('EXECUTE nobody'), B('', 'a', [ 3, 4 ]) . E('') . S(), run('EXECUTE a(5, 6)') . S(),
			simple('CREATE TABLE made AS EXECUTE a(7, 8)'), simple('TABLE made'),
		P('', 'EXECUTE a(9, 10)') . DS('') . S(), B('', '', []) . DP('') . E('') . S(),
		P('x', 'EXECUTE a(11, 12)') . DS('x') . S(), B('', 'x', []) . DP('') . E('', 1) . S(), B('', 'x', []) . E('')
			. S(), simple('EXECUTE x'),
		simple('BEGIN'), simple('EXECUTE a(1, 2)'), CS('a') . S(), B('', 'a', [ 1, 2 ]) . S(), simple('ROLLBACK'),
			simple('EXECUTE a(1, 2)') ], setup => 'DROP TABLE IF EXISTS made');
$dialogue->same('statements that execute themselves', [ P('x', 'EXECUTE x') . P('y', 'EXECUTE z') . P('z',
	'EXECUTE y') . S(), simple('EXECUTE x'), simple('EXECUTE y'), simple('SELECT 1') ]);
$dialogue->same('SQL PREPARE within one transaction, executed by the protocol', [ simple('BEGIN'),
	simple('PREPARE sql AS SELECT 1 AS one'), B('', 'sql', []) . E('') . DS('sql') . S(), P('sql', 'SELECT 2') . S(),
		simple('ROLLBACK') ]);

# Plans follow the catalog.
$dialogue->same('a statement outlives a change of its table', [ P('n', 'SELECT * FROM notes') . P('c',
	'SELECT count(*) FROM notes') . P('w', 'INSERT INTO notes VALUES ($1)') . S(), B('', 'n', []) . E('') . S(),
		simple('ALTER TABLE notes ADD COLUMN extra int DEFAULT 5'), B('', 'n', []) . E('') . S(), B('', 'c', [])
			. E('') . S(), B('', 'w', [1]) . E('') . S(), simple('DROP TABLE notes'),
		B('', 'c', []) . E('') . S(), simple('CREATE TABLE notes (id int)'), B('', 'c', []) . E('') . S() ],
			setup => $setup);

$server->stop;
done_testing();
