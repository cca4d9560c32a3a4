# SPDX-License-Identifier: PostgreSQL
#
# Times that are known at least by their lower bounds, where they went by application, and what can run out: the
# views agree with what the test has opened itself.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 1
sluice.max_backends = 5
sluice.max_clients = 33
sluice.max_pools = 7
sluice.max_applications = 8
sluice.max_unauthenticated_clients = 21
sluice.acquire_timeout = 0
superuser_reserved_connections = 4
CONF
my $me = own_name();

sub waits
{
	my ($columns, $measure) = @_;
	return $server->sql("SELECT $columns FROM sluice.waits WHERE role = '$me' AND measure = '$measure'");
}

sub pressure
{
	my ($columns, $resource) = @_;
	return $server->sql("SELECT $columns FROM sluice.pressure WHERE resource = '$resource' AND coalesce(role, '$me') = '$me'");
}

sub until_pressure
{
	my ($condition, $resource) = @_;
	return $server->wait_until(
		"SELECT coalesce((SELECT $condition FROM sluice.pressure WHERE resource = '$resource' AND coalesce(role, '$me') = '$me'), false)");
}

sub application
{
	my ($columns, $name) = @_;
	return $server->sql("SELECT $columns FROM sluice.applications WHERE role = '$me' AND application_name = '$name'");
}

sub until_application
{
	my ($condition, $name) = @_;
	return $server->wait_until("SELECT coalesce((SELECT $condition FROM sluice.applications WHERE role = '$me' AND application_name = '$name'), false)");
}

sub client { my ($name, %option) = @_; return $server->pool_raw(parameters => { application_name => $name }, %option) }

# --- three clients, one backend
my @sleepers = map { client('sleeper') } 1 .. 3;
$_->sql('SELECT 1') foreach @sleepers;
$server->sql('SELECT sluice.reset_statistics()');
ask($_, 'SELECT pg_sleep(0.2)') foreach @sleepers;
answer($_) foreach @sleepers;
ok(until_application('leases >= 3 AND hold_ms >= 600', 'sleeper'), 'three holds are over');

is($server->sql("SELECT string_agg(measure, ' ') FROM sluice.waits WHERE role = '$me' AND database = 'postgres'"),
	'wait hold active thinking start authentication', 'sluice.waits has a row for each measure');
is(waits('count >= 3 AND max_us >= 200000 AND p50_us >= 195000 AND sum_ms >= 600 AND mean_us >= 195000', 'hold'), 't',
	'each has held the backend for at least 0.2 s');
is(waits('max_us >= 200000 AND sum_ms >= 500', 'wait'), 't', 'and one at least has waited for that long');
is(waits('count >= 3 AND max_us >= 200000', 'active'), 't', 'the backend was executing');
is(waits("concat_ws(' ', count, sum_ms) || ' ' || num_nulls(mean_us, p50_us, p90_us, p95_us, p99_us, p999_us, p9999_us, max_us)", 'thinking'),
	'0 0 8', 'what has not happened has no percentiles');
is($server->sql('SELECT count(*) FROM sluice.waits WHERE NOT (p50_us <= p90_us AND p90_us <= p95_us AND p95_us <= p99_us AND p99_us <= p999_us AND p999_us <= p9999_us AND p9999_us <= max_us)'),
	'0', 'percentiles are in order');
is($server->sql('SELECT count(*) FROM sluice.waits WHERE abs(sum_ms * 1000 - mean_us * count) > 1 + sum_ms'), '0', 'means are sums by counts');
is($server->sql('SELECT count(*) FROM sluice.waits w JOIN sluice.pools p USING (database, role) WHERE w.since <> p.statistics_since'), '0',
	'and since when is known');

