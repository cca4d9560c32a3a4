# SPDX-License-Identifier: PostgreSQL
#
# The programs of the scenarios "herd" and "trouble": clients notice what a server does wrong to them, the check against
# the table finds what was lost or done twice, and nothing of that is found where nothing is wrong.
#
# A server of our own does wrong on purpose, in one way at a time; a real one with a pool does not.  Nothing here depends
# on speed: there are numbers to wait for, and only bounds from below.

use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Socket::INET;
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

my $directory = dirname(__FILE__) . '/../bench/lab';
my $files = PostgreSQL::Test::Utils::tempdir();
my @never = qw(lost twice wrong unasked odd unanswered refused_there unsent_there strangers);

# ---- programs

my @compiler = (split(' ', $ENV{CXX} || 'g++'), qw(-std=c++17 -Wall -Wextra -Werror -O0 -pthread));
my @builds = map { IPC::Run::start([ @compiler, '-o', "$files/$_", "$directory/$_.cpp" ]) } qw(herd_clients trouble_clients trouble_company);
foreach my $build (@builds) { $build->finish or BAIL_OUT('a program could not be compiled'); }

# Exit status, output and errors.
sub run_program
{
	my (@command) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run(\@command, '<', \undef, '>', \$output, '2>', \$errors, IPC::Run::timeout($SluiceTest::patience_s));
	return ($? >> 8, $output, $errors);
}

sub numbers { my ($text) = @_; my %value = $text =~ /^([\w.]+) (-?\d+)$/mg; return \%value; }

sub write_file { my ($name, @lines) = @_; open(my $file, '>', "$files/$name") or die; print $file map { "$_\n" } @lines; close($file); return "$files/$name"; }

# ---- a server that does wrong

# Every fifth operation of a client is treated as the name says.
sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body; }

sub read_whole { my ($socket, $count) = @_; my $bytes = ''; while (length $bytes < $count) { sysread($socket, $bytes, $count - length $bytes, length $bytes) or exit 0; } return $bytes; }

