# SPDX-License-Identifier: PostgreSQL
#
# Hostile clients and TLS: those that stop anywhere in a handshake or send it byte
# by byte, that send what is no TLS, vanish at each step of it, or break off once
# they are in.  The dispatcher serves everybody else meanwhile, and keeps nothing
# of them: no slot, no memory, no descriptor of a relay.

use strict;
use warnings;

use Certificates;
use Config;
use File::Basename qw(dirname);
use HostileTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

plan skip_all => 'Net::SSLeay is not installed' unless eval { require Net::SSLeay; 1 };
require TlsLayer;

my $certificates = Certificates->new;
my $test = HostileTest->new(conf => $certificates->conf('server') . <<'CONF');
authentication_timeout = '3s'
sluice.max_clients = 600
sluice.max_unauthenticated_clients = 500
CONF
my $server = $test->server;
my $ssl_request = pack('NN', 8, 80877103);
my $me = HostileTest::own_role();

sub encrypted_client
{
	my ($role, %option) = @_;
	return RawClient->connect($test->tcp, $test->login($role), tls => {%option});
}
my $witness = encrypted_client('by_scram');
sub undisturbed
{
	my ($name) = @_;
	is(scalar $witness->sql('SELECT 18'), 18, "$name: an encrypted client goes on");
	# The one more is this witness.
	ok($server->wait_until('SELECT count(*) = 3 FROM sluice.clients'), 'all other slots are free again');
	ok($server->wait_until('SELECT unauthenticated = 0 FROM sluice.status'), 'nobody is logging in');
	$test->served('and then');
	is($test->identity, $test->{identity}, 'no process has been replaced');
	return;
}

# ---------------------------------------------------------------- states

sub asked
{
	my ($client) = @_;
	$client->send_bytes($ssl_request);
	$client->read_bytes(1) eq 'S' or die 'no encryption';
	return;
}

# The first bytes of a handshake.
sub hello
{
	my (%option) = @_;
	my $tls = TlsLayer->new(%option);
	$tls->shake_hands('');
	return ($tls->outgoing, $tls);
}

# Has got the server's side of the handshake; returns what the client would say to it.
sub second_flight
{
	my ($client, %option) = @_;
	asked($client);
	my ($hello, $tls) = hello(%option);
	$client->send_bytes($hello);
	my $deadline = time() + $SluiceTest::patience_s;
	while (time() < $deadline)
	{
		$client->_receive if IO::Select->new($client->socket)->can_read(1);
		my $done = $tls->shake_hands($client->{buffer});
		die 'the handshake failed' unless defined $done;
		$client->{buffer} = '';
		my $answer = $tls->outgoing;
		return ($answer, $tls) if length $answer;
	}
	die 'no answer to a ClientHello';
}

my $startup = RawClient::startup_packet(user => 'by_scram', database => 'postgres');
my ($a_hello) = hello();
sub encrypted { my ($client, $bytes) = @_; $client->start_tls or die 'no TLS'; $client->send_bytes($bytes) if defined $bytes; return }

