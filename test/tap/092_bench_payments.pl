# SPDX-License-Identifier: PostgreSQL
#
# The payments scenario of the load lab measures what it says: every step is counted, errors come out under their
# SQLSTATE, and what the clients were told is compared with the database so that a row too many, too few or changed
# is noticed.  The report's slope of memory is the one that is in the data.
#
# Users leave after a number of journeys, not after a time: all counts are known beforehand.

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $lab = dirname(__FILE__) . '/../bench/lab';
my $files = PostgreSQL::Test::Utils::tempdir();
my $program = "$files/payments_clients";
my @steps =
	('create account', 'visit', 'add payment method', 'authorize', 'capture', 'purchase', 'receipt (2 connections)');

sub run_tool
{
	my ($status, $name, @command) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run(\@command, '>', \$output, '2>', \$errors, IPC::Run::timeout($SluiceTest::patience_s));
	is($? >> 8, $status, $name) or diag("@command\n$output$errors");
	return ($output, $errors);
}

sub rows_of
{
	my ($name) = @_;
	my ($head, @lines) = map { [ split /,/, $_, -1 ] } split /\n/, PostgreSQL::Test::Utils::slurp_file("$files/$name");
	return map { my %row; @row{@$head} = @$_; \%row } @lines;
}

chomp(my ($include, $libraries) = map { scalar `pg_config $_` } '--includedir', '--libdir');
run_tool(0, 'payments_clients can be compiled', 'g++', qw(-std=c++17 -Wall -Wextra -Werror), '-isystem', $include,
	'-o', $program, glob("$lab/payments_*.cpp"), "-L$libraries", "-Wl,-rpath,$libraries", '-lpq');

my $server = SluiceTest->new('main', tcp => 1);
my $direct = $server->connstr(dbname => 'postgres');
my $pooled = 'host=127.0.0.1 dbname=postgres port=' . $server->pool_port;

# ---- running it

my ($users, $journeys) = (6, 2);

# Returns the steps as { 'visit' => { count => ... } }, and the errors as { 'visit 23514' => count }.
sub pay
{
	my ($name, $conninfo, @options) = @_;
	unlink map { "$files/$_" } qw(steps errors samples told);
	run_tool(0, $name, $program, 'run', '--users', $users, '--journeys', $journeys,
		'--seconds', $SluiceTest::patience_s,
		'--external', '1:5', '--label', 'a leg', map({ ("--$_", "$files/$_") } qw(steps errors samples told)), @options,
		$conninfo);
	return ({ map { $_->{step} => $_ } rows_of('steps') },
		{ map { ("$_->{step} $_->{sqlstate}", $_->{count}) } rows_of('errors') });
}

sub prepare { return run_tool(0, 'the tables are made', $program, 'prepare', $direct); }

sub check
{
	my ($status, $name) = @_;
	my ($output) = run_tool($status, $name, $program, 'check', "$files/told", $direct);
	return $output;
}

sub succeeded { my ($steps, @names) = @_; return [ map { $steps->{$_}{count} - $steps->{$_}{errors} } @names ]; }

# ---- counts, and books

my $each = $users * $journeys;
prepare();
my ($steps, $errors) = pay('users pay through the pool', $pooled);
is_deeply(succeeded($steps, @steps), [ ($each) x 7 ], 'every step of every journey is counted');
is_deeply($errors, {}, 'no errors');
is($steps->{'second connection'}{count}, $each, 'each receipt has taken a second connection');
cmp_ok($steps->{connect}{count}, '>', $users, 'second connections are opened beside those of the users');
is(scalar(grep { $steps->{$_}{bytes_per_s} <= 0 } @steps), 0, 'bytes are counted');
foreach my $pair ([qw(min_us p50_us)], [qw(p50_us p90_us)], [qw(p90_us p99_us)], [qw(p99_us max_us)])
{
	my ($less, $more) = @$pair;
	is(scalar(grep { $steps->{$_}{$less} > $steps->{$_}{$more} } @steps), 0, "$less is not above $more");
}
cmp_ok($steps->{visit}{min_us}, '>=', 1000, 'a step takes as long as its external call, at least');
cmp_ok($steps->{visit}{database_p50_us} + 1000, '<=', $steps->{visit}{max_us},
	'the time in the database is without it');
