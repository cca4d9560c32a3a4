#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# The spike as a table: what each system opened for it, and how long its clients waited.
#
# Use: spike_report.pl CSV MIN MAX START_MS QUERY_MS PROXY_US      (spike.csv; what the systems were told; what the
# proxy costs a query)
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/..";
use Measurements;

my ($csv_file, $min, $max, $start_ms, $query_ms, $proxy_us) = @ARGV;
my $most_connections = $min + 1;
my $most_ms = 40;
my $own = 'pg_sluice';

my (@systems, %runs);
foreach my $run (read_csv($csv_file))
{
  my $system = $run->{system};
  push @systems, $system unless $runs{$system};
  push @{ $runs{$system} }, $run;
}
die "no spike in \"$csv_file\"\n" unless @systems;

# Those that were measured; a run in which nobody was served has no times.
sub values_of
{
  my ($system, $column) = @_;
  return grep { defined $_ && $_ ne '' } map { $_->{$column} } @{ $runs{$system} };
}

sub count_text
{
  my ($system, $column) = @_;
  my @values = sort { $a <=> $b } values_of($system, $column);
  return '-' unless @values;
  return $values[0] == $values[-1] ? $values[0] : median(@values) . " ($values[0] to $values[-1])";
}

sub worst
{
  my ($system, $column) = @_;
  my ($worst) = sort { $b <=> $a } values_of($system, $column);
  return $worst;
}

my $clients = $runs{ $systems[0] }[0]{clients};
print "$clients clients at once; a new connection takes $start_ms ms, a query $query_ms ms;",
  " at least $min connections, at most $max.\n";
print "A connection of the others begins at a proxy that makes it wait; a query takes $proxy_us us longer through it.\n"
  if defined $proxy_us;
print "Medians of the runs, in milliseconds from the first request on; counts with their range where runs differ.\n\n";
row('system', 'runs', 'connections before', 'opened', 'at the end', 'peak queue', 'first served', 'median', 'last',
  'last, worst run', 'failed');
row('---', map { '--:' } 1 .. 10);
foreach my $system (@systems)
{
  my $failed = 0;
  $failed += $_ foreach values_of($system, 'failed');
  row($system, scalar @{ $runs{$system} }, (map { count_text($system, $_) } qw(before opened at_end peak_queued)),
    (map { number(median(values_of($system, $_))) } qw(first_ms median_ms last_ms)), number(worst($system, 'last_ms')),
    $failed);
}

if ($runs{$own})
{
  my $not_served = grep { $_->{served} != $_->{clients} } @{ $runs{$own} };
  print "\n";
  row('target', 'worst run', 'verdict');
  row('---', '--:', '---');
  row("$own: at most $most_connections connections at the end", worst($own, 'at_end'),
    verdict(worst($own, 'at_end'), undef, $most_connections));
  row("$own: every request served in less than $most_ms ms", number(worst($own, 'last_ms')) . ' ms',
    verdict($not_served ? 1e9 : worst($own, 'last_ms'), undef, $most_ms));

  # What decided, and whether the machine was in the way: a query that takes far longer than it sleeps was not let run.
  print "\nRuns of $own:\n\n";
  row('run', 'last, ms', 'connections at the end', 'longest query, ms', 'reasons of starts');
  row('--:', '--:', '--:', '--:', '---');
  row(@$_{qw(run last_ms at_end longest_query_ms note)}) foreach @{ $runs{$own} };
}
printf "\nTargets: %d met, %d missed.\n", totals();
