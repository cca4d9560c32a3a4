# SPDX-License-Identifier: PostgreSQL
#
# Session state that cannot be carried keeps its client on one backend, for as
# long as it exists and not longer: whatever makes it, and whatever ends it.  Or
# it is refused, where the settings say so.  Here every client changes its
# backend with every transaction, unless it is pinned.

use strict;
use warnings;

use PoolTest;
use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
wal_level = logical
max_replication_slots = 5
max_prepared_transactions = 2
sluice.debug_force_switch = on
sluice.min_pool_size = 2
sluice.max_pool_size = 2
sluice.max_backends = 20
sluice.log_pins = on
autovacuum = off
CONF
my $me = own_name();
my %settings = (
	strict => [ "sluice.on_session_state = 'error'" ],
	impatient => [ 'sluice.pin_timeout = 200' ],
	single => [ 'sluice.min_pool_size = 1', 'sluice.max_pool_size = 1', 'sluice.debug_force_switch = off' ]);
foreach my $dbname (sort keys %settings)
{
	$server->sql("CREATE DATABASE $dbname");
	$server->sql("ALTER DATABASE $dbname SET $_") foreach @{ $settings{$dbname} };
}
foreach my $dbname ('postgres', keys %settings)
{
	$server->sql('CREATE TABLE item AS SELECT i AS id FROM generate_series(1, 10) i', dbname => $dbname);
	$server->sql(q{CREATE FUNCTION run(sql text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; END$$},
		dbname => $dbname);
	$server->sql(q{CREATE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN RETURN 'undone'; END$$},
		dbname => $dbname);
}

sub simple { return RawClient::query($_[0]) }
sub extended { return RawClient::parse('', $_[0]) . RawClient::bind('', '', []) . RawClient::execute('') . RawClient::sync() }

my $watch = $server->raw;
my $name = 0;

sub new_client
{
	my (%option) = @_;
	$name++;
	return $server->pool_raw(parameters => { application_name => "client $name" }, %option);
}

sub pins_of
{
	my ($client) = @_;
	my $of = $client->{parameters}{application_name};
	return $watch->sql("SELECT array_to_string(pins, ',') FROM sluice.clients WHERE application_name = '$of'");
}

sub counter
{
	my ($what, $dbname) = @_;
	$dbname = 'postgres' unless defined $dbname;
	return $watch->sql("SELECT $what FROM sluice.pools WHERE database = '$dbname' AND role = '$me'");
}

my @reasons = qw(temporary_objects advisory_lock listen held_cursor loaded_library random_seed replication backup);
sub all_pins { return counter(join ' + ', map { "pins_$_" } @reasons, 'state_too_large') }

# On how many backends its next transactions are executed.
sub backends_of
{
	my ($client) = @_;
	my %pids = map { scalar $client->sql('SELECT pg_backend_pid()') => 1 } 1 .. 4;
	return keys %pids > 1 ? 'several' : 'one';
}

sub wait_until_gone
{
	my ($client) = @_;
	my $of = $client->{parameters}{application_name};
	select(undef, undef, undef, 0.01)
	  while $watch->sql("SELECT count(*) FROM sluice.clients WHERE application_name = '$of'") > 0;
	return;
}

# ----------------------------------------------------------------------------- pinned, and released

# What makes it; a query on it and its answer; what ends it, undef if it lasts as long as the client.  Statements are
# separated by "; ", those within a body by ". ".
my @temporary = (
	[ 'CREATE TEMP TABLE own (id int)', 'SELECT count(*) FROM own', 0, 'DROP TABLE own' ],
	[ 'CREATE TEMP TABLE own AS SELECT 1 AS id', 'SELECT id FROM own', 1, 'DISCARD TEMP' ],
	[ 'SELECT 2 AS id INTO TEMP own', 'SELECT id FROM own', 2, 'DISCARD ALL' ],
	[ 'CREATE TABLE pg_temp.own (id int)', 'SELECT count(*) FROM own', 0, 'DROP TABLE own' ],
	[ 'SET search_path = pg_temp, public; CREATE TABLE own (id int)', 'SELECT count(*) FROM pg_temp.own', 0,
		'DROP TABLE own; RESET search_path' ],
	[ 'CREATE TEMP TABLE own (id int) ON COMMIT DELETE ROWS; INSERT INTO own VALUES (1)', 'SELECT count(*) FROM own',
		0, 'DROP TABLE own' ],
	[ 'BEGIN; CREATE TEMP TABLE own (id int); INSERT INTO own VALUES (3); COMMIT', 'SELECT id FROM own', 3,
		'BEGIN; DROP TABLE own; COMMIT' ],
	[ 'BEGIN; SAVEPOINT s; CREATE TEMP TABLE own AS SELECT 4 AS id; RELEASE s; COMMIT', 'SELECT id FROM own', 4,
		'DROP TABLE own' ],
	[ 'BEGIN; CREATE TEMP TABLE own AS SELECT 5 AS id; SAVEPOINT s; DROP TABLE own; ROLLBACK TO s; COMMIT',
		'SELECT id FROM own', 5, 'DROP TABLE own' ],
	[ 'CREATE TEMP TABLE own AS SELECT 6 AS id; CREATE TEMP TABLE second (id int); DROP TABLE second',
		'SELECT id FROM own', 6, 'DROP TABLE own' ],
	[ 'CREATE TEMP TABLE own (id int) PARTITION BY LIST (id)', 'SELECT count(*) FROM own', 0, 'DROP TABLE own' ],
	[ 'CREATE TEMP VIEW own AS SELECT 7 AS id', 'SELECT id FROM own', 7, 'DROP VIEW own' ],
	[ 'CREATE TEMP SEQUENCE own START 8', q{SELECT last_value FROM own}, 8, 'DROP SEQUENCE own' ],
	[ 'CREATE TYPE pg_temp.own AS (id int)', 'SELECT (ROW(9)::pg_temp.own).id', 9, 'DROP TYPE pg_temp.own' ],
	[ q{CREATE TYPE pg_temp.own AS ENUM ('x')}, q{SELECT 'x'::pg_temp.own}, 'x', 'DROP TYPE pg_temp.own' ],
	[ 'CREATE TYPE pg_temp.own AS RANGE (subtype = int)', q{SELECT pg_temp.own(1, 2)}, '[1,2)', 'DROP TYPE pg_temp.own' ],
	[ 'CREATE DOMAIN pg_temp.own AS int', 'SELECT 10::pg_temp.own', 10, 'DROP DOMAIN pg_temp.own' ],
	[ 'CREATE FUNCTION pg_temp.own() RETURNS int LANGUAGE sql AS $$SELECT 11$$', 'SELECT pg_temp.own()', 11,
		'DROP FUNCTION pg_temp.own()' ],
	[ 'CREATE AGGREGATE pg_temp.own(int) (sfunc = int4pl, stype = int)', 'SELECT pg_temp.own(id) FROM item', 55,
		'DROP AGGREGATE pg_temp.own(int)' ],
	[ 'CREATE OPERATOR pg_temp.### (leftarg = int, rightarg = int, function = int4pl)',
		'SELECT 1 OPERATOR(pg_temp.###) 2', 3, 'DROP OPERATOR pg_temp.### (int, int)' ],
	[ 'CREATE COLLATION pg_temp.own FROM "C"', q{SELECT 'a' < 'b' COLLATE pg_temp.own}, 't', 'DROP COLLATION pg_temp.own' ],
	[ 'CREATE TEXT SEARCH CONFIGURATION pg_temp.own (COPY = simple)', q{SELECT to_tsvector('pg_temp.own', 'x')}, q{'x':1},
		'DROP TEXT SEARCH CONFIGURATION pg_temp.own' ],
	[ q{DO $$BEGIN CREATE TEMP TABLE own AS SELECT 12 AS id. END$$}, 'SELECT id FROM own', 12, 'DROP TABLE own' ],
	[ q{SELECT run('CREATE TEMP TABLE own AS SELECT 13 AS id')}, 'SELECT id FROM own', 13,
		q{SELECT run('DROP TABLE own')} ],
	[ q{SELECT run('CREATE TABLE pg_temp.own AS SELECT 14 AS id')}, 'SELECT id FROM own', 14,
		q{DO $$BEGIN EXECUTE 'DISCARD TEMP'. END$$} ],
	[ 'CREATE TEMP TABLE own AS SELECT 15 AS id; PREPARE s AS SELECT id FROM own',
		'EXECUTE s', 15, 'DROP TABLE own; DEALLOCATE s' ]);
my @locks = map { [ $_->[0], q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()}, $_->[1], $_->[2] ] } (
	[ 'SELECT pg_advisory_lock(1)', 1, 'SELECT pg_advisory_unlock(1)' ],
	[ 'SELECT pg_advisory_lock_shared(1)', 1, 'SELECT pg_advisory_unlock_shared(1)' ],
	[ 'SELECT pg_try_advisory_lock(1)', 1, 'SELECT pg_advisory_unlock_all()' ],
	[ 'SELECT pg_try_advisory_lock_shared(1)', 1, 'DISCARD ALL' ],
	[ 'SELECT pg_advisory_lock(1, 2)', 1, 'SELECT pg_advisory_unlock(1, 2)' ],
	[ 'SELECT pg_advisory_lock_shared(1, 2)', 1, 'SELECT pg_advisory_unlock_shared(1, 2)' ],
	[ 'SELECT pg_try_advisory_lock(1, 2)', 1, 'SELECT pg_advisory_unlock_all()' ],
	[ 'SELECT pg_try_advisory_lock_shared(1, 2)', 1, 'SELECT pg_advisory_unlock_all()' ],
	[ 'SELECT pg_advisory_lock(1), pg_advisory_lock(1)', 1, 'SELECT pg_advisory_unlock(1), pg_advisory_unlock(1)' ],
	[ 'SELECT pg_advisory_lock(1), pg_advisory_lock(1); SELECT pg_advisory_unlock(1)', 1, 'SELECT pg_advisory_unlock(1)' ],
	[ 'SELECT pg_advisory_lock(id) FROM item', 10, 'SELECT pg_advisory_unlock(id) FROM item' ],
	[ 'BEGIN; SELECT pg_advisory_lock(1); ROLLBACK', 1, 'SELECT pg_advisory_unlock(1)' ],
	[ 'BEGIN; SELECT pg_advisory_lock(1); SELECT 1/0; ROLLBACK', 1, 'SELECT pg_advisory_unlock(1)' ],
	[ 'BEGIN; SAVEPOINT s; SELECT pg_advisory_lock(1); ROLLBACK TO s; COMMIT', 1, 'SELECT pg_advisory_unlock(1)' ],
	[ q{DO $$BEGIN PERFORM pg_advisory_lock(1). END$$}, 1, q{DO $$BEGIN PERFORM pg_advisory_unlock(1). END$$} ],
	[ q{SELECT run('SELECT pg_advisory_lock(1)')}, 1, q{SELECT run('SELECT pg_advisory_unlock_all()')} ],
	[ q{SELECT try('SELECT pg_advisory_lock(1)')}, 1, 'SELECT pg_advisory_unlock(1)' ],
	[ 'SELECT pg_advisory_lock(1), pg_advisory_xact_lock(2)', 1, 'SELECT pg_advisory_unlock(1)' ],
	[ 'PREPARE l AS SELECT pg_advisory_lock($1); EXECUTE l (1); DEALLOCATE l', 1, 'SELECT pg_advisory_unlock(1)' ]);
