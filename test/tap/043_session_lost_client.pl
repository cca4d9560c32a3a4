# SPDX-License-Identifier: PostgreSQL
#
# A client that goes away without a word, wherever it stands, costs its
# transaction and nothing else: the same backend goes on with the next client.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', tcp => 1, conf => <<'CONF');
sluice.max_backends = 1
log_statement = none
CONF
$server->sql('CREATE TABLE item (id int)');
$server->sql('CREATE DATABASE held');
$server->sql("ALTER DATABASE held SET sluice.pool_mode = 'session'");
$server->sql('CREATE TABLE item (id int)', dbname => 'held');

sub simple { return RawClient::query($_[0]) }

my $endless = q{SELECT repeat('x', 1000), generate_series(1, 100000000)};
my $backend = $server->pool_sql('SELECT pg_backend_pid()');

# One backend for all: were it lost with its client, the next client would get another.  How a client vanishes, and
# what it does before.
my @scenes = (
	[ 'idle', sub { } ],
	[ 'after a query', sub { $_[0]->sql('SELECT 1') } ],
	[ 'in a transaction', sub { $_[0]->sql('BEGIN; INSERT INTO item VALUES (1); LOCK TABLE item') } ],
	[ 'in an aborted transaction', sub { $_[0]->sql('BEGIN; LOCK TABLE item'); $_[0]->sql_error('SELECT 1/0') } ],
	[
		'while its query runs',
		sub {
			$_[0]->sql('BEGIN; LOCK TABLE item');
			$_[0]->send_bytes(simple('SELECT pg_sleep(6000)'));
			$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
		}
	],
	[
		'while its query waits for a lock',
		sub {
			$_[0]->sql('BEGIN; INSERT INTO item VALUES (1)');
			$_[0]->send_bytes(simple('SELECT pg_advisory_lock(1)'));
			$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'}, 1);
		}
	],
	[
		'in the middle of a result',
		sub {
			$_[0]->sql('BEGIN; LOCK TABLE item');
			$_[0]->send_bytes(simple($endless));
			$_[0]->read_message foreach 1 .. 100;
		}
	],
	[
		'in the middle of a result it does not read',
		sub {
			$_[0]->sql('BEGIN; LOCK TABLE item');
			$_[0]->send_bytes(simple($endless));
			$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'}, 1);
		}
	],
	[
		'in the middle of COPY FROM STDIN',
		sub {
			$_[0]->sql('BEGIN; LOCK TABLE item');
			$_[0]->send_bytes(simple('COPY item FROM STDIN') . RawClient::copy_data("1\n2\n"));
			$_[0]->read_until('G');
		}
	],
	[
		'in the middle of a message of COPY data',
		sub {
			$_[0]->send_bytes(simple('COPY item FROM STDIN') . RawClient::copy_data("1\n") . 'd' . pack('N', 100)
				. '2');
			$_[0]->read_until('G');
		}
	],
	[
		'in the middle of COPY TO STDOUT',
		sub {
			$_[0]->send_bytes(simple("COPY ($endless) TO STDOUT"));
			$_[0]->read_message foreach 1 .. 100;
		}
	],
	[ 'in the middle of a message', sub { $_[0]->send_bytes('Q' . pack('N', 1000) . 'SELECT 1') } ],
	[ 'in the middle of a header', sub { $_[0]->send_bytes("Q\0") } ],
	[
		'in the middle of a message within a transaction',
		sub {
			$_[0]->sql('BEGIN; LOCK TABLE item');
			$_[0]->send_bytes('Q' . pack('N', 100000) . 'SELECT 1');
		}
	],
	[
		'in the middle of a pipeline',
		sub {
			$_[0]->send_bytes(RawClient::parse('', 'INSERT INTO item VALUES (1)') . RawClient::bind('', '', [])
				. RawClient::execute('') . RawClient::flush());
			$_[0]->read_until('C');
		}
	],
	[
		'with an open portal',
		sub {
			$_[0]->send_bytes(RawClient::parse('', 'SELECT generate_series(1, 10)') . RawClient::bind('', '', [])
				. RawClient::execute('', 1) . RawClient::flush());
			$_[0]->read_until('s');
		}
	]);

foreach my $dbname ('postgres', 'held')
{
	my $blocker = $server->raw(dbname => $dbname);
	$blocker->sql('SELECT pg_advisory_lock(1)');
	my $held_backend;
	foreach my $scene (@scenes)
	{
		my ($name, $prepare) = @$scene;
		foreach my $how ($name =~ /result|transaction$|runs/ ? ('drop', 'reset', 'Unix socket') : ('drop'))
		{
			my $client = $server->pool_raw(dbname => $dbname, ($how eq 'Unix socket' ? () : (host => '127.0.0.1')));
			$prepare->($client);
			$how eq 'reset' ? $client->reset : $client->drop;
			my $next = $server->pool_raw(dbname => $dbname);
			my $pid = $next->sql('SELECT pg_backend_pid()');
			$held_backend = $pid if $dbname eq 'held' && !defined $held_backend;
			my $expected = $dbname eq 'held' ? $held_backend : $backend;
			my ($locks) = $next->sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass});
			my ($rows) = $next->sql('SELECT count(*) FROM item');
			$next->close;
			is("$pid, $locks->[0] locks, $rows->[0] rows", "$expected, 0 locks, 0 rows",
				"a client lost $name ($how, $dbname): the same backend goes on, and nothing is left");
		}
	}
	$blocker->close;
}

$backend = $server->pool_sql('SELECT pg_backend_pid()');  # the only one, taken from the other pool

# One that has said everything, goodbye included, is not lost.
foreach my $how ('all in one write', 'half closed')
{
	$server->sql('TRUNCATE item');
	my $client = $server->pool_raw(host => '127.0.0.1');
	my $bytes = simple('SELECT pg_sleep(0.2)') . simple('INSERT INTO item VALUES (1)') . RawClient::terminate();
	$client->send_bytes($bytes);
	if ($how eq 'half closed')
	{
		shutdown($client->socket, 1);
		like(join(' ', map { RawClient::describe($_) } $client->read_until('')),
			qr/CommandComplete INSERT 0 1 ReadyForQuery I EOF/, 'it gets its answers');
	}
	$client->drop;
	ok($server->wait_until('SELECT count(*) FROM item', 1), "what a client said before it left is executed ($how)");
}
is($server->pool_sql('SELECT pg_backend_pid()'), $backend, 'by the same backend');

# Many at once.
my @crowd = map { $server->pool_raw } 1 .. 20;
foreach my $i (0 .. $#crowd)
{
	$crowd[$i]->send_bytes(simple('BEGIN; INSERT INTO item VALUES (5); SELECT pg_sleep(0.01)'));
}
$_->drop foreach @crowd;
ok($server->wait_until('SELECT count(*) FROM sluice.clients', 0), 'twenty clients that vanish together are forgotten');
is($server->pool_sql('SELECT count(*) FROM item WHERE id = 5'), '0', 'with what they had begun');
is($server->pool_sql('SELECT pg_backend_pid()'), $backend, 'and the backend lives on');
unlike($server->log_since(0), qr/PANIC|TRAP:|terminated by signal|WARNING/, 'the log knows of nothing unusual');

$server->stop;
done_testing();
