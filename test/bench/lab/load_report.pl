#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the measurements of report.sh into Markdown: what each phase did, and how long acquisition and execution took.
#
# Use: load_report.pl [--curves FILE] CSV [DISTRIBUTION]
#      CSV: phase,round,figure,value; DISTRIBUTION: phase,round,measure,low_us,high_us,count
# FILE gets the distribution of all rounds together, for plotting: phase,measure,one_in,ms; one in so many takes longer.
#
# The sustained phase has the targets of stress.sh.
use strict;
use warnings;

use FindBin;
use Getopt::Long;
use lib $FindBin::Bin, "$FindBin::Bin/..";
use Figures;
use Measurements;

my $curves;
GetOptions('curves=s' => \$curves) && (@ARGV == 1 || @ARGV == 2)
  or die "usage: load_report.pl [--curves FILE] CSV [DISTRIBUTION]\n";

my %what = (
  sustained => 'sustained: paced to 82.5 % of the pool',
  saturated => 'saturated: the same, as fast as possible',
  burst => 'burst: all clients at one instant',
  churn => 'churn: connect, one row, leave',
  complex => 'complex: join with aggregates');

my (%values, @phases);    # phase -> figure -> list of values, one of each round
foreach my $row (read_figures($ARGV[0], [qw(phase figure)], [qw(round value)]))
{
  push @phases, $row->{phase} unless $values{ $row->{phase} };
  my $list = ($values{ $row->{phase} }{ $row->{figure} } ||= []);
  push @$list, $row->{value} if $row->{value} ne '';
}

sub all_of { my ($phase, $figure) = @_; return @{ $values{$phase}{$figure} || [] }; }
sub name_of { my ($phase) = @_; return $what{$phase} || $phase; }
sub most { my ($phase, $figure) = @_; my ($most) = sort { $b <=> $a } all_of($phase, $figure); return defined $most ? number_of($most) : 'n/a'; }
sub number_of { my ($count) = @_; return $count < 1000 ? $count : number($count); }

sub sum
{
  my $sum = 0;
  $sum += $_ foreach @_;
  return $sum;
}

# Of all rounds together: a failure in one of them is not hidden by a median.
sub success
{
  my ($phase) = @_;
  my ($requests, $succeeded) = map { sum(all_of($phase, $_)) } qw(requests succeeded);
  return 'n/a' unless $requests;
  return $succeeded == $requests ? '100' : sprintf('%.3f', 100 * $succeeded / $requests);
}

# How many have no times; of them nobody knows how long they waited.
sub left_out
{
  my ($phase) = @_;
  my @requests = all_of($phase, 'requests');
  my @succeeded = all_of($phase, 'succeeded');
  return 'n/a' unless @requests && @requests == @succeeded;
  return number_of(sum(@requests) - sum(@succeeded));
}

# The least and the greatest are those of all rounds; of anything else it is the median.
sub of_rounds
{
  my ($column, @values) = @_;
  my @sorted = sort { $a <=> $b } @values;
  return $column eq 'min' ? $sorted[0] : $column eq 'max' ? $sorted[-1] : median(@sorted);
}

my $rounds = 0;
foreach my $phase (@phases) { my $of = () = all_of($phase, 'requests'); $rounds = $of if $of > $rounds; }
printf "Medians of %d round%s, range of the throughput in parentheses; a pool of at most %s backends.\n\n", $rounds,
  $rounds == 1 ? '' : 's', most($phases[0], 'max_size');
row('phase', 'operations', 'success, %', 'duration, s', 'throughput, /s', 'peak concurrency', 'most waiting in the pool',
  'most backends', 'utilisation, %', 'the machine stalled, ms (longest)');
row('---', map { '--:' } 1 .. 9);
foreach my $phase (@phases)
{
  my $operations = median(all_of($phase, 'requests'));
  row(name_of($phase), defined $operations ? number_of($operations) : 'n/a', success($phase), number(median(all_of($phase, 'seconds'))),
    cell([ all_of($phase, 'throughput_per_s') ]), (map { most($phase, $_) } qw(peak_concurrency peak_waiting peak_backends)),
    number(median(all_of($phase, 'utilisation_percent'))),
    stall_cell(scalar(my @of = all_of($phase, 'requests')), [ all_of($phase, 'stalled_ms') ], [ all_of($phase, 'longest_stall_ms') ]));
}
print "\n$stalls_explained\n";

