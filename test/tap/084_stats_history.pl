# SPDX-License-Identifier: PostgreSQL
#
# The history: a sample for each second and pool that adds up to the counters, shows what was over before anybody
# looked, and outlives a clean restart but nothing else.

use strict;
use warnings;

use File::Path qw(rmtree);
use PoolTest;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 2
sluice.max_pools = 4
sluice.acquire_timeout = 0
restart_after_crash = on
CONF
my $me = own_name();
my $file = $server->node->data_dir . '/pg_stat/pg_sluice.stat';

sub history { my ($what, %option) = @_; return $server->sql("SELECT $what FROM sluice.history", %option) }
sub until_history { my ($condition) = @_; return $server->wait_until("SELECT $condition FROM sluice.history") }
sub configure { my ($line) = @_; return $server->node->append_conf('postgresql.conf', "$line\n") }

sub until_true
{
	my ($condition) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
	while (time() < $deadline)
	{
		return 1 if $condition->();
		sleep 0.05;
	}
	return 0;
}

sub contents
{
	open my $handle, '<:raw', $file or die "$file: $!";
	local $/;
	return <$handle>;
}

sub overwrite
{
	my ($bytes) = @_;
	open my $handle, '>:raw', $file or die "$file: $!";
	print $handle $bytes;
	close $handle or die $!;
	return;
}

# --- samples
is(history('count(*)'), '0', 'without pools there is no history');
my $client = $server->pool_raw;
$client->sql('SELECT 1') foreach 1 .. 50;
ok(until_history('sum(transactions) = 50'), 'the samples add up to what was executed');
ok(until_history('count(*) >= 3'), 'there is one a second');
is(history("string_agg(DISTINCT database || '/' || role, ' ')"), "postgres/$me", 'of that pool');
is(history('sum(transactions) = (SELECT transactions FROM sluice.pools) AND sum(leases) = (SELECT leases FROM sluice.pools) '
		. 'AND sum(starts) = (SELECT starts FROM sluice.pools) AND sum(statements) = 50'),
	't', 'sums are those of sluice.pools');
is($server->sql('SELECT array_agg(at) = array_agg(at ORDER BY at) FROM (SELECT at FROM sluice.history) h'), 't', 'in order of time');
is(history("bool_and(at <= now() AND at > pg_postmaster_start_time() AND length_s BETWEEN 0.4 AND 600)"), 't', 'with times that are true');
is($server->sql('SELECT count(*) FROM (SELECT at, length_s, lag(at) OVER (ORDER BY at) AS before FROM sluice.history) h '
		. 'WHERE abs(extract(epoch FROM at - before) - length_s) > 2'),
	'0', 'each as long as since the one before');
is(history('count(*) FILTER (WHERE abs(tps * length_s - transactions) > 0.01)'), '0', 'tps is transactions for each second');
is(history('count(*) FILTER (WHERE (transactions = 0) <> (blocks_per_transaction IS NULL) '
		. 'OR (leases = 0) <> (wait_p50_us IS NULL) OR num_nulls(active, thinking, clients, backends, max_size) > 0)'),
	'0', 'what cannot be known is NULL, and nothing else');
is(history('max(clients), max(backends), max(max_size), max(waiting)'), '1|1|2|0', 'gauges are there');

# --- what is under way counts while it passes
{
	my $gate = PoolTest::Gate->new($server);
	ask($client, 'SELECT ' . $gate->wait);
	ok(until_history('max(active) BETWEEN 0.9 AND 1'), 'a query that goes on is one active backend');
	$gate->open;
	answer($client);
	$client->sql('BEGIN');
	ok(until_history('max(thinking) BETWEEN 0.9 AND 1'), 'a client that thinks is one thinking backend');
	ok(until_history('max(in_transaction) = 1'), 'and its transaction is open');
	$client->sql('COMMIT');
}

