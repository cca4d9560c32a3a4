# SPDX-License-Identifier: PostgreSQL
#
# Prepared statements, of SQL and of the protocol, belong to the client wherever it is served: what it does with them
# cannot be told from a direct connection, and nobody else sees them.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = Dialogue::server('main', conf => "sluice.max_prepared_statements = 30\n");
my $dialogue = Dialogue->new($server);
my $switch = $dialogue->switch;

$server->sql('CREATE ROLE nobody');

# In session mode the table and the functions are those of another database.
$server->sql(<<'SQL', dbname => $_) foreach 'postgres', 'held';
CREATE FUNCTION prepare_by_text(name text, body text) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE format('/* a comment */ PREPARE %I AS %s', name, body); END $$;
CREATE FUNCTION execute_by_text(call text) RETURNS text LANGUAGE plpgsql AS
	$$ DECLARE answer text; BEGIN EXECUTE 'EXECUTE ' || call INTO answer; RETURN answer; END $$;
CREATE FUNCTION deallocate_by_text(name text) RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE 'DEALLOCATE ' || name; RETURN 1; END $$;
CREATE PROCEDURE prepare_inside() LANGUAGE plpgsql AS
	$$ BEGIN PREPARE inside(int) AS SELECT $1 * 3; END $$;
CREATE FUNCTION two_statements() RETURNS void LANGUAGE sql AS
	$$ SELECT 'one;'; PREPARE from_sql_function AS SELECT 'two' $$;
SQL

my $setup = <<'SQL';
DROP TABLE IF EXISTS item, copied, other CASCADE;
CREATE TABLE item (id int PRIMARY KEY, name text);
INSERT INTO item SELECT i, 'name ' || i FROM generate_series(1, 5) i;
SQL

sub Q { return RawClient::query($_[0]) }
sub P { return RawClient::parse(@_) }
sub B { return RawClient::bind('', $_[0], $_[1] || []) }
sub DS { return RawClient::describe_statement($_[0]) }
sub E { return RawClient::execute('') }
sub CS { return RawClient::close_statement($_[0]) }
sub S { return RawClient::sync() }
sub run { return B(@_) . E() . S() }
my $list = Q('SELECT name, statement, parameter_types, from_sql, prepare_time <= now() FROM pg_prepared_statements'
	  . ' ORDER BY name');

# ---------------------------------------------------------------- PREPARE, EXECUTE, DEALLOCATE

my @lines = $dialogue->same('a statement of SQL is there on every backend',
	[ Q('PREPARE p(int) AS SELECT name FROM item WHERE id = $1'), (Q('EXECUTE p(3)')) x 4, Q('DEALLOCATE p'),
		Q('EXECUTE p(3)'), Q('DEALLOCATE p') ], setup => $setup);
is(scalar(grep { $_ eq 'DataRow name 3' } @lines), 4, 'and the answers are the right ones');

$dialogue->same('types that are deduced, given, wrong or missing',
	[ Q('PREPARE p AS SELECT $1 || name, $2 FROM item WHERE id = $2'), $list, Q(q{EXECUTE p('a', 1)}), Q('EXECUTE p(1)'),
		Q(q{EXECUTE p('a', 'b')}), Q(q{EXECUTE p(now(), 2)}), Q('PREPARE q AS SELECT $1'), $list, Q('EXECUTE q(1)'),
		Q('PREPARE r(nonsense) AS SELECT $1'), Q('PREPARE r AS SELECT nonsense'), Q('PREPARE "" AS SELECT 1'),
		Q('PREPARE r(varchar(3), numeric(4,1)) AS SELECT $1, $2'), Q(q{EXECUTE r('abcdef', 1.23)}),
		Q('PREPARE p AS SELECT 1'), $list, Q('EXECUTE unknown'), Q('DEALLOCATE PREPARE q'), $list, Q('DEALLOCATE ALL'),
		$list ], setup => $setup);

