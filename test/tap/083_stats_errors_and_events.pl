# SPDX-License-Identifier: PostgreSQL
#
# Each class of error and each kind of event, provoked and found again: how often, why, of whom, and who may read it.

use strict;
use warnings;

use LoginProbe qw(login_outcome);
use PoolTest;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', tcp => 1, conf => <<'CONF');
sluice.max_pool_size = 2
sluice.max_backends = 12
sluice.max_clients = 30
sluice.max_pools = 15
sluice.acquire_timeout = 0
CONF
my $me = own_name();

# How often, 0 if never.
sub errors
{
	my ($class, $sqlstate) = @_;
	return $server->sql("SELECT coalesce(sum(count), 0) FROM sluice.errors WHERE class = '$class' AND sqlstate = '$sqlstate'");
}

sub message
{
	my ($class, $sqlstate, %option) = @_;
	return $server->sql("SELECT last_message FROM sluice.errors WHERE class = '$class' AND sqlstate = '$sqlstate'", %option);
}

# Reasons of all events of this kind, oldest first.
sub reasons
{
	my ($kind, %option) = @_;
	my $where = defined $option{role} ? " AND role = '$option{role}'" : '';
	return $server->sql("SELECT coalesce(string_agg(coalesce(reason, '(hidden)'), '; ' ORDER BY number), '') FROM sluice.events WHERE kind = '$kind'$where",
		%{ $option{as} || {} });
}

sub until_event
{
	my ($kind, $condition) = @_;
	my $found = $server->wait_until("SELECT count(*) > 0 FROM sluice.events WHERE kind = '$kind' AND $condition");
	diag($server->sql('SELECT e FROM sluice.events e')) unless $found;
	return $found;
}

sub number_of_only_client
{
	until_pool($server, 'clients = 1');
	return $server->sql("SELECT client FROM sluice.clients WHERE role = '$me' AND state <> 'closing'");
}

# What ends a client that has asked for nothing.
sub last_words
{
	my ($client) = @_;
	my ($error) = grep { $_->{type} eq 'E' } $client->read_until('');
	return $error ? RawClient::error_fields($error)->{C} : '';
}

is($server->sql('SELECT count(*) FROM sluice.errors'), '0', 'a server that has just started has seen no errors');
is($server->sql('SELECT count(*) FROM sluice.events'), '0', 'nor events');