is($server->sql('SELECT count(*) FROM ledger'), 7 * $each, 'the database has all steps');
like(check(0, 'the books agree'), qr/^@{[8 * $each]} operations compared; 0 were unsettled/m,
	'all operations are compared');

my @doctorings = (
	[
		'money in an account',
		qr/money of all accounts/,
		'UPDATE accounts SET balance = balance + 1 WHERE account = 1',
		'UPDATE accounts SET balance = balance - 1 WHERE account = 1'
	],
	[
		'an operation that is there twice',
		qr/visit, user 1, committed: the clients know $journeys, the database has @{[$journeys + 1]}$/m,
		'INSERT INTO ledger SELECT operation, app_user, step, account, amount FROM ledger
		 WHERE app_user = 1 AND step = 1 LIMIT 1',
		'DELETE FROM ledger WHERE ctid = (SELECT max(ctid) FROM ledger)'
	],
	[
		'amounts that have changed',
		qr/authorize, user 2, amounts/,
		'UPDATE ledger SET amount = amount + 1 WHERE app_user = 2 AND step = 3',
		'UPDATE ledger SET amount = amount - 1 WHERE app_user = 2 AND step = 3'
	],
	[
		'an entry of a second connection that is lost',
		qr/audit.*user 3, committed/,
		'CREATE TABLE kept AS SELECT * FROM audit WHERE app_user = 3; DELETE FROM audit WHERE app_user = 3',
		'INSERT INTO audit SELECT * FROM kept'
	]);
foreach my $doctoring (@doctorings)
{
	my ($name, $tells, $do, $undo) = @$doctoring;
	$server->sql($do);
	like(check(2, "noticed: $name"), $tells, "told: $name");
	$server->sql($undo);
}
check(0, 'when all is as it was the books agree again');

# COMMIT was not answered: both are right.
PostgreSQL::Test::Utils::append_to_file("$files/told", "unsettled 1 1 1 0 4711\nunsettled 1 1 1 0 4712\n");
$server->sql('INSERT INTO ledger VALUES (4711, 1, 1, 1, 0)');
like(check(0, 'an operation whose COMMIT was not answered may have happened or not'),
	qr/2 were unsettled, 1 of these/, 'which is told');

# ---- errors

prepare();
$server->sql('ALTER TABLE purchases ADD CHECK (amount < 0)');
($steps, $errors) = pay('users pay, and purchases fail', $pooled);
is_deeply($errors, { 'purchase 23514' => $each }, 'errors are counted by step and SQLSTATE');
is($steps->{purchase}{errors}, $each, 'and among the steps');
is_deeply(succeeded($steps, @steps), [ ($each) x 5, 0, 0 ], 'a journey ends where it fails');
check(0, 'what has failed has left nothing behind');

prepare();
$server->sql(q{
	CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new; END $$;
	CREATE TRIGGER die BEFORE INSERT ON receipts FOR EACH ROW EXECUTE FUNCTION die()});
($steps, $errors) = pay('users pay, and receipts end their connection', $pooled);
is_deeply($errors, { 'receipt (2 connections) 57P01' => $each }, 'a lost connection is counted under what it was told');
like(check(0, 'what second connections have committed stays'),
	qr/@{[7 * $each]} operations compared; 0 were unsettled/, 'and is compared');

prepare();
$server->sql(q{CREATE CONSTRAINT TRIGGER die AFTER INSERT ON payment_methods DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION die()});
($steps, $errors) = pay('users pay, and connections end in COMMIT', $pooled);
is_deeply($errors, { 'add payment method 57P01' => $each }, 'an error in COMMIT is one of its step');
like(check(0, 'and leaves unsettled whether it has happened'), qr/$each were unsettled, 0 of these/, 'it has not');

