# SPDX-License-Identifier: PostgreSQL
#
# The load generator of the benchmarks measures what it says: delays that are known come out as the percentiles they
# must give, and a server that stalls is charged for every request that was due meanwhile.  Delays are bounds from below;
# from above there are only those that hold however slow the machine is: the sum of the parts, the time all of it took.

use strict;
use warnings;

use File::Basename qw(dirname);
use Certificates;
use IPC::Open2;
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time);

my $directory = dirname(__FILE__) . '/../bench';
my $files = PostgreSQL::Test::Utils::tempdir();

# ---- running it

# What a run has printed ({ succeeded => ..., 'error 22012' => ... }), measured ({ latency => { p50_us => ... } }) and
# written down for each request ([ { latency_us => ... }, ... ]).
sub table
{
	my ($name) = @_;
	my ($head, @lines) = map { [ split /,/, $_, -1 ] } split /\n/, PostgreSQL::Test::Utils::slurp_file("$files/$name");
	my @rows;
	foreach my $line (@lines)
	{
		my %row;
		@row{@$head} = @$line;
		push @rows, \%row;
	}
	return @rows;
}

# Runs it with these options; what it has printed, and its complaints.
sub run_generator
{
	my ($status, @options) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run([ "$directory/load_generator", @options ], '>', \$output, '2>', \$errors, IPC::Run::timeout($SluiceTest::patience_s));
	is($? >> 8, $status, "load_generator @options: exit status $status") or diag("$output$errors");
	return ($output, $errors);
}

sub load
{
	my ($status, $conninfo, @options) = @_;
	my ($output) = run_generator($status, @options, '--csv', "$files/csv", '--requests', "$files/requests",
		'--histogram', "$files/histogram", $conninfo);
	my %said = $output =~ /^([\w ]+): ([\d.]+)/mg;
	return (\%said, { map { $_->{measure} => $_ } table('csv') }, [ table('requests') ]);
}

# The totals of the last run: { throughput_per_s => ..., 'error.22012' => ... }.
sub summary { return { map { $_->{name} => $_->{value} } table('csv.summary.csv') } }

sub between
{
	my ($value, $low, $high, $name) = @_;
	my $good = $value >= $low && $value < $high;
	ok($good, $name) or diag("$value is not between $low and $high");
	return;
}

# Calls a function with the description of a server that knows its delays.
sub with_fake
{
	my ($server_options, $function) = @_;
	my $pid = open2(my $from, my $to, $^X, "$directory/fake_server.pl", '--seconds', $SluiceTest::patience_s,
		'--record', "$files/record", @$server_options);
	chomp(my $port = <$from>);
	my @result = $function->("host=127.0.0.1 port=$port dbname=x user=x");
	# It ends with its standard input.
	close $to;
	waitpid $pid, 0;
	return @result;
}

sub load_fake
{
	my ($status, $server_options, @options) = @_;
	return with_fake($server_options, sub { return load($status, $_[0], @options) });
}

# What must come out of all values of a measure that were written down, by nearest rank.
sub rank
{
	my ($percent, $column, $requests) = @_;
	my @sorted = sort { $a <=> $b } map { $_->{$column} } @$requests;
	return $sorted[ POSIX::ceil(@sorted * $percent / 100) - 1 ];
}

# What the load could not be run for.
sub complaint
{
	my ($server_options, @options) = @_;
	my (undef, $errors) = with_fake($server_options, sub { return run_generator(1, @options, $_[0]) });
	return $errors;
}

# What the last fake server was told: a line for each message.
sub recorded { return split /\n/, PostgreSQL::Test::Utils::slurp_file("$files/record") }

sub script
{
	my ($name, $text) = @_;
	unlink "$files/$name";
	PostgreSQL::Test::Utils::append_to_file("$files/$name", $text);
	return "$files/$name";
}

# ---- known delays

