# SPDX-License-Identifier: PostgreSQL
#
# Clients that speak TLS: whatever a session does, it does as without, and at the
# end nothing of it is left.

use strict;
use warnings;

use Certificates;
use IPC::Run;
use PoolTest;
use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $files = Certificates->new;
my $server = SluiceTest->new('main', tcp => 1, conf => $files->conf('server') . <<'CONF');
max_connections = 30
sluice.max_pool_size = 2
sluice.max_backends = 4
sluice.max_clients = 400
sluice.kernel_tls = off    # 017 has the kernel's
CONF
my $node = $server->node;
my %tcp = (host => '127.0.0.1');
my %tls = (%tcp, sslmode => 'require');
my $ssl_request = pack('NN', 8, 80877103);

sub tls_client { return $server->pool_raw(%tcp, tls => {}, @_) }

sub dispatcher
{
	return $server->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sluice dispatcher'});
}

sub descriptors
{
	my ($pid) = @_;
	opendir my $directory, "/proc/$pid/fd" or die "/proc/$pid/fd: $!";
	my @names = grep { /^\d+$/ } readdir $directory;
	closedir $directory;
	return scalar @names;
}

# Until nobody is there: what a client has left is cleared up after it has gone.
sub until_alone
{
	return $server->wait_until('SELECT count(*) FROM sluice.clients', 0);
}

my $dispatcher = dispatcher();

# ---------------------------------------------------------------- who is offered it

{
	my $client = RawClient->open(%tcp, port => $server->pool_port);
	$client->send_bytes($ssl_request);
	is($client->read_bytes(1), 'S', 'over TCP encryption is offered');
	$client->drop;
	$client = RawClient->open(host => $server->host, port => $server->pool_port);
	$client->send_bytes($ssl_request);
	is($client->read_bytes(1), 'N', 'over a Unix socket it is not');
	$client->send_startup(user => own_name(), database => 'postgres');
	$client->authenticate;
	is($client->error, undef, 'and the client goes on without');
	$client->close;

	is($server->pool_sql('SELECT 1', %tcp, sslmode => 'disable'), 1, 'a client may do without over TCP as well');
	is($server->pool_sql('SELECT 1', %tls), 1, 'or ask for it');
	is( $server->pool_sql('SELECT 1', %tcp, sslmode => 'verify-full', sslrootcert => $files->authority),
		1, 'and verify the certificate');
	my ($code, undef, $errors) =
	  $server->pool_psql('SELECT 1', host => 'localhost.localdomain', hostaddr => '127.0.0.1', sslmode => 'verify-full',
		sslrootcert => $files->authority);
	like($errors, qr/does not match host name/, 'the certificate is for nobody else');
}

# ---------------------------------------------------------------- what a session does

is($server->pool_sql(q{SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 50000)}, %tls),
	50000000, 'a statement with much behind it');
