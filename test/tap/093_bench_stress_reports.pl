# SPDX-License-Identifier: PostgreSQL
#
# The reports of the load lab's stress, load and monitor scenarios say what their measurements say: medians, ranges,
# targets met and missed, what is missing; and they refuse files that are not what they should be.  The monitor draws
# and writes down what the view tells it.  No server is needed.

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $directory = dirname(__FILE__) . '/../bench/lab';
my $files = PostgreSQL::Test::Utils::tempdir();

sub written
{
	my ($name, @lines) = @_;
	open(my $file, '>', "$files/$name") or die "could not create $name: $!";
	print $file "$_\n" foreach @lines;
	close($file);
	return "$files/$name";
}

# (exit status, output, errors)
sub run_program
{
	my ($program, @arguments) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run([ $^X, "$directory/$program", @arguments ], '>', \$output, '2>', \$errors, IPC::Run::timeout(60));
	return ($? >> 8, $output, $errors);
}

sub report
{
	my ($program, @arguments) = @_;
	my ($status, $output, $errors) = run_program($program, @arguments);
	is($status, 0, "$program succeeds") or diag($errors);
	is($errors, '', "$program has nothing to complain about");
	return $output;
}

sub refused
{
	my ($reason, $name, $program, @arguments) = @_;
	my ($status, undef, $errors) = run_program($program, @arguments);
	isnt($status, 0, "$name is refused");
	like($errors, $reason, "... and it says why");
	return;
}

# The cells of the first row of a table that begins with this text, after a line that matches.
sub cells
{
	my ($output, $first, $after) = @_;
	$output =~ s/.*$after//s if defined $after;
	# The first table only.
	$output =~ s/(\|\n)\n.*/$1/s;
	my ($row) = $output =~ /^\| \Q$first\E \| (.*) \|$/m;
	return defined $row ? split(/ \| /, $row, -1) : ();
}

# ---- stress

my @columns = qw(load clients round operations succeeded seconds throughput_per_s max_size backends idle acquire_p50_us
  acquire_p95_us acquire_p99_us acquire_max_us admission_p99_us late_p99_us pool_p50_us pool_p95_us pool_p99_us hold_mean_us
  utilisation_percent peak_waiting long_share stalled_ms longest_stall_ms);

sub measurement
{
	my (%values) = @_;
	my %row = (
		load => 'paced', clients => 500, round => 1, operations => 10000, succeeded => 10000, seconds => 5,
		throughput_per_s => 2050, max_size => 5, backends => 5, idle => 5, acquire_p50_us => 300, acquire_p95_us => 4000,
		acquire_p99_us => 9000, acquire_max_us => 15000, admission_p99_us => 8900, late_p99_us => 100, pool_p50_us => 200,
		pool_p95_us => 3900, pool_p99_us => 8800, hold_mean_us => 1980, utilisation_percent => 82, peak_waiting => 31,
		long_share => '', stalled_ms => '', longest_stall_ms => '', %values);
	return join ',', map { $row{$_} } @columns;
}
my $head = join ',', @columns;