# --- a burst that is over
{
	my @burst = map { $server->pool_raw } 1 .. 10;
	my $gate = PoolTest::Gate->new($server);
	$_->sql('SELECT 1') foreach @burst;
	ask($_, 'SELECT ' . $gate->wait) foreach @burst;
	ok(until_pool($server, 'waiting = 8'), 'eight of ten wait');
	$gate->open;
	answer($_) foreach @burst;
	ok(until_pool($server, 'waiting = 0'), 'for a moment');
	ok(until_history('max(peak_waiting) >= 8 AND max(peak_in_use) >= 2'), 'which the history has seen');
	ok($server->wait_until('SELECT peak_waiting = 0 AND waiting = 0 FROM sluice.history ORDER BY at DESC LIMIT 1'), 'and which is over');

	# Nothing holds the backends here but work of a few milliseconds.  Again until it was fast enough to queue.
	my $seen = history('max(at)');
	ok(until_true(sub {
		ask($_, 'SELECT count(*) FROM generate_series(1, 20000)') foreach @burst;
		answer($_) foreach @burst;
		return $server->sql("SELECT max(peak_waiting) >= 1 AND max(peak_in_use) = 2 FROM sluice.history WHERE at > '$seen'") eq 't';
	}), 'a burst of milliseconds is seen as well');
	ok(until_history('sum(transactions) = (SELECT transactions FROM sluice.pools)'), 'and all is still counted');
	$_->close foreach @burst;
}

# --- the function, everybody, and a table that keeps more
is($server->sql("SELECT count(*) FROM sluice.history('1 microsecond')"), '0', 'the function leaves out what is older');
is($server->sql('WITH v AS MATERIALIZED (SELECT * FROM sluice.history) SELECT count(*) FROM v WHERE NOT EXISTS '
		. "(SELECT FROM sluice.history('1 hour') h WHERE h.at = v.at AND h.role = v.role AND h.transactions = v.transactions)"),
	'0', 'and nothing else');
$server->sql('CREATE ROLE nobody_special LOGIN');
is(history('sum(transactions) > 0', user => 'nobody_special'), 't', 'everybody may read');
$server->sql('CREATE TABLE sluice_history AS SELECT * FROM sluice.history');
my $keep = "INSERT INTO sluice_history SELECT * FROM sluice.history h WHERE h.at > coalesce((SELECT max(at) FROM sluice_history), '-infinity')";
$client->sql('SELECT 1') foreach 1 .. 5;
ok(until_history('sum(transactions) = (SELECT transactions FROM sluice.pools)'), 'more is executed');
$server->sql($keep) foreach 1 .. 3;
is($server->sql('SELECT sum(transactions) FROM sluice_history'), pool($server, 'transactions'), 'copied to a table again and again, nothing is lost or doubled');
is($server->sql('SELECT count(*) - count(DISTINCT (at, database, role)) FROM sluice_history'), '0', 'row by row');
$server->sql('TRUNCATE sluice_history');
$server->sql($keep);
is($server->sql('SELECT sum(transactions) FROM sluice_history'), pool($server, 'transactions'), 'also into an empty one');

# --- statistics that begin anew, and a statistician that does
{
	my $sum = history('sum(transactions)');
	$server->sql('SELECT sluice.reset_statistics()');
	$client->sql('SELECT 1') foreach 1 .. 3;
	ok(until_history("sum(transactions) = $sum + 3"), 'reset_statistics() takes nothing away');
	my $pid = $server->sql('SELECT statistician_pid FROM sluice.status');
	$server->sql("SELECT pg_terminate_backend($pid)");
	$client->sql('SELECT 1') foreach 1 .. 4;
	ok($server->wait_until("SELECT coalesce(statistician_pid, 0) NOT IN (0, $pid) FROM sluice.status"),
		'the statistician starts again');
	ok(until_history("sum(transactions) = $sum + 7"), 'and what happened meanwhile is not lost');
}

# --- the pool goes, its history stays
$client->close;
ok(until_pool($server, 'clients = 0'), 'nobody is there');
$server->sql("SELECT sluice.retire_backends()");
ok(until_pool($server, 'total = 0'), 'no backend either');
{
	my $rows = history('count(*)');
	ok($server->wait_until("SELECT max(at) < clock_timestamp() - interval '2500 ms' FROM sluice.history"), 'seconds pass without rows for a pool nobody uses');
	cmp_ok(history('count(*)'), '>=', $rows, 'and what there was stays');
}

