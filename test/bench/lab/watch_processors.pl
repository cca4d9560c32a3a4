#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# Watches the processors while a load runs: a line "time,machine_us,processes_us" several times a second until it is
# killed.  "time" is the clock's, in seconds; the machine's is the time in which a processor did anything (not idling,
# not waiting for disks, not taken by a hypervisor); that of the processes named on the command line is of all their
# threads.  A process that has ended no longer counts, so the number can only be trusted where none does.
#
# Use: watch_processors.pl [PID...]
use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(sleep time);

$| = 1;
my @pids = @ARGV;
my $tick_us = 1_000_000 / POSIX::sysconf(&POSIX::_SC_CLK_TCK);
# To look at a thousand processes takes some milliseconds: then it is done less often.
my $pause = @pids > 200 ? 0.3 : 0.1;

sub machine_us
{
  open(my $stat, '<', '/proc/stat') or die "could not read /proc/stat: $!\n";
  my (undef, $user, $nice, $system, undef, undef, $irq, $softirq) = split ' ', scalar <$stat>;
  close($stat);
  return ($user + $nice + $system + $irq + $softirq) * $tick_us;
}

sub processes_us
{
  my $total = 0;
  foreach my $pid (@pids)
  {
    foreach my $file (glob "/proc/$pid/task/*/schedstat")
    {
      open(my $stat, '<', $file) or next;
      my $line = <$stat>;
      close($stat);
      $total += (split ' ', $line)[0] / 1000 if defined $line;
    }
  }
  return $total;
}

while (1)
{
  printf "%.6f,%.0f,%.0f\n", time, machine_us(), processes_us();
  sleep $pause;
}
