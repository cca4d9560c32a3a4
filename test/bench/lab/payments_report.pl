#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# The report of the payments scenario, in Markdown.
#
#   payments_report.pl DIRECTORY SECONDS EXTERNAL
#
# DIRECTORY has payments.csv, payments_errors.csv, payments_pool.csv, payments_users.csv, payments_memory.csv,
# payments_check.csv, and payments_views.txt if pg_sluice was among the legs.  SECONDS: how long users began new steps;
# memory is fitted between the first third of it, which is warm-up, and nearly its end.  EXTERNAL: milliseconds of an
# external call, for the text.
use strict;
use warnings;

use File::Basename qw(dirname);
use lib dirname(__FILE__) . '/..';
use Measurements;

my ($directory, $seconds, $external) = @ARGV;
die "usage: payments_report.pl DIRECTORY SECONDS EXTERNAL\n" unless defined $external;

sub rows_of
{
	my ($name) = @_;
	return -s "$directory/$name" ? read_csv("$directory/$name") : ();
}

my @steps = rows_of('payments.csv');
my @errors = rows_of('payments_errors.csv');
my @checks = rows_of('payments_check.csv');
my (@legs, %seen);
foreach my $row (@steps, @checks) { push @legs, $row->{leg} unless $seen{ $row->{leg} }++; }

sub of_leg { my ($leg, @rows) = @_; return grep { $_->{leg} eq $leg } @rows; }
sub milliseconds { my ($us) = @_; return sprintf('%.1f', $us / 1000); }
sub sum { my $sum = 0; $sum += $_ foreach @_; return $sum; }
sub is_step { return $_[0]{step} ne 'connect' && $_[0]{step} ne 'second connection'; }

# ---- steps

sub report_steps
{
	my ($leg) = @_;
	my @rows = of_leg($leg, @steps);
	my $finished = sum(map { $_->{count} - $_->{errors} } grep { is_step($_) } @rows);
	my $took = @rows ? $rows[0]{seconds} : 0;
	printf "### %s: %s steps, %s per second\n\n", $leg, number($finished), number($took ? $finished / $took : 0);
	row('step', 'count', 'average ms', 'median ms', '90 % ms', 'min ms', 'max ms', 'errors', 'kB/s',
		'database median ms', 'database 90 % ms', 'BEGIN 90 % ms', 'BEGIN max ms');
	row(map { $_ == 0 ? '---' : '---:' } 0 .. 12);
	foreach my $row (@rows)
	{
		my @times = map { milliseconds($row->{$_}) } qw(mean_us p50_us p90_us min_us max_us);
		my @database = is_step($row)
			? map({ milliseconds($row->{$_}) } qw(database_p50_us database_p90_us begin_p90_us begin_max_us)) : ('') x 4;
		@times = ('n/a') x 5 if $row->{count} == $row->{errors};
		@database = ('n/a') x 4 if is_step($row) && $row->{count} == $row->{errors};
		row($row->{step}, $row->{count}, @times, $row->{errors}, sprintf('%.1f', $row->{bytes_per_s} / 1024), @database);
	}
	print "\n";
	return;
}

sub report_errors
{
	print "### Exceptions\n\n";
	if (!@errors) { print "None.\n\n"; return; }
	row('leg', 'step', 'SQLSTATE', 'count', 'text of the first');
	row('---', '---', '---', '---:', '---');
	row(@$_{qw(leg step sqlstate count text)}) foreach @errors;
	print "\n";
	return;
}

# ---- pool

sub greatest { my ($greatest) = sort { $b <=> $a } grep { defined && $_ ne '' } @_; return $greatest; }

sub mean_and_most
{
	my ($column, @rows) = @_;
	my @values = grep { defined && $_ ne '' } map { $_->{$column} } @rows;
	return 'n/a' unless @values;
	return sprintf('%.1f / %d', sum(@values) / @values, greatest(@values));
}