$dialogue->same('among other statements',
	[ Q('SELECT 1; PREPARE a AS SELECT 1 AS x; PREPARE  b AS SELECT 2 AS y ; PREPARE c AS SELECT $$;$$;SELECT 3'),
		Q('EXECUTE b'), Q('EXECUTE a; EXECUTE c'), $list, Q(' /* nothing */ ; ; PREPARE d AS SELECT 4; '), Q('EXECUTE d'),
		Q('SELECT 1/0; PREPARE e AS SELECT 5'), Q('PREPARE e AS SELECT 5; SELECT 1/0'), Q('EXECUTE e'),
		Q('DEALLOCATE e; PREPARE e AS SELECT 6; EXECUTE e'), Q('EXECUTE e'), $list ]);

$dialogue->same('in functions',
	[ Q(q{SELECT prepare_by_text('f', 'SELECT id + $1 FROM item WHERE id = 2')}), Q('EXECUTE f(40)'),
		Q(q{SELECT execute_by_text('f(41)')}), Q('CALL prepare_inside()'), Q('EXECUTE inside(5)'), Q('CALL prepare_inside()'),
		Q('SELECT two_statements()'), Q('EXECUTE from_sql_function'), $list, Q(q{SELECT deallocate_by_text('f')}),
		Q('EXECUTE f(1)'), Q(q{DO $$ BEGIN EXECUTE 'PREPARE o AS SELECT 7'; EXECUTE 'EXECUTE o';
			EXECUTE 'DEALLOCATE ALL'; EXECUTE 'PREPARE o AS SELECT 8'; END $$}), Q('EXECUTE o'), $list,
		Q(q{DO $$ BEGIN EXECUTE 'PREPARE o AS SELECT 9'; EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM; END $$}),
		Q(q{DO $$ BEGIN FOR i IN 1 .. 30 LOOP EXECUTE 'EXECUTE o'; END LOOP; END $$}), Q('EXECUTE o'), $list ],
	setup => $setup);

$dialogue->same('a function takes away what is executing it',
	[ Q('PREPARE own(int) AS SELECT $1, i FROM generate_series(1, 3) i'),
		Q('PREPARE suicide AS SELECT deallocate_by_text($$suicide$$), i FROM generate_series(1, 1) i'), Q('EXECUTE suicide'),
		Q('EXECUTE suicide'), Q('EXECUTE own(1)'), $list ]);

$dialogue->same('nothing of it is transactional',
	[ Q('BEGIN; PREPARE kept AS SELECT 1; ROLLBACK'), Q('EXECUTE kept'), Q('BEGIN; DEALLOCATE kept; ROLLBACK'),
		Q('EXECUTE kept'), Q('BEGIN'), Q('PREPARE k2 AS SELECT 2'), Q('SELECT 1/0'), Q('EXECUTE k2'), Q('DEALLOCATE k2'),
		Q('ROLLBACK'), Q('EXECUTE k2'), Q('BEGIN'), Q('SAVEPOINT s'), Q('PREPARE k3 AS SELECT 3'), Q('ROLLBACK TO s'),
		Q('EXECUTE k3'), Q('COMMIT'), Q('EXECUTE k3'), Q('BEGIN; DISCARD ALL; COMMIT'), Q('EXECUTE k3'), Q('DISCARD ALL'),
		Q('EXECUTE k3'), $list ]);

$dialogue->same('the other ways to execute',
	[ Q('PREPARE p(int) AS SELECT * FROM item WHERE id < $1'), Q('EXPLAIN (COSTS off) EXECUTE p(3)'),
		Q('CREATE TABLE copied AS EXECUTE p(4)'), Q('SELECT * FROM copied'), Q('CREATE TABLE other AS EXECUTE p(4) WITH NO DATA'),
		Q('SELECT * FROM other'), Q('EXPLAIN (COSTS off) CREATE TABLE more AS EXECUTE p(2)'),
		Q('PREPARE i(int, text) AS INSERT INTO item VALUES ($1, $2) RETURNING id'), Q(q{EXECUTE i(9, 'nine')}),
		Q(q{EXECUTE i(9, 'nine')}), Q('CREATE TABLE wrong AS EXECUTE i(10, NULL)'), Q('EXPLAIN EXECUTE unknown'),
		Q('CREATE TABLE wrong AS EXECUTE unknown'), Q('PREPARE d AS SELECT 10 / (3 - id) FROM item ORDER BY id'),
		Q('EXECUTE d'), Q('PREPARE none AS UPDATE item SET name = NULL WHERE false'), Q('EXECUTE none') ],
	setup => $setup, skip => [ 'in session mode' ]);

