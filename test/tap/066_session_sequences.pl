# SPDX-License-Identifier: PostgreSQL
#
# In transaction mode currval(), lastval() and values fetched ahead are a client's own, on whatever backend its next
# transaction is executed: as on a direct connection.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = Dialogue::server('main', conf => "max_prepared_transactions = 2\n");
my $dialogue = Dialogue->new($server);
my $switch = $dialogue->switch;

my $setup = <<'SQL';
SET client_min_messages = warning;
DROP TABLE IF EXISTS item, other, log CASCADE;
DROP SEQUENCE IF EXISTS a, b, c, fetched, wheel, lowest, gone CASCADE;
DROP FUNCTION IF EXISTS current_of(regclass), current_a(), both_of(regclass);
DROP VIEW IF EXISTS now_at;
CREATE SEQUENCE a START 100;
CREATE SEQUENCE b START 200;
CREATE SEQUENCE c START 300 MAXVALUE 1000 INCREMENT -3;
CREATE SEQUENCE fetched CACHE 10;
CREATE SEQUENCE wheel MINVALUE 7 MAXVALUE 8 CYCLE;
CREATE SEQUENCE lowest INCREMENT -1 MINVALUE -9223372036854775808 MAXVALUE 5;
CREATE SEQUENCE gone START 900;
CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY (START 10), text text);
CREATE TABLE other (id serial, item bigint DEFAULT currval('item_id_seq'));
CREATE TABLE log (id bigserial);
CREATE FUNCTION current_of(s regclass) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN currval(s); END';
CREATE FUNCTION current_a() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT currval('a') $$;
CREATE FUNCTION both_of(s regclass) RETURNS text LANGUAGE sql AS 'SELECT currval(s) || '','' || lastval()';
CREATE VIEW now_at AS SELECT currval('a') AS a, lastval() AS l;
SQL
$server->sql($_) foreach 'CREATE ROLE visitor NOLOGIN', 'CREATE ROLE guest NOLOGIN';

sub same
{
	my ($name, @statements) = @_;
	return $dialogue->same($name, [ map { ref $_ eq 'SCALAR' ? $$_ : ref $_ ? $_ : RawClient::query($_) } @statements ], setup => $setup);
}

sub cycle { my ($bytes) = join '', @_; return \($bytes . RawClient::sync()) }

# ------------------------------------------------------------------ values

same('never used', q{SELECT currval('a')}, 'SELECT lastval()', q{SELECT currval('item')}, q{SELECT currval('nothing')},
	'SELECT currval(0)', q{SELECT nextval('a')}, q{SELECT currval('b')}, 'SELECT currval(0)', 'SELECT lastval()');

same('nextval', q{SELECT nextval('a')}, q{SELECT currval('a')}, 'SELECT lastval()', q{SELECT nextval('a')},
	q{SELECT currval('a'), lastval()});

same('lastval is about the last of several', q{SELECT nextval('a')}, q{SELECT nextval('b')}, 'SELECT lastval()',
	q{SELECT nextval('a')}, 'SELECT lastval()', q{SELECT nextval('b'), nextval('c')}, 'SELECT lastval()',
	q{SELECT currval('b')}, 'SELECT lastval()', q{SELECT nextval('b'); SELECT currval('c'), currval('a')},
	'SELECT lastval()', q{SELECT currval('a'), currval('b'), currval('c')}, q{SELECT nextval('c')}, 'SELECT lastval()');

same('setval', q{SELECT setval('a', 150)}, q{SELECT currval('a')}, 'SELECT lastval()', q{SELECT nextval('b')},
	q{SELECT setval('a', 170)}, 'SELECT lastval()', q{SELECT currval('a')}, q{SELECT setval('b', 270)},
	'SELECT lastval()', q{SELECT setval('b', 280, false)}, 'SELECT lastval()', q{SELECT setval('c', 1, false)},
	q{SELECT currval('c')}, q{SELECT nextval('b')}, 'SELECT lastval()', q{SELECT setval('a', -1)}, q{SELECT currval('a')});

