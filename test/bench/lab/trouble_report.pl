# SPDX-License-Identifier: PostgreSQL
#
# The report of trouble.sh, in Markdown, from its measurements; or what gnuplot is to draw of its timeline.
#
#   trouble_report.pl MEASUREMENTS.csv
#   trouble_report.pl --plot TIMELINE.csv
#
# Counts are sums over the rounds, times are medians.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/..";
use Measurements;

my $is_plot = @ARGV && $ARGV[0] eq '--plot' && shift @ARGV;
my ($file) = @ARGV or die "use: trouble_report.pl [--plot] FILE.csv\n";
my %label = (direct => 'direct', pgbouncer => 'PgBouncer', pgpool => 'pgpool-II', odyssey => 'Odyssey', sluice => 'pg_sluice');
my @rows = read_csv($file);
my (@legs, %seen);
foreach my $row (@rows) { push @legs, $row->{leg} unless $seen{ $row->{leg} }++; }
# The pool last, whichever came first in the first round.
@legs = sort { ($a eq 'sluice') <=> ($b eq 'sluice') || ($b eq 'direct') <=> ($a eq 'direct') || $a cmp $b } @legs;

# ---- the timeline

# The second run follows the first after a second of nothing, on the same line of time.
sub draw
{
	my @first = grep { $_->{round} == 1 } @rows;
	print "set termoption noenhanced\nset multiplot layout ", scalar(@legs), ",1\nset ylabel 'told in 100 ms'\nunset key\nset yrange [0:*]\n";
	my $number = 0;
	foreach my $leg (@legs)
	{
		my ($offset, $last, @told, @failed, @marks) = (0, 0);
		my $run = '';
		foreach my $row (grep { $_->{leg} eq $leg } @first)
		{
			if ($row->{run} ne $run)
			{
				$offset = $last + ($run eq '' ? 0 : 1);
				$run = $row->{run};
				push @told, [];
			}
			my $at = $offset + $row->{at_ms} / 1000;
			if ($row->{mark} ne '') { push @marks, [ $at, $row->{mark} ]; next; }
			push @told, [ $at, $row->{told_1} + $row->{told_2} ];
			push @failed, [ $at, $row->{failed} ] if $row->{failed} > 0;
			$last = $at;
		}
		$number++;
		print "\$told$number << END\n", (map { join(',', @$_) . "\n" } @told), "END\n";
		print "\$failed$number << END\n", "0,NaN\n", (map { "$_->[0],$_->[1]\n" } @failed), "END\n";
		print "unset arrow\nunset label\n";
		# Labels of incidents that follow each other closely are not on one line.
		my $height = 0.78;
		foreach my $mark (@marks)
		{
			$height = 1.71 - $height;
			print "set arrow from $mark->[0], graph 0 to $mark->[0], graph 1 nohead dashtype 2 linecolor '#555555'\n";
			print "set label '$mark->[1]' at $mark->[0], graph $height offset 0.3,0 font ',10'\n";
		}
		print "set title '", $label{$leg} // $leg, "' offset 0,-0.7\n";
		print "set xlabel 'seconds'\n" if $number == @legs;
		print "plot \$told$number using 1:2 with lines linewidth 1.5 linecolor rgb color_$leg title 'told', ",
			"\$failed$number using 1:2 with points pointtype 7 pointsize 0.5 linecolor rgb '#d62728' title 'failed'\n";
	}
	print "unset multiplot\n";
	return;
}

if ($is_plot) { draw(); exit 0; }

# ---- tables

