# SPDX-License-Identifier: PostgreSQL
#
# Clients that stop in the middle of anything, or go on a byte at a time: before
# they have logged in, authentication_timeout ends them, wherever they are;
# afterwards they have what the server's own time limits leave them.  Nobody else
# notices, and they hold no more than they must.

use strict;
use warnings;

use HostileTest;
use RawClient;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $test = HostileTest->new(conf => <<'CONF');
authentication_timeout = '2s'
sluice.max_clients = 1000
sluice.max_unauthenticated_clients = 800
CONF
my $server = $test->server;
my $me = HostileTest::own_role();

# What a client hears until the end of the stream, as text.
sub last_words { my ($client) = @_; return join '; ', map { RawClient::describe($_) } $client->read_until('') }

sub timed_out { return $test->errors('authentication', '57014') }

# ---------------------------------------------------------------- stuck before authentication is over

my @states = HostileTest::states();
my ($bytes, $descriptors) = $test->footprint;
my $copies = 4;    # of each state, over either kind of socket

foreach my $round (1 .. 2)
{
	my $before = timed_out();
	my @stuck;
	foreach my $state (@states)
	{
		push @stuck, map { [ $state->[0], $test->stuck($state, unix => $_ % 2) ] } 1 .. $copies;
	}
	$test->served('with ' . @stuck . ' clients that have stopped');
	is($server->sql(q{SELECT count(*) FROM sluice.backends b WHERE b.role IN ('by_password', 'by_md5')}), '0',
		'no backend has been started for those who are not in');
	my @wrong = map { $_->[0] } grep { last_words($_->[1]) ne 'EOF' } @stuck;
	is("@wrong", '', 'each is ended without a word');
	is(timed_out() - $before, scalar @stuck, 'each is counted');
	$test->undisturbed('afterwards');
}

foreach my $round (1 .. 2)
{
	my $before = timed_out();
	my @slow;
	foreach my $way (HostileTest::long_ways())
	{
		foreach my $copy (1 .. $copies)
		{
			push @slow, { name => $way->[0], client => $test->stuck($way, unix => $copy % 2), left => $way->[2] };
		}
	}
	my $number = @slow;
	my $deadline = time() + $SluiceTest::patience_s;
	my $served = 0;
	while (@slow && time() < $deadline)
	{
		$_->{client}->send_bytes(substr($_->{left}, 0, 1, '')) foreach @slow;
		@slow = grep { my $message = $_->{client}->poll_message(0); !defined $message || $message->{type} ne 'EOF' } @slow;
		$test->served("with $number clients that send a byte at a time") unless $served++;
		sleep 0.02;
	}
	is(join(', ', map { $_->{name} } @slow), '', 'all of them are ended while they send');
	is(timed_out() - $before, $number, 'each is counted');
	$test->undisturbed('after slow clients');
}

{
	my ($bytes_after, $descriptors_after) = $test->footprint;
	cmp_ok($bytes_after - $bytes, '<', 100_000, 'the dispatcher has kept no memory of them');
	cmp_ok($descriptors_after - $descriptors, '<', 10, 'and no descriptors');
}

# A shorter limit holds for everybody who logs in from then on, whoever is on the way already.
{
	$server->reload_with('authentication_timeout', 300);
	my $probe;
	my $deadline = time() + $SluiceTest::patience_s;
	do { $probe = RawClient->open($test->tcp); } until !$probe->at_end_of_stream(3) || time() > $deadline;
	my @patient = ($probe, map { RawClient->open($test->tcp) } 1 .. 3);
	$server->reload_with('authentication_timeout', 2);
	my @late = map { RawClient->open($test->tcp) } 1 .. 3;
	# The dispatcher may follow the reload a moment later than this session.
	do { push @late, RawClient->open($test->tcp) } until $late[-1]->at_end_of_stream(5) || time() > $deadline;
	cmp_ok(time(), '<', $deadline, 'with a shorter limit new clients need not outlive old ones');
	$_->drop foreach @patient, @late;
}
$test->undisturbed('after a change of the limit');

# ---------------------------------------------------------------- those who are in

my $query = RawClient::query('SELECT ' . ('1 + ' x 2000) . '1');
my $bind = RawClient::bind('', '', [ 'x' x 1000 ]);
my %unfinished = (
	'nothing' => '',
	'the type of a message' => 'Q',
	'half a header' => substr($query, 0, 3),
	'a header' => substr($query, 0, 5),
	'half a query' => substr($query, 0, 500),
	'a query but for its last byte' => substr($query, 0, -1));