my @listening = map { [ $_->[0], q{SELECT string_agg(c, ' ' ORDER BY c) FROM pg_listening_channels() c}, $_->[1], $_->[2] ] } (
	[ 'LISTEN news', 'news', 'UNLISTEN news' ],
	[ 'LISTEN news; LISTEN "other news"', 'news other news', 'UNLISTEN *' ],
	[ 'LISTEN news; LISTEN other; UNLISTEN news', 'other', 'UNLISTEN other' ],
	[ 'LISTEN news', 'news', 'DISCARD ALL' ],
	[ 'BEGIN; LISTEN news; COMMIT', 'news', 'BEGIN; UNLISTEN news; COMMIT' ],
	[ 'LISTEN news; BEGIN; UNLISTEN news; ROLLBACK', 'news', 'UNLISTEN news' ],
	[ q{DO $$BEGIN LISTEN news. END$$}, 'news', q{DO $$BEGIN UNLISTEN news. END$$} ],
	[ q{SELECT run('LISTEN news')}, 'news', q{SELECT run('UNLISTEN *')} ]);
my @cursors = (
	[ 'DECLARE c CURSOR WITH HOLD FOR SELECT id FROM item', 'FETCH BACKWARD 0 FROM c; FETCH ABSOLUTE 3 FROM c', 3, 'CLOSE c' ],
	[ 'DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT id FROM item; MOVE FORWARD ALL IN c', 'FETCH ABSOLUTE -1 FROM c', 10, 'CLOSE ALL' ],
	[ 'BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT id FROM item; FETCH 4 FROM c; COMMIT', 'FETCH ABSOLUTE 5 FROM c', 5,
		'DISCARD ALL' ],
	[ 'DECLARE c CURSOR WITH HOLD FOR SELECT 6; DECLARE d CURSOR WITH HOLD FOR SELECT 7; CLOSE c', 'FETCH ABSOLUTE 1 FROM d', 7,
		'CLOSE d' ],
	[ q{SELECT run('DECLARE c CURSOR WITH HOLD FOR SELECT 8')}, 'FETCH ABSOLUTE 1 FROM c', 8, q{SELECT run('CLOSE c')} ],
	[ 'DECLARE "C d" BINARY SCROLL CURSOR WITH HOLD FOR SELECT 9', 'FETCH ABSOLUTE 1 FROM "C d"', "\0\0\0\x09", 'CLOSE "C d"' ]);
