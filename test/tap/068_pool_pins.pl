# SPDX-License-Identifier: PostgreSQL
#
# Clients that are pinned to their backends do not keep the others from being served, as long as the server has room;
# and one can see who is pinned, by what, and for how long.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 2
sluice.max_backends = 6
sluice.acquire_timeout = 0
CONF
my $me = own_name();
my $pins_sum = 'pins_temporary_objects + pins_advisory_lock + pins_listen + pins_held_cursor + pins_loaded_library'
  . ' + pins_random_seed + pins_replication + pins_backup + pins_state_too_large';

# A pinned client with a transaction behind it, so that it would linger if it were not.
sub pinned_client
{
	my ($sql, %option) = @_;
	my $client = $server->pool_raw(%option);
	$client->sql('SELECT 1') foreach 1 .. 2;
	$client->sql($sql);
	return $client;
}

# --- three pinned clients in a pool of two
my @pinned = map { pinned_client("CREATE TEMP TABLE mine AS SELECT $_ AS number", parameters => { application_name => "pinned $_" }) } 1 .. 3;
ok(until_pool($server, 'pinned = 3'), 'three clients are pinned in a pool of at most two');
is(pool($server, 'total = active + idle + in_transaction + held + pinned + starting + retiring'), 't', 'they are part of the total');
is(pool($server, "pins_temporary_objects || ' ' || ($pins_sum)"), '3 3', 'each has been counted once');

is($server->sql("SELECT string_agg(pins::text, ' ') FROM sluice.clients WHERE application_name ~ '^pinned'"),
	'{temporary_objects} {temporary_objects} {temporary_objects}', 'sluice.clients says why');
is($server->sql('SELECT count(*) FROM sluice.clients WHERE pins IS NOT NULL AND pinned_ms >= 0 AND NOT held'), '3', 'and for how long');
is($server->sql("SELECT string_agg(b.state || b.pins::text, ' ') FROM sluice.backends b JOIN sluice.clients c ON c.client = b.client WHERE c.pins = b.pins"),
	'pinned{temporary_objects} pinned{temporary_objects} pinned{temporary_objects}', 'and so does sluice.backends');

# --- the others have the whole pool
{
	my $gate = PoolTest::Gate->new($server);
	my @others = map { $server->pool_raw } 1 .. 3;
	is($_->sql('SELECT 1'), '1', 'a client that is not pinned is served') foreach @others;
	ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach @others;
	ok(until_pool($server, 'active = 2 AND waiting = 1'), 'as many of them as the pool may have backends');
	is(pool($server, "pinned || ' ' || total || ' ' || starting"), '3 5 0', 'beside those that are pinned');
	$gate->open;
	answer($_) foreach @others;
	$_->close foreach @others;
}
is($pinned[$_]->sql('SELECT number FROM mine'), $_ + 1, 'pinned clients have what they are pinned by') foreach 0 .. 2;
is(pool($server, 'pins_temporary_objects'), '3', 'they have not been pinned anew');

# --- clients that come back to their backends: the pool is above its maximum, and they are left alone
{
	my $pids = $server->sql('SELECT string_agg(pid::text, \',\' ORDER BY pid) FROM sluice.backends WHERE pins IS NOT NULL');
	my $gate = PoolTest::Gate->new($server);
	ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach @pinned;
	ok(until_pool($server, 'active = 3'), 'all three execute');
	ok(until_pool($server, 'total = 3'), 'the other backends leave for it');
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE pid IN ($pids) AND retire_reason IS NULL"), '3',
		'their own have not been told to');
	$gate->open;
	answer($_) foreach @pinned;
	ok(until_pool($server, 'pinned = 3'), 'then they are pinned as before');
}

# --- two reasons; released
{
	$pinned[0]->sql('SELECT pg_advisory_lock(1)');
	is($server->sql("SELECT pins FROM sluice.clients WHERE application_name = 'pinned 1'"), '{temporary_objects,advisory_lock}',
		'a second reason is added');
	$pinned[0]->sql('DROP TABLE mine');
	is($server->sql("SELECT pins FROM sluice.clients WHERE application_name = 'pinned 1'"), '{advisory_lock}', 'the first one ends');
	$pinned[0]->sql('SELECT pg_advisory_unlock(1)');
	ok($server->wait_until("SELECT num_nulls(pins, pinned_ms) = 2 FROM sluice.clients WHERE application_name = 'pinned 1'"), 'so does the second');
	ok(until_pool($server, 'pinned = 2'), 'and the client is free');
	is(pool($server, "pins_temporary_objects || ' ' || pins_advisory_lock || ' ' || ($pins_sum)"), '3 1 4', 'what has been counted stays');
	$pinned[0]->sql('CREATE TEMP TABLE mine AS SELECT 1 AS number');
	is(pool($server, 'pins_temporary_objects'), '4', 'to be pinned again counts again');
}

# --- idle_timeout is for backends without work: a pinned one has a client
{
	$server->sql('ALTER SYSTEM SET sluice.idle_timeout = 1');
	$server->sql('SELECT pg_reload_conf()');
	ok(until_pool($server, 'total = 3 AND pinned = 3'), 'idle backends have gone');
	is($server->sql('SELECT count(*) FROM sluice.backends WHERE pins IS NOT NULL AND retire_reason IS NOT NULL'), '0', 'pinned ones stay');
	$server->sql('ALTER SYSTEM RESET sluice.idle_timeout');
	$server->sql('SELECT pg_reload_conf()');
	is($pinned[1]->sql('SELECT number FROM mine'), '2', 'with their clients');
}

