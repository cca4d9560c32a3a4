# SPDX-License-Identifier: PostgreSQL
#
# A burst of clients waits for the pool, never for one particular backend to start: while a slow start is under way
# the backends there are serve everybody.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.min_pool_size = 3
sluice.max_pool_size = 20
sluice.acquire_timeout = 0
CONF

my $watcher = $server->pool_raw;
ok(until_pool($server, 'idle = 3 AND total = 3'), 'three backends are ready');

# Far longer than the burst takes: a client that waited for a start would be seen to.
$server->sql('ALTER SYSTEM SET sluice.debug_backend_start_delay = 20000');
$server->sql('SELECT pg_reload_conf()');
ok($server->wait_until("SELECT current_setting('sluice.debug_backend_start_delay') = '20s'"), 'a start takes long from now on');
$watcher->sql('SELECT 1');

my $starts = pool($server, 'starts');
my @clients = map { begin_connect($server) } 1 .. 20;
$_->authenticate foreach @clients;
is(scalar(grep { defined $_->error } @clients), 0, 'twenty clients that connect at once are all greeted');
my %pids;
foreach my $round (1 .. 5)
{
	ask($_, 'SELECT pg_backend_pid() FROM pg_sleep(0.002)') foreach @clients;
	$pids{ answer($_) }++ foreach @clients;
}
is(scalar(keys %pids), 3, 'and served by the three backends');
cmp_ok(pool($server, 'starts') - $starts, '<=', 1, 'at most one more was started for them');
cmp_ok(pool($server, 'total'), '<=', 4, 'so that the pool has four at most');
cmp_ok(pool($server, 'starting'), '<=', 1, 'of which one is starting');
is(pool($server, 'transactions') >= 100 ? 'all' : 'some', 'all', 'all transactions are counted');

# A start under way must not keep the server from stopping.
$server->stop;
done_testing();
