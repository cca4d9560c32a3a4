# SPDX-License-Identifier: PostgreSQL
#
# Lengths that cannot be, types that are none, bytes that come too early, too
# often or in the wrong place, and names made to confuse: in each state of a
# connection they have the answer of a direct connection, and end no more than
# the one they came on.

use strict;
use warnings;

use HostileTest;
use LoginProbe qw(login_outcome);
use RawClient;
use SluiceTest;
use Test::More;

my $test = HostileTest->new(conf => "sluice.max_clients = 500\n");
my $server = $test->server;
my $me = HostileTest::own_role();
my @ways = ('direct', 'tcp');

# Everything until the end of the stream as lines of text; process numbers and keys are not the same twice.
sub transcript
{
	my ($client, @first) = @_;
	my @lines = map { RawClient::describe($_) } @first, $client->read_until('');
	s/^K .*/BackendKeyData/ foreach @lines;
	# Of the parameters the order is nobody's business.
	@lines = ((sort grep { /^ParameterStatus/ } @lines), grep { !/^ParameterStatus/ } @lines);
	my @shown;
	foreach my $line (@lines)
	{
		if (@shown && $shown[-1][0] eq $line) { $shown[-1][1]++; }
		else { push @shown, [ $line, 1 ]; }
	}
	return join "\n", map { $_->[1] > 1 ? "$_->[0] ($_->[1] times)" : $_->[0] } @shown;
}

# What these bytes are answered with in a state ([name, sub]) of a new connection, after which nothing more comes.
sub answers
{
	my ($state, $bytes) = @_;
	return map {
		my $client = $test->stuck($state, direct => $_ eq 'direct');
		$client->send_bytes($bytes);
		# Who hangs up in the middle of a COPY may be answered or not.
		my @first = $state->[0] eq 'in COPY' ? $client->read_until('EC') : ();
		shutdown($client->socket, 1);
		transcript($client, @first);
	} @ways;
}

# Compares many answers in one test; the cases are [name, state, bytes].
sub same_answers
{
	my ($name, @cases) = @_;
	my @different;
	foreach my $case (@cases)
	{
		my ($direct, $pooled) = answers($case->[1], $case->[2]);
		push @different, "$case->[0]:\n  direct: $direct\n  pooled: $pooled" if $direct ne $pooled;
	}
	is(join("\n", @different), '', "$name: the same answers on both ports, " . @cases . ' cases');
	return;
}

sub logged_in
{
	my ($before) = @_;
	return sub {
		my ($client) = @_;
		$client->{password} = 'secret';
		$client->send_startup(user => 'by_password', database => 'postgres');
		$client->authenticate;
		$client->sql('BEGIN') if $before eq 'in a transaction';
		if ($before eq 'in COPY')
		{
			$client->send_bytes(RawClient::query('COPY numbers FROM STDIN'));
			$client->read_until('G');
		}
		if ($before eq 'skipping until Sync')
		{
			$client->send_bytes(RawClient::parse('', 'SELECT wrong') . RawClient::flush());
			$client->read_until('E');
		}
		return;
	};
}

$server->sql('CREATE TABLE numbers (n int); GRANT ALL ON numbers TO by_password');
my %state = map { $_->[0] => $_ } HostileTest::states();
my @early = map { $state{$_} } 'nothing', 'an SSLRequest';    # a server may have encryption by GSSAPI, the pooled port has not
my @asked = map { $state{$_} } 'by_password: asked', 'by_md5: asked', 'by_scram: asked', 'SCRAM: challenged';
my @in = map { [ $_, logged_in($_) ] } 'idle', 'in a transaction', 'in COPY', 'skipping until Sync';

# ---------------------------------------------------------------- lengths

my @lengths = (0, 1, 3, 4, 5, 7, 10005, 65536, 2**30, 2**31 - 1, 2**31, 2**32 - 1);
my $violations = $test->errors('protocol', '08P01');
same_answers('lengths of a start-up packet', map {
	my $state = $_;
	map { [ "$state->[0], length $_", $state, pack('NNN', $_, 3 << 16, 0) ] } @lengths;
} @early);
same_answers('lengths of an answer', map {
	my $state = $_;
	map { [ "$state->[0], length $_", $state, 'p' . pack('N', $_) . 'xxx' ] } @lengths;
} @asked);
same_answers('lengths of messages', map {
	my $state = $_;
	map {
		my $type = $_;
		# Data of a COPY that is still to come is no error.
		my @cases = grep { $_ != 10005 || $type ne 'd' || $state->[0] ne 'in COPY' } 0, 3, 5, 10005, 2**30, 2**32 - 1;
		map { [ "$state->[0], $type, length $_", $state, $type . pack('N', $_) . 'xxx' ] } @cases;
	} 'Q', 'S', 'd';
} @in);
cmp_ok($test->errors('protocol', '08P01'), '>', $violations + @lengths * @early, 'they are counted as violations');
$test->undisturbed('after wrong lengths');