{
	my $csv = written(
		'met.csv', $head,
		measurement(acquire_p99_us => 30000, stalled_ms => 0, longest_stall_ms => 0),
		measurement(round => 2, acquire_p99_us => 8000, stalled_ms => 8, longest_stall_ms => 16),
		measurement(round => 3, acquire_p99_us => 12000, peak_waiting => 40, stalled_ms => 12, longest_stall_ms => 20.5));
	my $output = report('stress_report.pl', '--medians', "$files/medians.csv", $csv);
	my @cells = cells($output, 500, 'Paced');
	is_deeply(
		\@cells,
		[
			'10,000', '5.00', '100 met', '2,050 (2,050 to 2,050) aimed at', '5, 5', '0.30 (0.30 to 0.30) met', '4.00 (4.00 to 4.00) met',
			'12.0 (8.00 to 30.0) met', '82.0 (82.0 to 82.0) aimed at', '0.20 / 3.90 / 8.80', 'n/a', '1.98', '40', '0', '20.0 (20.5)'
		],
		'targets are judged by the median of the rounds, the range is shown, and stalls are those of all rounds');
	like($output, qr/^Targets: 4 met, 0 missed\.$/m, 'all are counted but those that the load aims at');
	like($output, qr/The machine stalled: how long/, 'stalls of the machine are shown and explained');
	my @rows = grep { /^\|/ } split /\n/, $output;
	my %widths = map { my $bars = () = /\|/g; $bars => 1 } @rows;
	is(scalar keys %widths, 1, 'the lines of the table are of the same width');
	unlike($output, qr/MISSED|Unpaced/, 'nothing is missed, and no table made up');
	is(PostgreSQL::Test::Utils::slurp_file("$files/medians.csv"),
		"load,clients,acquire_p50_ms,acquire_p95_ms,acquire_p99_ms,throughput_per_s,utilisation_percent\npaced,500,0.3,4,12,2050,82\n",
		'medians for the plot');
}
{
	my $csv = written(
		'missed.csv', $head,
		measurement(
			succeeded => 9980, throughput_per_s => 1999, acquire_p50_us => 2100, acquire_p95_us => 10001, acquire_p99_us => 20001,
			utilisation_percent => 85.1),
		measurement(clients => 1000, utilisation_percent => 79.9),
		measurement(load => 'unpaced', clients => 1000, throughput_per_s => 41234, acquire_p50_us => 24000));
	my $output = report('stress_report.pl', $csv);
	my @cells = cells($output, 500, 'Paced');
	is($cells[2], '99.800 **MISSED**', 'too many failures');
	is($cells[3], '1,999 **MISSED**', 'too little throughput');
	is($cells[13], '20', 'those that failed are told, for they are in no percentile');
	is_deeply([ @cells[ 5 .. 7 ] ], [ '2.10 **MISSED**', '10.0 **MISSED**', '20.0 **MISSED**' ], 'acquired too slowly');
	is($cells[8], '85.1 **MISSED**', 'utilisation above the target');
	@cells = cells($output, 1000, 'Paced');
	is($cells[8], '79.9 **MISSED**', 'utilisation below the target');
	@cells = cells($output, 1000, 'Unpaced');
	is($cells[3], '41,234', 'the unpaced load has no targets');
	is($cells[5], '24.0', '... nor for acquiring');
	like($output, qr/^Targets: 4 met, 7 missed\.$/m, 'met and missed are counted');
}
{
	# One backend, always the same operation, random arrivals, half of the time in use: on average 1 ms / (2 * (1 - 0.5)) * 0.5
	# = 0.5 ms; half of them wait for nothing.
	my %half = (max_size => 1, utilisation_percent => 50, hold_mean_us => 1000, long_share => 0);
	my ($p50, $p95, $p99) = split / \/ /, (cells(report('stress_report.pl', written('ideal.csv', $head, measurement(%half))), 500))[10];
	cmp_ok($p50, '<', 0.1, 'an ideal queue: half of all find the only backend free');
	cmp_ok($p95, '>', 1.5, '... few wait for more than one other');
	cmp_ok($p95, '<', 2.5, '... nor for more than two');
	cmp_ok($p99, '<', 5, '... and none for long');
	($p50, $p95, $p99) = split / \/ /,
		(cells(report('stress_report.pl', '--arrivals', 'constant', written('ideal.csv', $head, measurement(%half))), 500))[10];
	is_deeply([ $p50, $p95, $p99 ], [ '0.00', '0.00', '0.00' ], '... and nobody waits if they come in equal distances');
	is((cells(report('stress_report.pl', written('ideal.csv', $head, measurement(%half, utilisation_percent => 99))), 500))[10], 'n/a',
		'... and an overload has no ideal');
}
{
	# One failure among 30,000 operations, in one of three rounds: a median would have hidden it.
	my $csv = written('failure.csv', $head, measurement(), measurement(round => 2, succeeded => 9999), measurement(round => 3));
	my @cells = cells(report('stress_report.pl', $csv), 500, 'Paced');
	is($cells[2], '99.997 met', 'failures of all rounds are counted');
}
{
	my $csv = written('missing.csv', $head,
		measurement(map { $_ => '' } qw(acquire_p99_us pool_p50_us utilisation_percent succeeded peak_waiting idle)));
	my $output = report('stress_report.pl', $csv);
	my @cells = cells($output, 500, 'Paced');
	is($cells[2], 'n/a not measured', 'success that was not counted is not success');
	is($cells[7], 'n/a not measured', 'what was not measured is neither met nor missed');
	is($cells[8], 'n/a not measured', '... the same for utilisation');
	is($cells[9], 'n/a / 3.90 / 8.80', '... and without a target');
	is($cells[4], '5, n/a', '... and for counts');
	like($output, qr/^Targets: 2 met, 0 missed\.$/m, '... and is not counted');
}
refused(qr/has no column "clients"/, 'a file without a column', 'stress_report.pl', written('bad.csv', 'load,round', 'paced,1'));
refused(qr/line 2: "fast" in column "seconds" is not a number/, 'a word instead of a number', 'stress_report.pl',
	written('bad.csv', $head, measurement(seconds => 'fast')));
