# SPDX-License-Identifier: PostgreSQL
#
# Limits that keep one client from taking what all need: what strangers may send,
# clients of an address, a role, a database, slots kept for superusers, clients that
# do not read or do not finish what they say, the accept rate, descriptors, memory.
# Each with its error, its hint and its counter.

use strict;
use warnings;

use IO::Socket::INET;
use LoginProbe qw(login_outcome);
use PoolTest qw(own_name);
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $me = own_name();
my $server = SluiceTest->new(
	'main',
	tcp => 1,
	conf => "sluice.max_clients = 100\nmax_connections = 12\nsluice.client_memory = 8MB\nsluice.max_pool_size = 1\n"
	  . "autovacuum = off\n");
my $node = $server->node;
my %pooled = (host => '127.0.0.1', port => $server->pool_port);
my %direct = (host => '127.0.0.1', port => $server->port);
my %login = (user => $me, dbname => 'postgres');

$server->sql(q{CREATE ROLE pw LOGIN PASSWORD 'secret'});
$server->sql("CREATE ROLE $_ LOGIN") foreach qw(app other);
$server->sql('CREATE DATABASE side');
{
	my $path = $node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($path);
	open my $file, '>', $path or die "$path: $!";
	print $file "host all pw 127.0.0.1/32 password\nhost all all 127.0.0.0/8 trust\n$rules";
	close $file;
}
$server->sql('SELECT pg_reload_conf()');

# ---------------------------------------------------------------- helpers

sub set_all
{
	my (%value) = @_;
	$server->sql("ALTER SYSTEM SET $_ = '$value{$_}'") foreach sort keys %value;
	$server->sql('SELECT pg_reload_conf()');
	return;
}

# The dispatcher follows a reload a moment later than others: tries until the outcome is the one expected.
sub until_outcome
{
	my ($expected, $try) = @_;
	my $deadline = time() + $SluiceTest::patience_s;
	my $outcome;
	do
	{
		sleep 0.05 if defined $outcome;
		$outcome = $try->();
	} until $outcome =~ $expected || time() > $deadline;
	return $outcome;
}

sub counted
{
	my ($class, $sqlstate) = @_;
	return $server->sql(
		"SELECT coalesce((SELECT count FROM sluice.errors WHERE class = '$class' AND sqlstate = '$sqlstate'), 0)");
}

sub last_message
{
	my ($class, $sqlstate) = @_;
	return $server->sql("SELECT last_message FROM sluice.errors WHERE class = '$class' AND sqlstate = '$sqlstate'");
}

sub none_left { return $server->wait_until('SELECT clients = ' . ($_[0] || 0) . ' FROM sluice.status') }

# A connection from another loopback address.
sub open_from
{
	my ($address) = @_;
	my $socket =
	  IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $server->pool_port, LocalAddr => $address, Proto => 'tcp')
	  or die "could not connect from $address: $!";
	return bless {
		%pooled,
		socket => $socket,
		buffer => '',
		timeout => $SluiceTest::patience_s,
		parameter_status => {},
		notices => []
	  },
	  'LoginProbe';
}

sub login_from
{
	my ($address, %option) = @_;
	my $client = open_from($address);
	$client->send_startup(user => $option{user}, database => $option{dbname});
	$client->authenticate;
	return $client;
}

my $cannot_see_settings = $server->sql(
	q{SELECT count(*) FROM pg_settings WHERE name LIKE 'sluice.max_clients_per%' AND boot_val <> '0'});
is($cannot_see_settings, '0', 'clients of a role, database or address are not limited by default');

# ---------------------------------------------------------------- bytes before authentication

{
	my %probe = (user => 'pw', dbname => 'postgres');
	my $longest = 'x' x (65535 - 4 - 1);
	my %parameters = (options => '-c geqo=on' . ' ' x 9800);
	is(
		login_outcome(%pooled, %probe, password => $longest, parameters => \%parameters),
		login_outcome(%direct, %probe, password => $longest, parameters => \%parameters),
		'the longest start-up packet and password are heard');
	like(login_outcome(%pooled, %probe, password => $longest), qr/28P01/, 'and the password refused for what it is');
	is(counted('limit', '53400'), '0', 'no limit was met');

	set_all('sluice.max_login_bytes' => '16kB');
	my $outcome = until_outcome(qr/53400/, sub { login_outcome(%pooled, %probe, password => 'x' x 20000) });
	is( $outcome,
		'asked 3: FATAL 53400 client sent too much before it was authenticated'
		  . ' | H=You may need to increase "sluice.max_login_bytes".',
		'more than sluice.max_login_bytes is refused');
	is(counted('limit', '53400'), '1', 'and counted');
	like(last_message('limit', '53400'), qr/sent too much before/, 'with its message');
	is(login_outcome(%pooled, %probe, password => 'secret'), 'asked 3: OK', 'what is short enough is served');
	set_all('sluice.max_login_bytes' => '128kB');
}