my @others = (
	[ 'random_seed', 'SELECT setseed(0.5)', q{SELECT 1}, 1, undef ],
	[ 'random_seed', 'SET seed = 0.5', q{SELECT 1}, 1, undef ],
	[ 'random_seed', q{DO $$BEGIN PERFORM setseed(0.5). END$$}, q{SELECT 1}, 1, undef ],
	[ 'loaded_library', q{LOAD 'auto_explain'}, q{SELECT count(*) FROM pg_settings WHERE name = 'auto_explain.log_level'}, 1, undef ],
	[ 'loaded_library', q{SELECT run('LOAD ''auto_explain''')}, q{SHOW auto_explain.log_level}, 'log', undef ],
	[ 'replication', q{SELECT pg_replication_origin_session_setup('origin')}, 'SELECT pg_replication_origin_session_is_setup()', 't',
		'SELECT pg_replication_origin_session_reset()' ],
	[ 'replication', q{SELECT slot_name FROM pg_create_physical_replication_slot('own', true, true)},
		q{SELECT active_pid = pg_backend_pid() FROM pg_replication_slots}, 't', q{SELECT pg_drop_replication_slot('own')} ],
	[ 'replication', q{SELECT slot_name FROM pg_create_logical_replication_slot('own', 'test_decoding', true)},
		q{SELECT active_pid = pg_backend_pid() FROM pg_replication_slots}, 't', q{SELECT pg_drop_replication_slot('own')} ],
	[ 'backup', q{SELECT pg_backup_start('own', true) IS NOT NULL}, 'SELECT 1', 1, 'SELECT labelfile FROM pg_backup_stop(false)' ]);