sub report_pool
{
	my @rows = rows_of('payments_pool.csv');
	my @users = rows_of('payments_users.csv');
	print "### Connections to the server, and who waits for one (mean / most)\n\n";
	row('leg', 'total', 'active', 'in transaction', 'idle', 'starting', 'waiting: sluice.pools', 'waiting: application',
		'... for a second');
	row(map { $_ == 0 ? '---' : '---:' } 0 .. 8);
	foreach my $leg (@legs)
	{
		my @samples = grep { $_->{at_s} <= $seconds } of_leg($leg, @rows);
		my @seen = grep { $_->{at_s} <= $seconds } of_leg($leg, @users);
		foreach my $sample (@seen) { $sample->{all_waiting} = $sample->{waiting} + $sample->{waiting_for_second}; }
		row($leg, map({ mean_and_most($_, @samples) } qw(total active in_transaction idle starting waiting)),
			map { mean_and_most($_, @seen) } qw(all_waiting waiting_for_second));
	}
	print "\n";
	return;
}

# ---- memory

# Half the width of a 95 % interval, in standard errors: Student's t, by its expansion around the normal distribution.
sub student
{
	my ($freedom) = @_;
	return undef if $freedom < 1;
	my $z = 1.959964;
	return 12.706 if $freedom < 2;
	return $z + ($z**3 + $z) / (4 * $freedom) + (5 * $z**5 + 16 * $z**3 + 3 * $z) / (96 * $freedom**2)
		+ (3 * $z**7 + 19 * $z**5 + 17 * $z**3 - 15 * $z) / (384 * $freedom**3);
}

my $least_samples = 10;

# Slope and mean of a line through [x, y].
sub line
{
	my (@points) = @_;
	my ($mean_x, $mean_y) = (sum(map { $_->[0] } @points) / @points, sum(map { $_->[1] } @points) / @points);
	my $squares = sum(map { ($_->[0] - $mean_x)**2 } @points);
	my $slope = $squares == 0 ? 0 : sum(map { ($_->[0] - $mean_x) * ($_->[1] - $mean_y) } @points) / $squares;
	return ($slope, $mean_x, $mean_y, $squares);
}

# What of y is not explained by x.
sub residuals
{
	my (@points) = @_;
	my ($slope, $mean_x, $mean_y) = line(@points);
	return map { $_->[1] - $mean_y - $slope * ($_->[0] - $mean_x) } @points;
}

