#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the measurements of peers.sh into Markdown: for each row the median of each leg with the least and the greatest
# value, what pg_sluice has in terms of a direct connection and of the best peer, and the target; then the latencies and
# the processor time of the same runs, and how many server connections each leg had; then what was not measured, and why.
# A row without a target is marked where pg_sluice is behind, so that a loss is as easy to see as a missed target.  A row
# in which a round of pg_sluice has failed has missed its target, whatever the other rounds have given.
#
# Its status is 3 if all of pg_sluice has failed: the report is complete then, and the benchmark is worth nothing.
#
# Use: peers_report.pl ROWS CSV MEDIANS      (the list of rows of peers.sh; its CSV; a file to be written, for plots)
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/..";
use Measurements;

my @columns = qw(row leg round clients unit value p50_ms p95_ms p99_ms machine_us pooler_us reason);
my @legs = qw(direct pgbouncer pgpool odyssey sluice);
my @peers = qw(pgbouncer pgpool odyssey);
# Those that share server connections among clients.  pgpool-II has a process and a connection for each client: it may be
# the best peer beside these, but alone it is no measure of a pool.
my @pools = qw(pgbouncer odyssey);
my %name = (
  direct => 'direct',
  pgbouncer => 'PgBouncer',
  pgpool => 'pgpool-II',
  odyssey => 'Odyssey',
  sluice => 'pg_sluice',
  advised => 'pg_sluice at the advised size');

my ($rows_file, $csv_file, $medians_file) = @ARGV;
die "usage: peers_report.pl ROWS CSV MEDIANS\n" unless defined $medians_file;

# row -> clients -> leg -> column -> values of the rounds; and reason -> how many rounds
my %measured;
my %reasons;
my %seen;    # "row,clients"
my ($advised, $no_advice);
my ($ours_seen, $ours_good) = (0, 0);
my $behind = 0;