$server->sql(q{SELECT pg_replication_origin_create('origin')});
my $has_decoding = $server->psql(q{SELECT pg_create_logical_replication_slot('probe', 'test_decoding', true)}) == 0;
@others = grep { $has_decoding || $_->[1] !~ /test_decoding/ } @others;

my @pins = (
	(map { [ 'temporary_objects', @$_ ] } @temporary),
	(map { [ 'advisory_lock', @$_ ] } @locks),
	(map { [ 'listen', @$_ ] } @listening),
	(map { [ 'held_cursor', @$_ ] } @cursors),
	@others);

sub finished { my ($sql) = @_; $sql =~ s/\. END\$\$/; END\$\$/g if defined $sql; return $sql }

sub run_statements
{
	my ($client, $sql, $how) = @_;
	# A body is one statement.
	my @statements = $sql =~ /^DO / ? ($sql) : split /; /, $sql;
	foreach my $statement (map { finished($_) } @statements)
	{
		my @messages = $client->exchange($how eq 'extended' ? extended($statement) : simple($statement));
		my ($error) = grep { $_->{type} eq 'E' } @messages;
		return RawClient::error_fields($error)->{M} if defined $error && $statement !~ m{1/0};
	}
	return 'ok';
}

foreach my $pin (@pins)
{
	my ($reason, $make, $query, $expected, $end) = @$pin;
	foreach my $how ('simple', 'extended')
	{
		my $client = new_client();
		my $counted = counter("pins_$reason");
		my $all = all_pins();
		is(run_statements($client, $make, $how), 'ok', "$make ($how)");
		is(pins_of($client), $reason, '  is what pins the client');
		my @rows = grep { $_->{type} eq 'D' } map { $client->exchange(simple($_)) } split /; /, $query;
		is((@rows ? (RawClient::row_fields($rows[-1]))[0] : undef), $expected, '  it is there');
		is(backends_of($client), 'one', '  the client stays where it is');
		is(pins_of($client), $reason, '  still pinned');
		if (defined $end)
		{
			is(run_statements($client, $end, $how), 'ok', "  $end");
			is(pins_of($client), undef, '  releases it');
			is(backends_of($client), 'several', '  and it moves on');
		}
		is(counter("pins_$reason") - $counted >= 1, 1, '  it is counted');
		is(all_pins() - $all, counter("pins_$reason") - $counted, '  for this reason only');
		$client->close;
		wait_until_gone($client);
	}
}

# By function call, without SQL.
{
	my $client = new_client();
	my $lock = $watch->sql(q{SELECT 'pg_advisory_lock(bigint)'::regprocedure::oid});
	$client->exchange(RawClient::function_call($lock, [ 77 ]));
	is(pins_of($client), 'advisory_lock', 'a function call pins');
	is(backends_of($client), 'one', 'and keeps the client');
	my $unlock = $watch->sql(q{SELECT 'pg_advisory_unlock(bigint)'::regprocedure::oid});
	$client->exchange(RawClient::function_call($unlock, [ 77 ]));
	is(pins_of($client), undef, 'another releases');
	$client->close;
}

# ----------------------------------------------------------------------------- never pinned