refused(qr/line 3: 1 fields instead of 25/, 'a line that breaks off', 'stress_report.pl', written('bad.csv', $head, measurement(), 'paced'));
refused(qr/has no measurements/, 'a file without lines', 'stress_report.pl', written('bad.csv', $head));
refused(qr/is empty/, 'an empty file', 'stress_report.pl', written('bad.csv'));
refused(qr/could not open/, 'a missing file', 'stress_report.pl', "$files/nowhere.csv");
refused(qr/usage:/, 'no file at all', 'stress_report.pl');

# ---- load report

{
	my @lines;
	foreach my $round (1 .. 3)
	{
		my %figures = (
			requests => 5000, succeeded => 5000, seconds => 2.5, throughput_per_s => 2000 + 10 * $round, peak_concurrency => 30 + $round,
			max_size => 5, peak_waiting => 25, peak_backends => 5, utilisation_percent => 82, acquire_min_us => 10 * $round,
			acquire_mean_us => 700, acquire_p50_us => 100 * $round, acquire_p95_us => 4000, acquire_p99_us => 8000 * $round, acquire_max_us => 90000 * $round,
			execute_p50_us => 1200, connect_p50_us => '', pool_wait_p50_us => 90, pool_active_p99_us => 1500);
		push @lines, map { "sustained,$round,$_,$figures{$_}" } sort keys %figures;
	}
	push @lines, 'churn,1,requests,1000', 'churn,1,succeeded,999', 'churn,1,connect_p50_us,450', 'novel,1,requests,1';
	my $csv = written('report.csv', 'phase,round,figure,value', @lines);
	my $distribution = written(
		'distribution.csv', 'phase,round,measure,low_us,high_us,count',
		'sustained,1,wait,0,10,60', 'sustained,1,wait,11,20,30', 'sustained,2,wait,0,10,30', 'sustained,2,wait,500,1000,30',
		'sustained,1,service,1,2,5');
	my $output = report('load_report.pl', '--curves', "$files/curves.csv", $csv, $distribution);
	is_deeply([ cells($output, 'sustained: paced to 82.5 % of the pool') ],
		[ '5,000', '100', '2.50', '2,020 (2,010 to 2,030)', '33', '25', '5', '82.0', 'n/a' ], 'what a phase did');
	is_deeply([ cells($output, 'sustained: paced to 82.5 % of the pool', 'Acquisition') ],
		[ '0.01', '270', '0.70', '0.20', '4.00', '16.0', '0' ],
		'how long acquisition took: medians of the rounds, but the least and the greatest of all');
	is_deeply([ cells($output, 'sustained: paced to 82.5 % of the pool', 'Execution') ],
		[ 'n/a', 'n/a', 'n/a', '1.20', 'n/a', 'n/a', '0' ], 'what is missing is said to be missing');
	is((cells($output, 'churn: connect, one row, leave'))[1], '99.900', 'failures are seen');
	is((cells($output, 'churn: connect, one row, leave', 'Connecting'))[3], '0.45', 'connecting, where connections were opened');
	is((cells($output, 'churn: connect, one row, leave', 'Acquisition'))[6], '1', 'how many have no times');
	is((cells($output, 'novel', 'Acquisition'))[6], 'n/a', '... if that is known');
	is_deeply([ $output =~ /^\| (?:success|throughput|acquisition)\b[^|]*\| (.*) \|$/mg ],
		[ '100 | met', '2,020 | aimed at', '0.20 | met', '4.00 | met', '16.0 | met' ], 'the sustained phase has targets');
	like($output, qr/^Targets: 4 met, 0 missed\.$/m, '... that are counted');
	my $missed = report('load_report.pl', written('missed_report.csv', 'phase,round,figure,value', 'sustained,1,requests,1000', 'sustained,1,succeeded,998',
		'sustained,1,throughput_per_s,1999', 'sustained,1,acquire_p50_us,2001', 'sustained,1,acquire_p95_us,10001'));
	is_deeply([ $missed =~ /^\| (?:success|throughput|acquisition)\b[^|]*\| (.*) \|$/mg ],
		[ '99.800 | **MISSED**', '1,999 | **MISSED**', '2.00 | **MISSED**', '10.0 | **MISSED**', 'n/a | not measured' ], '... and missed');
	like($missed, qr/^Targets: 0 met, 4 missed\.$/m, '... which is counted, too');
	unlike(report('load_report.pl', written('other_report.csv', 'phase,round,figure,value', 'churn,1,requests,5')), qr/Targets/, 'no other phase has them');
	is_deeply([ cells($output, 'sustained: paced to 82.5 % of the pool', 'Connecting') ], [], '... and only there');
	is_deeply([ cells($output, 'sustained: paced to 82.5 % of the pool', 'What the pool itself') ],
		[ '0.09', 'n/a', 'n/a', 'n/a', 'n/a', '1.50' ], "the pool's own figures");
	is((cells($output, 'novel'))[0], '1', 'a phase without a description is not lost');
	is(PostgreSQL::Test::Utils::slurp_file("$files/curves.csv"), <<'END', 'the distribution of all rounds: so many do not take longer');
phase,measure,one_in,ms
sustained,wait,1.0000,0.0100
sustained,wait,2.5000,0.0200
sustained,wait,5.0000,1.0000
sustained,service,1.0000,0.0020
END
	refused(qr/"x" in column "count" is not a number/, 'a bad distribution', 'load_report.pl', '--curves', "$files/curves.csv", $csv,
		written('bad.csv', 'phase,round,measure,low_us,high_us,count', 'a,1,wait,1,2,x'));
	refused(qr/has no column "figure"/, 'another file', 'load_report.pl', $distribution);
}

