# SPDX-License-Identifier: PostgreSQL
#
# The report and the plots about pool sizes, from measurements that are known: medians of rounds, greatest values,
# sizes found best, advice in terms of them, and targets that are met and missed.

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $report = dirname(__FILE__) . '/../bench/lab/sizing_report.pl';
my $files = PostgreSQL::Test::Utils::tempdir();
my $columns = 'part,load,clients,leg,kind,size,round,backends,succeeded,failed,throughput_per_s,mean_us,p50_us,p90_us,p95_us,p99_us,p999_us,p9999_us,max_us';

# A line: all latencies in terms of the median, so that each column has a value of its own.
sub figure
{
	my ($part, $load, $clients, $leg, $kind, $size, $round, $throughput, $p50_us) = @_;
	return join ',', $part, $load, $clients, $leg, $kind, $size, $round, $size, $throughput * 2, 0, $throughput,
		map { $p50_us * $_ } 1.5, 1, 2, 3, 4, 5, 6, 7 + $round;
}

sub mark
{
	my ($load, $kind, $size) = @_;
	return "mark,$load,,sluice,$kind,$size" . ',' x 13;
}

sub csv
{
	my ($name, @lines) = @_;
	PostgreSQL::Test::Utils::append_to_file("$files/$name", join '', map { "$_\n" } $columns, @lines);
	return "$files/$name";
}

sub run_report
{
	my (@arguments) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run([ $^X, $report, @arguments ], '>', \$output, '2>', \$errors);
	return ($? >> 8, $output, $errors);
}

# Cells of the first row whose first cells are those given, below a heading.
sub cells
{
	my ($text, $heading, @first) = @_;
	my ($section) = $text =~ /^### \Q$heading\E\n(.*?)(?=^###|^Targets|\z)/ms or return "no section $heading";
	my $start = join ' | ', @first;
	return $section =~ /^\| \Q$start\E \| (.*) \|$/m ? $1 : "no row $start";
}

# ---- what was measured

my @lines;
# The table: three rounds whose medians are those of the second.
foreach my $round (1 .. 3)
{
	push @lines, figure('table', 'select', 2, 'pgbouncer', 'fixed', 1, $round, (900, 1000, 1300)[ $round - 1 ], (150, 100, 80)[ $round - 1 ]);
	push @lines, figure('table', 'select', 2, 'sluice', 'fixed', 1, $round, 2000, 50);
	push @lines, figure('table', 'select', 2, 'sluice', 'increasing', 5, $round, 3000, 20 + $round);
}
# The sweep: PgBouncer is best at 8, the pool at 4; in the end 4 turns out to be worse than it looked.
my %throughput = (pgbouncer => { 1 => 100, 4 => 200, 8 => 400, 16 => 300 }, sluice => { 1 => 500, 4 => 1000, 8 => 900, 16 => 600 });
foreach my $load ('select', 'transaction')
{
	foreach my $leg (sort keys %throughput)
	{
		foreach my $size (16, 1, 8, 4)
		{
			push @lines, figure('sweep', $load, 50, $leg, 'fixed', $size, $_, $throughput{$leg}{$size} + 10 * $_, 1000 * $size) foreach 1 .. 3;
		}
	}
}
push @lines, mark('select', 'rule', 4), mark('select', 'knee', ''), mark('select', 'advised', 8);
push @lines, mark('transaction', 'rule', 4), mark('transaction', 'advised', 16);
push @lines, figure('final', 'select', 50, 'sluice', 'fixed', $_->[0], 1, $_->[1], 500) foreach [ 4, 800 ], [ 8, 880 ];
push @lines, figure('final', 'select', 50, 'pgbouncer', 'fixed', $_->[0], 1, $_->[1], 500) foreach [ 8, 400 ], [ 4, 100 ];
my $csv = csv('sizing.csv', @lines);
PostgreSQL::Test::Utils::append_to_file("$files/advice", "select: measured knee: 8 (advised)\n");

# ---- the report