{
	my $client = new_client();
	my $all = all_pins();
	foreach my $sql (
		'CREATE TEMP TABLE own (id int) ON COMMIT DROP',
		'BEGIN; CREATE TEMP TABLE own (id int) ON COMMIT DROP; INSERT INTO own VALUES (1); SELECT * FROM own; COMMIT',
		'BEGIN; CREATE TEMP TABLE own ON COMMIT DROP AS SELECT 1 AS id; COMMIT',
		'BEGIN; CREATE TEMP TABLE own (id int); ROLLBACK',
		'BEGIN; CREATE TEMP TABLE own (id int); SELECT 1/0; COMMIT',
		'BEGIN; CREATE TEMP TABLE own (id int); DROP TABLE own; COMMIT',
		'BEGIN; SAVEPOINT s; CREATE TEMP TABLE own (id int); ROLLBACK TO s; COMMIT',
		q{SELECT try('CREATE TEMP TABLE own (id int)')},
		'CREATE TEMP VIEW own AS SELECT 1/0 FROM nowhere',
		'SET search_path = pg_temp, public; SELECT count(*) FROM item; RESET search_path',
		'DROP TABLE IF EXISTS pg_temp.own',
		q{SELECT to_regclass('pg_temp.own')},
		'DISCARD TEMP',
		'SELECT pg_advisory_xact_lock(1)',
		'BEGIN; SELECT pg_advisory_xact_lock_shared(1), pg_try_advisory_xact_lock(2, 3); COMMIT',
		'BEGIN; SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1); COMMIT',
		'SELECT pg_advisory_unlock(5)',
		'SELECT pg_advisory_unlock_all()',
		'BEGIN; LISTEN news; ROLLBACK',
		'BEGIN; LISTEN news; SELECT 1/0; ROLLBACK',
		'BEGIN; LISTEN news; UNLISTEN news; COMMIT',
		'BEGIN; SAVEPOINT s; LISTEN news; ROLLBACK TO s; COMMIT',
		q{SELECT try('LISTEN news')},
		'UNLISTEN *',
		q{NOTIFY news, 'x'},
		'BEGIN; DECLARE c CURSOR FOR SELECT * FROM item; FETCH 3 FROM c; COMMIT',
		'BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM item; ROLLBACK',
		'BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM item; CLOSE c; COMMIT',
		'BEGIN; SAVEPOINT s; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM item; ROLLBACK TO s; COMMIT',
		'BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (id - 5) FROM item WHERE 1/0 > 0; COMMIT',
		'CLOSE ALL',
		'DISCARD ALL',
		'SET work_mem = 100; PREPARE s AS SELECT 1; EXECUTE s; SET ROLE NONE; DISCARD ALL',
		q{SELECT slot_name FROM pg_create_physical_replication_slot('lasting', true, false)},
		q{SELECT pg_drop_replication_slot('lasting')},
		q{DO $$DECLARE r record. BEGIN FOR r IN SELECT id FROM item LOOP COMMIT. END LOOP. END$$},
		'COPY item TO STDOUT',
		'LOCK item')
	{
		(my $text = $sql) =~ s/\. /; /g;
		my @statements = $sql =~ /^DO / ? ($text) : split /; /, $sql;
		$client->exchange(simple($_)) foreach @statements;
		is(pins_of($client), undef, "$sql: pins nobody");
		is(backends_of($client), 'several', '  the client moves on');
	}
	is(all_pins(), $all, 'nothing was counted');
	$client->close;
}

# ----------------------------------------------------------------------------- several reasons, and what is carried beside them

{
	my $offset = $server->log_size;
	my $client = new_client();
	$client->sql($_) foreach "SET work_mem = '7MB'", 'CREATE TEMP TABLE own (id int)', 'LISTEN news', 'SELECT pg_advisory_lock(5)',
	  'PREPARE s AS SELECT 16', 'DECLARE c CURSOR WITH HOLD FOR SELECT 17';
	is(pins_of($client), 'temporary_objects,advisory_lock,listen,held_cursor', 'several reasons at once');
	$client->sql($_) foreach 'UNLISTEN *', 'CLOSE c', 'SELECT pg_advisory_unlock(5)';
	is(pins_of($client), 'temporary_objects', 'one is left');
	is(backends_of($client), 'one', 'one is enough');
	$client->sql("SET app.tenant = 'blue'");
	$client->sql('DROP TABLE own');
	is(backends_of($client), 'several', 'none is left');
	is($client->sql(q{SELECT current_setting('work_mem') || current_setting('app.tenant')}), '7MBblue',
		'settings made before and while it was pinned are carried on');
	is($client->sql('EXECUTE s'), '16', 'and statements');
	$client->close;
	my $log = $server->log_since($offset);
	like($log, qr/LOG:  client \d+ of pool "[^"]+", application "[^"]*", pinned to its backend: temporary_objects\n/, 'log_pins: pinned');
	like($log, qr/LOG:  client \d+ of pool "[^"]+", application "[^"]*", pinned to its backend: temporary_objects, advisory_lock, listen, held_cursor\n/, 'log_pins: all reasons');
	like($log, qr/LOG:  client \d+ of pool "[^"]+" released from its backend after \d+ ms\n/, 'log_pins: released');
	unlike($log, qr/(?:pinned to|released from) its backend.*\n.*STATEMENT/, 'without the statement');
	$offset = $server->log_size;
	my $quiet = new_client();
	$quiet->sql($_) foreach 'SET sluice.log_pins = off', 'CREATE TEMP TABLE own (id int)', 'DROP TABLE own';
	$quiet->close;
	unlike($server->log_since($offset), qr/pinned to its backend/, 'log_pins = off');
}

# Random numbers are those of a direct connection.
{
	my ($direct, $pooled) = ($server->raw, new_client());
	$_->sql('SELECT setseed(0.25)') foreach $direct, $pooled;
	foreach my $query ('SELECT random(), random()', 'SELECT random() FROM item', 'SET seed = -0.5', 'SELECT random(), random()')
	{
		my @rows = map { [ map { RawClient::describe($_) } $_->exchange(simple($query)) ] } $direct, $pooled;
		is_deeply($rows[1], $rows[0], "after setseed: $query");
	}
	$_->close foreach $direct, $pooled;
}

# ----------------------------------------------------------------------------- the pinned client leaves

