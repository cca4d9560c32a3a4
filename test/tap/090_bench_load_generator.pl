# SPDX-License-Identifier: PostgreSQL
#
# The load generator of the benchmarks measures what it says: delays that are known come out as the percentiles they
# must give, and a server that stalls is charged for every request that was due meanwhile.  Bounds from below hold on
# any machine; those from above leave a slow one hundreds of milliseconds.

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Open2;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

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

sub load
{
	my ($status, $conninfo, @options) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run(
		[ "$directory/open_loop", @options, '--csv', "$files/csv", '--requests', "$files/requests", '--histogram', "$files/histogram", $conninfo ],
		'>', \$output, '2>', \$errors, IPC::Run::timeout($SluiceTest::patience_s));
	is($? >> 8, $status, "open_loop @options: exit status $status") or diag("$output$errors");
	my %said = $output =~ /^([\w ]+): ([\d.]+)/mg;
	return (\%said, { map { $_->{measure} => $_ } table('csv') }, [ table('requests') ]);
}

sub between
{
	my ($value, $low, $high, $name) = @_;
	my $good = $value >= $low && $value < $high;
	ok($good, $name) or diag("$value is not between $low and $high");
	return;
}

# The same against a server that knows its delays.
sub load_fake
{
	my ($status, $server_options, @options) = @_;
	my $pid = open2(my $from, my $to, $^X, "$directory/fake_server.pl", '--seconds', $SluiceTest::patience_s, @$server_options);
	chomp(my $port = <$from>);
	my @result = load($status, "host=127.0.0.1 port=$port dbname=x user=x gssencmode=disable", @options);
	# It ends with its standard input.
	close $to;
	waitpid $pid, 0;
	return @result;
}

# ---- known delays

{
	my ($said, $measured, $requests) =
		load_fake(0, [ '--delays', '90x10,9x300,1x2000' ], '--rate', 300, '--seconds', 2, '--arrivals', 'constant', '--connections', 200);
	is($said->{requests}, 599, 'constant arrivals: one every 3.33 ms, the first after one interval');
	is($said->{succeeded}, 599, 'all succeed');
	is(scalar @$requests, 599, 'each is written down');
	my $latency = $measured->{latency};
	between($latency->{p50_us}, 10_000, 300_000, 'the median is the usual delay');
	between($latency->{p95_us}, 300_000, 2_000_000, 'the 95th percentile is the delay of nine in a hundred');
	between($latency->{p999_us}, 2_000_000, 20_000_000, 'the 99.9th percentile is the delay of one in a hundred');
	is($latency->{p9999_us}, $latency->{max_us}, 'of 599 values the 99.99th percentile is the greatest');

	my %count;
	$count{ $_->{measure} } += $_->{count} foreach table('histogram');
	is($count{latency}, 599, 'the histogram holds all of them');
}

# ---- waiting and being served

{
	my (undef, $measured) = load_fake(0, [], '--rate', 100, '--seconds', 1, '--query', 'wait 200 hold 50');
	between($measured->{wait}{p50_us}, 199_990, 1_000_000, 'the wait is the time until began_at');
	between($measured->{service}{p50_us}, 50_000, 200_000, 'the service is the time after it');
	between($measured->{latency}{p50_us}, 250_000, 1_200_000, 'the latency is both');
}

# ---- a stall

{
	my $late = sub { scalar grep { $_->{latency_us} > 400_000 } @{ $_[0] } };
	my (undef, $open, $open_requests) =
		load_fake(0, [ '--stall', '0.5,1' ], '--rate', 200, '--seconds', 2.5, '--arrivals', 'constant', '--connections', 5);
	# 200 requests were due in that second: those of the first 0.6 s had to wait for more than 0.4 s.
	ok($late->($open_requests) >= 115, 'open loop: the stall shows in each request that was due meanwhile');
	between($open->{latency}{p90_us}, 700_000, 10_000_000, 'and in the percentiles');
	ok($open->{queued}{max_us} >= 700_000, 'although only five connections were there to ask');
	my (undef, $closed, $closed_requests) = load_fake(0, [ '--stall', '0.5,1' ], '--clients', 5, '--think', 5, '--seconds', 2.5);
	between($late->($closed_requests), 1, 60, 'closed loop: it shows in one request of each client');
	ok($closed->{latency}{max_us} >= 700_000, 'which took as long');
}

# ---- errors

{
	my ($said) = load_fake(2, [], '--rate', 50, '--seconds', 0.5, '--arrivals', 'constant', '--query', 'fail 53300');
	is($said->{'error 53300'}, 24, 'errors are counted by SQLSTATE');
	($said) = load_fake(2, [], '--rate', 50, '--seconds', 0.5, '--arrivals', 'constant', '--query', 'hang up', '--connections', 1);
	is($said->{'error 08006'}, 24, 'so are lost connections, and others take their places');
	my (undef, $measured);
	($said, $measured) =
		load_fake(2, [ '--delays', '1x600000' ], '--rate', 50, '--seconds', 0.5, '--arrivals', 'constant', '--connections', 3, '--drain', 1);
	is($said->{unfinished}, 24, 'what is not answered in the end is told');
	ok($measured->{latency}{p50_us} >= 1_000_000, 'and counts with the time it has taken so far');
}

# ---- a real server

{
	my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 2\n");
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
	PostgreSQL::Test::Utils::append_to_file("$files/script", <<'SQL');
-- a transaction that thinks
\set value random(1 * :low, 14)
BEGIN;
INSERT INTO seen
  VALUES (:value, ':other'::text);
\sleep 20 ms
SELECT count(*) FROM seen;
END;
SQL
	my @script = ('--script', "$files/script", '--clients', 4, '--seconds', 0.5);
	($said, $measured) = load(0, $conninfo, @script, '-D', 'low=5');
	ok($measured->{latency}{p50_us} >= 20_000, 'a script with a pause takes as long as the pause');
	is($server->sql('SELECT count(*) FROM seen'), $said->{requests}, 'each transaction has committed');
	is($server->sql('SELECT DISTINCT text FROM seen'), ':other', 'unknown variables are left alone');
	($said) = load(2, $conninfo, @script, '-D', 'low=14', '--query', 'SELECT 1; SELECT 1/0');
	is($said->{'error 22012'}, $said->{requests}, 'an error in the end is an error');
	PostgreSQL::Test::Utils::append_to_file("$files/broken", "BEGIN;\nSELECT 1/0;\nINSERT INTO seen VALUES (5);\nEND;\n");
	($said) = load(2, $conninfo, '--script', "$files/broken", '--rate', 50, '--seconds', 0.5, '--connections', 2);
	is($said->{'error 22012'}, $said->{requests}, 'an error leaves out the rest and ends the transaction');
}

done_testing();