same('values fetched ahead', (q{SELECT nextval('fetched')}) x 3, q{SELECT currval('fetched'), lastval()},
	q{SELECT nextval('a')}, (q{SELECT nextval('fetched')}) x 8, q{SELECT last_value FROM fetched},
	q{ALTER SEQUENCE fetched INCREMENT 5}, q{SELECT currval('fetched')}, (q{SELECT nextval('fetched')}) x 2,
	q{SELECT setval('fetched', 500)}, (q{SELECT nextval('fetched')}) x 2, q{SELECT currval('fetched'), lastval()});

same('a sequence that comes back to where it was', q{SELECT nextval('wheel')}, q{SELECT nextval('a')}, 'SELECT lastval()',
	q{SELECT nextval('wheel'), nextval('wheel')}, 'SELECT lastval()', q{SELECT currval('a')});

same('the lowest value there is', q{SELECT setval('lowest', -9223372036854775807)}, q{SELECT nextval('lowest')},
	q{SELECT currval('lowest'), lastval()}, q{SELECT nextval('lowest')}, 'SELECT lastval()');

same('identity and serial columns', q{INSERT INTO item (text) VALUES ('x'), ('y')},
	q{SELECT lastval(), currval('item_id_seq')}, 'INSERT INTO other DEFAULT VALUES', 'SELECT * FROM other',
	'SELECT lastval()', q{SELECT currval('item_id_seq'), currval(pg_get_serial_sequence('other', 'id'))},
	q{INSERT INTO item (text) VALUES ('z') RETURNING id, lastval()}, 'INSERT INTO other DEFAULT VALUES',
	'TABLE other', 'TRUNCATE item RESTART IDENTITY', q{SELECT currval('item_id_seq')},
	q{INSERT INTO item (text) VALUES ('again')}, 'SELECT lastval()');

same('COPY', q{SELECT nextval('a')},
	[ RawClient::query('COPY log (id) FROM STDIN') . RawClient::copy_data("5\n") . RawClient::copy_done(), 1 ],
	'SELECT lastval()',
	[ RawClient::query('COPY item (text) FROM STDIN') . RawClient::copy_data("a\nb\nc\n") . RawClient::copy_done(), 1 ],
	'SELECT lastval()', q{SELECT currval('item_id_seq')}, q{SELECT currval('log_id_seq')});

same('rollback', q{BEGIN; SELECT nextval('a'); SELECT nextval('b'); ROLLBACK}, 'SELECT lastval()', q{SELECT currval('a')},
	q{BEGIN; SELECT nextval('a'); SAVEPOINT s; SELECT nextval('c'); ROLLBACK TO s; COMMIT}, 'SELECT lastval()',
	q{SELECT nextval('b'), 1 / 0}, q{SELECT currval('b')}, q{BEGIN}, q{SELECT nextval('a')}, q{SELECT currval('a')}, 'COMMIT',
	'SELECT lastval()', q{BEGIN READ ONLY; SELECT currval('a'); SELECT nextval('b')}, 'ROLLBACK', 'SELECT lastval()',
	q{BEGIN; SELECT nextval('c'); PREPARE TRANSACTION 'sequences'}, 'SELECT lastval()',
	q{ROLLBACK PREPARED 'sequences'}, q{SELECT currval('c')});

# ------------------------------------------------------------------ errors

same('dropped', q{SELECT nextval('a')}, q{SELECT nextval('gone')}, 'DROP SEQUENCE gone', 'SELECT lastval()',
	q{SELECT currval('gone')}, q{SELECT currval('a')}, q{SELECT nextval('b')}, 'SELECT lastval()',
	q{CREATE SEQUENCE gone START 950}, q{SELECT currval('gone')}, q{SELECT nextval('gone')}, 'SELECT lastval()');

