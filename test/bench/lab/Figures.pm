# SPDX-License-Identifier: PostgreSQL
#
# What the reports of stress, load and monitor share: reading a CSV file that must have certain columns with numbers in
# them, and cells with median, range and verdict.

package Figures;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use lib "$FindBin::Bin/..";
use Measurements;

our @EXPORT = qw(read_figures values_of cell milliseconds aimed stall_cell $stalls_explained);

# read_figures(FILE, columns of text, columns of numbers): lines as hashes.  A number may be missing, but it must not be
# anything else, and a line must have as many fields as the first.
sub read_figures
{
  my ($file, $texts, $numbers) = @_;
  open(my $csv, '<', $file) or die "could not open $file: $!\n";
  chomp(my ($head, @lines) = <$csv>);
  close($csv);
  die "$file is empty\n" unless defined $head;
  my @rows = read_csv($file);
  my %has = map { $_ => 1 } split /,/, $head;
  foreach my $column (@$texts, @$numbers) { die "$file has no column \"$column\"\n" unless $has{$column}; }
  die "$file has no measurements\n" unless @rows;
  my $fields = () = $head =~ /,/g;
  foreach my $i (0 .. $#lines)
  {
    my $commas = () = $lines[$i] =~ /,/g;
    die sprintf("%s, line %d: %d fields instead of %d\n", $file, $i + 2, $commas + 1, $fields + 1) if $commas != $fields;
    foreach my $column (@$numbers)
    {
      my $value = $rows[$i]{$column};
      next if $value =~ /^(?:-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)?$/;
      die sprintf("%s, line %d: \"%s\" in column \"%s\" is not a number\n", $file, $i + 2, $value, $column);
    }
  }
  return @rows;
}

# Of some rows, the values of a column that are there.
sub values_of { my ($column, @rows) = @_; return grep { $_ ne '' } map { $_->{$column} } @rows; }

sub milliseconds { return map { $_ / 1000 } @_; }

# As verdict(), of a figure that the load itself was fitted to: reaching it is no merit, and not counted; missing it is.
sub aimed
{
  my ($value, $least, $most) = @_;
  my $is_there = defined $value && $value ne '' && !(defined $least && $value < $least) && !(defined $most && $value > $most);
  return $is_there ? 'aimed at' : verdict($value, $least, $most);
}

# cell(VALUES, LEAST, MOST, [JUDGE]): median, range if there are several values, and the verdict on the median if there is
# a target
sub cell
{
  my ($values, $least, $most, $judge) = @_;
  my @sorted = sort { $a <=> $b } @$values;
  my $median = median(@sorted);
  my $text = number($median);
  $text .= sprintf(' (%s to %s)', number($sorted[0]), number($sorted[-1])) if @sorted > 1;
  return $text unless defined $least || defined $most;
  return "$text " . ($judge || \&verdict)->($median, $least, $most);
}

our $stalls_explained = 'The machine stalled: how long, in all rounds together, its processors did not run what was due for 3 ms or more, '
  . 'as a thread of real-time priority on each of them saw it; an average processor, and the longest stall of any. That is the '
  . 'hypervisor or the kernel; a limit of processor time (a container\'s) is not seen.';

# stall_cell(ROUNDS, MS, LONGEST): of each round; nothing is said if one of them is missing
sub stall_cell
{
  my ($rounds, $stalled, $longest) = @_;
  return 'n/a' unless @$stalled && @$stalled == $rounds && @$longest == $rounds;
  my $total = 0;
  $total += $_ foreach @$stalled;
  my ($most) = sort { $b <=> $a } @$longest;
  return sprintf('%s (%s)', number($total), number($most));
}

1;
