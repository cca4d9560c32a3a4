#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# A server whose delays are known, to measure a load generator with: it speaks just enough of the protocol (version 3.0,
# trust, simple queries) and answers each query when it is told to, independently of all others.
#
#   fake_server.pl [--delays 90x10,9x300,1x2000] [--stall AT,FOR] [--seconds 60]
#
#   wait W hold H      begins W ms after it was received, which the answer tells as began_at, and is answered H ms later
#   fail SQLSTATE      an error
#   hang up            the connection is closed
#   anything else      answered after the next delay of the list, in turn (90 times 10 ms, 9 times 300 ms ...); none: 0
#
# --stall: AT seconds after the first query it does nothing at all for FOR seconds.  It prints its port on the loopback
# address, and ends after so many seconds, or when its standard input is closed.
use strict;
use warnings;

use Getopt::Long;
use IO::Handle;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

my ($delays, $stall, $seconds) = ('', '', 60);
GetOptions('delays=s' => \$delays, 'stall=s' => \$stall, 'seconds=f' => \$seconds) or exit 1;
my @delays_ms = map { /^(\d+)x([\d.]+)$/ ? ($2) x $1 : die "not COUNTxMS: $_\n" } split /,/, $delays;
my ($stall_at, $stall_for) = split /,/, $stall;

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1024) or die "could not listen: $!\n";
STDOUT->autoflush(1);
print $listener->sockport, "\n";

my %clients;    # file number -> { socket, input, started }
my @due;        # [time, file number, answer], by time
my ($first_query, $queries) = (undef, 0);

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body; }

# Half past five hours ahead of Greenwich.
sub timestamp
{
	my ($at) = @_;
	my $seconds = POSIX::strftime('%Y-%m-%d %H:%M:%S', gmtime(int($at) + 19800));
	return $seconds . sprintf('.%06d+05:30', ($at - int $at) * 1e6);
}

sub row
{
	my ($name, $value) = @_;
	return message('T', pack('n Z* N n N n N n', 1, $name, 0, 0, 25, 65535, 0xffffffff, 0))
		. message('D', pack('n N/a*', 1, $value));
}

sub answer { my ($rows) = @_; return $rows . message('C', "SELECT 1\0") . message('Z', 'I'); }

sub schedule
{
	my ($at, $number, $bytes) = @_;
	my $place = @due;
	$place-- while $place > 0 && $due[ $place - 1 ][0] > $at;
	splice @due, $place, 0, [ $at, $number, $bytes ];
	return;
}

sub drop { my ($number) = @_; close((delete $clients{$number})->{socket}); return; }

sub execute
{
	my ($number, $query, $now) = @_;
	$first_query //= $now;
	if ($query =~ /^wait ([\d.]+) hold ([\d.]+)/)
	{
		return schedule($now + ($1 + $2) / 1e3, $number, answer(row('began_at', timestamp($now + $1 / 1e3))));
	}
	if ($query =~ /^fail (\w{5})/)
	{
		return schedule($now, $number, message('E', "SERROR\0C$1\0Mas asked\0\0") . message('Z', 'I'));
	}
	return drop($number) if $query =~ /^hang up/;
	my $delay_ms = @delays_ms ? $delays_ms[ $queries++ % @delays_ms ] : 0;
	return schedule($now + $delay_ms / 1e3, $number, answer(row('nothing', '')));
}

# Takes whole messages off what a client has sent.
sub take_input
{
	my ($number) = @_;
	while (my $client = $clients{$number})
	{
		my $head = $client->{started} ? 1 : 0;
		return if length $client->{input} < $head + 4;
		my $length = unpack 'N', substr $client->{input}, $head, 4;
		return if length $client->{input} < $head + $length;
		my $type = substr $client->{input}, 0, $head;
		my $body = substr $client->{input}, $head + 4, $length - 4;
		substr($client->{input}, 0, $head + $length) = '';
		if (!$head)
		{
			my $code = unpack 'N', $body;
			if ($code == 80877103 || $code == 80877104) { syswrite $client->{socket}, 'N'; next; }
			$client->{started} = 1;
			syswrite $client->{socket}, message('R', pack 'N', 0) . message('Z', 'I');
		}
		elsif ($type eq 'Q') { execute($number, $body, time); }
		else { drop($number); }
	}
	return;
}

my $end = time + $seconds;
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
		my (undef, $number, $bytes) = @{ shift @due };
		syswrite $clients{$number}{socket}, $bytes if $clients{$number};
	}
	my $readable = '';
	vec($readable, $_, 1) = 1 foreach 0, fileno($listener), keys %clients;
	my $next = @due ? $due[0][0] : $end;
	$next = $first_query + $stall_at if defined $first_query && $stall_for && $first_query + $stall_at < $next;
	my $wait = $next - time;
	next unless select($readable, undef, undef, $wait > 0 ? $wait : 0);
	last if vec($readable, 0, 1) && !sysread(STDIN, my $ignored, 4096);
	if (vec($readable, fileno($listener), 1) && (my $socket = $listener->accept))
	{
		$clients{ fileno $socket } = { socket => $socket, input => '' };
	}
	foreach my $number (keys %clients)
	{
		next unless vec($readable, $number, 1);
		my $got = sysread $clients{$number}{socket}, $clients{$number}{input}, 65536, length $clients{$number}{input};
		if ($got) { take_input($number); }
		else { drop($number); }
	}
}