# ---- monitor

{
	my $csv = written(
		'monitor.csv',
		'at_s,step,offered_percent,pool,in_use,max_size,utilisation_percent,waiting,tps,p99_ms,state',
		'0.1,1,50,a/b,2,4,50,0,,,ok', '0.3,1,50,a/b,4,4,100,0,100,1.5,full', '0.5,1,50,a/b,2,4,50,0,300,2.5,ok',
		'0.7,1,50,a/b,0,4,0,0,500,0.5,ok', '1.1,2,120,a/b,4,4,100,17,900,,waiting');
	my $output = report('monitor_report.pl', $csv);
	is_deeply([ cells($output, 1) ], [ '50', '4', '50.0', '0.00', '0', '400', '2.50', 'ok, full' ], 'a step: means and peaks of its samples');
	is_deeply([ cells($output, 2) ], [ '120', '1', '100', '17.0', '17', '900', 'n/a', 'waiting' ], '... and one without a percentile');
	refused(qr/has no column "step"/, 'samples without steps', 'monitor_report.pl',
		written('bad.csv', 'at_s,pool,in_use,max_size,utilisation_percent,waiting,tps,p99_ms,state', '0,a,1,2,50,0,1,1,ok'));
}

# A psql that has one answer, and after some questions none.
sub fake_psql
{
	my ($questions, @answer) = @_;
	my $file = written(
		'psql', "#!$^X", '$| = 1;', "my \$left = $questions;", 'while (<STDIN>) {',
		'  next unless /^\\\\echo \'(.*)\'$/;', '  exit 3 if $left-- == 0;', '  print <<"END";', @answer, 'END', '  print "$1\n";', '}');
	chmod 0755, $file;
	return $file;
}
sub answer { return join "\x1f", @_; }

