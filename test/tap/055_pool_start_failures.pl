# SPDX-License-Identifier: PostgreSQL
#
# A backend that cannot start: the clients that wait for it are told why, and when the reason is gone the pool works.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 2
CONF
my $me = own_name();

sub refused_because
{
	my ($client, $sqlstate, $message, $name) = @_;
	my $error = $client->error;
	is(ref $error, 'HASH', "$name: the client that waits is refused") or return;
	is($error->{S}, 'FATAL', "$name: with a fatal error");
	is($error->{C}, $sqlstate, "$name: with the reason's SQLSTATE");
	like($error->{M}, $message, "$name: and the reason");
	return;
}

# The role was allowed to log in a moment ago.
$server->sql('CREATE ROLE app LOGIN');
ok($server->reload_with('sluice.debug_backend_start_delay', 1000), 'starts take a moment');
{
	my $client = begin_connect($server, user => 'app');
	ok(until_pool($server, 'starting = 1 AND waiting = 1', user => 'app'), 'a client waits for the first backend of its pool');
	$server->sql('ALTER ROLE app NOLOGIN');
	$client->authenticate;
	refused_because($client, '28000', qr/^role "app" is not permitted to log in$/, 'a role that may not log in');
	ok(until_pool($server, 'start_failures >= 1 AND starting = 0 AND total = 0 AND waiting = 0 AND clients = 0', user => 'app'),
		'the failure is counted, nothing is left over');
	$server->sql('ALTER ROLE app LOGIN');
	$server->reload_with('sluice.debug_backend_start_delay', 0);
	is($server->pool_sql('SELECT current_user', user => 'app'), 'app', 'afterwards the pool works');
}

# A database that is not there any more.
{
	$server->sql('CREATE DATABASE shortlived');
	$server->reload_with('sluice.debug_backend_start_delay', 1000);
	my @clients = map { begin_connect($server, dbname => 'shortlived') } 1 .. 3;
	ok(until_pool($server, 'starting = 1 AND waiting = 3', dbname => 'shortlived'), 'three clients wait');
	$server->sql('DROP DATABASE shortlived');
	foreach my $client (@clients)
	{
		$client->authenticate;
		refused_because($client, '3D000', qr/^database.* does not exist$/, 'a dropped database');
	}
	$server->reload_with('sluice.debug_backend_start_delay', 0);
	$server->sql('CREATE DATABASE shortlived');
	is($server->pool_sql('SELECT current_database()', dbname => 'shortlived'), 'shortlived',
		'a new database of that name is a new pool');
}

# A pool with a backend goes on with that one.
{
	my @clients = map { $server->pool_raw(user => 'app') } 1 .. 3;
	ok(until_pool($server, 'total >= 1', user => 'app'), 'a pool has a backend');
	$server->sql('SELECT sluice.retire_backends()');
	ok(until_pool($server, 'total = 0', user => 'app'), 'which leaves');
	is($clients[0]->sql('SELECT 1'), '1', 'there is a fresh one');
	$server->sql('ALTER ROLE app NOLOGIN');
	my $failures = pool($server, 'start_failures', user => 'app');
	$clients[0]->sql('BEGIN');
	ask($clients[1], 'SELECT 1');
	if (pool($server, 'total', user => 'app') eq '1')
	{
		ok(until_pool($server, "start_failures > $failures", user => 'app'), 'another one cannot start');
		is(pool($server, 'waiting', user => 'app'), '1', 'a client waits on for the one there is');
		$clients[0]->sql('COMMIT');
	}
	else
	{
		$clients[0]->sql('COMMIT');
	}
	is(answer($clients[1]), '1', 'and is served by it');
	$server->sql('ALTER ROLE app LOGIN');
	is($clients[2]->sql('SELECT 1'), '1', 'as are the others');
	$_->close foreach @clients;
}

# No worker process left.
{
	$server->stop;
	$server->node->append_conf('postgresql.conf', "sluice.max_backends = 4\nmax_worker_processes = 4\n");
	$server->start;
	my $all = $server->sql("SHOW max_worker_processes");
	is($server->sql("SELECT current_setting('max_worker_processes')::int >= 8"), 't',
		'the workers that may be needed are added to max_worker_processes') or diag($all);
	is($server->pool_sql('SELECT 1'), '1', 'and serve');
	ok(until_pool($server, 'clients = 0'), 'the client is gone');
	$server->sql('SELECT sluice.retire_backends()');
	ok($server->wait_until('SELECT count(*) = 0 FROM sluice.backends'), 'and the backends');

	# Parallel workers take all slots there are.
	$server->sql('CREATE TABLE large AS SELECT g FROM generate_series(1, 100000) g');
	$server->sql('ALTER TABLE large SET (parallel_workers = 30)');
	my $greedy = $server->raw;
	$greedy->sql('SET max_parallel_workers = 100; SET max_parallel_workers_per_gather = 100; SET parallel_setup_cost = 0; '
		  . 'SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0');
	ask($greedy, 'SELECT count(*) FROM large WHERE pg_sleep(0.1) IS NULL');
	ok($server->wait_until("SELECT count(*) >= $all - 3 FROM pg_stat_activity WHERE backend_type = 'parallel worker'"),
		'all worker processes are taken');
	my $client = begin_connect($server);
	$client->authenticate;
	refused_because($client, '53400', qr/^could not start a pooled backend: no worker process slot is free$/, 'no worker process');
	is(($client->error || {})->{H}, 'You may need to increase max_worker_processes.', 'no worker process: with a hint');
	$greedy->cancel;
	outcome($greedy);
	$greedy->close;
	is($server->pool_sql('SELECT 2'), '2', 'when there are some again the pool works');
	ok(until_pool($server, 'clients = 0 AND waiting = 0 AND starting = 0'), 'nothing is left over');
}

$server->stop;
done_testing();