my @ends = (
	[ 'goodbye', sub { $_[0]->close } ],
	[ 'without a word', sub { $_[0]->drop } ],
	[ 'a reset connection', sub { $_[0]->reset } ],
	[ 'pg_terminate_backend', sub { $watch->sql('SELECT pg_terminate_backend(' . $_[0]->sql('SELECT pg_backend_pid()') . ')') } ],
	[ 'disconnect_client', sub { $watch->sql("SELECT sluice.disconnect_client(client) FROM sluice.clients WHERE application_name = '$_[0]{parameters}{application_name}'") } ],
	[ 'in the middle of a message', sub { $_[0]->send_bytes("Q\0\0\1\0SEL"); $_[0]->drop } ],
	[ 'in a transaction', sub { $_[0]->sql('BEGIN'); $_[0]->drop } ],
	[ 'while it executes', sub { $_[0]->send_bytes(simple('SELECT pg_sleep(600)')); $server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1); $_[0]->drop } ]);
foreach my $end (@ends)
{
	my ($how, $leave) = @$end;
	my $client = new_client(dbname => 'single');
	$client->sql($_) foreach 'CREATE TEMP TABLE own (id int)', 'LISTEN news', 'SELECT pg_advisory_lock(5)', 'SELECT setseed(0.1)',
	  'DECLARE c CURSOR WITH HOLD FOR SELECT 17', "SET work_mem = '7MB'", "SET app.tenant = 'blue'", 'PREPARE s AS SELECT 1';
	my $pid = $client->sql('SELECT pg_backend_pid()');
	is(pins_of($client), 'temporary_objects,advisory_lock,listen,held_cursor,random_seed', "a client that leaves: $how");
	$leave->($client);
	wait_until_gone($client);
	my $next = new_client(dbname => 'single');
	is($next->sql(q{SELECT to_regclass('own')}), undef, '  its table is gone');
	is($next->sql('SELECT count(*) FROM pg_listening_channels()'), 0, '  nobody listens');
	is($next->sql('SELECT count(*) FROM pg_cursors WHERE is_holdable'), 0, '  its cursor is gone');
	is($next->sql('SELECT count(*) FROM pg_prepared_statements'), 0, '  its statement too');
	is($next->sql(q{SELECT current_setting('work_mem') || coalesce(current_setting('app.tenant', true), 'none')}), '4MBnone', '  its settings');
	is($next->sql('SELECT pg_try_advisory_lock(5)'), 't', '  its lock can be taken');
	$next->close;
	wait_until_gone($next);
	is($watch->sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), 0, '  no lock is left');
	is(counter('pinned', 'single'), 0, '  nobody is pinned');
	$client->drop;
}

# A library cannot be unloaded: its backend is not used again.
{
	my $client = new_client(dbname => 'single');
	my $pid = $client->sql('SELECT pg_backend_pid()');
	$client->sql(q{LOAD 'auto_explain'});
	is($client->sql('SELECT pg_backend_pid()'), $pid, 'LOAD keeps the client where it is');
	$client->sql('DISCARD ALL');
	is(pins_of($client), 'loaded_library', 'for good');
	is($client->sql('SHOW auto_explain.log_level'), 'log', 'with its settings');
	$client->close;
	wait_until_gone($client);
	my $next = new_client(dbname => 'single');
	isnt($next->sql('SELECT pg_backend_pid()'), $pid, 'the backend is renewed when it leaves');
	is($next->sql_error('SHOW auto_explain.log_level')->{C}, '42704', 'and the next client knows nothing of it');
	$next->close;
}

# ----------------------------------------------------------------------------- notifications

{
	my ($listener, $bystander, $sender) = map { new_client() } 1 .. 3;
	$listener->sql('LISTEN news');
	$listener->sql('LISTEN "Other News"');
	my $payload = join '', map { chr(33 + $_ % 90) } 1 .. 7990;
	$payload =~ s/'/x/g;
	foreach my $case ([ 'a pooled client', $sender ], [ 'a direct one', $watch ])
	{
		my ($from, $who) = @$case;
		$who->sql("NOTIFY news, 'hello'");
		my ($message) = $listener->read_until('A');
		is(RawClient::describe($message), 'NotificationResponse news=hello', "an idle client is notified by $from");
		is(unpack('N', $message->{body}), $who->sql('SELECT pg_backend_pid()'), '  and told by which backend') if $who == $watch;
		$who->sql("SELECT pg_notify('Other News', '$payload')");
		($message) = $listener->read_until('A');
		is((split /\0/, substr($message->{body}, 4), -1)[1], $payload, '  the payload is what was sent');
		$who->sql('BEGIN');
		$who->sql("NOTIFY news, '$_'") foreach 1 .. 20;
		$who->sql('COMMIT');
		is(join(' ', map { (split /\0/, substr(($listener->read_until('A'))[-1]{body}, 4), -1)[1] } 1 .. 20), join(' ', 1 .. 20),
			'  twenty of one transaction come in order');
	}
	# One's own come before ReadyForQuery.
	my @types = map { $_->{type} } $listener->exchange(simple("NOTIFY news, 'self'"));
	is("@types", 'C A Z', 'a notification to oneself comes with the answer');
	# None within a transaction.
	$listener->sql('BEGIN');
	$watch->sql("NOTIFY news, 'later'");
	my @messages = $listener->exchange(simple('SELECT 1'));
	is(scalar(grep { $_->{type} eq 'A' } @messages), 0, 'none in a transaction');
	@messages = $listener->exchange(simple('COMMIT'));
	push @messages, $listener->read_until('A') unless grep { $_->{type} eq 'A' } @messages;
	is(join(' ', map { RawClient::describe($_) } grep { $_->{type} eq 'A' } @messages), 'NotificationResponse news=later', 'but after it');
	$bystander->sql('SELECT 1');
	ok(!defined $bystander->poll_message(0.1), 'nobody else is notified');
	$listener->sql('UNLISTEN news');
	$watch->sql("NOTIFY news, 'nobody'; NOTIFY \"Other News\", 'somebody'");
	is(RawClient::describe(($listener->read_until('A'))[-1]), 'NotificationResponse Other News=somebody', 'one channel can be left');
	$_->close foreach $listener, $bystander, $sender;
}