# --- the histogram says the same
my $differing = <<'SQL';
SELECT count(*) FROM sluice.waits w
  LEFT JOIN (SELECT database, role, measure, sum(count) AS count, max(cumulative_share) AS share, min(lower_us) AS least,
                    max(lower_us) AS most_from, max(upper_us) AS most_to
               FROM sluice.wait_histogram GROUP BY database, role, measure) h USING (database, role, measure)
 WHERE w.count <> coalesce(h.count, 0) OR h.share <> 1 OR w.max_us NOT BETWEEN h.most_from AND h.most_to OR w.p50_us < h.least
SQL
ok($server->wait_until($differing, '0'), 'the buckets of a measure add up to its count');
is($server->sql('SELECT count(*) FROM sluice.wait_histogram WHERE count < 1 OR lower_us > upper_us OR cumulative_share NOT BETWEEN 0 AND 1'), '0',
	'none is empty or upside down');
is($server->sql('SELECT count(*) FROM (SELECT lower_us > lag(upper_us) OVER w AND cumulative_share > lag(cumulative_share) OVER w AS follows FROM sluice.wait_histogram WINDOW w AS (PARTITION BY database, role, measure ORDER BY lower_us)) f WHERE NOT follows'),
	'0', 'and they do not overlap');

# --- thinking, and names that change
my $thinker = client('first name');
$thinker->sql('BEGIN');
sleep 0.3;
$thinker->sql('COMMIT');
ok(until_application('thinking_ms >= 300', 'first name'), 'time to think inside a transaction is the application\'s');
is(waits('count >= 1 AND max_us >= 300000', 'thinking'), 't', 'and the pool\'s');
is(application('hold_ms >= thinking_ms AND active_ms + thinking_ms <= hold_ms + 1 AND active_share < 0.5', 'first name'), 't',
	'it is no work');
$thinker->sql("SET application_name = 'second name'");
$thinker->sql('SELECT pg_sleep(0.1)');
ok(until_application('active_ms >= 100 AND transactions >= 1', 'second name'), 'after SET it counts for the other name');
is(application('thinking_ms = 0 AND active_share > 0.5 AND mean_hold_us > 0', 'second name'), 't', 'without what was before');

my $mine = client('mine');
$mine->sql('SELECT 1') foreach 1 .. 5;
$thinker->sql('SELECT 1') foreach 1 .. 3;
$mine->sql('SELECT 1') foreach 1 .. 5;
ok(until_application('transactions >= 10', 'mine'), 'transactions are counted for who made them');
is(application('transactions', 'mine'), '10', 'and for nobody else');
{
	# The backend goes from one client to the next without a rest.
	my $before = application('transactions', 'second name');
	my $gate = PoolTest::Gate->new($server);
	ask($sleepers[0], 'SELECT 1 FROM ' . $gate->wait);
	ok(until_pool($server, 'active = 1'), 'the backend is busy');
	ask($thinker, 'SELECT 1');
	ok(until_pool($server, 'waiting = 1'), 'one application waits');
	ask($mine, 'SELECT 1');
	ok(until_pool($server, 'waiting = 2'), 'and another');
	$gate->open;
	answer($_) foreach $sleepers[0], $thinker, $mine;
	ok(until_application('transactions >= 11', 'mine'), 'the last one\'s transaction is its own');
	is(application('transactions', 'mine') . ' ' . (application('transactions', 'second name') - $before), '11 1', 'and so is that of the first');
}
is($server->sql('SELECT abs(sum(hold_share) - 1) < 0.01 FROM sluice.applications'), 't', 'shares of the holds add up to 1');
is($server->sql('SELECT count(*) FROM sluice.applications WHERE active_ms + thinking_ms > hold_ms + leases * 0.01 + 1 OR longest_hold_ms > hold_ms + 0.001'),
	'0', 'parts are no more than the whole');
is(application('waited_ms >= 500 AND longest_hold_ms >= 200', 'sleeper'), 't', 'waiting is counted too');

# --- more names than there is room for
foreach my $i (1 .. 10)
{
	my $one = client("one of many $i");
	$one->sql('SELECT 1');
	$one->close;
}
ok($server->wait_until("SELECT coalesce((SELECT transactions >= 1 FROM sluice.applications WHERE role IS NULL AND application_name = '(others)'), false)"),
	'who finds no room is one of the others');
