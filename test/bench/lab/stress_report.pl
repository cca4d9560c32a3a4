#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the measurements of stress.sh into two Markdown tables: the paced load with its targets, and the unpaced one.
#
# Use: stress_report.pl [--arrivals KIND] [--medians FILE] CSV       (columns: see stress.sh)
# FILE gets the medians: load,clients,acquire_p50_ms,acquire_p95_ms,acquire_p99_ms,throughput_per_s,utilisation_percent
use strict;
use warnings;

use FindBin;
use Getopt::Long;
use lib $FindBin::Bin, "$FindBin::Bin/..";
use Figures;
use Measurements;

my ($arrivals, $medians) = ('poisson');
GetOptions('arrivals=s' => \$arrivals, 'medians=s' => \$medians) && @ARGV == 1
  or die "usage: stress_report.pl [--arrivals KIND] [--medians FILE] CSV\n";

my @rows = read_figures(
  $ARGV[0],
  ['load'],
  [
    qw(clients round operations succeeded seconds throughput_per_s max_size backends idle acquire_p50_us acquire_p95_us
      acquire_p99_us acquire_max_us admission_p99_us late_p99_us pool_p50_us pool_p95_us pool_p99_us hold_mean_us
      utilisation_percent peak_waiting long_share stalled_ms longest_stall_ms)
  ]);

sub rows_of { my ($load, $clients) = @_; return grep { $_->{load} eq $load && $_->{clients} == $clients } @rows; }

sub clients_of
{
  my ($load) = @_;
  my %seen = map { $_->{clients} => 1 } grep { $_->{load} eq $load } @rows;
  my @clients = sort { $a <=> $b } keys %seen;
  return @clients;
}

# Percent of the operations of all rounds: a failure in one of them is not hidden by a median.
sub success
{
  my @of = @_;
  my ($operations, $succeeded) = (0, 0);
  foreach my $row (@of)
  {
    return () if $row->{operations} eq '' || $row->{succeeded} eq '';
    $operations += $row->{operations};
    $succeeded += $row->{succeeded};
  }
  return $operations ? ($succeeded * 100 / $operations) : ();
}

# How many operations failed or were not done in the end: no percentile has them.
sub left_out
{
  my @of = @_;
  return 'n/a' if grep { $_->{operations} eq '' || $_->{succeeded} eq '' } @of;
  my $count = 0;
  $count += $_->{operations} - $_->{succeeded} foreach @of;
  return $count;
}

# Three digits behind the point: 99.9 is a target.
sub success_cell
{
  my ($targeted, @of) = @_;
  my ($percent) = success(@of);
  return $targeted ? 'n/a not measured' : 'n/a' unless defined $percent;
  my $text = $percent == 100 ? '100' : sprintf('%.3f', $percent);
  return $targeted ? "$text " . verdict($percent, 99.9, undef) : $text;
}

sub us_cell { my ($column, $most, @of) = @_; return cell([ milliseconds(values_of($column, @of)) ], undef, $most); }

sub percentiles { my ($prefix, @of) = @_; return join ' / ', map { number(median(milliseconds(values_of("${prefix}_${_}_us", @of)))) } qw(p50 p95 p99); }