# --- a clean restart
my $before = $server->sql('SELECT md5(string_agg(h::text, chr(10) ORDER BY at)) FROM sluice.history h');
my $saved_rows = history('count(*)');
$server->stop;
ok(-f $file, 'a clean shutdown leaves a file');
my $saved = contents();
$server->start;
ok(until_true(sub { !-e $file }), 'which is gone when the server runs');
is($server->sql('SELECT md5(string_agg(h::text, chr(10) ORDER BY at)) FROM sluice.history h'), $before, 'the history is the same');
$server->pool_sql('SELECT 1');
ok(until_history("bool_or(at > pg_postmaster_start_time() AND transactions > 0)"), 'and goes on');
is(history('count(DISTINCT role)'), '1', 'as that of the same pool');

# --- starts that fail
{
	my $transactions = history('sum(transactions)');
	cmp_ok($transactions, '>', 0, 'there is something to lose');
	$server->stop;
	my $rules = $server->node->data_dir . '/pg_hba.conf';
	rename $rules, "$rules.good" or die $!;
	open my $broken, '>', $rules or die $!;
	print $broken "nonsense\n";
	close $broken;
	foreach my $attempt (1 .. 2)
	{
		my $size = $server->log_size;
		is($server->node->start(fail_ok => 1), 0, 'a start fails');
		like($server->log_since($size), qr/could not load .*pg_hba\.conf/, 'of the reason it should');
		ok(-f $file, 'and keeps the file');
	}
	rename "$rules.good", $rules or die $!;
	$server->start;
	is(history('sum(transactions)'), $transactions, 'the next one has the history');
	ok(until_true(sub { !-e $file }), 'and then the file is gone');
}

# --- the new file replaces what is in its place
{
	my $temporary = "$file.tmp";
	symlink $server->node->data_dir . '/not_to_be_written', $temporary or die $!;
	$server->stop;
	ok(-f $file && !-l $file && !-l $temporary, 'a link where the file is written is not followed');
	ok(!-e $server->node->data_dir . '/not_to_be_written', 'and nothing appears behind it');
	$server->start;
}

# --- files that are no good
my @bad = (
	[ 'an empty file', '', qr/It ends too early/ ],
	[ 'half a file', substr($saved, 0, length($saved) / 2), qr/It ends too early/ ],
	[ 'a file without its end', substr($saved, 0, -1), qr/It ends too early/ ],
	[ 'a file with something more', $saved . 'x', qr/Its length is not the one/ ],
	[ 'garbage', join('', map { chr(($_ * 7919) % 256) } 1 .. 5000), qr/It does not begin/ ],
	[ 'a flipped bit', do { my $b = $saved; substr($b, -50, 1) ^= "\x10"; $b }, qr/checksum|impossible/ ],
	[ 'another format', do { my $b = $saved; substr($b, 16, 1) ^= "\x40"; $b }, qr/another version of pg_sluice/ ],
	[ 'another server', do { my $b = $saved; substr($b, 20, 1) ^= "\x40"; $b }, qr/another major version of PostgreSQL/ ],
);
foreach my $case (@bad)
{
	my ($name, $bytes, $reason) = @$case;
	$server->stop;
	overwrite($bytes);
	my $size = $server->log_size;
	$server->start;
	my $log = $server->log_since($size);
	like($log, qr{LOG:  ignoring invalid data in file "pg_stat/pg_sluice.stat"\n.*DETAIL:  .*$reason}, "$name is reported");
	is(history('count(*)'), '0', 'and ignored');
	ok(until_true(sub { !-e $file }), 'and removed');
}
foreach my $case (
	[ 'a directory', sub { mkdir $file or die $! }, sub { rmtree($file) } ],
	[ 'a pipe', sub { system('mkfifo', $file) == 0 or die 'mkfifo failed' }, sub { } ],
	[ 'a symbolic link', sub { symlink '/etc/passwd', $file or die $! }, sub { } ])
{
	my ($name, $make, $unmake) = @$case;
	$server->stop;
	unlink $file;
	$make->();
	my $size = $server->log_size;
	$server->start;
	like($server->log_since($size), qr{ignoring invalid data in file "pg_stat/pg_sluice.stat"\n.*DETAIL:  It is not a regular file}, "$name is not opened");
	$unmake->();
	ok(until_true(sub { !-e $file && !-l $file }), 'and gone');
}
SKIP:
{
	skip 'the superuser can read everything', 2 if $> == 0;
	$server->stop;
	overwrite($saved);
	chmod 0, $file or die $!;
	my $size = $server->log_size;
	$server->start;
	like($server->log_since($size), qr{LOG:  could not open file "pg_stat/pg_sluice.stat"}, 'an unreadable file is reported');
	ok(until_true(sub { !-e $file }), 'and removed');
}