# A wrong length needs nothing behind it to be seen.
{
	my @waited;
	foreach my $length (grep { $_ < 8 || $_ > 10004 } @lengths)
	{
		foreach my $state (@early, map { $state{$_} } 'a GSSENCRequest', 'both requests')
		{
			my $client = $test->stuck($state);
			$client->send_bytes(pack('N', $length));
			push @waited, "$state->[0] $length" unless $client->at_end_of_stream;
		}
	}
	foreach my $state (@asked)
	{
		foreach my $bytes ('Q', 'p' . pack('N', 3), 'p' . pack('N', 2**31))
		{
			my $client = $test->stuck($state);
			$client->send_bytes($bytes);
			push @waited, $state->[0] unless $client->at_end_of_stream;
		}
	}
	is("@waited", '', 'whoever begins with what cannot be is ended at once');
}

# ---------------------------------------------------------------- types

{
	my @wrong;
	foreach my $type (grep { $_ != ord 'p' } 0 .. 255)
	{
		my $client = $test->stuck($state{'by_password: asked'});
		$client->send_bytes(chr($type) . pack('N', 4));
		my $answer = transcript($client);
		push @wrong, "$type: $answer" if $answer !~ /C=08P01; M=expected password response, got message type $type;.*\nEOF$/;
	}
	is("@wrong", '', 'no type of message but one answers a request for a password');
}
same_answers('types that are no answer', map {
	my $state = $_;
	map { [ "$state->[0], type $_", $state, chr($_) . pack('N', 4) ] } 0, 88, 112, 128, 255;
} @asked);
same_answers("types of messages $_->[0]", do {
	my $state = $_;
	map { [ "type $_", $state, chr($_) . pack('N', 4) . RawClient::terminate() ] } 0 .. 255;
}) foreach $in[0];
same_answers("types of messages $_->[0]", do {
	my $state = $_;
	map { [ "type $_", $state, chr($_) . pack('N', 4) . RawClient::terminate() ] } 0, 1, 64 .. 90, 97 .. 122, 255;
}) foreach @in[ 1, 2, 3 ];
$test->undisturbed('after messages of all types');

# ---------------------------------------------------------------- too early, too often

srand 20240301;
my $random = join '', map { chr int rand 256 } 1 .. 5000;
my $startup = RawClient::startup_packet(user => $me, database => 'postgres', application_name => 'early');
my $with_password = RawClient::startup_packet(user => 'by_password', database => 'postgres');
my $password = RawClient::message('p', "secret\0");
my $goodbye = RawClient::query('SELECT 17') . RawClient::terminate();
my $nothing = $state{'nothing'};
my $parse = RawClient::parse('', 'SELECT 1');
same_answers('what comes with the start-up packet',
	[ 'a query', $nothing, $startup . $goodbye ],
	[ 'random bytes', $nothing, $startup . $random ],
	[ 'NULs', $nothing, $startup . ("\0" x 5000) ],
	[ 'a second start-up packet', $nothing, $startup . $startup . $goodbye ],
	[ 'an SSLRequest', $nothing, $startup . pack('NN', 8, 80877103) . $goodbye ],
	[ 'a cancel request', $nothing, $startup . pack('NNNN', 16, 80877102, 1, 1) . $goodbye ],
	[ 'a query before the password', $nothing, $with_password . $goodbye ],
	[ 'a query behind the password', $nothing, $with_password . $password . $goodbye ],
	[ 'a query behind a wrong password', $nothing, $with_password . RawClient::message('p', "wrong\0") . $goodbye ],
	[ 'two passwords', $nothing, $with_password . $password . $password . $goodbye ],
	[ 'random bytes behind the password', $nothing, $with_password . $password . $random ],
	[ 'a start-up packet for a password', $state{'by_password: asked'}, $with_password ],
	[ 'random bytes for a password', $state{'by_password: asked'}, 'p' . pack('N', 1004) . substr($random, 0, 1000) ],
	[ 'random bytes for an MD5 answer', $state{'by_md5: asked'}, 'p' . pack('N', 1004) . substr($random, 0, 1000) ],
	[ 'random bytes for SASL', $state{'by_scram: asked'}, 'p' . pack('N', 1004) . substr($random, 0, 1000) ],
	[ 'random bytes for a proof', $state{'SCRAM: challenged'}, 'p' . pack('N', 1004) . substr($random, 0, 1000) ]);
