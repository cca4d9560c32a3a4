#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Watches the pools of a server: reads the view sluice.monitor through one psql that stays connected, draws a bar and
# counters for each pool, and can write the samples down.  On a terminal the picture is refreshed in place; elsewhere
# there is a line for each pool and refresh.
#
#   monitor.pl [options]        connect as psql does: options, then environment, then defaults.  Use the server's own
#                               port: a monitor on the pooled port takes a backend of the pool it looks at
#   --host H --port P --dbname D --user U     a database in which the extension has been created
#   --interval S                seconds between two refreshes (1)
#   --seconds S                 for how long (60); 0: until it is interrupted
#   --csv FILE                  at_s,pool,in_use,max_size,utilisation_percent,waiting,tps,p99_ms,state
#   --psql PATH                 another psql than the one in the search path
use strict;
use warnings;

use FileHandle;
use Getopt::Long;
use IPC::Open2;
use Time::HiRes qw(clock_gettime sleep CLOCK_MONOTONIC);

my %option = (interval => 1, seconds => 60, psql => 'psql');
my $usage = "usage: monitor.pl [--host H] [--port P] [--dbname D] [--user U] [--interval S] [--seconds S] [--csv FILE]"
  . " [--psql PATH]\n";
GetOptions(\%option, 'host=s', 'port=s', 'dbname=s', 'user=s', 'interval=f', 'seconds=f', 'csv=s', 'psql=s', 'help')
  && !@ARGV
  or die $usage;
if ($option{help}) { print $usage; exit 0; }
die "the interval must be at least 0.01 s\n" if $option{interval} < 0.01;
die "the seconds must not be negative\n" if $option{seconds} < 0;

# Neither occurs in a name.
my ($separator, $end) = ("\x1f", "\x1e");
my $query = "SELECT pool, bar, use, waiting, tps, p99_ms, state FROM sluice.monitor;\n\\echo '$end'\n";

my $stop = 0;
$SIG{INT} = $SIG{TERM} = sub { $stop = 1; };
$SIG{PIPE} = 'IGNORE';

# ---- the server

my ($from, $to, $psql);

sub connect_to_server
{
  my @command = ($option{psql}, '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-F', $separator);
  foreach my $name (qw(host port dbname user)) { push @command, "--$name=$option{$name}" if defined $option{$name}; }
  $psql = eval { open2($from, $to, @command) } or die "could not run $option{psql}: $!\n";
  $to->autoflush(1);
  return;
}

# One refresh: a list of hashes; ends the program if the server does not answer, and says nothing if asked to stop.
sub sample
{
  my @pools;
  print $to $query;
  while (defined(my $line = <$from>))
  {
    chomp $line;
    return @pools if $line eq $end;
    my @fields = split /$separator/, $line, -1;
    die "not a line of sluice.monitor: $line\n" if @fields != 7;
    my %pool;
    @pool{qw(pool bar use waiting tps p99_ms state)} = @fields;
    @pool{qw(in_use max_size)} = $pool{use} =~ m{^(\d+)/(\d+)$} or die "not a line of sluice.monitor: $line\n";
    $pool{utilisation} = $pool{max_size} ? 100 * $pool{in_use} / $pool{max_size} : 0;
    push @pools, \%pool;
  }
  return () if $stop;
  # psql has said why.
  die "the server could not be asked\n";
}

# ---- drawing

my $terminal = -t STDOUT;
my $drawn = 0;

# The bar of the view has ten places: three columns each.
sub wide_bar
{
  my ($bar) = @_;
  $bar =~ s/([^\[\]])/$1$1$1/g;
  return $bar;
}

sub line_of
{
  my ($pool) = @_;
  return sprintf('%-18s %s %3.0f %% %7s  waiting %5d  %6s tps  p99 %7s ms  %s', $pool->{pool}, wide_bar($pool->{bar}),
    $pool->{utilisation}, $pool->{use}, $pool->{waiting}, map({ $_ eq '' ? '-' : $_ } @$pool{qw(tps p99_ms)}),
    $pool->{state});
}

sub draw
{
  my ($at_s, @pools) = @_;
  my @lines = map { line_of($_) } @pools;
  @lines = ('no pool is open') unless @lines;
  if (!$terminal)
  {
    printf "%7.1f s  %s\n", $at_s, $_ foreach @lines;
    return;
  }
  unshift @lines, sprintf('%7.1f s   # executes, = client\'s turn, . free', $at_s);
  # Up to the first line; each is cleared, and what is left of a longer picture as well.
  print "\e[${drawn}A" if $drawn;
  print map({ "\r\e[K$_\n" } @lines), "\e[J";
  $drawn = @lines;
  return;
}

# ---- the run

STDOUT->autoflush(1);
connect_to_server();
my $csv;
if (defined $option{csv})
{
  open($csv, '>', $option{csv}) or die "could not create $option{csv}: $!\n";
  print $csv "at_s,pool,in_use,max_size,utilisation_percent,waiting,tps,p99_ms,state\n";
}
my $origin = clock_gettime(CLOCK_MONOTONIC);
my $due = 0;
while (!$stop)
{
  my $at_s = clock_gettime(CLOCK_MONOTONIC) - $origin;
  last if $option{seconds} > 0 && $at_s >= $option{seconds};
  my @pools = sample();
  last if $stop;
  draw($at_s, @pools);
  foreach my $pool ($csv ? @pools : ())
  {
    (my $name = $pool->{pool}) =~ tr/,"/;'/;
    printf $csv "%.3f,%s,%d,%d,%.1f,%d,%s,%s,%s\n", $at_s, $name, @$pool{qw(in_use max_size utilisation waiting tps p99_ms state)};
  }
  # Instants are fixed beforehand, so that refreshes do not drift; what has been missed is left out.
  my $now = clock_gettime(CLOCK_MONOTONIC) - $origin;
  $due += $option{interval} while $due <= $now;
  my $until = $option{seconds} > 0 && $due > $option{seconds} ? $option{seconds} : $due;
  sleep($until - $now) if $until > $now && !$stop;
}
close($to);
waitpid $psql, 0;
if ($csv) { close($csv) or die "could not write $option{csv}: $!\n"; }
