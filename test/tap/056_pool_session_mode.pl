# SPDX-License-Identifier: PostgreSQL
#
# Session mode: a client keeps one backend until it leaves.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 2
CONF
$server->sql('CREATE ROLE keeper LOGIN');
$server->sql("ALTER ROLE keeper SET sluice.pool_mode = 'session'");

my ($first, $second) = map { $server->pool_raw(user => 'keeper') } 1 .. 2;
is(pool($server, "mode", user => 'keeper'), 'session', 'the pool of the role is in session mode');
my @pids = map { scalar $_->sql('SELECT pg_backend_pid()') } $first, $second;
isnt($pids[0], $pids[1], 'two clients have two backends');
foreach my $round (1 .. 10)
{
	my @now = map { scalar $_->sql('SELECT pg_backend_pid()') } $first, $second;
	next if $now[0] == $pids[0] && $now[1] == $pids[1];
	fail("round $round: backends changed");
}
is($first->pid, $pids[0], 'BackendKeyData names the backend');
is($second->pid, $pids[1], 'for each client');
is(pool($server, "held || ' ' || total", user => 'keeper'), '2 2', 'both are held while their clients are idle');
is($server->sql("SELECT count(*) FROM sluice.clients WHERE held AND role = 'keeper'"), '2', 'which sluice.clients says too');

# What a session leaves behind stays, for itself only.
$first->sql("SET search_path = 'mine'");
$first->sql('CREATE TEMP TABLE note (a int)');
$first->sql('INSERT INTO note VALUES (7)');
$first->sql('SELECT pg_advisory_lock(12)');
$first->sql("PREPARE q AS SELECT 'prepared'");
is($first->sql('SELECT a FROM note'), '7', 'temporary tables last');
is($first->sql('SHOW search_path'), 'mine', 'settings last');
is($first->sql('EXECUTE q'), 'prepared', 'prepared statements last');
is($server->sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $pids[0]"), '1', 'advisory locks last');

# A third client waits until one leaves, not only until it is idle.
my $third = begin_connect($server, user => 'keeper');
ok(until_pool($server, 'waiting = 1 AND held = 2', user => 'keeper'), 'a third client waits while both are held');
$first->close;
$third->authenticate;
is($third->error, undef, 'it gets in when one has left');
is($third->sql('SHOW search_path'), '"$user", public', 'and finds no settings');
is($third->sql_error('SELECT a FROM note')->{C}, '42P01', 'no temporary tables');
is($third->sql_error('EXECUTE q')->{C}, '26000', 'no prepared statements');
ok($server->wait_until("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'"), 'and no locks of the one before');
is($third->pid, $third->sql('SELECT pg_backend_pid()'), 'its BackendKeyData names its backend');

# Clients that vanish.
$second->sql('BEGIN');
$second->drop;
my $fourth = $server->pool_raw(user => 'keeper');
is($fourth->sql('SELECT 1'), '1', 'a client that vanishes in a transaction frees its backend');
$third->drop;
my $fifth = $server->pool_raw(user => 'keeper');
is($fifth->sql('SELECT 1'), '1', 'so does one that vanishes outside of one');

# A retired backend goes when its client does.
my $fourth_pid = $fourth->sql('SELECT pg_backend_pid()');
$server->sql("SELECT sluice.retire_backends(role => 'keeper')");
is($fourth->sql('SELECT pg_backend_pid()'), $fourth_pid, 'a backend that is told to leave stays with its client');
$fourth->close;
ok($server->wait_until("SELECT count(*) = 0 FROM sluice.backends WHERE pid = $fourth_pid"), 'and leaves with it');
$fifth->close;
ok(until_pool($server, 'clients = 0 AND held = 0 AND active = 0 AND waiting = 0', user => 'keeper'), 'nothing is left over');

$server->stop;
done_testing();