# ---------------------------------------------------------------- unauthenticated clients of one address

set_all('sluice.max_unauthenticated_clients' => 20);
none_left();
{
	my (@silent, $surplus);
	my $deadline = time() + $SluiceTest::patience_s;
	do
	{
		@silent = ();
		none_left();
		@silent = map { open_from('127.0.0.1') } 1 .. 19;
		$_->send_bytes("\0") foreach @silent;
		$surplus = $silent[18]->poll_message(2);
	} until defined $surplus || time() > $deadline;
	my $error = RawClient::error_fields($surplus);
	is("$error->{C} $error->{M}", '53300 too many clients from this address are logging in',
		'one address may have nine tenths of those who log in');
	like($error->{H}, qr/"sluice\.max_unauthenticated_per_address"/, 'the hint names the setting');
	is(last_message('limit', '53300'), 'too many clients from this address are logging in', 'it is counted');
	is(LoginProbe::outcome(login_from('127.0.0.2', %login)), 'asked : OK', 'another address is served meanwhile');
	is(login_outcome(%pooled, %login, host => $server->host), 'asked : OK', 'and a local user');

	my $before = counted('limit', '53300');
	my $offset = $server->log_size;
	my $refused = grep { my $client = open_from('127.0.0.1'); $client->send_bytes("\0"); defined $client->poll_message(60) } 1 .. 30;
	is($refused, 30, 'all others of that address are refused');
	is(counted('limit', '53300') - $before, 30, 'and counted');
	my $lines = () = $server->log_since($offset) =~ /too many clients from this address are logging in/g;
	cmp_ok($lines, '<', 30, 'without a line in the log for each');
	like($server->log_since(0), qr/pooled client from 127\.0\.0\.1 refused: too many clients from this address/, 'but one');

	$silent[0]->send_bytes(substr(RawClient::startup_packet(user => $me, database => 'postgres'), 1));
	$silent[0]->authenticate;
	is($silent[0]->error, undef, 'one of them logs in');
	is(login_outcome(%pooled, %login), 'asked : OK', 'and makes room for another of its address');
}
ok(none_left(), 'they have gone');
set_all('sluice.max_unauthenticated_clients' => 500);

# ---------------------------------------------------------------- clients of an address