# ----------------------------------------------------------------------------- sluice.pin_timeout

{
	my $unpinned = new_client(dbname => 'impatient');
	my $in_transaction = new_client(dbname => 'impatient');
	$unpinned->sql('SELECT 1');
	$in_transaction->sql($_) foreach 'CREATE TEMP TABLE own (id int); BEGIN';
	my $offset = $server->log_size;
	my $client = new_client(dbname => 'impatient');
	$client->sql('CREATE TEMP TABLE own (id int)');
	# Longer than the limit, but not idle.
	is($client->sql('SELECT 3 FROM pg_sleep(0.4)'), 3, 'a pinned client may execute for as long as it likes');
	my @messages = $client->read_until('');
	is(join(', ', map { RawClient::describe($_) } @messages),
		'ErrorResponse C=57P05; D=The client kept its backend because of: temporary_objects.; '
		. 'M=terminating connection due to pin timeout; S=FATAL; V=FATAL, EOF', 'an idle one is ended');
	is(counter('pin_timeouts', 'impatient'), 1, 'and counted');
	like($server->log_since($offset), qr/FATAL:  terminating connection due to pin timeout/, 'and logged');
	is($unpinned->sql('SELECT 4'), 4, 'a client that is not pinned may be idle');
	is($in_transaction->sql('SELECT count(*) FROM own'), 0, 'a transaction is not idleness');
	$in_transaction->send_bytes(simple('COMMIT'));
	@messages = $in_transaction->read_until('');
	is(RawClient::error_fields($messages[-2])->{C}, '57P05', 'after it the limit counts');
	my $released = new_client(dbname => 'impatient');
	$released->sql('CREATE TEMP TABLE own (id int); DROP TABLE own');
	is($unpinned->sql('SELECT 5 FROM pg_sleep(0.5)'), 5, 'time passes');
	is($released->sql('SELECT 6'), 6, 'a client that was released may be idle');
	is($server->sql(q{SELECT count(*) FROM pg_class WHERE relpersistence = 't'}, dbname => 'impatient'), 0, 'nothing is left of the others');
	is(counter('pin_timeouts', 'impatient'), 2, 'all were counted');
	# A limit of the client's own.
	$released->sql('SET sluice.pin_timeout = 0');
	$released->sql('LISTEN news');
	is($unpinned->sql('SELECT 7 FROM pg_sleep(0.5)'), 7, 'time passes');
	is($released->sql('SELECT 8'), 8, 'the limit can be lifted for a session');
	$_->close foreach $unpinned, $released;
}

# ----------------------------------------------------------------------------- sluice.on_session_state = error

