# SPDX-License-Identifier: PostgreSQL
#
# In session mode a client has one backend until it leaves: its session state is
# kept as on a direct connection, and gone for the next client of that backend.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main',
	conf => "sluice.pool_mode = 'session'\nsluice.max_pool_size = 1\nsluice.min_pool_size = 1\n");
$server->sql('CREATE ROLE visitor');
$server->sql('CREATE SEQUENCE counter');

sub simple { return RawClient::query($_[0]) }

my $client = $server->pool_raw;
my $backend = $client->sql('SELECT pg_backend_pid()');
my $listener = $server->raw;

# Each thing a session may keep: how it is made, how it is seen within the session, and what another session sees.
my @states = (
	[ 'SET', "SET work_mem = '7MB'", 'SHOW work_mem', '7MB', '4MB' ],
	[ 'set_config', "SELECT set_config('app.tenant', 'blue', false)",
		"SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'none')", 'blue', 'none' ],
	[ 'SET ROLE', 'SET ROLE visitor', "SELECT CASE current_user WHEN 'visitor' THEN 'visitor' ELSE 'self' END",
		'visitor', 'self' ],
	[ 'SET SESSION AUTHORIZATION', 'RESET ROLE; SET SESSION AUTHORIZATION visitor',
		"SELECT CASE session_user WHEN 'visitor' THEN 'visitor' ELSE 'self' END", 'visitor', 'self' ],
	[ 'back to oneself', 'RESET SESSION AUTHORIZATION',
		"SELECT CASE session_user WHEN 'visitor' THEN 'visitor' ELSE 'self' END", 'self', 'self' ],
	[ 'temporary table', 'CREATE TEMP TABLE own AS SELECT 5 AS five', "SELECT to_regclass('own') IS NOT NULL", 't',
		'f' ],
	[ 'temporary function', 'CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS $$SELECT 6$$',
		"SELECT count(*) FROM pg_proc WHERE proname = 'f' AND pronamespace = pg_my_temp_schema()", '1', '0' ],
	[ 'advisory lock', 'SELECT pg_advisory_lock(77)',
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", '1', '0' ],
	[ 'SQL PREPARE', 'PREPARE sql AS SELECT 8', 'SELECT count(*) FROM pg_prepared_statements', '1', '0' ],
	[ 'WITH HOLD cursor', 'DECLARE hold CURSOR WITH HOLD FOR SELECT generate_series(1, 3)',
		'SELECT count(*) FROM pg_cursors', '1', '0' ],
	[ 'LISTEN', 'LISTEN news', 'SELECT count(*) FROM pg_listening_channels()', '1', '0' ],
	[ 'currval', "SELECT nextval('counter')", "SELECT count(lastval())", '1', 'error 55000' ],
	[ 'LOAD', "LOAD 'auto_explain'", "SELECT count(*) FROM pg_settings WHERE name = 'auto_explain.log_level'", '1',
		'0' ]);

sub seen
{
	my ($who, $query) = @_;
	my $answer = eval { $who->sql($query) };
	return $answer if defined $answer;
	return 'error ' . $who->sql_error($query)->{C};
}

foreach my $state (@states)
{
	my ($name, $make, $query, $inside, undef) = @$state;
	# One statement per query: SET ROLE and so on are not undone by an implicit transaction.
	$client->exchange(map { simple($_) } $_) foreach split /; /, $make;
	is(seen($client, $query), $inside, "$name: kept");
}
is($client->sql('SELECT pg_backend_pid()'), $backend, 'all on one backend');
is($client->sql('SELECT pg_temp.f() + five FROM own'), '11', 'temporary objects can be used');
is($client->sql('EXECUTE sql'), '8', 'the SQL prepared statement too');
is($client->sql('FETCH 1 FROM hold'), '1', 'and the cursor');
is($client->sql('FETCH 1 FROM hold'), '2', 'which goes on where it was');
is($client->sql('SHOW work_mem'), '7MB', 'the setting is still there');

# Notifications come while the client idles, and with its own queries.
$listener->sql("NOTIFY news, 'from outside'");
my $message = $client->read_message;
is(RawClient::describe($message), 'NotificationResponse news=from outside', 'a notification reaches an idle client');
like(join(', ', map { RawClient::describe($_) } $client->exchange(simple("NOTIFY news, 'own'"))),
	qr/CommandComplete NOTIFY, NotificationResponse news=own, ReadyForQuery I/, 'its own comes before ReadyForQuery');
$client->sql('BEGIN');
$listener->sql("NOTIFY news, 'later'");
ok(!defined $client->poll_message(0.2), 'none within a transaction');
like(join(', ', map { RawClient::describe($_) } $client->exchange(simple('COMMIT'))),
	qr/NotificationResponse news=later/, 'but at its end');

# The next client has to wait, and then finds nothing of it.
my $next = RawClient->open(host => $server->host, port => $server->pool_port);
$next->send_startup(user => scalar getpwuid($>), database => 'postgres');
ok(!defined $next->poll_message(0.3), 'another client waits for the backend');
$client->close;
$next->authenticate;
ok(!defined $next->error, 'and gets one when the first has left');
is(seen($next, $_->[2]), $_->[4], "$_->[0]: gone") foreach @states;
$next->sql('LISTEN news');
$listener->sql("NOTIFY news, 'for the next'");
is(RawClient::describe($next->read_message), 'NotificationResponse news=for the next', 'the next client can listen');
$next->close;

# Leaving without a word is no different.
foreach my $round (1 .. 3)
{
	my $short = $server->pool_raw;
	is(seen($short, $_->[2]), $_->[4], "$_->[0]: gone (round $round)") foreach @states;
	foreach my $state (@states)
	{
		next if $state->[0] eq 'LOAD' && $round < 3;
		$short->exchange(simple($_)) foreach split /; /, $state->[1];
	}
	$short->sql('BEGIN') if $round == 2;
	$short->drop;
}
my $other = $server->pool_raw;
is($other->sql("SELECT count(*) FROM pg_class WHERE relname = 'own'"), '0',
	'temporary tables are dropped, not only out of sight');

# Statements of the protocol belong to the session as well.
$other->exchange(RawClient::parse('s', 'SELECT 1') . RawClient::sync());
is($other->sql('SELECT count(*) FROM pg_prepared_statements'), '1',
	'a statement of the protocol is seen in pg_prepared_statements');
$other->close;
$other = $server->pool_raw;
is($other->sql('SELECT count(*) FROM pg_prepared_statements'), '0', 'and not by the next client');

$server->stop;
done_testing();