same('dropped in the same transaction', q{SELECT nextval('a')},
	q{BEGIN; CREATE SEQUENCE short; SELECT nextval('short'); DROP SEQUENCE short; COMMIT}, 'SELECT lastval()',
	q{SELECT setval('b', 201)}, 'SELECT lastval()', q{SELECT currval('a'), currval('b')},
	q{BEGIN; CREATE SEQUENCE short; SELECT nextval('short'); ROLLBACK}, 'SELECT lastval()', q{SELECT nextval('a')},
	'SELECT lastval()');

same('dropped, known by number', q{SELECT nextval('gone')}, q{CREATE TABLE number AS SELECT 'gone'::regclass::oid AS o},
	'DROP SEQUENCE gone',
	q{DO $$ BEGIN PERFORM currval(o) FROM number; EXCEPTION WHEN OTHERS THEN
	  RAISE NOTICE '% %', sqlstate, regexp_replace(sqlerrm, '\d+', 'N'); END $$},
	'DROP TABLE number', 'SELECT lastval()');

same('renamed and restarted', q{SELECT nextval('b')}, 'ALTER SEQUENCE b RENAME TO gone_b',
	q{SELECT currval('gone_b'), lastval()}, 'ALTER SEQUENCE gone_b RESTART 5', q{SELECT currval('gone_b'), lastval()},
	q{SELECT nextval('gone_b')}, 'DROP SEQUENCE gone_b', 'SELECT lastval()');

same('privileges', 'GRANT USAGE ON SEQUENCE b TO visitor', q{SELECT nextval('b')}, q{SELECT nextval('a')},
	q{BEGIN; SET LOCAL ROLE visitor; SELECT currval('a')}, 'ROLLBACK', q{BEGIN; SET LOCAL ROLE visitor; SELECT lastval()},
	'ROLLBACK', q{BEGIN; SET LOCAL ROLE visitor; SELECT currval('b'); SELECT currval('c')}, 'ROLLBACK', 'SELECT lastval()',
	q{BEGIN; SET LOCAL ROLE visitor; SELECT nextval('b'); SELECT lastval(); COMMIT}, 'SELECT lastval()',
	'REVOKE USAGE ON SEQUENCE b FROM visitor');

# What is asked of the server at parting must not depend on the role's privileges, or on its settings.
same('a role that may use a sequence, but not for long', q{GRANT USAGE ON SEQUENCE a, b TO visitor}, 'SET ROLE visitor',
	'SET default_transaction_read_only = on', q{BEGIN READ WRITE; SELECT nextval('a'), nextval('b'); COMMIT},
	'SELECT lastval()', 'SET default_transaction_isolation = serializable', q{SELECT currval('a')},
	'RESET default_transaction_read_only', q{SELECT nextval('a')}, 'RESET ROLE', q{REVOKE USAGE ON SEQUENCE a FROM visitor},
	'SET ROLE visitor', 'SELECT lastval()', q{SELECT currval('a')}, q{SELECT currval('b')}, 'RESET ROLE',
	'SELECT lastval()', 'REVOKE ALL ON SEQUENCE b FROM visitor');

# ------------------------------------------------------------------ where it is called

same('NULL', 'SELECT currval(NULL)', q{SELECT nextval('a')}, 'SELECT currval(NULL) IS NULL, currval(NULL::regclass)');

same('functions, views, defaults, DO', q{SELECT current_a()}, q{SELECT nextval('b'), nextval('a')}, 'SELECT current_a()',
	q{SELECT current_of('a'), current_of('b')}, q{SELECT both_of('b')}, 'TABLE now_at', 'SELECT a + 1 AS next, l FROM now_at',
	q{WITH x AS (SELECT currval('a') AS v) SELECT v, (SELECT currval('b')) FROM x WHERE v = lastval()},
	q{SELECT * FROM currval('a') AS f}, q{VALUES (currval('a'), currval('b'))}, q{SELECT array_agg(currval(s)) FROM
	  unnest(ARRAY['a','b']::regclass[]) AS s}, q{DO $$ BEGIN RAISE NOTICE '% %', currval('b'), lastval(); END $$},
	q{SELECT current_of('c')}, q{EXPLAIN (VERBOSE, COSTS OFF) SELECT currval('a'), lastval()},
	q{CREATE TABLE number AS SELECT lastval() AS l}, 'TABLE number', 'DROP TABLE number');

