# SPDX-License-Identifier: PostgreSQL
#
# Clients by the thousand: that say nothing, that leave at once, in every way and
# at every step, that cannot log in, that want to cancel what is not theirs.  The
# dispatcher is the same afterwards, holds nothing of them and has not grown, and
# those who behave are served all the while.

use strict;
use warnings;

use HostileTest;
use POSIX ();
use RawClient;
use SluiceTest;
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);

my $test = HostileTest->new(conf => <<'CONF');
sluice.max_clients = 3000
sluice.max_unauthenticated_clients = 2500
CONF
my $server = $test->server;
my $me = HostileTest::own_role();

# As many sockets as this process may have.
my $open_files = POSIX::sysconf(&POSIX::_SC_OPEN_MAX) || 256;
my $crowd = $open_files > 2500 ? 1000 : int(($open_files - 50) / 2);
my @ways = ([ $test->tcp ], [ $test->unix ]);

# How a client leaves.
my %leave = (
	'close' => sub { $_[0]->drop },
	'reset' => sub { $_[0]->reset },
	'half-close' => sub { shutdown($_[0]->socket, 1); $_[0]->{half} = 1 });

sub leave
{
	my ($how, @clients) = @_;
	$leave{$how}->($_) foreach @clients;
	my $waiting = grep { $_->{half} && !$_->at_end_of_stream } @clients;
	return $waiting;
}

# ---------------------------------------------------------------- leaving at every step

sub logged_in
{
	my ($bytes) = @_;
	return sub {
		my ($client) = @_;
		$client->{password} = 'secret';
		$client->send_startup(user => 'by_md5', database => 'postgres');
		$client->authenticate;
		$client->send_bytes($bytes);
		return;
	};
}

$server->sql('CREATE TABLE numbers (n int); GRANT ALL ON numbers TO by_md5');
my $in_transaction = RawClient::query('BEGIN; INSERT INTO numbers VALUES (1)');
my @states = (
	HostileTest::states(),
	[ 'asked to be let in', sub { $_[0]->send_startup(user => $me, database => 'postgres') } ],
	[ 'in, and nothing', logged_in('') ],
	[ 'a query sent', logged_in(RawClient::query('SELECT 1')) ],
	[ 'a long query sent', logged_in(RawClient::query('SELECT pg_sleep(1)')) ],
	[ 'half a message', logged_in(substr(RawClient::query('SELECT 1'), 0, 7)) ],
	[ 'a transaction', logged_in($in_transaction) ],
	[ 'half a message in a transaction', logged_in($in_transaction . 'Q') ],
	[ 'Parse and no Sync', logged_in(RawClient::parse('', 'SELECT 1')) ],
	[ 'COPY', logged_in(RawClient::query('COPY numbers FROM STDIN')) ],
	[ 'half a row of COPY', logged_in(RawClient::query('COPY numbers FROM STDIN') . "d\0\0\0\xff1\n") ],
	[ 'a large result', logged_in(RawClient::query(q{SELECT repeat('x', 1000) FROM generate_series(1, 20000)})) ]);
foreach my $how (sort keys %leave)
{
	my $waiting = 0;
	foreach my $way (0, 1)
	{
		foreach my $state (@states)
		{
			$waiting += leave($how, map { $test->stuck($state, unix => $way) } 1, 2);
		}
	}
	is($waiting, 0, "$how at each of " . @states . ' steps');
	$test->undisturbed("after $how");
}
is($server->sql('SELECT count(*) FROM numbers'), '0', 'nothing of what was not committed is there');

# ---------------------------------------------------------------- thousands

# They say nothing, and leave some time later or at once.
sub silent_crowd
{
	my ($how) = @_;
	foreach my $way (@ways)
	{
		my @silent = map { RawClient->open(@$way) } 1 .. $crowd;
		$test->served("with $crowd who say nothing") if $how eq 'close';
		leave($how, @silent);
	}
	return;
}
sub hasty_crowd
{
	my ($bytes) = @_;
	foreach my $way (@ways)
	{
		foreach my $number (1 .. $crowd)
		{
			my $client = RawClient->open(@$way);
			$client->send_bytes($bytes) if $bytes ne '';
			$number % 2 ? $client->drop : $client->reset;
		}
	}
	return;
}
# Each connection is of a stranger who gives himself a number and a key.
sub cancelling_crowd
{
	foreach my $number (1 .. $crowd)
	{
		my $client = RawClient->open(@{ $ways[ $number % 2 ] });
		my $pid = $number % 2 ? $test->{witness}->pid : int rand 2**32;
		$client->send_bytes(pack('NNNN', 16, 80877102, $pid, int rand 2**32));
		$number % 3 ? $client->drop : $client->at_end_of_stream;
	}
	return;
}
sub refused_crowd
{
	my ($refused) = @_;
	foreach my $number (1 .. $crowd / 10)
	{
		my $role = ('by_password', 'by_md5', 'by_scram', "nobody $number")[ $number % 4 ];
		my $client = RawClient->try_connect(@{ $ways[ $number % 2 ] }, $test->login($role), password => 'wrong');
		$refused++ if $client->error;
		$client->drop;
	}
	return $refused;
}