# ---------------------------------------------------------------- errors of statements
{
	my $client = $server->pool_raw;
	$client->sql('CREATE TABLE t (id int PRIMARY KEY)');
	$client->sql('INSERT INTO t VALUES (1)');
	is($client->sql_error('SELEC 1')->{C}, '42601', 'a syntax error') foreach 1 .. 2;
	is($client->sql_error('SELECT 1/0')->{C}, '22012', 'a division by zero');
	is($client->sql_error('INSERT INTO t VALUES (1)')->{C}, '23505', 'a duplicate key');
	is(errors('statement', '42601'), '2', 'the same error twice is counted twice');
	is(errors('statement', '22012') . errors('statement', '23505'), '11', 'others once');
	is(message('statement', '22012'), 'division by zero', 'with the latest message');
	is(message('statement', '23505'), 'duplicate key value violates unique constraint "t_pkey"', 'of each');
	is($server->sql("SELECT count(*) FROM sluice.errors WHERE first_at <= last_at AND last_at <= clock_timestamp() AND first_at >= statistics_since"), '3',
		'the first is not after the last, both are in the past');
	is($server->sql("SELECT first_at < last_at FROM sluice.errors WHERE sqlstate = '42601'"), 't', 'two errors have two times');
	is($server->sql('SELECT count(DISTINCT statistics_since) || \' \' || (min(statistics_since) = (SELECT started_at FROM sluice.status)) FROM sluice.errors'),
		'1 true', 'counted since the start');

	my @answers = $client->exchange(RawClient::parse('', 'SELECT 1/0') . RawClient::bind('', '') . RawClient::execute('') . RawClient::sync());
	is(errors('statement', '22012'), '2', 'the extended protocol counts once');
	$client->sql('DO $$ BEGIN PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END $$');
	is(errors('statement', '22012'), '2', 'an error that is caught is none');
	$client->sql('BEGIN');
	$client->sql_error('SELECT 1/0');
	is($client->sql_error('SELECT 1')->{C}, '25P02', 'a failed transaction');
	$client->sql('ROLLBACK');
	is(errors('statement', '22012') . errors('statement', '25P02'), '31', 'errors inside transactions count');
	$client->sql_error(q{DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'XX001'; END $$});
	is(errors('internal', 'XX001') . errors('statement', 'XX001'), '10', 'what should never happen has a class of its own');
	is(message('internal', 'XX001'), 'broken', 'with its message');
	$client->sql_error("DO \$\$ BEGIN RAISE '%', repeat('\xe2\x82\xac', 200) USING ERRCODE = 'AB001'; END \$\$");
	is($server->sql("SELECT last_message = repeat(U&'\\20AC', 67) FROM sluice.errors WHERE sqlstate = 'AB001'"), 't',
		'a long message is cut where a character ends');
	$server->sql("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0");
	$server->sql('CREATE EXTENSION pg_sluice', dbname => 'plain');
	is($server->sql("SET client_encoding = 'UTF8'; SELECT last_message = repeat('?', 201) FROM sluice.errors WHERE sqlstate = 'AB001'", dbname => 'plain'), 't',
		'where letters have no encoding, it is no error to a client that has one');
	$client->sql(q{SET client_encoding = 'LATIN1'});
	$client->sql_error(q{DO $$ BEGIN RAISE '%', 'na' || chr(239) || 've' USING ERRCODE = 'AB002'; END $$});
	is(message('statement', 'AB002'), 'na?ve', 'one that was converted keeps its ASCII');
	$client->close;

	my $others = $server->sql('SELECT sum(count) FROM sluice.errors');
	$server->psql('SELECT 1/0; SELEC 1');
	$server->psql('SELEC 1');
	is($server->sql('SELECT sum(count) FROM sluice.errors'), $others, 'errors on the direct port are not counted');
}

# ---------------------------------------------------------------- errors of clients on their way in
{
	my $tcp = { host => '127.0.0.1', port => $server->pool_port };
	$server->sql(q{SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'secret'});
	my $path = $server->node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($path);
	open my $file, '>', $path or die "$path: $!";
	print $file "host all scram 127.0.0.1/32 scram-sha-256\n$rules";
	close $file;
	$server->sql('SELECT pg_reload_conf()');
	# The dispatcher follows the reload a moment later.
	my $wrong = 0;
	$wrong++ until login_outcome(%$tcp, user => 'scram', dbname => 'postgres', password => 'x') =~ /28P01/ || $wrong > 1000;
	is(errors('authentication', '28P01'), '1', 'a wrong password');
	login_outcome(%$tcp, user => 'scram', dbname => 'postgres', password => 'y');
	is(errors('authentication', '28P01'), '2', 'and another one');
	is(message('authentication', '28P01'), 'password authentication failed for user "scram"', 'with its message');
	$server->pool_psql('SELECT 1', user => 'nobody_knows');
	is(errors('authentication', '28000'), '1', 'an unknown role');
	$server->pool_psql('SELECT 1', dbname => 'nowhere');
	is(errors('authentication', '3D000'), '1', 'an unknown database');

	$server->sql('CREATE ROLE narrow LOGIN CONNECTION LIMIT 1');
	my $only = $server->pool_raw(user => 'narrow');
	$server->pool_psql('SELECT 1', user => 'narrow');
	is(errors('limit', '53300'), '1', 'CONNECTION LIMIT');
	is(message('limit', '53300'), 'too many connections for role "narrow"', 'says which');
	ok($server->wait_until('SELECT clients = 1 FROM sluice.status'), 'earlier clients have left');
	my @crowd = map { $server->pool_raw } 1 .. 29;
	my $surplus = RawClient->try_connect(host => $server->host, port => $server->pool_port, user => $me, dbname => 'postgres');
	is($surplus->error->{C}, '53300', 'too many clients');
	is(errors('limit', '53300'), '2', 'are counted');
	is(message('limit', '53300'), 'sorry, too many clients already', 'with their message');
	$_->close foreach $only, @crowd;
	ok(until_pool($server, 'clients = 0'), 'they leave');

	my $garbage = RawClient->open(host => $server->host, port => $server->pool_port);
	$garbage->send_bytes("GET / HTTP/1.1\r\n\r\n");
	is($garbage->read_message->{type}, 'EOF', 'garbage is not answered');
	is(errors('protocol', '08P01'), '1', 'but counted');
	my $future = RawClient->open(host => $server->host, port => $server->pool_port);
	$future->send_bytes(pack('NNa*', 4 + 4 + 1, 4 << 16, "\0"));
	is($future->read_message->{type}, 'E', 'an unknown protocol');
	is(errors('protocol', '0A000'), '1', 'is counted as such');
}

