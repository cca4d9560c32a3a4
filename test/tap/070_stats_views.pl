# SPDX-License-Identifier: PostgreSQL
#
# The views agree with a situation that is known.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', tcp => 1, conf => <<'CONF');
sluice.max_pool_size = 2
sluice.max_backends = 3
sluice.max_clients = 77
sluice.acquire_timeout = 0
CONF
my $me = own_name();

# --- two work, one thinks, three wait, two are idle
my @idle = map { $server->pool_raw(parameters => { application_name => 'idler' }) } 1 .. 2;
my $thinker = $server->pool_raw(parameters => { application_name => 'thinker' }, host => '127.0.0.1');
my @workers = map { $server->pool_raw(parameters => { application_name => 'worker' }) } 1 .. 2;
my @waiters = map { $server->pool_raw(parameters => { application_name => 'waiter' }) } 1 .. 3;
is(pool($server, 'clients'), '8', 'eight clients are connected');

my $gate = PoolTest::Gate->new($server);
$thinker->sql('BEGIN');
my $thinker_pid = $thinker->sql('SELECT pg_backend_pid()');
ask($_, 'SELECT pg_backend_pid() FROM ' . $gate->wait) foreach @workers;
ok(until_pool($server, 'active = 2 AND in_transaction = 1'), 'two work, one thinks');
ask($_, 'SELECT 1') foreach @waiters;
ok(until_pool($server, 'waiting = 3'), 'three wait');

is(pool($server, "concat_ws(' ', total, active, idle, in_transaction, held, pinned, starting, retiring, clients, waiting, min_size, max_size)"),
	'3 2 0 1 0 0 0 0 8 3 0 2', 'sluice.pools counts them');
is(pool($server, 'mode'), 'transaction', 'and knows the mode');
is(pool($server, 'peak_waiting >= 3 AND peak_backends = 3 AND clients_total = 8'), 't', 'and the peaks');
is(pool($server, 'total = active + idle + in_transaction + held + pinned + starting + retiring'), 't', 'the parts make up the total');

is($server->sql("SELECT string_agg(application_name || '=' || state, ' ' ORDER BY application_name, state) FROM sluice.clients"),
	'idler=idle idler=idle thinker=leased waiter=ready waiter=ready waiter=ready worker=leased worker=leased',
	'sluice.clients knows what each client does');
is($server->sql("SELECT count(*) FROM sluice.clients WHERE (backend_pid IS NOT NULL) = (state = 'leased')"), '8',
	'those with a backend name it');
is($server->sql("SELECT backend_pid FROM sluice.clients WHERE application_name = 'thinker'"), $thinker_pid, 'the right one');
is($server->sql("SELECT count(*) FROM sluice.clients WHERE (waiting_ms IS NOT NULL) = (state = 'ready') AND coalesce(waiting_ms, 0) >= 0"), '8',
	'those that wait say how long');
is($server->sql("SELECT client_addr FROM sluice.clients WHERE application_name = 'thinker'"), '127.0.0.1', 'and where they come from');
is($server->sql("SELECT count(*) FROM sluice.clients WHERE client_addr IS NULL AND client_port = -1"), '7', 'also those on the Unix socket');
is($server->sql('SELECT count(*) FROM sluice.clients WHERE connected_at <= now() AND connected_at > pg_postmaster_start_time()'), '8', 'and since when');
is($server->sql("SELECT count(DISTINCT client) FROM sluice.clients"), '8', 'each has a number of its own');
is($server->sql('SELECT count(*) FROM sluice.clients WHERE num_nonnulls(pins, pinned_ms) > 0'), '0', 'nobody is pinned');
is($server->sql("SELECT cancel_pid FROM sluice.clients WHERE application_name = 'thinker'"), $thinker->pid, 'and the pid it was told');

is($server->sql("SELECT string_agg(state || '=' || client_application, ' ' ORDER BY state) FROM sluice.backends"),
	'active=worker active=worker thinking=thinker', 'sluice.backends knows whom each backend serves');
is($server->sql("SELECT count(*) FROM sluice.backends b JOIN sluice.clients c ON c.client = b.client AND c.backend_pid = b.pid"), '3',
	'both views agree');
is($server->sql("SELECT string_agg(coalesce(a.state, '?') || '/' || a.application_name, ' ' ORDER BY a.state) "
		. 'FROM sluice.backends b JOIN pg_stat_activity a USING (pid)'),
	'active/worker active/worker idle in transaction/thinker', 'and so does pg_stat_activity');
is($server->sql("SELECT count(*) FROM sluice.backends WHERE age_ms > 0 AND lease_age_ms >= 0 AND state_age_ms >= 0 AND expires_in_s > 0 AND num_nonnulls(retire_reason, pins) = 0"),
	'3', 'ages are there');
is($server->sql("SELECT concat_ws(' ', port, clients, max_clients, unauthenticated, backends, max_backends, pools, connections_total >= 8) FROM sluice.status"),
	join(' ', $server->pool_port, 8, 77, 0, 3, 3, 1, 't'), 'sluice.status has the sums');
