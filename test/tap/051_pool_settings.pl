# SPDX-License-Identifier: PostgreSQL
#
# Sizes of pools: the server's settings, the sizing rule, settings of roles and databases, and reloads.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.cores = 3
sluice.spindles = 0
sluice.acquire_timeout = 0
CONF
my $me = own_name();
$server->sql("CREATE ROLE $_ LOGIN") foreach qw(small lasting roamer plain);
$server->sql('CREATE DATABASE other');

sub reload_with
{
	my ($name, $value) = @_;
	$server->sql("ALTER SYSTEM SET $name = $value");
	$server->sql('SELECT pg_reload_conf()');
	return;
}

# --- the sizing rule
{
	my $client = $server->pool_raw;
	ok(until_pool($server, 'max_size = 6'), 'without a size of its own a pool follows cores * 2 + spindles');
	is($server->sql('SELECT size || rule FROM sluice.sizing WHERE binds'), '6cores * 2 + spindles',
		'sluice.sizing says so');

	my $gate = PoolTest::Gate->new($server);
	my @clients = map { $server->pool_raw } 1 .. 9;
	ask($_, 'SELECT pg_backend_pid() FROM ' . $gate->wait) foreach @clients;
	ok(until_pool($server, 'active = 6 AND waiting = 3'), 'a pool grows up to there while clients wait');

	reload_with('sluice.cores', 3.5);
	ok(until_pool($server, 'max_size = 7 AND active = 7 AND waiting = 2'), 'another input of the rule after a reload lets it grow');
	reload_with('sluice.max_pool_size', 9);
	ok(until_pool($server, 'max_size = 9 AND active = 9 AND waiting = 0'), 'so does a size of its own');
	is($server->sql('SELECT size || rule FROM sluice.sizing WHERE binds'), '9configured', 'sluice.sizing says so');
	reload_with('sluice.max_pool_size', 4);
	ok(until_pool($server, 'max_size = 4'), 'a smaller size is seen after a reload');
	is(pool($server, 'active'), '9', 'backends at work are left alone');
	$gate->open;
	answer($_) foreach @clients;
	ok(until_pool($server, 'total = 4'), 'and leave when they have nothing to do');
	$_->close foreach @clients, $client;
}

# --- min_pool_size
{
	reload_with('sluice.min_pool_size', 3);
	my $client = $server->pool_raw(user => 'plain');
	ok(until_pool($server, 'total = 3 AND starting = 0 AND min_size = 3', user => 'plain'),
		'a pool in use has its minimum though one client needs only one backend');
	$server->sql('SELECT pg_terminate_backend(pid) FROM sluice.backends WHERE role = \'plain\' AND client IS NULL');
	ok(until_pool($server, 'retirements >= 1', user => 'plain'), 'a backend is lost');
	ok(until_pool($server, 'total = 3 AND idle = 3', user => 'plain'), 'and replaced');
	reload_with('sluice.min_pool_size', 0);
	$client->close;
}

# --- settings of a role, of a database, of both
{
	$server->sql('ALTER ROLE small SET sluice.max_pool_size = 1');
	$server->sql('ALTER ROLE small SET sluice.min_pool_size = 1');
	$server->sql('ALTER DATABASE other SET sluice.max_pool_size = 3');
	$server->sql("ALTER DATABASE other SET sluice.pool_mode = 'session'");
	$server->sql('ALTER ROLE roamer IN DATABASE other SET sluice.max_pool_size = 5');
	my @clients = (
		$server->pool_raw(user => 'small'),
		$server->pool_raw(user => 'lasting', dbname => 'other'),
		$server->pool_raw(user => 'roamer', dbname => 'other'));
	is(pool($server, "min_size || ' ' || max_size || ' ' || mode", user => 'small'), '1 1 transaction',
		'ALTER ROLE ... SET concerns the pools of the role');
	is(pool($server, "max_size || ' ' || mode", user => 'lasting', dbname => 'other'), '3 session',
		'ALTER DATABASE ... SET those of the database');
	is(pool($server, 'max_size', user => 'roamer', dbname => 'other'), '5', 'the narrower setting wins');

	my $gate = PoolTest::Gate->new($server);
	my $second = $server->pool_raw(user => 'small');
	ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach $clients[0], $second;
	ok(until_pool($server, 'active = 1 AND waiting = 1', user => 'small'), 'they are obeyed');

	# A running pool follows with its next backend.
	$server->sql('ALTER ROLE small SET sluice.max_pool_size = 2');
	reload_with('sluice.max_pool_size', 8);
	is(pool($server, 'max_size', user => 'small'), '1', 'a reload does not undo the setting of a role');
	$gate->open;
	answer($_) foreach $clients[0], $second;
	$server->sql("SELECT sluice.retire_backends(role => 'small')");
	ok(until_pool($server, 'max_size = 2', user => 'small'), 'a changed setting counts from the next backend on');
	$_->close foreach @clients, $second;
}

# --- who may set them
{
	foreach my $name (qw(min_pool_size max_pool_size acquire_timeout idle_timeout max_lifetime))
	{
		my ($code, undef, $errors) = $server->psql("ALTER ROLE plain SET sluice.$name = 1", user => 'plain');
		like($errors, qr/permission denied to set parameter "sluice.$name"/, "an ordinary role cannot set sluice.$name");
	}
	my ($code, undef, $errors) = $server->pool_psql("SET sluice.pool_mode = 'session'", user => 'plain');
	like($errors, qr/permission denied to set parameter "sluice.pool_mode"/, 'nor change its pool from inside');
	($code, undef, $errors) = $server->pool_psql('SELECT 1', user => 'plain', options => '-c sluice.max_pool_size=50');
	like($errors, qr/permission denied to set parameter "sluice.max_pool_size"/, 'nor when it connects');
}

# --- bad values
{
	my ($code, undef, $errors) = $server->psql('ALTER ROLE plain SET sluice.max_pool_size = 0');
	like($errors, qr/invalid value for parameter "sluice.max_pool_size"/, 'a pool without backends is refused');
	like($errors, qr/DETAIL:  A pool without backends could not serve anyone\.\nHINT:  Use -1/, 'with detail and hint');

	my $before = $server->log_size;
	my $pools = $server->sql('SELECT string_agg(database || role || max_size, \',\' ORDER BY database, role) FROM sluice.pools');
	$server->node->append_conf('postgresql.conf', "sluice.max_pool_size = '1\nsluice.pool_mode =\n");
	$server->node->reload;
	ok($server->wait_for_log(qr/syntax error in file .*postgresql\.conf/, $before), 'a reload with a syntax error is reported');
	is($server->pool_sql('SELECT 1'), '1', 'and clients are served as before');
	is($server->sql('SELECT string_agg(database || role || max_size, \',\' ORDER BY database, role) FROM sluice.pools'),
		$pools, 'with the settings there were');
}

$server->stop;
done_testing();
