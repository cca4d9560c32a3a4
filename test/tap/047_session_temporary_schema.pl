# SPDX-License-Identifier: PostgreSQL
#
# In session mode a client finds a backend without a temporary schema, as on a direct connection, whatever the clients
# before it have done; and a pool of one backend serves such clients one after the other.
use strict;
use warnings;

use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.pool_mode = session\nsluice.max_pool_size = 1\n");

for my $n (1 .. 5)
{
	my $client = $server->pool_raw;
	is(scalar $client->sql('select pg_my_temp_schema()'), '0', "client $n finds no temporary schema");
	$client->sql('create temporary table private (id int)');
	isnt(scalar $client->sql('select pg_my_temp_schema()'), '0', "client $n has made one");
	$client->close;
}

my $client = $server->pool_raw;
is(scalar $client->sql("select count(*) from pg_class where relname = 'private'"), '0', 'their tables are gone');
$client->close;

# Without one the backend stays.
my %pids;
for (1 .. 5)
{
	my $other = $server->pool_raw;
	$pids{ scalar $other->sql('select pg_backend_pid()') } = 1;
	$other->close;
}
is(scalar keys %pids, 1, 'clients without temporary objects share one backend');

$server->stop;
done_testing();