# ---------------------------------------------------------------- together with the protocol

$dialogue->same('both kinds have one space of names',
	[ P('one', 'SELECT 1 AS n') . S(), Q('PREPARE one AS SELECT 2'), Q('PREPARE two AS SELECT $1::int AS n'),
		P('two', 'SELECT 3') . S(), Q('EXECUTE one'), run('two', [5]), DS('two') . S(), DS('one') . S(), $list,
		CS('two') . S(), Q('EXECUTE two(1)'), Q('DEALLOCATE one'), run('one'), P('one', 'SELECT 4') . S(), run('one'),
		Q('EXECUTE one'), Q('DEALLOCATE ALL'), run('one'), $list ]);
$dialogue->same('EXECUTE in the extended protocol',
	[ Q('PREPARE t(int) AS SELECT $1 AS n, name FROM item WHERE id = $1'), P('x', 'EXECUTE t(2)') . DS('x') . S(), run('x'),
		run('x'), P('', 'EXECUTE t(3)') . S(), DS('') . S(), run(''), P('y', 'EXECUTE x') . S(), run('y'),
		P('', 'PREPARE z AS SELECT 9') . run(''), Q('EXECUTE z'), P('', 'DEALLOCATE z') . run(''), Q('EXECUTE z'),
		Q('DEALLOCATE t'), run('x'), P('self', 'EXECUTE self') . S(), $list ], setup => $setup);
like((join ' ', $dialogue->same('a statement that executes itself',
		[ P('self', 'EXECUTE self') . S(), run('self'), Q('SELECT 1') ])), qr/54001/, 'comes to an end');
my $long = 'n' x 70;
$dialogue->same('names that are too long',
	[ P("${long}a", 'SELECT 1') . S(), P("${long}b", 'SELECT 2') . S(), run("${long}c"), Q("EXECUTE ${long}d"), $list,
		Q("DEALLOCATE ${long}"), $list, Q("PREPARE ${long} AS SELECT 3"), run("${long}x"), CS("${long}y") . S(), $list ]);

# ---------------------------------------------------------------- what has become of tables and types

$dialogue->same('a result that has changed',
	[ P('p', 'SELECT * FROM item ORDER BY id LIMIT 1') . S(), Q('PREPARE s AS SELECT * FROM item ORDER BY id LIMIT 1'),
		run('p'), run('p'), Q('EXECUTE s'), Q('EXECUTE s'), Q('ALTER TABLE item ADD more int DEFAULT 7'), run('p'), run('p'),
		Q('EXECUTE s'), Q('EXECUTE s'), DS('p') . S(), P('q', 'SELECT * FROM item ORDER BY id LIMIT 1') . S(), run('q'),
		run('q'), run('p'), run('p'), Q('DEALLOCATE s'), Q('PREPARE s AS SELECT * FROM item ORDER BY id LIMIT 1'),
		Q('EXECUTE s'), Q('EXECUTE s'), Q('ALTER TABLE item DROP more'), run('p'), run('p'), run('q'), run('q'),
		Q('EXECUTE s'), Q('EXECUTE s'), Q('EXPLAIN (COSTS off) EXECUTE s'), $list ], setup => $setup);
$dialogue->same('a parameter whose type would be deduced otherwise now',
	[ P('p', 'SELECT name FROM item WHERE id = $1') . DS('p') . S(), run('p', [1]), run('p', [1]),
		Q('ALTER TABLE item ALTER id TYPE numeric'), DS('p') . S(), DS('p') . S(), run('p', [2]), run('p', ['2.0']),
		P('q', 'SELECT name FROM item WHERE id = $1') . DS('q') . S(), run('q', ['2.0']), run('p', ['2.0']), run('q', ['2.0']),
		run('p', [3]), $list ], setup => $setup);