my @states = (
	[ 'an SSLRequest', sub { asked($_[0]) } ],
	[ 'the type of a record', sub { asked($_[0]); $_[0]->send_bytes("\x16") } ],
	[ 'a record header', sub { asked($_[0]); $_[0]->send_bytes(substr($a_hello, 0, 5)) } ],
	[ 'half a ClientHello', sub { asked($_[0]); $_[0]->send_bytes(substr($a_hello, 0, length($a_hello) / 2)) } ],
	[ 'a ClientHello but for its last byte', sub { asked($_[0]); $_[0]->send_bytes(substr($a_hello, 0, -1)) } ],
	[ 'a ClientHello in many records, not the last', sub { asked($_[0]); $_[0]->send_bytes(fragments($a_hello, 1, 20)) } ],
	[ 'a ClientHello and nothing more', sub { second_flight($_[0]) } ],
	[ 'half of the second flight', sub { my ($bytes) = second_flight($_[0]); $_[0]->send_bytes(substr($bytes, 0, 20)) } ],
	[
		'the second flight of TLS 1.2 but for its last byte',
		sub { my ($bytes) = second_flight($_[0], max_version => 'TLSv1.2'); $_[0]->send_bytes(substr($bytes, 0, -1)) }
	],
	[ 'a whole handshake', sub { encrypted($_[0]) } ],
	[ 'half a length word behind it', sub { encrypted($_[0], "\0\0") } ],
	[ 'half a start-up packet behind it', sub { encrypted($_[0], substr($startup, 0, 20)) } ],
	[ 'half of a record behind it', sub { encrypted($_[0]); $_[0]->send_plainly(substr($_[0]->tls->encrypt($startup), 0, -5)) } ],
	[ 'a request for GSS behind it', sub { encrypted($_[0], substr(pack('NN', 8, 80877104), 0, 7)) } ],
	[ 'asked for a password', sub { encrypted($_[0], $startup); $_[0]->read_message } ],
	[ 'half the answer', sub { encrypted($_[0], $startup); $_[0]->read_message; $_[0]->send_bytes('p' . pack('N', 50) . 'SCRAM') } ],
	[ 'half a cancel request', sub { encrypted($_[0], pack('NNN', 16, 80877102, 1)) } ]);

# The handshake message cut into records of some bytes each; all of them but for a number at the end.
sub fragments
{
	my ($record, $size, $left_out) = @_;
	my ($type, $version, undef, $body) = unpack('Ca2na*', $record);
	my $count = int((length($body) + $size - 1) / $size) - $left_out;
	return join '', map { my $piece = substr($body, $_ * $size, $size); pack('Ca2n', $type, $version, length $piece) . $piece }
	  0 .. $count - 1;
}

# ---------------------------------------------------------------- stopping, byte by byte

my ($bytes, $descriptors) = $test->footprint;
foreach my $round (1, 2)
{
	my $before = $test->errors('authentication', '57014');
	my @stuck = map { my $state = $_; map { [ $state->[0], $test->stuck($state) ] } 1 .. 4 } @states;
	is(scalar $witness->sql('SELECT 18'), 18, 'with ' . @stuck . ' clients that have stopped in a handshake, others go on');
	my $newcomer = encrypted_client('by_scram');
	is(scalar $newcomer->sql('SELECT 19'), 19, 'and log in');
	$newcomer->close;
	my @wrong = map { $_->[0] } grep { !$_->[1]->at_end_of_stream } @stuck;
	is("@wrong", '', 'each is ended');
	is($test->errors('authentication', '57014') - $before, scalar @stuck, 'and counted');
	undisturbed('after clients that stopped');
}
{
	my $packet = RawClient::startup_packet(user => 'by_scram', database => 'postgres', application_name => 'x' x 9000);
	my @slow;
	foreach my $copy (1 .. 5)
	{
		my $handshake = RawClient->open($test->tcp);
		asked($handshake);
		# Records of one byte each: a hello can take very long.
		push @slow, [ 'a ClientHello', $handshake, fragments($a_hello, 1, 0) ];
		my $inside = RawClient->open($test->tcp);
		encrypted($inside);
		push @slow, [ 'a start-up packet in records of a byte', $inside, $packet ];
	}
	my $number = @slow;
	my $before = $test->errors('authentication', '57014');
	my $deadline = time() + $SluiceTest::patience_s;
	while (@slow && time() < $deadline)
	{
		$_->[1]->send_bytes(substr($_->[2], 0, 1, '')) foreach @slow;
		@slow = grep { my $message = $_->[1]->poll_message(0); !defined $message || $message->{type} ne 'EOF' } @slow;
		sleep 0.01;
	}
	is(join(', ', map { $_->[0] } @slow), '', 'who sends a byte at a time is ended while sending');
	is($test->errors('authentication', '57014') - $before, $number, 'and counted');
	undisturbed('after slow handshakes');
}