{
	my $psql = fake_psql(
		1000,
		answer('shop,1/web', '[######==..]', '8/10', 0, 3522, '0.00', 'busy'),
		answer('report/r', '[..........]', '0/4', 12, '', '', 'waiting'));
	my ($status, $output, $errors) = run_program('monitor.pl', '--psql', $psql, '--seconds', 0.5, '--interval', 0.1, '--csv', "$files/samples.csv");
	is($status, 0, 'the monitor ends when its time is over') or diag($errors);
	my @lines = split /\n/, $output;
	cmp_ok(scalar @lines, '>=', 2, 'a line for each pool and refresh');
	is(scalar @lines % 2, 0, '... for all pools');
	like($lines[0], qr/^ +\d\.\d s  shop,1\/web +\[#{18}={6}\.{6}\] +80 % +8\/10  waiting +0 +3522 tps  p99 +0\.00 ms  busy$/, 'bar and counters');
	like($lines[1], qr/report\/r .* 0 % .* waiting +12 +- tps  p99 +- ms  waiting$/, 'what is not known is a dash');
	unlike($output, qr/\e/, 'no control characters where there is no terminal');
	my ($columns, @samples) = split /\n/, PostgreSQL::Test::Utils::slurp_file("$files/samples.csv");
	is($columns, 'at_s,pool,in_use,max_size,utilisation_percent,waiting,tps,p99_ms,state', 'samples are written down');
	is(scalar @samples, scalar @lines, '... all of them');
	like($samples[0], qr/^\d+\.\d{3},shop;1\/web,8,10,80\.0,0,3522,0\.00,busy$/, '... and a comma in a name does no harm');
	like($samples[1], qr/^\d+\.\d{3},report\/r,0,4,0\.0,12,,,waiting$/, '... and what is not known is empty');
}
{
	my ($status, $output) = run_program('monitor.pl', '--psql', fake_psql(1000), '--seconds', 0.2, '--interval', 0.1);
	is($status, 0, 'a server without pools can be watched');
	like($output, qr/no pool is open/, '... and this is said');
}
refused(qr/the server could not be asked/, 'a server that goes away', 'monitor.pl', '--psql',
	fake_psql(1, answer('a/b', '[..........]', '0/4', 0, 0, 0, 'ok')), '--interval', 0.01);
refused(qr/not a line of sluice\.monitor/, 'an answer that is another', 'monitor.pl', '--psql', fake_psql(1000, 'hello'));
refused(qr/could not run/, 'a psql that is not there', 'monitor.pl', '--psql', "$files/nothing");
refused(qr/the interval must be at least/, 'no interval', 'monitor.pl', '--interval', 0);

done_testing();
