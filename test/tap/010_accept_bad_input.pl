# SPDX-License-Identifier: PostgreSQL
#
# Garbage, truncated, oversized and hostile packets and messages: each ends the
# one connection it came on, and nobody else notices.

use strict;
use warnings;

use LoginProbe qw(login_outcome outcome);
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $me = scalar getpwuid($>);
my $server = SluiceTest->new('main', tcp => 1, conf => "sluice.max_pool_size = 2\n");
my $node = $server->node;
my %pooled = (host => '127.0.0.1', port => $server->pool_port);
my %login = (user => $me, dbname => 'postgres');

$server->sql(q{CREATE ROLE scram LOGIN PASSWORD 'secret'});
{
	my $path = $node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($path);
	open my $file, '>', $path or die "$path: $!";
	print $file "host all scram 127.0.0.1/32 scram-sha-256\n$rules";
	close $file;
	$node->restart;
	$server->wait_for_pool;
}
my %scram = (user => 'scram', dbname => 'postgres', password => 'secret');

# What must be the same from the first line of this test to the last.
my $identity = 'SELECT dispatcher_pid, pg_postmaster_start_time() FROM sluice.status';
my $identity_before = $server->sql($identity);

# The client that must not notice: it keeps a transaction open, and so its backend.
my $witness = RawClient->connect(%pooled, %login);
my $idle_witness = RawClient->connect(%pooled, %login, parameters => { application_name => 'idle' });
$witness->sql($_) foreach 'BEGIN', 'CREATE TEMP TABLE kept(x int)', 'INSERT INTO kept VALUES (1)';
my $witness_pid = $witness->sql('SELECT pg_backend_pid()');
my $rounds = 1;

sub undisturbed
{
	my ($name) = @_;
	$witness->sql('INSERT INTO kept VALUES (1)');
	is(scalar $witness->sql('SELECT count(*) FROM kept'), ++$rounds, "$name: a client in a transaction goes on");
	is(scalar $witness->sql('SELECT pg_backend_pid()'), $witness_pid, 'on its backend');
	is(scalar $idle_witness->sql('SHOW application_name'), 'idle', 'so does an idle client');
	ok($server->wait_until('SELECT count(*) = 2 FROM sluice.clients'), 'all other slots are free again');
	is($server->sql($identity), $identity_before, 'no process has been replaced');
	return;
}

sub counter { my ($name) = @_; return $server->sql("SELECT $name FROM sluice.status") }

sub packet { my ($protocol, $body) = @_; return pack('NN', 8 + length $body, $protocol) . $body }

# Sends bytes on a connection of its own; true if the server ends it.  At the end of what a truncated packet has, the
# client hangs up.
sub is_ended
{
	my ($bytes, $hang_up) = @_;
	my $client = RawClient->open(%pooled);
	$client->send_bytes($bytes);
	shutdown($client->socket, 1) if $hang_up;
	return $client->at_end_of_stream;
}

# ---------------------------------------------------------------- start-up packets

my $names = "user\0$me\0database\0postgres\0";
my $good = packet(3 << 16, "$names\0");
my $violations = counter('protocol_violations');
my %bad_packets = (
	'HTTP' => "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	'a TLS hello' => "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . ('r' x 100),
	'length 0' => pack('NN', 0, 3 << 16),
	'length 4' => pack('NN', 4, 3 << 16),
	'length 7' => pack('NN', 7, 3 << 16),
	'a negative length' => pack('NN', 0xffffffff, 3 << 16),
	'length 10005' => pack('NN', 10005, 3 << 16) . ('x' x 9997),
	'1 GB' => pack('NN', 0x40000000, 3 << 16) . ('x' x 9997),
	'an SSL request that is too long' => pack('NN', 12, 80877103) . 'xxxx',
	'a GSS request that is too long' => pack('NN', 12, 80877104) . 'xxxx',
	'a cancel request that is too short' => pack('NN', 8, 80877102),
	'no terminator' => packet(3 << 16, "user\0$me"),
	'NULs only' => packet(3 << 16, "\0" x 100),
	'a value that does not end' => packet(3 << 16, "user\0$me\0options\0" . ('x' x 9000)));
foreach my $name (sort keys %bad_packets)
{
	my $offset = $server->log_size;
	ok(is_ended($bad_packets{$name}), "a start-up packet: $name");
	ok($server->wait_for_log(qr/invalid length of startup packet|invalid startup packet layout/, $offset), 'it is in the log');
}
is(counter('protocol_violations') - $violations, scalar keys %bad_packets, 'each has been counted');
ok(!is_ended_by_size(), 'the longest packet is no error');
undisturbed('after bad start-up packets');