# ---------------------------------------------------------------- what is no TLS

srand 20240303;
sub random_bytes { my ($count) = @_; return join '', map { chr int rand 256 } 1 .. $count }
sub damaged
{
	my ($bytes) = @_;
	foreach (0 .. int rand 6)
	{
		my $position = int rand(length($bytes) - 3);
		substr($bytes, $position, int rand 3, random_bytes(int rand 3));
	}
	return $bytes;
}
my $quick = RawClient::startup_packet(user => $me, database => 'postgres');
my %garbage = (
	'nothing' => '',
	'NULs' => "\0" x 500,
	'random bytes' => random_bytes(500),
	'HTTP' => "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	'a start-up packet' => $quick . RawClient::query('SELECT 1'),
	'a second SSLRequest' => $ssl_request . $a_hello,
	'a hello of SSL 2' => pack('nCnnnn', 0x802e, 1, 2, 0x15, 0, 0x10) . random_bytes(37),
	'a record without end' => "\x16\x03\x01\xff\xff" . random_bytes(20000),
	'a record that is too long' => pack('CnN', 0x16, 0x0301, 0x48010100) . random_bytes(20000),
	'empty records' => "\x16\x03\x01\0\0" x 1000,
	'a handshake message of 16 MB' => "\x16\x03\x01\x40\x00\x01\xff\xff\xff" . random_bytes(16380),
	'alerts' => "\x15\x03\x01\x00\x02\x01\x5a" x 500,
	'a fatal alert' => "\x15\x03\x01\x00\x02\x02\x28",
	'data before the handshake' => "\x17\x03\x03\x00\x20" . random_bytes(32),
	'a change of ciphers' => "\x14\x03\x03\x00\x01\x01" x 100,
	'a heartbeat' => "\x18\x03\x02\x00\x03\x01\x40\x00",
	'many hellos' => $a_hello x 30,
	'a hello, then a start-up packet' => $a_hello . $quick);
{
	my $before = $test->errors('protocol', '08P01');
	my (@left, @let_in);
	foreach my $name (sort keys %garbage)
	{
		foreach my $at_once (0, 1)
		{
			my $client = RawClient->open($test->tcp);
			# What comes behind the request before its answer must not be taken for what was said under encryption.
			$at_once ? $client->send_bytes($ssl_request . $garbage{$name}) : asked($client);
			$client->send_bytes($garbage{$name}) unless $at_once;
			shutdown($client->socket, 1);
			my $answer = '';
			eval { $answer .= $client->read_bytes(1) until $client->{at_end}; 1 } or push @left, $name;
			push @let_in, $name if $answer =~ /server_version|ReadyForQuery/;
		}
	}
	is("@left", '', 'what is no TLS ends the connection');
	is("@let_in", '', 'and lets nobody in');
	cmp_ok($test->errors('protocol', '08P01') - $before, '>=', keys(%garbage) - 2, 'it is counted as a violation');
	my $lost = 0;
	foreach my $number (1 .. 150)
	{
		my $client = RawClient->open($test->tcp);
		my $bytes = damaged($number % 3 ? $a_hello : fragments($a_hello, 1 + int rand 50, 0));
		$client->send_bytes($number % 2 ? $bytes : $ssl_request . $bytes);
		shutdown($client->socket, 1);
		eval { $client->read_bytes(1) until $client->{at_end}; 1 } or $lost++;
	}
	is($lost, 0, '150 damaged handshakes');
	$lost = 0;
	foreach my $number (1 .. 50)
	{
		my $client = RawClient->open($test->tcp);
		my ($answer) = second_flight($client, $number % 2 ? (max_version => 'TLSv1.2') : ());
		$client->send_bytes(damaged($answer));
		shutdown($client->socket, 1);
		eval { $client->read_bytes(1) until $client->{at_end}; 1 } or $lost++;
	}
	is($lost, 0, '50 handshakes damaged at their end');
}
undisturbed('after what is no TLS');

