# SPDX-License-Identifier: PostgreSQL
#
# What happens when there are more clients than backends: thinking clients, the limit of all pools together, time
# limits of waiting, and bursts.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 1
sluice.max_backends = 2
CONF
my $me = own_name();
$server->sql("CREATE ROLE $_ LOGIN") foreach qw(app guest);

# --- a client that thinks inside a transaction
{
	my $first = $server->pool_raw;
	my $second = $server->pool_raw;
	my $third = $server->pool_raw;
	$first->sql('BEGIN');
	my $first_pid = $first->sql('SELECT pg_backend_pid()');
	my $second_pid = $second->sql('SELECT pg_backend_pid()');
	isnt($second_pid, $first_pid, 'while one client thinks inside a transaction another one gets a backend');
	is(pool($server, "max_size || ' ' || total || ' ' || in_transaction"), '1 2 1',
		'although the pool is larger than its maximum then');
	$second->sql('BEGIN');
	ask($third, 'SELECT pg_backend_pid()');
	ok(until_pool($server, 'in_transaction = 2 AND waiting = 1'), 'a third client waits once max_backends is reached');
	ok(!defined $third->poll_message(0.1), 'it has no answer');
	is($first->sql('SELECT pg_backend_pid()'), $first_pid, 'a thinking client goes on where it was');
	$second->sql('COMMIT');
	is(answer($third), $second_pid, 'the end of a transaction frees a backend for it');
	$first->sql('COMMIT');
	ok(until_pool($server, 'total = 1'), 'the pool goes back to its maximum');
	$_->close foreach $first, $second, $third;
}

# --- two pools, one limit
{
	my $host = $server->pool_raw;
	my $other = $server->pool_raw(user => 'app');
	$host->sql('SELECT 1');
	ok($server->wait_until("SELECT min(state_age_ms) > 50 FROM sluice.backends"), 'all backends are idle for a while');
	$other->sql('SELECT 1');
	is($server->sql('SELECT backends FROM sluice.status'), '2', 'two pools have all backends there may be');
	my $mine = $server->sql("SELECT pid FROM sluice.backends WHERE role = '$me'");
	my $apps = $server->sql("SELECT pid FROM sluice.backends WHERE role = 'app'");

	my $guest = $server->pool_raw(user => 'guest');
	is($guest->sql('SELECT current_user'), 'guest', 'a third pool gets room');
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE pid = $mine"), '0', 'the backend that was idle longest gave way');
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE pid = $apps"), '1', 'the other one did not');
	is($host->sql("SELECT current_user"), $me, 'the pool that gave way gets room in its turn');
	is($other->sql('SELECT current_user'), 'app', 'and so does every pool');

	# Nobody gives way who is not idle.
	$host->sql('BEGIN');
	$other->sql('BEGIN');
	ask($guest, 'SELECT current_user');
	ok(until_pool($server, 'waiting = 1', user => 'guest'), 'while all backends think the third pool waits');
	$other->sql('COMMIT');
	is(answer($guest), 'guest', 'until one has nothing to do');
	$host->sql('COMMIT');
	$_->close foreach $host, $other, $guest;
}

# --- a backend that was told to leave but cannot yet must not keep others from giving way
{
	my $stubborn = $server->pool_raw;
	my $idle = $server->pool_raw(user => 'app');
	$stubborn->sql('BEGIN');
	$idle->sql('SELECT 1');
	is($server->sql("SELECT sluice.retire_backends(role => '$me')"), '1', 'a backend inside a transaction is told to leave');
	my $guest = $server->pool_raw(user => 'guest');
	is($guest->sql('SELECT current_user'), 'guest', 'an idle one of another pool gives way meanwhile');
	$stubborn->sql('COMMIT');
	$_->close foreach $stubborn, $idle, $guest;
}