{
	my ($said, $measured, $requests) =
		load_fake(0, [ '--delays', '90x10,9x300,1x2000' ], '--rate', 300, '--seconds', 2, '--arrivals', 'constant', '--connections', 200);
	is($said->{requests}, 599, 'constant arrivals: one every 3.33 ms, the first after one interval');
	is($said->{succeeded}, 599, 'all succeed');
	is(scalar @$requests, 599, 'each is written down');
	my $latency = $measured->{latency};
	ok($latency->{p50_us} >= 10_000, 'the median is no less than the usual delay');
	ok($latency->{p95_us} >= 300_000, 'the 95th percentile is no less than the delay of nine in a hundred');
	ok($latency->{p999_us} >= 2_000_000, 'the 99.9th percentile is no less than the delay of one in a hundred');
	is_deeply([ @$latency{qw(p50_us p95_us p999_us)} ], [ map { rank($_, 'latency_us', $requests) } 50, 95, 99.9 ],
		'they are those of the requests that were written down');
	is($latency->{p9999_us}, $latency->{max_us}, 'of 599 values the 99.99th percentile is the greatest');
	between($latency->{min_us}, 10_000, $latency->{p50_us} + 1, 'the least is no less than the least delay');
	my $summary = summary();
	is_deeply([ @$summary{qw(requests succeeded failed unfinished)} ], [ 599, 599, 0, 0 ], 'the totals are in the summary');
	between($summary->{peak_concurrency}, 2, 201, 'and how many were under way at once');
	is($summary->{bytes_sent}, 599 * length("Q....SELECT 1\0"), 'and the bytes');

	my %count;
	$count{ $_->{measure} } += $_->{count} foreach table('histogram');
	is($count{latency}, 599, 'the histogram holds all of them');
}

# ---- waiting and being served

{
	my (undef, $measured) = load_fake(0, [], '--rate', 100, '--seconds', 1, '--query', 'wait 200 hold 50');
	ok($measured->{wait}{p50_us} >= 199_990, 'the wait is the time until began_at');
	# began_at is told in microseconds.
	ok($measured->{service}{p50_us} >= 49_990, 'the service is the time after it');
	ok($measured->{latency}{p50_us} >= 250_000, 'the latency is no less than both');
	# Each is cut to whole microseconds.
	between($measured->{wait}{mean_us} + $measured->{service}{mean_us} - $measured->{latency}{mean_us}, -10, 10, 'and no more');
}

# ---- a stall

{
	my $late = sub { scalar grep { $_->{latency_us} > 400_000 } @{ $_[0] } };
	my (undef, $open, $open_requests) =
		load_fake(0, [ '--stall', '0.3,1' ], '--rate', 200, '--seconds', 1.8, '--arrivals', 'constant', '--connections', 5);
	# 200 requests were due in that second: those of the first 0.6 s had to wait for more than 0.4 s.
	ok($late->($open_requests) >= 115, 'open loop: the stall shows in each request that was due meanwhile');
	ok($open->{latency}{p90_us} >= 700_000, 'and in the percentiles');
	ok($open->{queued}{max_us} >= 700_000, 'although only five connections were there to ask');
	my $began = time;
	my (undef, $closed, $closed_requests) = load_fake(0, [ '--stall', '0.3,1' ], '--clients', 5, '--think', 5, '--seconds', 1.8);
	# Five clients have one request each at a time: of more than 0.4 s, they have had time for so many.
	between($late->($closed_requests), 1, 5 * (time - $began) / 0.4 + 1, 'closed loop: it shows in one request of each client');
	ok($closed->{latency}{max_us} >= 700_000, 'which took as long');
}

# ---- errors

{
	my ($said) = load_fake(2, [], '--rate', 50, '--seconds', 0.5, '--arrivals', 'constant', '--query', 'fail 53300');
	is($said->{'error 53300'}, 24, 'errors are counted by SQLSTATE');
	($said) = load_fake(2, [], '--rate', 50, '--seconds', 0.19, '--arrivals', 'constant', '--query', 'hang up', '--connections', 1);
	is($said->{'error 08006'}, 9, 'so are lost connections, and others take their places');
	my (undef, $measured);
	($said, $measured) =
		load_fake(2, [ '--delays', '1x600000' ], '--rate', 50, '--seconds', 0.5, '--arrivals', 'constant', '--connections', 3, '--drain', 1);
	is($said->{unfinished}, 24, 'what is not answered in the end is told');
	ok($measured->{latency}{p50_us} >= 1_000_000, 'and counts with the time it has taken so far');
}

# ---- what a server may do to a client

