# SPDX-License-Identifier: PostgreSQL
#
# What the reports of the benchmarks share: reading measurements, medians, numbers that can be read, Markdown rows, and
# counting targets met, missed and not judged.

package Measurements;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(median number ratio ratio_text row read_csv verdict failed_verdict unjudged totals not_judged);

my ($met, $missed, $unjudged) = (0, 0, 0);

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
  # A number, for the text "0.0" is true.
  return undef unless defined $of && $of ne '' && ($to || 0) != 0;
  return $of / $to;
}

sub ratio_text { my ($ratio) = @_; return defined $ratio ? sprintf('%.2f', $ratio) : 'n/a'; }

sub row { print '| ', join(' | ', @_), " |\n"; return; }

# Lines as hashes: the first line names the columns.  Columns that must be there may be given.
sub read_csv
{
  my ($file, @needed) = @_;
  open(my $csv, '<', $file) or die "could not open $file: $!\n";
  chomp(my ($head, @lines) = <$csv>);
  close($csv);
  die "$file: empty, without even the columns' names\n" unless defined $head && $head ne '';
  my @names = split /,/, $head;
  my %known = map { $_ => 1 } @names;
  foreach my $name (@needed) { die "$file: there is no column \"$name\"\n" unless $known{$name}; }
  my @rows;
  foreach my $i (0 .. $#lines)
  {
    my @fields = split /,/, $lines[$i], -1;
    die sprintf("%s, line %d: %d fields instead of %d: %s\n", $file, $i + 2, scalar @fields, scalar @names, $lines[$i])
      unless @fields == @names;
    my %row;
    @row{@names} = @fields;
    push @rows, \%row;
  }
  return @rows;
}

# A target, and whether it was met: least and greatest value allowed, either may be undefined.
sub verdict
{
  my ($value, $least, $most) = @_;
  return '-' unless defined $least || defined $most;
  return unjudged('not measured') unless defined $value && $value ne '';
  if ((defined $least && $value < $least) || (defined $most && $value > $most)) { $missed++; return '**MISSED**'; }
  $met++;
  return 'met';
}

# A target that was missed whatever the value is: some rounds have failed.  A crash is no better than being slow.
sub failed_verdict
{
  my ($failed, $rounds) = @_;
  $missed++;
  return "**MISSED**: failed in $failed of $rounds";
}

# A target that cannot be judged, and why.
sub unjudged
{
  my ($why) = @_;
  $unjudged++;
  return $why;
}

sub totals { return ($met, $missed); }

sub not_judged { return $unjudged; }

1;