set_all('sluice.max_clients_per_address' => 3);
{
	my $refusal = qr/^asked : FATAL 53300 too many clients from this address \| H=.*"sluice\.max_clients_per_address"/;
	my @clients;
	my $outcome = until_outcome($refusal, sub { push @clients, login_from('127.0.0.1', %login); LoginProbe::outcome($clients[-1]) });
	like($outcome, $refusal, 'an address may have as many clients as sluice.max_clients_per_address says');
	is(last_message('limit', '53300'), 'too many clients from this address', 'it is counted');
	is(LoginProbe::outcome(login_from('127.0.0.3', %login)), 'asked : OK', 'another address has its own number');
	my @local = map { RawClient->try_connect(%pooled, %login, host => $server->host) } 1 .. 4;
	is(join(' ', map { $_->error ? $_->error->{C} : 'OK' } @local), 'OK OK OK 53300', 'at the Unix socket the user counts');
	$_->drop foreach @clients, @local;
	ok(none_left(), 'all leave');
	is(LoginProbe::outcome(login_from('127.0.0.1', %login)), 'asked : OK', 'then there is room again');
}
set_all('sluice.max_clients_per_address' => 0);
until_outcome(qr/OK OK OK OK/,
	sub { my @clients = map { login_from('127.0.0.1', %login) } 1 .. 4; join ' ', map { LoginProbe::outcome($_) =~ s/asked : //r } @clients });

# ---------------------------------------------------------------- clients of a role and a database

set_all('sluice.max_clients_per_role' => 2);
{
	my $expected = 'asked : FATAL 53300 too many pooled clients of role "app"'
	  . ' | H=You may need to increase "sluice.max_clients_per_role".';
	my @clients = map { RawClient->connect(%pooled, user => 'app', dbname => 'postgres') } 1 .. 2;
	is(until_outcome(qr/53300/, sub { login_outcome(%pooled, user => 'app', dbname => 'postgres') }),
		$expected, 'a role may have sluice.max_clients_per_role');
	is(login_outcome(%pooled, user => 'app', dbname => 'side'), $expected, 'in all databases together');
	is(last_message('limit', '53300'), 'too many pooled clients of role "app"', 'it is counted');
	is(login_outcome(%pooled, user => 'other', dbname => 'postgres'), 'asked : OK', 'another role is served');
	my @super = map { RawClient->try_connect(%pooled, %login) } 1 .. 3;
	is(scalar(grep { defined $_->error } @super), 0, 'superusers are not limited');
	$clients[0]->close;
	is(until_outcome(qr/OK/, sub { login_outcome(%pooled, user => 'app', dbname => 'postgres') }),
		'asked : OK', 'who leaves makes room');
}
none_left();
set_all('sluice.max_clients_per_role' => 0, 'sluice.max_clients_per_database' => 2);
{
	my @clients = map { RawClient->connect(%pooled, user => $_, dbname => 'side') } qw(app other);
	is( until_outcome(qr/53300/, sub { login_outcome(%pooled, user => 'app', dbname => 'side') }),
		'asked : FATAL 53300 too many pooled clients of database "side"'
		  . ' | H=You may need to increase "sluice.max_clients_per_database".',
		'a database may have sluice.max_clients_per_database');
	is(login_outcome(%pooled, user => 'app', dbname => 'postgres'), 'asked : OK', 'another one is served');
	is(login_outcome(%pooled, user => $me, dbname => 'side'), 'asked : OK', 'and superusers');
}
set_all('sluice.max_clients_per_database' => 0);
ok(none_left(), 'all have left');

# ---------------------------------------------------------------- clients that do not read

sub backend_pid { return $server->sql("SELECT pid FROM sluice.backends WHERE role = '$_[0]' AND database = 'postgres'") }

$server->sql('CREATE TABLE kept (i int)');
$server->sql('GRANT ALL ON kept TO app');
$server->sql(q{ALTER ROLE app SET sluice.send_timeout = '2s'});
$server->sql('SELECT sluice.retire_backends()');
$server->wait_until('SELECT count(*) = 0 FROM sluice.backends');
{
	my $offset = $server->log_size;
	my $deaf = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	my $pid = $deaf->sql('SELECT pg_backend_pid()');
	$deaf->send_bytes(RawClient::query(q{BEGIN; INSERT INTO kept VALUES (1); SELECT repeat('x', 1000000) FROM generate_series(1, 100)}));
	my $other = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	is($other->sql('SELECT pg_backend_pid()'), $pid, 'after sluice.send_timeout its backend serves others');
	is($other->sql('SELECT count(*) FROM kept'), '0', 'its transaction is rolled back');
	ok($deaf->at_end_of_stream, 'its connection ends');
	is(counted('client_end', '08006'), '1', 'it is counted');
	is(last_message('client_end', '08006'), 'terminating connection because the client does not read', 'with its message');
	like($server->log_since($offset), qr/does not read\n.*DETAIL:  It has taken nothing of the answer for 2000 ms \("sluice\.send_timeout"\)/,
		'the log says why');
	$other->send_bytes(RawClient::query(q{COPY (SELECT repeat('x', 1000000) FROM generate_series(1, 100)) TO STDOUT}));
	my $third = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	is($third->sql('SELECT pg_backend_pid()'), $pid, 'the same holds for COPY TO STDOUT');
	is(counted('client_end', '08006'), '2', 'counted again');
	$_->drop foreach $deaf, $other, $third;
}
$server->sql(q{ALTER ROLE app SET sluice.send_timeout = '6s'});
$server->sql('SELECT sluice.retire_backends()');
{
	# Slow, but it takes some now and then: for much longer than the limit.
	my $slow = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	$slow->send_bytes(RawClient::query(q{SELECT repeat('x', 1000000) FROM generate_series(1, 60)}));
	my $rows = 0;
	while (my $message = $slow->read_message)
	{
		last if $message->{type} eq 'Z' || $message->{type} eq 'EOF';
		next unless $message->{type} eq 'D';
		$rows++;
		sleep 0.6 if $rows % 3 == 0;
	}
	is($rows, 60, 'a client that reads slowly is not ended');
	$slow->close;
}

# ---------------------------------------------------------------- clients that do not finish what they say

$server->sql(q{ALTER ROLE app SET sluice.message_timeout = '2s'});
$server->sql('SELECT sluice.retire_backends()');
{
	my $query = RawClient::query('SELECT 1');
	foreach my $length (1, 4, 5, 9)
	{
		my $mute = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
		$mute->send_bytes(substr($query, 0, $length));
		my $other = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
		my $pid = $other->sql('SELECT pg_backend_pid()');
		my $error = RawClient::error_fields($mute->read_message);
		is("$error->{V} $error->{C} $error->{M}", 'FATAL 57P05 terminating connection due to message timeout',
			"a message that ends after $length bytes");
		like($error->{H}, qr/"sluice\.message_timeout"/, 'the hint names the setting');
		is($mute->read_message->{type}, 'EOF', 'ends the connection');
		is($other->sql('SELECT pg_backend_pid()'), $pid, 'not the backend');
		$other->close;
	}
	is(counted('client_end', '57P05'), '4', 'they are counted');
	is(last_message('client_end', '57P05'), 'terminating connection due to message timeout', 'with their message');

	my $in_transaction = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	$in_transaction->sql('BEGIN');
	$in_transaction->sql('INSERT INTO kept VALUES (2)');
	sleep 3;
	is($in_transaction->transaction_state, 'T', 'the time between two messages does not count');
	is($in_transaction->sql('SELECT count(*) FROM kept'), '1', 'the transaction goes on');
	$in_transaction->send_bytes(substr($query, 0, 7));
	is(RawClient::error_fields($in_transaction->read_message)->{C}, '57P05', 'in a transaction, too, the rest of a message is awaited');
	is($server->sql('SELECT count(*) FROM kept'), '0', 'which is rolled back');

	my $copy = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	$copy->send_bytes(RawClient::query('COPY kept FROM STDIN'));
	is($copy->read_message->{type}, 'G', 'a COPY');
	$copy->send_bytes(RawClient::copy_data("1\n"));
	sleep 3;
	$copy->send_bytes(RawClient::copy_data("2\n") . RawClient::copy_done());
	is(join(' ', map { RawClient::describe($_) } $copy->read_until_ready), 'CommandComplete COPY 2 ReadyForQuery I',
		'the time between two messages of a COPY does not count');
	$copy->close;
}
$server->sql(q{ALTER ROLE app SET sluice.message_timeout = '6s'});
$server->sql('SELECT sluice.retire_backends()');
{
	my $slow = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	my $query = RawClient::query("SELECT length('" . 'x' x 200 . "')");
	my $parts = 20;
	my $size = int(length($query) / $parts) + 1;
	for (my $i = 0; $i < length $query; $i += $size)
	{
		$slow->send_bytes(substr($query, $i, $size));
		sleep 0.4;
	}
	is((map { RawClient::row_fields($_) } grep { $_->{type} eq 'D' } $slow->read_until_ready)[0], '200',
		'a message that arrives slowly is awaited');
	$slow->close;
}
$server->sql('ALTER ROLE app RESET ALL');
$server->sql('SELECT sluice.retire_backends()');
{
	my $half = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	$half->send_bytes(substr(RawClient::query('SELECT 1'), 0, 8));
	ok($server->wait_until(q{SELECT count(*) = 1 FROM sluice.clients WHERE role = 'app' AND backend_pid IS NOT NULL}), 'half a message');
	$server->sql(q{SELECT sluice.disconnect_client(client) FROM sluice.clients WHERE role = 'app'});
	is(RawClient::error_fields($half->read_message)->{C}, '57P01', 'disconnect_client() ends who is in the middle of one');
}
{
	my @default = split /\|/, $server->sql(
		q{SELECT string_agg(boot_val || unit, '|' ORDER BY name) FROM pg_settings WHERE name IN ('sluice.send_timeout', 'sluice.message_timeout')});
	is("@default", '300000ms 3600000ms', 'by default clients have minutes for a pause in a message, and an hour to read on');
}
ok(none_left(), 'all have left');

# ---------------------------------------------------------------- half-open connections

{
	set_all(tcp_keepalives_idle => 600, tcp_user_timeout => 0);
	$server->sql(q{ALTER ROLE app SET tcp_keepalives_idle = 1200});
	$server->sql('SELECT sluice.retire_backends()');
	my $keeps_alive = sub {
		my ($client) = @_;
		my $port = $client->socket->sockport;
		my ($timer) = `ss -Htno "dport = :$port and sport = :@{[ $server->pool_port ]}"` =~ /timer:\(keepalive,([^,]+),/;
		return 'none' unless defined $timer;
		return ($timer =~ /(\d+)min/ ? $1 : 0) + 1;
	};
	my $app = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	my $plain;
	until_outcome(qr/^600$/, sub { $plain = RawClient->connect(%pooled, user => 'other', dbname => 'postgres'); $plain->sql('SHOW tcp_keepalives_idle') });
	is($plain->sql('SHOW tcp_keepalives_idle'), '600', 'the setting of the server');
	is($app->sql('SHOW tcp_keepalives_idle'), '1200', 'of the role');
	my $has_ss = `ss -V 2>&1` =~ /ss utility/;
	SKIP:
	{
		skip 'ss is not installed', 6 unless $has_ss;
		# While an answer is on its way the kernel shows another timer.
		my $within = sub {
			my ($client, $low, $high, $name) = @_;
			my $deadline = time() + $SluiceTest::patience_s;
			my $found;
			do
			{
				sleep 0.05 if defined $found;
				$found = $keeps_alive->($client);
			} until ($found ne 'none' && $found >= $low && $found <= $high) || time() > $deadline;
			ok($found ne 'none' && $found >= $low && $found <= $high, $name) or diag("keepalive in $found minutes");
		};
		$within->($plain, 5, 11, 'is that of the socket');
		$within->($app, 15, 21, 'and so is that of the role');
		$plain->sql('SET tcp_keepalives_idle = 3000');
		$within->($plain, 40, 51, 'SET acts at once');
		# Another client of the same backend does not inherit it, nor does the setting stay behind.
		my $next = RawClient->connect(%pooled, user => 'other', dbname => 'postgres');
		$next->sql('SELECT 1');
		$within->($next, 5, 11, 'on no other client');
		$plain->sql('RESET tcp_keepalives_idle');
		$within->($plain, 5, 11, 'RESET takes it back');
		set_all(tcp_keepalives_idle => 1800);
		until_outcome(qr/^1800$/, sub { $next->sql('SHOW tcp_keepalives_idle') });
		$within->($next, 25, 31, 'a reload reaches clients that are connected');
		$next->close;
	}
	$_->close foreach $app, $plain;
	$server->sql('ALTER ROLE app RESET ALL');
	$server->sql("ALTER SYSTEM RESET $_") foreach qw(tcp_keepalives_idle tcp_user_timeout);
	$server->sql('SELECT pg_reload_conf()');
}
ok(none_left(), 'all have left');

# ---------------------------------------------------------------- accept rate

{
	my $established = RawClient->connect(%pooled, %login);
	my $before = counted('limit', '53400');
	my $offset = $server->log_size;
	set_all('sluice.max_accept_rate' => 1);
	my (@waiting, $deadline);
	$deadline = time() + $SluiceTest::patience_s;
	while (time() < $deadline)
	{
		push @waiting, open_from('127.0.0.1') foreach 1 .. 10;
		$_->send_startup(user => $me, database => 'postgres') foreach @waiting[ -10 .. -1 ];
		last if defined $waiting[-1] && !defined $waiting[-1]->poll_message(0.5);
		(shift @waiting)->drop while @waiting > 10;
	}
	is(scalar $established->sql('SELECT 1'), 1, 'who is logged in goes on') for 1 .. 20;
	cmp_ok(counted('limit', '53400'), '>', $before, 'slowing down is counted');
	like(last_message('limit', '53400'), qr/slowed down/, 'with its message');
	like($server->log_since($offset), qr/accepting pooled clients has been slowed down to 1 per second\n(.*DETAIL.*\n)?.*HINT:.*"sluice\.max_accept_rate"/,
		'the log names the setting');
	my $lines = () = $server->log_since($offset) =~ /has been slowed down to/g;
	my $times = counted('limit', '53400') - $before;
	cmp_ok($lines, '<=', $times, 'not more often than it happened');
	set_all('sluice.max_accept_rate' => 20000);
	foreach my $client (@waiting)
	{
		$client->authenticate;
		next unless defined $client->error;
		fail('a client that waited was refused: ' . ($client->error->{M} || 'closed'));
	}
	pass('in the end all who waited are served');
	$_->drop foreach @waiting;
	$established->close;
}
ok(none_left(), 'all have left');

# ---------------------------------------------------------------- descriptors

SKIP:
{
	skip 'prlimit is not installed', 13 if system('prlimit --version >/dev/null 2>&1') != 0;
	my $limit_of = sub { my ($pid) = @_; return (split ' ', `prlimit --noheadings --raw --nofile --output SOFT --pid $pid`)[0] };
	my $set_limit = sub { my ($pid, $limit) = @_; return system("prlimit --pid $pid --nofile=$limit:") == 0 };
	my $dispatcher = $server->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sluice dispatcher'});

	my $established = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	$established->sql('SELECT 1');
	my $usual = $limit_of->($dispatcher);
	my $offset = $server->log_size;
	my $before = counted('limit', '53000');
	ok($set_limit->($dispatcher, 5), 'the dispatcher has no descriptors left');
	my $newcomer = open_from('127.0.0.1');
	$newcomer->send_startup(user => $me, database => 'postgres');
	ok($server->wait_until("SELECT coalesce(sum(count), 0) >= $before + 8 FROM sluice.errors WHERE class = 'limit' AND sqlstate = '53000'"),
		'it counts each attempt');
	is(scalar $established->sql('SELECT 2'), 2, 'who is logged in goes on');
	my $lines = () = $server->log_since($offset) =~ /could not accept a pooled client: Too many open files/g;
	cmp_ok($lines, '>=', 1, 'the log says so');
	cmp_ok($lines, '<', counted('limit', '53000') - $before, 'without a line for each attempt');
	ok($set_limit->($dispatcher, $usual), 'there are descriptors again');
	$newcomer->authenticate;
	is($newcomer->error, undef, 'the client that waited is served');
	$newcomer->close;

	my $backend = backend_pid('app');
	$usual = $limit_of->($backend);
	ok($set_limit->($backend, 5), 'a backend has no descriptors left');
	my $refused = RawClient->try_connect(%pooled, user => 'app', dbname => 'postgres');
	my $error = $refused->error;
	unless (defined $error)
	{
		# Greeted without a backend.
		$refused->send_bytes(RawClient::query('SELECT 1'));
		$error = RawClient::error_fields($refused->read_message);
	}
	is("$error->{V} $error->{C} $error->{M}", 'FATAL 53000 could not hand the connection over to a backend',
		'a client it cannot get the socket of is told');
	is($refused->read_message->{type}, 'EOF', 'and disconnected');
	is(scalar $established->sql('SELECT 3'), 3, 'those it has are served');
	ok($set_limit->($backend, $usual), 'there are descriptors again');
	my $next = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	is($next->sql('SELECT pg_backend_pid()'), $backend, 'and the same backend serves new clients');
	$_->close foreach $established, $next;
}
ok(none_left(), 'no slot is lost');

# ---------------------------------------------------------------- memory

set_all('sluice.max_client_memory' => '64kB');
$server->sql('SELECT sluice.retire_backends()');
{
	my $greedy = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	my $modest = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	my ($made, $error) = (0, undef);
	my $text = '/* ' . 'x' x 8000 . ' */';
	foreach my $i (1 .. 50)
	{
		my ($message) = grep { $_->{type} eq 'E' } $greedy->exchange(RawClient::parse("s$i", "SELECT $i $text") . RawClient::sync());
		if (defined $message) { $error = RawClient::error_fields($message); last; }
		$made++;
	}
	ok($made >= 4 && $made <= 8, "a client keeps statements of 64 kB: $made");
	is("$error->{V} $error->{C} $error->{M}",
		'ERROR 53200 too much memory for prepared statements: a client may use 64 kB', 'then it gets an error');
	like($error->{H}, qr/"sluice\.max_client_memory"/, 'the hint names the setting');
	is(counted('statement', '53200'), '1', 'it is counted');
	is(join(' ', map { RawClient::row_fields($_) } grep { $_->{type} eq 'D' }
		  $greedy->exchange(RawClient::bind('', 's2') . RawClient::execute('') . RawClient::sync())),
		'2', 'what it has it keeps');
	is($greedy->sql_error("PREPARE p AS SELECT 0 $text")->{C}, '53200', 'PREPARE of SQL counts, too');
	is(scalar $modest->sql('SELECT 1'), 1, 'another client is not concerned');
	my @messages = $modest->exchange(RawClient::parse('mine', "SELECT 1 $text") . RawClient::sync());
	is($messages[0]{type}, '1', 'and makes statements of its own');
	$greedy->exchange(RawClient::close_statement("s$_") . RawClient::sync()) foreach 1 .. 2;
	@messages = $greedy->exchange(RawClient::parse('again', "SELECT 1 $text") . RawClient::sync());
	is($messages[0]{type}, '1', 'who closes some may make others');
	$greedy->sql('DISCARD ALL');
	foreach my $round (1 .. 3)
	{
		foreach my $i (1 .. 4)
		{
			@messages = $greedy->exchange(RawClient::parse("r$i", "SELECT $i $text") . RawClient::sync());
			is($messages[0]{type}, '1', "round $round: what is gone does not count") if $i == 4;
		}
		$greedy->sql('DEALLOCATE ALL');
	}
	$greedy->sql("SELECT set_config('app.large', repeat('x', 100000), false)");
	ok($server->wait_until(q{SELECT count(*) = 1 FROM sluice.clients WHERE role = 'app' AND pins::text ~ 'state_too_large'}),
		'settings beyond it pin the client');
	is($greedy->sql(q{SELECT length(current_setting('app.large'))}), '100000', 'and stay');
	$_->close foreach $greedy, $modest;
}
set_all('sluice.max_client_memory' => '1GB');
{
	my $greedy = RawClient->connect(%pooled, user => 'app', dbname => 'postgres');
	my $text = 'x' x 1000000;
	my $error;
	foreach my $i (1 .. 100)
	{
		my ($message) = grep { $_->{type} eq 'E' } $greedy->exchange(RawClient::parse("s$i", "SELECT $i /* $text */") . RawClient::sync());
		next unless defined $message;
		$error = RawClient::error_fields($message);
		last if $error->{M} eq 'out of memory';
		$error = undef;
	}
	is($error && $error->{C}, '53200', 'all together have sluice.client_memory');
	like($error && $error->{H}, qr/"sluice\.client_memory"/, 'the hint names the setting');
	is(scalar $greedy->sql('SELECT 1'), 1, 'the client goes on');
	is($server->pool_sql('SELECT 1', user => 'other'), '1', 'as do others');
	$greedy->close;
	is($server->sql(q{SELECT maximum::bigint FROM sluice.pressure WHERE resource = 'client memory'}), 8 * 1024 * 1024,
		'sluice.pressure shows the limit');
}
ok(none_left(), 'all have left');

# ---------------------------------------------------------------- slots kept for superusers

$server->sql('ALTER SYSTEM SET sluice.max_clients = 8');
$server->restart;
{
	my %app = (user => 'app', dbname => 'postgres');
	$server->wait_until('SELECT clients = 0 FROM sluice.status');
	my @clients = map { RawClient->connect(%pooled, %app) } 1 .. 5;
	my @others = map { RawClient->connect(%direct, %app) } 1 .. 9;
	my $direct = login_outcome(%direct, %app);
	like($direct, qr/FATAL 53300 remaining connection slots are reserved/, 'the server keeps its last slots for superusers');
	is(login_outcome(%pooled, %app), $direct, 'so does the pooled port, in the same words');
	is(counted('limit', '53300'), '1', 'it is counted');
	my @super = map { RawClient->try_connect(%pooled, %login) } 1 .. 3;
	is(scalar(grep { defined $_->error } @super), 0, 'superusers get them');
	like(login_outcome(%pooled, %login), qr/53300 sorry, too many clients already \| H=.*"sluice\.max_clients"/, 'until there are none');
	(pop @super)->close;
	$server->wait_until('SELECT clients = 7 FROM sluice.status');
	is(login_outcome(%pooled, %app), $direct, 'what a superuser leaves is not for others');
	$_->drop foreach @clients, @others, @super;
}
ok(none_left(), 'all have left');

unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:/, 'nothing has crashed');
$server->stop;
done_testing();
