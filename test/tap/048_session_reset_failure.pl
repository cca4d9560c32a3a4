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
# A temporary table that has lost its row type.
$client->send_bytes(RawClient::query("begin; create temporary table broken (id int);"
			. " delete from pg_type where typname = 'broken'; commit"));
my @answers = $client->read_until('EZ');
is($answers[-1]{type}, 'E', 'the client is told');
my $error = RawClient::error_fields($answers[-1]);
is($error->{S}, 'FATAL', 'that this was the end');
ok($client->at_end_of_stream, 'the connection is closed');

is($server->pool_sql('select 41 + 1'), '42', 'the next client is served');
my $reports = () = $server->log_since($offset) =~ /FATAL:/g;
# The process tries once more when it ends.
cmp_ok($reports, '<=', 2, 'the log does not say it again and again');
unlike($server->log_since($offset), qr/PANIC|terminated by signal/, 'and nothing crashed');

$server->stop;
done_testing();