sub is_ended_by_size
{
	my $client = RawClient->open(%pooled);
	my $filler = 10004 - 8 - length("${names}application_name\0\0\0");
	$client->send_bytes(packet(3 << 16, "${names}application_name\0" . ('x' x $filler) . "\0\0"));
	$client->authenticate;
	return defined $client->error;
}

{
	my $offset = $server->log_size;
	my @wrong = grep { !is_ended(substr($good, 0, $_), 1) } 0 .. length($good) - 1;
	is("@wrong", '', 'a start-up packet cut short at any byte');
	my $lines = () = $server->log_since($offset) =~ /incomplete startup packet/g;
	is($lines, length($good) - 1, 'each is in the log, but for the one without a byte');
}
undisturbed('after start-up packets cut short');

# ---------------------------------------------------------------- hanging up in a SCRAM exchange

{
	my $measured = LoginProbe->open(%pooled, %scram);
	$measured->send_startup(user => 'scram', database => 'postgres');
	$measured->authenticate;
	my $length = $measured->{bytes_sent};
	is($measured->error, undef, "a whole exchange takes $length bytes");
	$measured->drop;
	my $served = 0;
	foreach my $limit (0 .. $length - 1)
	{
		my $client = LoginProbe->open(%pooled, %scram, byte_limit => $limit);
		eval { $client->send_startup(user => 'scram', database => 'postgres'); $client->authenticate; };
		$served++ if $@ ne "hung up\n";
		$limit % 2 ? $client->reset : $client->drop;
	}
	is($served, 0, 'clients hang up at each byte of it');
}
undisturbed('after clients that hung up');

# ---------------------------------------------------------------- random bytes

srand 20240229;

sub random_bytes { my ($count) = @_; return join '', map { chr int rand 256 } 1 .. $count }

# A packet or message with some bytes changed, cut out or put in.
sub damaged
{
	my ($bytes) = @_;
	foreach (0 .. int rand 4)
	{
		my $position = int rand(1 + length $bytes);
		my $removed = int rand 3;
		substr($bytes, $position, $removed > length($bytes) - $position ? 0 : $removed, random_bytes(int rand 3));
	}
	return $bytes;
}

{
	my $lost = 0;
	foreach my $number (1 .. 200)
	{
		my $bytes =
			$number % 4 == 0 ? random_bytes(1 + int rand 300)
		  : $number % 4 == 1 ? damaged($good)
		  : $number % 4 == 2 ? packet(3 << 16, random_bytes(int rand 300))
		  :                    packet(3 << 16, $names . random_bytes(int rand 30) . "\0");
		$lost++ unless is_ended($bytes . RawClient::terminate(), 1);
	}
	is($lost, 0, '200 connections with random start-up packets');
}
undisturbed('after random start-up packets');

{
	my $lost = 0;
	foreach my $number (1 .. 100)
	{
		my $client = LoginProbe->open(%pooled, %scram,
			tamper => sub {
				my ($nth, $type, $body) = @_;
				my $bytes = RawClient::message($type, $body);
				return $bytes if $nth == 0 && $number % 2;
				return $number % 3 ? damaged($bytes) : random_bytes(1 + int rand 100);
			});
		$client->send_startup(user => 'scram', database => 'postgres');
		# What was damaged may still want more bytes.
		$client->{timeout} = 0.02;
		eval { $client->authenticate };
		shutdown($client->socket, 1);
		$client->{timeout} = $SluiceTest::patience_s;
		$client->send_bytes(RawClient::terminate()) if !$client->error && !$@;
		$lost++ unless $client->at_end_of_stream;
	}
	is($lost, 0, '100 connections with random answers to SCRAM');
}
undisturbed('after random answers to SCRAM');

# ---------------------------------------------------------------- messages of a client that is in

my %bad_messages = (
	'type 0' => [ "\0\0\0\0\4", qr/FATAL.*invalid frontend message type 0/ ],
	'type 255' => [ "\xff\0\0\0\4", qr/FATAL.*invalid frontend message type 255/ ],
	'type p, when nobody asks' => [ "p\0\0\0\5\0", qr/FATAL.*invalid frontend message type 112/ ],
	'type R, which is the server\'s' => [ "R\0\0\0\10\0\0\0\0", qr/FATAL.*invalid frontend message type 82/ ],
	'length 0' => [ "Q\0\0\0\0", undef ],
	'length 3' => [ "S\0\0\0\3", undef ],
	'a negative length' => [ "P\xff\xff\xff\xff", undef ],
	'a query of 2 GB' => [ "Q\x7f\xff\xff\xff", undef ],
	'a query above the limit' => [ 'Q' . pack('N', 0x3fffffff), undef ],
	'a long Sync' => [ 'S' . pack('N', 10001) . ('x' x 9997), undef ],
	'a long Terminate' => [ 'X' . pack('N', 70000), undef ],
	'a long Describe' => [ 'D' . pack('N', 10001) . 'S' . ('x' x 9996), undef ],
	'a long CopyDone' => [ 'c' . pack('N', 10001), undef ]);
