# SPDX-License-Identifier: PostgreSQL
#
# Answers to authentication requests, damaged at random: each gets what the server's own port says to the same bytes,
# ends its own connection, and nobody else notices.

use strict;
use warnings;

use MIME::Base64;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $rounds = 1500;
my $seed = time ^ $$;
srand $seed;
note "seed $seed";

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\n");
my $node = $server->node;
my $me = scalar getpwuid($>);
$server->sql($_)
  foreach q{SET password_encryption = 'md5'; CREATE ROLE by_md5 LOGIN PASSWORD 'secret'},
  q{CREATE ROLE by_scram LOGIN PASSWORD 'secret'}, q{CREATE ROLE by_password LOGIN PASSWORD 'secret'};
{
	my $path = $node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($path);
	open my $file, '>', $path or die "$path: $!";
	print $file "local all by_scram,unknown scram-sha-256\nlocal all by_md5 md5\nlocal all by_password password\n$rules";
	close $file;
	$node->restart;
	$server->wait_for_pool;
}

my $identity = 'SELECT dispatcher_pid, pg_postmaster_start_time() FROM sluice.status';
my $identity_before = $server->sql($identity);
my $witness = $server->pool_raw(user => $me);
$witness->sql('BEGIN');
my $witness_pid = $witness->sql('SELECT pg_backend_pid()');

# ---------------------------------------------------------------- damage

# One change, the same wherever it is applied.  Bytes put in are none of base64's: what a server has drawn at random
# must not decide whether they change something.
sub damage
{
	my ($length) = @_;
	my $at = int rand $length;
	my $count = 1 + int rand 8;
	my $kind = int rand 7;
	my $byte = ("\0", "\xff", ',', '"', "\n", '(', "\x80", ' ')[ int rand 8 ];
	my $word = pack('N', (0, 1, 3, 4, 5, 1024, 1025, 65535, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff)[ int rand 12 ]);
	return sub {
		my ($bytes) = @_;
		return $bytes if $at >= length $bytes;
		if ($kind == 0) { substr($bytes, $at, 1) = $byte; }
		elsif ($kind == 1) { substr($bytes, $at, 0) = $byte x $count; }
		elsif ($kind == 2) { substr($bytes, $at, $count) = ''; }
		elsif ($kind == 3) { $bytes = substr($bytes, 0, $at); }
		elsif ($kind == 4) { $bytes .= substr($bytes, $at); }
		elsif ($kind == 5) { substr($bytes, $at, 4) = $word; }
		else { substr($bytes, $at, 0) = substr($bytes, $at, $count) x $count; }
		return $bytes;
	};
}

# Damages the body, and mostly gives the message the right length; otherwise the message as a whole.
sub damaged
{
	my ($damages, $body, $whole) = @_;
	my $bytes = $whole ? RawClient::message('p', $body) : $body;
	$bytes = $_->($bytes) foreach @$damages;
	return $whole ? $bytes : RawClient::message('p', $bytes);
}

# ---------------------------------------------------------------- exchange

my $nonce = 'fyko+d2lbbFgONRv9qkxdawL';
my $first = "n,,n=,r=$nonce";
my $initial = "SCRAM-SHA-256\0" . pack('N', length $first) . $first;
my $proof = encode_base64(join('', map { chr int rand 256 } 1 .. 32), '');

# The answers to sane messages before the damaged one, and to that, until the end.  What a random nonce can change is
# left out: it is part of the details of what is wrong in the second message of SCRAM.
sub outcome
{
	my ($port, $user, $number, $damages, $whole) = @_;
	my $client = RawClient->open(host => $server->host, port => $port);
	$client->send_startup(user => $user, database => 'postgres');
	my @seen;
	my $sent = 0;
	while (1)
	{
		my $message = $client->read_message;
		if ($message->{type} eq 'E')
		{
			my $error = RawClient::error_fields($message);
			push @seen, join ' ', map { defined $_ ? $_ : '-' } @$error{ 'V', 'C', 'M' }, $number == 0 ? $error->{D} : ();
			next;
		}
		if ($message->{type} ne 'R')
		{
			push @seen, $message->{type};
			last;
		}
		my $request = unpack('N', $message->{body});
		push @seen, "asked $request";
		last if $request == 0;
		if ($sent > $number) { next; }
		my $body =
			$request == 10 ? $initial
		  : $request == 11 ? 'c=biws,' . (substr($message->{body}, 4) =~ /^(r=[^,]+)/)[0] . ",p=$proof"
		  : $request == 5  ? 'md5' . ('0123456789abcdef' x 2) . "\0"
		  :                  "not the secret\0";
		$client->send_bytes($sent == $number ? damaged($damages, $body, $whole) : RawClient::message('p', $body));
		shutdown($client->socket, 1) if $sent == $number;
		$sent++;
	}
	$client->drop;
	return join ', ', @seen;
}

my ($different, %answers) = (0);
foreach my $round (1 .. $rounds)
{
	my $user = ('by_scram', 'unknown', 'by_scram', 'by_md5', 'by_password')[ $round % 5 ];
	my $number = $user =~ /scram|unknown/ ? int rand 2 : 0;
	my $whole = $number == 0 && int rand 4 == 0;  # else a nonce could become the next message
	my @damages = map { damage(60) } 1 .. 1 + int rand 2;
	my ($direct, $pooled) = map { outcome($_, $user, $number, \@damages, $whole) } $server->port, $server->pool_port;
	$answers{$direct}++;
	next if $direct eq $pooled;
	diag "round $round, $user, message $number: \"$direct\" on the server's port, \"$pooled\" on the pooled one"
	  if $different++ < 5;
}
is($different, 0, "$rounds damaged answers get the same answers on both ports");
note "$answers{$_} times $_" foreach sort { $answers{$b} <=> $answers{$a} } keys %answers;
cmp_ok(scalar keys %answers, '>=', 8, 'which are of many kinds');

# ---------------------------------------------------------------- and nobody else

is(scalar $witness->sql('SELECT pg_backend_pid()'), $witness_pid, 'a client in a transaction goes on');
$witness->sql('COMMIT');
is($server->pool_sql('SELECT current_user', user => 'by_scram', password => 'secret'),
	'by_scram', 'who knows the password comes in');
ok($server->wait_until('SELECT count(*) = 1 FROM sluice.clients'), 'no slot is lost');
is($server->sql($identity), $identity_before, 'no process has been replaced');
unlike($server->log_since(0), qr/terminated by signal|PANIC/, 'none has crashed');

$witness->close;
$server->stop;
done_testing();