same_answers('messages by the thousand',
	[ 'Sync', $in[0], RawClient::sync() x 5000 . $goodbye ],
	[ 'Flush', $in[0], RawClient::flush() x 5000 . $goodbye ],
	[ 'Terminate', $in[0], RawClient::terminate() x 5000 ],
	[ 'empty queries', $in[0], RawClient::query('') x 2000 . $goodbye ],
	[ 'Parse without Sync', $in[0], $parse x 3000 . RawClient::flush() . RawClient::terminate() ],
	[ 'Parse, then Sync', $in[0], $parse x 3000 . RawClient::sync() . $goodbye ],
	[ 'Bind to nothing', $in[0], RawClient::bind('', 'none', []) x 3000 . RawClient::sync() . $goodbye ],
	[ 'Close of nothing', $in[0], RawClient::close_statement('none') x 3000 . RawClient::sync() . $goodbye ],
	[ 'Execute in skipping', $in[3], RawClient::execute('') x 3000 . RawClient::sync() . $goodbye ],
	[ 'CopyData for no COPY', $in[0], RawClient::copy_data('x') x 3000 . $goodbye ],
	[ 'BEGIN', $in[0], RawClient::query('BEGIN') x 1000 . $goodbye ]);
$test->undisturbed('after too much at once');

# ---------------------------------------------------------------- names and parameters

my %odd = (
	'invalid UTF-8' => "caf\xe9 \xff\xfe",
	'overlong UTF-8' => "\xc0\xaf",
	'line breaks' => "a\nFATAL:  b\r\n",
	'escape sequences' => "\e[31m\a",
	'percent signs' => '%s%n%m%500000d',
	'quotes' => q{"'; DROP TABLE numbers; --},
	'9000 bytes' => 'x' x 9000,
	'63 bytes' => 'y' x 63,
	'64 bytes' => 'z' x 64,
	'a multibyte character at the limit' => ('u' x 62) . "\xc3\xa9",
	'a path' => '../../etc/passwd');
{
	my @different;
	my $compare = sub {
		my ($name, %option) = @_;
		my ($direct, $pooled) = map { login_outcome($test->$_, %option) } @ways;
		push @different, "$name:\n  direct: $direct\n  pooled: $pooled" if $direct ne $pooled;
		return;
	};
	foreach my $name (sort keys %odd)
	{
		my $value = $odd{$name};
		$compare->("user: $name", user => $value, dbname => 'postgres');
		$compare->("database: $name", user => $me, dbname => $value);
		foreach my $parameter ('application_name', 'client_encoding', 'options', 'work_mem', 'search_path', 'DateStyle',
			'made_up', 'made.up', 'session_authorization', 'replication')
		{
			$compare->("$parameter: $name", user => $me, dbname => 'postgres', parameters => { $parameter => $value });
		}
		$compare->("a parameter's name: $name", user => $me, dbname => 'postgres', parameters => { $value => '1' });
		$compare->("a role by password: $name", user => 'by_password', dbname => 'postgres', password => $value);
	}
	foreach my $count (1, 100, 400)
	{
		$compare->("$count options", user => $me, dbname => 'postgres', parameters => { options => '-c work_mem=5MB ' x $count });
		$compare->("$count options, the last of them wrong", user => $me, dbname => 'postgres',
			parameters => { options => '-c work_mem=5MB ' x $count . '-c work_mem=x' });
	}
	$compare->('options of all sorts', user => $me, dbname => 'postgres', parameters => { options => $_ })
	  foreach '-', '--', '-c', '-c =', '-c a', '--=', '\\', "\\\\ \\", '-x', "- \t -", '-d5', '-W999999999999', '-e -E -F -P',
	  '-c' x 4000;
	is(join("\n", @different), '', 'odd names and parameters: the same outcome on both ports');
}
{
	# More settings than any driver has; this is where the pooled port is the stricter one.
	my %many = map { ("made.up$_" => 'x') } 1 .. 300;
	like(login_outcome($test->tcp, user => $me, dbname => 'postgres', parameters => \%many),
		qr/FATAL 08P01 too many parameters in startup packet/, '300 parameters are too many');
	my %all = map { ("made.up$_" => 'x') } 1 .. 50;
	is(login_outcome($test->tcp, user => $me, dbname => 'postgres', parameters => \%all), 'asked : OK', '50 are not');
}
same_answers('a text that is none', map { [ $_, $in[0], RawClient::query("SELECT '$odd{$_}'") . $goodbye ] } sort keys %odd);
$test->undisturbed('after odd names');

$test->finish;
done_testing();
