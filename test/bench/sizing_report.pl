#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the measurements of sizing.sh into two Markdown tables: the sizes that were advised beside the best one, and the
# sweep they are judged by.
#
# Use: sizing_report.pl WORKLOADS CSV       (the list of sizing.sh; workload,phase,round,size,tps)
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Measurements;

my ($workloads_file, $csv_file) = @ARGV;
my (%tps, %size);    # workload -> phase -> size -> list of tps; workload -> best, rule, fitted, advised -> size
foreach my $line (read_csv($csv_file))
{
  my ($name, $phase) = @$line{qw(workload phase)};
  if ($phase eq 'sweep' || $phase eq 'final') { push @{ $tps{$name}{$phase}{ $line->{size} } }, $line->{tps}; }
  else { $size{$name}{$phase} = $line->{size}; }
}

open(my $file, '<', $workloads_file) or die "could not open $workloads_file: $!\n";
my @workloads = grep { $tps{ $_->[0] } } map { chomp; [ (split /\|/)[ 0, 1 ] ] } <$file>;
close($file);

sub median_tps { my ($name, $phase, $size) = @_; return median(@{ $tps{$name}{$phase}{$size} || [] }); }

# Throughput at a size, in terms of that at the best one, both measured side by side.
sub relative
{
  my ($name, $which) = @_;
  my $size = $size{$name}{$which};
  return undef if !defined $size || $size eq '';
  return ratio(median_tps($name, 'final', $size), median_tps($name, 'final', $size{$name}{best}));
}

sub size_and_relative
{
  my ($name, $which) = @_;
  my $relative = relative($name, $which);
  return defined $relative ? "$size{$name}{$which}: " . ratio_text($relative) : '-';
}

print "Size, and throughput there in terms of that at the size that was best in the sweep; measured side by side.\n\n";
row('load', 'best size', 'tps there', 'cores * 2 + spindles', 'measured knee', 'advised', 'target', 'verdict');
row('---', '--:', '--:', '--:', '--:', '--:', '---', '---');
foreach my $workload (@workloads)
{
  my ($name, $what) = @$workload;
  row($what, $size{$name}{best}, number(median_tps($name, 'final', $size{$name}{best})),
    (map { size_and_relative($name, $_) } qw(rule fitted advised)),
    'advised >= 0.95', verdict(relative($name, 'advised'), 0.95, undef));
}

my %sizes = map { $_ => 1 } map { keys %{ $tps{ $_->[0] }{sweep} } } @workloads;
my @sizes = sort { $a <=> $b } keys %sizes;
print "\nThe sweep: tps, and in terms of the best.\n\n";
row('load', @sizes);
row('---', map { '--:' } @sizes);
foreach my $workload (@workloads)
{
  my ($name, $what) = @$workload;
  my $best = median_tps($name, 'sweep', $size{$name}{best});
  my @tps = map { median_tps($name, 'sweep', $_) } @sizes;
  row($what, map { number($_) . ' (' . ratio_text(ratio($_, $best)) . ')' } @tps);
}

printf "\nTargets: %d met, %d missed.\n", totals();
