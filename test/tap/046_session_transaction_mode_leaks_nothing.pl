# SPDX-License-Identifier: PostgreSQL
#
# In transaction mode clients share a backend transaction by transaction.
# Whatever a client leaves behind in it, no other client finds.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_backends = 1\n");
$server->sql('CREATE ROLE visitor');
$server->sql('CREATE SEQUENCE counter');
$server->sql('CREATE SCHEMA aside');
$server->sql('CREATE TABLE item AS SELECT 1 AS id; ALTER TABLE item ENABLE ROW LEVEL SECURITY; GRANT ALL ON item TO visitor');

sub simple { return RawClient::query($_[0]) }
sub extended { return RawClient::parse('', $_[0]) . RawClient::bind('', '', []) . RawClient::execute('') }

my $client = $server->pool_raw;
my $other = $server->pool_raw;
my $backend = $client->sql('SELECT pg_backend_pid()');
is($other->sql('SELECT pg_backend_pid()'), $backend, 'two clients share one backend');

# What is left, and how it would be seen.  Each query gives the value of a fresh session if nothing has leaked.
my @leaks = (
	[ 'SET', "SET work_mem = '7MB'", 'SHOW work_mem' ],
	[ 'SET of search_path', 'SET search_path = aside', 'SHOW search_path' ],
	[ 'set_config', "SELECT set_config('work_mem', '8MB', false)", 'SHOW work_mem' ],
	[ 'a setting made up', "SET app.tenant = 'blue'",
		"SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'none')" ],
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
	[ 'statement_timeout', "SET statement_timeout = '1ms'", 'SELECT 1 FROM pg_sleep(0.1)' ],
	[ 'random seed', 'SELECT setseed(0.25)', 'SELECT random() IN (SELECT 0.7) OR true' ],
	[ 'temporary table', 'CREATE TEMP TABLE own (id int)', "SELECT to_regclass('own')" ],
	[ 'temporary table that hides another', 'CREATE TEMP TABLE item (id int)', 'SELECT count(*) FROM item' ],
	[ 'temporary table, in a transaction',
		'BEGIN; CREATE TEMP TABLE own (id int); INSERT INTO own VALUES (1); COMMIT',
		"SELECT count(*) FROM pg_class WHERE relname = 'own'" ],
	[ 'temporary view and sequence', 'CREATE TEMP VIEW v AS SELECT 1; CREATE TEMP SEQUENCE s',
		"SELECT count(*) FROM pg_class WHERE relname IN ('v', 's')" ],
	[ 'temporary type and function',
		'CREATE TYPE pg_temp.t AS (a int); CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS $$SELECT 1$$',
		"SELECT count(*) FROM pg_proc WHERE proname = 'f'" ],
	[ 'temporary table by SELECT INTO', 'SELECT 1 AS id INTO TEMP own', "SELECT to_regclass('own')" ],
	[ 'temporary table made in a function', q{DO $$BEGIN CREATE TEMP TABLE own (id int); END$$},
		"SELECT to_regclass('own')" ],
	[ 'advisory lock', 'SELECT pg_advisory_lock(1)', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'" ],
	[ 'shared advisory locks, twice', 'SELECT pg_advisory_lock_shared(1, 2), pg_advisory_lock_shared(1, 2)',
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'" ],
	[ 'advisory lock of an aborted transaction', 'BEGIN; SELECT pg_advisory_lock(3); SELECT 1/0; ROLLBACK',
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'" ],
	[ 'LISTEN', 'LISTEN news', 'SELECT count(*) FROM pg_listening_channels()' ],
	[ 'WITH HOLD cursor', 'DECLARE hold CURSOR WITH HOLD FOR SELECT 1', 'SELECT count(*) FROM pg_cursors' ],
	[ 'WITH HOLD cursor of a transaction',
		'BEGIN; DECLARE hold CURSOR WITH HOLD FOR SELECT * FROM item; FETCH hold; COMMIT',
		'SELECT count(*) FROM pg_cursors' ],
	[ 'SQL PREPARE', 'PREPARE sql AS SELECT 8', 'SELECT count(*) FROM pg_prepared_statements' ],
	[ 'SQL PREPARE in a function', q{DO $$BEGIN EXECUTE 'PREPARE sql AS SELECT 8'; END$$},
		'SELECT count(*) FROM pg_prepared_statements' ],
	[ 'lastval', "SELECT nextval('counter')", 'SELECT lastval()' ],
	[ 'currval', "SELECT nextval('counter')", "SELECT currval('counter')" ],
	[ 'SET CONSTRAINTS', 'SET CONSTRAINTS ALL DEFERRED', 'SELECT 1' ]);

# Value or error, as a fresh session has it.
sub seen
{
	my ($who, $query) = @_;
	my ($answer) = grep { $_->{type} =~ /[DE]/ } $who->exchange(simple($query));
	return $answer ? RawClient::describe($answer) : 'nothing';
}

foreach my $leak (@leaks)
{
	my ($name, $make, $query) = @$leak;
	my $fresh = $server->raw;
	my $expected = seen($fresh, $query);
	$fresh->close;
	foreach my $how ('simple', 'extended', 'left without a word')
	{
		my $culprit = $how eq 'left without a word' ? $server->pool_raw : $client;
		my $failures = 0;
		foreach my $statement ($make =~ /^DO/ ? $make : split /; /, $make)
		{
			my $bytes = $how eq 'extended' ? extended($statement) . RawClient::sync() : simple($statement);
			$failures += grep { $_->{type} eq 'E' } $culprit->exchange($bytes);
		}
		is($failures, $make =~ m{1/0} ? 1 : 0, "$name: made ($how)");
		$culprit->drop if $how eq 'left without a word';
		is(seen($other, $query), $expected, "$name: not found by another client ($how)");
	}
}
is($other->sql('SELECT pg_backend_pid()'), $backend, 'all that was one backend');

# A notification is for nobody when nobody listens.
$client->sql('LISTEN news');
$server->sql("NOTIFY news, 'x'");
$other->sql('SELECT 1');
ok(!defined $other->poll_message(0.2) && !defined $client->poll_message(0), 'no notification comes to anybody');

# Within a transaction everything works as ever.
my $work = $server->pool_raw;
$work->sql('BEGIN');
$work->sql("SET work_mem = '7MB'");
is($work->sql('SHOW work_mem'), '7MB', 'SET holds until the end of the transaction');
$work->sql('CREATE TEMP TABLE own ON COMMIT DROP AS SELECT 3 AS three');
is($work->sql('SELECT three FROM own'), '3', 'temporary tables too');
$work->sql('PREPARE sql AS SELECT 4');
is($work->sql('EXECUTE sql'), '4', 'and SQL prepared statements');
is($work->sql("SELECT nextval('counter') = currval('counter')"), 't', 'and currval');
$work->sql('SET ROLE visitor');
is($work->sql('SELECT current_user'), 'visitor', 'and SET ROLE');
$work->sql('COMMIT');
is($other->sql('SELECT current_user || current_setting($$work_mem$$)'), scalar(getpwuid($>)) . '4MB',
	'and then they are gone');

# Start-up settings are a client's own, whoever was there before.
my $tuned = $server->pool_raw(parameters => { options => '-c work_mem=11MB -c app.tenant=green',
	search_path => 'aside' });
foreach (1 .. 3)
{
	is($tuned->sql(q{SELECT current_setting('work_mem') || current_setting('app.tenant') || current_setting('search_path')}), '11MBgreenaside', 'start-up settings are there');
	is($other->sql(q{SELECT current_setting('work_mem') || coalesce(nullif(current_setting('app.tenant', true), ''), 'none') || current_setting('search_path')}), '4MBnone"$user", public', 'and not for another client');
	$tuned->sql("SET work_mem = '12MB'");
	is($tuned->sql('SHOW work_mem'), '11MB', 'a SET ends with its transaction, and the start-up value is back');
	is($tuned->sql("SET work_mem = '13MB'; RESET work_mem; SHOW work_mem"), '11MB', 'RESET means the start-up value');
}
is($other->sql('RESET ALL; SHOW work_mem'), '4MB', 'RESET ALL of another client means its own');

# Settings of role and database apply.
$server->sql("CREATE ROLE tuned LOGIN; ALTER ROLE tuned SET work_mem = '14MB'; ALTER DATABASE postgres SET maintenance_work_mem = '70MB'");
my $role = $server->pool_raw(user => 'tuned');
is($role->sql("SET work_mem = '1MB'; RESET work_mem; SELECT current_setting('work_mem') || current_setting('maintenance_work_mem')"), '14MB70MB', 'settings of the role and the database apply, and survive a reset');

$server->stop;
done_testing();
