#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# What one spike was: from the records of its clients and of the connections behind them, the state at any moment.
#
# Use: spike_run.pl --system NAME --run N --requests FILE --connections FILE [--end-ms 1000] [--step-us 250]
#        [--from-ms -10] [--until-ms 300] [--note TEXT] [--samples FILE]
#
# FILES: requests as spike_clients.cpp and SpikeDemand.java write them, connections as spike_proxy.cpp does.  Prints one
# line of spike.csv; --samples adds a line for each step to a file, system,run,at_ms,queued,active,idle,starting,total.
#
# Time 0 is when the first client sent (or asked its pool for a connection).  A client is queued from its own sending
# until its query begins in the server, active until it ends there.  A connection is starting from when it was asked
# for until it can take queries, and is one of "total" from then on; total less active is idle.  Nothing is sampled
# while the spike lasts: these are all the moments at which anything changes, so that the samples are exact, at
# whatever step.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/..";
use Getopt::Long;
use Measurements;

my %option = ('end-ms' => 1000, 'step-us' => 250, 'from-ms' => -10, 'until-ms' => 300, 'note' => '');
GetOptions(\%option, qw(system=s run=i requests=s connections=s end-ms=f step-us=f from-ms=f until-ms=f note=s),
  'samples=s') or exit 1;
$option{$_} // die "--$_ is missing\n" foreach qw(system run requests connections);

my @requests = read_csv($option{requests});
die "no requests in \"$option{requests}\"\n" unless @requests;
my ($zero_us) = sort { $a <=> $b } map { $_->{sent_us} } @requests;

sub at_ms { my ($us) = @_; return ($us - $zero_us) / 1e3; }

# ---- what changes when: [at_ms, gauge, by how much]

my @changes;
sub change { my ($at, $gauge, $by) = @_; push @changes, [ $at, $gauge, $by ]; return; }

my (@answered_ms, @service_ms);
my ($failed, %backends) = (0);
foreach my $request (@requests)
{
  my ($sent, $answered) = map { at_ms($request->{$_}) } qw(sent_us answered_us);
  my ($began, $ended) = map { $request->{$_} eq '' ? undef : at_ms($request->{$_} * 1e6) } qw(began ended);
  change($sent, 'queued', 1);
  change($began // $answered, 'queued', -1);
  if (defined $began && defined $ended)
  {
    change($began, 'active', 1);
    change($ended, 'active', -1);
    push @service_ms, $ended - $began;
  }
  $backends{ $request->{backend} } = 1 if $request->{backend} ne '';
  if ($request->{error} ne '') { $failed++; }
  else { push @answered_ms, $answered; }
}

# What happens until then belongs to the spike.
my ($end_ms) = sort { $b <=> $a } $option{'end-ms'}, @answered_ms;
my (%connection, $before, $opened);
foreach my $line (read_csv($option{connections}))
{
  $connection{ $line->{connection} }{ $line->{event} } = at_ms($line->{at_us});
}
foreach my $times (values %connection)
{
  my ($asked, $ready, $closed) = @$times{qw(opened ready closed)};
  $asked //= $ready;
  $before++ if $asked <= 0 && !(defined $closed && $closed <= 0);
  $opened++ if $asked > 0 && $asked <= $end_ms;
  change($asked, 'starting', 1);
  change($ready // $closed // $end_ms, 'starting', -1);
  next unless defined $ready;
  change($ready, 'total', 1);
  change($closed, 'total', -1) if defined $closed;
}
@changes = sort { $a->[0] <=> $b->[0] || $a->[2] <=> $b->[2] } @changes;

# ---- what that means

my %now = (queued => 0, active => 0, starting => 0, total => 0);
my %peak = %now;
my $next = 0;

# The changes until then.
sub advance
{
  my ($until) = @_;
  while ($next < @changes && $changes[$next][0] <= $until)
  {
    my (undef, $gauge, $by) = @{ $changes[ $next++ ] };
    $now{$gauge} += $by;
    $peak{$gauge} = $now{$gauge} if $now{$gauge} > $peak{$gauge};
  }
  return;
}

my $samples;
if (defined $option{samples}) { open($samples, '>>', $option{samples}) or die "could not open $option{samples}: $!\n"; }
for (my $i = 0; $samples; $i++)
{
  my $at = $option{'from-ms'} + $i * $option{'step-us'} / 1e3;
  last if $at > $option{'until-ms'};
  advance($at);
  my $idle = $now{total} - $now{active};
  printf $samples "%s,%d,%.3f,%d,%d,%d,%d,%d\n", @option{qw(system run)}, $at, @now{qw(queued active)},
    $idle > 0 ? $idle : 0, @now{qw(starting total)};
}
close($samples) if $samples;
advance($end_ms);

@answered_ms = sort { $a <=> $b } @answered_ms;
my ($longest) = sort { $b <=> $a } @service_ms;
my @times = map { defined $_ ? sprintf('%.2f', $_) : '' }
  $answered_ms[0], scalar median(@answered_ms), $answered_ms[-1], $longest;
$option{note} =~ tr/,\n/; /;
print join(',',
  @option{qw(system run)}, scalar @requests, scalar @answered_ms, $failed, @times[ 0 .. 2 ],
  $before // 0, $opened // 0, $now{total} + $now{starting}, @peak{qw(queued active)}, scalar keys %backends,
  $times[3], $option{note}), "\n";