is( $server->pool_sql(q{SELECT repeat('0123456789', 5000000)}, %tls) eq '0123456789' x 5000000,
	1, 'one value of 50 MB arrives as it is');
{
	my $client = tls_client();
	$client->send_bytes(RawClient::query(q{SELECT g, repeat(chr(65 + g % 26), 1000) FROM generate_series(1, 50000) g}));
	my ($wrong, $expected) = (0, 0);
	while (1)
	{
		my $message = $client->read_message;
		last if $message->{type} =~ /^(?:Z|E|EOF)$/;
		next unless $message->{type} eq 'D';
		$expected++;
		my ($number, $text) = RawClient::row_fields($message);
		$wrong++ unless $number == $expected && $text eq chr(65 + $expected % 26) x 1000;
	}
	is("$expected rows, $wrong wrong", '50000 rows, 0 wrong', 'and 50 MB of rows');
	my $long = 'y' x 20000000;
	is(scalar $client->sql("SELECT length('$long')"), 20000000, 'so does a query of 20 MB');
	$client->close;
}
{
	my $lines = join '', map { "$_\t" . ('v' x 500) . "\n" } 1 .. 40000;
	my ($input, $output) = map { PostgreSQL::Test::Utils::tempdir() . "/$_" } 'input', 'output';
	PostgreSQL::Test::Utils::append_to_file($input, $lines);
	$server->sql('CREATE TABLE copied (id int, text text)');
	$server->pool_sql("\\copy copied from '$input'", %tls);
	is($server->sql('SELECT count(*), sum(id), sum(length(text)) FROM copied'),
		join('|', 40000, 40000 * 40001 / 2, 40000 * 500), '20 MB are copied in');
	$server->pool_sql("\\copy (SELECT * FROM copied ORDER BY id) to '$output'", %tls);
	ok(PostgreSQL::Test::Utils::slurp_file($output) eq $lines, 'and out');
}
{
	my $client = tls_client();
	my $insert = join '', RawClient::parse('add', 'SELECT $1::int + 1'),
	  map { RawClient::bind('', 'add', [$_]) . RawClient::execute('') } 1 .. 5000;
	my @rows = grep { $_->{type} eq 'D' } $client->exchange($insert . RawClient::sync());
	is(scalar @rows, 5000, 'five thousand commands in one pipeline are all answered');
	is((RawClient::row_fields($rows[-1]))[0], 5001, 'in their order');
	my @switched = $client->exchange(RawClient::bind('', 'add', [41]) . RawClient::execute('') . RawClient::sync());
	is((map { RawClient::row_fields($_) } grep { $_->{type} eq 'D' } @switched)[0],
		42, 'a prepared statement is there in the next transaction');
	$client->close;
}
{
	my ($listener, $plain) = (tls_client(), $server->pool_raw);
	$listener->sql('LISTEN news');
	$plain->sql(q{NOTIFY news, 'from a plain client'});
	my ($message) = grep { $_->{type} eq 'A' } $listener->read_until('A');
	is(RawClient::describe($message), 'NotificationResponse news=from a plain client', 'a notification comes unasked');
	$listener->sql('UNLISTEN *');
	$_->close foreach $listener, $plain;
}
{
	# Transactions of both kinds of clients by turns: on two backends each meets those of the others.
	my @clients = map { $_ % 2 ? tls_client() : $server->pool_raw } 1 .. 6;
	$server->sql('CREATE TABLE mixed (client int)');
	foreach my $round (1 .. 20)
	{
		foreach my $number (0 .. $#clients) { ask($clients[$number], "INSERT INTO mixed VALUES ($number) RETURNING client"); }
		foreach my $number (0 .. $#clients)
		{
			my $answer = answer($clients[$number]);
			fail("client $number got the answer of client $answer") if $answer != $number;
		}
	}
	is($server->sql('SELECT count(*), count(DISTINCT client) FROM mixed'), '120|6',
		'plain and encrypted clients share backends');
	ok($server->sql(q{SELECT count(*) <= 2 FROM sluice.backends}) eq 't', 'two of them');
	is($server->sql('SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM sluice.clients'),
		'3|3', 'and the view tells them apart');
	$_->close foreach @clients;
}
{
	my ($output, $errors) = ('', '');
	my $connection = $server->pool_connstr(%tls);
	$server->sql('CREATE TABLE counted (client int, number int)');
	PostgreSQL::Test::Utils::append_to_file(my $script = PostgreSQL::Test::Utils::tempdir() . '/script.sql',
		"\\set n random(1, 1000000)\nBEGIN;\nINSERT INTO counted VALUES (:client_id, :n);\nSELECT :n;\nCOMMIT;\n");
	my $ended = IPC::Run::run(
		[ 'pgbench', '-n', '-c', 200, '-j', 4, '-t', 10, '-M', 'extended', '-f', $script, $connection ],
		'>', \$output, '2>', \$errors);
	ok($ended, '200 clients on few backends') or diag($errors);
	is($server->sql('SELECT count(*), count(DISTINCT client) FROM counted'), '2000|200',
		'each transaction took place once');
}

# ---------------------------------------------------------------- cancelling

foreach my $how ('plain', 'encrypted')
{
	my $client = tls_client();
	ask($client, 'SELECT pg_sleep(3000)');
	$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
	my $other = RawClient->open(%tcp, port => $server->pool_port);
	ok($how eq 'plain' || $other->start_tls, "a connection for the request to cancel, $how");
	$other->send_bytes(pack('NNNN', 16, 80877102, $client->pid, $client->key));
	ok($other->at_end_of_stream, 'it is closed without an answer');
	is(outcome($client)->{C}, '57014', "the query is cancelled by a request that came $how");
	is(scalar $client->sql('SELECT 1'), 1, 'and nothing else');
	$client->close;
}

# ---------------------------------------------------------------- clients that go away

foreach my $way ('drop', 'reset')
{
	my $client = tls_client();
	$client->sql('BEGIN');
	ask($client, 'SELECT pg_sleep(3000)');
	$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
	$client->$way;
	ok($server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 0),
		"the query of a client that went away ($way) is cancelled");
}
{
	my $psql = IPC::Run::start([ 'psql', '-X', '-c', 'SELECT pg_sleep(3000)', $server->pool_connstr(%tls) ],
		'<', \undef, '>', \my $output, '2>', \my $errors);
	$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
	$psql->kill_kill(grace => 0);
	ok($server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 0),
		'and of a psql that was killed');
}
{
	# A client that does not read stops its own query only.
	my $client = tls_client();
	ask($client, q{SELECT repeat('x', 1000), generate_series(1, 100000000)});
	$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'}, 1)
	  or diag($server->sql('SELECT pid, backend_type, wait_event, query FROM pg_stat_activity'));
	is($server->pool_sql('SELECT 1', %tls), 1, 'a client that does not read its result is in nobody\'s way');
	$client->drop;
	ok($server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%100000000%' AND state = 'active'
	  AND pid <> pg_backend_pid()}, 0), 'and is given up when it goes away');
}
{
	# Goodbye, and the end of TLS behind it, in one piece with the last query.
	my $client = tls_client();
	$server->sql('CREATE TABLE last_will (id int)');
	my $tls = $client->tls;
	my $bytes = $tls->encrypt(RawClient::query('INSERT INTO last_will VALUES (1)') . RawClient::terminate());
	$client->send_plainly($bytes . $tls->say_end);
	$client->drop;
	ok($server->wait_until('SELECT count(*) FROM last_will', 1), 'a last query is executed before the end is');
}
{
	my $client = tls_client();
	$client->sql('SELECT 1');
	my $log = $server->log_size;
	$client->send_plainly("this is no TLS record, and it is long enough to be seen as none\n");
	ok($client->at_end_of_stream, 'a client that falls out of TLS is disconnected');
	until_alone();
	is($server->pool_sql('SELECT 1', %tls), 1, 'nobody else is');
}