# ---------------------------------------------------------------- the protocol, later
{
	my $client = $server->pool_raw;
	$client->send_bytes("\x01" . pack('N', 4));
	is(last_words($client), '08P01', 'a message of an unknown type ends the client');
	is(errors('protocol', '08P01'), '2', 'counted');
	$client = $server->pool_raw;
	$client->send_bytes('Q' . pack('N', 3));
	is(last_words($client), '', 'one of an impossible length without a word');
	is(errors('protocol', '08P01'), '3', 'counted as well');
	is(message('protocol', '08P01'), 'invalid message length', 'with what the log says');
	$client = $server->pool_raw;
	my ($error) = $client->exchange(RawClient::bind('', 'nothing') . RawClient::sync());
	is($error->{type}, 'E', 'a statement that does not exist is an ordinary error');
	is(errors('statement', '26000'), '1', 'of a statement');
	$client->close;
}

# ---------------------------------------------------------------- pools and backends
ok(until_event('pool_created', "database = 'postgres' AND role = '$me' AND num_nulls(backend_pid, client) = 2"), 'a pool is made');
is(reasons('pool_created', role => $me), 'first client of its database and role', 'once');
ok(until_event('backend_started', "role = '$me' AND reason = 'first backend of the pool' AND backend_pid > 0 AND client IS NULL"),
	'its first backend starts');
{
	my $gate = PoolTest::Gate->new($server);
	my @clients = map { $server->pool_raw } 1 .. 2;
	ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach @clients;
	ok(until_pool($server, 'active = 2'), 'two clients work');
	ok(until_event('backend_started', "role = '$me' AND reason = 'clients wait'"), 'the second backend was started because somebody waited');
	$gate->open;
	answer($_) foreach @clients;
	$_->close foreach @clients;
}
ok($server->wait_until("SELECT count(*) = 2 AND bool_and(kind = 'backend_started') FROM sluice.events JOIN sluice.backends ON pid = backend_pid WHERE state = 'waiting' AND sluice.backends.role = '$me'"),
	'nothing but their start has happened to those that wait');

# A start that is needed no more when it could have been made.
{
	$server->sql('SELECT sluice.retire_backends()');
	ok(until_pool($server, 'total = 0'), 'all backends leave');
	ok(until_event('backend_retired', "role = '$me' AND reason = 'retired on request' AND backend_pid > 0"), 'because they were asked to');
	$server->pool_sql('SELECT 1');
	ok($server->reload_with('sluice.debug_backend_start_delay', 4000), 'starts take a moment');
	my $gate = PoolTest::Gate->new($server);
	my @clients = map { $server->pool_raw } 1 .. 3;
	ask($_, 'SELECT 1 FROM ' . $gate->wait) foreach @clients;
	ok(until_pool($server, '(active = 1 AND starting = 1 AND waiting = 2) OR active = 2'), 'one works, and one is being started for the next')
	  foreach 1 .. 2;
	$gate->open;
	answer($_) foreach @clients;
	ok(until_event('start_elided', "role = '$me' AND reason = 'nobody waits' AND num_nulls(backend_pid, client) = 2"), 'no third one for the burst');
	is(reasons('start_elided', role => 'narrow'), '', 'a client that waited for the start made for it is no such event');
	is(pool($server, "starts_elided = (SELECT count(*) FROM sluice.events WHERE kind = 'start_elided' AND role = '$me')"), 't', 'as the counter says');
	$_->close foreach @clients;
	ok(until_pool($server, 'starting = 0'), 'the start has ended');
}

