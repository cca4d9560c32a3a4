# SPDX-License-Identifier: PostgreSQL
#
# Time and number of those who have not logged in yet, number of those who have,
# and a port that somebody else has.

use strict;
use warnings;

use IO::Socket::INET;
use IO::Socket::UNIX;
use LoginProbe qw(login_outcome outcome);
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $me = scalar getpwuid($>);
my $server = SluiceTest->new('main', tcp => 1, conf => "sluice.max_clients = 20\n");
my $node = $server->node;
my %pooled = (host => '127.0.0.1', port => $server->pool_port);
my %login = (user => $me, dbname => 'postgres');

sub change
{
	my ($name, $value) = @_;
	$server->sql("ALTER SYSTEM SET $name = $value");
	$server->sql('SELECT pg_reload_conf()');
	# The dispatcher follows the reload a moment later than this session.
	return;
}

my $established = RawClient->connect(%pooled, %login);

# ---------------------------------------------------------------- authentication_timeout

$server->sql(q{CREATE ROLE scram LOGIN PASSWORD 'secret'});
{
	my $path = $node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($path);
	open my $file, '>', $path or die "$path: $!";
	print $file "host all scram 127.0.0.1/32 scram-sha-256\n$rules";
	close $file;
}
change('authentication_timeout', q{'2s'});
{
	my $deadline = time() + $SluiceTest::patience_s;
	sleep 0.05
	  until login_outcome(%pooled, user => 'scram', dbname => 'postgres', password => 'x') =~ /28P01/ || time() > $deadline;

	my $offset = $server->log_size;
	my $silent = RawClient->open(%pooled);
	my $half = RawClient->open(%pooled);
	$half->send_bytes("\0\0\0");
	my $asked = RawClient->open(%pooled);
	$asked->send_startup(user => 'scram', database => 'postgres');
	is($asked->read_message->{type}, 'R', 'a client has been asked for its password');
	is(scalar $established->sql('SELECT 1'), 1, 'silent clients do not keep others waiting');
	my $outcome;
	do { $outcome = login_outcome(%pooled, user => 'scram', dbname => 'postgres', password => 'secret') }
	  until $outcome ne 'asked 10,11: closed' || time() > $deadline;
	is($outcome, 'asked 10,11,12: OK', 'nor the next one');
	is($_->read_message->{type}, 'EOF', 'after authentication_timeout the connection ends without a word')
	  foreach $silent, $half, $asked;
	my $lines = () = $server->log_since($offset) =~ /canceling authentication due to timeout/g;
	cmp_ok($lines, '>=', 3, 'the log says why');
	is(scalar $established->sql('SELECT 1'), 1, 'who is logged in has all the time in the world');
	ok($server->wait_until('SELECT clients = 1 AND unauthenticated = 0 FROM sluice.status'), 'the slots are free');
}
change('authentication_timeout', q{'60s'});

# ---------------------------------------------------------------- sluice.max_unauthenticated_clients

change('sluice.max_unauthenticated_clients', 5);
{
	my $refused = $server->sql('SELECT connections_refused FROM sluice.status');
	my (@silent, @outcomes);
	# Until the dispatcher has read the setting it lets more in.
	my $deadline = time() + $SluiceTest::patience_s;
	do
	{
		@silent = ();
		$server->wait_until('SELECT unauthenticated = 0 FROM sluice.status');
		# Of TCP connections that have said nothing at all the kernel does not tell for a while.
		@silent = map { RawClient->open(%pooled) } 1 .. 10;
		$_->send_bytes("\0") foreach @silent;
		@outcomes = map { $_->poll_message(2) } @silent[ 5 .. 9 ];
	} until (5 == grep { defined $_ } @outcomes) || time() > $deadline;
	is(join(',', map { defined $_ ? RawClient::error_fields($_)->{C} : 'accepted' } @outcomes),
		join(',', ('53300') x 5), 'the sixth silent client and those after it are refused');
	is(RawClient::error_fields($outcomes[0])->{M}, 'sorry, too many clients already', 'in the words of the server');
	is($_->poll_message(0), undef, 'the first five may still log in') foreach @silent[ 0 .. 4 ];
	is($server->sql('SELECT unauthenticated FROM sluice.status'), '5', 'they are counted');
	cmp_ok($server->sql('SELECT connections_refused FROM sluice.status'), '>=', $refused + 5, 'the others as well');
	is(scalar $established->sql('SELECT 1'), 1, 'who is logged in goes on');
	$silent[0]->send_bytes(substr(RawClient::startup_packet(user => $me, database => 'postgres'), 1));
	$silent[0]->authenticate;
	is($silent[0]->error, undef, 'one of the five logs in');
	is(login_outcome(%pooled, %login), 'asked : OK', 'and makes room for another');
	$silent[0]->close;
}
ok($server->wait_until('SELECT clients = 1 FROM sluice.status'), 'hanging up gives the slots back');
change('sluice.max_unauthenticated_clients', 500);