# ---------------------------------------------------------------- the server ends a client

{
	my $client = tls_client();
	my $slot = $server->sql('SELECT client FROM sluice.clients WHERE ssl');
	$server->sql("SELECT sluice.disconnect_client($slot)");
	my ($error) = grep { $_->{type} eq 'E' } $client->read_until('E');
	is($error && RawClient::error_fields($error)->{C}, '57P01', 'a client that is disconnected is told so in TLS');
	ok($client->at_end_of_stream, 'before its stream ends');
	ok($client->tls->ended && !$client->tls->broken, 'in order, by close_notify');
}
{
	my ($idle, $busy) = (tls_client(), tls_client());
	$busy->sql('BEGIN');
	$server->sql("SELECT pg_terminate_backend($dispatcher)");
	my ($error) = grep { $_->{type} eq 'E' } $idle->read_until('E');
	is($error && RawClient::error_fields($error)->{C}, '57P01', 'so is one whose dispatcher is told to leave');
	ok($idle->at_end_of_stream && $busy->at_end_of_stream, 'and all streams end');
	ok($server->wait_until(
			"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sluice dispatcher' AND pid <> $dispatcher", 1),
		'another dispatcher follows');
	$server->wait_for_pool;
	is($server->pool_sql('SELECT 1', %tls), 1, 'and offers the same');
}

# ---------------------------------------------------------------- nothing is left