# A start that fails.
{
	$server->sql('CREATE ROLE app LOGIN');
	my @clients = map { begin_connect($server, user => 'app') } 1 .. 2;
	ok(until_pool($server, 'starting = 1 AND waiting = 2', user => 'app'), 'two clients wait for the first backend of their pool');
	$server->sql('ALTER ROLE app NOLOGIN');
	$_->authenticate foreach @clients;
	is($_->error->{C}, '28000', 'which cannot start') foreach @clients;
	is(errors('backend_start', '28000'), '2', 'counted for each that was told');
	is(message('backend_start', '28000'), 'role "app" is not permitted to log in', 'with the reason');
	is(errors('authentication', '28000'), '1', 'and not as a failure to authenticate');
	is(reasons('start_failed'), 'role "app" is not permitted to log in', 'one start has failed');
	is(reasons('backend_started', role => 'app'), '', 'and none was made');
	$server->reload_with('sluice.debug_backend_start_delay', 0);
	$server->sql('ALTER ROLE app LOGIN');
}

# Why backends leave.
{
	is($server->pool_sql('SELECT 1', user => 'app'), '1', 'a backend of another role');
	$server->sql("SELECT pg_terminate_backend(pid) FROM sluice.backends WHERE role = 'app'");
	ok(until_event('backend_retired', "role = 'app' AND reason = 'terminated, or ended by an error'"), 'terminated');
	$server->sql("ALTER ROLE app SET sluice.max_lifetime = '1s'");
	is($server->pool_sql('SELECT 1', user => 'app'), '1', 'a backend that does not get old');
	ok(until_event('backend_retired', "role = 'app' AND reason = 'end of its lifetime'"), 'end of its lifetime');
	$server->sql('ALTER ROLE app RESET ALL');
	is($server->pool_sql('SELECT 1', user => 'app'), '1', 'one that has nothing to do');
	ok($server->reload_with('sluice.idle_timeout', 1), 'and is not wanted then');
	ok(until_event('backend_retired', "role = 'app' AND reason = 'idle for too long'"), 'idle');
	$server->sql('ALTER SYSTEM RESET sluice.idle_timeout');
	$server->sql('SELECT pg_reload_conf()');

	$server->sql("CREATE ROLE held LOGIN; ALTER ROLE held SET sluice.pool_mode = 'session'");
	is($server->pool_sql('CREATE TEMP TABLE mine (id int); SELECT 1', user => 'held'), '1', 'one that a session has left its schema in');
	ok(until_event('backend_retired', "role = 'held' AND reason = 'renewed to get rid of session state'"), 'renewed');
}

