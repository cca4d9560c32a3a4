# SPDX-License-Identifier: PostgreSQL
#
# What an administrator does to a pooled backend or to a client: the one
# concerned is told as on a direct connection, and the pool goes on.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main',
	conf => "sluice.max_pool_size = 1\nsluice.min_pool_size = 1\nsluice.max_backends = 3\n");

sub simple { return RawClient::query($_[0]) }
# Without the context lines, which say how far COPY had come.
sub answer { return join ', ', map { RawClient::describe($_) =~ s/; W=.*//r } @_ }
sub sleeping { return $server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1) }
sub number_of { my ($pid) = @_; return $server->sql("SELECT client FROM sluice.backends WHERE pid = $pid") }

my $terminated = 'ErrorResponse C=57P01; M=terminating connection due to administrator command; S=FATAL; V=FATAL, EOF';
my $canceled = 'ErrorResponse C=57014; M=canceling statement due to user request; S=ERROR; V=ERROR, ReadyForQuery';
$server->sql('CREATE TABLE item (id int)');

# pg_terminate_backend, in every state.
my $bystander = $server->pool_raw;
foreach my $case (
	[ 'running a query', sub { $_[0]->send_bytes(simple('SELECT pg_sleep(600)')); sleeping() }, 1 ],
	[ 'idle in transaction', sub { $_[0]->sql('BEGIN; INSERT INTO item VALUES (1)') }, 1 ],
	[ 'idle in an aborted transaction', sub { $_[0]->sql('BEGIN'); $_[0]->sql_error('SELECT 1/0') }, 1 ],
	[ 'sending a result',
		sub { $_[0]->send_bytes(simple(q{SELECT repeat('x', 1000), generate_series(1, 100000000)})); $server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'}, 1) or die }, 0 ],
	[ 'receiving COPY data', sub { $_[0]->send_bytes(simple('COPY item FROM STDIN')
		. RawClient::copy_data("1\n")); $_[0]->read_until('G') }, 1 ])
{
	my ($name, $prepare, $is_told) = @$case;
	my $client = $server->pool_raw;
	my $pid = $client->sql('SELECT pg_backend_pid()');
	$prepare->($client);
	is($server->sql("SELECT pg_terminate_backend($pid)"), 't', "pg_terminate_backend: $name");
	if ($is_told)
	{
		my @messages = $client->read_until('');
		shift @messages while @messages && $messages[0]{type} =~ /[TDCG]/;
		is(answer(@messages), $terminated, 'the client is told');
	}
	else
	{
		ok($client->at_end_of_stream, 'the client is disconnected');
	}
	isnt($bystander->sql('SELECT pg_backend_pid()'), $pid, 'another client gets another backend');
	is($server->sql('SELECT count(*) FROM item'), '0', 'and nothing is left of the transaction');
}

# While nobody is served, clients notice nothing.
my $pid = $bystander->sql('SELECT pg_backend_pid()');
my $waiting = $server->pool_raw;
is($waiting->sql('SELECT pg_backend_pid()'), $pid, 'two clients share a backend');
$server->sql("SELECT pg_terminate_backend($pid)");
$server->wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
is($bystander->sql('SELECT 1'), '1', 'a client that was idle elsewhere goes on with a new backend');
my $last = $waiting->poll_message(0.5);
ok(!defined $last || answer($last) =~ /57P01/, 'the one it was kept for goes on, too, or was told');
$waiting->drop;

# All of them at once, again and again.
foreach my $round (1 .. 3)
{
	my $victim = $server->pool_raw;
	$victim->sql('BEGIN');
	$server->sql(q{SELECT count(pg_terminate_backend(pid)) FROM sluice.backends});
	is(answer($victim->read_until('')), $terminated, 'all backends are terminated');
	is($server->pool_sql('SELECT 1'), '1', 'and the pool recovers');
}
is($bystander->sql('SELECT 1'), '1', 'the bystander is still there');

# pg_cancel_backend.
my $client = $server->pool_raw;
$pid = $client->sql('SELECT pg_backend_pid()');
$client->send_bytes(simple('SELECT pg_sleep(600)'));
sleeping();
$server->sql("SELECT pg_cancel_backend($pid)");
like(answer($client->read_until_ready), qr/\Q$canceled\E I$/, 'pg_cancel_backend cancels the query');
$client->sql('BEGIN; INSERT INTO item VALUES (1)');
$server->sql("SELECT pg_cancel_backend($pid)");
is($client->sql('SELECT count(*) FROM item'), '1', 'and does nothing to a transaction that idles');
$client->sql('ROLLBACK');
$server->sql("SELECT pg_cancel_backend($pid)") foreach 1 .. 3;
is($client->sql('SELECT pg_backend_pid()'), $pid, 'nor to an idle backend');

# sluice.cancel_client.
$client->send_bytes(simple('SELECT pg_sleep(600)'));
sleeping();
my $number = number_of($pid);
is($server->sql("SELECT sluice.cancel_client($number)"), 't', 'cancel_client finds the client');
like(answer($client->read_until_ready), qr/\Q$canceled\E I$/, 'and cancels its query');

# sluice.disconnect_client.
my $keeper = $server->pool_sql('SELECT pg_backend_pid()');
foreach my $case (
	[ 'running a query',
		sub { $_[0]->send_bytes(simple('INSERT INTO item VALUES (1); SELECT pg_sleep(600)')); sleeping() } ],
	[ 'idle in transaction', sub { $_[0]->sql('BEGIN; INSERT INTO item VALUES (1)') } ],
	[ 'idle', sub { } ],
	[ 'idle, and its backend serves another', sub { $client->sql('SELECT 1') } ])
{
	my ($name, $prepare) = @$case;
	my $victim = $server->pool_raw(parameters => { application_name => 'victim' });
	$victim->sql('SELECT 1');
	$prepare->($victim);
	my $number = $server->sql(q{SELECT client FROM sluice.clients WHERE application_name = 'victim'});
	is($server->sql("SELECT sluice.disconnect_client($number)"), 't', "disconnect_client: $name");
	my @messages = $victim->read_until('');
	shift @messages while @messages && $messages[0]{type} =~ /[TDC]/;
	is(answer(@messages), $terminated, 'the client is told');
	is($client->sql('SELECT pg_backend_pid()'), $keeper, 'the backend lives on');
	is($server->sql('SELECT count(*) FROM item'), '0', 'and nothing is left of the transaction');
}

# Terminating the session of a client whose database is dropped by force.
$server->sql('CREATE DATABASE doomed');
my $inhabitant = $server->pool_raw(dbname => 'doomed');
$inhabitant->sql('BEGIN');
$server->sql('DROP DATABASE doomed WITH (FORCE)');
is(answer($inhabitant->read_until('')), $terminated, 'DROP DATABASE with force ends the clients of its pool');
is($client->sql('SELECT 1'), '1', 'and no others');

# A reload reaches backends and their clients.
is($client->sql('SHOW work_mem'), '4MB', 'before the reload');
$server->sql("ALTER SYSTEM SET work_mem = '5MB'");
$server->sql('SELECT pg_reload_conf()');
ok($server->wait_until('SHOW work_mem', '5MB'), 'the server has reloaded');
my $seen = '';
for (1 .. 200)
{
	$seen = $client->sql('SHOW work_mem');
	last if $seen eq '5MB';
	select undef, undef, undef, 0.05;
}
is($seen, '5MB', 'and so has the pooled backend');

# The end of the server.
$client->sql('BEGIN');
$server->node->stop('fast');
like(answer($client->read_until('')),
	qr/^ErrorResponse C=57P01; M=terminating connection due to administrator command; S=FATAL/,
	'a shutdown of the server is told to a client in a transaction');
ok($bystander->at_end_of_stream, 'and ends an idle one');

done_testing();