(undef, $errors) = pay('users look for a database that is not there',
	'host=127.0.0.1 dbname=nowhere port=' . $server->pool_port, '--seconds', '0.3');
is_deeply([ keys %$errors ], ['connect 3D000'], 'errors of connecting have their SQLSTATE, too');

# ---- watching

my $postmaster = $server->node->{_pid};
run_tool(0, 'pool and memory are watched', $program, 'watch', '--sluice', '--process', "server=$postmaster+",
	'--process', "one=$postmaster", '--label', 'a leg', '--seconds', '0.2', '--every', 50, '--memory-every', 50,
	'--pool', "$files/pool", '--memory', "$files/memory", $direct);
my ($first) = rows_of('pool');
is($first->{total}, $server->sql("SELECT sum(total) FROM sluice.pools WHERE database = 'postgres'"),
	'connections are those of the pool');
my ($all, $one) = rows_of('memory');
is($one->{processes}, 1, 'memory of a process');
cmp_ok($all->{processes}, '>', 5, 'memory of a process and its children');
cmp_ok($all->{rss_anon_bytes}, '>', $one->{rss_anon_bytes}, 'is more');

# ---- the report

my @memory = ('leg,at_s,group,processes,rss_anon_bytes,pss_bytes');
foreach my $at (0 .. 120)
{
	# After a steep third that is warm-up: a slope of 60000 bytes a minute, and none.
	my $noise = ($at * 7919 % 13 - 6) * 1000;
	my $warming = $at < 40 ? $at * 1e6 : 40e6;
	my $more = $at % 17 < 3 && $at > 60 ? 1 : 0;    # a backend now and then, which is no leak
	push @memory, "sluice,$at,server," . (10 + $more) . ',' . (1e8 + $warming + 4e6 * $more + 1000 * $at + $noise) . ',';
	push @memory, "sluice,$at,dispatcher,1," . (1e6 + $noise) . ',2000000';
}
my %canned = (
	'payments.csv' => PostgreSQL::Test::Utils::slurp_file("$files/steps") =~ s/a leg/sluice/gr,
	'payments_errors.csv' => "leg,step,sqlstate,count,text\nsluice,visit,53300,3,no room\n",
	'payments_pool.csv' => "leg,at_s,total,active,in_transaction,idle,starting,waiting\n"
		. "sluice,1,10,2,5,3,0,4\nsluice,2,20,4,7,9,0,8\n",
	'payments_users.csv' => "leg,at_s,external,waiting,waiting_for_second,working,steps,errors\n"
		. "sluice,1,5,3,1,1,10,0\n",
	'payments_check.csv' => "leg,verdict,text\nsluice,agrees,all well\n",
	'payments_memory.csv' => join("\n", @memory) . "\n");
foreach my $name (keys %canned) { PostgreSQL::Test::Utils::append_to_file("$files/$name", $canned{$name}); }
my ($report) = run_tool(0, 'the report', $^X, "$lab/payments_report.pl", $files, 120, '50:150');
my ($slope, $interval, $verdict) = $report =~ /\| sluice \| server \|.* \| \+(\d+) ± (\d+) \|.*\| ([\w ]+) \|$/m;
ok(defined $slope && abs($slope - 60000) < 3 * $interval && $interval < 6000,
	'the slope of memory, without the warm-up')
	or diag($report);
is($verdict, 'grows', 'memory that grows');
like($report, qr/\| sluice \| dispatcher \|.*no slope seen \|$/m, 'memory that does not');
like($report, qr/\| sluice \| 15\.0 \/ 20 \| 3\.0 \/ 4 \| 6\.0 \/ 7 \|/, 'means and peaks of the pool');
like($report, qr/\| sluice \| visit \| 53300 \| 3 \| no room \|/, 'exceptions by class');
like($report, qr/no errors.*\| 3(?:\.00)? \| \*\*MISSED\*\*/, 'a target that is missed is called so');

done_testing();