{
	like(complaint([ '--welcome', 'password' ], '--clients', 1), qr/asks for a password/, 'a server that asks for a password');
	like(complaint([ '--welcome', 'nonsense' ], '--clients', 1), qr/does not speak the protocol/, 'something else than a server');
	like(complaint([ '--welcome', '53300' ], '--clients', 1), qr/the server answered: as asked/, 'one that refuses');
	my (undef, $errors) = run_generator(1, '--clients', 1, "host=$files port=1");
	like($errors, qr/could not connect to \Q$files\E port 1: No such file/, 'none at all');
	(undef, $errors) = run_generator(1, '--clients', 1, 'host=localhost speed=high');
	like($errors, qr/unknown in the connection's description: speed/, 'a description that makes no sense');

	my @once = ('--clients', 3, '--operations', 3);
	foreach my $case ([ 'nonsense', '08P01' ], [ 'leave 57P01', '57P01' ], [ 'hang up', '08006' ], [ 'fail 40001', '40001' ])
	{
		load_fake(2, [], @once, '--query', $case->[0]);
		is(summary()->{"error.$case->[1]"}, 3, "$case->[0]: each is error $case->[1]");
	}
	load_fake(2, [], '--clients', 1, '--operations', 3, '--query', 'twice');
	is(summary()->{'error.08P01'}, 3, 'an answer that nobody asked for is noticed');

	load_fake(2, [], '--clients', 1, '--operations', 3, '--query', 'last 57P01');
	my $summary = summary();
	is_deeply([ @$summary{qw(succeeded failed error.57P01)} ], [ 2, 1, 1 ],
		'an error that follows an answer is that of the next request on the connection');

	my $broken = script('broken', "BEGIN;\nfail 22012;\nSELECT 1;\nEND;\n");
	load_fake(2, [], '--clients', 1, '--operations', 2, '--script', $broken);
	is_deeply([ grep { /^Q/ } recorded() ], [ ("Q BEGIN;\\00", "Q fail 22012;\\00", "Q ROLLBACK\\00") x 2 ],
		'after an error the rest is left out, and the transaction ended');
}

# ---- answers cut anywhere

foreach my $protocol ('simple', 'prepared')
{
	# The answers have fewer than 120 bytes, so each has been cut at each place.
	my ($said, $measured) =
		load_fake(0, ['--cut'], '--clients', 8, '--operations', 240, '--protocol', $protocol, '--query', 'wait 1 hold 1');
	is($said->{succeeded}, 240, "$protocol protocol: answers may come in any two parts");
	is($measured->{wait}{count}, 240, 'and are understood as a whole');
}

# ---- the prepared protocol

{
	my $twice = script('prepared', "\\set one random(7, 7)\nwait 1 hold :one;\nSELECT :one, ':two'::text, :one, :three;\nwait 1 hold :one;\n");
	my ($said, $measured) =
		load_fake(0, [], '--clients', 1, '--operations', 2, '--protocol', 'prepared', '-D', 'three=x', '--script', $twice);
	my @run = grep { !/^[+X]/ } recorded();
	my $rest = [ 'E \00\00\00\00\00', 'S ' ];
	my $wait = [ 'B \00load_0\00\00\00\00\01\00\00\00\017\00\00', @$rest ];
	my $select = [ 'B \00load_1\00\00\00\00\02\00\00\00\017\00\00\00\01x\00\00', @$rest ];
	is_deeply(
		\@run,
		[
			'P load_0\00wait 1 hold $1;\00\00\00', 'D Sload_0\00', @$wait,
			'P load_1\00SELECT $1, \':two\'::text, $1, $2;\00\00\00', 'D Sload_1\00', @$select,
			@$wait, @$wait, @$select, @$wait
		],
		'each text is parsed once on a connection; variables are its parameters');
	is($measured->{wait}{count}, 2, 'began_at is known by the description of the statement');
	load_fake(2, [], '--clients', 1, '--operations', 2, '--protocol', 'prepared', '--query', 'hang up');
	is(scalar(grep { /^P/ } recorded()), 2, 'a new connection knows no statement');
}

# ---- COPY

{
	my $copy = script('copy', "COPY x FROM STDIN;\n\\copyin 20001 100\nCOPY x TO STDOUT;\n");
	foreach my $protocol ('simple', 'prepared')
	{
		my ($said) = load_fake(0, [], '--clients', 2, '--operations', 2, '--protocol', $protocol, '--script', $copy);
		is_deeply([ grep { /copied/ } recorded() ], [ ('copied 20001 rows, 2000100 bytes') x 2 ], "$protocol protocol: COPY in");
		between(summary()->{bytes_received}, 2 * 1000 * 105, 2 * 1000 * 105 + 1000, 'COPY out is read to its end');
		between(summary()->{bytes_sent}, 2 * 20001 * 105, 2 * 20001 * 105 + 1000, 'and no byte too many is sent');
	}
	my $refused = script('refused', "COPY refused FROM STDIN;\n\\copyin 20001 100\n");
	my ($said) = load_fake(2, [], '--clients', 1, '--operations', 3, '--script', $refused);
	is($said->{'error 22P04'}, 3, 'a COPY that fails is an error, and the connection goes on');
	is(scalar(grep { /^\+/ } recorded()), 1, 'it is the same one');
	like(complaint([], '--clients', 1, '--query', 'COPY x FROM STDIN'), qr/no \\copyin follows/, 'rows have to be given');
}

# ---- a machine that stands still

{
	# As far as a process can tell: it is stopped for a while.
	my ($said) = load_fake(0, [ '--delays', '1x10' ], '--rate', 50, '--seconds', 4, '--watch-stalls', '--after-opening',
		'generator=$PPID; (sleep 0.5; kill -STOP $generator; sleep 0.4; kill -CONT $generator) >/dev/null 2>&1 &');
	my $summary = summary();
	ok($summary->{longest_stall_ms} >= 300, 'the longest stall is seen') or diag($summary->{longest_stall_ms});
	ok($summary->{stalled_ms} >= 300, 'and how long all of them took') or diag($summary->{stalled_ms});
	ok($summary->{stalls} >= 1, 'and how many they were');
	like($said->{'stalls of the machine'}, qr/^\d/, 'they are in the report');
	load_fake(0, [ '--delays', '1x10' ], '--rate', 50, '--seconds', 0.2);
	ok(!exists summary()->{longest_stall_ms}, 'nothing is said of them if nobody asks');
}

# ---- how many, and by whom

{
	my ($said, $measured) = load_fake(0, [ '--delays', '1x20' ], '--clients', 7, '--operations', 17, '--reconnect');
	is($said->{succeeded}, 17, 'a number of operations');
	is($measured->{connect}{count}, 17, 'reconnecting: each opens a connection');
	is(scalar(grep { /^\+/ } recorded()), 17, 'and the server has seen as many');
	is(scalar(grep { /^X/ } recorded()), 17, 'of which each has said goodbye');
	between($said->{'most at work'}, 1, 8, 'never more than there are clients');
	my $summary = summary();
	ok($summary->{seconds} < 3600, 'the time is what it took');
	between($summary->{throughput_per_s} * $summary->{seconds}, 16.5, 17.5, 'and the throughput is over that time');
	load_fake(2, [ '--welcome', '53300' ], '--clients', 2, '--operations', 4, '--reconnect');
	is(summary()->{'error.53300'}, 4, 'refused connections are errors of their requests');

	($said, $measured) = load_fake(0, [], '--rate', 100, '--seconds', 60, '--operations', 20, '--reconnect');
	is($said->{succeeded}, 20, 'open loop: a number of operations');
	is($measured->{connect}{count}, 20, 'and reconnecting');

	($said, $measured) = load_fake(0, [ '--delays', '1x50' ], '--clients', 40, '--operations', 40, '--begin-together',
		'--hold-idle', 30, '--samples', "$files/samples");
	is($measured->{opening}{count}, 70, 'the idle ones are opened as well');
	is(summary()->{peak_concurrency}, 40, 'all clients at once');
	ok($measured->{queued}{max_us} >= $measured->{queued}{min_us}, 'which start at the same instant');
	is(scalar(grep { /^Q/ } recorded()), 40, 'the idle ones ask nothing');
	($said) = load_fake(0, [], '--hold-idle', 5, '--seconds', 0.2);
	is($said->{requests}, 0, 'there may be none but idle ones');

	load_fake(0, [ '--delays', '1x10' ], '--clients', 2, '--seconds', 1, '--samples', "$files/samples", '--drain', 10);
	my @samples = table('samples');
	between(scalar @samples, 1, 12, 'a sample each 100 ms');
	is($samples[0]{at_ms}, 100, 'the first one after 100 ms');
	my $sampled = 0;
	$sampled += $_->{succeeded} foreach @samples;
	between($sampled, 1, summary()->{succeeded} + 1, 'tell how many succeeded');
	ok(!(grep { $_->{succeeded} && $_->{slowest_us} < 10_000 } @samples), 'and the slowest of them');
}

# ---- a mix

{
	my $often = script('often', "SELECT often;\n");
	my $seldom = script('seldom', "SELECT seldom;\nSELECT seldom;\n");
	my (undef, $measured) = load_fake(0, [], '--clients', 5, '--operations', 400, '--script', "a=$often\@3", '--script', "b=$seldom");
	my $of_a = $measured->{'latency.a'}{count};
	my $of_b = $measured->{'latency.b'}{count};
	is($of_a + $of_b, 400, 'each request is one of the scripts');
	between($of_a, 250, 350, 'chosen by weight');
	is(scalar(grep { /often/ } recorded()), $of_a, 'which the server sees');
	is(scalar(grep { /seldom/ } recorded()), 2 * $of_b, 'with all their statements');
}

# ---- a real server

{
	my $server = SluiceTest->new('main', tcp => 1,
		conf => "sluice.max_pool_size = 2\n" . Certificates->new->conf('server'));
	my $conninfo = $server->pool_connstr;
	my $while_connected = 'psql -X -A -t -o ' . $server->node->basedir . "/clients -c 'SELECT clients FROM sluice.status' '"
		. $server->connstr =~ s/'//gr . "'";
	my ($said, $measured) = load(0, $conninfo,
		'--rate', 100, '--seconds', 1, '--connections', 20, '--before-leaving', $while_connected,
		'--query', 'SELECT clock_timestamp() AS began_at, pg_sleep(0.005)');
	is(PostgreSQL::Test::Utils::slurp_file($server->node->basedir . '/clients'), "20\n", 'its connections are there until it leaves');
	is($said->{succeeded}, $said->{requests}, 'through the pool');
	is($measured->{wait}{count}, $said->{requests}, 'the server tells when it began');
	ok($measured->{service}{p50_us} >= 5_000, 'and it takes as long as it sleeps');
	ok($measured->{latency}{p50_us} >= $measured->{wait}{p50_us}, 'which is less than the whole');
	ok($measured->{wait}{p50_us} >= $measured->{admission}{p50_us}, 'and the server is charged for its own share only');

	$server->sql('CREATE TABLE seen (value integer CHECK (value BETWEEN 5 AND 14), text text)');
	my $thinking = script('script', <<'SQL');
-- a transaction that thinks
\set value random(1 * :low, 14)
BEGIN;
INSERT INTO seen
  VALUES (:value, ':other'::text);
\sleep 20 ms
SELECT count(*) FROM seen;
END;
SQL
	my @script = ('--script', $thinking, '--clients', 4, '--seconds', 0.5);
	($said, $measured) = load(0, $conninfo, @script, '-D', 'low=5');
	ok($measured->{latency}{p50_us} >= 20_000, 'a script with a pause takes as long as the pause');
	is($server->sql('SELECT count(*) FROM seen'), $said->{requests}, 'each transaction has committed');
	is($server->sql('SELECT DISTINCT text FROM seen'), ':other', 'unknown variables are left alone');
	($said) = load(2, $conninfo, @script, '-D', 'low=14', '--query', 'SELECT 1; SELECT 1/0');
	is($said->{'error 22012'}, $said->{requests}, 'an error in the end is an error');
	my $broken = script('broken', "BEGIN;\nSELECT 1/0;\nINSERT INTO seen VALUES (5);\nEND;\n");
	($said) = load(2, $conninfo, '--script', $broken, '--rate', 50, '--seconds', 0.5, '--connections', 2);
	is($said->{'error 22012'}, $said->{requests}, 'an error leaves out the rest and ends the transaction');

	$server->sql('CREATE TABLE copied (text text); TRUNCATE seen');
	my $copy = script('copy', "COPY copied FROM STDIN;\n\\copyin 1000 50\nCOPY copied TO STDOUT;\n");
	load(0, $conninfo, '--script', $copy, '--clients', 2, '--operations', 4);
	is($server->sql('SELECT count(*), count(DISTINCT text), sum(length(text)) FROM copied'), '4000|1|196000', 'COPY both ways');
	my $insert = script('insert', "\\set value random(5, 14)\nINSERT INTO seen VALUES (:value, :client_id);\n");
	foreach my $to ($conninfo, $server->connstr(host => '127.0.0.1', sslmode => 'require'))
	{
		$server->sql('TRUNCATE seen');
		load(0, $to, '--script', $insert, '--clients', 3, '--operations', 60, '--protocol', 'prepared');
		is($server->sql('SELECT count(*), count(DISTINCT text), min(text), max(text) FROM seen'), '60|3|0|2',
			'prepared statements, ' . ($to eq $conninfo ? 'through the pool' : 'over TLS'));
	}
}

done_testing();
