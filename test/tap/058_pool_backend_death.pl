# SPDX-License-Identifier: PostgreSQL
#
# Pooled backends that die: by pg_terminate_backend(), which costs the client they serve, and by SIGKILL, after which
# the whole server starts anew.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 2
restart_after_crash = on
CONF

# --- while idle
{
	my ($first, $second) = map { $server->pool_raw } 1 .. 2;
	my $pid = $first->sql('SELECT pg_backend_pid()');
	$second->sql('SELECT 1');
	# Not the one that still lingers beside its client: that is the client's.
	$first->sql('SELECT 1');
	my $idle = $server->sql("SELECT min(pid) FROM sluice.backends WHERE client IS NULL AND state = 'waiting'");
	my $third = $server->pool_raw;
	$third->close;
	ok(until_pool($server, 'clients = 2'), 'two clients are connected');
	$server->sql("SELECT pg_terminate_backend(pid) FROM sluice.backends WHERE client IS NULL");
	$server->wait_until("SELECT count(*) = 0 FROM sluice.backends WHERE client IS NULL AND state <> 'waiting'");
	my $served = 0;
	foreach my $client ($first, $second)
	{
		my $answer = ask($client, 'SELECT 42') ? outcome($client) : {};
		$served++ if !ref $answer && $answer eq '42';
	}
	is($served, 2, 'an idle backend is terminated: no client notices');
	$_->close foreach $first, $second;
}

# --- while all of them are idle and nobody is left to watch the clients
{
	my @clients = map { $server->pool_raw } 1 .. 5;
	ask($_, 'SELECT 1') foreach @clients;
	answer($_) foreach @clients;
	$server->sql('SELECT sluice.retire_backends()');
	is(join(',', map { scalar $_->sql('SELECT 1') } @clients), '1,1,1,1,1', 'clients of a pool that has lost all its backends are served');
	$_->close foreach @clients;
}

# --- while executing
{
	my ($first, $second) = map { $server->pool_raw } 1 .. 2;
	my $gate = PoolTest::Gate->new($server);
	ask($first, 'SELECT 1 FROM ' . $gate->wait);
	ok(until_pool($server, 'active = 1'), 'a backend executes');
	my $before = $server->log_size;
	$server->sql("SELECT pg_terminate_backend(pid) FROM sluice.backends WHERE state = 'active'");
	my $error = outcome($first);
	is($error->{S}, 'FATAL', 'a backend is terminated while it executes: its client gets a fatal error');
	is($error->{C}, '57P01', 'the usual one');
	is($error->{M}, 'terminating connection due to administrator command', 'in the usual words');
	ok($first->at_end_of_stream, 'and is disconnected');
	ok($server->wait_for_log(qr/terminating connection due to administrator command/, $before), 'the log has it');
	is($second->sql('SELECT 1'), '1', 'other clients are served');
	$gate->open;
	ok(until_pool($server, 'clients = 1 AND active = 0 AND waiting = 0'), 'nothing is left over');

	# Inside a transaction, on the client's turn.
	my $third = $server->pool_raw;
	$third->sql('BEGIN');
	$server->sql("SELECT pg_terminate_backend(pid) FROM sluice.backends WHERE state = 'thinking'");
	ok($third->at_end_of_stream, 'a backend is terminated inside a transaction: so is its client');
	is($second->sql('SELECT 2'), '2', 'others are not');
	$second->close;
	ok(until_pool($server, 'clients = 0 AND in_transaction = 0'), 'nothing is left over');
}

# --- while starting
{
	$server->sql("CREATE ROLE slow LOGIN");
	$server->sql('ALTER SYSTEM SET sluice.debug_backend_start_delay = 2000');
	$server->sql('SELECT pg_reload_conf()');
	ok($server->wait_until("SELECT current_setting('sluice.debug_backend_start_delay') = '2s'"), 'starts are slow');
	my $client = begin_connect($server, user => 'slow');
	ok($server->wait_until("SELECT count(*) = 1 FROM sluice.backends WHERE role = 'slow' AND state = 'starting' AND pid IS NOT NULL"), 'a backend is starting');
	kill 'TERM', $server->sql("SELECT pid FROM sluice.backends WHERE role = 'slow' AND state = 'starting'");
	$client->authenticate;
	is(ref $client->error, 'HASH', 'it is terminated: the client that waits for it is told');
	$server->sql('ALTER SYSTEM RESET sluice.debug_backend_start_delay');
	$server->sql('SELECT pg_reload_conf()');
	is($server->pool_sql('SELECT 1', user => 'slow'), '1', 'and the next one is served');
	$client->drop;
	ok(until_pool($server, 'starting = 0 AND waiting = 0 AND clients = 0', user => 'slow'), 'nothing is left over');
}

# --- killed
{
	my @clients = map { $server->pool_raw } 1 .. 5;
	my $pid = $clients[0]->sql('SELECT pg_backend_pid()');
	$clients[1]->sql('BEGIN');
	my $before = $server->log_size;
	kill 'KILL', $pid;
	ok($server->wait_for_log(qr/database system is ready to accept connections/, $before), 'a pooled backend is killed: the server recovers');
	$server->wait_for_pool;
	is(join(' ', map { $_->at_end_of_stream } @clients), '1 1 1 1 1', 'all clients are disconnected');
	is($server->sql('SELECT clients || \' \' || pools || \' \' || backends FROM sluice.status'), '0 0 0', 'nothing is left of them');
	my @new = map { $server->pool_raw } 1 .. 5;
	is(join(',', map { scalar $_->sql('SELECT 1') } @new), '1,1,1,1,1', 'and the pool works again');
	$_->close foreach @new;
}

$server->stop;
done_testing();