$violations = counter('protocol_violations');
foreach my $name (sort keys %bad_messages)
{
	my ($bytes, $expected) = @{ $bad_messages{$name} };
	my $offset = $server->log_size;
	my @seen;
	foreach my $port ($server->port, $server->pool_port)
	{
		my $client = RawClient->connect(%pooled, port => $port, %login);
		$client->send_bytes($bytes);
		push @seen, join "\n", map { RawClient::describe($_) } $client->read_until('E');
	}
	is($seen[1], $seen[0], "a message with $name: the same on both ports");
	ok($server->wait_for_log($expected || qr/invalid message length/, $offset), 'it is in the log');
}
is(counter('protocol_violations') - $violations, scalar keys %bad_messages, 'each has been counted');
undisturbed('after bad messages');

# Bad bodies are errors of the command: the client stays.
my $select_text = RawClient::parse('', 'select $1::text');
my %bad_bodies = (
	'a query without terminator' => "Q\0\0\0\14select 1",
	'a query with bytes behind it' => RawClient::message('Q', "select 1\0x"),
	'an empty Parse' => RawClient::message('P') . RawClient::sync(),
	'a Parse with a type too few' => RawClient::message('P', "\0select 1\0" . pack('n', 5)) . RawClient::sync(),
	'an empty Bind' => RawClient::message('B') . RawClient::sync(),
	'a Bind with a length past the end' =>
	  $select_text . RawClient::message('B', "\0\0" . pack('nnNa1', 0, 1, 99, 'x')) . RawClient::sync(),
	'a Bind with many formats' => RawClient::message('B', "\0\0" . pack('n', 65535)) . RawClient::sync(),
	'a Bind of a portal without an end' => RawClient::message('B', 'portal') . RawClient::sync(),
	'a Bind of a statement without an end' => RawClient::message('B', "\0statement") . RawClient::sync(),
	'a Bind of a name that is no UTF-8, and no more' => RawClient::message('B', "\xff\0") . RawClient::sync(),
	(
		map { ("a Bind with $_->[0]" => $select_text . RawClient::message('B', "\0\0$_->[1]") . RawClient::sync()) }
		  [ 'names only', '' ],
		[ 'half a format', pack('nC', 1, 0) ],
		[ 'formats only', pack('nn', 1, 0) ],
		[ 'half a length', pack('nnn', 0, 1, 0) ],
		[ 'a length below -1', pack('nnNa1n', 0, 1, 0xfffffffe, 'x', 0) ],
		[ 'the greatest length', pack('nnNa1n', 0, 1, 0x7fffffff, 'x', 0) ],
		[ 'no result formats', pack('nnNa1', 0, 1, 1, 'x') ],
		[ 'half a result format', pack('nnNa1nC', 0, 1, 1, 'x', 1, 0) ],
		[ 'a byte too many', pack('nnNa1nC', 0, 1, 1, 'x', 0, 0) ],
		[ 'an unknown format', pack('nnnNa1n', 1, 7, 1, 1, 'x', 0) ],
		[ 'an unknown result format', pack('nnNa1nn', 0, 1, 1, 'x', 1, 7) ],
		[ 'two formats for one value', pack('nnnnNa1n', 2, 0, 0, 1, 1, 'x', 0) ],
		[ 'two values for one parameter', pack('nnNa1Nn', 0, 2, 1, 'x', 0xffffffff, 0) ],
		[ 'a value that is no UTF-8', pack('nnNa1n', 0, 1, 1, "\xff", 0) ],
		[ 'a value with a NUL', pack('nnNa3n', 0, 1, 3, "a\0b", 0) ],
		[ 'an empty value', pack('nnNn', 0, 1, 0, 0) ]),
	'a Describe of nothing' => RawClient::message('D', "?x\0") . RawClient::sync(),
	'a Close of nothing' => RawClient::message('C', "?x\0") . RawClient::sync(),
	'an empty Execute' => RawClient::message('E') . RawClient::sync(),
	'a Sync with a body' => RawClient::message('S', 'xx'),
	'an empty function call' => RawClient::message('F'),
	'a function call with a length past the end' => RawClient::message('F', pack('NnnN', 1598, 0, 0x7fff, 0x7fffffff)));