# --- a client that has waited long enough
{
	$server->sql('ALTER SYSTEM SET sluice.acquire_timeout = 200');
	$server->sql('SELECT pg_reload_conf()');
	$server->sql('SELECT sluice.retire_backends()');
	ok($server->wait_until("SELECT current_setting('sluice.acquire_timeout') = '200ms'"), 'sluice.acquire_timeout is short now');
	my ($worker, $thinker, $waiter) = map { $server->pool_raw } 1 .. 3;
	my $gate = PoolTest::Gate->new($server);
	my $before = $server->log_size;
	$thinker->sql('BEGIN');
	my $thinker_pid = $thinker->sql('SELECT pg_backend_pid()');
	ask($worker, 'SELECT 1 FROM ' . $gate->wait);
	ok(until_pool($server, 'active = 1 AND in_transaction = 1'), 'all backends are busy');
	my $timeouts = pool($server, 'acquire_timeouts');
	ask($waiter, 'SELECT 1');
	my $error = outcome($waiter);
	is(ref $error, 'HASH', 'a client that has waited longer than sluice.acquire_timeout gets an error');
	is($error->{S}, 'FATAL', 'a fatal one');
	is($error->{C}, '53300', 'too_many_connections');
	is($error->{M}, qq(could not get a backend from pool "$me/postgres" within 200 ms), 'which names the pool and the limit');
	like($error->{D},
		qr/^All 2 backends are busy: 1 active, 1 idle in transaction \(longest \d+ s, pid $thinker_pid\); 1 client is waiting\.(?: All 2 pooled backends of the server \("sluice\.max_backends"\) are in use\.)? The only working backend waits for a lock held by pid \d+ \(idle(?: for \d+ s)?\): adding backends will not help\.$/,
		'with the numbers of the pool, and the cause');
	like($error->{H}, qr/sluice\.holders/, 'and a hint');
	ok($waiter->at_end_of_stream, 'then it is disconnected');
	ok($server->wait_for_log(qr/FATAL: .*could not get a backend from pool "$me\/postgres" within 200 ms\n.*DETAIL:  All 2 backends are busy/,
			$before), 'the log has it too');
	is(pool($server, 'acquire_timeouts') - $timeouts, 1, 'and sluice.pools counts it');
	is(pool($server, "clients || ' ' || waiting"), '2 0', 'the client is gone');

	# A new client whose settings a backend has to judge waits before it has been greeted.
	my $late = begin_connect($server, parameters => { work_mem => '5MB' });
	$late->authenticate;
	is(($late->error || {})->{C}, '53300', 'a client that has to be greeted by a backend gets the same error');
	my $plain = begin_connect($server);
	$plain->authenticate;
	is($plain->error, undef, 'one that brings no settings is greeted without');
	$plain->close;

	$gate->open;
	is(answer($worker), '1', 'the others are not concerned');
	$thinker->sql('COMMIT');
	is($worker->sql('SELECT 2'), '2', 'and go on');
	$_->close foreach $worker, $thinker;
	$server->sql('ALTER SYSTEM RESET sluice.acquire_timeout');
	$server->sql('SELECT pg_reload_conf()');
	$server->sql('SELECT sluice.retire_backends()');
}

# --- a client that leaves while it waits
{
	my ($one, $two, $polite, $rude, $last) = map { $server->pool_raw } 1 .. 5;
	$one->sql('BEGIN');
	$two->sql('BEGIN');
	ask($_, 'SELECT 1') foreach $polite, $rude, $last;
	ok(until_pool($server, 'waiting = 3'), 'three clients wait');
	$rude->drop;
	ok(until_pool($server, 'clients = 5 OR waiting = 2'), 'one drops its connection');
	$polite->send_bytes(RawClient::terminate());
	$polite->drop;
	$one->sql('COMMIT');
	is(answer($last), '1', 'those behind are served');
	$two->sql('COMMIT');
	ok(until_pool($server, 'clients = 3 AND waiting = 0 AND active = 0'), 'and nothing is left of those that went');
	is($server->sql("SELECT count(*) FROM sluice.clients WHERE state <> 'idle' AND backend_pid IS NULL"), '0', 'no slot is stuck');
	$_->close foreach $one, $two, $last;
}

$server->stop;
done_testing();