# OID of currval(regclass) and of lastval().
same('function call messages', q{SELECT nextval('a')}, \RawClient::function_call(2559), q{SELECT nextval('b')},
	\RawClient::function_call(2559), q{SELECT currval('a')});

same('prepared statements',
	cycle(RawClient::parse('now', q{SELECT currval('a'), lastval()}), RawClient::parse('next', 'SELECT nextval($1::text)')),
	cycle(RawClient::bind('', 'now', []), RawClient::execute('')),
	(map {
		cycle(RawClient::bind('', 'next', [$_]), RawClient::execute('')),
		cycle(RawClient::bind('', 'now', []), RawClient::execute(''))
	} qw(a b a c a a b)));

same('pg_sequences', q{SELECT nextval('a')}, q{SELECT last_value FROM pg_sequences WHERE sequencename IN ('a', 'b', 'c') ORDER BY 1},
	q{SELECT currval('b')}, q{SELECT currval('a'), lastval()});

# ------------------------------------------------------------------ forgetting

same('DISCARD', q{SELECT nextval('a'), nextval('b')}, 'DISCARD SEQUENCES', 'SELECT lastval()', q{SELECT currval('a')},
	q{SELECT nextval('a')}, 'SELECT lastval()', q{SELECT currval('b')}, 'DISCARD ALL', q{SELECT currval('a')},
	'SELECT lastval()', q{SELECT setval('b', 205)}, q{SELECT currval('b')}, 'SELECT lastval()', q{SELECT nextval('c')},
	'SELECT lastval()', q{BEGIN; SELECT nextval('a'); DISCARD SEQUENCES; SELECT nextval('b'); COMMIT}, 'SELECT lastval()',
	q{SELECT currval('a')}, 'DISCARD PLANS', q{SELECT currval('b')});

# ------------------------------------------------------------------ several clients

$server->sql($setup);
{
	my @clients = map { $server->pool_raw } 1 .. 2;
	my $wrong = 0;
	foreach my $round (1 .. 5)
	{
		my @values;
		foreach my $i (0, 1)
		{
			$switch->next_backend;
			$values[$i] = $clients[$i]->sql(q{SELECT nextval('a')});
		}
		foreach my $i (0, 1, 1, 0)
		{
			$switch->next_backend if $round % 2;
			$wrong++ if $clients[$i]->sql(q{SELECT currval('a')}) != $values[$i];
			$wrong++ if $clients[$i]->sql('SELECT lastval()') != $values[$i];
		}
	}
	is($wrong, 0, 'two clients have each its own value of the same sequence');

	# On whatever backend, a new client knows nothing, not even after one that went without a word.
	$clients[0]->sql(q{BEGIN; SELECT nextval('b')});
	$clients[0]->reset;
	$clients[1]->close;
	foreach (1 .. 2)
	{
		$switch->next_backend;
		my $client = $server->pool_raw;
		foreach my $query (q{SELECT currval('a')}, q{SELECT currval('b')}, 'SELECT lastval()')
		{
			is($client->sql_error($query)->{C}, '55000', "a new client: $query");
		}
		$client->close;
	}
}

# Someone else's lock on a sequence does not matter to a client that does not touch it.
{
	my $client = $server->pool_raw;
	$client->sql(q{SELECT nextval('b')});
	$client->sql(q{SELECT nextval('a')});
	my $direct = $server->raw;
	$direct->sql('BEGIN; ALTER SEQUENCE a RESTART 1000; LOCK TABLE item; DROP SEQUENCE b');
	foreach (1 .. 4)
	{
		$switch->next_backend;
		is($client->sql('SELECT 42'), 42, 'a client is not held up by locks on the sequences it has used');
	}
	$direct->sql('ROLLBACK');
	$switch->next_backend;
	is($client->sql('SELECT lastval()'), $client->sql(q{SELECT currval('a')}), 'and still knows its values');
	$client->close;
	$direct->close;
}