# Least squares through [minutes, bytes, processes]: slope in bytes per minute at the same number of processes, and half
# the width of its 95 % interval.  A backend more or less is no leak: what the number of processes explains is taken off
# both time and memory first.  Samples that follow each other are much alike: each counts for as much as the correlation
# of neighbouring residuals leaves of it, or a slow wave would pass for a certain slope.
sub fit
{
	my (@points) = @_;
	my $count = @points;
	return (undef, undef) if $count < $least_samples;
	my @times = residuals(map { [ $_->[2], $_->[0] ] } @points);
	my @bytes = residuals(map { [ $_->[2], $_->[1] ] } @points);
	my @pairs = map { [ $times[$_], $bytes[$_] ] } 0 .. $#points;
	my ($slope, undef, undef, $squares) = line(@pairs);
	return (undef, undef) if $squares < 1e-9;
	my @residuals = residuals(@pairs);
	my $rest = sum(map { $_**2 } @residuals);
	# All on one line, but for the rounding of this computation.
	return ($slope, 0) if $rest <= 1e-20 * sum(map { $_->[1]**2 } @points);
	my $alike = sum(map { $residuals[$_] * $residuals[ $_ - 1 ] } 1 .. $#residuals) / $rest;
	$alike = 0 if $alike < 0;
	my $independent = $count * (1 - $alike) / (1 + $alike);
	my $freedom = $independent - 3;
	return ($slope, undef) if $freedom < 1;
	return ($slope, student($freedom) * sqrt($rest / $freedom / $squares));
}

sub slope_text
{
	my ($slope, $interval) = @_;
	return 'n/a' unless defined $slope;
	$slope = 0 if abs($slope) < 0.5;
	return sprintf('%+.0f, too few samples for an interval', $slope) unless defined $interval;
	return sprintf('%+.0f ± %.0f', $slope, $interval);
}

sub slope_verdict
{
	my ($slope, $interval) = @_;
	return 'n/a' unless defined $slope && defined $interval;
	return 'grows' if $slope - $interval > 0;
	return 'shrinks' if $slope + $interval < 0;
	return 'no slope seen';
}

sub report_memory
{
	my @rows = rows_of('payments_memory.csv');
	print "### Memory of processes (RssAnon), after the first third\n\n";
	row('leg', 'processes of', 'count', 'at first MB', 'at last MB', 'PSS MB', 'bytes per minute',
		'bytes per minute and process', 'verdict');
	row('---', '---', ('---:') x 6, '---');
	my @groups = ('server', 'dispatcher', 'pooler');
	foreach my $leg (@legs)
	{
		foreach my $group (@groups)
		{
			my @samples = grep { $_->{group} eq $group && $_->{at_s} >= $seconds / 3 && $_->{at_s} <= $seconds * 0.97 }
				of_leg($leg, @rows);
			next unless @samples;
			my @fit = fit(map { [ $_->{at_s} / 60, $_->{rss_anon_bytes}, $_->{processes} ] } @samples);
			my $each = defined $fit[0] ? sprintf('%+.0f', $fit[0] / $samples[-1]{processes}) : 'n/a';
			my @pss = grep { $_->{pss_bytes} ne '' } @samples;
			row($leg, $group, $samples[-1]{processes}, map({ defined $_ ? sprintf('%.1f', $_ / 1048576) : 'n/a' }
					$samples[0]{rss_anon_bytes}, $samples[-1]{rss_anon_bytes}, @pss ? $pss[-1]{pss_bytes} : undef),
				slope_text(@fit), $each, slope_verdict(@fit));
		}
	}
	print "\nSlope: least squares at the same number of processes, with its 95 % interval, in which samples that are ",
		"alike count less.\n\n";
	return;
}

# ---- the rest

sub report_checks
{
	print "### What clients were told, and what is in the database\n\n";
	foreach my $check (@checks) { print "- $check->{leg}: **$check->{verdict}**: $check->{text}\n"; }
	print "\n";
	return;
}

sub report_views
{
	return unless -s "$directory/payments_views.txt";
	open(my $views, '<', "$directory/payments_views.txt") or die "could not open payments_views.txt: $!\n";
	print "### What pg_sluice says about itself\n\n", map({ "- $_" } <$views>), "\n";
	close($views);
	return;
}

sub report_targets
{
	print "### Targets\n\n";
	row('target', 'measured', 'verdict');
	row('---', '---:', '---');
	foreach my $leg (grep { /^sluice(?:_run\d+)?$/ } @legs)
	{
		my $name = $leg =~ /_run(\d+)$/ ? "pg_sluice, run $1" : 'pg_sluice';
		my $failed = sum(map { $_->{count} } of_leg($leg, @errors));
		row("$name, defaults: no errors, the step with two connections included", $failed, verdict($failed, undef, 0));
		my $differs = grep { $_->{verdict} ne 'agrees' } of_leg($leg, @checks);
		row("$name: nothing lost, nothing done twice (books that differ)", $differs, verdict($differs, undef, 0));
	}
	my ($met, $missed) = totals();
	print "\nTargets: $met met, $missed missed.\n";
	return;
}

print "Each step holds its transaction open during an external call of $external ms; \"database\" is the step without ",
	"it, \"BEGIN\" the wait until a connection to the server was there. Times are those of steps that succeeded. ",
	(grep { /_run\d+$/ } @legs) ? 'Each run of a leg is shown by itself: what differs between runs of the same leg is noise.'
	: 'Each leg had one run: there is no spread, and small differences between legs mean nothing.', "\n\n";
report_steps($_) foreach @legs;
report_errors();
report_pool();
report_memory();
report_checks();
report_views();
report_targets();
