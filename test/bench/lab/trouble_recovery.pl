# SPDX-License-Identifier: PostgreSQL
#
# What an incident cost, and for how long, from what clients have written down.
#
#   trouble_recovery.pl OUTCOMES SAMPLES MARKS [QUIET_S]
#
# OUTCOMES and SAMPLES are written by trouble_clients; MARKS has a line "incident,begin_ms,end_ms" for each, in order.  An
# incident reaches until the next one begins, the last one until the end.  An operation without an answer is found out
# long afterwards: it belongs to the incident that was on, or began, when the answer was due, a second after it was
# asked for.  Prints "incident,measure,value" lines:
#   before_per_s        operations told in QUIET_S (2) seconds before it began, for each second
#   during_share        of this, while it lasted (from begin to end); NA for one of less than 300 ms
#   others_share        the same of the clients of the first port alone, where there are two ports
#   gap_ms              longest time without any operation told that began while it lasted, or within a second after
#   first_ms            from its begin to the first operation told after this gap; 0 if the gap is shorter than 100 ms,
#                       for then nobody can tell
#   recovered_ms        from its begin to the first half second with nine tenths of before, after that gap; never: NA
#   failed              operations that were not told
#   error.OUTCOME.STATE how often, with the SQLSTATE or the word for how the connection ended
use strict;
use warnings;

my $due_ms = 1000;
my $window_bins = 5;
my $share = 0.9;

my ($outcomes, $samples, $marks, $quiet_s) = @ARGV;
die "use: trouble_recovery.pl OUTCOMES SAMPLES MARKS [QUIET_S]\n" unless defined $marks;
my $quiet_ms = ($quiet_s // 2) * 1000;

sub lines_of
{
	my ($file, $has_head) = @_;
	open(my $handle, '<', $file) or die "could not open $file: $!\n";
	chomp(my @lines = <$handle>);
	shift @lines if $has_head;
	return map { [ split /,/, $_, -1 ] } @lines;
}

my @incidents = lines_of($marks, 0);
my @bins = lines_of($samples, 1);
my (@told_ms, @bad);
foreach my $line (lines_of($outcomes, 1))
{
	next unless defined $line->[5];
	if ($line->[2] eq 'told') { push @told_ms, $line->[4] / 1000; }
	else
	{
		my $at_ms = $line->[2] eq 'unanswered' ? $line->[3] / 1000 + $due_ms : $line->[4] / 1000;
		push @bad, [ $at_ms, $line->[2], $line->[5] ];
	}
}
@told_ms = sort { $a <=> $b } @told_ms;

# A sample is what happened in the 100 ms before it.
sub rate
{
	my ($from_ms, $until_ms, $first_port_only) = @_;
	my ($told, $count) = (0, 0);
	foreach my $bin (@bins)
	{
		next if $bin->[0] - 50 < $from_ms || $bin->[0] - 50 >= $until_ms;
		$told += $bin->[1] + ($first_port_only ? 0 : $bin->[2]);
		$count++;
	}
	return $count ? $told / $count * 10 : undef;
}

# The longest time without anything told, as its begin and end.
sub longest_gap
{
	my ($from_ms, $latest_begin_ms, $until_ms) = @_;
	my ($last_ms, $begin, $end) = ($from_ms, $from_ms, $from_ms);
	foreach my $at_ms ((grep { $_ >= $from_ms && $_ < $until_ms } @told_ms), $until_ms)
	{
		last if $last_ms > $latest_begin_ms;
		($begin, $end) = ($last_ms, $at_ms) if $at_ms - $last_ms > $end - $begin;
		$last_ms = $at_ms;
	}
	return ($begin, $end);
}

sub recovered_at
{
	my ($from_ms, $until_ms, $wanted) = @_;
	my @after = grep { $_->[0] - 100 >= $from_ms && $_->[0] <= $until_ms } @bins;
	for (my $i = 0; $i + $window_bins <= @after; $i++)
	{
		my $told = 0;
		$told += $_->[1] + $_->[2] foreach @after[ $i .. $i + $window_bins - 1 ];
		return $after[$i][0] - 100 if $told / $window_bins * 10 >= $wanted;
	}
	return undef;
}

sub show { my ($incident, $measure, $value) = @_; print "$incident,$measure,", $value // 'NA', "\n"; return; }
sub rounded { my ($value) = @_; return defined $value ? sprintf('%.0f', $value) : undef; }

my $has_two = grep { $_->[2] > 0 } @bins;
my $end_of_all = @bins ? $bins[-1][0] : 0;
for (my $i = 0; $i < @incidents; $i++)
{
	my ($incident, $begin_ms, $end_ms) = @{ $incidents[$i] };
	my $until_ms = $i < $#incidents ? $incidents[ $i + 1 ][1] : $end_of_all;
	my $before = rate($begin_ms - $quiet_ms, $begin_ms);
	my ($gap_begin, $gap_end) = longest_gap($begin_ms, $end_ms + 1000, $until_ms);
	my $gap = $gap_end - $gap_begin;
	my $recovered = $before ? recovered_at($gap >= 100 ? $gap_end : $begin_ms, $until_ms, $share * $before) : undef;
	my $is_long = $end_ms - $begin_ms >= 300;
	show($incident, 'before_per_s', rounded($before));
	show($incident, 'during_share', $before && $is_long ? sprintf('%.3f', rate($begin_ms, $end_ms) / $before) : undef);
	if ($has_two)
	{
		my $others = rate($begin_ms - $quiet_ms, $begin_ms, 1);
		show($incident, 'others_share', $others && $is_long ? sprintf('%.3f', rate($begin_ms, $end_ms, 1) / $others) : undef);
	}
	show($incident, 'gap_ms', rounded($gap));
	show($incident, 'first_ms', $gap < 100 ? 0 : $gap_end < $until_ms ? rounded($gap_end - $begin_ms) : undef);
	my $after = defined $recovered ? $recovered - $begin_ms : undef;
	show($incident, 'recovered_ms', defined $after ? rounded($after > 0 ? $after : 0) : undef);
	my @here = grep { $_->[0] >= $begin_ms && ($i == $#incidents || $_->[0] < $until_ms) } @bad;
	show($incident, 'failed', scalar grep { $_->[1] ne 'connect' && $_->[2] !~ /^(?:login|rollback)$/ } @here);
	my %errors;
	$errors{"error.$_->[1].$_->[2]"}++ foreach grep { $_->[1] !~ /^(?:wrong|unasked|odd)$/ } @here;
	show($incident, $_, $errors{$_}) foreach sort keys %errors;
}
