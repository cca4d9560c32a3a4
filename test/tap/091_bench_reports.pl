# SPDX-License-Identifier: PostgreSQL
#
# The reports of the load lab say what their measurements say: from CSV written here, whose medians, ratios and targets
# are known.

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $lab = dirname(__FILE__) . '/../bench/lab';
my $files = PostgreSQL::Test::Utils::tempdir();

sub write_file
{
	my ($name, @lines) = @_;
	open(my $file, '>', "$files/$name") or die "could not create $files/$name: $!";
	print $file map { "$_\n" } @lines;
	close($file);
	return "$files/$name";
}

# What a report prints, or what it says instead.
sub report
{
	my ($script, @arguments) = @_;
	my ($output, $errors) = ('', '');
	my $good = IPC::Run::run([ $^X, "$lab/$script", @arguments ], '>', \$output, '2>', \$errors,
		IPC::Run::timeout($SluiceTest::patience_s));
	return ($good, $output, $errors);
}

# The cells of the line of a Markdown table that begins with these.
sub cells
{
	my ($output, @first) = @_;
	my $begin = join(' | ', @first);
	my @lines = grep { index($_, "| $begin | ") == 0 } split /\n/, $output;
	return map { [ split / \| /, substr($_, 2, -2) ] } @lines;
}

# ---- peers

# As it was before the server connections were recorded: such a file can still be read.
my $header = 'row,leg,round,clients,unit,value,p50_ms,p95_ms,p99_ms,machine_us,pooler_us,reason';
my $new_header = $header =~ s/reason/server_connections,reason/r;
my $rows = write_file('rows',
	'select|select, simple|per s|1|4 500|tcp|select|500:1.8',
	'chatty|chatty|per s|1|500|tcp|chatty|*:1.5 advised:0.95',
	'copy|copy|MB/s|10|4|tcp|copy|',
	'unused|never measured|per s|1|4|tcp|x|*:2');

# measured ROW LEG CLIENTS VALUE...: a line for each round
sub measured
{
	my ($row, $leg, $clients, @values) = @_;
	my $round = 0;
	return map { $round++; "$row,$leg,$round,$clients,per s,$_,1.5,2.5," . (10 * $round) . ",40,7," } @values;
}

sub peers_report
{
	return report('peers_report.pl', $rows, write_file('csv', @_), "$files/medians");
}

my ($good, $output, $errors) = peers_report(
	$header,
	measured('select', 'direct', 500, 1000, 3000, 2000),
	measured('select', 'pgbouncer', 500, 900, 1100, 1000),
	measured('select', 'odyssey', 500, 1200, 1200, 1200),
	'select,pgpool,1,500,,,,,,,,needs a server connection for each client',
	measured('select', 'sluice', 500, 2100, 2160, 2500),
	measured('chatty', 'direct', 500, 1000),
	measured('chatty', 'pgbouncer', 500, 800),
	measured('chatty', 'sluice', 500, 1000),
	measured('chatty', 'advised', 500, 960),
	measured('copy', 'pgbouncer', 4, 200),
	measured('copy', 'sluice', 4, 100),
	'copy,odyssey,1,4,,,,,,,,error 08006',
	'advised,sluice,,,,7,,,,,,');
ok($good, 'the report of peers is made') or diag($errors);

my @lines = cells($output, 'select, simple', 500);
is_deeply($lines[0],
	[
		'select, simple', 500, 'per s', '2,000 (1,000..3,000)', '1,000 (900..1,100)', 'n/a', '1,200 (1,200..1,200)',
		'2,160 (2,100..2,500)', '1.08', '1.80 (Odyssey)', '>= 1.8 best peer',
		'met'
	],
	'medians of three with their spread, a missing leg, the best of the peers, and a target just met');
is($lines[1][2], '1.50 / 2.50 / 20.0', 'latencies are medians too');
is($lines[2][2], '40.0 / 7.00', 'processor time of the machine and of the pooler');
is_deeply([ cells($output, 'select, simple', 4) ], [], 'what was not measured has no line');

is_deeply([ @{ (cells($output, 'chatty', 500))[0] }[ 7 .. 11 ] ], [ '1,000', '1.00', '1.25 (PgBouncer)', '>= 1.5 best peer', '**MISSED**' ],
	'a missed target is marked');
is_deeply([ @{ (cells($output, 'chatty: pg_sluice at the advised size (7)', 500))[0] }[ 7 .. 11 ] ],
	[ 960, '0.96', '1.20 (PgBouncer)', '>= 0.95 direct', 'met' ], 'the advised size is measured against direct');
is((cells($output, 'copy', 4))[0][11], 'no target; BEHIND', 'a loss without a target is marked');
like($output, qr/^- select, simple, 500 clients, pgpool-II: needs a server connection for each client$/m,
	'what was left out is listed with its reason');
like($output, qr/^- copy, 4 clients, Odyssey: error 08006$/m, 'and so is what has failed');
like($output, qr/^Targets: 2 met, 1 missed, 0 not judged\. Without a target: 1 rows/m, 'targets are counted');
like($output, qr/^Server connections: not recorded\.$/m, 'and that a file knows nothing of connections is told');
is((split /\n/, PostgreSQL::Test::Utils::slurp_file("$files/medians"))[1],
	'select,direct,500,2000,1000,3000,20,10,30', 'medians with least and greatest are written for plots');

