# SPDX-License-Identifier: PostgreSQL
#
# The spike's tools say what happened: the proxy lets connections wait and keeps their books, the clients note when what
# was sent, begun, ended and answered, and the state at any moment follows from that.  Nothing here depends on speed:
# times have bounds from below only, and what is counted is counted in records that are known.

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Open2;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $bench = dirname(__FILE__) . '/../bench';
my $lab = "$bench/lab";
my $files = PostgreSQL::Test::Utils::tempdir();

# ---- tools

sub run_program
{
	my ($status, $name, @command) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run(\@command, '>', \$output, '2>', \$errors, IPC::Run::timeout($SluiceTest::patience_s));
	is($? >> 8, $status, $name) or diag("@command\n$output$errors");
	return wantarray ? ($output, $errors) : $output;
}

sub table
{
	my ($file) = @_;
	my ($head, @lines) = map { [ split /,/, $_, -1 ] } split /\n/, PostgreSQL::Test::Utils::slurp_file($file);
	my @rows;
	foreach my $line (@lines)
	{
		my %row;
		@row{@$head} = @$line;
		push @rows, \%row;
	}
	return @rows;
}

# A program that prints its port: (process, port, what keeps it).
sub begin
{
	my (@command) = @_;
	my $pid = open2(my $from, my $to, @command);
	chomp(my $port = <$from> // '');
	return { pid => $pid, port => $port, from => $from, to => $to };
}

sub end
{
	my ($program) = @_;
	kill 'TERM', $program->{pid};
	waitpid $program->{pid}, 0;
	return;
}

foreach my $program (qw(spike_proxy spike_clients))
{
	run_program(0, "$program can be compiled", 'g++', qw(-std=c++17 -Wall -Wextra -Werror -o), "$files/$program", "$lab/$program.cpp");
}

sub begin_proxy
{
	my ($delay_ms, $host, $port) = @_;
	return begin("$files/spike_proxy", '--delay-ms', $delay_ms, '--host', $host, '--port', $port,
		'--log', "$files/connections", '--seconds', $SluiceTest::patience_s);
}

sub spike
{
	my ($status, $name, $port, @options) = @_;
	unlink "$files/requests";
	my (undef, $errors) = run_program($status, $name, "$files/spike_clients", '--host', '127.0.0.1', '--port', $port,
		'--user', 'spiky', '--requests', "$files/requests", '--watch-ms', 0, @options);
	return -e "$files/requests" ? table("$files/requests") : $errors;
}

sub least
{
	my ($least) = sort { $a <=> $b } @_;
	return $least;
}

# ---- against a server whose delays are known

{
	my $fake = begin($^X, "$bench/fake_server.pl", '--seconds', $SluiceTest::patience_s);
	my @requests = spike(0, 'clients that stay', $fake->{port}, qw(--database x --clients 20 --query), 'wait 30 hold 20');
	is(scalar @requests, 20, 'each client is answered');
	ok(least(map { $_->{answered_us} - $_->{sent_us} } @requests) >= 50_000, 'after the delay of the server');
	my ($first_answer, $last_sending) = (least(map { $_->{answered_us} } @requests), -least(map { -$_->{sent_us} } @requests));
	cmp_ok($first_answer, '>=', $requests[0]{sent_us} + 50_000, 'none before the first has sent');
	is(join(' ', map { $_->{began} . $_->{error} } @requests), ' ' x 19, 'a server that does not tell when it began is not asked to');

	@requests = spike(2, 'requests that fail', $fake->{port}, qw(--database x --clients 3 --query), 'fail 53300');
	is(join(' ', map { $_->{error} } @requests), '53300 53300 53300', 'are told with their SQLSTATE');
	@requests = spike(2, 'connections that are lost', $fake->{port}, qw(--database x --clients 2 --query), 'hang up');
	is(join(' ', map { $_->{error} } @requests), '08006 08006', 'are errors');

	my $marks = "$files/marks";
	spike(0, 'commands', $fake->{port}, qw(--database x --clients 2 --query x --before), "echo before >>$marks", '--after', "echo after >>$marks");
	is(PostgreSQL::Test::Utils::slurp_file($marks), "before\nbefore\nafter\n", 'run before the warm-up, before the spike, and after it');
	like(spike(1, 'a command that fails', $fake->{port}, qw(--database x --clients 1 --query x --before false)), qr/the command failed: false/,
		'ends it');

	my $proxy = begin_proxy(200, '127.0.0.1', $fake->{port});
	@requests = spike(0, 'through the proxy', $proxy->{port}, qw(--database x --clients 3 --connect --query), 'wait 0 hold 5');
	ok(least(map { $_->{answered_us} - $_->{sent_us} } @requests) >= 205_000, 'a connection waits before it reaches the server');
	my @book;
	foreach (1 .. 10 * $SluiceTest::patience_s)
	{
		@book = table("$files/connections");
		last if grep({ $_->{event} eq 'closed' } @book) == 3;
		select undef, undef, undef, 0.1;
	}
	end($proxy);
	my %at;
	$at{ $_->{connection} }{ $_->{event} } = $_->{at_us} foreach @book;
	is(scalar keys %at, 3, 'the book has each connection');
	is(scalar(grep { $_->{ready} >= $_->{opened} + 200_000 && $_->{closed} >= $_->{ready} } values %at), 3, 'and when it was opened, ready and closed');
	end($fake);
}

# ---- a real server, directly through the proxy and through the pool

my $told = 'SELECT extract(epoch FROM clock_timestamp()) AS began, pg_backend_pid() AS backend, pg_sleep(0.01),'
	. ' extract(epoch FROM clock_timestamp()) AS ended';

sub in_order
{
	my ($requests) = @_;
	return scalar grep {
		$_->{sent_us} <= $_->{began} * 1e6 + 1 && $_->{began} + 0.009 <= $_->{ended} && $_->{ended} * 1e6 <= $_->{answered_us} + 1
	} @$requests;
}

{
	my $server = SluiceTest->new('main', tcp => 1, conf => "sluice.min_pool_size = 2\nsluice.max_pool_size = 20\n");
	$server->sql('CREATE ROLE spiky LOGIN');
	PostgreSQL::Test::Utils::append_to_file($server->node->data_dir . '/pg_hba.conf', "host all spiky 127.0.0.1/32 trust\n");
	$server->node->reload;

	my $proxy = begin_proxy(50, $server->host, $server->port);
	my @requests = spike(0, 'a server behind the proxy', $proxy->{port}, qw(--database postgres --clients 4 --query), $told,
		'--warm-query', $told, qw(--warm-clients 2 --warm-rounds 2));
	is(in_order(\@requests), 4, 'each request was sent, begun, ended and answered in this order');
	my %backends = map { $_->{backend} => 1 } @requests;
	is(scalar keys %backends, 4, 'each by a backend of its own');
	my $large = spike(0, 'an answer that is large', $proxy->{port}, qw(--database postgres --clients 2 --connect --query),
		"SELECT repeat('x', 3000000), 1 AS backend");
	is((table("$files/requests"))[0]{backend}, 1, 'comes through whole');
	end($proxy);

	$server->sql("ALTER SYSTEM SET sluice.debug_backend_start_delay = '1s'");
	$server->sql('SELECT pg_reload_conf()');
	@requests = spike(0, 'a pool', $server->pool_port, qw(--database postgres --clients 12 --query), $told);
	is(in_order(\@requests), 12, 'the same of the pool');
}

# ---- the state at any moment

# Two connections from before, one that is asked for at 1.5 ms and ready at 4 ms.  Three clients at 0, 0.1 and 0.2 ms,
# begun at 0.5, 1 and 3 ms, ended 2 ms later each, answered 0.1 ms after that.
PostgreSQL::Test::Utils::append_to_file("$files/known_requests", <<'CSV');
client,sent_us,began,ended,answered_us,backend,error
1,1000000000,1000.0005,1000.0025,1000002600,11,
2,1000000100,1000.001,1000.003,1000003100,12,
3,1000000200,1000.003,1000.005,1000005100,12,
CSV
PostgreSQL::Test::Utils::append_to_file("$files/known_connections", <<'CSV');
at_us,connection,event
999000000,1,opened
999150000,1,ready
999000100,2,opened
999150100,2,ready
999000200,3,opened
999150200,3,ready
999900000,3,closed
1000001500,4,opened
1000004000,4,ready
CSV
PostgreSQL::Test::Utils::append_to_file("$files/samples", "system,run,at_ms,queued,active,idle,starting,total\n");

sub known_run
{
	my ($system, $run, $requests, @options) = @_;
	return run_program(0, "run $run of $system", $^X, "$lab/spike_run.pl", '--system', $system, '--run', $run,
		'--requests', $requests, '--connections', "$files/known_connections", @options);
}

my $line = known_run('pg_sluice', 1, "$files/known_requests", '--samples', "$files/samples", '--from-ms', -1, '--until-ms', 6, '--note', '1 clients, wait');
is($line, "pg_sluice,1,3,3,0,2.60,3.10,5.10,2,1,3,3,2,2,2.00,1 clients; wait\n", 'what the spike was');
my @samples = table("$files/samples");
is(scalar @samples, 29, 'a sample each 250 us');
my %sample = map { 0 + $_->{at_ms} => join ' ', @$_{qw(queued active idle starting total)} } @samples;
is($sample{-0.25}, '0 0 2 0 2', 'quiet before');
is($sample{0}, '1 0 2 0 2', 'the first client');
is($sample{0.25}, '3 0 2 0 2', 'all clients');
is($sample{0.75}, '2 1 1 0 2', 'one is served');
is($sample{2}, '1 2 0 1 2', 'two are, and a connection is under way');
is($sample{4.5}, '0 1 2 0 3', 'which is ready in the end');
is($sample{6}, '0 0 3 0 3', 'and quiet after');

PostgreSQL::Test::Utils::append_to_file("$files/failed_requests", PostgreSQL::Test::Utils::slurp_file("$files/known_requests")
	=~ s/^3,.*$/3,1000000200,,,1030000000,,57014/mr);
my $failed = known_run('Other', 1, "$files/failed_requests");
is($failed, "Other,1,3,2,1,2.60,2.85,3.10,2,1,3,3,2,2,2.00,\n", 'a request that failed has no time, and was queued until it was given up');

# ---- the report

my $head = 'system,run,clients,served,failed,first_ms,median_ms,last_ms,before,opened,at_end,peak_queued,peak_active,backends,longest_query_ms,note';
sub report
{
	my ($name, @lines) = @_;
	unlink "$files/csv";
	PostgreSQL::Test::Utils::append_to_file("$files/csv", join '', map { "$_\n" } $head, @lines);
	return run_program(0, $name, $^X, "$lab/spike_report.pl", "$files/csv", 5, 50, 150, 2, 30);
}

my $good = 'pg_sluice,1,50,50,0,2.5,12.5,25.0,5,1,6,45,5,5,2.2,4 below the minimum size; 1 clients wait';
my $report = report('a report', $good, 'pg_sluice,2,50,50,0,3.5,13.5,39.0,5,0,5,44,5,5,9.1,', 'Other,1,50,49,1,2.0,100.0,400.0,5,45,50,50,50,50,2.5,');
like($report, qr/^\| pg_sluice \| 2 \| 5 \| 0\.5 \(0 to 1\) \| 5\.5 \(5 to 6\) \| 44\.5 \(44 to 45\) \| 3\.00 \| 13\.0 \| 32\.0 \| 39\.0 \| 0 \|$/m,
	'medians, ranges and the worst');
like($report, qr/^\| Other \| 1 \| 5 \| 45 \| 50 \| 50 \| 2\.00 \| 100 \| 400 \| 400 \| 1 \|$/m, 'a loss is shown as plainly');
like($report, qr/^\| 1 \| 25\.0 \| 6 \| 2\.2 \| 4 below the minimum size; 1 clients wait \|$/m, 'with the reasons of starts');
like($report, qr/^Targets: 2 met, 0 missed\.$/m, 'the targets are met');
like($report, qr/a query takes 30 us longer through it/, 'what the proxy costs is told');
like(report('too many connections', $good =~ s/,6,45/,7,45/r), qr/at most 6 connections at the end \| 7 \| \*\*MISSED\*\*/, 'are a target missed');
like(report('too late', $good =~ s/25\.0/40.1/r), qr/less than 40 ms \| 40\.1 ms \| \*\*MISSED\*\*/, 'is another');
like(report('somebody not served', $good =~ s/,50,50,0,/,50,49,1,/r), qr/less than 40 ms \| 25\.0 ms \| \*\*MISSED\*\*/, 'is missed too');

done_testing();