sub serve
{
	my ($socket, $wrong, $table) = @_;
	open(my $rows, '>>', $table) or die;
	$rows->autoflush(1);
	read_whole($socket, unpack('N', read_whole($socket, 4)) - 4);
	syswrite $socket, message('R', pack 'N', 0) . message('Z', 'I') . ($wrong eq 'greets_twice' ? message('Z', 'I') : '');
	my ($count, $state, $pending, @bound) = (0, 'I');
	my $store = sub { print $rows "$_[0]\n" foreach 1 .. ($_[1] // 1); };
	for (;;)
	{
		my $type = read_whole($socket, 1);
		my $body = read_whole($socket, unpack('N', read_whole($socket, 4)) - 4);
		exit 0 if $type eq 'X';
		if ($type eq 'B') { my (undef, undef, undef, undef, $id, $client) = unpack 'Z* Z* n n N/a N/a', $body; @bound = ($id); next; }
		next if $type eq 'P' || $type eq 'E';
		if ($body =~ /^begin/) { $state = 'T'; syswrite $socket, message('C', "BEGIN\0") . message('Z', 'T'); next; }
		if ($body =~ /^rollback/) { $state = 'I'; syswrite $socket, message('C', "ROLLBACK\0") . message('Z', 'I'); next; }
		my $is_commit = $body =~ /^commit/;
		my $bad = 0;
		if (!$is_commit)
		{
			$pending = $type eq 'S' ? $bound[0] : ($body =~ /\((\d+), \d+\)/)[0];
			$bad = ++$count % 5 == 0;
			if ($state eq 'T') { $bound[1] = $bad; $bad = 0 unless $wrong =~ /^(?:answer|say)/; }
		}
		elsif ($state eq 'T') { $bad = $bound[1] && $wrong !~ /^(?:answer|say)/; }
		# What happens to the table.
		if ($state eq 'I' || $is_commit)
		{
			$store->($pending, $bad && $wrong eq 'do_twice' ? 2 : 1) unless $bad && $wrong =~ /^(?:lose|refuse)$/;
			exit 0 if $bad && $wrong eq 'hang_up';
			next if $bad && $wrong eq 'silent';
		}
		if ($bad && $wrong =~ /^refuse/)
		{
			$state = 'I';
			syswrite $socket, message('E', "SERROR\0VERROR\0C23505\0Mas asked\0\0") . message('Z', 'I');
			next;
		}
		my $id = $bad && $wrong eq 'answer_other' ? $pending + 1 : $pending;
		my $answer = $is_commit ? message('C', "COMMIT\0") : message('D', pack 'n N/a*', 1, $id) . message('C', "INSERT 0 1\0");
		$answer = message('C', "ROLLBACK\0") if $is_commit && $bad && $wrong eq 'roll_back';
		$answer = message('D', pack 'n N/a*', 1, $id) . $answer if $bad && $wrong eq 'say_row_twice';
		$state = 'I' if $is_commit;
		$answer .= message('Z', $state);
		syswrite $socket, $bad && $wrong eq 'answer_twice' ? $answer x 2 : $answer;
	}
}

# The port, and what ends it.
sub start_server
{
	my ($wrong, $table) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64) or die "could not listen: $!\n";
	my $pid = fork // die;
	if ($pid == 0)
	{
		local $SIG{CHLD} = 'IGNORE';
		while (1)
		{
			my $socket = $listener->accept or next;
			my $child = fork // POSIX::_exit(1);
			if ($child == 0) { close($listener); setpgrp; eval { serve($socket, $wrong, $table); }; POSIX::_exit(0); }
			close($socket);
		}
	}
	my $port = $listener->sockport;
	close($listener);
	return ($port, sub { kill 'KILL', $pid; waitpid $pid, 0; });
}

sub trouble
{
	my ($name, $host, $ports, $seconds, @options) = @_;
	my ($status, $output, $errors) = run_program("$files/trouble_clients", '--host', $host, '--ports', $ports, '--clients', 3, '--seconds', $seconds,
		'--outcomes', "$files/$name.outcomes", '--samples', "$files/$name.samples", @options);
	is($status, 0, "$name: clients have run") or diag($errors);
	return numbers($output);
}

sub checked
{
	my ($name) = @_;
	my ($status, $output, $errors) = run_program($^X, "$directory/trouble_check.pl", "$files/$name.outcomes", "$files/$name.table");
	is($status, 0, "$name: outcomes were held against the table") or diag($errors);
	return numbers($output);
}

# What each wrong leads to, and nothing else.
my @wrongs = (
	[ 'nothing', [] ],
	[ 'lose', ['lost'] ],
	[ 'do_twice', ['twice'] ],
	[ 'answer_other', ['wrong'] ],
	# The second answer is taken for that of the next operation, which may never be executed.
	[ 'answer_twice', [ 'unasked', 'wrong', 'odd', 'lost', 'unanswered' ], '--patience', '5' ],
	[ 'say_row_twice', [ 'unasked', 'odd' ] ],
	[ 'silent', ['unanswered'], '--patience', '0.3' ],
	# Patience that ends after the run, as in a run whose last incident makes somebody hang.
	[ 'silent', ['unanswered'], '--patience', '2' ],
	[ 'roll_back', ['odd'] ],
	[ 'refuse', [] ],
	[ 'refuse_falsely', ['refused_there'] ],
	[ 'hang_up', [] ]);
foreach my $case (@wrongs)
{
	my ($wrong, $expected, @options) = @$case;
	unlink map { "$files/$wrong.$_" } qw(table outcomes samples);
	write_file("$wrong.table");
	my ($port, $end) = start_server($wrong, "$files/$wrong.table");
	my $said = trouble($wrong, '127.0.0.1', $port, 0.5, @options);
	$end->();
	my $found = checked($wrong);
	cmp_ok($found->{told}, '>=', 5, "$wrong: operations were told to be committed");
	my %may = map { $_ => 1 } @$expected;
	my @unexpected = grep { $found->{$_} && !$may{$_} } @never;
	is("@unexpected", '', "$wrong: nothing is found that is not wrong");
	cmp_ok($found->{ $expected->[0] }, '>', 0, "$wrong: $expected->[0] is found") if @$expected;
	is($found->{unknown} + $found->{unsent}, 0, 'none of which is taken for one that was cut off') if $wrong eq 'silent';
	cmp_ok($found->{refused}, '>', 0, 'an error that was told is no loss') if $wrong eq 'refuse';
	is($found->{unknown} > 0 && $found->{unknown_there} == $found->{unknown}, 1, 'a lost connection leaves it to the table') if $wrong eq 'hang_up';
	is($found->{told}, $said->{told}, "$wrong: both count the same") if $wrong eq 'nothing';
}

{
	my ($port, $end) = start_server('greets_twice', write_file('greets.table'));
	my ($status, undef, $errors) = run_program("$files/herd_clients", qw(--host 127.0.0.1 --port), $port, qw(--clients 3));
	isnt($status, 0, 'a herd notices a server that says more than it was asked') and like($errors, qr/more than it had asked|did not leave an idle/, 'and says so');
	$end->();
}

# ---- a pool

my $server = SluiceTest->new('main', tcp => 1, conf => "sluice.max_pool_size = 3\nsynchronous_commit = on\n");
$server->sql('CREATE ROLE bench LOGIN');
$server->sql('CREATE DATABASE bench OWNER bench');
$server->sql('CREATE TABLE done (id bigint NOT NULL, client int NOT NULL); ALTER TABLE done OWNER TO bench', dbname => 'bench');

foreach my $host ('127.0.0.1', $server->host)
{
	my ($status, $output, $errors) = run_program("$files/herd_clients", '--host', $host, '--port', $server->pool_port, qw(--clients 40 --under-way 8),
		qw(--step 20 --active 4 --seconds 0.3 --at-rest), "echo at rest");
	is($status, 0, "a herd comes in, works and leaves: $host") or diag($errors);
	my @lines = map { [ split /,/ ] } split /\n/, $output;
	is(join(' ', map { "$_->[0] $_->[1]" } @lines), 'opening 20 opening 40 opened 40 active 4', 'with a line for each step and for all of them');
	is(scalar(grep { $_->[2] > 0 && $_->[3] > 0 && $_->[3] <= $_->[4] && $_->[4] <= $_->[5] } @lines), 4, 'that has numbers in it');
	cmp_ok($lines[2][5], '==', ($lines[0][5] > $lines[1][5] ? $lines[0][5] : $lines[1][5]), 'the longest of all is that of its step') if @lines == 4;
	like($errors, qr/at rest/, 'and the command between');
}
{
	my ($status, undef, $errors) = run_program("$files/herd_clients", '--host', '127.0.0.1', '--port', $server->pool_port, qw(--clients 4 --database nowhere));
	is($status, 1, 'a herd that is refused fails') and like($errors, qr/nowhere/, 'and says why');
}

sub await
{
	my ($query) = @_;
	for (1 .. $SluiceTest::patience_s * 20)
	{
		return if $server->sql($query, dbname => 'bench') eq 't';
		sleep 0.05;
	}
	die "waited in vain for: $query\n";
}

my @running;
END
{
	my $status = $?;
	kill 'KILL', @running if @running;
	$? = $status;
}
sub begin
{
	my (@command) = @_;
	my $pid = fork // die;
	if ($pid == 0) { exec @command or POSIX::_exit(1); }
	push @running, $pid;
	return $pid;
}
sub end { my ($pid, $signal) = @_; kill $signal, $pid; waitpid $pid, 0; @running = grep { $_ != $pid } @running; return $?; }

# Backends are ended under them, by name and by a neighbour's bad manners.
{
	my $company = begin("$files/trouble_company", 'victims', 4, '127.0.0.1', $server->pool_port);
	my $load = begin("$files/trouble_clients", '--host', '127.0.0.1', '--ports', $server->pool_port . ',' . $server->pool_port, qw(--clients 9 --seconds 600),
		'--outcomes', "$files/pool.outcomes", '--samples', "$files/pool.samples");
	await('SELECT count(*) > 200 FROM done');
	for (1 .. 3)
	{
		$server->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bench' AND application_name = 'trouble' ORDER BY random() LIMIT 1});
		my $rows = $server->sql('SELECT count(*) FROM done', dbname => 'bench');
		await("SELECT count(*) > $rows + 100 FROM done");
	}
	end($company, 'KILL');
	is(end($load, 'TERM'), 0, 'clients work on after their backends were terminated');
	await(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'bench' AND backend_xid IS NOT NULL});
	PostgreSQL::Test::Utils::append_to_file("$files/pool.table", $server->sql('SELECT id FROM done', dbname => 'bench') . "\n");
	my $found = checked('pool');
	cmp_ok($found->{told}, '>', 200, 'operations were told');
	is(join(' ', map { "$_ $found->{$_}" } @never), join(' ', map { "$_ 0" } @never), 'nothing was lost, done twice, or answered wrongly');

	my ($status, $output) = run_program($^X, "$directory/trouble_recovery.pl", "$files/pool.outcomes", "$files/pool.samples", write_file('pool.marks', 'terminate,0,1'));
	is($status, 0, 'what an incident cost is told');
	like($output, qr/^terminate,gap_ms,/m, 'with its measures');

	my ($complete, $answer) = run_program("$files/trouble_company", 'stall', 1, 0.2, '127.0.0.1', $server->pool_port);
	is($complete, 0, 'a client stalls in the middle of an answer') and is($answer, "complete 1\ncut 0\n", 'and gets all of it');
}