is($server->sql("SELECT version IS NOT NULL AND dispatcher_pid IN (SELECT pid FROM pg_stat_activity) AND statistician_pid IN (SELECT pid FROM pg_stat_activity) FROM sluice.status"),
	't', 'and the processes');

# --- afterwards
my $before = $server->sql("SELECT transactions FROM sluice.pools");
$gate->open;
answer($_) foreach @workers, @waiters;
$thinker->sql('COMMIT');
ok(until_pool($server, 'active = 0 AND in_transaction = 0 AND waiting = 0 AND total = idle AND total <= 2'), 'afterwards all is quiet');
is(pool($server, 'transactions') - $before, 6, 'six transactions have ended');
is(pool($server, 'waits BETWEEN 3 AND leases'), 't', 'three at least had to wait');
is(pool($server, 'num_nulls(wait_p50_us, wait_p95_us, wait_p99_us, wait_max_us)'), '0', 'percentiles are there');
is(pool($server, 'wait_p50_us <= wait_p95_us AND wait_p95_us <= wait_p99_us AND wait_p99_us <= wait_max_us'), 't', 'and in order');
is(pool($server, 'wait_max_us > 1000'), 't', 'the longest wait is that of those who waited');
is($server->sql("SELECT count(*) FROM sluice.clients WHERE application_name = 'waiter' AND waited_us > 0 AND transactions >= 1"), '3',
	'each client knows how long it has waited');
is($server->sql("SELECT sum(transactions) <= (SELECT transactions FROM sluice.pools) FROM sluice.backends"), 't', 'backends have executed no more than the pool');

# --- reset
{
	my $since = $server->sql('SELECT sluice.reset_statistics()');
	is(pool($server, "concat_ws(' ', transactions, leases, waits, acquire_timeouts, starts, start_failures, retirements, clients_total, peak_waiting, pins_listen, pins_refused, pin_timeouts)"),
		'0 0 0 0 0 0 0 0 0 0 0 0', 'reset_statistics() sets the counters to zero');
	is(pool($server, "statistics_since = '$since'"), 't', 'and says since when they count');
	is(pool($server, 'num_nulls(wait_p50_us, wait_p95_us, wait_p99_us, wait_max_us)'), '4', 'percentiles are gone');
	is(pool($server, "clients || ' ' || peak_backends"), '8 ' . pool($server, 'total'), 'what is there now stays');
	$idle[0]->sql('SELECT 1') foreach 1 .. 5;
	is(pool($server, 'transactions'), '5', 'then they count on');
}

# --- who may see and do what
{
	$server->sql("CREATE ROLE $_ LOGIN") foreach qw(curious auditor owner_of_pool);
	$server->sql('GRANT pg_read_all_stats TO auditor');
	my $own = $server->pool_raw(user => 'curious', parameters => { application_name => 'own' });
	$own->sql('SELECT 1');
	my $hidden = "SELECT string_agg(DISTINCT coalesce(application_name, '-'), ',') FROM sluice.clients WHERE role = '$me'";
	is($server->sql($hidden, user => 'curious'), '-', 'what other roles\' clients call themselves is hidden');
	is($server->sql("SELECT num_nulls(client_addr, client_port, cancel_pid) FROM sluice.clients WHERE role = '$me' LIMIT 1", user => 'curious'), '3',
		'and where they come from, and their key');
	is($server->sql("SELECT count(*) > 0 FROM sluice.clients WHERE role = '$me' AND state IS NOT NULL", user => 'curious'), 't', 'but not that they are there');
	is($server->sql("SELECT application_name FROM sluice.clients WHERE role = 'curious'", user => 'curious'), 'own', 'one sees one\'s own');
	is($server->sql($hidden, user => 'auditor'), 'idler,thinker,waiter,worker', 'pg_read_all_stats sees all');
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE role = '$me' AND client_application IS NOT NULL", user => 'curious'), '0',
		'the same holds for backends');
	foreach my $call ('cancel_client(0)', 'disconnect_client(0)', 'retire_backends()', 'reset_statistics()')
	{
		my ($code, undef, $errors) = $server->psql("SELECT sluice.$call", user => 'curious');
		like($errors, qr/permission denied for function/, "$call is not for everyone");
	}
	$own->close;
}

# --- a client that is cancelled or disconnected through SQL
{
	ask($workers[0], 'SELECT pg_sleep(3600)');
	ok(until_pool($server, 'active = 1'), 'a client executes');
	my $number = $server->sql("SELECT client FROM sluice.clients WHERE state = 'leased' AND application_name = 'worker'");
	is($server->sql("SELECT sluice.cancel_client($number)"), 't', 'it is cancelled through SQL');
	is((outcome($workers[0]) || {})->{C}, '57014', 'its query is');
	is($workers[0]->sql('SELECT 1'), '1', 'it goes on');
	is($server->sql("SELECT sluice.disconnect_client($number)"), 't', 'it is disconnected through SQL');
	my ($error) = grep { $_->{type} eq 'E' } $workers[0]->read_until('');
	is($error ? RawClient::error_fields($error)->{C} : undef, '57P01', 'it is told');
	ok(until_pool($server, 'clients = 7'), 'and gone');
}
$_->close foreach @idle, $thinker, $workers[1], @waiters;

$server->stop;
done_testing();