is($server->sql("SELECT count(*) <= 8 FROM sluice.applications"), 't', 'and there are no more rows than allowed');

# --- who may see what
{
	$server->sql("CREATE ROLE $_ LOGIN") foreach qw(curious auditor gone);
	$server->sql('GRANT pg_read_all_stats TO auditor');
	is($server->sql("SELECT count(*) FROM sluice.applications WHERE role = '$me' AND application_name IS NOT NULL", user => 'curious'), '0',
		'what other roles\' applications are called is hidden');
	is($server->sql("SELECT count(*) || ' ' || bool_and(hold_ms >= 600 AND leases >= 13) FROM sluice.applications WHERE role = '$me'", user => 'curious'),
		'1 true', 'one row has their sums');
	is($server->sql("SELECT count(*) >= 4 FROM sluice.applications WHERE role = '$me' AND application_name IS NOT NULL", user => 'auditor'), 't',
		'pg_read_all_stats sees them');
	is($server->sql('SELECT count(*) >= 6 FROM sluice.waits', user => 'curious'), 't', 'times of pools are for everyone');
	is($server->sql('SELECT count(*) >= 6 FROM sluice.wait_histogram', user => 'curious'), 't', 'so is the histogram');
	is($server->sql('SELECT count(*) >= 15 FROM sluice.pressure', user => 'curious'), 't', 'and the pressure');
}

# --- reset, and without timing
{
	my $since = $server->sql('SELECT sluice.reset_statistics()');
	is($server->sql("SELECT sum(count) FROM sluice.waits WHERE role = '$me'"), '0', 'reset_statistics() resets the times');
	is($server->sql('SELECT count(*) FROM sluice.wait_histogram'), '0', 'and the histogram');
	is($server->sql('SELECT count(*) FROM sluice.applications'), '0', 'and the applications');
	is($server->sql("SELECT bool_and(since = '$since') FROM sluice.waits"), 't', 'and says when');
	is($server->sql("SELECT bool_and(since = '$since') FROM sluice.pressure"), 't', 'the peaks likewise');

	$server->sql('ALTER SYSTEM SET sluice.track_timing = off');
	$server->sql('SELECT pg_reload_conf()');
	# Backends reload between commands; the last one of the old settings may be the first here.
	ok($server->wait_until("SELECT setting = 'off' FROM pg_settings WHERE name = 'sluice.track_timing'"), 'timing is off');
	my $deadline = time() + $SluiceTest::patience_s;
	sleep 0.05 while $mine->sql('SHOW sluice.track_timing') ne 'off' && time() < $deadline;
	is($mine->sql('SHOW sluice.track_timing'), 'off', 'the backend has heard of it');
	$server->sql('SELECT sluice.reset_statistics()');
	$mine->sql('SELECT 1') foreach 1 .. 5;
	client('untimed')->close;
	is($server->sql("SELECT string_agg(measure || '=' || count, ' ') FROM sluice.waits WHERE role = '$me'"),
		'wait=0 hold=0 active=0 thinking=0 start=0 authentication=0', 'then nothing is recorded, and the rows stay');
	is(pool($server, 'transactions'), '5', 'transactions are counted nevertheless');
	$server->sql('ALTER SYSTEM RESET sluice.track_timing');
	$server->sql('SELECT pg_reload_conf()');
	$deadline = time() + $SluiceTest::patience_s;
	sleep 0.05 while $mine->sql('SHOW sluice.track_timing') ne 'on' && time() < $deadline;
	$server->sql('SELECT sluice.reset_statistics()');
	$mine->sql('SELECT 1') foreach 1 .. 4;
	ok(until_application('transactions >= 4', 'mine'), 'with timing on again it goes on');
	is(application('transactions', 'mine'), '4', 'without the transactions in between');
}