# ---------------------------------------------------------------- clients
{
	$server->sql("CREATE ROLE hasty LOGIN; ALTER ROLE hasty SET sluice.max_pool_size = 1");
	my $gate = PoolTest::Gate->new($server);
	my @clients = map { $server->pool_raw(user => 'hasty') } 1 .. 2;
	$clients[0]->sql('SELECT 1');
	ask($clients[0], 'SELECT 1 FROM ' . $gate->wait);
	ok(until_pool($server, 'active = 1', user => 'hasty'), 'the only backend works');
	# Not before: a backend's start may take longer.
	ok($server->reload_with('sluice.acquire_timeout', 100), 'nobody shall wait for long');
	ask($clients[1], 'SELECT 1');
	is(outcome($clients[1])->{C}, '53300', 'another client waits in vain');
	is(errors('acquire_timeout', '53300') . errors('limit', '53300'), '12', 'which is an error of its own class');
	like(message('acquire_timeout', '53300'), qr/^could not get a backend from pool "hasty\/postgres" within 100 ms$/, 'with its message');
	ok(until_event('acquire_timeout', "role = 'hasty' AND client >= 0 AND backend_pid IS NULL AND reason ~ '^no backend within 100 ms: 1 active, 0 idle'"),
		'and an event that says what was in the way');
	$gate->open;
	answer($clients[0]);
	$clients[0]->close;
	ok($server->reload_with('sluice.acquire_timeout', 0), 'from now on everybody does');
	ok($server->wait_until("SELECT bool_and(clients = 0) FROM sluice.pools WHERE role = 'hasty'"), 'the client has gone');
}
{
	$server->sql("CREATE ROLE leaker LOGIN; ALTER ROLE leaker SET sluice.max_pool_size = 1; ALTER ROLE leaker SET sluice.leak_threshold = '100ms'");
	my @clients = map { $server->pool_raw(user => 'leaker') } 1 .. 2;
	ask($clients[0], 'SELECT pg_sleep(600)');
	ok(until_pool($server, 'active = 1', user => 'leaker'), 'the only backend works for long');
	ask($clients[1], 'SELECT 1');
	ok(until_event('leak', "role = 'leaker' AND backend_pid > 0 AND client >= 0 AND reason ~ '^held for \\d+ ms, 1 waiting, transaction executing\$'"),
		'while another client waits');
	$server->sql("SELECT sluice.cancel_client(client) FROM sluice.clients WHERE role = 'leaker' AND state = 'leased'");
	is((outcome($clients[0]))->{C}, '57014', 'the first one is cancelled');
	is(answer($clients[1]), '1', 'and the other served');
	$_->close foreach @clients;
}
{
	$server->sql("CREATE ROLE pinner LOGIN; ALTER ROLE pinner SET sluice.pin_timeout = '200ms'");
	my $client = $server->pool_raw;
	foreach (1 .. 3)
	{
		$client->sql('SELECT pg_advisory_lock(1)');
		$client->sql('SELECT pg_advisory_unlock(1)');
	}
	is(pool($server, 'pins_advisory_lock') . '/' . reasons('pinned'), '3/advisory_lock', 'a client that is pinned time and again is one event');
	$client->sql('CREATE TEMP TABLE mine (id int)');
	is(reasons('pinned', role => $me), 'advisory_lock; temporary_objects', 'another reason is another event');
	my $pid = $client->sql('SELECT pg_backend_pid()');
	is($server->sql("SELECT count(*) FROM sluice.events e JOIN sluice.clients c USING (client) WHERE kind = 'pinned' AND reason = 'temporary_objects' AND e.backend_pid = $pid"),
		'1', 'with client and backend');
	$client->close;

	my $slow = $server->pool_raw(user => 'pinner');
	$slow->sql('LISTEN news');
	is(last_words($slow), '57P05', 'a pinned client that is idle is ended');
	is(errors('client_end', '57P05'), '1', 'counted');
	is(message('client_end', '57P05'), 'terminating connection due to pin timeout', 'with its message');
	is(reasons('pinned', role => 'pinner') . '/' . reasons('pin_timeout'), 'listen/listen', 'two events');

	$server->sql("CREATE ROLE strict LOGIN; ALTER ROLE strict SET sluice.on_session_state = 'error'");
	my $strict = $server->pool_raw(user => 'strict');
	is($strict->sql_error('LISTEN news')->{C}, '0A000', 'a pin is refused');
	is(errors('statement', '0A000') . '/' . reasons('pin_refused'), '1/listen', 'an error and an event');
	$strict->close;
}
{
	my $client = $server->pool_raw;
	my $number = number_of_only_client();
	is($server->sql("SELECT sluice.disconnect_client($number)"), 't', 'an administrator ends a client');
	is(last_words($client), '57P01', 'that is idle');
	is(errors('client_end', '57P01'), '1', 'counted');
	$client = $server->pool_raw;
	$client->sql('BEGIN');
	$number = number_of_only_client();
	is($server->sql("SELECT sluice.disconnect_client($number)"), 't', 'and one in a transaction');
	is(last_words($client), '57P01', 'that ends, too');
	is(errors('client_end', '57P01'), '2', 'counted');

	$client = $server->pool_raw;
	$client->sql('BEGIN');
	$client->drop;
	ok(until_event('client_lost', "role = '$me' AND reason = 'inside a transaction' AND backend_pid > 0 AND client >= 0"), 'a client is lost in a transaction');
	$client = $server->pool_raw;
	ask($client, 'SELECT pg_sleep(1000)');
	ok(until_pool($server, 'active = 1'), 'another one');
	$client->drop;
	ok(until_event('client_lost', "role = '$me' AND reason = 'while a command was executed'"), 'in a command');
	is($server->sql("SELECT count(*) FROM sluice.events WHERE kind = 'client_lost'"), $server->sql('SELECT sum(clients_lost) FROM sluice.pools'), 'as counted');
	$server->sql("ALTER ROLE app SET idle_in_transaction_session_timeout = '100ms'");
	$client = $server->pool_raw(user => 'app');
	$client->sql('BEGIN');
	is(last_words($client), '25P03', 'a transaction that is idle for too long');
	is(errors('client_end', '25P03'), '1', 'is counted');
	my $outcome = login_outcome(host => $server->host, port => $server->pool_port, user => 'app', dbname => 'postgres', parameters => { work_mem => 'much' });
	like($outcome, qr/FATAL 22023/, 'a bad start-up setting');
	is(errors('client_end', '22023'), '1', 'is counted');
}

