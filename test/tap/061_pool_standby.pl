# SPDX-License-Identifier: PostgreSQL
#
# Pools on a hot standby, and what a promotion means to their clients.

use strict;
use warnings;

use PoolTest;
use PostgreSQL::Test::Cluster;
use SluiceTest;
use Test::More;

my $primary = SluiceTest->new('primary', init => [ allows_streaming => 1 ], conf => "sluice.max_pool_size = 2\n");
$primary->sql('CREATE TABLE item (a int)');
$primary->sql('INSERT INTO item VALUES (1)');
$primary->node->backup('copy');

my $node = PostgreSQL::Test::Cluster->new('standby');
$node->init_from_backup($primary->node, 'copy', has_streaming => 1);
my $port = PostgreSQL::Test::Cluster::get_free_port();
$node->append_conf('postgresql.conf', "sluice.port = $port\n");
my $standby = bless { node => $node, pool_port => $port }, 'SluiceTest';
$standby->start;

my ($first, $second) = map { $standby->pool_raw } 1 .. 2;
is($first->sql('SELECT pg_is_in_recovery()'), 't', 'a standby has pools');
$primary->sql('INSERT INTO item VALUES (2)');
ok($standby->wait_until('SELECT count(*) = 2 FROM item'), 'it follows the primary');
is($first->sql('SELECT sum(a) FROM item'), '3', 'pooled clients read');
my $error = $first->sql_error('INSERT INTO item VALUES (3)');
is($error->{C}, '25006', 'and get the usual error if they write');
is($error->{M}, 'cannot execute INSERT in a read-only transaction', 'in the usual words');
is($second->parameter_status->{in_hot_standby}, 'on', 'clients are told that this is a standby');

# A conflict with recovery costs the query, or the client, as on a direct connection; not the pool.
$second->sql('BEGIN ISOLATION LEVEL REPEATABLE READ');
$second->sql('SELECT count(*) FROM item');

$standby->node->promote;
ok($standby->wait_until('SELECT NOT pg_is_in_recovery()'), 'the standby is promoted');
is($second->sql('SELECT count(*) FROM item'), '2', 'a transaction goes on');
$second->sql('COMMIT');
is($first->sql('SELECT pg_is_in_recovery()'), 'f', 'clients stay connected');
$first->sql('INSERT INTO item VALUES (4)');
is($second->sql('SELECT sum(a) FROM item'), '7', 'and write');
my $third = $standby->pool_raw;
is($third->parameter_status->{in_hot_standby}, 'off', 'a new client is told that this is a primary');
is($third->sql('SELECT 1'), '1', 'and served');
$_->close foreach $first, $second, $third;

$standby->stop;
$primary->stop;
done_testing();
