# SPDX-License-Identifier: PostgreSQL
#
# pg_stat_activity shows the client that a pooled backend serves, and nothing of
# it once it has gone.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', tcp => 1,
	conf => "sluice.max_pool_size = 1\nsluice.min_pool_size = 1\nlog_statement = none\n");
$server->sql('CREATE ROLE app LOGIN');

sub activity
{
	my ($pid) = @_;
	my @values = split /\|/, $server->sql(
		"SELECT backend_type, usename, datname, application_name, client_addr, client_port, state, query, wait_event_type, wait_event, xact_start IS NOT NULL, leader_pid FROM pg_stat_activity WHERE pid = $pid"
	), -1;
	my %row;
	@row{qw(type user database application address port state query wait_type wait in_transaction leader)} = @values;
	return \%row;
}

my $client = $server->pool_raw(host => '127.0.0.1', user => 'app', parameters => { application_name => 'shop' });
my $pid = $client->sql('SELECT pg_backend_pid()');
my $query = "SELECT backend_type, usename, datname, application_name, host(client_addr), client_port, state, query FROM pg_stat_activity WHERE pid = $pid";
my ($row) = $client->sql($query);
is_deeply($row, [ 'client backend', 'app', 'postgres', 'shop', '127.0.0.1', $client->socket->sockport, 'active',
	$query ], 'a client sees itself');
is($client->sql('SELECT inet_client_addr() || $$ $$ || inet_client_port()'), '127.0.0.1/32 '
	. $client->socket->sockport, 'and where it comes from');
is($client->sql('SELECT inet_server_port()'), $server->pool_port, 'and which port it came to');

$client->sql("BEGIN; SELECT 'thinking'");
ok($server->wait_until("SELECT state FROM pg_stat_activity WHERE pid = $pid", 'idle in transaction'),
	'state: idle in transaction');
my $shown = activity($pid);
is($shown->{query}, "BEGIN; SELECT 'thinking'", 'the last query is shown');
is($shown->{in_transaction}, 't', 'and the start of the transaction');
is("$shown->{wait_type} $shown->{wait}", 'Client ClientRead', 'and what the backend waits for');
$client->sql_error('SELECT 1/0');
ok($server->wait_until("SELECT state FROM pg_stat_activity WHERE pid = $pid", 'idle in transaction (aborted)'),
	'state: idle in transaction (aborted)');
$client->sql('ROLLBACK');
ok($server->wait_until("SELECT state FROM pg_stat_activity WHERE pid = $pid", 'idle'), 'state: idle');
$client->send_bytes(RawClient::query('SELECT pg_sleep(600)'));
ok($server->wait_until("SELECT state || ' ' || wait_event FROM pg_stat_activity WHERE pid = $pid", 'active PgSleep'),
	'state: active');
$client->cancel;
$client->read_until_ready;
my @answers = $client->exchange(RawClient::parse('', "SELECT query FROM pg_stat_activity WHERE pid = $pid")
	. RawClient::bind('', '', []) . RawClient::execute('') . RawClient::sync());
my ($text) = map { RawClient::row_fields($_) } grep { $_->{type} eq 'D' } @answers;
is($text, "SELECT query FROM pg_stat_activity WHERE pid = $pid", 'the query of the extended protocol is shown');

# Another client on the same backend: by Unix socket, with another name.
my $other = $server->pool_raw(user => 'app', parameters => { application_name => 'store' });
($row) = $other->sql($query);
is_deeply($row, [ 'client backend', 'app', 'postgres', 'store', undef, '-1', 'active', $query ],
	'the next client of the backend is shown');
($row) = $client->sql($query);
is($row->[3], 'shop', 'and the first one again');
is($row->[4], '127.0.0.1', 'with its address');
$client->sql("BEGIN; SET application_name = 'inside'");
is(activity($pid)->{application}, 'inside', 'a name set in the transaction');
$client->sql('ROLLBACK');
is($other->sql('SHOW application_name'), 'store', 'is not handed on');
$_->sql("SET application_name = 'left behind'") foreach $client, $other;
is($client->sql('SHOW application_name'), 'left behind', 'the name set is kept');
($row) = $client->sql($query);
is($row->[3], 'left behind', 'and shown');
$other->sql("SET application_name = 'third'");
($row) = $other->sql($query);
is($row->[3], 'third', 'for each client its own');
is($client->sql('SHOW application_name'), 'left behind', 'also when they take turns');
is($client->sql('RESET application_name; SHOW application_name'), 'shop', 'RESET returns to the name of the start-up');
is($other->sql('SHOW application_name'), 'third', 'for the one who asks for it');

# Nobody there.
$client->close;
$other->close;
ok($server->wait_until("SELECT client_addr IS NULL AND client_port IS NULL AND application_name NOT IN ('shop', 'store', 'third', 'left behind') FROM pg_stat_activity WHERE pid = $pid"), 'a backend without a client shows none');
$shown = activity($pid);
isnt($shown->{type}, 'client backend', "it is shown as a worker: $shown->{type}");
is($shown->{in_transaction}, 'f', 'that has no transaction open');
isnt($shown->{state}, 'active', 'and is not active');

# A transaction does not stay open behind anybody's back.
is($server->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)"), '0', 'and holds back no cleaning');

# Statistics of what pooled clients do reach the views.
$server->sql('CREATE TABLE counted AS SELECT 1 AS id');
$server->sql('GRANT ALL ON counted TO app');
my $worker = $server->pool_raw(user => 'app');
$worker->sql('INSERT INTO counted VALUES (2)') foreach 1 .. 3;
ok($server->wait_until("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'counted'", 4),
	'table statistics are reported while the client idles');

$server->stop;
done_testing();