# Direct TLS needs the protocol's name.
foreach my $alpn ([], ['http/1.1'], [ 'postgresq', 'postgresqll', 'PostgreSQL' ])
{
	my $client = RawClient->open($test->tcp);
	my $accepted = eval { $client->start_tls(direct => 1, @$alpn ? (alpn => $alpn) : ()) };
	$client->send_bytes($quick) if $accepted;
	ok(!$accepted || $client->at_end_of_stream, 'direct TLS with ALPN "' . join(',', @$alpn) . '" is refused');
}
{
	my $client = RawClient->open($test->tcp);
	ok($client->start_tls(direct => 1, alpn => ['postgresql']), 'with the right one it is served');
	my $late = RawClient->open($test->tcp);
	encrypted($late, $ssl_request . $quick);
	my @answers = map { RawClient::describe($_) } $late->read_until('Z');
	unlike("@answers", qr/ReadyForQuery/, 'encryption cannot be asked for twice');
	$client->drop;
}

# ---------------------------------------------------------------- leaving

foreach my $how ('drop', 'reset', 'shutdown')
{
	my @clients = map { $test->stuck($_) } @states, @states;
	if ($how eq 'shutdown') { shutdown($_->socket, 1) foreach @clients; }
	else { $_->$how foreach @clients; }
	my @left = $how eq 'shutdown' ? grep { !$_->at_end_of_stream } @clients : ();
	is(scalar @left, 0, "leaving by $how at each of " . @states . ' steps');
	undisturbed("after $how");
}

# Those who are in: what is no TLS, half a record, no word of goodbye, a result that is not read.
$server->sql('CREATE TABLE numbers (n int); GRANT ALL ON numbers TO by_md5; ALTER ROLE by_md5 SET sluice.max_pool_size = 20');
my $large = RawClient::query(q{SELECT repeat('x', 1000) FROM generate_series(1, 20000)});
my %breaking_off = (
	'plain text' => sub { $_[0]->send_plainly(RawClient::query('COMMIT')); $_[0]->drop },
	'random bytes' => sub { $_[0]->send_plainly(random_bytes(1000)); $_[0]->drop },
	'half a record' => sub { $_[0]->send_plainly(substr($_[0]->tls->encrypt(RawClient::query('COMMIT')), 0, -3)); $_[0]->drop },
	'a damaged record' => sub {
		my $record = $_[0]->tls->encrypt(RawClient::query('COMMIT'));
		substr($record, 10, 1) ^= "\1";
		$_[0]->send_plainly($record);
		$_[0]->drop;
	},
	'a record twice' => sub {
		my $record = $_[0]->tls->encrypt(RawClient::query('SELECT 1'));
		$_[0]->send_plainly($record . $record);
		$_[0]->at_end_of_stream;
	},
	'a closed socket' => sub { $_[0]->drop },
	'a reset' => sub { $_[0]->reset },
	'half a message' => sub { $_[0]->send_bytes(substr(RawClient::query('COMMIT'), 0, 7)); $_[0]->drop },
	'a result that is not read' => sub { $_[0]->send_bytes($large); sleep 0.1; $_[0]->drop },
	'a result that is reset' => sub { $_[0]->send_bytes($large); sleep 0.1; $_[0]->reset },
	'goodbye of TLS alone' => sub { $_[0]->send_plainly($_[0]->tls->say_end); $_[0]->drop });
foreach my $version ('TLSv1.2', 'TLSv1.3')
{
	foreach my $name (sort keys %breaking_off)
	{
		my @clients = map { encrypted_client('by_md5', max_version => $version) } 1 .. 3;
		$_->sql('BEGIN; INSERT INTO numbers VALUES (1)') foreach @clients;
		$breaking_off{$name}->($_) foreach @clients;
		ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients WHERE role = $$by_md5$$'), "$version, $name: gone");
	}
}
is($server->sql('SELECT count(*) FROM numbers'), '0', 'nobody has committed by that');
undisturbed('after broken sessions');

# ---------------------------------------------------------------- new keys, again and again