{
	my ($status, $text, $errors) = run_report('--advice', "$files/advice", $csv);
	is($status, 0, 'the report is made') or diag($errors);
	is($errors, '', 'without a word about it');

	my $table = 'One-row select, 2 clients';
	is(cells($text, $table, 'PgBouncer', 1, 'fixed'), '1,000 | 150 | 100 | 200 | 300 | 400 | 500 | 600 | 1,200 | 1',
		'medians of the rounds, and the greatest of all');
	is(cells($text, $table, 'pg_sluice', 5, 'increasing'), '3,000 | 33.0 | 22.0 | 44.0 | 66.0 | 88.0 | 110 | 132 | 230 | 5', 'one row for each kind of pool');
	is(cells($text, $table, 'pg_sluice', 1, 'increasing'), 'no row pg_sluice | 1 | increasing', 'and none for what was not measured');
	like($text, qr/Rounds are within 30 % of the median throughput/, 'the spread is told');

	my $advice = 'Best, rule and advice';
	is(cells($text, $advice, 'select', 50, 'pg_sluice'), '4 | 800 | 2.00 | 4: 1.00 | 2.00 | 8: 1.10 | 2.00 | advised >= 0.95 | met',
		'the last measurement decides, not the sweep');
	is(cells($text, $advice, 'select', 50, 'PgBouncer'), '8 | 400 | 2.00 | 4: 0.25 | 2.00 | 8: 1.00 | 2.00 | - | -', 'a peer is shown at the same sizes');
	is(cells($text, $advice, 'TPC-B-like', 50, 'pg_sluice'),
		'4 | 1,020 | 16.0 | 4: 1.00 | 16.0 | 16: 0.61 | 64.0 | advised >= 0.95 | **MISSED**', 'without one the sweep does');
	like($text, qr/^- select: measured knee: 8 \(advised\)$/m, 'what the extension said is quoted');

	my $sweep = 'TPC-B-like, 50 clients, by pool size';
	is(cells($text, $sweep, ''), '1 | 4 | 8 | 16', 'sizes are in order');
	is(cells($text, $sweep, 'PgBouncer, per second'), '120 | 220 | 420 | 320', 'medians of the sweep');
	is(cells($text, $sweep, 'PgBouncer, of its best'), '0.29 | 0.52 | 1.00 | 0.76', 'in terms of the best one');
	is(cells($text, $sweep, 'pg_sluice, times PgBouncer'), '4.33 | 4.64 | 2.19 | 1.94', 'legs side by side at the same size');
	is(cells($text, $sweep, 'pg_sluice, p99, ms'), '4.00 | 16.0 | 32.0 | 64.0', 'and the latencies');
	like($text, qr/^Targets: 1 met, 1 missed\.$/m, 'targets are counted');
}

# ---- parts of it

{
	my ($status, $text) = run_report(csv('table.csv', grep { /^table/ } @lines));
	is($status, 0, 'the table alone is a report');
	unlike($text, qr/### Best/, 'without the rest');
	($status, $text) = run_report(csv('peer.csv', grep { /^sweep.*pgbouncer/ } @lines));
	is(cells($text, 'Best, rule and advice', 'select', 50, 'PgBouncer'), '8 | 420 | 32.0 | - | - | - | - | - | -', 'nobody has to advise anything');
	($status, $text) = run_report(csv('zero.csv', figure('sweep', 'select', 50, 'sluice', 'fixed', 1, 1, '0.0', 0)));
	is(cells($text, 'select, 50 clients, by pool size', 'pg_sluice, of its best'), 'n/a', 'nothing done in a moment is no error');
	($status) = run_report(csv('nothing.csv'));
	isnt($status, 0, 'nothing measured is an error');
	($status) = run_report('--plot', 'something', $csv);
	isnt($status, 0, 'so is a plot that there is not');
}

# ---- the plots

{
	my ($status, $commands, $errors) = run_report('--plot', 'throughput', $csv);
	is("$status$errors", '0', 'commands for the throughput');
	like($commands, qr/^1,0\.12,0\.11,0\.13\n4,0\.22,0\.21,0\.23\n8,0\.42,/m, 'medians and range of the rounds');
	like($commands, qr/^set arrow from first 16, graph 0 to first 16, graph 1 nohead/m, 'the advised size is a vertical line');
	like($commands, qr/select, 50 clients\\nrule 4 \(dashed\), advised 8 \(dotted\)/, 'and is named');
	(undef, $commands) = run_report('--plot', 'latency', $csv);
	like($commands, qr/^0\.3010,0\.022\n1\.0000,0\.044\n/m, 'each nine has its place');
}

SKIP:
{
	skip 'gnuplot is not installed', 3 unless grep { -x "$_/gnuplot" } split /:/, $ENV{PATH};
	foreach my $plot (qw(latency throughput p99))
	{
		my (undef, $commands) = run_report('--plot', $plot, $csv);
		my $setup = "set datafile separator ','\ncolor_sluice = '#2ca02c'\ncolor_pgbouncer = '#1f77b4'\nset output '$files/$plot.svg'\n";
		my $said = '';
		IPC::Run::run(['gnuplot'], '<', \"$setup$commands", '>&', \$said);
		my $drawn = -s "$files/$plot.svg" ? PostgreSQL::Test::Utils::slurp_file("$files/$plot.svg") : '';
		ok($drawn =~ m{</svg>\s*\z} && $said eq '', "gnuplot draws $plot without a complaint") or diag($said);
	}
}

done_testing();