# ---------------------------------------------------------------- sluice.max_clients

{
	my @clients = map { RawClient->connect(%pooled, %login) } 1 .. 19;
	is($server->sql('SELECT clients FROM sluice.status'), '20', 'sluice.max_clients are in');
	like(login_outcome(%pooled, %login), qr/^asked : FATAL 53300 sorry, too many clients already/, 'one more is refused');
	is(scalar $_->sql('SELECT 1'), 1, 'a client is served') foreach @clients[ 0, 18 ], $established;
	(pop @clients)->close;
	ok($server->wait_until('SELECT clients = 19 FROM sluice.status'), 'one leaves');
	is(login_outcome(%pooled, %login), 'asked : OK', 'another comes in');
	$_->drop foreach @clients;
}
ok($server->wait_until('SELECT clients = 1 FROM sluice.status'), 'they have left');
$established->close;
unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:/, 'nothing has crashed');
$server->stop;

# ---------------------------------------------------------------- a port that is taken

{
	my $port = $server->pool_port;
	my $directory = $server->host;
	my $tcp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1)
	  or die "cannot listen: $!";
	my $path = "$directory/.s.PGSQL.$port";
	unlink $path;
	my $unix = IO::Socket::UNIX->new(Local => $path, Listen => 100) or die "cannot listen: $!";
	my $offset = $server->log_size;
	$node->start;
	ok($server->wait_for_log(qr/could not listen for pooled clients on any address/, $offset), 'the log says so');
	my $log = $server->log_since($offset);
	like($log, qr/could not listen on address "127\.0\.0\.1", port $port for pooled clients: .*\n.*HINT:  .*sluice\.port/,
		'with the address and a hint');
	like($log, qr/could not listen on Unix socket "\Q$path\E" for pooled clients: it is in use/, 'and the Unix socket');
	is($server->sql('SELECT 1'), '1', 'the server itself goes on');
	is($server->sql('SELECT port IS NULL FROM sluice.status'), 't', 'sluice.status shows no port');
	close $tcp;
	close $unix;
	ok($server->wait_until("SELECT port = $port FROM sluice.status"), 'the dispatcher tries again and gets its port');
	is(login_outcome(%pooled, %login), 'asked : OK', 'clients are served over TCP');
	is(login_outcome(%pooled, %login, host => $directory), 'asked : OK', 'and the Unix socket, whose file was a leftover');
	$server->stop;
	ok(!-e $path, 'at its end the server removes the file');
}

{
	# One of two addresses is enough to serve.
	my $port = $server->pool_port;
	my $tcp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1)
	  or die "cannot listen: $!";
	my $offset = $server->log_size;
	$node->start;
	ok($server->wait_until("SELECT port = $port FROM sluice.status"), 'with one address taken the others are served');
	like($server->log_since($offset), qr/could not listen on address "127\.0\.0\.1"/, 'and the log says which is not');
	is(login_outcome(%pooled, %login, host => $server->host), 'asked : OK', 'a client on the Unix socket');
	$server->stop;
}
done_testing();
