#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the measurements of the benchmark into a Markdown table: the median of each leg, its ratios, the target and
# whether it was met.  A figure without a target is marked when the pool is behind, so that a loss is as easy to see as
# a missed target.
#
# Use: report.pl SCENARIOS CSV       (the scenario list of run.sh; scenario,leg,round,clients,unit,value,p99_ms)
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Measurements qw(median number ratio ratio_text row);

my %values;    # scenario -> leg -> list of values
my %p99;       # scenario -> leg -> list of ms
my %clients;   # scenario -> leg -> number

sub leg_median { my ($of, $name, $leg) = @_; return median(@{ $of->{$name}{$leg} || [] }); }

my ($scenarios_file, $csv_file) = @ARGV;
open(my $csv, '<', $csv_file) or die "could not open $csv_file: $!\n";
<$csv>;
while (my $line = <$csv>) {
  chomp $line;
  my ($name, $leg, undef, $count, undef, $value, $tail) = split /,/, $line, -1;
  push @{ $values{$name}{$leg} }, $value;
  push @{ $p99{$name}{$leg} }, $tail if defined $tail && $tail ne '';
  $clients{$name}{$leg} = $count;
}
close($csv);

my ($met, $missed, $behind) = (0, 0, 0);

# The verdict on one row: each target is a pair of ratio and bound.
sub verdict {
  my ($targets, @ratios) = @_;
  my @with_target = grep { $_->[1] ne '' } @$targets;
  if (!@with_target) {
    return '-' unless grep { defined } @ratios;
    return '-' unless grep { defined $_ && $_ < 1 } @ratios;
    $behind++;
    return 'no target; BEHIND';
  }
  return 'not measured' if grep { !defined $_->[0] } @with_target;
  if (grep { $_->[0] < $_->[1] } @with_target) { $missed++; return '**MISSED**'; }
  $met++;
  return 'met';
}

row('scenario', 'clients', 'unit', 'direct', 'PgBouncer', 'pg_sluice', 'pg_sluice / direct', 'pg_sluice / PgBouncer',
  'target', 'verdict');
row('---', '--:', '---', '--:', '--:', '--:', '--:', '--:', '---', '---');
open(my $scenarios, '<', $scenarios_file) or die "could not open $scenarios_file: $!\n";
my @order;
while (my $line = <$scenarios>) {
  chomp $line;
  my ($name, $what, $unit, $count, undef, undef, $to_direct, $to_pgbouncer) = split /\|/, $line, -1;
  next unless $values{$name};
  push @order, [$name, $what, $count];
  my ($direct, $pgbouncer, $sluice) = map { leg_median(\%values, $name, $_) } qw(direct pgbouncer sluice);
  my ($over_direct, $over_pgbouncer) = (ratio($sluice, $direct), ratio($sluice, $pgbouncer));
  my @target;
  push @target, ">= $to_direct direct" if $to_direct ne '';
  push @target, ">= $to_pgbouncer PgBouncer" if $to_pgbouncer ne '';
  row($what, $count, $unit, number($direct), number($pgbouncer), number($sluice), ratio_text($over_direct),
    ratio_text($over_pgbouncer), join(', ', @target) || '-',
    verdict([[$over_direct, $to_direct], [$over_pgbouncer, $to_pgbouncer]], $over_direct, $over_pgbouncer));
}
close($scenarios);

# Rows in which less is better.
for my $entry (@order) {
  my ($name, $what, $count) = @$entry;
  next unless $p99{$name};
  my ($direct, $pgbouncer, $sluice) = map { leg_median(\%p99, $name, $_) } qw(direct pgbouncer sluice);
  my ($over_direct, $over_pgbouncer) = (ratio($sluice, $direct), ratio($sluice, $pgbouncer));
  my $loses = grep { defined $_ && $_ > 1 } $over_direct, $over_pgbouncer;
  $behind++ if $loses;
  row("$what: p99 latency", $count, 'ms', number($direct), number($pgbouncer), number($sluice),
    ratio_text($over_direct), ratio_text($over_pgbouncer), '-', $loses ? 'no target; BEHIND' : '-');
}

# One row for a figure with an upper bound on the pool's own value.
sub bounded_row {
  my ($what, $count, $unit, $name, $bound, $value) = @_;
  my ($direct, $pgbouncer) = map { leg_median(\%values, $name, $_) } qw(direct pgbouncer);
  my $verdict = '-';
  if (defined $bound) {
    if (!defined $value) { $verdict = 'not measured'; }
    elsif ($value <= $bound) { $verdict = 'met'; $met++; }
    else { $verdict = '**MISSED**'; $missed++; }
  }
  row($what, $count, $unit, number($direct), number($pgbouncer), number($value), ratio_text(ratio($value, $direct)),
    ratio_text(ratio($value, $pgbouncer)), defined $bound ? "<= $bound" : '-', $verdict);
}

if ($values{system_calls}) {
  bounded_row('select, simple protocol: system calls of the server side', 50, 'per transaction', 'system_calls', undef,
    leg_median(\%values, 'system_calls', 'sluice'));
}
if ($values{memory}) {
  my $count = join ' / ', map { $clients{memory}{$_} || 'n/a' } qw(direct pgbouncer sluice);
  bounded_row('user memory per idle client', $count, 'bytes', 'memory', 400, leg_median(\%values, 'memory', 'sluice'));
}
if ($values{spike_last}) {
  my $count = $clients{spike_last}{sluice};
  my %most;
  for my $name (grep { /^spike/ } keys %values) {
    ($most{$name}) = sort { $b <=> $a } @{ $values{$name}{sluice} };
  }
  bounded_row('spike: first answer', $count, 'ms', 'spike_first', undef, leg_median(\%values, 'spike_first', 'sluice'));
  bounded_row('spike: last answer', $count, 'ms', 'spike_last', 150, leg_median(\%values, 'spike_last', 'sluice'));
  bounded_row('spike: backends at the end, most', $count, 'backends', 'spike_backends', 6, $most{spike_backends});
  printf "\nSpike: %d clients send a 2 ms query at once to 5 idle backends while each start is delayed by 150 ms; "
    . "%d runs. Slowest last answer %s ms; most starts in one run, the first five included: %s.\n",
    $count, scalar @{ $values{spike_last}{sluice} }, number($most{spike_last}), $most{spike_starts} // 'n/a';
}

print "\nTargets: $met met, $missed missed. Without a target: $behind rows in which pg_sluice is behind.\n";
