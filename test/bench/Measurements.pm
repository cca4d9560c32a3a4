# SPDX-License-Identifier: PostgreSQL
#
# What the reports of the benchmarks share: reading measurements, medians, numbers that can be read, Markdown rows, and
# counting targets met and missed.

package Measurements;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(median number ratio ratio_text row read_csv verdict totals);

my ($met, $missed) = (0, 0);

sub median
{
  my @sorted = sort { $a <=> $b } @_;
  return undef unless @sorted;
  my $middle = int(@sorted / 2);
  return @sorted % 2 ? $sorted[$middle] : ($sorted[ $middle - 1 ] + $sorted[$middle]) / 2;
}

sub number
{
  my ($value) = @_;
  return 'n/a' unless defined $value && $value ne '';
  return sprintf('%.2f', $value) if abs($value) < 10;
  return sprintf('%.1f', $value) if abs($value) < 100;
  my $text = sprintf('%.0f', $value);
  1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
  return $text;
}

sub ratio
{
  my ($of, $to) = @_;
  return undef unless defined $of && $of ne '' && $to;
  return $of / $to;
}

sub ratio_text { my ($ratio) = @_; return defined $ratio ? sprintf('%.2f', $ratio) : 'n/a'; }

sub row { print '| ', join(' | ', @_), " |\n"; return; }

# Lines as hashes: the first line names the columns.
sub read_csv
{
  my ($file) = @_;
  open(my $csv, '<', $file) or die "could not open $file: $!\n";
  chomp(my ($head, @lines) = <$csv>);
  close($csv);
  my @names = split /,/, $head;
  my @rows;
  foreach my $line (@lines)
  {
    my %row;
    @row{@names} = split /,/, $line, -1;
    push @rows, \%row;
  }
  return @rows;
}

# A target, and whether it was met: least and greatest value allowed, either may be undefined.
sub verdict
{
  my ($value, $least, $most) = @_;
  return '-' unless defined $least || defined $most;
  return 'not measured' unless defined $value && $value ne '';
  if ((defined $least && $value < $least) || (defined $most && $value > $most)) { $missed++; return '**MISSED**'; }
  $met++;
  return 'met';
}

sub totals { return ($met, $missed); }

1;
