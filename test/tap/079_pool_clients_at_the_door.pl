# SPDX-License-Identifier: PostgreSQL
#
# A client that has had its first transaction is left to the dispatcher, which looks at what it says next.  Most say
# goodbye: no backend takes part in that, so here all backends of the pool are stopped meanwhile.  Whatever else is said
# is answered when they go on, or by one that is started for it.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

# Kernels and containers may refuse what this rests on: pidfd_open() and pidfd_getfd(), which have these numbers on all
# architectures but Alpha.
sub may_take_descriptors
{
	pipe(my $from, my $to) or die "pipe: $!";
	my $child = fork;
	die "fork: $!" unless defined $child;
	if ($child == 0)
	{
		close $to;
		sysread $from, my $byte, 1;
		require POSIX;
		POSIX::_exit(0);
	}
	close $from;
	my $process = syscall(434, $child, 0);
	my $copy = $process < 0 ? -1 : syscall(438, $process, 0, 0);
	close $to;
	waitpid $child, 0;
	return $copy >= 0;
}
plan skip_all => 'processes may not take descriptors from each other here' unless may_take_descriptors();

# Both pools are full with the backends they have: none is started beside those that are stopped.
my $server = SluiceTest->new('main', tcp => 1, conf => <<'CONF');
sluice.min_pool_size = 2
sluice.max_pool_size = 2
sluice.acquire_timeout = 0
CONF
$server->sql('CREATE ROLE lonely LOGIN; ALTER ROLE lonely SET sluice.min_pool_size = 0');

my @stopped;
my %host = ('Unix socket' => $server->host, TCP => '127.0.0.1');

sub go_on
{
	kill 'CONT', @stopped if @stopped;
	@stopped = ();
	return;
}

# Before the server is stopped, which would wait for them: what is compiled last comes first.
END { local $?; go_on() }

sub backends
{
	my ($role) = @_;
	return split /\n/,
	  $server->sql("SELECT pid FROM sluice.backends WHERE role = '$role' AND pid IS NOT NULL ORDER BY pid");
}

sub state_of
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/stat" or return '';
	my ($state) = (<$file> // '') =~ /.*\) (\w)/;
	return $state;
}

# All backends of the pool sleep without a client, and have nothing left to report: whoever is stopped then holds no
# lock.  A backend sleeps after it has given its client back, so that one is where it belongs.
sub at_rest
{
	my ($role) = @_;
	return $server->wait_until(<<"SQL");
SELECT (SELECT count(*) > 0 AND bool_and(state = 'waiting' AND state_age_ms > 2500)
        FROM sluice.backends WHERE role = '$role')
   AND (SELECT count(*) = 0 FROM sluice.clients WHERE role = '$role' AND state <> 'idle')
SQL
}

sub stop_backends
{
	my ($role) = @_;
	at_rest($role) or die 'the backends do not come to rest';
	@stopped = backends($role);
	kill('STOP', @stopped) == @stopped or die "could not stop the backends: $!";
	my $deadline = time() + $SluiceTest::patience_s;
	foreach my $pid (@stopped)
	{
		until (state_of($pid) eq 'T')
		{
			die 'a backend does not stop' if time() > $deadline;
			sleep 0.01;
		}
	}
	return;
}

# Someone who has had one transaction.
sub visitor
{
	my ($name, $host, %option) = @_;
	my $sql = delete $option{sql} || 'SELECT 1';
	my $client = $server->pool_raw(host => $host, parameters => { application_name => $name }, %option);
	$client->exchange(RawClient::query($sql));
	return $client;
}

sub number_of { return $server->sql("SELECT client FROM sluice.clients WHERE application_name = '$_[0]'") }
sub is_gone { return $server->wait_until("SELECT count(*) = 0 FROM sluice.clients WHERE application_name = '$_[0]'") }

# The first clients of a pool are greeted by a backend, and are not meant here.
sub open_pool
{
	my ($role, $backends) = @_;
	my $first = $server->pool_raw(host => $server->host, user => $role);
	$first->sql('SELECT 1');
	$server->wait_until(<<"SQL")
SELECT count(*) >= $backends FROM sluice.backends WHERE role = '$role' AND state IN ('waiting', 'lingering')
SQL
	  or die 'the pool does not start';
	$first->close;
	$server->wait_until("SELECT count(*) = 0 FROM sluice.clients WHERE role = '$role'") or die 'the first client stays';
	return;
}

my $half_a_goodbye = 'X' . pack('N', 100);

