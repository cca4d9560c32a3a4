# SPDX-License-Identifier: PostgreSQL
#
# What a client has left behind cannot always be taken away.  Then its backend is of no use to anybody: it ends, with
# the reason, and the pool goes on with another one.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\n");

my $client = $server->pool_raw;
my $offset = $server->log_size;
my $pid = $client->sql('select pg_backend_pid()');
# A temporary table that has lost its row type.
$client->sql("begin; create temporary table broken (id int); delete from pg_type where typname = 'broken'; commit");
is($client->sql('select pg_backend_pid()'), $pid, 'the client goes on with what it has made');
$client->close;

is($server->pool_sql('select 41 + 1'), '42', 'the next client is served');
is($server->pool_sql("select to_regclass('broken') is null and pg_backend_pid() <> $pid"), 't', 'by another backend');
ok($server->wait_until("select count(*) from pg_stat_activity where pid = $pid", 0), 'the first one has ended');
like($server->log_since($offset), qr/FATAL:  .*broken|FATAL:  cache lookup failed/, 'and the log has the reason');
my $reports = () = $server->log_since($offset) =~ /FATAL:/g;
# The process tries once more when it ends.
cmp_ok($reports, '<=', 2, 'the log does not say it again and again');
unlike($server->log_since($offset), qr/PANIC|terminated by signal/, 'and nothing crashed');

$server->stop;
done_testing();
