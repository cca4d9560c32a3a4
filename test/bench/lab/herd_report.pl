# SPDX-License-Identifier: PostgreSQL
#
# The report of herd.sh, in Markdown, from its measurements; or what gnuplot is to draw of them.
#
#   herd_report.pl MEASUREMENTS.csv
#   herd_report.pl --plot connect|memory MEASUREMENTS.csv
#
# A value is the median over the rounds; what is in parentheses are the least and the greatest of them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/..";
use Measurements;

my $least_rate = 10_000;
my $wanted_clients = 100_000;
my $most_bytes = 400;

my $plot = @ARGV && $ARGV[0] eq '--plot' ? (splice @ARGV, 0, 2)[1] : '';
my ($file) = @ARGV or die "use: herd_report.pl [--plot connect|memory] MEASUREMENTS.csv\n";
my @rows = read_csv($file);

my %label = (direct => 'direct', pgbouncer => 'PgBouncer', odyssey => 'Odyssey', sluice => 'pg_sluice');
my (%value, %binds, @turns, %seen, @steps_seen);
foreach my $row (@rows)
{
	if ($row->{measure} eq 'binds') { $binds{ $row->{wanted} } = [ $row->{at}, $row->{value} ]; next; }
	my $turn = join ',', @$row{qw(wanted over leg clients)};
	push @turns, $turn if !$seen{$turn}++ && $row->{over} ne 'none';
	push @{ $value{$turn}{ $row->{measure} }{ $row->{at} } }, $row->{value};
}
# One after the other: number of clients, TCP before the Unix socket, direct first and the pool last.
my %place = (direct => 0, pgbouncer => 1, odyssey => 2, sluice => 3, tcp => 0, unix => 1);
@turns = sort {
	my ($x, $y) = ([ split /,/, $a ], [ split /,/, $b ]);
	$x->[0] <=> $y->[0] || $place{ $x->[1] } <=> $place{ $y->[1] } || $place{ $x->[2] } <=> $place{ $y->[2] }
} @turns;

sub parts { my ($turn) = @_; my ($wanted, $over, $leg, $clients) = split /,/, $turn; return ($wanted, $over, $leg, $clients); }

