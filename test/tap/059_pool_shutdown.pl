# SPDX-License-Identifier: PostgreSQL
#
# Stopping and restarting the server while pooled clients are connected.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 3
sluice.acquire_timeout = 0
CONF

# Idle, thinking, executing for ever, and waiting.
sub fifty_clients
{
	my @clients = map { $server->pool_raw } 1 .. 50;
	$_->sql('BEGIN') foreach @clients[ 0 .. 4 ];
	ask($_, 'SELECT pg_sleep(3600)') foreach @clients[ 5 .. 29 ];
	until_pool($server, 'active = 3 AND in_transaction = 5 AND waiting = 22') or fail('clients are busy');
	return @clients;
}

foreach my $mode (qw(fast immediate))
{
	my @clients = fifty_clients();
	my $before = $server->log_size;
	# pg_ctl waits for PGCTLTIMEOUT at most and fails then.
	$server->stop($mode);
	pass("the server stops ($mode) while fifty clients are busy");
	is(scalar(grep { $_->at_end_of_stream } @clients), 50, "$mode: all are disconnected");
	unlike($server->log_since($before), qr/PANIC|Segmentation|terminated by signal 11|terminated by signal 6/, "$mode: nothing crashed");
	$server->start;
	is($server->pool_sql('SELECT 1'), '1', "$mode: the pool works after a start");
}

# A fast shutdown says why.
{
	my ($idle, $busy) = map { $server->pool_raw } 1 .. 2;
	ask($busy, 'SELECT pg_sleep(3600)');
	until_pool($server, 'active = 1');
	$server->stop('fast');
	foreach my $client ($idle, $busy)
	{
		my ($error) = grep { $_->{type} eq 'E' } $client->read_until('');
		is($error ? RawClient::error_fields($error)->{C} : undef, '57P01',
			($client == $idle ? 'an idle' : 'a busy') . ' client is told of a fast shutdown');
	}
	$server->start;
}

# Pooled backends are background workers: a smart shutdown waits for direct connections, not for pooled clients.
{
	my ($idle, $busy) = map { $server->pool_raw } 1 .. 2;
	ask($busy, 'SELECT pg_sleep(3600)');
	until_pool($server, 'active = 1');
	$server->stop('smart');
	pass('a smart shutdown ends although pooled clients are connected');
	is(scalar(grep { $_->at_end_of_stream } $idle, $busy), 2, 'they are disconnected');
	$server->start;
}

$server->restart;
is($server->pool_sql('SELECT 1'), '1', 'the pool works after a restart');
$server->stop;
done_testing();
