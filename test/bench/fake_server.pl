#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# A server whose delays are known, to measure a load generator with: it speaks just enough of the protocol (version 3.0,
# trust) and answers each query when it is told to, independently of all others.
#
#   fake_server.pl [--delays 90x10,9x300,1x2000] [--stall AT,FOR] [--cut] [--record FILE] [--welcome KIND]
#                  [--seconds 60]
#
#   wait W hold H      begins W ms after it was received, which the answer tells as began_at, and is answered H ms later
#   fail SQLSTATE      an error
#   leave SQLSTATE     an error after which the connection is closed
#   last SQLSTATE      an answer, and behind it that error, after which the connection is closed
#   hang up            the connection is closed
#   nonsense           bytes that are not of the protocol
#   twice              is answered two times
#   COPY ... TO        1000 rows of 100 bytes
#   COPY ... FROM      takes whatever comes; "COPY refused FROM" fails at the first row
#   BEGIN              is answered at once, with a transaction open until anything that begins with ROLLBACK or END
#   anything else      answered after the next delay of the list, in turn (90 times 10 ms, 9 times 300 ms ...); none: 0
#
# Prepared statements are the same, sent with Parse, Describe, Bind, Execute and Sync.
#
# --stall: AT seconds after the first query it does nothing at all for FOR seconds.  --cut: each answer comes in two
# parts, cut after its first byte, then after its second, and so on.  --record: a line for each message of a client,
# "TYPE BODY" (bytes that cannot be printed as \xx, the rows of a COPY not at all), and "+" for each that connects.
# --welcome: password (asks for one), nonsense, or an SQLSTATE to refuse connections with.  It prints its port on the
# loopback address, and ends after so many seconds, or when its standard input is closed.
use strict;
use warnings;

use Errno;
use Getopt::Long;
use IO::Handle;
use IO::Socket::INET;
use POSIX ();
use Socket ();
use Time::HiRes qw(sleep time);

my ($delays, $stall, $cut, $record, $welcome, $seconds) = ('', '', 0, '', '', 60);
GetOptions(
	'delays=s' => \$delays,
	'stall=s' => \$stall,
	'cut' => \$cut,
	'record=s' => \$record,
	'welcome=s' => \$welcome,
	'seconds=f' => \$seconds) or exit 1;
my @delays_ms = map { /^(\d+)x([\d.]+)$/ ? ($2) x $1 : die "not COUNTxMS: $_\n" } split /,/, $delays;
my ($stall_at, $stall_for) = split /,/, $stall;

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1024) or die "could not listen: $!\n";
STDOUT->autoflush(1);
print $listener->sockport, "\n";

my $record_file;
if ($record) { open $record_file, '>', $record or die "could not write $record: $!\n"; $record_file->autoflush(1); }

my %clients;    # file number -> { socket, input, started, life, status, before, statements, portal, copying }
my @due;        # [time, file number, life, answer], by time
my ($first_query, $queries, $lives, $cuts) = (undef, 0, 0, 0);

sub note { my ($line) = @_; print $record_file "$line\n" if $record_file; return; }

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body; }

# Half past five hours ahead of Greenwich.
sub timestamp
{
	my ($at) = @_;
	my $seconds = POSIX::strftime('%Y-%m-%d %H:%M:%S', gmtime(int($at) + 19800));
	return $seconds . sprintf('.%06d+05:30', ($at - int $at) * 1e6);
}

# A table of one column: its name, and one row.
sub head { my ($name) = @_; return message('T', pack('n Z* N n N n N n', 1, $name, 0, 0, 25, 65535, 0xffffffff, 0)); }
sub row { my ($value) = @_; return message('D', pack('n N/a*', 1, $value)); }
sub done { my ($tag) = @_; return message('C', "$tag\0"); }
sub failure { my ($sqlstate) = @_; return message('E', "SERROR\0VERROR\0C$sqlstate\0Mas asked\0\0"); }
sub ready { my ($client) = @_; return message('Z', $client->{status}); }

sub drop { my ($number) = @_; close((delete $clients{$number})->{socket}); return; }