# ---- what is made of it

{
	# A thousand operations a second, nothing from 10.05 to 11.25 s, and then as before.
	my (@outcomes, @samples);
	for (my $ms = 5000; $ms < 15000; $ms++)
	{
		next if $ms > 10050 && $ms < 11250;
		push @outcomes, join ',', $ms, 1, 'told', ($ms - 1) * 1000, $ms * 1000, '';
	}
	push @outcomes, '99999,2,unknown,10000000,10060000,57P01', '99998,2,connect,10070000,10070000,refused';
	# One hangs since the moment before, which shows when all is over; one log-in hung, and one hung long before.
	push @outcomes, '99997,3,unanswered,9990000,29990000,commit', '0,4,unanswered,10500000,30500000,login', '99996,3,unanswered,6000000,26000000,insert';
	for (my $ms = 5100; $ms <= 15000; $ms += 100)
	{
		push @samples, join ',', $ms, scalar(grep { $_ >= $ms - 100 && ($_ <= 10050 || $_ >= 11250) } $ms - 100 .. $ms - 1), 0, 0, 2, 1000;
	}
	my ($status, $output) = run_program($^X, "$directory/trouble_recovery.pl", write_file('known.outcomes', 'head', @outcomes), write_file('known.samples', 'head', @samples),
		write_file('known.marks', 'crash,10000,10010'));
	is($status, 0, 'an incident that is known');
	my %got = $output =~ /^crash,([\w.]+),(\S+)$/mg;
	is_deeply([ @got{qw(before_per_s gap_ms first_ms failed error.unknown.57P01 error.connect.refused error.unanswered.commit error.unanswered.login)} ],
		[ 1000, 1200, 1250, 2, 1, 1, 1, 1 ], 'gives what it must');
	is($got{'error.unanswered.insert'}, undef, 'and nothing of what was before');
	cmp_ok($got{recovered_ms}, '>=', 1250, 'throughput is back after the gap') and cmp_ok($got{recovered_ms}, '<=', 1400, 'with the next samples');
}
{
	my $csv = write_file('trouble.csv', 'leg,round,incident,measure,value', (map { my $leg = $_; map { "$leg,1,run_incidents,$_,0" } @never } qw(direct sluice)),
		'direct,1,run_incidents,told,1000', 'sluice,1,run_incidents,told,2000', 'sluice,2,run_incidents,told,2000', 'sluice,2,run_incidents,lost,1',
		(map { my $leg = $_; ("$leg,1,crash,before_per_s,900", "$leg,1,crash,gap_ms,400", "$leg,1,crash,recovered_ms,NA", "$leg,1,crash,failed,7",
			"$leg,1,crash,error.unknown.57P02,7") } qw(direct sluice)), 'sluice,1,crash,error.unanswered.commit,2', 'sluice,1,crash,error.unanswered.login,1',
		'sluice,1,run_incidents,unanswered,3');
	my ($status, $output, $errors) = run_program($^X, "$directory/trouble_report.pl", $csv);
	is($status, 0, 'the report of trouble') or diag($errors);
	like($output, qr/told committed, not there \| 0 \| 1 \| 0 \| \*\*MISSED\*\*/, 'misses its target for a single operation lost');
	like($output, qr/\| crash \| pg_sluice \| 900 .*\| no \| 7 \| 3 \| unknown 57P02 7, unanswered commit 2, unanswered login 1 \|/, 'and tells what was never as before, and who was never answered');
	like($output, qr/\| crash \| direct \| 900 .*\| no \| 7 \| 0 \| unknown 57P02 7 \|/, 'and who always was');
	like($output, qr/never answered[^|]*\| 0 \| 3 \| 0 \| \*\*MISSED\*\*/, 'which is a target of its own');
}
{
	my $turn = '2000,2000,1';
	my $csv = write_file('herd.csv', 'leg,over,wanted,clients,round,measure,at,value', 'all,none,2000,2000,1,binds,2000,nothing',
		'sluice,none,2000,2000,1,reserved_bytes,2000,280',
		map { my ($leg, $rate, $bytes) = @$_; ("$leg,tcp,$turn,connect_rate,1000,$rate", "$leg,tcp,$turn,connect_rate,2000,$rate", "$leg,tcp,$turn,opening_rate,2000,$rate",
			"$leg,tcp,$turn,user_bytes,2000,$bytes", "$leg,tcp,$turn,kernel_bytes,2000,4000", "$leg,tcp,$turn,alone_tps,20,1000", "$leg,tcp,$turn,beside_tps,20,900") }
			[ 'pgbouncer', 9000, 900 ], [ 'sluice', 9999, 119 ]);
	my ($status, $output, $errors) = run_program($^X, "$directory/herd_report.pl", $csv);
	is($status, 0, 'the report of the herd') or diag($errors);
	like($output, qr/\| pg_sluice \| TCP \| 2,000 \| 9,999 .*\*\*MISSED\*\*/, 'misses a rate that is just too low');
	like($output, qr/p99 ms, median of the steps/, 'and says of what a percentile is');
	like($output, qr/\| pg_sluice \| TCP \| 2,000 \| 119 \| 280 \| 399 .*\| met \|/, 'adds what is set aside to what has grown');
	like($output, qr/\| pg_sluice \| TCP \| 1,980 \| 20 \| 1,000 \| 900 \| 0\.90 \|/, 'and compares those who work');
	PostgreSQL::Test::Utils::append_to_file($csv, join '', map { my $leg = $_; map { "$leg,tcp,2000,2000,$_->[0],$_->[1],2000,$_->[2]\n" }
		[ 1, 'opened_p50_us', 2000 ], [ 1, 'opened_p99_us', 30000 ], [ 1, 'opened_max_us', 70000 ], [ 2, 'opened_p99_us', 32000 ], [ 2, 'opened_max_us', 60000 ] }
			qw(pgbouncer sluice));
	(undef, $output) = run_program($^X, "$directory/herd_report.pl", $csv);
	like($output, qr/\| p50 ms \| p99 ms \| longest ms \|/, 'times of all connections together, if they are known');
	like($output, qr/\| pg_sluice \| TCP \| 2,000 \| 9,999 \|[^|]*\|[^|]*\| 2\.00 \| 31\.0 \| 70\.0 \|/, 'the longest is that of all rounds');
	foreach my $plot (qw(connect memory))
	{
		(my $result, $output) = run_program($^X, "$directory/herd_report.pl", '--plot', $plot, $csv);
		ok($result == 0 && $output =~ /^plot /m, "there is something to draw: $plot");
	}
}

done_testing();
