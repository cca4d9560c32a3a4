# SPDX-License-Identifier: PostgreSQL
#
# In transaction mode clients share backends transaction by transaction.  What a
# client has made in its session it finds in all its transactions, as on a direct
# connection, also when each is executed by another backend; no other client
# finds it, neither while the client is there nor after it has left.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

# No more backends than three: three clients in transactions look into all there are.
my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 3
sluice.min_pool_size = 3
sluice.max_backends = 3
autovacuum = off
CONF
my $me = getpwuid($>);
$server->sql('CREATE ROLE visitor');
$server->sql('CREATE SEQUENCE counter');
$server->sql('CREATE SCHEMA aside');
$server->sql('CREATE TABLE item AS SELECT 1 AS id; ALTER TABLE item ENABLE ROW LEVEL SECURITY; GRANT ALL ON item TO visitor');
$server->sql('CREATE ROLE tuned LOGIN');
$server->sql("ALTER ROLE tuned SET work_mem = '14MB'");
$server->sql("ALTER DATABASE postgres SET maintenance_work_mem = '70MB'");

sub simple { return RawClient::query($_[0]) }
sub extended { return RawClient::parse('', $_[0]) . RawClient::bind('', '', []) . RawClient::execute('') }

# The numbers that follow from a seed.
my $seeded = $server->raw;
$seeded->sql('SELECT setseed(0.25)');
my $seeded_numbers = join ', ', map { $seeded->sql('SELECT random()') } 1 .. 5;
$seeded->close;

