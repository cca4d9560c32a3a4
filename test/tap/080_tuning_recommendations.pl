# SPDX-License-Identifier: PostgreSQL
#
# Advice appears where it is due, and its SQL runs.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.cores = 4
sluice.spindles = 0
sluice.max_pool_size = 2
sluice.max_backends = 20
sluice.acquire_timeout = 0
CONF
my $me = own_name();

sub advice
{
	my ($setting, $columns) = @_;
	return $server->sql("SELECT $columns FROM sluice.recommendations WHERE setting = '$setting'");
}

# The commands as they are; a restart is not part of them.
sub runs
{
	my ($setting) = @_;
	my $sql = advice($setting, 'sql');
	isnt($sql, '', "$setting: there is SQL to run");
	my ($code, undef, $errors) = $server->psql($sql);
	is($code, 0, "$setting: it runs") or diag("$sql\n$errors");
	$server->sql('SELECT pg_reload_conf()');
	return;
}

ok($server->wait_until("SELECT count(*) > 0 FROM sluice.sizing WHERE rule = 'cores * 2 + spindles' AND size = 8"), 'the rule is eight');
is(advice('sluice.max_pool_size', 'count(*)'), '0', 'there is nothing to say about the size of pools yet');

# --- a pool that is too small
my $gate = PoolTest::Gate->new($server);
my @clients = map { $server->pool_raw } 1 .. 6;
ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach @clients;
ok(until_pool($server, 'active = 2 AND waiting = 4'), 'clients wait for a pool far below the rule');
my $verdict = "SELECT verdict FROM sluice.pressure WHERE resource = 'pool slots' AND role = '$me'";
like($server->sql($verdict), qr/adding backends will not help/, 'but for a lock, which more backends would wait for as well');
is(advice('sluice.max_pool_size', 'count(*)'), '0', 'and so a larger one is not recommended');
$gate->open;
answer($_) foreach @clients;

# Timers keep no processor busy.
ask($_, 'SELECT pg_sleep(600)') foreach @clients;
ok(until_pool($server, 'active = 2 AND waiting = 4'), 'clients wait for backends that wait themselves, but not for locks');
ok($server->wait_until("SELECT ($verdict) LIKE '%more backends may help'"), 'more backends may help');
is(advice('sluice.max_pool_size', "subject || ': ' || current || ' -> ' || recommended"), qq(pool "postgres/$me": 2 -> 8),
	'a larger one is recommended');
is(advice('sluice.max_pool_size', 'num_nulls(reason, evidence, sql)'), '0', 'with reason, evidence and SQL');
runs('sluice.max_pool_size');
ok(until_pool($server, 'max_size = 8 AND active = 6 AND waiting = 0'), 'then nobody waits');
is(advice('sluice.max_pool_size', 'count(*)'), '0', 'and the recommendation is gone');
$server->sql('SELECT sluice.cancel_client(client) FROM sluice.clients');
outcome($_) foreach @clients;
$_->close foreach @clients;

# --- a pool that is too large
$server->sql('ALTER SYSTEM SET sluice.max_pool_size = 100');
$server->sql('SELECT pg_reload_conf()');
ok(until_pool($server, 'max_size = 100'), 'a pool may become far larger than the rule says');
is(advice('sluice.max_pool_size', "current || ' -> ' || recommended"), '100 -> 8', 'a smaller one is recommended');
runs('sluice.max_pool_size');
ok(until_pool($server, 'max_size = 8'), 'it becomes that');

# --- of a role of its own
$server->sql('CREATE ROLE app LOGIN');
$server->sql('ALTER ROLE app SET sluice.max_pool_size = 50');
is($server->pool_sql('SELECT 1', user => 'app'), '1', 'a pool with a size of its own');
is(advice('sluice.max_pool_size', "subject || ': ' || current || ' -> ' || recommended"), 'pool "postgres/app": 50 -> 8', 'is looked at by itself');
like(advice('sluice.max_pool_size', 'sql'), qr/ALTER ROLE "?app"? IN DATABASE "?postgres"? SET sluice\.max_pool_size/, 'and its SQL concerns that pool');
runs('sluice.max_pool_size');
$server->sql("SELECT sluice.retire_backends(role => 'app')");
is($server->pool_sql('SELECT 1', user => 'app'), '1', 'its next backend');
ok(until_pool($server, 'max_size = 8', user => 'app'), 'follows');

# --- clients that do nothing inside a transaction hold up others
{
	my @thinkers = map { $server->pool_raw } 1 .. 20;
	my $waiter = $server->pool_raw;
	$_->sql('BEGIN') foreach @thinkers;
	ask($waiter, 'SELECT 1');
	ok(until_pool($server, 'in_transaction = 20 AND waiting = 1'), 'all backends there may be belong to clients that think');
	is(advice('idle_in_transaction_session_timeout', 'subject'), qq(pool "postgres/$me"), 'a limit for idle transactions is recommended');
	runs('idle_in_transaction_session_timeout');
	is(advice('sluice.max_backends', "current || ' ' || (recommended::int > current::int)"), '20 true', 'and more backends');
	runs('sluice.max_backends');
	$_->sql('COMMIT') foreach @thinkers;
	answer($waiter);
	$_->close foreach @thinkers, $waiter;
}

# --- backends that cannot start
{
	$server->sql('CREATE ROLE slow LOGIN');
	$server->sql("ALTER SYSTEM SET sluice.debug_backend_start_delay = '1s'");
	$server->sql('SELECT pg_reload_conf()');
	$server->wait_until("SELECT current_setting('sluice.debug_backend_start_delay') = '1s'");
	my $client = begin_connect($server, user => 'slow');
	until_pool($server, 'starting = 1', user => 'slow');
	$server->sql('ALTER ROLE slow NOLOGIN');
	$client->authenticate;
	is($server->sql("SELECT subject FROM sluice.recommendations WHERE setting = 'start of backends'"), 'pool "postgres/slow"',
		'backends that could not start are a reason to look');
	runs('start of backends');
}

# --- only what can be run is in the column sql
$server->sql($_) foreach split /\n/, $server->sql("SELECT replace(sql, E'\\n', ' ') FROM sluice.recommendations WHERE sql IS NOT NULL");
pass('all SQL of all recommendations runs');

$server->stop;
done_testing();