$dispatcher = dispatcher();
# Both backends, and whatever the dispatcher opens once.
{
	my @clients = map { tls_client() } 1 .. 3;
	$clients[$_]->sql('BEGIN') foreach 0 .. 1;
	$_->close foreach @clients;
}
until_alone();
my $descriptors_before = descriptors($dispatcher);
foreach my $round (1 .. 30)
{
	my @clients = map { tls_client() } 1 .. 4;
	$clients[0]->sql('SELECT 1');
	ask($clients[1], q{SELECT repeat('x', 1000), generate_series(1, 100000)});
	$clients[2]->send_plainly(substr $clients[2]->tls->encrypt(RawClient::query('SELECT 1')), 0, 7);
	$clients[0]->close;
	$clients[1]->reset;
	$clients[2]->drop;
	my $unfinished = RawClient->open(%tcp, port => $server->pool_port);
	$unfinished->send_bytes($ssl_request . "\x16\x03\x01");
	$unfinished->read_bytes(1);
	$unfinished->drop;
	$clients[3]->drop;
}
ok(until_alone(), 'when all have gone no client is left');
{
	my $deadline = time() + $SluiceTest::patience_s;
	sleep 0.1 while descriptors($dispatcher) > $descriptors_before && time() < $deadline;
	cmp_ok(descriptors($dispatcher), '<=', $descriptors_before, 'nor a descriptor of the dispatcher');
}
{
	# Those who read nothing have some seconds; then nothing of them is left, although they still hold their ends.
	my @silent = map { tls_client() } 1 .. 2;
	my $writing = q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'};
	ask($_, q{SELECT repeat('x', 1000) FROM generate_series(1, 50000)}) foreach @silent;
	$server->wait_until($writing, 2) or diag($server->sql('SELECT pid, backend_type, wait_event, query FROM pg_stat_activity'));
	my ($disconnected) = $server->sql("SELECT client FROM sluice.clients WHERE cancel_pid = " . $silent[1]->pid);
	shutdown($silent[0]->socket, 1);
	$server->sql("SELECT sluice.disconnect_client($disconnected)");
	ok(until_alone(), 'a client that reads nothing ends its stream, another is disconnected');
	my $deadline = time() + $SluiceTest::patience_s;
	sleep 0.1 while descriptors($dispatcher) > $descriptors_before && time() < $deadline;
	cmp_ok(descriptors($dispatcher), '<=', $descriptors_before, 'what is left for them is given up');
	$_->drop foreach @silent;
}
{
	# One who takes a little at a time gets all that was under way, and the end of TLS behind it.
	my $slow = tls_client();
	ask($slow, q{SELECT g, repeat('x', 1000) FROM generate_series(1, 50000) g});
	$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'}, 1);
	$server->sql('SELECT sluice.disconnect_client(client) FROM sluice.clients WHERE ssl');
	until_alone();
	my ($rows, $wrong) = (0, 0);
	while (my $message = $slow->read_message)
	{
		last if $message->{type} eq 'EOF';
		next if $message->{type} ne 'D';
		my ($number, $text) = RawClient::row_fields($message);
		$wrong++ unless $number == ++$rows && $text eq 'x' x 1000;
		sleep 0.05 if $rows % 200 == 0;
	}
	ok($rows > 0 && $wrong == 0, "a client that reads slowly gets what was sent before it was disconnected ($rows rows)");
	ok($slow->tls->ended && !$slow->tls->broken, 'in order, up to close_notify');
	$slow->drop;
}
# At the server's end clients are told as well.
{
	my %client = (idle => tls_client(), busy => tls_client(), plain => $server->pool_raw);
	$client{idle}->sql('SELECT 1');
	ask($client{$_}, 'SELECT pg_sleep(3600)') foreach 'busy', 'plain';
	ok($server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 2), 'two clients are busy');
	$server->stop('fast');
	foreach my $which ('idle', 'busy', 'plain')
	{
		my ($error) = grep { $_->{type} eq 'E' } $client{$which}->read_until('');
		is($error && join(' ', @{ RawClient::error_fields($error) }{ 'S', 'C' }),
			'FATAL 57P01', "a client ($which) hears that the server shuts down");
	}
	ok($client{$_}->tls->ended && !$client{$_}->tls->broken, "and the end of TLS ($_)") foreach 'idle', 'busy';
}

done_testing();