$dialogue->same('a table that is dropped, and comes back',
	[ P('p', 'SELECT name FROM item') . S(), Q('PREPARE s AS SELECT name FROM item'), Q('EXECUTE s'), run('p'),
		Q('DROP TABLE item'), Q('EXECUTE s'), run('p'), Q('EXECUTE s'), run('p'), $list, Q('CREATE TABLE item (name text)'),
		Q('EXECUTE s'), run('p'), Q('EXECUTE s'), run('p'), Q('DROP TABLE item'), Q('CREATE TABLE item (name varchar)'),
		Q('EXECUTE s'), run('p'), Q('EXECUTE s'), run('p') ], setup => $setup);
$dialogue->same('what one may not read',
	[ P('p', 'SELECT name FROM item') . S(), Q('PREPARE s AS SELECT name FROM item'), Q('SET ROLE nobody'), Q('EXECUTE s'),
		run('p'), Q('EXECUTE s'), run('p'), Q('RESET ROLE'), Q('EXECUTE s'), run('p'), Q('SET ROLE nobody'),
		P('q', 'SELECT name FROM item') . S(), run('q'), Q('RESET ROLE'), run('q') ], setup => $setup);
$dialogue->same('the unnamed statement and a table that changes',
	[ P('', 'SELECT * FROM item WHERE id = $1') . S(), run('', [1]), Q2('ALTER TABLE item ADD more int'), run('', [1]),
		run('', [1]) ], setup => $setup);

# By another client: a simple query would forget the unnamed statement.
sub Q2 { return P('alter', $_[0]) . B('alter') . E() . CS('alter') . S() }

# ---------------------------------------------------------------- settings

$dialogue->same('literals keep their meaning',
	[ Q(q{PREPARE s AS SELECT date '01/02/2003', interval '-1 2:03', '{NULL}'::text[], NULL = NULL, 'a\nb'}),
		P('p', q{SELECT '01/02/2003'::date - date '2000-01-01', 'a\\\\nb', time '0:00'}) . S(), $list, Q('EXECUTE s'),
		run('p'), Q('EXECUTE s'), run('p'), $list ],
	parameters => { DateStyle => 'German', IntervalStyle => 'sql_standard', TimeZone => 'Asia/Tokyo',
		options => '-c array_nulls=off -c transform_null_equals=on -c standard_conforming_strings=off' });
{
	my @clients = map { $server->pool_raw(parameters => { DateStyle => "ISO, $_" }) } 'MDY', 'DMY', 'YMD';
	my @answers = ('2003-01-02', '2003-02-01', '2001-02-03');
	my $wrong = 0;
	foreach my $client (@clients)
	{
		$switch->next_backend;
		$client->sql(q{PREPARE s AS SELECT date '01/02/03'});
		$client->exchange(P('p', q{SELECT date '01/02/03'}) . S());
	}
	foreach my $round (1 .. 4)
	{
		$switch->next_backend;
		foreach my $i (0 .. 2)
		{
			my ($row) = grep { $_->{type} eq 'D' } $clients[$i]->exchange(run('p'));
			$wrong++ if $clients[$i]->sql('EXECUTE s') ne $answers[$i] || (RawClient::row_fields($row))[0] ne $answers[$i];
		}
		# Analysed again, in a transaction with other settings.
		$server->sql('CREATE SCHEMA IF NOT EXISTS nothing; DROP SCHEMA nothing');
		$clients[0]->sql(q{BEGIN; SET LOCAL DateStyle = 'ISO, DMY'; EXECUTE s; COMMIT}) if $round == 2;
	}
	is($wrong, 0, 'the same text means to each client what its settings say');
	$_->close foreach @clients;
}
$dialogue->same('settings that change after the PREPARE',
	[ Q(q{SET DateStyle = 'ISO, DMY'}), Q(q{PREPARE s AS SELECT date '01/02/2003', interval '1 day -1 hour'}),
		P('p', q{SELECT date '01/02/2003'}) . S(), run('p'), Q('EXECUTE s'), Q(q{SET DateStyle = 'German, MDY'}),
		Q(q{SET IntervalStyle = 'sql_standard'}), run('p'), Q('EXECUTE s'), Q('SHOW DateStyle'), run('p'), Q('EXECUTE s'),
		P('q', q{SELECT date '01/02/2003'}) . S(), run('q'), run('p'), Q('EXECUTE s'), Q('RESET ALL'), run('q'), run('p'),
		P('', q{SELECT date '01/02/2003'}) . S(), P('set', q{SET DateStyle = 'ISO, DMY'}) . run('set'), run(''),
		run(''), Q(q{SET standard_conforming_strings = off; SET escape_string_warning = off}),
		Q(q{PREPARE e AS SELECT 'a\\\\b', date '01/02/2003'}), Q('EXECUTE e'),
		Q('SET standard_conforming_strings = on'), Q('EXECUTE e'), Q('EXECUTE e'), $list ]);
