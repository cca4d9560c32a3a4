#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Turns the measurements of statistics.sh into Markdown tables with targets.
#
# Use: statistics_report.pl CSV       (part,name,leg,round,unit,value)
use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Measurements;

my %value;    # part -> name -> unit -> leg -> round -> value
my %order;    # part -> names as they came
foreach my $line (read_csv($ARGV[0]))
{
  my ($part, $name) = @$line{qw(part name)};
  push @{ $order{$part} }, $name unless $value{$part}{$name};
  $value{$part}{$name}{ $line->{unit} }{ $line->{leg} }{ $line->{round} } = $line->{value};
}

sub of { my ($part, $name, $unit, $leg) = @_; return $value{$part}{$name}{$unit}{$leg} || {}; }

# ---- overhead

sub overhead_row
{
  my ($name, $unit, $text, $least) = @_;
  my ($on, $off) = map { of('overhead', $name, $unit, $_) } qw(on off);
  my @ratios = map { ratio($on->{$_}, $off->{$_}) } grep { defined $off->{$_} } sort { $a <=> $b } keys %$on;
  my $median = median(grep { defined } @ratios);
  my ($lowest, $highest) = (sort { $a <=> $b } grep { defined } @ratios)[ 0, -1 ];
  row($name, $text, scalar @ratios, number(median(values %$on)), number(median(values %$off)),
    defined $median ? sprintf('%.3f', $median) : 'n/a',
    defined $lowest ? sprintf('%.3f to %.3f', $lowest, $highest) : 'n/a',
    defined $least ? ">= $least" : '-', verdict($median, $least, undef));
  return;
}

if ($order{overhead})
{
  print "Overhead: on and off in pairs.\n\n";
  row('load', 'unit', 'pairs', 'on', 'off', 'on / off, median of pairs', 'range', 'target', 'verdict');
  row('---', '---', '--:', '--:', '--:', '--:', '--:', '---', '---');
  foreach my $name (@{ $order{overhead} })
  {
    overhead_row($name, 'tps', 'tps', 0.97);
    overhead_row($name, 'cpu_us', 'CPU of the pool, us per transaction', undef);
  }
  print "\n";
}

# ---- agreement

sub only { my ($name, $unit, $leg) = @_; return of('agreement', $name, $unit, $leg)->{1}; }

# The pool's figure beside the client's, and whether they agree.
sub agreement_row
{
  my ($name, $text, $seen, $client, $pool, $compare) = @_;
  return unless defined $client;
  my $ratio = $compare ? ratio($pool, $client) : undef;
  row($name, $text, number($seen), number($client), number($pool), $compare ? ratio_text($ratio) : '-',
    $compare ? '0.9 to 1.1' : '-', $compare ? verdict($ratio, 0.9, 1.1) : '-');
  return;
}

sub wait_rows
{
  my ($name) = @_;
  foreach my $which (qw(p50 p95 p99))
  {
    my $client = only($name, "admission_${which}_us", 'client');
    next unless defined $client;
    agreement_row($name, "wait $which", only($name, "wait_${which}_us", 'client'), $client,
      only($name, "wait_${which}_us", 'pool'), $name =~ /^(load|burst)/ && $client > 1000);
  }
  return;
}

# In a script the pool's "active" and "thinking" are compared with what was asked for, per transaction.
my %known = (thinking => { thinking => 30000, active => 20000 });

sub known_row
{
  my ($name, $measure) = @_;
  my ($mean, $count, $holds) =
    map { only($name, $_, 'pool') } ("${measure}_mean_us", "${measure}_count", 'hold_count');
  my $each = defined $mean && $holds ? $mean * $count / $holds : undef;
  my $known = $known{$name}{$measure};
  agreement_row($name, "$measure, mean per transaction (known)", $known, $known, $each, 1);
  return;
}

if ($order{agreement})
{
  printf "Agreement, in microseconds. A fixed pool answers %s requests per second of 5 ms each; loads in percent of "
    . "that. The client's wait counts from the intended start; what is compared with the pool's counts from when the "
    . "request was sent. Waits below 1 ms are not compared.\n\n",
    number(only('capacity', 'tps', 'client'));
  row('load', 'figure', 'as the client saw it', 'to be compared', 'pool', 'pool / client', 'target', 'verdict');
  row('---', '---', '--:', '--:', '--:', '--:', '---', '---');
  foreach my $name (grep { $_ ne 'capacity' } @{ $order{agreement} })
  {
    wait_rows($name);
    my $service = only($name, 'service_p50_us', 'client');
    agreement_row($name, 'hold p50', $service, $service, only($name, 'hold_p50_us', 'pool'), 1);
    if ($known{$name}) { known_row($name, $_) foreach qw(active thinking); }
    my $requests = only($name, 'wait_count', 'client');
    agreement_row($name, 'requests; waits counted', $requests, $requests, only($name, 'wait_count', 'pool'), 0);
    my $queued = only($name, 'queued_p99_us', 'client');
    agreement_row($name, 'late in the generator p99', $queued, $queued, undef, 0);
  }
  print "\n";
}

# ---- views

if ($order{views})
{
  print "Views: median of repeated reads, with the clients connected.\n\n";
  row('view', 'rows', 'execution, ms', 'with transfer to psql, ms', 'target', 'verdict');
  row('---', '--:', '--:', '--:', '---', '---');
  foreach my $name (@{ $order{views} })
  {
    my $execution = median(values %{ of('views', $name, 'execution_ms', '') });
    my $total = median(values %{ of('views', $name, 'total_ms', '') });
    row("sluice.$name", of('views', $name, 'rows', '')->{1}, number($execution), number($total), 'execution < 20 ms',
      verdict($execution, undef, 20));
  }
  print "\n";
}

printf "Targets: %d met, %d missed.\n", totals();
