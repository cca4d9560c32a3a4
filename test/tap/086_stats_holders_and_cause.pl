# SPDX-License-Identifier: PostgreSQL
#
# Who holds backends, and what the cause of a full pool is: in the view sluice.holders, and in the error of a client
# that has waited in vain.  Each scene fills the pool in another way, on purpose and for as long as the test wants.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', tcp => 1, conf => <<'CONF');
sluice.max_pool_size = 2
sluice.max_backends = 4
sluice.nested_reserve = 0
sluice.acquire_timeout = 0
max_prepared_transactions = 2
autovacuum = off
CONF
my $me = own_name();
$server->sql('CREATE TABLE item AS SELECT number, 0 AS value FROM generate_series(1, 3) AS number');
$server->sql('CREATE ROLE reader');
$server->sql('CREATE ROLE monitor IN ROLE pg_read_all_stats');
$server->sql("CREATE ROLE $_ LOGIN") foreach qw(guest keeper);
$server->sql('GRANT SELECT ON item TO guest');
$server->sql("ALTER ROLE keeper SET sluice.pool_mode = 'session'");

# The error of one more client.  Nobody else may be waiting.  In a pool that has had no backend yet, or is in
# session mode (fresh), a client waits before it has been greeted.
sub give_up
{
	my (%login) = @_;
	my $fresh = delete $login{fresh};
	# What an earlier scene has left over has to go first.
	ok(until_pool($server, 'idle = 0 AND retiring = 0', %login), 'all backends are busy') unless $fresh;
	my $late = begin_connect($server, %login);
	$late->authenticate unless $fresh;
	ask($late, 'SELECT 1') unless $fresh;
	ok(until_pool($server, 'waiting = 1', %login), 'one more client waits');
	$server->sql('ALTER SYSTEM SET sluice.acquire_timeout = 300');
	$server->sql('SELECT pg_reload_conf()');
	$late->authenticate if $fresh;
	my $error = $fresh ? $late->error || 'it was greeted' : outcome($late);
	$server->sql('ALTER SYSTEM RESET sluice.acquire_timeout');
	$server->sql('SELECT pg_reload_conf()');
	$error = { M => "an answer: $error" } unless ref $error;
	like($error->{M} || '', qr/^could not get a backend from pool "/, 'and gets none');
	like($error->{D} || '', qr/^(?:All \d+ backends are busy|The only backend is busy|The pool has no backend): .*; 1 client is waiting\. /,
		'the DETAIL begins with what the backends do');
	return $error;
}

sub holder
{
	my ($pid, $columns) = @_;
	return $server->sql("SELECT $columns FROM sluice.holders WHERE backend_pid = $pid");
}

# What the verdict on the slots of a role's pool says to a reader.
sub verdict
{
	my ($role, $reader) = @_;
	return $server->sql("SET ROLE $reader; SELECT verdict FROM sluice.pressure WHERE resource = 'pool slots' AND role = '$role'");
}

sub until_holders
{
	my ($condition) = @_;
	my $done = $server->wait_until("SELECT coalesce((SELECT $condition FROM sluice.holders), false)");
	diag($server->sql('SELECT h FROM sluice.holders h')) unless $done;
	return $done;
}

sub leave { $_->drop foreach @_; return ok(until_holders('count(*) = 0'), 'nobody holds a backend any more'); }

is($server->sql('SELECT count(*) FROM sluice.holders'), '0', 'nobody holds a backend at first');

# --- one pooled client holds a row and thinks, the others want it
{
	my $owner = $server->pool_raw(host => '127.0.0.1', parameters => { application_name => 'owner' });
	my @others = map { $server->pool_raw } 1 .. 2;
	$owner->sql('BEGIN');
	$owner->sql('UPDATE item SET value = value + 1 WHERE number = 1');
	my $owner_pid = $owner->sql('SELECT pg_backend_pid()');
	foreach my $i (0 .. 1)
	{
		ask($others[$i], "UPDATE item SET value = value + 1 WHERE number = 1 /* wanted $i */");
		ok(until_holders('count(*) FILTER (WHERE lock_wait_chain IS NOT NULL) = ' . ($i + 1)), 'another one waits for the row');
	}
	my ($first, $second) = split /\n/, $server->sql("SELECT backend_pid FROM sluice.holders WHERE lock_wait_chain IS NOT NULL ORDER BY held_since");

	is(holder($owner_pid, "concat_ws('|', database, role, application_name, client_addr, state, wait_event_type, wait_event, blocked_clients, leaked)"),
		"postgres|$me|owner|127.0.0.1|idle in transaction|Client|ClientRead|2|f", 'sluice.holders shows who thinks');
	is(holder($owner_pid, 'query'), 'SELECT pg_backend_pid()', 'with the latest query');
	is(holder($owner_pid, 'lock_wait_chain IS NULL AND client_port > 0 AND pins IS NULL'), 't', 'it waits for no lock');
	is(holder($first, 'lock_wait_chain'), "{$owner_pid}", 'the first of the others waits for it');
	is(holder($second, 'lock_wait_chain'), "{$first,$owner_pid}", 'the second behind the first');
	is(holder($first, "concat_ws('|', state, wait_event_type, blocked_clients, client_port)"), 'executing|Lock|1|-1', 'the first one blocks the second');
	is(holder($second, "blocked_clients || query"), '0UPDATE item SET value = value + 1 WHERE number = 1 /* wanted 1 */', 'the second one nobody');
	is(holder($first, "lock_wait_chain[1] = ANY (pg_blocking_pids(backend_pid))"), 't', 'the server says so, too');
	ok(until_holders('min(held_ms) > 50'), 'that lasts');
	is(holder($owner_pid, 'transaction_age_ms > 0 AND query_age_ms > 0 AND held_ms > 0 AND active_share BETWEEN 0 AND 0.9999'), 't',
		'ages are there, and the thinker has not executed all the time');
	is($server->sql('SELECT count(*) FROM sluice.holders WHERE abs(extract(epoch FROM clock_timestamp() - held_since) * 1000 - held_ms) < 60000'), '3',
		'since and how long fit together');
	is($server->sql('SELECT array_agg(backend_pid) = array_agg(backend_pid ORDER BY held_ms DESC) FROM sluice.holders'), 't', 'longest first');

	my $error = give_up();
	like($error->{D}, qr/ All 2 working backends wait for a lock held by pid $owner_pid \(idle in transaction for \d+ s\): adding backends will not help\.$/,
		'the cause is the thinker');
	like($error->{H}, qr/sluice\.holders.*"idle_in_transaction_session_timeout"/, 'and the hint is about it');
	unlike($error->{H}, qr/raising/, 'and not about size');

	# What others may see.
	is($server->sql("SET ROLE reader; SELECT count(*) || ' ' || count(state) || ' ' || count(lock_wait_chain) FROM sluice.holders"),
		'3 3 2', 'anyone sees who holds backends');
	is($server->sql('SET ROLE reader; SELECT sum(num_nonnulls(application_name, client_addr, client_port, wait_event_type, wait_event, '
			  . 'transaction_age_ms, query_age_ms, query)) FROM sluice.holders'),
		'0', 'but not what they execute');
	is($server->sql('SET ROLE monitor; SELECT count(query) FROM sluice.holders'), '3', 'who may read all statistics does');
	is(verdict($me, 'reader'), "all 2 working backends wait for a lock held by pid $owner_pid: adding backends will not help",
		'the verdict tells anyone who is in the way, but not what it does');
	like(verdict($me, 'monitor'), qr/ held by pid $owner_pid \(idle in transaction for \d+ s\): adding/, 'but those that may know');
	leave($owner, @others);
}

# --- the lock is held by somebody outside the pool
{
	my $direct = $server->raw;
	my $direct_pid = $direct->sql('SELECT pg_backend_pid()');
	$direct->sql('BEGIN');
	$direct->sql('LOCK TABLE item');
	my @others = map { $server->pool_raw } 1 .. 2;
	ask($_, 'SELECT count(*) FROM item') foreach @others;
	ok(until_holders('count(*) = 2 AND bool_and(lock_wait_chain[cardinality(lock_wait_chain)] = ' . $direct_pid . ')'),
		'the chains end at the direct connection');
	my $error = give_up();
	like($error->{D}, qr/ All 2 working backends wait for a lock held by pid $direct_pid \(idle in transaction for \d+ s\): adding/,
		'which is the cause');

	ask($direct, 'SELECT pg_sleep(3600)');
	ok($server->wait_until("SELECT state = 'active' FROM pg_stat_activity WHERE pid = $direct_pid"), 'now it executes');
	$error = give_up();
	like($error->{D}, qr/ held by pid $direct_pid \(executing(?: for \d+ s)?\): adding/, 'and is the cause again');
	like($error->{H}, qr/"lock_wait_chain"/, 'the hint names the chain');
	$server->sql("SELECT pg_terminate_backend($direct_pid)");
	is(answer($_), '3', 'when it has gone the others go on') foreach @others;
	leave($direct, @others);
}

# --- by another role
{
	my $direct = $server->raw;
	my $direct_pid = $direct->sql('SELECT pg_backend_pid()');
	$direct->sql('BEGIN');
	$direct->sql('LOCK TABLE item');
	my @others = map { $server->pool_raw(user => 'guest') } 1 .. 2;
	ask($_, 'SELECT count(*) FROM item') foreach @others;
	ok(until_holders('count(*) = 2 AND bool_and(lock_wait_chain = ARRAY[' . $direct_pid . '])'), 'two clients of another role wait for it');
	my $before = $server->log_size;
	my $error = give_up(user => 'guest');
	like($error->{D}, qr/ All 2 working backends wait for a lock held by pid $direct_pid: adding backends will not help\.$/,
		'a client is not told what other roles do');
	unlike($error->{H}, qr/idle_in_transaction/, 'nor by the hint');
	ok($server->wait_for_log(qr/DETAIL:  .* held by pid $direct_pid \(idle in transaction for \d+ s\): adding.*HINT:  [^\n]*"idle_in_transaction_session_timeout"/s, $before),
		'the log is');
	$direct->sql('ROLLBACK');
	is(answer($_), '3', 'the others go on') foreach @others;
	leave($direct, @others);
}

# --- by a prepared transaction
{
	$server->sql("BEGIN; UPDATE item SET value = 7 WHERE number = 2; PREPARE TRANSACTION 'forgotten'");
	my @others = map { $server->pool_raw } 1 .. 2;
	foreach my $i (0 .. 1)
	{
		ask($others[$i], 'UPDATE item SET value = 8 WHERE number = 2');
		ok(until_holders('count(lock_wait_chain) = ' . ($i + 1)), 'one waits');
	}
	is($server->sql('SELECT count(*) FROM sluice.holders WHERE lock_wait_chain[cardinality(lock_wait_chain)] = 0'), '2', 'the head is 0');
	my $error = give_up();
	like($error->{D}, qr/ All 2 working backends wait for a lock held by a prepared transaction: adding/, 'that is the cause');
	like($error->{H}, qr/ROLLBACK PREPARED/, 'the hint says what to do');
	$server->sql("ROLLBACK PREPARED 'forgotten'");
	$_->read_until_ready foreach @others;
	leave(@others);
}

# --- everybody thinks
{
	my @thinkers = map { $server->pool_raw } 1 .. 4;
	$thinkers[0]->sql('BEGIN');
	my $oldest = $thinkers[0]->sql('SELECT pg_backend_pid()');
	ok($server->wait_until("SELECT state_age_ms > 50 FROM sluice.backends WHERE pid = $oldest"), 'one thinks for a while');
	$_->sql('BEGIN') foreach @thinkers[1 .. 3];
	$thinkers[1]->sql_error('SELECT 1/0');
	is($server->sql("SELECT string_agg(state, ', ' ORDER BY state) FROM sluice.holders"),
		join(', ', ('idle in transaction') x 3, 'idle in transaction (aborted)'), 'four think, one of them in a failed transaction');
	my $error = give_up();
	like($error->{D}, qr/ All 4 pooled backends of the server \("sluice\.max_backends"\) are in use\. /, 'the server is full');
	like($error->{D},
		qr/ All 4 pooled backends of the server are idle in transaction \(longest \d+ s, pid $oldest\), 4 in pool "$me\/postgres": end those transactions; more backends would only hold more of them\.$/,
		'of idle transactions');
	like($error->{H}, qr/"idle_in_transaction_session_timeout"/, 'which can be ended');
	my $before = $server->log_size;
	$error = give_up(user => 'guest', fresh => 1);
	like($error->{D}, qr/^The pool has no backend: .* All 4 pooled backends of the server are idle in transaction \(longest \d+ s, pid $oldest\): end/,
		'another pool is told what they do, but not whose they are');
	ok($server->wait_for_log(qr/DETAIL:  The pool has no backend: [^\n]* 4 in pool "$me\/postgres": end/, $before), 'which the log is');
	leave(@thinkers);
}

# --- everybody is pinned
{
	my @pinned = map { $server->pool_raw } 1 .. 4;
	$_->sql('LISTEN news') foreach @pinned;
	ok(until_holders(q{count(*) = 4 AND bool_and(state = 'pinned' AND pins = '{listen}')}), 'four are pinned');
	my $error = give_up(user => 'guest', fresh => 1);
	like($error->{D}, qr/ All 4 pooled backends of the server are pinned \(longest \d+ s, pid \d+: listen\): more backends would soon be pinned as well\.$/,
		'the cause are pins');
	like($error->{H}, qr/sluice\.holders.*sluice\.pin_timeout.*sluice\.on_session_state/, 'and the hint is about them');
	leave(@pinned);
}

# --- session mode
{
	my @sessions = map { $server->pool_raw(user => 'keeper') } 1 .. 2;
	$_->sql('SELECT 1') foreach @sessions;
	ok(until_holders(q{count(*) = 2 AND bool_and(state = 'held' AND role = 'keeper')}), 'two sessions have their backends');
	my $error = give_up(user => 'keeper', fresh => 1);
	like($error->{D}, qr/ All 2 backends are held by sessions whose clients are idle \(longest \d+ s, pid \d+\): each further backend would serve one more client only\.$/,
		'the cause are sessions');
	like($error->{H}, qr/"sluice\.pool_mode".*"sluice\.max_pool_size"/, 'the hint the mode');
	leave(@sessions);
}

# --- processors
{
	my @workers = map { $server->pool_raw } 1 .. 2;
	ask($_, 'DO $$ BEGIN LOOP END LOOP; END $$') foreach @workers;
	ok(until_holders(q{count(*) FILTER (WHERE state = 'executing' AND wait_event IS NULL) = 2}), 'two use processors');
	my $error = give_up();
	like($error->{D}, qr/ All 2 working backends execute on [\d.]+ cores?: more backends would (?:not make them faster|help)\.$/,
		'the cause is work');
	my ($cores, $verdict) = $error->{D} =~ / on ([\d.]+) cores?: more backends would (.+)\.$/;
	is($verdict, defined $cores && $cores > 2 ? 'help' : 'not make them faster', 'the number of cores decides whether more help');
	like($error->{H}, $cores > 2 ? qr/raising "sluice\.max_pool_size"\.$/ : qr/what the backends execute/, 'and what to do');
	$server->sql('SELECT sluice.cancel_client(client) FROM sluice.holders');
	leave(@workers);
}

# --- those that sleep use no processor
{
	my @sleepers = map { $server->pool_raw } 1 .. 2;
	ask($_, 'SELECT pg_sleep(3600)') foreach @sleepers;
	ok(until_holders(q{count(*) FILTER (WHERE wait_event = 'PgSleep') = 2}), 'two sleep');
	my $error = give_up();
	like($error->{D}, qr/ All 2 working backends wait for timers, extensions or other processes \(longest \d+ s, pid \d+\): more backends may help\.$/,
		'the cause is none that more backends would be in the way of');
	like($error->{H}, qr/raising "sluice\.max_pool_size"\.$/, 'so the hint is about size');
	$server->sql('SELECT sluice.cancel_client(client) FROM sluice.holders');
	leave(@sleepers);
}

# --- clients that do not read
{
	my @slow = map { $server->pool_raw } 1 .. 2;
	ask($_, "SELECT repeat('x', 1000000) FROM generate_series(1, 200)") foreach @slow;
	ok(until_holders(q{count(*) FILTER (WHERE wait_event = 'ClientWrite') = 2}), 'two wait for their clients to read');
	my $error = give_up();
	like($error->{D}, qr/ All 2 working backends wait for their clients to read or to send \(longest \d+ s, pid \d+\): more backends may help\.$/,
		'the cause are slow clients');
	like($error->{H}, qr/sluice\.holders for clients that do not read/, 'and the hint');
	leave(@slow);
}

# --- several causes
{
	$server->sql('ALTER SYSTEM SET sluice.max_pool_size = 3');
	$server->sql('SELECT pg_reload_conf()');
	my $gate = PoolTest::Gate->new($server);
	my ($blocked, $sleeper, $slow) = map { $server->pool_raw } 1 .. 3;
	ask($blocked, 'SELECT 1 FROM ' . $gate->wait);
	ask($sleeper, 'SELECT pg_sleep(3600)');
	ask($slow, "SELECT repeat('x', 1000000) FROM generate_series(1, 200)");
	ok(until_holders(q{array_agg(wait_event_type ORDER BY wait_event_type) = '{Client,Lock,Timeout}'}), 'three do three things');
	my $error = give_up();
	like($error->{D}, qr/ No single cause \(1: waits for locks, 1: clients are slow to read or to send, 1: waits for timers, extensions or other processes\): more backends may help\.$/,
		'no cause goes before the others');
	$gate->open;
	$server->sql('SELECT sluice.cancel_client(client) FROM sluice.holders');
	leave($blocked, $sleeper, $slow);
	$server->sql('ALTER SYSTEM RESET sluice.max_pool_size');
	$server->sql('SELECT pg_reload_conf()');
}

# --- many give up at once, of another application than those who think, and of the same one
foreach my $application ('late', 'thinker')
{
	my $nested = $application eq 'thinker';
	my @thinkers = map { $server->pool_raw(parameters => { application_name => 'thinker' }) } 1 .. 4;
	$_->sql('BEGIN') foreach @thinkers;
	my @late = map { $server->pool_raw(parameters => { application_name => $application }) } 1 .. 10;
	my $before = pool($server, 'nested_acquires');
	ask($_, 'SELECT 1') foreach @late;
	ok(until_pool($server, 'waiting = 10'), 'ten wait');
	ok(until_pool($server, "nested_acquires > $before"), 'the application waits for itself') if $nested;
	$server->sql('ALTER SYSTEM SET sluice.acquire_timeout = 300');
	$server->sql('SELECT pg_reload_conf()');
	my @errors = grep { ref $_ } map { outcome($_) } @late;
	my $cause = $nested
	  ? qr/ 4 backends are held by clients whose application waits for another one, probably for itself \(longest \d+ s, pid \d+\): 11 backends would be needed\.$/
	  : qr/ All 4 pooled backends of the server are idle in transaction \(/;
	is(scalar(grep { ($_->{D} || '') =~ $cause } @errors), 10, 'all are told why');
	is(scalar(grep { ($_->{H} || '') =~ /"sluice\.nested_reserve"/ } @errors), $nested ? 10 : 0, 'and what to do');
	$server->sql('ALTER SYSTEM RESET sluice.acquire_timeout');
	$server->sql('SELECT pg_reload_conf()');
	leave(@thinkers);
}

# --- backends that end while the view is read
{
	my $before = $server->log_size;
	my @readers = map { $server->raw } 1 .. 2;
	ask($_, 'DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM h FROM sluice.holders h; PERFORM pg_stat_clear_snapshot(); END LOOP; END $$') foreach @readers;
	foreach (1 .. 10)
	{
		my @clients = map { $server->pool_raw } 1 .. 4;
		$_->sql('BEGIN') foreach @clients;
		ask($_, 'LOCK TABLE item') foreach @clients;
		$server->sql('SELECT pg_terminate_backend(backend_pid) FROM sluice.holders');
		$_->drop foreach @clients;
	}
	is(scalar(grep { $_->{type} eq 'E' || $_->{type} eq 'EOF' } map { $_->read_until_ready } @readers), 0, 'readers are not disturbed');
	ok(until_holders('count(*) = 0'), 'and see nobody in the end');
	unlike($server->log_since($before), qr/terminated by signal|PANIC/, 'nothing has crashed');
	$_->close foreach @readers;
}

$server->stop;
done_testing();