{
	my $client = new_client(dbname => 'strict');
	my $hint = 'For roles or databases that need it, set "sluice.on_session_state" to "pin" or "sluice.pool_mode" to "session", with ALTER ROLE or ALTER DATABASE.';
	my %detail = (
		temporary_objects => 'temporary objects',
		advisory_lock => 'an advisory lock held by the session',
		listen => 'listening to notifications',
		held_cursor => 'a cursor WITH HOLD',
		loaded_library => 'a library loaded by LOAD',
		random_seed => 'a seed set by setseed',
		replication => 'a replication origin or temporary replication slot',
		backup => 'an online backup in progress');
	my $refused = counter('pins_refused', 'strict');
	foreach my $pin (@pins)
	{
		my ($reason, $make) = @$pin;
		my @statements = map { finished($_) } $make =~ /^DO / ? ($make) : split /; /, $make;
		foreach my $how ('simple', 'extended')
		{
			my ($error, $broken);
			foreach my $statement (@statements)
			{
				my @messages = $client->exchange($how eq 'extended' ? extended($statement) : simple($statement));
				($error) = map { RawClient::error_fields($_) } grep { $_->{type} eq 'E' } @messages unless defined $error;
				last if defined $error;
			}
			is_deeply([ @{ $error || {} }{qw(V C M D H)} ], [ 'ERROR', '0A000', 'statement would bind this client to one backend',
				"Session state that cannot be carried between backends: $detail{$reason} ($reason).", $hint ], "refused: $make ($how)");
			$client->sql('ROLLBACK') if $client->transaction_state ne 'I';
			$client->sql('RESET search_path');
			$client->sql('DEALLOCATE ALL');
			is(pins_of($client), undef, '  the client is not pinned');
			$refused++;
			is(counter('pins_refused', 'strict'), $refused, '  it is counted');
		}
	}
	is(counter('pins_temporary_objects + pins_advisory_lock + pins_listen + pins_held_cursor + pins_loaded_library + pins_random_seed + pins_replication + pins_backup', 'strict'), 0, 'nobody was ever pinned');
	foreach my $sql ('CREATE TEMP TABLE own (id int) ON COMMIT DROP',
		'BEGIN; CREATE TEMP TABLE own (id int) ON COMMIT DROP; CREATE INDEX ON own (id); INSERT INTO own VALUES (1); SELECT * FROM own; COMMIT',
		'BEGIN; CREATE TEMP TABLE own ON COMMIT DROP AS SELECT 1 AS id; ALTER TABLE own ADD b int; TRUNCATE own; COMMIT',
		q{SELECT run('CREATE TEMP TABLE own (id int) ON COMMIT DROP')},
		'SELECT pg_advisory_xact_lock(1)', 'SELECT pg_try_advisory_xact_lock_shared(1, 2)',
		'SELECT pg_advisory_unlock(1), pg_advisory_unlock_all()', 'UNLISTEN *', q{NOTIFY news, 'x'}, 'CLOSE ALL', 'DISCARD TEMP', 'DISCARD ALL',
		'BEGIN; DECLARE c CURSOR FOR SELECT * FROM item; FETCH 3 FROM c; CLOSE c; COMMIT',
		"SET work_mem = '5MB'", 'PREPARE s AS SELECT 1', 'EXECUTE s', 'DEALLOCATE s', 'SET ROLE NONE', 'SELECT random()',
		'CREATE TABLE lasting (id int)', 'CREATE TABLE second AS SELECT 1 AS id', 'CREATE VIEW seen AS SELECT 1 AS one',
		'CREATE SEQUENCE lasting_ids', 'CREATE TYPE kind AS (id int)', 'DROP TABLE lasting, second', 'SET search_path = pg_temp, public',
		'SELECT count(*) FROM item', 'RESET search_path', q{SELECT slot_name FROM pg_create_physical_replication_slot('lasting', true, false)},
		q{SELECT pg_drop_replication_slot('lasting')})
	{
		foreach my $statement (split /; /, $sql)
		{
			my ($error) = grep { $_->{type} eq 'E' } $client->exchange(simple($statement));
			is((defined $error ? RawClient::error_fields($error)->{M} : undef), undef, "allowed: $statement");
		}
		is(pins_of($client), undef, '  and the client is not pinned');
	}
	is(counter('pins_refused', 'strict'), $refused, 'nothing of that was refused');
	is($watch->sql(q{SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + (SELECT count(*) FROM pg_replication_slots)}), 0,
		'no trace of what was refused');
	is($server->sql(q{SELECT count(*) FROM pg_class WHERE relpersistence = 't'}, dbname => 'strict'), 0, 'no temporary object either');
	# Refused in the middle of a transaction: the transaction has failed, the connection goes on.
	$client->sql('BEGIN');
	$client->sql('CREATE TABLE undone (id int)');
	is($client->sql_error('CREATE TEMP TABLE own (id int)')->{C}, '0A000', 'refused in a transaction');
	is($client->transaction_state, 'E', 'which has failed');
	$client->sql('ROLLBACK');
	is($client->sql(q{SELECT to_regclass('undone')}), undef, 'all of it is undone');
	# What was temporary stays known to be, whatever fails after it.
	$client->sql($_) foreach 'BEGIN', 'CREATE TEMP TABLE own (id int) ON COMMIT DROP', 'SAVEPOINT s';
	is($client->sql_error('CREATE TABLE item (id int)')->{C}, '42P07', 'a statement fails');
	$client->sql('ROLLBACK TO s');
	is($client->sql_error(q{PREPARE TRANSACTION 'own'})->{M}, 'cannot PREPARE a transaction that has operated on temporary objects',
		'a transaction with temporary objects cannot be prepared');
	is($client->transaction_state, 'I', 'it has ended');
	is($client->sql(q{SELECT try('CREATE TEMP TABLE own (id int) ON COMMIT DROP')}), 'undone', 'an exception within a function');
	# Superusers may lift it.
	$client->sql("SET sluice.on_session_state = 'pin'");
	$client->sql('CREATE TEMP TABLE own (id int)');
	is(pins_of($client), 'temporary_objects', 'with the setting changed, it pins');
	$client->close;
}

$server->stop;
done_testing();