$dialogue->same('search paths',
	[ Q('CREATE SCHEMA first; CREATE TABLE first.place AS SELECT 1 AS n'),
		Q(q{CREATE SCHEMA second; CREATE TABLE second.place AS SELECT 2 AS n; CREATE TABLE second.words AS SELECT 'x' AS n}),
		Q('SET search_path = first'), Q('PREPARE s AS SELECT n FROM place'), P('p', 'SELECT n FROM place') . S(),
		Q('EXECUTE s'), run('p'), Q('SET search_path = second'), Q('EXECUTE s'), run('p'), Q('EXECUTE s'), run('p'),
		P('q', 'SELECT n FROM place') . S(), run('q'), Q('SET search_path = first'), run('q'), run('p'),
		Q('ALTER TABLE second.place ALTER n TYPE text'), Q('EXECUTE s'), run('q'), Q('SET search_path = second'),
		Q('EXECUTE s'), run('q'), run('p'), P('r', 'SELECT n FROM place') . S(), run('r'), Q('SET search_path = none'),
		Q('EXECUTE s'), run('r'), Q('RESET search_path'), Q('DROP SCHEMA first, second CASCADE') ]);
{
	my $client = $server->pool_raw;
	$switch->next_backend;
	my $now = $client->sql('BEGIN; PREPARE s AS SELECT timestamptz \'now\'; SELECT now(); COMMIT');
	my @times = map { $switch->next_backend; scalar $client->sql('EXECUTE s') } 1 .. 3;
	is("@times", join(' ', ($now) x 3), "'now' is the time of the PREPARE on every backend");
	my $other = $server->pool_raw;
	$other->sql('PREPARE s AS SELECT timestamptz \'now\'');
	isnt($other->sql('EXECUTE s'), $now, 'and of each client\'s own');
	$_->close foreach $client, $other;
}

# ---------------------------------------------------------------- what is shown, and plans