# What an ideal pool would give: a queue, first come, first served, that takes no time of its own, with the same number
# of backends, utilisation, arrivals and operations.  Simulated; the same dice each time.
sub ideal
{
  my @of = @_;
  my ($backends, $percent, $hold_us, $share) =
    map { median(values_of($_, @of)) } qw(max_size utilisation_percent hold_mean_us long_share);
  return 'n/a' if grep { !defined } $backends, $percent, $hold_us, $share;
  # Beyond this it depends on how long the overload lasts.
  return 'n/a' if $backends < 1 || $percent <= 0 || $percent > 97 || $hold_us <= 1000 * $share;
  my ($now_us, @free_us, @waited_us) = (0, (0) x $backends);
  my $pause_us = $hold_us / $backends / $percent * 100;
  srand(1);
  foreach (1 .. 40_000)
  {
    $now_us += $arrivals eq 'poisson' ? -log(1 - rand()) * $pause_us : $pause_us;
    my $first = 0;
    foreach my $i (1 .. $#free_us) { $first = $i if $free_us[$i] < $free_us[$first]; }
    my $begin_us = $free_us[$first] > $now_us ? $free_us[$first] : $now_us;
    # A sleep of two milliseconds is one longer than the other.
    $free_us[$first] = $begin_us + $hold_us - 1000 * $share + (rand() < $share ? 1000 : 0);
    push @waited_us, $begin_us - $now_us;
  }
  @waited_us = sort { $a <=> $b } @waited_us;
  return join ' / ', map { number($waited_us[ @waited_us * $_ ] / 1000) } 0.5, 0.95, 0.99;
}

sub table
{
  my ($load, $targeted) = @_;
  my @most = $targeted ? (2, 10, 20) : ();
  my @head = ('clients', 'operations', 'duration, s', $targeted ? 'success, % (> 99.9)' : 'success, %',
    $targeted ? 'throughput, /s (aimed at: > 2,000)' : 'throughput, /s',
    'backends, idle at the end',
    (map { my $name = "acquire $_->[0], ms"; $targeted ? "$name (< $_->[1])" : $name } [ p50 => 2 ], [ p95 => 10 ], [ p99 => 20 ]),
    $targeted ? 'utilisation, % (aimed at: 80 to 85)' : 'utilisation, %',
    'the pool\'s own wait p50 / p95 / p99, ms', $targeted ? 'an ideal queue p50 / p95 / p99, ms' : (), 'held, mean ms', 'most waiting', 'left out', 'the machine stalled, ms (longest)');
  row(@head);
  row(map { '--:' } @head);
  foreach my $clients (clients_of($load))
  {
    my @of = rows_of($load, $clients);
    row($clients,
      number(median(values_of('operations', @of))), number(median(values_of('seconds', @of))), success_cell($targeted, @of),
      cell([ values_of('throughput_per_s', @of) ], $targeted ? 2000 : undef, undef, \&aimed),
      join(', ', map { my $value = median(values_of($_, @of)); defined $value ? $value : 'n/a' } qw(backends idle)),
      us_cell('acquire_p50_us', $most[0], @of), us_cell('acquire_p95_us', $most[1], @of), us_cell('acquire_p99_us', $most[2], @of),
      cell([ values_of('utilisation_percent', @of) ], $targeted ? (80, 85, \&aimed) : ()),
      percentiles('pool', @of), $targeted ? ideal(@of) : (), number(median(milliseconds(values_of('hold_mean_us', @of)))),
      do { my ($most) = sort { $b <=> $a } values_of('peak_waiting', @of); defined $most ? $most : 'n/a' }, left_out(@of),
      stall_cell(scalar @of, [ values_of('stalled_ms', @of) ], [ values_of('longest_stall_ms', @of) ]));
  }
  print "\n";
  return;
}

my $left_out = "Left out: operations, of all rounds together, that failed or were not done in the end. They have no acquire "
  . "time, and count as failures.\n\n";
my $size = median(values_of('max_size', @rows));
my $rounds = keys %{ { map { $_->{round} => 1 } @rows } };
my $kind = $arrivals eq 'poisson' ? 'Poisson' : $arrivals;
printf "Medians of %d round%s, range in parentheses; a pool of at most %s backends.\n\n", $rounds, $rounds == 1 ? '' : 's',
  defined $size ? $size : 'n/a';

if (clients_of('paced'))
{
  print "Paced: each operation sleeps in its backend for a millisecond or two, and begins at an instant drawn beforehand "
    . "($kind arrivals), so often that the pool is in use for about 82.5 percent of the time. Acquire counts from that "
    . "instant to the begin in a backend. Throughput and utilisation are what the load was fitted to and aims at (see the README): "
    . "reached, they are none of the targets met; missed, they are counted. How long clients wait is the result. An ideal queue has as many backends, as busy with "
    . "such operations, serves in the order of arrival and takes no time of its own: simulated.\n\n";
  table('paced', 1);
  print $left_out;
  my ($late) = sort { $b <=> $a } values_of('late_p99_us', grep { $_->{load} eq 'paced' } @rows);
  printf "Late in the generator itself, p99 at worst: %s ms, contained in acquire. ", number(defined $late ? $late / 1000 : undef);
  print "$stalls_explained A stall of 20 ms makes 40 of these operations wait, and it takes 100 ms to work them off.\n\n";
}
if (clients_of('unpaced'))
{
  print "Unpaced: everybody asks for one row by its key, and again as soon as that is answered. Clients wait for "
    . "each other. Where backends are held for less than all of the time, the processors are what is exhausted: then "
    . "they wait for one of these between two operations.\n\n";
  table('unpaced', 0);
  print $left_out unless clients_of('paced');
}
printf "Targets: %d met, %d missed.\n", totals();

if (defined $medians)
{
  open(my $file, '>', $medians) or die "could not create $medians: $!\n";
  print $file "load,clients,acquire_p50_ms,acquire_p95_ms,acquire_p99_ms,throughput_per_s,utilisation_percent\n";
  foreach my $load (qw(paced unpaced))
  {
    foreach my $clients (clients_of($load))
    {
      my @of = rows_of($load, $clients);
      print $file join(',', $load, $clients, map { defined $_ ? $_ : '' }
          (map { median(milliseconds(values_of("acquire_${_}_us", @of))) } qw(p50 p95 p99)),
        median(values_of('throughput_per_s', @of)), median(values_of('utilisation_percent', @of))), "\n";
    }
  }
  close($file) or die "could not write $medians: $!\n";
}