# A model of each client: what it was told last.
sub check_against_model
{
	my ($on, $name, $before_step) = @_;
	my @names = map { "model_$_" } 1 .. 12;
	$on->sql("CREATE SEQUENCE $_ CACHE " . ($_ =~ /[37]$/ ? 5 : 1)) foreach @names;
	my @clients = map { { raw => $on->pool_raw, value => {}, last => undef } } 1 .. 6;
	my ($wrong, $asked) = (0, 0);
	my $ask = sub {
		my ($client, $query, $expected) = @_;
		my $got = defined $expected ? $client->{raw}->sql($query) : $client->{raw}->sql_error($query)->{C};
		$asked++;
		$wrong++ if $got ne (defined $expected ? $expected : '55000');
	};
	srand(4711);
	foreach my $step (1 .. 600)
	{
		my $client = $clients[ rand @clients ];
		my ($name, $action) = ($names[ rand @names ], int rand 12);
		$before_step->($step);
		if ($action < 4)
		{
			$client->{value}{$name} = $client->{raw}->sql("SELECT nextval('$name')");
			$client->{last} = $name;
		}
		elsif ($action == 4)
		{
			$client->{value}{$name} = 100000 + $step * 100;
			$client->{raw}->sql("SELECT setval('$name', $client->{value}{$name})");
		}
		elsif ($action == 5 && $step % 5 == 0)
		{
			$client->{raw}->sql('DISCARD SEQUENCES');
			@$client{ 'value', 'last' } = ({}, undef);
		}
		elsif ($action < 9)
		{
			$ask->($client, "SELECT currval('$name')", $client->{value}{$name});
		}
		else
		{
			$ask->($client, 'SELECT lastval()', defined $client->{last} ? $client->{value}{ $client->{last} } : undef);
		}
	}
	is($wrong, 0, "$name: $asked answers as the model has it");
	$_->{raw}->close foreach @clients;
	return;
}

check_against_model($server, 'six clients on two backends', sub { $switch->next_backend if $_[0] % 3 == 0 });

# More sequences than are carried: the client stays on its backend, and has all its values.
{
	$server->sql(q{DO $$ BEGIN FOR i IN 1 .. 1001 LOOP EXECUTE 'CREATE SEQUENCE many_' || i; END LOOP; END $$});
	my $client = $server->pool_raw;
	my $set = sub { my ($count) = @_; return "SELECT count(setval(('many_' || i)::regclass, i)) FROM generate_series(1, $count) AS i" };
	my $sum = q{SELECT sum(currval(('many_' || i)::regclass)) FROM generate_series(1, %d) AS i};
	$client->sql($set->(1000));
	$client->sql(q{SELECT nextval('a')});
	is($client->sql('DISCARD SEQUENCES; ' . $set->(1000)), 1000, 'as many sequences as are carried');
	foreach (1 .. 2)
	{
		$switch->next_backend;
		is($client->sql(sprintf $sum, 1000), 500500, 'are all there');
	}
	$client->sql($set->(1001));
	is($client->sql(sprintf $sum, 1001), 501501, 'and one more too');
	is($server->sql(q{SELECT count(*) FROM sluice.backends WHERE state = 'pinned'}), 1, 'on a backend of its own');
	$client->sql('DISCARD SEQUENCES');
	is($client->sql_error(q{SELECT currval('many_1')})->{C}, '55000', 'until it forgets them');
	ok($server->wait_until(q{SELECT count(*) = 0 FROM sluice.backends WHERE state = 'pinned'}), 'which sets it free');
	$client->close;
}

$server->stop;

# Every transaction on another backend.
{
	my $restless = SluiceTest->new('restless', conf => <<'CONF');
sluice.min_pool_size = 3
sluice.max_pool_size = 3
sluice.debug_force_switch = on
CONF
	check_against_model($restless, 'six clients that never stay', sub { });
	$restless->stop;
}

done_testing();