foreach my $measure ([ 'acquire', 'Acquisition: from the intended begin until a backend begins' ],
  [ 'execute', 'Execution: from there until the generator has read the answer' ], [ 'connect', 'Connecting, part of the acquisition in a churn' ])
{
  my ($prefix, $title) = @$measure;
  my @with = grep { all_of($_, "${prefix}_p50_us") } @phases;
  next unless @with || $prefix ne 'connect';
  print "\n$title, ms; min and max are of all rounds together.\n\n";
  my @columns = qw(min max mean p50 p95 p99);
  row('phase', (map { $_ eq 'mean' ? 'avg' : $_ } @columns), 'left out');
  row('---', map { '--:' } @columns, 'left out');
  foreach my $phase ($prefix eq 'connect' ? @with : @phases)
  {
    row(name_of($phase), (map { number(of_rounds($_, milliseconds(all_of($phase, "${prefix}_${_}_us")))) } @columns), left_out($phase));
  }
}
print "\nLeft out of these are operations, of all rounds together, that failed or were not done in the end: they count as ",
  "failures, with no time.\n";

if (grep { all_of($_, 'pool_wait_p50_us') } @phases)
{
  print "\nWhat the pool itself counted, ms: how long clients waited for a backend, and how long backends executed.\n\n";
  my @figures = map { my $measure = $_; map { "pool_${measure}_${_}_us" } qw(p50 p95 p99) } qw(wait active);
  row('phase', map { my $measure = $_; map { "$measure $_" } qw(p50 p95 p99) } qw(wait executing));
  row('---', map { '--:' } @figures);
  foreach my $phase (@phases) { row(name_of($phase), map { number(median(milliseconds(all_of($phase, $_)))) } @figures); }
}

# What stress.sh is held to, at the number of clients of this phase.
sub show_targets
{
  my ($phase) = @_;
  print "\nTargets of the sustained phase; medians of the rounds. Throughput is what the load aims at: it is none of the targets met.\n\n";
  row('target', 'measured', 'verdict');
  row('---', '--:', '---');
  my ($requests, $succeeded) = map { sum(all_of($phase, $_)) } qw(requests succeeded);
  row('success > 99.9 %', success($phase), verdict($requests && all_of($phase, 'succeeded') ? 100 * $succeeded / $requests : undef, 99.9, undef));
  my $throughput = median(all_of($phase, 'throughput_per_s'));
  row('throughput > 2,000/s', number($throughput), aimed($throughput, 2000, undef));
  foreach my $target ([ p50 => 2 ], [ p95 => 10 ], [ p99 => 20 ])
  {
    my ($name, $most) = @$target;
    my $ms = median(milliseconds(all_of($phase, "acquire_${name}_us")));
    row("acquisition $name < $most ms", number($ms), verdict($ms, undef, $most));
  }
  printf "\nTargets: %d met, %d missed.\n", totals();
  return;
}

show_targets('sustained') if $values{sustained};

# ---- the distribution, for plotting

sub write_curves
{
  my (@buckets) = @_;
  my (%counts, @curves);    # phase,measure -> upper bound -> count
  foreach my $bucket (@buckets)
  {
    my $key = "$bucket->{phase},$bucket->{measure}";
    push @curves, $key unless $counts{$key};
    $counts{$key}{ $bucket->{high_us} } += $bucket->{count};
  }
  open(my $file, '>', $curves) or die "could not create $curves: $!\n";
  print $file "phase,measure,one_in,ms\n";
  foreach my $key (@curves)
  {
    my $total = sum(values %{ $counts{$key} });
    my $left = $total;
    foreach my $high (sort { $a <=> $b } keys %{ $counts{$key} })
    {
      # Those before this bucket do not take so long; the last one has nothing beyond it.
      printf $file "%s,%.4f,%.4f\n", $key, $total / $left, $high / 1000;
      $left -= $counts{$key}{$high};
    }
  }
  close($file) or die "could not write $curves: $!\n";
  return;
}

write_curves(read_figures($ARGV[1], [qw(phase measure)], [qw(round low_us high_us count)])) if defined $curves && @ARGV == 2;