my (%sum, %all, @incidents);
foreach my $row (@rows)
{
	my ($leg, $incident, $measure) = @$row{qw(leg incident measure)};
	if ($incident =~ /^run_/) { $sum{$leg}{$measure} += $row->{value}; next; }
	push @incidents, $incident unless $seen{"incident $incident"}++;
	push @{ $all{$leg}{$incident}{$measure} }, $row->{value};
}
my %order;
@order{qw(terminate crash clients fast immediate stall freeze)} = 1 .. 7;
@incidents = sort { ($order{$a} // 99) <=> ($order{$b} // 99) } @incidents;

# What must be none, and what it is called.
my @never = (
	[ lost => 'told committed, not there' ],
	[ twice => 'executed twice' ],
	[ wrong => 'answered with another number' ],
	[ unasked => 'answered more than was asked' ],
	[ odd => 'answered in a wrong way' ],
	[ unanswered => 'never answered, by a connection that stayed' ],
	[ refused_there => 'error told, but there' ],
	[ unsent_there => 'never committed, but there' ],
	[ strangers => 'uncommitted rows of clients that vanished' ]);

sub show_truth
{
	print "The server ran with synchronous_commit = on here. Each operation carries a number; what clients were told, held ",
		"against the table\n\n";
	row('what', map({ $label{$_} // $_ } @legs), 'target for pg_sluice', 'verdict');
	row('---', ('--:') x @legs, '--:', '---');
	row('told committed', map({ number($sum{$_}{told} // 0) } @legs), '-', '-');
	foreach my $one (@never)
	{
		my ($measure, $text) = @$one;
		row($text, map({ $sum{$_}{$measure} // 0 } @legs), $seen{sluice} ? '0' : '-',
			$seen{sluice} ? verdict($sum{sluice}{$measure} // 0, undef, 0) : '-');
	}
	row('an error was told', map({ $sum{$_}{refused} // 0 } @legs), '-', '-');
	row('connection lost before the message that commits', map({ $sum{$_}{unsent} // 0 } @legs), '-', '-');
	row('connection lost before its answer: unknown', map({ $sum{$_}{unknown} // 0 } @legs), '-', '-');
	row('... of these in the table', map({ $sum{$_}{unknown_there} // 0 } @legs), '-', '-');
	row('attempts to connect that failed', map({ $sum{$_}{connect} // 0 } @legs), '-', '-');
	return;
}

# The median, where NA is worse than any number; 'no' if it is the median.
sub typical
{
	my ($leg, $incident, $measure) = @_;
	my @values = @{ $all{$leg}{$incident}{$measure} // [] } or return undef;
	my @sorted = sort { $a <=> $b } map { $_ eq 'NA' ? 9e99 : $_ } @values;
	return $sorted[ int(@sorted / 2) ];
}
sub shown { my ($value, $unit) = @_; return !defined $value ? '-' : $value >= 9e99 ? 'no' : number($value) . ($unit // ''); }
sub total { my ($leg, $incident, $measure) = @_; my $sum = 0; $sum += $_ foreach @{ $all{$leg}{$incident}{$measure} // [] }; return $sum; }

sub errors_text
{
	my ($leg, $incident) = @_;
	my %count = map { /^error\.(.*)/ ? ($1 => total($leg, $incident, $_)) : () } keys %{ $all{$leg}{$incident} };
	return join(', ', map { my $name = $_; $name =~ tr/./ /; "$name $count{$_}" } sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)
		|| 'none';
}

# Operations and log-ins that were never answered.
sub hung
{
	my ($leg, $incident) = @_;
	my $count = 0;
	$count += total($leg, $incident, $_) foreach grep { /^error\.unanswered\b/ } keys %{ $all{$leg}{$incident} };
	return $count;
}

sub show_incidents
{
	print "\nIncidents: medians of the rounds; operations that failed and errors are sums\n\n";
	row('incident', 'leg', 'before, per s', 'share of it meanwhile', 'longest gap ms', 'first success ms', '90 % again ms', 'failed', 'never answered', 'errors');
	row('---', '---', ('--:') x 7, '---');
	foreach my $incident (@incidents)
	{
		foreach my $leg (grep { $all{$_}{$incident} } @legs)
		{
			my $share = typical($leg, $incident, 'during_share');
			my $others = typical($leg, $incident, 'others_share');
			my $text = !defined $share || $share >= 9e99 ? '-' : sprintf('%.2f', $share);
			$text .= sprintf(' (those not frozen: %.2f)', $others) if defined $others && $others < 9e99;
			row($incident, $label{$leg} // $leg, shown(typical($leg, $incident, 'before_per_s')), $text,
				map({ shown(typical($leg, $incident, $_)) } qw(gap_ms first_ms recovered_ms)),
				total($leg, $incident, 'failed'), hung($leg, $incident), errors_text($leg, $incident));
		}
	}
	return;
}

sub show_stalls
{
	my @stalled = grep { $all{$_}{stall} } @legs or return;
	print "\nAnswers of 100 MB that were read after the stall\n\n";
	row('leg', 'complete', 'cut');
	row('---', '--:', '--:');
	row($label{$_} // $_, total($_, 'stall', 'answers_complete'), total($_, 'stall', 'answers_cut')) foreach @stalled;
	return;
}

show_truth();
show_incidents();
show_stalls();
my ($met, $missed) = totals();
print "\nTargets: $met met, $missed missed.\n";