$dialogue->same('plans, custom and generic',
	[ Q('PREPARE p(int) AS SELECT name FROM item WHERE id = $1'),
		(map { (Q("EXECUTE p($_)"), Q('SELECT name, custom_plans, generic_plans FROM pg_prepared_statements')) } 1 .. 8),
		Q('EXPLAIN (COSTS off) EXECUTE p(3)'), Q('DEALLOCATE p'), Q('PREPARE p(int) AS SELECT name FROM item WHERE id = $1'),
		Q('EXPLAIN (COSTS off) EXECUTE p(3)'), Q('SELECT custom_plans, generic_plans FROM pg_prepared_statements'),
		run('p', [1]), Q('SELECT custom_plans, generic_plans FROM pg_prepared_statements') ], setup => $setup);
{
	my ($client, $other) = map { $server->pool_raw } 1 .. 2;
	$client->sql('PREPARE mine AS SELECT 1');
	$client->exchange(P('also', 'SELECT $1::int') . S());
	my $time = $client->sql("SELECT prepare_time FROM pg_prepared_statements WHERE name = 'mine'");
	$switch->next_backend;
	is($client->sql("SELECT prepare_time FROM pg_prepared_statements WHERE name = 'mine'"), $time,
		'the time of a PREPARE stays');
	is($client->sql('SELECT count(*) FROM pg_prepared_statements'), 2, 'all statements are shown');
	is($other->sql('SELECT count(*) FROM pg_prepared_statements'), 0, 'to their client only');
	is($other->sql_error('EXECUTE mine')->{C}, '26000', 'and executed by nobody else');
	$other->sql('PREPARE mine AS SELECT 2');
	$other->sql('PREPARE other AS SELECT 2');
	foreach (1 .. 3)
	{
		$switch->next_backend;
		is($client->sql('EXECUTE mine') . $other->sql('EXECUTE mine'), '12', 'a name is each client\'s own');
	}
	$client->sql('DEALLOCATE ALL');
	is($other->sql('EXECUTE mine'), '2', 'and so is its end');

	# Both kinds count.
	$other->sql('DEALLOCATE ALL');
	foreach my $i (1 .. 15)
	{
		$other->sql("PREPARE s$i AS SELECT $i");
		$other->exchange(P("p$i", "SELECT $i") . S());
	}
	is($other->sql_error('PREPARE more AS SELECT 1')->{C}, '54000', 'a client may keep so many statements');
	is($other->sql_error('EXECUTE more')->{C}, '26000', 'and nothing is left of one too many');
	$other->sql('DEALLOCATE p3');
	$other->sql('PREPARE more AS SELECT 77');
	$switch->next_backend;
	is($other->sql('EXECUTE more'), '77', 'room is made by DEALLOCATE');
	is(join(' ', map { $switch->next_backend; scalar $other->sql("EXECUTE s$_") } 1 .. 15), '1 2 3 4 5 6 7 8 9 10 11 12 13 14 15',
		'and all the others are still there');
	# More plans than a backend keeps.
	foreach my $i (1 .. 100)
	{
		$client->sql("PREPARE s AS SELECT $i, 'many'; EXECUTE s; DEALLOCATE s");
	}
	is($other->sql('EXECUTE s7'), '7', 'also after their plans have been dropped');

	# They outlive all backends.
	$server->sql('SELECT sluice.retire_backends()');
	$client = $server->pool_raw;
	is($other->sql('EXECUTE s8'), '8', 'statements outlive the backends they were prepared on');
	is($other->sql('SELECT count(*) FROM pg_prepared_statements'), 30, 'all of them');
	$_->drop foreach $client, $other;
}

# Without anybody else's help: many clients at once, each on another backend every time.
{
	$server->sql('ALTER SYSTEM SET sluice.debug_force_switch = on');
	$server->sql('SELECT pg_reload_conf()');
	my @clients = map { $server->pool_raw } 1 .. 10;
	my $wrong = 0;
	foreach my $i (0 .. 9)
	{
		$clients[$i]->sql("PREPARE s(int) AS SELECT \$1 + $i");
		$clients[$i]->sql('PREPARE common(int) AS SELECT $1 + 1');
	}
	foreach my $round (1 .. 20)
	{
		$_->send_bytes(Q("EXECUTE s($round); EXECUTE common($round); SELECT count(*) FROM pg_prepared_statements")) foreach @clients;
		foreach my $i (0 .. 9)
		{
			my @values = map { (RawClient::row_fields($_))[0] } grep { $_->{type} eq 'D' } $clients[$i]->read_until_ready;
			$wrong++ if "@values" ne ($round + $i) . ' ' . ($round + 1) . ' 2';
		}
		$server->sql('SELECT sluice.retire_backends()') if $round == 10;
		$server->sql('CREATE SCHEMA nothing; DROP SCHEMA nothing') if $round % 5 == 0;
	}
	is($wrong, 0, 'ten clients at once get their own answers');
	$_->drop foreach @clients;
	$server->sql('ALTER SYSTEM RESET sluice.debug_force_switch');
	$server->sql('SELECT pg_reload_conf()');
}

# ---------------------------------------------------------------- the log

{
	my $client = $server->pool_raw(parameters => { log_statement => 'mod' });
	$switch->next_backend;
	$client->sql('PREPARE ins AS INSERT INTO item VALUES (77)');
	$client->sql('PREPARE sel AS SELECT 78');
	$switch->next_backend;
	my $offset = $server->log_size;
	$client->sql('EXECUTE sel');
	$client->sql('EXECUTE ins');
	ok($server->wait_for_log(qr/statement: EXECUTE ins\n.*DETAIL:  prepare: PREPARE ins AS INSERT/, $offset),
		'EXECUTE is logged as what it executes, with its text');
	unlike($server->log_since($offset), qr/EXECUTE sel/, 'or not');
	$client->close;
}

$server->stop;
done_testing();