# All rounds of a measure that has one place; the places of one that has several.
sub rounds_of
{
	my ($turn, $measure, $at) = @_;
	my $places = $value{$turn}{$measure} or return;
	($at) = keys %$places unless defined $at;
	return @{ $places->{$at} // [] };
}
sub places { my ($turn, $measure) = @_; return sort { $a <=> $b } keys %{ $value{$turn}{$measure} // {} }; }
sub middle { return median(rounds_of(@_)); }

sub with_spread
{
	my @all = sort { $a <=> $b } rounds_of(@_);
	return 'n/a' unless @all;
	return number(median(@all)) . (@all > 1 ? ' (' . number($all[0]) . ' to ' . number($all[-1]) . ')' : '');
}

sub ms { my ($us) = @_; return defined $us ? number($us / 1000) : 'n/a'; }
sub title { my ($turn) = @_; my (undef, $over, $leg, $clients) = parts($turn); return ($label{$leg} // $leg, $over eq 'tcp' ? 'TCP' : 'Unix', $clients); }

# Set aside when the server starts: only the pool does that.
sub reserved
{
	my ($turn) = @_;
	my ($wanted, undef, $leg) = parts($turn);
	return 0 unless $leg eq 'sluice';
	foreach my $key (keys %value)
	{
		my ($w, $over, $l) = parts($key);
		return middle($key, 'reserved_bytes') // 0 if $w == $wanted && $over eq 'none' && $l eq 'sluice';
	}
	return 0;
}

# ---- plots

sub draw_connect
{
	print "set title 'Clients coming in, all of them stay'\nset xlabel 'clients connected'\nset ylabel 'connects per second'\n";
	print "set xrange [0:*]\nset yrange [0:*]\nset format '%.0f'\n";
	my @curves;
	# The greatest number of clients tells the most; the direct leg has a number of its own.
	my %most;
	foreach my $turn (@turns)
	{
		my (undef, $over, $leg, $clients) = parts($turn);
		$most{"$over,$leg"} = $turn unless $most{"$over,$leg"} && (parts($most{"$over,$leg"}))[3] > $clients;
	}
	foreach my $turn (grep { my (undef, $over, $leg) = parts($_); $most{"$over,$leg"} eq $_ } @turns)
	{
		my ($name, $over) = title($turn);
		my $data = '$data' . @curves;
		print "$data << END\n", (map { "$_," . middle($turn, 'connect_rate', $_) . "\n" } places($turn, 'connect_rate')), "END\n";
		my $leg = (parts($turn))[2];
		push @curves, "$data using 1:2 with linespoints linewidth 2 pointtype " . ($over eq 'TCP' ? 7 : 4)
			. " dashtype " . ($over eq 'TCP' ? 1 : 2) . " linecolor rgb color_$leg title '$name, $over'";
	}
	push @curves, "$least_rate with lines linecolor rgb '#d62728' dashtype 3 title 'target'";
	print 'plot ', join(', ', @curves), "\n";
	return;
}

sub draw_memory
{
	print "set title 'Memory of an idle client'\nset ylabel 'bytes for each client'\nset logscale y\nset format y '%.0f'\nset yrange [10:*]\n";
	print "set style data histograms\nset style histogram clustered gap 1\nset style fill solid 0.8 border -1\nset boxwidth 0.9\n";
	print "set xtics rotate by -20\n\$data << END\n";
	foreach my $turn (@turns)
	{
		my ($name, $over, $clients) = title($turn);
		my @bytes = ((middle($turn, 'user_bytes') // 0) + reserved($turn), middle($turn, 'kernel_bytes') // 0);
		# A logarithm has no room for nothing, nor for less.
		print join(',', "\"$name, $over, $clients\"", map { $_ < 1 ? 1 : $_ } @bytes), "\n";
	}
	print "END\nplot \$data using 2:xtic(1) title 'user space' linecolor rgb '#2ca02c', ",
		"\$data using 3 title 'kernel, both ends' linecolor rgb '#1f77b4', ",
		"$most_bytes with lines linecolor rgb '#d62728' title 'target, user space'\n";
	return;
}

if ($plot)
{
	print "set termoption noenhanced\n";
	if ($plot eq 'connect') { draw_connect(); }
	elsif ($plot eq 'memory') { draw_memory(); }
	else { die "there is no plot called $plot\n"; }
	exit 0;
}

# ---- tables

sub show_limits
{
	print "How many clients were possible\n\n";
	row('wanted', 'connected', 'what binds', 'target', 'verdict');
	row('--:', '--:', '---', '--:', '---');
	foreach my $wanted (sort { $a <=> $b } keys %binds)
	{
		my ($clients, $why) = @{ $binds{$wanted} };
		my $target = $wanted >= $wanted_clients ? $wanted_clients : undef;
		row(number($wanted), number($clients), $why, defined $target ? '>= ' . number($target) : '-', verdict($clients, $target));
	}
	return;
}

# Of all connections; measurements that know only of steps say so.
my $of_all = !grep { !defined middle($_, 'opened_p99_us') } @turns;

# Median, 99 % and the longest.
sub connect_times
{
	my ($turn) = @_;
	my @longest = sort { $a <=> $b } rounds_of($turn, 'opened_max_us');
	return (middle($turn, 'opened_p50_us'), middle($turn, 'opened_p99_us'), $longest[-1]) if $of_all;
	my @places = places($turn, 'connect_p99_us');
	my @p99 = sort { $a <=> $b } map { rounds_of($turn, 'connect_p99_us', $_) } @places;
	return (median(map { rounds_of($turn, 'connect_p50_us', $_) } @places), median(@p99), $p99[-1]);
}

sub show_connects
{
	print "\nComing in, from connect() to ReadyForQuery; processor time is of all processes on the server's side, and of the ",
		"pooler's own", $of_all ? '; the longest is that of all rounds' : '', "\n\n";
	row('leg', 'over', 'clients', 'connects/s', 'first step', 'last step',
		$of_all ? ('p50 ms', 'p99 ms', 'longest ms') : ('p50 ms, median of the steps', 'p99 ms, median of the steps', 'p99 ms of the worst step'), 'CPU us each', 'of it the pooler', 'target', 'verdict');
	row('---', '---', ('--:') x 9, '--:', '---');
	foreach my $turn (@turns)
	{
		my ($name, $over, $clients) = title($turn);
		my @places = places($turn, 'connect_rate');
		my $is_ours = (parts($turn))[2] eq 'sluice';
		row($name, $over, number($clients), with_spread($turn, 'opening_rate'),
			number(middle($turn, 'connect_rate', $places[0])), number(middle($turn, 'connect_rate', $places[-1])), (map { ms($_) } connect_times($turn)),
			number(middle($turn, 'connect_cpu_us')), number(middle($turn, 'connect_pooler_cpu_us')),
			$is_ours ? '>= ' . number($least_rate) : '-',
			$is_ours ? verdict(middle($turn, 'opening_rate'), $least_rate) : '-');
	}
	return;
}

# A row for each step, a column for each turn of the same number of clients.
sub show_steps
{
	foreach my $wanted (sort { $a <=> $b } keys %binds)
	{
		my @here = grep { (parts($_))[0] == $wanted && (parts($_))[2] ne 'direct' } @turns;
		next unless @here;
		print "\nConnects per second while the herd grows, $wanted wanted\n\n";
		row('clients', map { join ', ', (title($_))[ 0, 1 ] } @here);
		row('--:', ('--:') x @here);
		my %places = map { $_ => 1 } map { places($_, 'connect_rate') } @here;
		foreach my $at (sort { $a <=> $b } keys %places)
		{
			row(number($at), map { number(middle($_, 'connect_rate', $at)) } @here);
		}
	}
	return;
}

sub caches
{
	my ($turn) = @_;
	my %of = map { /^cache\.(.*)/ ? ($1 => middle($turn, $_)) : () } keys %{ $value{$turn} };
	my @names = sort { $of{$b} <=> $of{$a} || $a cmp $b } keys %of;
	splice @names, 4 if @names > 4;
	return join(', ', map { "$_ " . number($of{$_}) } @names) || '-';
}

sub show_memory
{
	print "\nMemory of an idle client in bytes, with the error that sampling has. The kernel's is of both ends of its connection; what ",
		"is available to the machine shrinks by all of it, the load's own included\n\n";
	row('leg', 'over', 'clients', 'user space: grown', 'set aside at start', 'sum', 'kernel', 'available', 'kernel, by kind', 'target', 'verdict');
	row('---', '---', ('--:') x 6, '---', '--:', '---');
	foreach my $turn (@turns)
	{
		my ($name, $over, $clients) = title($turn);
		my $is_ours = (parts($turn))[2] eq 'sluice';
		my %shown = map { my $error = middle($turn, "${_}_error"); $_ => number(middle($turn, "${_}_bytes")) . ($error ? ' +- ' . number($error) : '') }
			qw(user kernel);
		my $less = middle($turn, 'available_bytes');
		my $sum = (middle($turn, 'user_bytes') // 0) + reserved($turn);
		row($name, $over, number($clients), $shown{user}, $is_ours ? number(reserved($turn)) : '-', number($sum), $shown{kernel},
			defined $less ? number(-$less) . ' +- ' . number(middle($turn, 'available_error')) : 'n/a', caches($turn),
			$is_ours ? "<= $most_bytes" : '-', $is_ours ? verdict($sum, undef, $most_bytes) : '-');
	}
	return;
}

sub show_active
{
	print "\nOne in a hundred works, alone and beside all others, which are idle\n\n";
	row('leg', 'over', 'idle', 'active', 'alone tps', 'beside tps', 'ratio', 'alone p99 ms', 'beside p99 ms');
	row('---', '---', ('--:') x 7);
	foreach my $turn (@turns)
	{
		my ($name, $over, $clients) = title($turn);
		my ($active) = places($turn, 'beside_tps') or next;
		row($name, $over, number($clients - $active), $active, with_spread($turn, 'alone_tps'), with_spread($turn, 'beside_tps'),
			ratio_text(ratio(middle($turn, 'beside_tps'), middle($turn, 'alone_tps'))),
			ms(middle($turn, 'alone_p99_us')), ms(middle($turn, 'beside_p99_us')));
	}
	return;
}

show_limits();
show_connects();
show_steps();
show_memory();
show_active();
my ($met, $missed) = totals();
print "\nTargets: $met met, $missed missed.\n";
