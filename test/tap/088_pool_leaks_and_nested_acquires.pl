# SPDX-License-Identifier: PostgreSQL
#
# While clients wait: a transaction that holds a backend for too long is reported once; an application that holds all
# backends and waits for another one is recognised; and the reserve lets it go on.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_backends = 2
sluice.max_pool_size = 2
sluice.nested_reserve = 1
sluice.leak_threshold = 300ms
sluice.acquire_timeout = 0
CONF
my $me = own_name();

sub client
{
	my ($name) = @_;
	my $client = $server->pool_raw(parameters => { application_name => $name });
	$client->sql('SELECT 1');
	return $client;
}

sub log_lines { my ($pattern) = @_; return scalar(() = $server->log_since(0) =~ /$pattern/g) }

# --- a leak
{
	my @client = map { client("leak $_") } 1 .. 3;
	$client[0]->sql("BEGIN; SELECT 'the forgotten one'");
	select undef, undef, undef, 0.6;
	is(log_lines(qr/has held backend/), 0, 'nothing is said as long as nobody waits');
	my $gate = PoolTest::Gate->new($server);
	ask($client[1], 'SELECT 1 FROM ' . $gate->wait);
	ok(until_pool($server, 'active = 1 AND in_transaction = 1'), 'the server is full');
	ask($client[2], 'SELECT 2');
	ok(until_pool($server, 'waiting = 1'), 'a client waits');
	ok(until_pool($server, 'leaks = 2'), 'a transaction that thinks and one that executes for too long are counted');
	my ($entry) = $server->log_since(0) =~ /(client \d+ of pool "\Q$me\E\/postgres" has held backend \d+ for \d+ ms while 1 client waits.*?leak_threshold" is 300 ms)/s;
	like($entry, qr/application is "leak [12]"/, 'the log names the application');
	like($server->log_since(0), qr/The transaction is idle\. Latest query: BEGIN; SELECT 'the forgotten one'/, 'and the query');
	select undef, undef, undef, 0.8;
	is(pool($server, 'leaks'), '2', 'each once');
	is(log_lines(qr/has held backend/), 2, 'and logged once');
	$gate->open;
	answer($_) foreach @client[1, 2];
	$client[0]->sql('COMMIT');
	is($server->sql("SELECT string_agg(kind, ' ' ORDER BY number) FROM sluice.events WHERE kind = 'leak'"), 'leak leak', 'both are events')
	  if $server->sql("SELECT to_regclass('sluice.events') IS NOT NULL") eq 't';
	$_->close foreach @client;
	ok(until_pool($server, 'clients = 0'), 'all have gone');
}

# --- threads that hold one connection and want another
{
	# How long clients usually think decides how long such a case is watched before it is one.
	$server->sql('SELECT sluice.reset_statistics()');
	my @first = map { client('nested') } 1 .. 2;
	my @second = map { client('nested') } 1 .. 2;
	$_->sql('BEGIN') foreach @first;
	ok(until_pool($server, 'in_transaction = 2'), 'two threads hold all backends');
	ask($_, 'SELECT 42') foreach @second;
	is(answer($_), '42', 'the reserve serves their second connections') foreach @second;
	is(pool($server, 'nested_acquires'), '1', 'the deadlock was counted once');
	like($server->log_since(0), qr/probably wait for themselves.*The application "nested" holds most.*Tn = 2 threads.*= 3 backends are needed/s,
		'and logged, with the number of backends it needs');
	is($server->sql("SELECT role || ' ' || reason FROM sluice.events WHERE kind = 'nested_acquire'"), "$me probable: Tn = 2 threads need 3 backends",
		'it is an event');
	is($server->sql("SELECT current || ' ' || confidence FROM sluice.recommendations WHERE setting = 'sluice.nested_reserve'"), '1 probable', 'there is advice about it');
	is($server->sql("SELECT size FROM sluice.sizing WHERE rule = 'deadlock minimum'"), '3', 'and the deadlock minimum for what was seen');
	is(pool($server, 'peak_backends'), '3', 'one backend beyond sluice.max_backends');
	$_->sql('COMMIT') foreach @first;
	ok(until_pool($server, 'total <= 2'), 'which leaves when it is no longer needed');
	like($server->sql("SELECT string_agg(DISTINCT reason, ',') FROM sluice.events WHERE kind = 'backend_retired'"), qr/reserve is no longer needed/, 'for that reason')
	  if $server->sql("SELECT to_regclass('sluice.events') IS NOT NULL") eq 't';
	$_->close foreach @first, @second;
}

# The holders finish, then the newcomer gets its first connection; all leave.
sub all_go
{
	my ($holders, $newcomer, $second, $name) = @_;
	$_->sql('COMMIT') foreach @$holders;
	answer($newcomer);
	$newcomer->sql('COMMIT');
	$_->close foreach @$holders, $newcomer, $second;
	ok(until_pool($server, 'clients = 0 AND total <= 2'), $name);
	return;
}

# --- the reserve is not for those who want their first
{
	my @holder = map { client('nested') } 1 .. 2;
	my ($newcomer, $second) = map { client('nested') } 1 .. 2;
	$_->sql('BEGIN') foreach @holder;
	ok(until_pool($server, 'in_transaction = 2'), 'two threads hold all backends again');
	ask($newcomer, 'BEGIN');
	ok(until_pool($server, 'waiting = 1'), 'a third wants its first connection');
	ask($second, 'SELECT 42');
	is(answer($second), '42', 'the second connection of one that holds is served, though it came later');
	all_go(\@holder, $newcomer, $second, 'all have gone, and the reserve with them');
}

# --- nor for one who thinks within transactions, and came last
{
	my @holder = map { client('nested') } 1 .. 2;
	my ($newcomer, $second) = map { client('nested') } 1 .. 2;
	$newcomer->sql('BEGIN');
	select undef, undef, undef, 0.1;  # what is remembered is a long thought
	$newcomer->sql('COMMIT');
	$_->sql('BEGIN') foreach @holder;
	ok(until_pool($server, 'in_transaction = 2'), 'two threads hold all backends once more');
	ask($second, 'SELECT 43');
	ok(until_pool($server, 'waiting = 1'), 'one of them wants its second connection');
	ask($newcomer, 'BEGIN');
	ok(until_pool($server, 'waiting = 2'), 'then a third its first, and that one thinks within transactions');
	is(answer($second), '43', 'who gives its backend back at once is served first');
	all_go(\@holder, $newcomer, $second, 'all have gone again');
}

# --- others that wait are no deadlock
{
	my @holder = map { client("holder $_") } 1 .. 2;
	my $other = client('somebody else');
	my $seen = pool($server, 'nested_acquires');
	$_->sql('BEGIN') foreach @holder;
	ask($other, 'SELECT 7');
	ok(until_pool($server, 'waiting = 1 AND in_transaction = 2'), 'another application waits');
	select undef, undef, undef, 1.5;
	is(pool($server, "waiting || ' ' || nested_acquires || ' ' || total"), "1 $seen 2", 'it has to wait: that is no deadlock, and the reserve stays closed');
	$holder[0]->sql('COMMIT');
	is(answer($other), '7', 'until one of them has finished');
	$holder[1]->sql('COMMIT');
	$_->close foreach @holder, $other;
}

# --- nor are clients that think for long and take turns
{
	$server->sql('SELECT sluice.reset_statistics()');
	my @client = map { client('slow') } 1 .. 4;
	$_->sql('BEGIN') foreach @client[0, 1];
	select undef, undef, undef, 0.9;
	$_->sql('COMMIT') foreach @client[0, 1];  # now it is known how long they think
	ok($server->wait_until("SELECT p95_us > 800000 FROM sluice.waits WHERE measure = 'thinking'"), 'clients think for a second');
	$_->sql('BEGIN') foreach @client[0, 1];
	ask($_, 'SELECT 1') foreach @client[2, 3];
	ok(until_pool($server, 'waiting = 2 AND in_transaction = 2'), 'as many wait');
	select undef, undef, undef, 1.2;
	is(pool($server, "nested_acquires || ' ' || total"), '0 2', 'that is nothing unusual');
	$_->sql('COMMIT') foreach @client[0, 1];
	answer($_) foreach @client[2, 3];
	$_->close foreach @client;
}

is($server->sql('SELECT backends <= max_backends FROM sluice.status'), 't', 'the server is within its limit again');
done_testing();
