#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the samples of monitor.sh into a Markdown table: what was offered in each step, and what the monitor showed.
#
# Use: monitor_report.pl CSV       (columns: see monitor.sh)
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin, "$FindBin::Bin/..";
use Figures;
use Measurements;

die "usage: monitor_report.pl CSV\n" unless @ARGV == 1;
my @samples = read_figures($ARGV[0], [qw(pool state)],
  [qw(at_s step offered_percent in_use max_size utilisation_percent waiting tps p99_ms)]);

sub mean
{
  my $sum = 0;
  return undef unless @_;
  $sum += $_ foreach @_;
  return $sum / @_;
}

sub most { my ($most) = sort { $b <=> $a } @_; return $most; }

# What was shown most of the time first.
sub states
{
  my %count;
  $count{ $_->{state} }++ foreach @_;
  return join ', ', sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
}

my %steps;
push @{ $steps{ $_->{step} } }, $_ foreach @samples;
printf "%d samples of sluice.monitor, read beside the load. Utilisation is the mean share of the pool's %s backends that "
  . "were in use when it was looked at; tps and p99 are what the monitor shows of its last full second, so the first of "
  . "a step belong to the one before: both are from the second half of a step.\n\n", scalar @samples,
  most(values_of('max_size', @samples)) // 'n/a';
row('step', 'offered, % of what the pool can serve', 'samples', 'utilisation, %', 'waiting, mean', 'waiting, most', 'tps, mean', 'wait p99, most, ms', 'states');
row('--:', '--:', '--:', '--:', '--:', '--:', '--:', '--:', '---');
foreach my $step (sort { $a <=> $b } keys %steps)
{
  my @of = @{ $steps{$step} };
  my @later = @of[ @of / 2 .. $#of ];
  row($step, $of[0]{offered_percent}, scalar @of, number(mean(values_of('utilisation_percent', @of))),
    number(mean(values_of('waiting', @of))), most(values_of('waiting', @of)) // 'n/a', number(mean(values_of('tps', @later))),
    number(most(values_of('p99_ms', @later))), states(@of));
}
print "\n";