SKIP:
{
	my $program = PostgreSQL::Test::Utils::tempdir() . '/key_changes';
	my @compiler = split ' ', $ENV{CC} || $Config{cc};
	my $source = dirname(__FILE__) . '/lib/key_changes.c';
	my ($output, $errors) = ('', '');
	eval { IPC::Run::run([ @compiler, '-o', $program, $source, '-lssl', '-lcrypto' ], '>', \$output, '2>', \$errors) }
	  or skip 'no compiler, or no OpenSSL to compile with', 1;
	my %way = $test->tcp;
	my $change_keys = sub {
		my ($output, @what) = @_;
		return IPC::Run::start([ $program, $way{host}, $way{port}, $me, 'postgres', @what ],
			'<', \undef, '>', $output, IPC::Run::timer($SluiceTest::patience_s));
	};
	# The kernel would end a client at the first.
	$server->reload_with('sluice.kernel_tls', 'off');
	my ($by, $deadline) = ('', time() + $SluiceTest::patience_s);
	while ($by ne 'dispatcher' && time() < $deadline)
	{
		my $client = encrypted_client('by_scram');
		$by = $server->sql('SELECT ssl_by FROM sluice.clients WHERE ssl ORDER BY connected_at DESC LIMIT 1');
		$client->close;
	}
	is($by, 'dispatcher', 'the dispatcher encrypts');

	$output = '';
	$change_keys->(\$output, 'queries', 3)->finish;
	is($output, "served\n", 'a client may change its keys');

	# More than the buffers of any socket hold: not all of it can be sent to one who has stopped reading.
	my ($before, $log) = ($test->errors('protocol', '08P01'), $server->log_size);
	foreach my $when ('login', 'session')
	{
		$output = '';
		my $flood = $change_keys->(\$output, $when, 1_000_000);
		$flood->pump until $output =~ /\n/;
		is(scalar $witness->sql('SELECT 18'), 18, "$when: while a client does nothing but that, others go on");
		my $newcomer = encrypted_client('by_scram');
		is(scalar $newcomer->sql('SELECT 19'), 19, 'and log in');
		$newcomer->close;
		$flood->finish;
		is($output, "ready\ndropped\n", 'it is dropped');
	}
	ok($server->wait_for_log(qr/client changes its SSL keys too often/, $log), 'the log says why');
	is($test->errors('protocol', '08P01') - $before, 1, 'and the first is counted, which was nobody yet');
	$server->sql('ALTER SYSTEM RESET sluice.kernel_tls');
	$server->sql('SELECT pg_reload_conf()');
	undisturbed('after changes of keys');
}

# ---------------------------------------------------------------- many, and what is left of them

my (@bytes, @descriptors);
foreach my $round (1 .. 3)
{
	foreach my $number (1 .. 150)
	{
		my $client = RawClient->open($test->tcp);
		if ($number % 3 == 0) { encrypted($client); }
		else { asked($client); $client->send_bytes($number % 3 == 1 ? $a_hello : random_bytes(100)); }
		$number % 2 ? $client->drop : $client->reset;
	}
	my $refused = 0;
	foreach my $number (1 .. 20)
	{
		my $client = RawClient->try_connect($test->tcp, $test->login('by_scram'), password => 'wrong', tls => {});
		$refused++ if $client->error && ($client->error->{C} || '') eq '28P01';
	}
	is($refused, 20, "round $round: wrong passwords are refused");
	undisturbed('after it');
	my ($used, $open) = $test->footprint;
	push @bytes, $used;
	push @descriptors, $open;
}
cmp_ok($bytes[2] - $bytes[0], '<', 100_000, "the dispatcher does not grow (@bytes bytes in use)");
cmp_ok($descriptors[2] - $descriptors[0], '<', 10, "and holds no descriptor of theirs (@descriptors)");
cmp_ok($descriptors[2] - $descriptors, '<', 30, 'nor of those before');

$witness->close;
$test->finish;
done_testing();