sub resident_kilobytes
{
	my $pid = $server->sql('SELECT dispatcher_pid FROM sluice.status');
	open my $file, '<', "/proc/$pid/status" or return 0;
	my ($kilobytes) = join('', <$file>) =~ /VmRSS:\s+(\d+)/;
	close $file;
	return $kilobytes;
}

srand 20240302;
my (@bytes, @descriptors, @resident);
foreach my $round (1 .. 3)
{
	my $failures = $test->errors('authentication', '28P01');
	my $violations = $test->errors('protocol', '08P01');
	# A query that strangers try to cancel.
	my $target = $test->{witness};
	$target->send_bytes(RawClient::query('SELECT 23 FROM pg_sleep(1)'));
	cancelling_crowd();
	my ($answer) = map { RawClient::row_fields($_) } grep { $_->{type} eq 'D' } $target->read_until_ready;
	is($answer, 23, "round $round: nobody could cancel what is not theirs");
	silent_crowd($_) foreach 'close', 'reset', 'half-close';
	hasty_crowd($_) foreach '', "\0\0\0", "GET / HTTP/1.1\r\n\r\n", RawClient::startup_packet(user => $me, database => 'postgres');
	my $refused = refused_crowd(0);
	is($refused, int($crowd / 10), 'wrong passwords are refused');
	cmp_ok($test->errors('authentication', '28P01') - $failures, '>=', int($crowd / 10 * 3 / 4), 'and counted');
	cmp_ok($test->errors('protocol', '08P01') - $violations, '>=', $crowd, 'so is what is no start-up packet');
	$test->undisturbed("after round $round");
	my ($bytes, $descriptors) = $test->footprint;
	push @bytes, $bytes;
	push @descriptors, $descriptors;
	push @resident, resident_kilobytes();
}
cmp_ok($bytes[2] - $bytes[0], '<', 50_000, "the dispatcher's memory does not grow (@bytes bytes in use)");
cmp_ok($resident[2] - $resident[0], '<', 2_000, "nor does the process (@resident kB)");
cmp_ok($descriptors[2] - $descriptors[0], '<', 10, "it holds no descriptor of theirs (@descriptors)");

# ---------------------------------------------------------------- one query too many to be cancelled

{
	my $target = $test->{idle_witness};
	$target->send_bytes(RawClient::query('SELECT pg_sleep(600)'));
	$server->wait_until(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)' AND state = 'active'});
	my $offset = $server->log_size;
	$target->cancel(key => $target->key ^ (1 << $_)) foreach 0 .. 31;
	my $lines = () = $server->log_since($offset) =~ /wrong key in cancel request/g;
	is($lines, 32, 'keys that are wrong by a bit are refused');
	is($target->poll_message(0.2), undef, 'the query goes on');
	$target->cancel;
	my ($error) = map { RawClient::error_fields($_)->{C} } grep { $_->{type} eq 'E' } $target->read_until_ready;
	is($error, '57014', 'until its own client cancels it');
}

# ---------------------------------------------------------------- more than may log in at a time

$server->reload_with('sluice.max_unauthenticated_clients', 40);
{
	my ($deadline, $refused, @silent) = (time() + $SluiceTest::patience_s);
	# The dispatcher follows the reload a moment later.
	do
	{
		leave('close', @silent);
		$server->wait_until('SELECT unauthenticated = 0 FROM sluice.status');
		@silent = map { RawClient->open($test->unix) } 1 .. 200;
		$server->wait_until('SELECT unauthenticated >= 30 FROM sluice.status');
		$refused = grep { defined $_->poll_message(0.01) } @silent;
	} until $refused >= 160 || time() > $deadline;
	cmp_ok($refused, '>=', 160, 'all but 40 of 200 are refused at least');
	cmp_ok($test->errors('limit', '53300'), '>=', 160, 'and counted');
	is(scalar $test->{idle_witness}->sql('SELECT 1'), 1, 'who is in is served');
	is($server->sql('SELECT unauthenticated FROM sluice.status'), 200 - $refused, 'the rest may still log in');
	leave('close', @silent);
}
$test->undisturbed('after a crowd that was too large');

# ---------------------------------------------------------------- a crowd that stays until its time is over

$server->reload_with('sluice.max_unauthenticated_clients', 2500);
$server->reload_with('authentication_timeout', 2);
{
	$server->wait_until('SELECT unauthenticated = 0 FROM sluice.status');
	my @silent = map { RawClient->open(@{ $ways[ $_ % 2 ] }) } 1 .. $crowd;
	$test->served("with $crowd who wait");
	my $left = grep { !$_->at_end_of_stream } @silent;
	is($left, 0, 'each is thrown out in the end');
	ok($server->wait_until('SELECT unauthenticated = 0 FROM sluice.status'), 'none is left');
}
$test->undisturbed('after a crowd that was thrown out');

$test->finish;
done_testing();
