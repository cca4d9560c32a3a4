# SPDX-License-Identifier: PostgreSQL
#
# Pools come into being on demand, one for each database and role, and their clients share a few backends.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 2
max_prepared_transactions = 2
CONF
my $me = own_name();
$server->sql('CREATE ROLE app LOGIN');
$server->sql('CREATE DATABASE other');

is($server->sql('SELECT count(*) FROM sluice.pools'), '0', 'there are no pools before the first client');

# --- ten clients, two backends
{
	my @clients = map { $server->pool_raw } 1 .. 10;
	is(pool($server, 'clients'), '10', 'ten clients are connected');
	is($server->sql('SELECT pools FROM sluice.status'), '1', 'they are all of one pool');

	my %pids;
	foreach my $round (1 .. 5)
	{
		ask($_, 'SELECT pg_backend_pid()') foreach @clients;
		$pids{ answer($_) }++ foreach @clients;
	}
	my $served = 0;
	$served += $_ foreach values %pids;
	is($served, 50, 'every client is served every time');
	cmp_ok(scalar(keys %pids), '<=', 2, 'by no more backends than the pool may have');

	my $strange = $server->sql('SELECT count(*) FROM sluice.backends WHERE pid NOT IN (' . join(',', keys %pids) . ')');
	cmp_ok($strange, '<=', 1, 'which sluice.backends knows');
	is($server->sql("SELECT count(*) FROM pg_stat_activity WHERE pid IN (" . join(',', keys %pids)
			. ") AND datname = 'postgres' AND usename = '$me'"),
		scalar(keys %pids), 'and pg_stat_activity too, with database and role');

	# All at work at the same time, with more to do than there are backends.
	my $gate = PoolTest::Gate->new($server);
	ask($_, 'SELECT pg_backend_pid() FROM ' . $gate->wait) foreach @clients;
	ok(until_pool($server, 'active = 2 AND waiting = 8'), 'two work, eight wait');
	is(pool($server, 'total'), '2', 'a pool at its maximum does not grow while clients wait');
	$gate->open;
	my %busy;
	$busy{ answer($_) }++ foreach @clients;
	is(scalar(keys %busy), 2, 'then both backends serve all of them');
	ok(until_pool($server, 'active = 0 AND waiting = 0'), 'nothing is left over');
	$_->close foreach @clients;
	ok(until_pool($server, 'clients = 0'), 'clients that say goodbye are gone');
	ok(until_pool($server, 'idle = total AND total > 0'), 'their backends stay');
}

# --- one pool for each database and role
{
	my $first = $server->pool_raw(dbname => 'postgres', user => 'app');
	my $second = $server->pool_raw(dbname => 'other', user => 'app');
	my $third = $server->pool_raw(dbname => 'other');
	is(join(',', map { scalar $_->sql("SELECT current_database() || '/' || current_user || '/' || session_user") } $first, $second, $third),
		"postgres/app/app,other/app/app,other/$me/$me", 'each client is in its database, as its role');
	is($server->sql("SELECT string_agg(database || '/' || role, ' ' ORDER BY database, role) FROM sluice.pools"),
		join(' ', sort "other/app", "other/$me", "postgres/app", "postgres/$me"),
		'there is a pool for each combination');
	my %pid = map { scalar($_->sql('SELECT pg_backend_pid()')) => 1 } $first, $second, $third;
	is(scalar(keys %pid), 3, 'pools do not share backends');
	$_->close foreach $first, $second, $third;
}

# --- names of pools follow a renaming
{
	$server->sql('ALTER ROLE app RENAME TO application');
	my $client = $server->pool_raw(user => 'application');
	is($server->sql("SELECT count(*) FROM sluice.pools WHERE database = 'postgres' AND role = 'application'"), '1',
		'the pool of a renamed role has the new name');
	is($server->sql("SELECT count(*) FROM sluice.pools WHERE role = 'app' AND database = 'postgres'"), '0', 'and only that');
	$client->close;
	$server->sql('ALTER ROLE application RENAME TO app');
}

$server->stop;
done_testing();