# --- other sizes
$server->stop;
overwrite($saved);
configure('sluice.history_seconds = 4');
configure('sluice.max_pools = 1');
$server->start;
is(history('count(*)'), $saved_rows < 4 ? $saved_rows : 4, 'fewer seconds keep the latest samples');
$server->stop;
configure('sluice.history_seconds = 7200');
configure('sluice.max_pools = 20');
$server->start;
is(history('count(*)'), $saved_rows < 4 ? $saved_rows : 4, 'more seconds keep what there is');

# --- crashes
{
	my $size = $server->log_size;
	my $pool = $server->pool_raw;
	$pool->sql('SELECT 1');
	ok(until_true(sub { !-e $file }), 'the server has been running for long enough to do without the file');
	my $victim = $pool->sql('SELECT pg_backend_pid()');
	kill 'KILL', $victim;
	ok($server->wait_for_log(qr/all server processes terminated; reinitializing.*ready to accept connections/s, $size), 'the server starts over');
	$server->wait_for_pool;
	is(history('count(*)'), '0', 'after a crash the history begins anew');
	$server->pool_sql('SELECT 1');
	ok(until_history('count(*) > 0'), 'and is kept again');
	$server->node->stop('immediate');
	ok(!-e $file, 'an immediate shutdown saves nothing');
	$server->start;
	unlike($server->log_since($size), qr/pg_sluice\.stat/, 'and makes no noise');
	is(history('count(*)'), '0', 'the history begins anew');
	$server->pool_sql('SELECT 1');
	ok(until_history('count(*) > 0'), 'the history goes on');
	my @processes = ($server->node->{_pid}, split /\n/, $server->sql('SELECT pid FROM pg_stat_activity'));
	$server->node->kill9;
	ok(until_true(sub { !grep { kill 0, $_ } @processes }), 'the postmaster is killed');
	$server->start;
	is(history('count(*)'), '0', 'and the history with it');
}

# --- switched off
$server->pool_sql('SELECT 1');
ok(until_history('count(*) > 0'), 'there is something to save');
configure('sluice.save_history = off');
$server->node->reload;
ok($server->wait_until('SHOW sluice.save_history', 'off'), 'save_history is switched off by a reload');
$server->stop;
ok(!-e $file, 'then there is no file');
overwrite($saved);
$server->start;
is(history('count(*)'), '0', 'and an old one is not read');
ok(!-e $file, 'but removed');

configure('sluice.save_history = on');
configure('sluice.history_seconds = 0');
$server->restart;
$server->pool_sql('SELECT 1');
is(history('count(*)'), '0', 'history_seconds = 0 keeps none');
is($server->sql("SELECT count(*) FROM sluice.history('1 hour')"), '0', 'nor does the function have any');
$server->stop;
ok(!-e $file, 'and saves none');

$server->start;
configure('sluice.history_seconds = 60');
configure('sluice.track_timing = off');
$server->restart;
$server->pool_sql('SELECT 1') foreach 1 .. 2;
ok(until_history('sum(transactions) = 2'), 'transactions are counted without timing');
is(history('bool_and(num_nulls(active, thinking, wait_p50_us, wait_p99_us, wait_max_us) = 5)'), 't', 'and times are not known');

$server->stop;
done_testing();