sub schedule
{
	my ($at, $number, $bytes) = @_;
	my $place = @due;
	$place-- while $place > 0 && $due[ $place - 1 ][0] > $at;
	splice @due, $place, 0, [ $at, $number, $clients{$number}{life}, $bytes ];
	return;
}

# An answer, what came before it of the same request in front of it.
sub answer
{
	my ($at, $number, $bytes) = @_;
	my $client = $clients{$number};
	$bytes = $client->{before} . $bytes . ready($client);
	$client->{before} = '';
	return schedule($at, $number, $bytes) unless $cut;
	my $first = 1 + $cuts++ % (length($bytes) - 1);
	schedule($at, $number, substr $bytes, 0, $first);
	return schedule($at + 0.002, $number, substr $bytes, $first);
}

sub begin_copy
{
	my ($number, $query, $now) = @_;
	my $client = $clients{$number};
	if ($query =~ /^COPY .*TO/)
	{
		my $rows = message('d', 'x' x 99 . "\n") x 1000;
		return answer($now, $number, message('H', pack 'C n n', 0, 1, 0) . $rows . message('c', '') . done('COPY 1000'));
	}
	$client->{copying} = { rows => 0, bytes => 0, refused => scalar($query =~ /^COPY refused/) };
	return schedule($now, $number, message('G', pack 'C n n', 0, 1, 0));
}

# Simple queries describe their rows.
sub execute
{
	my ($number, $query, $now, $simple) = @_;
	my $client = $clients{$number};
	my $describe = sub { return $simple ? head($_[0]) : '' };
	$first_query //= $now;
	if ($query =~ /^wait ([\d.]+) hold ([\d.]+)/)
	{
		my $rows = $describe->('began_at') . row(timestamp($now + $1 / 1e3));
		return answer($now + ($1 + $2) / 1e3, $number, $rows . done('SELECT 1'));
	}
	if ($query =~ /^(fail|leave) (\w{5})/)
	{
		$client->{status} = 'E' if $client->{status} eq 'T';
		return answer($now, $number, failure($2)) if $1 eq 'fail';
		syswrite $client->{socket}, failure($2);
		return drop($number);
	}
	if ($query =~ /^last (\w{5})/)
	{
		syswrite $client->{socket}, done('SELECT 0') . ready($client) . failure($1);
		return drop($number);
	}
	return drop($number) if $query =~ /^hang up/;
	return begin_copy($number, $query, $now) if $query =~ /^COPY/;
	return schedule($now, $number, "HTTP/1.1 400 Bad Request\r\n\r\n") if $query =~ /^nonsense/;
	if ($query =~ /^(BEGIN|ROLLBACK|END)/)
	{
		$client->{status} = $1 eq 'BEGIN' ? 'T' : 'I';
		return answer($now, $number, done($1));
	}
	my $rows = $describe->('nothing') . row('') . done('SELECT 1');
	$rows = $rows . ready($client) . $rows if $query =~ /^twice/;
	my $delay_ms = @delays_ms ? $delays_ms[ $queries++ % @delays_ms ] : 0;
	return answer($now + $delay_ms / 1e3, $number, $rows);
}

sub greet
{
	my ($number) = @_;
	my $socket = $clients{$number}{socket};
	note('+');
	if ($welcome eq '') { return syswrite $socket, message('R', pack 'N', 0) . message('Z', 'I'); }
	if ($welcome eq 'password') { return syswrite $socket, message('R', pack 'N', 3); }
	syswrite $socket, $welcome eq 'nonsense' ? "SSH-2.0-nonsense\r\n" : failure($welcome);
	return drop($number);
}

sub take_copied
{
	my ($number, $type, $body, $now) = @_;
	my $client = $clients{$number};
	my $copying = $client->{copying};
	if ($type eq 'd')
	{
		$copying->{rows}++;
		$copying->{bytes} += length $body;
		return unless $copying->{refused};
		delete $client->{copying};
		$client->{refused} = 1;
		return answer($now, $number, failure('22P04'));
	}
	note("copied $copying->{rows} rows, $copying->{bytes} bytes");
	delete $client->{copying};
	return answer($now, $number, done("COPY $copying->{rows}"));
}