# What is said at the door, and whether the client then waits for the end of its connection.
my @goodbyes = (
	[ 'says goodbye and waits', sub { $_[0]->send_bytes(RawClient::terminate()); return 1 } ],
	[ 'says goodbye and leaves', sub { $_[0]->close; return 0 } ],
	[ 'leaves without a word', sub { $_[0]->drop; return 0 } ],
	[ 'closes its sending side', sub { shutdown($_[0]->socket, 1); return 1 } ],
	[ 'says goodbye byte by byte', sub { $_[0]->send_bytes($_) foreach split //, RawClient::terminate(); return 1 } ],
	[ 'says goodbye with a wrong length', sub { $_[0]->send_bytes($half_a_goodbye); return 1 } ]);

sub say_goodbyes
{
	my ($clients, $way, $when) = @_;
	foreach my $goodbye (@goodbyes)
	{
		my ($name, $act) = @$goodbye;
		my $client = $clients->{"$name, $way"};
		ok($client->at_end_of_stream, "$way: who $name reaches the end ($when)") if $act->($client);
		ok(is_gone("$name, $way"), "$way: who $name is forgotten ($when)");
		$client->drop;
	}
	return;
}

# ----------------------------------------------------------------------------- without backends that could help

my $me = own_name();
open_pool($me, 2);
my %client;
foreach my $way (sort keys %host)
{
	foreach my $name ((map { $_->[0] } @goodbyes), 'disconnected', 'speaks', 'speaks and leaves', 'half closed', 'lost',
		'stays')
	{
		$client{"$name, $way"} = visitor("$name, $way", $host{$way});
	}
	$client{"late, $way"} = visitor("late, $way", $host{$way}, sql => q{SET idle_session_timeout = '8s'});
}
stop_backends($me);
my @before = @stopped;

foreach my $way (sort keys %host)
{
	say_goodbyes(\%client, $way, 'backends stopped');

	my $client = $client{"disconnected, $way"};
	my $number = number_of("disconnected, $way");
	is($server->sql("SELECT sluice.disconnect_client($number)"), 't', "$way: disconnect_client() finds who is there");
	is(outcome($client)->{C}, '57P01', 'which is told');
	ok(is_gone("disconnected, $way"), 'and forgotten');

	# What is to be executed waits.
	$client{"$_, $way"}->send_bytes(RawClient::query("SELECT '$_'")) foreach 'speaks', 'lost';
	$client{"$_, $way"}->send_bytes(RawClient::query("SELECT '$_'") . RawClient::terminate())
	  foreach 'speaks and leaves', 'half closed';
	foreach my $name ('half closed', 'lost')
	{
		shutdown($client{"$name, $way"}->socket, 1);
		ok($server->wait_until("SELECT state = 'ready' FROM sluice.clients WHERE application_name = '$name, $way'"),
			"$way: who asks and closes its sending side waits for a backend ($name)");
	}

	is(outcome($client{"late, $way"})->{C}, '57P05', "$way: idle_session_timeout ends a client at the door");
	ok(is_gone("late, $way"), 'which is forgotten');
}
is_deeply([ backends($me) ], \@before, 'no backend has been started meanwhile');
is(join('', map { state_of($_) } @before), 'T' x @before, 'and none has done anything');
is($server->sql("SELECT count(*) FROM sluice.clients WHERE application_name ~ '^(speaks|half|lost)'"), '8',
	'who asked is still there');

# ----------------------------------------------------------------------------- and then with them

go_on();
foreach my $way (sort keys %host)
{
	my $client = $client{"speaks, $way"};
	is(answer($client), 'speaks', "$way: who speaks at the door is answered when there are backends");
	is($client->sql("SELECT 'again'"), 'again', 'and so is what it says later');
	$client->send_bytes(RawClient::terminate());
	ok($client->at_end_of_stream, 'and its goodbye is heard');

	foreach my $name ('half closed', 'speaks and leaves')
	{
		$client = $client{"$name, $way"};
		is(answer($client), $name, "$way: $name: is answered");
		ok($client->at_end_of_stream, 'and then the connection ends');
		ok(is_gone("$name, $way"), 'and the client is forgotten');
	}

	# Without a goodbye it counts as lost, and its command is cancelled.
	ok($client{"lost, $way"}->at_end_of_stream, "$way: who closed its sending side without a goodbye reaches the end");
	ok(is_gone("lost, $way"), 'and is forgotten');

	$client = $client{"stays, $way"};
	is($client->sql("SELECT $_"), $_, "$way: one that has said nothing is served, query $_") foreach 2 .. 4;
	$client->close;
}
ok($server->wait_until("SELECT count(*) = 0 FROM sluice.clients WHERE role = '$me'"), 'nobody is left');
is_deeply([ backends($me) ], \@before, 'the backends are the same as before');

# ----------------------------------------------------------------------------- of a pool without any backend

open_pool('lonely', 1);
foreach my $way (sort keys %host)
{
	foreach my $name ((map { $_->[0] } @goodbyes), 'speaks', 'half closed')
	{
		$client{"$name, $way"} = visitor("$name, $way", $host{$way}, user => 'lonely');
	}
}
at_rest('lonely') or die 'the backends do not come to rest';
cmp_ok($server->sql(q{SELECT sluice.retire_backends(role => 'lonely')}), '>=', 1, 'the backends of a pool are retired');
ok($server->wait_until(q{SELECT count(*) = 0 FROM sluice.backends WHERE role = 'lonely'}), 'and leave');
say_goodbyes(\%client, $_, 'no backends') foreach sort keys %host;
is(scalar(() = backends('lonely')), 0, 'no backend has been started for goodbyes');
is($client{'speaks, TCP'}->sql("SELECT 'speaks'"), 'speaks', 'who speaks gets one');
is($client{'speaks, Unix socket'}->sql("SELECT 'speaks'"), 'speaks', 'and so does the next one');
$client{"speaks, $_"}->close foreach sort keys %host;

is($server->sql(q{SELECT count(*) FROM sluice.clients WHERE application_name ~ '^half'}), '2', 'two are still there');
at_rest('lonely') or die 'the backends do not come to rest';
$server->sql(q{SELECT sluice.retire_backends(role => 'lonely')});
ok($server->wait_until(q{SELECT count(*) = 0 FROM sluice.backends WHERE role = 'lonely'}), 'they leave once more');
foreach my $way (sort keys %host)
{
	my $client = $client{"half closed, $way"};
	$client->send_bytes(RawClient::query("SELECT 'half closed'") . RawClient::terminate());
	shutdown($client->socket, 1);
	is(answer($client), 'half closed', "$way: who asks and closes its sending side is answered by a new backend");
	ok($client->at_end_of_stream, 'and then the connection ends');
}
ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'nobody is left');
unlike($server->log_since(0), qr/PANIC|TRAP:|terminated by signal|WARNING/, 'the log knows of nothing unusual');

$server->stop;
done_testing();