# What is made, how it would be seen, and whether it binds its client to a backend.
my @leaks = (
	[ 'SET', "SET work_mem = '7MB'", 'SHOW work_mem' ],
	[ 'SET of search_path', 'SET search_path = aside', 'SHOW search_path' ],
	[ 'set_config', "SELECT set_config('work_mem', '8MB', false)", 'SHOW work_mem' ],
	[ 'a setting made up', "SET app.tenant = 'blue'",
		"SELECT coalesce(current_setting('app.tenant', true), 'none')" ],
	[ 'the trace of a setting made up', "BEGIN; SET LOCAL app.tenant = 'blue'; COMMIT",
		"SELECT coalesce(current_setting('app.tenant', true), 'none')" ],
	[ 'SET in a committed transaction', "BEGIN; SET work_mem = '9MB'; COMMIT", 'SHOW work_mem' ],
	[ 'SET within a function', q{DO $$BEGIN SET work_mem = '6MB'; END$$}, 'SHOW work_mem' ],
	[ 'update of pg_settings', q{UPDATE pg_settings SET setting = '5000' WHERE name = 'work_mem'}, 'SHOW work_mem' ],
	[ 'SET SESSION CHARACTERISTICS', 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY',
		'SHOW transaction_read_only' ],
	[ 'SET TIME ZONE', q{SET TIME ZONE INTERVAL '3' HOUR TO MINUTE}, 'SHOW timezone' ],
	[ 'SET NAMES', q{SET NAMES 'LATIN1'}, 'SHOW client_encoding' ],
	[ 'SET ROLE', 'SET ROLE visitor', 'SELECT current_user' ],
	[ 'SET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION visitor', 'SELECT session_user' ],
	[ 'role as a setting', "SELECT set_config('role', 'visitor', false)", 'SELECT current_user' ],
	[ 'row_security', 'SET row_security = off', 'SHOW row_security' ],
	[ 'row_security, obeyed', 'SET row_security = off; SET ROLE visitor', 'SELECT count(*) FROM item' ],
	[ 'statement_timeout', "SET statement_timeout = '1ms'", 'SELECT 1 FROM pg_sleep(0.1)' ],
	[ 'random seed', 'SELECT setseed(0.25)', "SELECT random() IN ($seeded_numbers)", 'random_seed' ],
	[ 'temporary table', 'CREATE TEMP TABLE own (id int)', "SELECT to_regclass('own')", 'temporary_objects' ],
	[ 'temporary table that hides another', 'CREATE TEMP TABLE item (id int)', 'SELECT count(*) FROM item',
		'temporary_objects' ],
	[ 'temporary table, in a transaction',
		'BEGIN; CREATE TEMP TABLE own (id int); INSERT INTO own VALUES (1); COMMIT',
		"SELECT count(*) FROM pg_class WHERE relname = 'own' AND pg_table_is_visible(oid)", 'temporary_objects' ],
	[ 'temporary view and sequence', 'CREATE TEMP VIEW v AS SELECT 1; CREATE TEMP SEQUENCE s',
		"SELECT count(*) FROM pg_class WHERE relname IN ('v', 's') AND pg_table_is_visible(oid)", 'temporary_objects' ],
	[ 'temporary type and function',
		'CREATE TYPE pg_temp.t AS (a int); CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS $$SELECT 1$$',
		q{SELECT count(*) FROM pg_proc WHERE proname = 'f' AND pronamespace = pg_my_temp_schema()}, 'temporary_objects' ],
	[ 'temporary table by SELECT INTO', 'SELECT 1 AS id INTO TEMP own', "SELECT to_regclass('own')",
		'temporary_objects' ],
	[ 'temporary table made in a function', q{DO $$BEGIN CREATE TEMP TABLE own (id int); END$$},
		"SELECT to_regclass('own')", 'temporary_objects' ],
	[ 'advisory lock', 'SELECT pg_advisory_lock(1)',
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", 'advisory_lock' ],
	[ 'shared advisory locks, twice', 'SELECT pg_advisory_lock_shared(1, 2), pg_advisory_lock_shared(1, 2)',
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", 'advisory_lock' ],
	[ 'advisory lock of an aborted transaction', 'BEGIN; SELECT pg_advisory_lock(3); SELECT 1/0; ROLLBACK',
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", 'advisory_lock' ],
	[ 'LISTEN', 'LISTEN news', 'SELECT count(*) FROM pg_listening_channels()', 'listen' ],
	[ 'WITH HOLD cursor', 'DECLARE hold CURSOR WITH HOLD FOR SELECT 1', 'SELECT count(*) FROM pg_cursors WHERE is_holdable',
		'held_cursor' ],
	[ 'WITH HOLD cursor of a transaction',
		'BEGIN; DECLARE hold CURSOR WITH HOLD FOR SELECT * FROM item; FETCH hold; COMMIT',
		'SELECT count(*) FROM pg_cursors WHERE is_holdable', 'held_cursor' ],
	[ 'LOAD', q{LOAD 'auto_explain'}, "SELECT count(*) FROM pg_settings WHERE name = 'auto_explain.log_level'",
		'loaded_library' ],
	[ 'SQL PREPARE', 'PREPARE sql AS SELECT 8', 'SELECT count(*) FROM pg_prepared_statements' ],
	[ 'SQL PREPARE in a function', q{DO $$BEGIN EXECUTE 'PREPARE sql AS SELECT 8'; END$$},
		'SELECT count(*) FROM pg_prepared_statements' ],
	[ 'SQL PREPARE, executed', 'PREPARE sql AS SELECT 8', 'EXECUTE sql' ],
	[ 'SQL PREPARE, executed in a function', 'PREPARE sql AS SELECT 8', q{DO $$BEGIN EXECUTE 'EXECUTE sql'; END$$} ],
	[ 'lastval', "SELECT nextval('counter')", "SELECT lastval() = currval('counter')" ],
	[ 'currval', "SELECT nextval('counter')", "SELECT currval('counter') > 0" ],
	[ 'SET CONSTRAINTS', 'SET CONSTRAINTS ALL DEFERRED', 'SELECT 1' ]);

# Value or error.
sub seen
{
	my ($who, $query) = @_;
	my ($answer) = grep { $_->{type} =~ /[DE]/ } $who->exchange(simple($query));
	return $answer ? RawClient::describe($answer) : 'nothing';
}

# In all backends that are not bound: each of these clients keeps one for itself while it looks.
sub seen_by_all
{
	my ($query, @lookers) = @_;
	my (%seen, @pids);
	foreach my $looker (@lookers)
	{
		$looker->sql('BEGIN');
		push @pids, $looker->sql('SELECT pg_backend_pid()');
		$seen{ seen($looker, $query) } = 1;
	}
	$_->sql('ROLLBACK') foreach @lookers;
	die 'the same backend for both' if keys %{ { map { $_ => 1 } @pids } } < @lookers;
	return join ' and ', sort keys %seen;
}

sub make
{
	my ($client, $make, $how) = @_;
	my $failures = 0;
	foreach my $statement ($make =~ /^DO/ ? $make : split /; /, $make)
	{
		my $bytes = $how eq 'extended' ? extended($statement) . RawClient::sync() : simple($statement);
		$failures += grep { $_->{type} eq 'E' } $client->exchange($bytes);
	}
	return $failures;
}

my $pins_query = q{SELECT coalesce(max(pins::text), '') FROM sluice.clients WHERE application_name = 'maker'};
my $left_query = q{SELECT count(*) FROM sluice.clients WHERE application_name = 'maker'};
my $traces_query = q{SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
	+ (SELECT count(*) FROM pg_class WHERE relpersistence = 't')};

sub look_for_leaks
{
	my ($switching) = @_;
	my $watch = $server->raw;
	my @lookers = map { $server->pool_raw } 1 .. 3;
	foreach my $leak (@leaks)
	{
		my ($name, $make, $query, $pin) = @$leak;
		my $direct = $server->raw;
		my $nothing = seen_by_all($query, $direct);
		make($direct, $make, 'simple');
		my @own = map { seen($direct, $query) } 1 .. 3;
		$direct->close;
		foreach my $how ('simple', 'extended', 'left without a word')
		{
			my $client = $server->pool_raw(parameters => { application_name => 'maker' });
			is(make($client, $make, $how), $make =~ m{1/0} ? 1 : 0, "$name: made ($how, $switching)");
			is_deeply([ map { seen($client, $query) } 1 .. 3 ], \@own, "$name: kept");
			is($watch->sql($pins_query), defined $pin ? "{$pin}" : '', "$name: what binds the client");
			is(seen_by_all($query, @lookers[ 0 .. (defined $pin ? 1 : 2) ]), $nothing, "$name: not found by another client");
			if ($how eq 'left without a word') { $client->drop; }
			else { $client->close; }
			select(undef, undef, undef, 0.01) while $watch->sql($left_query) != 0;
			is(seen_by_all($query, @lookers), $nothing, "$name: nor after it has left");
			is($watch->sql($traces_query), 0, "$name: no lock and no temporary object is left");
		}
	}
	$_->close foreach @lookers, $watch;
	return;
}

# A notification is for the client that listens, on whatever backend the others are.
sub notify
{
	my $watch = $server->raw;
	my $client = $server->pool_raw;
	my $other = $server->pool_raw;
	$client->sql('LISTEN news');
	$watch->sql("NOTIFY news, 'x'");
	is(RawClient::describe($client->read_until('A')), 'NotificationResponse news=x', 'it comes to the listener');
	$other->sql('SELECT 1');
	ok(!defined $other->poll_message(0.2), 'and to nobody else');
	$client->sql('UNLISTEN news');
	$watch->sql("NOTIFY news, 'y'");
	$_->sql('SELECT 1') foreach $client, $other;
	ok(!defined $other->poll_message(0.2) && !defined $client->poll_message(0), 'when nobody listens, to nobody');
	$_->close foreach $client, $other, $watch;
	return;
}

# Several states at once: all of it stays, and another client has none.
sub keep_everything
{
	my ($switching) = @_;
	my $work = $server->pool_raw;
	my $bystander = $server->pool_raw;
	$work->sql('BEGIN');
	$work->sql("SET work_mem = '7MB'");
	is($work->sql('SHOW work_mem'), '7MB', 'SET holds in the transaction');
	$work->sql('CREATE TEMP TABLE own ON COMMIT DROP AS SELECT 3 AS three');
	is($work->sql('SELECT three FROM own'), '3', 'temporary tables too');
	$work->sql('PREPARE sql AS SELECT 4');
	is($work->sql('EXECUTE sql'), '4', 'and SQL prepared statements');
	is($work->sql("SELECT nextval('counter') = currval('counter')"), 't', 'and currval');
	$work->sql('SET ROLE visitor');
	is($work->sql('SELECT current_user'), 'visitor', 'and SET ROLE');
	$work->sql('COMMIT');
	my $pid = $work->sql('SELECT pg_backend_pid()');
	if ($switching) { isnt($work->sql('SELECT pg_backend_pid()'), $pid, 'the client moves on to another backend'); }
	foreach (1 .. 3)
	{
		is($bystander->sql('SELECT current_user || current_setting($$work_mem$$)'), "${me}4MB", 'another client has nothing of it');
		is($work->sql('SELECT current_user || current_setting($$work_mem$$)'), 'visitor7MB', 'the client that made it has it');
		is($work->sql('EXECUTE sql'), '4', 'and its statement');
		is($work->sql("SELECT to_regclass('own')"), undef, 'but not what went with the transaction');
	}
	$work->sql('RESET ROLE');
	is($work->sql("SELECT currval('counter') = lastval()"), 't', 'and currval');
	$_->close foreach $work, $bystander;
	return;
}

# Start-up settings are a client's own, whoever was there before.
sub keep_startup_settings
{
	my $plain = $server->pool_raw;
	my $tuned = $server->pool_raw(parameters => {
		options => '-c work_mem=11MB -c app.tenant=green', search_path => 'aside' });
	my $settings = q{SELECT current_setting('work_mem') || coalesce(current_setting('app.tenant', true), 'none') || current_setting('search_path')};
	foreach (1 .. 3)
	{
		is($tuned->sql($settings), '11MBgreenaside', 'start-up settings are there');
		is($plain->sql($settings), '4MBnone"$user", public', 'and not for another client');
		$tuned->sql("SET work_mem = '12MB'; SET app.tenant = 'red'");
		is($tuned->sql($settings), '12MBredaside', 'a SET lies above them');
		is($plain->sql($settings), '4MBnone"$user", public', 'for this client only');
		is($tuned->sql("SET work_mem = '13MB'; RESET work_mem; SHOW work_mem"), '11MB', 'RESET means the start-up value');
		$tuned->sql('RESET ALL');
		is($tuned->sql($settings), '11MBgreenaside', 'so does RESET ALL');
	}
	is($plain->sql('RESET ALL; SHOW work_mem'), '4MB', 'RESET ALL of another client means its own');
	$_->close foreach $plain, $tuned;
	return;
}

foreach my $switching (0, 1)
{
	look_for_leaks($switching ? 'another backend each time' : 'the same backend');
	notify();
	keep_everything($switching);
	keep_startup_settings();
	last if $switching;
	$server->node->append_conf('postgresql.conf', "sluice.debug_force_switch = on\n");
	$server->restart;
}

# Settings of role and database apply.  Their backends need room.
$server->sql('ALTER ROLE tuned SET sluice.max_pool_size = 1');
$server->sql('ALTER ROLE tuned SET sluice.min_pool_size = 0');
my $role = $server->pool_raw(user => 'tuned');
is($role->sql("SET work_mem = '1MB'; RESET work_mem; SELECT current_setting('work_mem') || current_setting('maintenance_work_mem')"), '14MB70MB', 'settings of the role and the database apply, and survive a reset');

$server->stop;
done_testing();
