#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the measurements of sizing.sh into Markdown tables, or into gnuplot's commands for one of its plots.
#
# Use: sizing_report.pl [--advice FILE] CSV           the report; FILE: what the extension said, to be quoted
#      sizing_report.pl --plot latency|throughput|p99 CSV
#
# Columns of the CSV: part (table, sweep, final: the sizes in question measured once more; mark: a size somebody
# advises), load, clients, leg, kind (fixed, increasing; of a mark: rule, knee, advised), size, round, backends,
# succeeded, failed, throughput_per_s, and latencies in microseconds.
#
# A figure is the median of its rounds, but a greatest latency is the greatest of all.
use strict;
use warnings;

use FindBin;
use Getopt::Long;
use lib "$FindBin::Bin/..";
use Measurements;

my @latencies = qw(mean_us p50_us p90_us p95_us p99_us p999_us p9999_us max_us);
my %leg_name = (direct => 'direct', pgbouncer => 'PgBouncer', pgpool => 'pgpool-II', odyssey => 'Odyssey',
  sluice => 'pg_sluice');
my %load_name = (select => 'select', transaction => 'TPC-B-like');
my $target = 0.95;

GetOptions('plot=s' => \my $plot, 'advice=s' => \my $advice_file) or die "wrong options\n";
my ($csv_file) = @ARGV;
die "which CSV?\n" unless defined $csv_file;

# ---- what was measured

my %lines;    # "part,load,clients,leg,kind,size" -> list of lines
my %mark;     # load -> kind -> size
my %seen;     # "part column" -> its values in their order
foreach my $line (read_csv($csv_file))
{
  if ($line->{part} eq 'mark') { $mark{ $line->{load} }{ $line->{kind} } = $line->{size} if $line->{size} ne ''; next; }
  push @{ $lines{ join ',', @$line{qw(part load clients leg kind size)} } }, $line;
  remember("$line->{part} $_", $line->{$_}) foreach qw(load clients leg kind);
  remember("size of " . join(',', @$line{qw(part load clients)}), $line->{size});
}
die "nothing was measured\n" unless %lines;

sub remember
{
  my ($list, $value) = @_;
  push @{ $seen{$list} }, $value unless grep { $_ eq $value } @{ $seen{$list} };
  return;
}
sub seen { my ($list) = @_; return @{ $seen{$list} || [] }; }
sub sizes_of { return sort { $a <=> $b } seen('size of ' . join(',', @_)); }

# values COLUMN, PART, LOAD, CLIENTS, LEG, KIND, SIZE
sub values_of
{
  my ($column, @key) = @_;
  return grep { $_ ne '' } map { $_->{$column} } @{ $lines{ join ',', @key } || [] };
}
sub value
{
  my ($column, @key) = @_;
  my @values = sort { $a <=> $b } values_of($column, @key);
  my $value = $column eq 'max_us' ? $values[-1] : median(@values);
  return defined $value ? $value + 0 : undef;    # "0.0" is true
}

# Greatest distance of a round from the median, as a share of it.
sub spread
{
  my ($column, @key) = @_;
  my $median = value($column, @key) or return undef;
  my ($least, $most) = (sort { $a <=> $b } values_of($column, @key))[ 0, -1 ];
  return ($most - $median > $median - $least ? $most - $median : $median - $least) / $median;
}
sub percent { my ($share) = @_; return defined $share ? sprintf('%.0f %%', 100 * $share) : 'n/a'; }

