# SPDX-License-Identifier: PostgreSQL
#
# Backends leave when they have been idle for long or are old, and no client notices.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time);

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 4
sluice.min_pool_size = 1
sluice.acquire_timeout = 0
CONF
my $me = own_name();

sub keep_busy
{
	my (@clients) = @_;
	my $gate = PoolTest::Gate->new($server);
	ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach @clients;
	my $done = until_pool($server, 'active = 4 AND waiting = 0');
	$gate->open;
	answer($_) foreach @clients;
	return $done;
}

# --- idle_timeout
my @clients = map { $server->pool_raw } 1 .. 4;
ok(keep_busy(@clients), 'four clients at work have four backends');
is(pool($server, 'total'), '4', 'which stay when they have nothing to do');
$server->reload_with('sluice.idle_timeout', 100);
ok(until_pool($server, 'total = 1 AND retirements = 3'), 'after sluice.idle_timeout all but sluice.min_pool_size leave');
is(join(',', map { scalar $_->sql('SELECT 1') } @clients), '1,1,1,1', 'every client is served as before');
$server->reload_with('sluice.min_pool_size', 0);
ok(until_pool($server, 'total = 0 AND clients = 4'), 'without a minimum the last backend leaves too');
is(join(',', map { scalar $_->sql('SELECT 2') } @clients), '2,2,2,2', 'and a client that comes back gets a new one');
ok(until_pool($server, 'total = 0'), 'the pool is empty again');
is(scalar $clients[3]->sql('SELECT 3'), '3', 'and serves again');

# A dispatcher that watches an empty pool has nothing to do: it sleeps.
{
	ok(until_pool($server, 'total = 0'), 'once more');
	my $pid = $server->sql('SELECT dispatcher_pid FROM sluice.status');
	my $switches = sub {
		my $text = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status");
		return $text =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : 0;
	};
	# It ticks a while before it calms down.
	my ($calm, $deadline) = (0, time() + $SluiceTest::patience_s);
	while (!$calm && time() < $deadline)
	{
		my $before = $switches->();
		Time::HiRes::sleep(1);
		$calm = $switches->() - $before < 100;
	}
	ok($calm, 'while all clients of an empty pool are idle the dispatcher sleeps');
}
my $starts = pool($server, 'starts');
$_->close foreach @clients;
ok(until_pool($server, 'clients = 0 AND total = 0'), 'clients of an empty pool leave');
is(pool($server, 'starts'), $starts, 'for which no backend is started');
$server->reload_with('sluice.idle_timeout', 0);

# --- max_lifetime
{
	$server->reload_with('sluice.max_lifetime', 300);
	my @workers = map { $server->pool_raw } 1 .. 3;
	my $thinker = $server->pool_raw;
	$thinker->sql('BEGIN');
	my $thinker_pid = $thinker->sql('SELECT pg_backend_pid()');
	my (%pids, $errors);
	my $deadline = time() + $SluiceTest::patience_s;
	my $rounds = 0;
	while (scalar(keys %pids) < 8 && time() < $deadline)
	{
		ask($_, 'SELECT pg_backend_pid()') foreach @workers;
		foreach my $worker (@workers)
		{
			my $pid = outcome($worker);
			ref $pid ? $errors++ : $pids{$pid}++;
		}
		$rounds++;
		last if $errors;
	}
	is($errors, undef, 'clients that work all the time see no error');
	cmp_ok(scalar(keys %pids), '>=', 8, 'while backends are replaced') or diag("$rounds rounds");
	is($thinker->sql('SELECT pg_backend_pid()'), $thinker_pid, 'a client inside a transaction keeps its old backend');
	$thinker->sql('COMMIT');
	ok($server->wait_until("SELECT count(*) = 0 FROM sluice.backends WHERE pid = $thinker_pid"), 'which leaves afterwards');
	is($thinker->sql('SELECT 1'), '1', 'and the client goes on');
	$_->close foreach @workers, $thinker;
	$server->reload_with('sluice.max_lifetime', 0);
}

# --- a lifetime of the role's own counts from the first backend on
{
	$server->sql('CREATE ROLE brief LOGIN');
	$server->sql("ALTER ROLE brief SET sluice.max_lifetime = '1h'");
	my $client = $server->pool_raw(user => 'brief');
	is($server->sql("SELECT expires_in_s BETWEEN 3000 AND 3600 FROM sluice.backends WHERE role = 'brief'"), 't',
		'ALTER ROLE ... SET sluice.max_lifetime concerns the first backend of a pool too');
	is(pool($server, 'starts', user => 'brief'), '1', 'and one client needs one backend');
	$client->close;
}

# --- on request
{
	$server->sql('CREATE ROLE app LOGIN');
	$server->sql('SELECT sluice.retire_backends()');
	ok($server->wait_until('SELECT count(*) = 0 FROM sluice.backends'), 'without clients retired backends are not replaced');
	my ($first, $second, $other) = ($server->pool_raw, $server->pool_raw, $server->pool_raw(user => 'app'));
	$first->sql('BEGIN');
	my $first_pid = $first->sql('SELECT pg_backend_pid()');
	my $second_pid = $second->sql('SELECT pg_backend_pid()');
	my $other_pid = $other->sql('SELECT pg_backend_pid()');
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE expires_in_s IS NOT NULL"), '0', 'without sluice.max_lifetime no backend expires');
	is($server->sql("SELECT sluice.retire_backends('postgres', 'nobody')"), '0', 'nothing to retire in a pool that is not there');
	my $told = $server->sql("SELECT sluice.retire_backends(role => '$me')");
	cmp_ok($told, '>=', 2, 'retire_backends() tells the backends of one role');
	ok($server->wait_until("SELECT count(*) = 0 FROM sluice.backends WHERE pid = $second_pid"), 'an idle one leaves at once');
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE pid = $other_pid AND retire_reason IS NULL"), '1', 'those of others stay');
	is($server->sql("SELECT retire_reason FROM sluice.backends WHERE pid = $first_pid"), 'retired on request', 'one at work has the reason on record');
	is($first->sql('SELECT pg_backend_pid()'), $first_pid, 'and finishes its transaction');
	$first->sql('COMMIT');
	isnt($first->sql('SELECT pg_backend_pid()'), $first_pid, 'before it leaves');
	is($second->sql('SELECT 1'), '1', 'every client goes on');
	$server->sql('SELECT sluice.retire_backends()');
	is(join(',', map { scalar $_->sql('SELECT 1') } $first, $second, $other), '1,1,1', 'also after all have been told');
	$_->close foreach $first, $second, $other;
}

$server->stop;
done_testing();