# A target cannot be judged without peers.
(undef, $output) = peers_report($header, measured('select', 'sluice', 500, 1000));
is((cells($output, 'select, simple', 500))[0][11], 'not measured', 'no verdict without a peer');
like($output, qr/^Targets: 0 met, 0 missed, 1 not judged\./m, 'and no missed target');

# A relay with a process for each client is the best peer beside pools, but no measure without them.
(undef, $output) = peers_report(
	$header,
	'select,pgbouncer,1,500,,,,,,,,cannot do it',
	measured('select', 'pgpool', 500, 10),
	measured('select', 'sluice', 500, 1000));
is_deeply([ @{ (cells($output, 'select, simple', 500))[0] }[ 9 .. 11 ] ],
	[ '100.00 (pgpool-II)', '>= 1.8 best peer', 'no peer can this' ], 'a target is not met where no pool can do it');
like($output, qr/^Targets: 0 met, 0 missed, 1 not judged\./m, 'nor is it counted as met');

# What pg_sluice has failed at it has missed, however fast it was otherwise.
($good, $output, $errors) = peers_report(
	$header,
	measured('select', 'pgbouncer', 500, 100, 100, 100),
	measured('select', 'sluice', 500, 1000, 1000),
	'select,sluice,3,500,,,,,,,,server closed the connection',
	measured('copy', 'sluice', 4, 100),
	'copy,sluice,2,4,,,,,,,,server closed the connection');
ok($good, 'some rounds that have failed are no error of the report') or diag($errors);
is((cells($output, 'select, simple', 500))[0][11], '**MISSED**: failed in 1 of 3', 'a failed round misses the target');
is((cells($output, 'copy', 4))[0][11], 'no target; FAILED in 1 of 2', 'and is marked where there is no target');
like($output, qr/^Targets: 0 met, 1 missed, 0 not judged\. Without a target: 1 rows/m, 'both are counted');

($good, $output, $errors) = peers_report(
	$header,
	measured('select', 'pgbouncer', 500, 100),
	'select,sluice,1,500,,,,,,,,server closed the connection');
ok(!$good, 'it is an error if all loads of pg_sluice have failed');
like($errors, qr/all loads of pg_sluice have failed/, 'which is said');
is((cells($output, 'select, simple', 500))[0][11], '**MISSED**: failed in 1 of 1', 'and the report is there');

# The extension advised no size.
(undef, $output) = peers_report(
	$header,
	measured('chatty', 'direct', 500, 1000),
	measured('chatty', 'odyssey', 500, 1000),
	measured('chatty', 'sluice', 500, 2000),
	'advised,sluice,,,,,,,,,,no size is advised');
is((cells($output, 'chatty: pg_sluice at the advised size', 500))[0][11], 'not measured', 'without advice there is no verdict');
like($output, qr/^- pg_sluice at the advised size: no size is advised$/m, 'and the reason is told');
like($output, qr/^Targets: 1 met, 0 missed, 1 not judged\./m, 'and it is counted');

# Server connections: the greatest of the rounds.
(undef, $output) = peers_report(
	$new_header,
	'select,direct,1,500,per s,10,1,1,1,1,0,500,',
	'select,pgbouncer,1,500,per s,10,1,1,1,1,1,5,',
	'select,sluice,1,500,per s,20,1,1,1,1,1,9,',
	'select,sluice,2,500,per s,20,1,1,1,1,1,11,',
	'select,sluice,3,500,per s,20,1,1,1,1,1,,');
is_deeply((cells($output, 'select, simple', 500))[3], [ 'select, simple', 500, 500, 5, 'n/a', 'n/a', 11 ],
	'server connections are the most of all rounds');

# Some rounds of a leg failed.
(undef, $output) = peers_report(
	$header,
	measured('select', 'direct', 500, 1000, 2000),
	'select,direct,3,500,,,,,,,,not finished after 60 s');
is((cells($output, 'select, simple', 500))[0][3], '1,500 (1,000..2,000)', 'what there is counts if a round has failed');
like($output, qr/^- select, simple, 500 clients, direct \(failed in 1 of 3 rounds\): not finished after 60 s$/m,
	'and the failed round is told');

# complains ERROR WHAT LINE...
sub complains
{
	my ($error, $what, @csv) = @_;
	my ($fine, undef, $said) = peers_report(@csv);
	ok(!$fine, "$what is an error");
	like($said, $error, "$what is named");
	return;
}

complains(qr/there is no column "pooler_us"/, 'a missing column', 'row,leg,round,clients,unit,value,p50_ms,p95_ms,p99_ms,machine_us,reason');
complains(qr/csv, line 2: 3 fields instead of 12: select,direct,1/, 'a short line', $header, 'select,direct,1');
complains(qr/line 2: value is not a number: "many"/, 'a word for a number', $header, 'select,direct,1,4,per s,many,1,1,1,1,1,');
complains(qr/line 2: value is not a number: ""/, 'a measurement without a value', $header, 'select,direct,1,4,per s,,1,1,1,1,1,');
complains(qr/line 2: no such leg: pgcat/, 'an unknown leg', $header, 'select,pgcat,1,4,per s,1,1,1,1,1,1,');
complains(qr/no such row: insert/, 'an unknown row', $header, measured('insert', 'direct', 4, 1));
complains(qr/nothing was measured/, 'a file without measurements', $header);
complains(qr/empty, without even the columns' names/, 'an empty file');
like((report('peers_report.pl', $rows, "$files/nowhere", "$files/medians"))[2], qr/could not open .*nowhere/, 'a missing file');

done_testing();