# --- another pool is in need: pinned backends do not give way
{
	$server->sql('CREATE ROLE stranger LOGIN');
	push @pinned, map { pinned_client('CREATE TEMP TABLE mine AS SELECT 0 AS number') } 1 .. 3;
	ok(until_pool($server, 'pinned = 6'), 'all backends of the server are pinned');
	my $stranger = begin_connect($server, user => 'stranger');
	ok(until_pool($server, 'waiting = 1', user => 'stranger'), 'a client of another role waits');
	my $second = begin_connect($server, parameters => { IntervalStyle => 'iso_8601' });
	ok(until_pool($server, 'waiting = 1'), 'one of the same role as well');
	is($server->sql('SELECT count(*) FROM sluice.backends WHERE retire_reason IS NOT NULL'), '0', 'no pinned backend has been told to leave');
	$pinned[$_]->sql('DROP TABLE mine') foreach 3, 4;
	$_->authenticate foreach $stranger, $second;
	is($stranger->sql('SELECT current_user'), 'stranger', 'when one has been released it gives way');
	is($second->sql('SELECT 1'), '1', 'and the other one serves its own pool');
	$_->close foreach $stranger, $second;
	$pinned[$_]->close foreach 3, 4, 5;
	splice @pinned, 3;
	$server->sql("SELECT sluice.retire_backends(role => 'stranger')");
	ok(until_pool($server, 'total = 0', user => 'stranger'), 'the stranger has left');
}

# --- what a client is told that has waited in vain
{
	push @pinned, map { pinned_client('SELECT pg_advisory_lock(100 + ' . $_ . ')') } 1 .. 3;
	ok(until_pool($server, 'pinned = 6'), 'all backends are pinned again');
	my $longest = $server->sql("SELECT pid FROM sluice.backends b JOIN sluice.clients c USING (client) ORDER BY pinned_ms DESC LIMIT 1");
	$server->sql('ALTER SYSTEM SET sluice.acquire_timeout = 100');
	$server->sql('SELECT pg_reload_conf()');
	my $error = {};
	foreach (1 .. 20)
	{
		# The first ones may come before the reload has been seen.
		my $late = $server->pool_raw;
		ask($late, 'SELECT 1');
		my $outcome = outcome($late);
		$error = $outcome if ref $outcome;
		last if ref $outcome;
	}
	is($error->{C}, '53300', 'a client waits in vain');
	like($error->{D}, qr/^All 6 backends are busy: 0 active, 0 idle in transaction, 6 pinned \(longest \d+ s, pid $longest: temporary_objects\); 1 client is waiting\. All 6 pooled backends of the server \("sluice\.max_backends"\) are in use\. All 6 pooled backends of the server are pinned \(longest \d+ s, pid \d+: \w+\), 6 in pool "$me\/postgres": more backends would soon be pinned as well\.$/,
		'the DETAIL names the pins and the oldest');
	like($error->{H}, qr/sluice\.pin_timeout.*sluice\.on_session_state/, 'the HINT the settings about them');
	is(pool($server, 'acquire_timeouts >= 1'), 't', 'it has been counted');
	$_->close foreach splice @pinned, 3;

	# Two work in a pool of two, and three are pinned: more room for pins would not help.
	ok(until_pool($server, 'pinned = 3 AND total = 5'), 'three have left, and so has a backend above the maximum');
	my @workers = map { $server->pool_raw } 1 .. 2;
	ask($_, 'SELECT pg_sleep(3600)') foreach @workers;
	ok(until_pool($server, 'active = 2 AND total = 5'), 'two work');
	my $late = $server->pool_raw;
	ask($late, 'SELECT 1');
	$error = outcome($late);
	like($error->{D}, qr/^All 5 backends are busy: 2 active, 0 idle in transaction, 3 pinned \(longest/, 'pins that are not in the way are told');
	like($error->{H}, qr/raising "sluice\.max_pool_size"/, 'the HINT is about the size');
	$server->sql("SELECT sluice.cancel_client(client) FROM sluice.clients WHERE state = 'leased' AND pins IS NULL");
	outcome($_) foreach @workers;
	$_->close foreach @workers;
	$server->sql('ALTER SYSTEM RESET sluice.acquire_timeout');
	$server->sql('SELECT pg_reload_conf()');
}

# --- a setting that forbids it, a time limit, and statistics from zero
{
	$server->sql("ALTER ROLE stranger SET sluice.on_session_state = 'error'");
	my $strict = $server->pool_raw(user => 'stranger');
	my $error = $strict->sql_error('CREATE TEMP TABLE mine (number int)');
	is($error && $error->{C}, '0A000', 'where pins are errors');
	is(pool($server, "pins_refused || ' ' || ($pins_sum) || ' ' || pinned", user => 'stranger'), '1 0 0', 'they are counted as refused');
	$strict->close;

	$server->sql('CREATE ROLE hasty LOGIN');
	$server->sql("ALTER ROLE hasty SET sluice.pin_timeout = '100ms'");
	my $hasty = $server->pool_raw(user => 'hasty');
	$hasty->sql('LISTEN news');
	my ($end) = grep { $_->{type} eq 'E' } $hasty->read_until('');
	is($end ? RawClient::error_fields($end)->{C} : undef, '57P05', 'a pinned client that is idle for too long is ended');
	ok(until_pool($server, 'pin_timeouts = 1 AND pins_listen = 1 AND pinned = 0', user => 'hasty'), 'and counted');

	$server->sql('SELECT sluice.reset_statistics()');
	is($server->sql("SELECT sum($pins_sum + pins_refused + pin_timeouts) FROM sluice.pools"), '0', 'reset_statistics() sets the counters to zero');
	is(pool($server, 'pinned'), '3', 'but not those that are pinned');
}
$_->close foreach @pinned;
ok(until_pool($server, 'pinned = 0 AND clients = 0'), 'at the end nobody is');

$server->stop;
done_testing();
