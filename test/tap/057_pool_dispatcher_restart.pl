# SPDX-License-Identifier: PostgreSQL
#
# The dispatcher is ended while the server goes on: a new one takes over, with nothing left of the pools before.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 3
sluice.max_backends = 4
CONF

# More often than there are backend slots: none may be lost.
foreach my $round (1 .. 3)
{
	my @clients = map { $server->pool_raw } 1 .. 6;
	my $gate = PoolTest::Gate->new($server);
	$clients[0]->sql('BEGIN');
	ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach @clients[ 1 .. 4 ];
	ok(until_pool($server, 'active + in_transaction >= 3 AND waiting >= 1'),
		"round $round: clients execute, think, wait and idle");
	my $dispatcher = $server->sql('SELECT dispatcher_pid FROM sluice.status');
	my $old = $server->sql("SELECT string_agg(pid::text, ',') FROM sluice.backends WHERE pid IS NOT NULL");
	is($server->sql("SELECT pg_terminate_backend($dispatcher)"), 't', "round $round: the dispatcher is told to terminate");
	ok($server->wait_until("SELECT coalesce(dispatcher_pid <> $dispatcher, false) FROM sluice.status"),
		"round $round: another one takes over");
	$server->wait_for_pool;
	is($server->sql("SELECT count(*) FROM pg_stat_activity WHERE pid IN ($old)"), '0', "round $round: the old backends have gone");
	my @ends = map { $_->at_end_of_stream } @clients;
	is("@ends", '1 1 1 1 1 1', "round $round: the old clients are disconnected");
	$gate->open;

	my @new = map { $server->pool_raw } 1 .. 6;
	my %pids;
	foreach (1 .. 5)
	{
		ask($_, 'SELECT pg_backend_pid() FROM pg_sleep(0.005)') foreach @new;
		$pids{ answer($_) }++ foreach @new;
	}
	is(scalar(grep { $old =~ /\b$_\b/ } keys %pids), 0, "round $round: new clients are served by new backends");
	$_->close foreach @new;
	ok(until_pool($server, 'clients = 0 AND waiting = 0 AND active = 0 AND in_transaction = 0 AND starting = 0'),
		"round $round: and everything is clean");
	is($server->sql('SELECT (SELECT count(*) FROM sluice.backends) = (SELECT backends FROM sluice.status)'), 't',
		"round $round: the count of backends is the number of backends");
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE pid NOT IN (SELECT pid FROM pg_stat_activity)"), '0',
		"round $round: all of which exist");
	is($server->sql('SELECT clients FROM sluice.status'), '0', "round $round: no client is counted that is not there");
}

# All slots can be used: three pools on four backends.
{
	$server->sql("CREATE ROLE $_ LOGIN") foreach qw(a b c d);
	my @clients = map { $server->pool_raw(user => $_) } qw(a b c d);
	$_->sql('BEGIN') foreach @clients;
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE state = 'thinking'"), '4', 'as many backends as ever work at once');
	$_->sql('COMMIT') foreach @clients;
	$_->close foreach @clients;
}

$server->stop;
done_testing();