# The server's own time limits, on both ports; what has been sent of a message buys no time.
$server->sql(q{CREATE ROLE sleepy LOGIN; ALTER ROLE sleepy SET idle_session_timeout = '1s'});
$server->sql(q{CREATE ROLE dreamy LOGIN; ALTER ROLE dreamy SET idle_in_transaction_session_timeout = '1s'});
foreach my $role ('sleepy', 'dreamy')
{
	$server->sql("ALTER ROLE $role SET sluice.max_pool_size = 20");
	my (%client, %drip);
	foreach my $way ('direct', 'tcp')
	{
		foreach my $name (keys %unfinished)
		{
			my $client = RawClient->connect($test->$way, $test->login($role));
			$client->sql('BEGIN') if $role eq 'dreamy';
			$client->send_bytes($unfinished{$name});
			$client{"$name, $way"} = $client;
		}
		$drip{$way} = RawClient->connect($test->$way, $test->login($role));
		$drip{$way}->sql('BEGIN') if $role eq 'dreamy';
	}
	my $deadline = time() + $SluiceTest::patience_s;
	my ($position, %words) = (0);
	while (keys %drip && time() < $deadline)
	{
		foreach my $way (keys %drip)
		{
			$drip{$way}->send_bytes(substr($query, $position, 1));
			my $message = $drip{$way}->poll_message(0);
			next unless defined $message;
			$words{$way} = RawClient::describe($message);
			(delete $drip{$way})->drop;
		}
		# The header takes a while as well.
		sleep($position++ < 5 ? 0.15 : 0.02);
	}
	is($words{tcp}, $words{direct}, "$role: a query that comes byte by byte ends as on a direct connection");
	like($words{direct}, $role eq 'sleepy' ? qr/C=57P05/ : qr/C=25P03/, 'which is by its time limit');
	foreach my $name (sort keys %unfinished)
	{
		my ($direct, $pooled) = map { last_words($client{"$name, $_"}) } 'direct', 'tcp';
		is($pooled, $direct, "$role: so does a client that has sent $name");
	}
}
$test->undisturbed('after clients that were too slow for their limits');

# Without such limits they stay, and hold their own pool's backends at most; an administrator can end each of them.
$server->sql('CREATE ROLE sloth LOGIN; ALTER ROLE sloth SET sluice.max_pool_size = 10; CREATE TABLE numbers (n int); '
	  . 'GRANT ALL ON numbers TO sloth');
my %holding = (
	'half a header' => [ '', substr($query, 0, 3) ],
	'half a query' => [ '', substr($query, 0, 500) ],
	'a Parse without Sync' => [ '', RawClient::parse('', 'SELECT $1::text') ],
	'half a Bind behind a Parse' => [ '', RawClient::parse('', 'SELECT $1::text') . substr($bind, 0, 100) ],
	'an Execute without Sync' => [ '', RawClient::parse('', 'SELECT 1') . RawClient::bind('', '', []) . RawClient::execute('') ],
	'COPY data that never comes' => [ '', RawClient::query('COPY numbers FROM STDIN') ],
	'half of COPY data' => [ '', RawClient::query('COPY numbers FROM STDIN') . substr(RawClient::copy_data("1\n" x 100), 0, 50) ],
	'a result that is never read' => [ '', RawClient::query(q{SELECT repeat('x', 1000) FROM generate_series(1, 100000)}) ],
	'a transaction' => [ 'BEGIN', '' ],
	'half a query in a transaction' => [ 'BEGIN', substr($query, 0, 500) ]);
{
	my %client;
	my @idle = map { RawClient->connect($test->tcp, $test->login('sloth')) } 1 .. 30;
	is($server->sql('SELECT count(*) FROM sluice.clients WHERE role = $$sloth$$ AND backend_pid IS NOT NULL'), '0',
		'30 idle clients hold no backend');
	foreach my $name (sort keys %holding)
	{
		my ($before, $bytes_sent) = @{ $holding{$name} };
		$client{$name} = RawClient->connect($test->tcp, $test->login('sloth'), parameters => { application_name => $name });
		$client{$name}->sql($before) if $before ne '';
		$client{$name}->send_bytes($bytes_sent) if $bytes_sent ne '';
	}
	$test->served('with clients that stop in the middle');
	ok($server->wait_until(q{SELECT count(*) = 10 FROM sluice.clients WHERE role = 'sloth' AND state = 'leased'}),
		'they hold a backend each') or diag($server->sql(q{SELECT c FROM sluice.clients c WHERE role = 'sloth'}));
	foreach my $name (sort keys %client)
	{
		is($server->sql("SELECT sluice.disconnect_client(client) FROM sluice.clients WHERE application_name = '$name'"), 't',
			"an administrator ends a client with $name");
		like(last_words($client{$name}), qr/ErrorResponse C=57P01; .*S=FATAL.*; EOF$/, 'who is told') if $name !~ /never read/;
		ok($server->wait_until("SELECT count(*) = 0 FROM sluice.clients WHERE application_name = '$name'"), 'it is gone');
	}
	is(scalar $_->sql('SELECT 1'), 1, 'its pool serves the others') foreach @idle[ 0, 29 ];
	$_->drop foreach @idle, values %client;
}
is($server->sql('SELECT count(*) FROM numbers'), '0', 'nothing of what was left unfinished has been done');
$test->undisturbed('after clients that were disconnected');

$test->finish;
done_testing();