sub read_measurements
{
  my $number = 1;
  foreach my $line (read_csv($csv_file, @columns))
  {
    $number++;
    if ($line->{row} eq 'advised')
    {
      if ($line->{value} ne '') { $advised = $line->{value}; }
      else { $no_advice = $line->{reason}; }
      next;
    }
    die "$csv_file, line $number: no such leg: $line->{leg}\n" unless exists $name{ $line->{leg} };
    my ($row, $clients, $leg) = @$line{qw(row clients leg)};
    $seen{"$row,$clients"} = 1;
    $ours_seen++ if $leg eq 'sluice' || $leg eq 'advised';
    if ($line->{reason} ne '') { $reasons{$row}{$clients}{$leg}{ $line->{reason} }++; next; }
    $ours_good++ if $leg eq 'sluice' || $leg eq 'advised';
    foreach my $column (qw(value p50_ms p95_ms p99_ms machine_us pooler_us server_connections))
    {
      # Files of earlier versions do not have server_connections.
      next if ($line->{$column} // '') eq '' && $column ne 'value';
      die "$csv_file, line $number: $column is not a number: \"$line->{$column}\"\n"
        unless $line->{$column} =~ /^\d+(\.\d+)?$/;
      push @{ $measured{$row}{$clients}{$leg}{$column} }, $line->{$column};
    }
  }
  return;
}

# The rows in their order: name, what, unit, clients, targets.
sub read_rows
{
  my (@rows, %known);
  open(my $file, '<', $rows_file) or die "could not open $rows_file: $!\n";
  while (my $line = <$file>)
  {
    chomp $line;
    my ($row, $what, $unit, undef, $clients, undef, undef, $targets) = split /\|/, $line, -1;
    die "$rows_file: not a row: $line\n" unless defined $targets;
    my %target = map { split /:/ } split / /, $targets;
    $known{$row} = 1;
    push @rows, map { { row => $row, what => $what, unit => $unit, clients => $_, target => \%target } }
      grep { exists $seen{"$row,$_"} } split / /, $clients;
  }
  close($file);
  foreach my $row (sort map { (split /,/)[0] } keys %seen) { die "$csv_file: no such row: $row\n" unless $known{$row}; }
  return @rows;
}

sub values_of
{
  my ($row, $leg, $column) = @_;
  my $of = $measured{ $row->{row} }{ $row->{clients} };
  return $of && $of->{$leg} && $of->{$leg}{$column} ? @{ $of->{$leg}{$column} } : ();
}

sub median_of { return median(values_of(@_)); }

sub with_spread
{
  my @values = sort { $a <=> $b } values_of(@_);
  return 'n/a' unless @values;
  return number(median(@values)) if @values == 1;
  return number(median(@values)) . ' (' . number($values[0]) . '..' . number($values[-1]) . ')';
}

# The best peer's value and which it is; nothing if there is none.
sub best_peer
{
  my ($row) = @_;
  my %of = map { $_ => median_of($row, $_, 'value') } grep { values_of($row, $_, 'value') } @peers;
  my ($best) = sort { $of{$b} <=> $of{$a} || $a cmp $b } keys %of;
  return defined $best ? ($of{$best}, $best) : ();
}

# Are there pools to be compared with?  "yes"; "no" if those that were asked cannot or have failed; "unknown" if none
# was.
sub pools_here
{
  my ($row) = @_;
  return 'yes' if grep { values_of($row, $_, 'value') } @pools;
  my $of = $reasons{ $row->{row} }{ $row->{clients} } || {};
  return (grep { $of->{$_} } @pools) ? 'no' : 'unknown';
}

# How many rounds of a leg have failed, of how many.
sub failures
{
  my ($row, $leg) = @_;
  my $of = $reasons{ $row->{row} }{ $row->{clients} } || {};
  my $failed = 0;
  $failed += $_ foreach values %{ $of->{$leg} || {} };
  my @good = values_of($row, $leg, 'value');
  return ($failed, $failed + @good);
}

# ---- throughput

# What a line is judged by: the text of its target, and the verdict.
sub judged
{
  my ($row, $ours, $to_direct, $to_peer, $over_direct, $over_peer) = @_;
  my ($failed, $rounds) = failures($row, $ours);
  if (defined $to_direct)
  {
    my $target = ">= $to_direct direct";
    return ($target, $failed ? failed_verdict($failed, $rounds) : verdict($over_direct, $to_direct, undef));
  }
  if (defined $to_peer)
  {
    my $target = ">= $to_peer best peer";
    my $pools = pools_here($row);
    return ($target, failed_verdict($failed, $rounds)) if $failed;
    return ($target, unjudged('no peer can this')) if $pools eq 'no';
    return ($target, verdict($pools eq 'yes' ? $over_peer : undef, $to_peer, undef));
  }
  if ($failed) { $behind++; return ('-', "no target; FAILED in $failed of $rounds"); }
  if (grep { defined $_ && $_ < 1 } $over_direct, $over_peer) { $behind++; return ('-', 'no target; BEHIND'); }
  return ('-', '-');
}

# A line of the table.  $ours: sluice, or advised.
sub throughput_row
{
  my ($row, $what, $ours, $to_direct, $to_peer) = @_;
  my $value = median_of($row, $ours, 'value');
  my ($best, $peer) = best_peer($row);
  my $over_direct = ratio($value, median_of($row, 'direct', 'value'));
  my $over_peer = ratio($value, $best);
  my ($target, $verdict) = judged($row, $ours, $to_direct, $to_peer, $over_direct, $over_peer);
  my $over_peer_text = ratio_text($over_peer) . (defined $over_peer ? " ($name{$peer})" : '');
  row($what, $row->{clients}, $row->{unit}, (map { with_spread($row, $_, 'value') } 'direct', @peers, $ours),
    ratio_text($over_direct), $over_peer_text, $target, $verdict);
  return;
}

sub throughput_table
{
  my @rows = @_;
  print "Throughput: medians, with the least and the greatest of the rounds.\n\n";
  row('load', 'clients', 'unit', (map { $name{$_} } @legs), '/ direct', '/ best peer', 'target', 'verdict');
  row('---', '--:', '---', (map { '--:' } @legs), '--:', '--:', '---', '---');
  foreach my $row (@rows)
  {
    my $target = $row->{target};
    throughput_row($row, $row->{what}, 'sluice', undef, $target->{ $row->{clients} } // $target->{'*'});
    next unless (failures($row, 'advised'))[1] || (defined $no_advice && defined $target->{advised});
    my $size = defined $advised ? " ($advised)" : '';
    throughput_row($row, "$row->{what}: pg_sluice at the advised size$size", 'advised', $target->{advised}, undef);
  }
  return;
}

# ---- latency, processor time and server connections

# The legs that a table has columns for: the advised size only if it was measured.
sub legs_with
{
  my ($column, @rows) = @_;
  return (@legs, (grep { values_of($_, 'advised', $column) } @rows) ? 'advised' : ());
}

# A table with several columns of the CSV in each cell, divided by slashes.
sub detail_table
{
  my ($title, $rows, @detail) = @_;
  my @shown = legs_with($detail[0], @$rows);
  print "\n$title\n\n";
  row('load', 'clients', map { $name{$_} } @shown);
  row('---', '--:', map { '--:' } @shown);
  foreach my $row (@$rows)
  {
    my %cell = map { $_ => 'n/a' } @shown;
    foreach my $leg (grep { values_of($row, $_, $detail[0]) } @shown)
    {
      $cell{$leg} = join ' / ', map { number(median_of($row, $leg, $_)) } @detail;
    }
    row($row->{what}, $row->{clients}, @cell{@shown});
  }
  return;
}

# The greatest number in any round, not a median: what a leg may take of the server is what it has taken once.
sub connections_table
{
  my @rows = grep { my $row = $_; grep { values_of($row, $_, 'server_connections') } @legs, 'advised' } @_;
  if (!@rows)
  {
    print "\nServer connections: not recorded.\n";
    return;
  }
  my @shown = legs_with('server_connections', @rows);
  print "\nServer connections: the most that each leg had at a time, in any round. A pool's size limits those of "
    . "PgBouncer and Odyssey; with pg_sluice a backend whose client thinks within a transaction does not count against "
    . "it.\n\n";
  row('load', 'clients', map { $name{$_} } @shown);
  row('---', '--:', map { '--:' } @shown);
  foreach my $row (@rows)
  {
    my @most;
    foreach my $leg (@shown)
    {
      my ($most) = sort { $b <=> $a } values_of($row, $leg, 'server_connections');
      push @most, $most // 'n/a';
    }
    row($row->{what}, $row->{clients}, @most);
  }
  return;
}

# ---- what is missing

sub missing_list
{
  my @rows = @_;
  my @lines;
  foreach my $row (@rows)
  {
    my $of = $reasons{ $row->{row} }{ $row->{clients} } or next;
    foreach my $leg (grep { $of->{$_} } @legs, 'advised')
    {
      my $good = scalar values_of($row, $leg, 'value');
      foreach my $reason (sort keys %{ $of->{$leg} })
      {
        my $bad = $of->{$leg}{$reason};
        my $times = $good ? sprintf(' (failed in %d of %d rounds)', $bad, $good + $bad) : '';
        push @lines, "- $row->{what}, $row->{clients} clients, $name{$leg}$times: $reason\n";
      }
    }
  }
  push @lines, "- $name{advised}: $no_advice\n" if defined $no_advice;
  print "\nNot measured:\n\n", @lines if @lines;
  return;
}

sub write_medians
{
  my @rows = @_;
  open(my $file, '>', $medians_file) or die "could not create $medians_file: $!\n";
  print $file "row,leg,clients,value,value_min,value_max,p99_ms,p99_min,p99_max\n";
  foreach my $row (@rows)
  {
    foreach my $leg (grep { values_of($row, $_, 'value') } @legs, 'advised')
    {
      my @cells = ($row->{row}, $leg, $row->{clients});
      foreach my $column (qw(value p99_ms))
      {
        my @values = sort { $a <=> $b } values_of($row, $leg, $column);
        push @cells, median(@values) // '', $values[0] // '', $values[-1] // '';
      }
      print $file join(',', @cells), "\n";
    }
  }
  close($file) or die "could not write $medians_file: $!\n";
  return;
}

read_measurements();
my @rows = read_rows();
die "$csv_file: nothing was measured\n" unless %seen;
throughput_table(@rows);
detail_table('Latency in ms: p50 / p95 / p99.', \@rows, qw(p50_ms p95_ms p99_ms));
detail_table('Processor time per transaction in us: of the whole machine, load generator included / of the pooler\'s own '
    . 'processes.', \@rows, qw(machine_us pooler_us));
connections_table(@rows);
missing_list(@rows);
write_medians(@rows);
my ($met, $missed) = totals();
my $unjudged = not_judged();
print "\nTargets: $met met, $missed missed, $unjudged not judged. "
  . "Without a target: $behind rows in which pg_sluice is behind or has failed.\n";
if ($ours_seen && !$ours_good)
{
  print STDERR "peers_report.pl: all loads of pg_sluice have failed\n";
  exit 3;
}
