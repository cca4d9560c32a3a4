# SPDX-License-Identifier: PostgreSQL
#
# DROP DATABASE while pooled backends are attached to it.  The server counts them as users of the database: it waits
# five seconds for them and then refuses.  sluice.retire_backends() clears the way, WITH (FORCE) too.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 2\n");
$server->sql("CREATE DATABASE $_") foreach qw(one two three);

# Idle backends, no client.
is($server->pool_sql('SELECT current_database()', dbname => $_), $_, "there is a pool for database $_") foreach qw(one two three);
ok(until_pool($server, 'clients = 0 AND total > 0', dbname => $_), "with backends but no clients ($_)") foreach qw(one two three);

my ($code, undef, $errors) = $server->psql('DROP DATABASE one');
isnt($code, 0, 'a database with pooled backends cannot be dropped');
like($errors, qr/database "one" is being accessed by other users/, 'for the usual reason');

cmp_ok($server->sql("SELECT sluice.retire_backends('one')"), '>=', 1, 'its backends are told to leave');
($code, undef, $errors) = $server->psql('DROP DATABASE one');
is($code, 0, 'then it can') or diag($errors);

($code, undef, $errors) = $server->psql('DROP DATABASE two WITH (FORCE)');
is($code, 0, 'WITH (FORCE) ends the backends by itself') or diag($errors);

# A client that is idle has no backend: it does not stand in the way, and learns of it with its next query.
my $client = $server->pool_raw(dbname => 'three');
$client->sql('SELECT 1');
$server->sql("SELECT sluice.retire_backends('three')");
($code, undef, $errors) = $server->psql('DROP DATABASE three');
is($code, 0, 'a database whose pool has idle clients only can be dropped') or diag($errors);
ask($client, 'SELECT 2');
my $error = outcome($client);
is($error->{C}, '3D000', 'such a client is told with its next query');
ok($client->at_end_of_stream, 'and disconnected');

($code, undef, $errors) = $server->pool_psql('SELECT 1', dbname => 'three');
like($errors, qr/FATAL:  database "three" does not exist/, 'a new client is refused as on a direct connection');
$server->sql('CREATE DATABASE three');
is($server->pool_sql('SELECT current_database()', dbname => 'three'), 'three', 'a new database of that name is served');

$server->stop;
done_testing();