sub named { my ($names, $key) = @_; return $names->{$key} // $key; }
sub clients_text { return $_[0] == 1 ? '1 client' : "$_[0] clients"; }
sub ms { return defined $_[0] ? $_[0] / 1000 : undef; }

# ---- the report

sub print_table_of_latencies
{
  foreach my $clients (seen('table clients'))
  {
    my @rows = latency_rows($clients);
    my @spreads = sort { $a <=> $b } grep { defined } map { spread('throughput_per_s', @$_) } @rows;
    print "\n### One-row select, ", clients_text($clients), "\n\n";
    print "Latencies in microseconds. Rounds are within ", percent($spreads[-1]), " of the median throughput",
      @spreads > 1 ? ', half of them within ' . percent(median(@spreads)) : '', ".\n\n";
    row('pool', 'size', '', 'per second', 'mean', map({ "p$_" } qw(50 90 95 99 99.9 99.99)), 'max',
      'server connections');
    row('---', '--:', '---', ('--:') x 10);
    foreach my $key (@rows)
    {
      my (undef, undef, undef, $leg, $kind, $size) = @$key;
      row(named(\%leg_name, $leg), $size, $kind, map({ number(value($_, @$key)) } 'throughput_per_s', @latencies),
        value('backends', @$key) // 'n/a');
    }
  }
  return;
}

sub latency_rows
{
  my ($clients) = @_;
  my @rows;
  foreach my $leg (seen('table leg'))
  {
    foreach my $size (sizes_of('table', 'select', $clients))
    {
      push @rows, grep { $lines{ join ',', @$_ } }
        map { [ 'table', 'select', $clients, $leg, $_, $size ] } seen('table kind');
    }
  }
  return @rows;
}

# The size with the greatest throughput, and that.
sub best
{
  my ($part, $load, $clients, $leg) = @_;
  my ($best, $most);
  foreach my $size (sizes_of($part, $load, $clients))
  {
    my $throughput = value('throughput_per_s', $part, $load, $clients, $leg, 'fixed', $size);
    ($best, $most) = ($size, $throughput) if defined $throughput && (!defined $most || $throughput > $most);
  }
  return ($best, $most);
}

# Throughput at a size in terms of that at the best one; from the last measurement, side by side, if there is one.
sub relative
{
  my ($load, $clients, $leg, $size) = @_;
  return undef unless defined $size;
  my ($best) = best('sweep', $load, $clients, $leg);
  return undef unless defined $best;
  foreach my $part ('final', 'sweep')
  {
    my $relative = ratio(map { value('throughput_per_s', $part, $load, $clients, $leg, 'fixed', $_) } $size, $best);
    return $relative if defined $relative;
  }
  return undef;
}

sub size_and_relative
{
  my ($size, $relative) = @_;
  return defined $size ? "$size: " . ratio_text($relative) : '-';
}

# A peer has nobody who advises it: it is shown at the size advised to the pool, but not judged.
sub print_advice
{
  print "\n### Best, rule and advice\n\n";
  print "Size, and throughput there in terms of that at the size that was best in the sweep; all measured once more, ",
    "side by side. p99 in milliseconds.\n\n";
  row('load', 'clients', 'pool', 'best size', 'per second', 'p99', 'rule', 'p99', 'advised', 'p99', 'target',
    'verdict');
  row('---', '--:', '---', ('--:') x 7, '---', '---');
  foreach my $load (seen('sweep load'))
  {
    foreach my $clients (seen('sweep clients'))
    {
      foreach my $leg (seen('sweep leg')) { print_advice_row($load, $clients, $leg); }
    }
  }
  return;
}

sub print_advice_row
{
  my ($load, $clients, $leg) = @_;
  my ($best) = best('sweep', $load, $clients, $leg);
  return unless defined $best;
  my %marked = %{ $mark{$load} || {} };
  my $part = defined value('throughput_per_s', 'final', $load, $clients, $leg, 'fixed', $best) ? 'final' : 'sweep';
  my $at = sub { my ($column, $size) = @_; return value($column, $part, $load, $clients, $leg, 'fixed', $size); };
  my %relative = map { $_ => relative($load, $clients, $leg, $marked{$_}) } keys %marked;
  my $p99 = sub { return defined $_[0] ? number(ms($at->('p99_us', $_[0]))) : '-'; };
  row(named(\%load_name, $load), $clients, named(\%leg_name, $leg), $best, number($at->('throughput_per_s', $best)),
    $p99->($best), (map { (size_and_relative($marked{$_}, $relative{$_}), $p99->($marked{$_})) } qw(rule advised)),
    $leg eq 'sluice' ? ("advised >= $target", verdict($relative{advised}, $target, undef)) : ('-', '-'));
  return;
}

# quote FILE: a line each, as a list
sub quote_advice
{
  open(my $file, '<', $advice_file) or die "could not open $advice_file: $!\n";
  chomp(my @said = <$file>);
  close($file);
  print "\nWhat sluice.sizing said after it had seen the load:\n\n", map({ "- $_\n" } @said) if @said;
  return;
}

sub print_sweep
{
  foreach my $load (seen('sweep load'))
  {
    foreach my $clients (seen('sweep clients'))
    {
      my @sizes = sizes_of('sweep', $load, $clients) or next;
      print "\n### ", named(\%load_name, $load), ', ', clients_text($clients), ", by pool size\n\n";
      row('', @sizes);
      row('---', ('--:') x @sizes);
      foreach my $leg (seen('sweep leg')) { print_sweep_rows($load, $clients, $leg, @sizes); }
      print_times_rows($load, $clients, @sizes);
    }
  }
  return;
}

sub print_sweep_rows
{
  my ($load, $clients, $leg, @sizes) = @_;
  my (undef, $most) = best('sweep', $load, $clients, $leg);
  my $name = named(\%leg_name, $leg);
  my $key = sub { return ('sweep', $load, $clients, $leg, 'fixed', $_[0]); };
  row("$name, per second", map { number(value('throughput_per_s', $key->($_))) } @sizes);
  row("$name, of its best", map { ratio_text(ratio(value('throughput_per_s', $key->($_)), $most)) } @sizes);
  row("$name, spread", map { percent(spread('throughput_per_s', $key->($_))) } @sizes);
  row("$name, p99, ms", map { number(ms(value('p99_us', $key->($_)))) } @sizes);
  row("$name, server connections", map { value('backends', $key->($_)) // 'n/a' } @sizes);
  return;
}

# The pool in terms of each peer, at the same size.
sub print_times_rows
{
  my ($load, $clients, @sizes) = @_;
  foreach my $peer (grep { $_ ne 'sluice' } seen('sweep leg'))
  {
    my @ratios = map {
      my $size = $_;
      ratio(map { value('throughput_per_s', 'sweep', $load, $clients, $_, 'fixed', $size) } 'sluice', $peer)
    } @sizes;
    row("pg_sluice, times " . named(\%leg_name, $peer), map { ratio_text($_) } @ratios) if grep { defined } @ratios;
  }
  return;
}

# ---- the plots

my $block = 0;

# A block of data of gnuplot's: its name.
sub data_block
{
  my (@rows) = @_;
  my $name = '$data' . ++$block;
  print "$name << END_OF_DATA\n", map({ join(',', @$_) . "\n" } @rows), "END_OF_DATA\n";
  return $name;
}

sub begin_plot
{
  my ($title, $rows, $columns, $width) = @_;
  printf "set terminal svg noenhanced size %d,%d font 'Helvetica,13' background '#ffffff'\n",
    60 + $width * $columns, 70 + 370 * $rows;
  print "set multiplot layout $rows,$columns title '$title' font ',16'\n";
  return;
}

my @colors = ('#440154', '#3b528b', '#21918c', '#5ec962', '#e0a800', '#d95f02', '#b2182b');

# Percentiles on an axis on which each nine is as long as the one before.
sub plot_latency
{
  my @ticks = ([ 50, 'p50_us' ], [ 90, 'p90_us' ], [ 95, 'p95_us' ], [ 99, 'p99_us' ], [ 99.9, 'p999_us' ],
    [ 99.99, 'p9999_us' ]);
  my $place = sub { return sprintf '%.4f', -log(1 - $_[0] / 100) / log(10); };
  my @clients = seen('table clients') or return;
  my @legs = seen('table leg');
  begin_plot('Latency of a one-row select by pool size', scalar @clients, scalar @legs, 560);
  print "set logscale y\nset ylabel 'milliseconds'\nset xlabel 'percentile'\n";
  print "set key outside right top vertical samplen 2\n";
  print 'set xtics (', join(', ', map { "'$_->[0]' " . $place->($_->[0]) } @ticks), ")\n";
  print "set xrange [0.2:4.1]\n";
  my @rows = map { latency_rows($_) } @clients;
  my @shown = map { my $column = $_->[1]; map { ms(value($column, @$_)) } @rows } @ticks;
  @shown = sort { $a <=> $b } grep { defined && $_ > 0 } @shown;
  printf "set yrange [%g:%g]\n", $shown[0] / 1.5, $shown[-1] * 4 if @shown;
  foreach my $clients (@clients)
  {
    foreach my $leg (@legs)
    {
      my (@curves, %color);
      foreach my $key (grep { $_->[3] eq $leg } latency_rows($clients))
      {
        my ($kind, $size) = @$key[ 4, 5 ];
        my $color = $color{$size} // $colors[ keys(%color) % @colors ];
        $color{$size} = $color;
        my $data = data_block(map { [ $place->($_->[0]), ms(value($_->[1], @$key)) // 'NaN' ] } @ticks);
        my $dash = $kind eq 'increasing' ? 2 : 1;
        push @curves, "$data using 1:2 with linespoints lw 2 pt 7 ps 0.4 dt $dash lc rgb '$color' title '$size $kind'";
      }
      print "set title '", named(\%leg_name, $leg), ', ', clients_text($clients), "'\n";
      print 'plot ', join(', ', @curves), "\n" if @curves;
    }
  }
  print "unset multiplot\n";
  return;
}

sub plot_sweep
{
  my ($column, $title, $unit, $scale, $setup) = @_;
  my @loads = seen('sweep load') or return;
  my @clients = seen('sweep clients');
  begin_plot($title, scalar @loads, scalar @clients, 440);
  print "set logscale x\nset xlabel 'pool size'\nset ylabel '$unit'\n";
  print "set key outside center bottom horizontal\n$setup\n";
  print "set xtics (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)\n";
  my @sizes = sort { $a <=> $b } map { my $load = $_; map { sizes_of('sweep', $load, $_) } @clients } @loads;
  printf "set xrange [%g:%g]\n", $sizes[0] * 0.9, $sizes[-1] * 1.15;
  foreach my $load (@loads)
  {
    foreach my $clients (@clients)
    {
      my @curves = sweep_curves($column, $scale, $load, $clients);
      print 'set title "', named(\%load_name, $load), ', ', clients_text($clients), '\n', marks_text($load), "\"\n";
      print_marks($load);
      print 'plot ', join(', ', @curves), "\n" if @curves;
      print "unset arrow\n";
    }
  }
  print "unset multiplot\n";
  return;
}

# A line of medians with the range of the rounds, for each leg.
sub sweep_curves
{
  my ($column, $scale, $load, $clients) = @_;
  my @curves;
  foreach my $leg (seen('sweep leg'))
  {
    my @rows;
    foreach my $size (sizes_of('sweep', $load, $clients))
    {
      my @key = ('sweep', $load, $clients, $leg, 'fixed', $size);
      my @values = sort { $a <=> $b } values_of($column, @key) or next;
      push @rows, [ $size, map { $_ / $scale } value($column, @key), @values[ 0, -1 ] ];
    }
    next unless @rows;
    my $color = exists $leg_name{$leg} ? "color_$leg" : "'#000000'";
    push @curves, data_block(@rows) . " using 1:2:3:4 with yerrorlines lw 2 pt 7 ps 0.4 lc rgb $color title '" .
      named(\%leg_name, $leg) . "'";
  }
  return @curves;
}

sub marks_text
{
  my ($load) = @_;
  my %marked = %{ $mark{$load} || {} };
  return join ', ', map { "$_->[0] $marked{$_->[0]} ($_->[1])" } grep { defined $marked{ $_->[0] } }
    ([ 'rule', 'dashed' ], [ 'advised', 'dotted' ]);
}

sub print_marks
{
  my ($load) = @_;
  my %style = (rule => "dt 2 lc rgb '#d62728'", advised => "dt 3 lc rgb '#000000'");
  foreach my $kind (grep { defined $mark{$load}{$_} } qw(rule advised))
  {
    my $size = $mark{$load}{$kind};
    print "set arrow from first $size, graph 0 to first $size, graph 1 nohead lw 2 $style{$kind}\n";
  }
  return;
}

if (defined $plot)
{
  if ($plot eq 'latency') { plot_latency(); }
  elsif ($plot eq 'throughput')
  {
    plot_sweep('throughput_per_s', 'Throughput by pool size', 'thousands per second', 1000, 'set yrange [0:*]');
  }
  elsif ($plot eq 'p99') { plot_sweep('p99_us', 'p99 by pool size', 'milliseconds', 1000, 'set logscale y'); }
  else { die "there is no such plot: $plot\n"; }
}
else
{
  print_table_of_latencies();
  if (seen('sweep load'))
  {
    print_advice();
    quote_advice() if defined $advice_file;
    print_sweep();
  }
  printf "\nTargets: %d met, %d missed.\n", totals();
}