# ---------------------------------------------------------------- who may read what
{
	$server->sql('CREATE ROLE reader LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_read_all_stats; CREATE ROLE manager LOGIN IN ROLE app');
	my %reader = (user => 'reader');
	is($server->sql('SELECT count(*) > 10 AND count(last_message) = 0 FROM sluice.errors', %reader), 't', 'anybody sees what errors there are, not their messages');
	is($server->sql('SELECT count(*) = count(last_message) FROM sluice.errors', user => 'monitor'), 't', 'a reader of statistics sees those, too');
	is($server->sql("SELECT string_agg(sqlstate, ' ' ORDER BY sqlstate) FROM sluice.errors WHERE last_message IS NOT NULL", user => 'manager'), '22023 25P03 28000',
		'a member of a role those of that role');
	$server->pool_psql('SELECT 1/0', %reader);
	is(message('statement', '22012', %reader), 'division by zero', 'and anybody its own');
	is(reasons('start_failed', as => \%reader) . '/' . reasons('start_failed', as => { user => 'manager' }),
		'(hidden)/role "app" is not permitted to log in', 'messages of failed starts are guarded the same');
	is($server->sql("SELECT count(*) FROM sluice.events WHERE reason IS NULL AND kind <> 'start_failed'", %reader), '0', 'other reasons are not');
}

# ---------------------------------------------------------------- from zero
{
	my $events = $server->sql('SELECT count(*) FROM sluice.events');
	my $since = $server->sql('SELECT sluice.reset_statistics()');
	is($server->sql('SELECT count(*) FROM sluice.errors'), '0', 'reset_statistics() forgets the errors');
	is($server->sql('SELECT count(*) FROM sluice.events') - $events, 1, 'and not the events');
	is($server->sql('SELECT kind || num_nulls(database, role, backend_pid, client) FROM sluice.events ORDER BY number DESC LIMIT 1'), 'statistics_reset4',
		'it is one itself');
	$server->pool_psql('SELECT 1/0');
	is($server->sql("SELECT class || ' ' || count || ' ' || (statistics_since = '$since') || (first_at = last_at) || (first_at > statistics_since) FROM sluice.errors"),
		'statement 1 truetruetrue', 'counting begins anew');
}
is($server->sql('SELECT count(DISTINCT kind) FROM sluice.events'), '12', 'each kind of event has been seen, but that of clients that wait for themselves');
ok($server->wait_until('SELECT count(*) = max(number) AND min(number) = 1 AND bool_and(at <= clock_timestamp()) FROM sluice.events'), 'no event has been lost so far');
is($server->sql('SELECT bool_and(ordered) FROM (SELECT number > coalesce(lag(number) OVER (), 0) AS ordered FROM sluice.events) e'), 't', 'they are in order');

# ---------------------------------------------------------------- a small ring
{
	$server->node->append_conf('postgresql.conf', 'sluice.max_events = 16');
	$server->restart;
	is($server->sql('SELECT count(*) FROM sluice.errors'), '0', 'a new server has seen no errors');
	$server->pool_sql('SELECT 1');
	my $first = $server->sql('SELECT max(number) FROM sluice.events');
	$server->sql('SELECT sluice.reset_statistics() FROM generate_series(1, 40)');
	is($server->sql("SELECT count(*) || ' ' || (min(number) > $first) || ' ' || count(DISTINCT kind) FROM sluice.events"), '16 true 1', 'a small ring has the latest only');
	is($server->sql('SELECT max(number) - min(number) FROM sluice.events'), '15', 'without a gap');
	is($server->sql('SELECT min(number) - 1 + 16 = max(number) FROM sluice.events'), 't', 'and the numbers tell how many are no more');
}

$server->stop;
done_testing();