foreach my $name (sort keys %bad_bodies)
{
	my @seen;
	foreach my $port ($server->port, $server->pool_port)
	{
		my $client = RawClient->connect(%pooled, port => $port, %login);
		my $answer = join "\n", map { RawClient::describe($_) } $client->exchange($bad_bodies{$name});
		# Which a direct client may not survive either.
		$answer .= "\n" . eval { scalar $client->sql('SELECT 17') } if $answer !~ /EOF/;
		push @seen, $answer;
		$client->drop;
	}
	is($seen[1], $seen[0], "$name: the same on both ports");
}
undisturbed('after bad bodies');

# Half messages, then the end.
{
	my $message = RawClient::query('SELECT 1');
	my $extended =
	  RawClient::parse('s', 'SELECT $1::int') . RawClient::bind('', 's', ['1']) . RawClient::execute('') . RawClient::sync();
	foreach my $whole ($message, "$message$message", $extended)
	{
		my $lost = 0;
		foreach my $length (1 .. length($whole) - 1)
		{
			my $client = RawClient->connect(%pooled, %login);
			$client->send_bytes(substr($whole, 0, $length));
			if ($length % 2) { $client->reset; next; }
			shutdown($client->socket, 1);
			$lost++ unless $client->at_end_of_stream;
		}
		is($lost, 0, 'messages cut short at any byte');
	}
}
undisturbed('after half messages');

{
	my $lost = 0;
	my $conversation =
		RawClient::query('SELECT 1')
	  . RawClient::parse('s', 'SELECT $1::int')
	  . RawClient::bind('', 's', ['1'])
	  . RawClient::describe_portal('')
	  . RawClient::execute('')
	  . RawClient::sync();
	foreach my $number (1 .. 100)
	{
		my $client = RawClient->connect(%pooled, %login);
		$client->send_bytes($number % 3 ? damaged($conversation) : random_bytes(1 + int rand 300));
		shutdown($client->socket, 1);
		$lost++ unless $client->at_end_of_stream;
	}
	is($lost, 0, '100 clients with random messages');
}
undisturbed('after random messages');

# ---------------------------------------------------------------- nothing leaks

# Of the dispatcher: bytes in its memory contexts, and open descriptors (undef where /proc does not tell).
sub footprint
{
	my $pid = counter('dispatcher_pid');
	my $offset = $server->log_size;
	$server->sql("SELECT pg_log_backend_memory_contexts($pid)");
	$server->wait_for_log(qr/Grand total: .* (\d+) used/, $offset);
	my ($bytes) = $server->log_since($offset) =~ /Grand total: .* (\d+) used/;
	my @descriptors = glob "/proc/$pid/fd/*";
	return ($bytes, scalar @descriptors);
}

# One login of each kind that ends badly, and one that does not.
sub many_logins
{
	foreach my $number (1 .. $_[0])
	{
		is_ended($bad_packets{'no terminator'});
		is_ended(substr($good, 0, 20), 1);
		login_outcome(%pooled, %scram, password => 'wrong');
		login_outcome(%pooled, %scram, tamper => sub { 'p' . pack('N', 60000) });
		login_outcome(%pooled, %login, parameters => { options => "-c made.up$number=x -c work_mem=much" });
		login_outcome(%pooled, %login, parameters => { options => '-c work_mem=5MB' });
	}
	$server->wait_until('SELECT count(*) = 2 FROM sluice.clients');
	return;
}
{
	many_logins(5);
	my ($bytes, $descriptors) = footprint();
	many_logins(60);
	my ($bytes_after, $descriptors_after) = footprint();
	cmp_ok($bytes_after - $bytes, '<', 100_000, 'the dispatcher does not grow with 360 logins');
	# A backend more or less is one.
	cmp_ok($descriptors_after - $descriptors, '<', 10, 'it holds no descriptor of theirs');
}
undisturbed('after many logins');

# ---------------------------------------------------------------- the whole

$witness->sql('COMMIT');
$_->close foreach $witness, $idle_witness;
ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'all slots are free at the end');
is(counter('clients || $$|$$ || unauthenticated'), '0|0', 'and so say the counts');
is($server->pool_sql('SELECT 1'), '1', 'the next client is served');
unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:|terminating any other active/, 'nothing has crashed');
$server->stop;
done_testing();