# --- what can run out
{
	is($server->sql("SELECT string_agg(DISTINCT resource COLLATE \"C\", ', ' ORDER BY resource COLLATE \"C\") FROM sluice.pressure"),
		'client memory, client slots, cpu pressure, file descriptors of the dispatcher, file descriptors of the system, io pressure, load, '
		. 'max_backends, max_connections, max_connections without reserved, memory of the machine, memory pressure, pool slots, pools, '
		. 'unauthenticated clients, wait queue, worker slots', 'sluice.pressure has a row for everything');
	is($server->sql("SELECT count(*) FROM sluice.pressure WHERE (used IS NULL) <> (verdict LIKE 'unknown: %') OR (used IS NULL) <> (peak IS NULL) OR unit IS NULL OR verdict IS NULL"),
		'0', 'who knows nothing says why');
	is($server->sql('SELECT count(*) FROM sluice.pressure WHERE peak < used OR abs(ratio - used / maximum) > 0.001 OR peak_at > clock_timestamp()'), '0', 'peaks are no less than what is used');
	is($server->sql("SELECT string_agg(resource, ', ' ORDER BY resource) FROM sluice.pressure WHERE (database IS NULL) <> (role IS NULL) OR (database IS NOT NULL) <> (resource IN ('pool slots', 'wait queue'))"),
		'', 'pools\' rows name the pool');

	is(pressure("concat_ws(' ', used, maximum, unit)", 'pools'), '1 7 pools', 'one pool of seven');
	is(pressure("concat_ws(' ', used, maximum, unit)", 'max_backends'), '1 5 backends', 'one backend of five');
	is(pressure("concat_ws(' ', used, maximum, unit)", 'pool slots'), '0 1 backends', 'which is idle');
	is(pressure("concat_ws(' ', used, maximum, unit)", 'client slots'), '5 33 clients', 'five clients of 33');
	is(pressure("concat_ws(' ', used, maximum)", 'unauthenticated clients'), '0 21', 'nobody is logging in');

	my $other = $server->pool_raw(user => 'curious');
	$other->sql('SELECT 1');
	is($server->sql("SELECT string_agg(resource || '=' || used, ' ' ORDER BY resource) FROM sluice.pressure WHERE resource IN ('pools', 'max_backends', 'client slots')"),
		'client slots=6 max_backends=2 pools=2', 'one more of each');
	is($server->sql("SELECT count(*) FROM sluice.pressure WHERE role = 'curious' AND database = 'postgres'"), '2', 'the other pool has its own rows');

	# Direct connections: pooled backends take none, whatever pg_stat_activity calls them.
	ok(until_pressure('used = 1', 'max_connections'), 'psql is the only direct connection');
	my @direct = map { $server->raw } 1 .. 7;
	my $gate = PoolTest::Gate->new($server);
	ask($mine, 'SELECT 1 FROM ' . $gate->wait);
	ok(until_pressure('used = 1', 'pool slots'), 'a slot of the pool is in use');
	is($server->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"), '10', 'ten are called client backends');
	is(pressure("concat_ws(' ', used, maximum)", 'max_connections'), '9 50', 'seven, the gate and psql are direct connections');
	is(pressure("concat_ws(' ', used, maximum)", 'max_connections without reserved'), '9 46', 'four are not for everyone');
	ask($_, 'SELECT 1') foreach @sleepers;
	ok(until_pressure('used = 3', 'wait queue'), 'three wait for it');
	ok(until_pressure('peak >= 1 AND peak_at IS NOT NULL', 'pool slots'), 'and the sampler has seen it');
	is(pressure("maximum > used AND used >= 4 AND maximum = current_setting('max_worker_processes')::int AND unit = 'processes'", 'worker slots'), 't',
		'dispatcher, statistician and two backends have worker slots');

	# The load is gone, the peak is not.
	$gate->open;
	answer($_) foreach $mine, @sleepers;
	# Older than the reader's connection, so that it is the sampler's.  It may have looked when there was no psql.
	ok(until_pressure("peak >= 8 AND peak_at < clock_timestamp() - interval '2 seconds'", 'max_connections'), 'a peak has been noted');
	$_->close foreach @direct;
	ok(until_pressure('used <= 2', 'max_connections'), 'the connections are gone');
	is(pressure('peak >= 8', 'max_connections'), 't', 'the peak is remembered');
	is(pressure('used = 0 AND peak >= 3', 'wait queue'), 't', 'also that of the queue');
	is(pressure('used = 0 AND peak = 1', 'pool slots'), 't', 'and of the slots');
	is(pressure("trend IS NULL OR trend IN ('rising', 'falling', 'steady')", 'max_connections'), 't', 'a trend is a word or nothing');

	# Between two samples.
	my @burst = map { client('burst') } 1 .. 9;
	$_->close foreach @burst;
	is(pressure('peak >= 14', 'client slots'), 't', 'a short crowd of clients is not missed');
	ok($server->wait_until("SELECT used = 6 AND peak >= 14 FROM sluice.pressure WHERE resource = 'client slots'"), 'nor forgotten');

	$server->sql('SELECT sluice.reset_statistics()');
	is(pressure('peak = used', 'client slots'), 't', 'a reset forgets the peak');
	is(pressure('peak <= 2', 'max_connections'), 't', 'of connections too');
	ok(until_pressure("peak_at > since - interval '1 second'", 'client slots'), 'the new one is younger');
	$other->close;
	ok(until_pressure('used = 5', 'client slots'), 'who has left takes no slot');
}

# --- what clients leave behind in shared memory
{
	my $before = pressure('used', 'client memory');
	my $keeper = client('keeper');
	$keeper->sql('SET work_mem = \'5MB\'');
	my $text = 'SELECT 1 /* ' . ('x' x 100000) . ' */';
	$keeper->send_bytes(RawClient::parse('long', $text) . RawClient::sync());
	$keeper->read_until_ready;
	is(pressure("used >= $before + 100000 AND maximum = 512 * 1024 * 1024 AND unit = 'bytes'", 'client memory'), 't', 'a prepared statement takes memory');
	$keeper->close;
	$server->sql('SELECT sluice.retire_backends()');  # they may keep plans of it
	ok(until_pressure("used <= $before", 'client memory'), 'which is given back');
}

# --- descriptors, and a machine that tells nothing
{
	my $before = pressure('used', 'file descriptors of the dispatcher');
	my @more = map { client('more') } 1 .. 4;
	is(pressure("used >= $before + 4 AND maximum >= used", 'file descriptors of the dispatcher'), 't', 'each client takes a descriptor of the dispatcher');
	$_->close foreach @more;
	is(pressure('used > 0 AND coalesce(maximum, used) >= used', 'file descriptors of the system'), 't', 'the system\'s are known');

	my $elsewhere = $server->node->basedir . '/nothing';
	mkdir $elsewhere;
	$server->sql("ALTER SYSTEM SET sluice.$_ = '$elsewhere'") foreach qw(procfs sysfs);
	$server->sql('SELECT pg_reload_conf()');
	ok($server->wait_until("SELECT count(*) = 6 FROM sluice.pressure WHERE verdict LIKE 'unknown: %'"), 'what the system does not tell is unknown');
	is($server->sql("SELECT string_agg(resource, ', ' ORDER BY resource) FROM sluice.pressure WHERE used IS NULL AND peak IS NULL AND ratio IS NULL AND trend IS NULL"),
		'cpu pressure, file descriptors of the system, io pressure, load, memory of the machine, memory pressure', 'and has no numbers');
	is($server->sql("SELECT count(*) FROM sluice.pressure WHERE verdict LIKE '%$elsewhere%'", user => 'curious'), '0', 'where it was looked for is not for everyone');
	is($server->sql("SELECT count(*) > 0 FROM sluice.pressure WHERE verdict LIKE '%$elsewhere%'"), 't', 'but for those who may see settings');
}

$_->close foreach @sleepers, $thinker, $mine;
$server->stop;
done_testing();