sub take_message
{
	my ($number, $type, $body, $now) = @_;
	my $client = $clients{$number};
	return drop($number) if $type eq 'X';
	return take_copied($number, $type, $body, $now) if $client->{copying};
	return if $client->{refused} && $type =~ /[dc]/;    # what was under way when a COPY failed
	my (@words) = split /\0/, $body;
	if ($type eq 'Q') { execute($number, $body, $now, 1); }
	elsif ($type eq 'P') { $client->{statements}{ $words[0] } = $words[1]; $client->{before} .= message('1', ''); }
	elsif ($type eq 'D')
	{
		my $query = $client->{statements}{ substr $words[0], 1 };
		$client->{before} .= message('t', pack 'n', 0) . head($query =~ /^wait/ ? 'began_at' : 'nothing');
	}
	elsif ($type eq 'B')
	{
		my (undef, $name, @parameters) = unpack 'Z* Z* n/x n/(N/a*)', $body;
		$client->{portal} = $client->{statements}{$name} =~ s/\$(\d+)/$parameters[$1 - 1]/gr;
		$client->{before} .= message('2', '');
	}
	elsif ($type eq 'S') { execute($number, $client->{portal}, $now, 0); }
	elsif ($type ne 'E') { drop($number); }
	return;
}

# Takes whole messages off what a client has sent.
sub take_input
{
	my ($number, $now) = @_;
	my $client = $clients{$number};
	my $at = 0;
	while ($clients{$number} && $clients{$number} == $client)
	{
		my $head = $client->{started} ? 1 : 0;
		last if length($client->{input}) - $at < $head + 4;
		my $length = unpack 'N', substr $client->{input}, $at + $head, 4;
		last if length($client->{input}) - $at < $head + $length;
		my $type = substr $client->{input}, $at, $head;
		my $body = substr $client->{input}, $at + $head + 4, $length - 4;
		$at += $head + $length;
		if ($head)
		{
			note("$type " . $body =~ s/([^ -~])/sprintf '\\%02x', ord $1/ger) if $record && $type ne 'd';
			take_message($number, $type, $body, $now);
			next;
		}
		my $code = unpack 'N', $body;
		if ($code == 80877103 || $code == 80877104) { syswrite $client->{socket}, 'N'; next; }
		$client->{started} = 1;
		greet($number);
	}
	substr($client->{input}, 0, $at) = '';
	return;
}

my $end = time + $seconds;
my $leaving = 0;    # told to end; what clients have said before they left is still to be read
while ((my $now = time) < $end)
{
	if (defined $first_query && $stall_for && $now >= $first_query + $stall_at)
	{
		sleep $stall_for;
		$stall_for = 0;
		next;
	}
	while (@due && $due[0][0] <= $now)
	{
		my (undef, $number, $life, $bytes) = @{ shift @due };
		next unless $clients{$number} && $clients{$number}{life} == $life;
		# What does not fit waits a moment: a client that reads slowly holds up nobody else.
		my $sent = syswrite($clients{$number}{socket}, $bytes) // 0;
		unshift @due, [ $now + 0.001, $number, $life, substr $bytes, $sent ] if $sent < length $bytes && $!{EAGAIN};
	}
	my $readable = '';
	vec($readable, $_, 1) = 1 foreach $leaving ? () : 0, fileno($listener), keys %clients;
	my $next = @due ? $due[0][0] : $end;
	$next = $first_query + $stall_at if defined $first_query && $stall_for && $first_query + $stall_at < $next;
	my $wait = $next - time;
	$wait = 0 if $leaving || $wait < 0;
	if (!select($readable, undef, undef, $wait))
	{
		last if $leaving;
		next;
	}
	$leaving = 1 if vec($readable, 0, 1) && !sysread(STDIN, my $ignored, 4096);
	if (vec($readable, fileno($listener), 1) && (my $socket = $listener->accept))
	{
		$socket->blocking(0);
		setsockopt $socket, Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1;
		$clients{ fileno $socket } = { socket => $socket, input => '', before => '', status => 'I', life => ++$lives };
	}
	foreach my $number (keys %clients)
	{
		next unless vec($readable, $number, 1) && $clients{$number};
		my $got = sysread $clients{$number}{socket}, $clients{$number}{input}, 65536, length $clients{$number}{input};
		if ($got) { take_input($number, time); }
		else { drop($number); }
	}
}
