# SPDX-License-Identifier: PostgreSQL
#
# In transaction mode a client's statements of the protocol are there on every
# backend, also on one that never saw their Parse, and belong to this client
# alone.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.min_pool_size = 2
sluice.max_pool_size = 2
sluice.max_backends = 2
sluice.max_prepared_statements = 20
CONF
my $switch = BackendSwitch->new($server);

sub cycle
{
	my ($client, $bytes) = @_;
	return join ', ', map { RawClient::describe($_) } $client->exchange($bytes . RawClient::sync());
}

sub executed
{
	my ($client, $name, @parameters) = @_;
	my @messages = $client->exchange(RawClient::bind('', $name, \@parameters) . RawClient::execute('')
		. RawClient::sync());
	my ($row) = map { join '|',
		map { defined $_ ? $_ : 'NULL' } RawClient::row_fields($_) } grep { $_->{type} eq 'D' } @messages;
	my ($error) = map { RawClient::error_fields($_)->{C} } grep { $_->{type} eq 'E' } @messages;
	return defined $error ? "error $error" : $row;
}

# A client goes from backend to backend.
my $client = $server->pool_raw;
my %seen;
cycle($client, RawClient::parse('who', 'SELECT pg_backend_pid(), $1::text'));
foreach my $round (1 .. 6)
{
	$switch->next_backend;
	my ($pid, $text) = split /\|/, executed($client, 'who', $round);
	is($pid, $switch->free_pid, "round $round is executed where it should be");
	is($text, $round, 'with its parameter');
	$seen{$pid} = 1;
}
is(scalar keys %seen, 2, 'two backends have executed the statement');

$switch->next_backend;
cycle($client, RawClient::parse('', 'SELECT pg_typeof($1), $1', 1700));
$switch->next_backend;
is(executed($client, '', '1.50'), 'numeric|1.50', 'the unnamed statement follows, with its given types');
$switch->next_backend;
is(executed($client, '', '2.50'), 'numeric|2.50', 'and once more');
$switch->next_backend;
$client->sql('SELECT 1');
$switch->next_backend;
is(executed($client, '', '3.50'), 'error 26000', 'until a simple query forgets it everywhere');

# Names are each client's own; texts may be shared.
my $other = $server->pool_raw;
cycle($client, RawClient::parse('name', 'SELECT 1'));
$switch->next_backend;
is(executed($other, 'name'), 'error 26000', 'a name means nothing to another client');
cycle($other, RawClient::parse('name', 'SELECT 2'));
foreach (1 .. 2)
{
	$switch->next_backend;
	is(executed($client, 'name'), '1', 'the same name is one text for one client');
	is(executed($other, 'name'), '2', 'and another for the other');
}
cycle($client, RawClient::parse('shared', 'SELECT 3'));
cycle($other, RawClient::parse('also', 'SELECT 3'));
cycle($client, RawClient::close_statement('shared'));
foreach (1 .. 2)
{
	$switch->next_backend;
	is(executed($client, 'shared'), 'error 26000', 'a closed statement is gone on every backend');
	is(executed($other, 'also'), '3', 'but not the same text of another client');
}
$client->sql('DEALLOCATE ALL');
$switch->next_backend;
is(executed($client, 'name'), 'error 26000', 'DEALLOCATE ALL is known on every backend');
is(executed($other, 'name'), '2', 'and concerns no other client');

# The same EXECUTE text of two clients means two things.
cycle($client, RawClient::parse('target', 'SELECT 10::int AS number'));
cycle($other, RawClient::parse('target', q{SELECT 'ten'::text AS word}));
cycle($client, RawClient::parse('by_name', 'EXECUTE target'));
cycle($other, RawClient::parse('by_name', 'EXECUTE target'));
foreach (1 .. 2)
{
	$switch->next_backend;
	like(cycle($client, RawClient::describe_statement('by_name')), qr/RowDescription number:0:0:23/,
		'EXECUTE is described for one client');
	like(cycle($other, RawClient::describe_statement('by_name')), qr/RowDescription word:0:0:25/, 'and for the other');
	is(executed($client, 'by_name'), '10', 'EXECUTE is executed for one client');
	is(executed($other, 'by_name'), 'ten', 'and for the other');
}
$client->sql('DEALLOCATE ALL');

# Start-up settings that change the meaning of a text.
$server->sql('CREATE SCHEMA one; CREATE TABLE one.place AS SELECT 1 AS number');
$server->sql('CREATE SCHEMA two; CREATE TABLE two.place AS SELECT 2 AS number');
my $in_one = $server->pool_raw(parameters => { search_path => 'one' });
my $in_two = $server->pool_raw(parameters => { search_path => 'two' });
cycle($_, RawClient::parse('p', 'SELECT number FROM place')) foreach $in_one, $in_two;
foreach (1 .. 3)
{
	$switch->next_backend;
	is(executed($in_one, 'p'), '1', 'a text is analysed under the settings of its client');
	is(executed($in_two, 'p'), '2', 'and of the other');
}

# As a driver would use it when many clients come at once.
my @crowd = map { $server->pool_raw } 1 .. 12;
$switch->next_backend;
my $wrong = 0;
foreach my $i (0 .. $#crowd)
{
	$crowd[$i]->send_bytes(RawClient::parse('s', "SELECT $i + \$1::int" . ($i % 3 ? '' : ' -- shared'))
		. RawClient::sync());
}
$_->read_until_ready foreach @crowd;
foreach my $round (1 .. 20)
{
	$switch->next_backend if $round % 5 == 0;
	$_->send_bytes(RawClient::bind('', 's', [$round]) . RawClient::execute('') . RawClient::sync()) foreach @crowd;
	foreach my $i (0 .. $#crowd)
	{
		my ($row) = grep { $_->{type} eq 'D' } $crowd[$i]->read_until_ready;
		$wrong++ unless $row && (RawClient::row_fields($row))[0] == $i + $round;
	}
}
is($wrong, 0, 'twelve clients at once get their own answers');
$_->close foreach @crowd;

# More statements than a client may keep, and more texts than a backend keeps.
$switch->next_backend;
my $answer = '';
foreach my $i (1 .. 21) { $answer = cycle($client, RawClient::parse("n$i", "SELECT $i")); }
like($answer, qr/ErrorResponse C=54000;.*too many prepared statements/,
	'a client cannot keep more statements than the setting says');
foreach my $i (1, 10, 20)
{
	$switch->next_backend;
	is(executed($client, "n$i"), $i, "statement $i is still there");
}
cycle($client, RawClient::close_statement('n1'));
like(cycle($client, RawClient::parse('n21', 'SELECT 21')), qr/^ParseComplete/, 'room is made by closing one');
foreach my $i (1 .. 200)
{
	cycle($other, RawClient::parse('again', "SELECT $i, 'text'") . RawClient::bind('', 'again', [])
		. RawClient::execute('') . RawClient::close_statement('again'));
}
is(executed($client, 'n20'), '20', 'what a backend has forgotten meanwhile is parsed again');

# A statement in use is not pulled away.
cycle($client, RawClient::close_statement("n$_")) foreach 2 .. 21;
$switch->next_backend;
$client->sql('BEGIN');
cycle($client, RawClient::parse('rows', 'SELECT i FROM generate_series(1, 5) i') . RawClient::bind('open', 'rows', [])
	. RawClient::execute('open', 1));
cycle($client, RawClient::close_statement('rows'));
cycle($client, RawClient::parse("m$_", "SELECT $_, 'm'") . RawClient::close_statement("m$_")) foreach 1 .. 60;
like(cycle($client, RawClient::execute('open', 2)), qr/^DataRow 2, DataRow 3, PortalSuspended/,
	'a portal outlives its statement');
$client->sql('COMMIT');

# A driver's reconnecting clients leave nothing behind.
foreach my $i (1 .. 30)
{
	my $short = $server->pool_raw;
	cycle($short, RawClient::parse('s', "SELECT $i, 'short'"));
	$i % 2 ? $short->close : $short->drop;
}
ok($server->wait_until("SELECT count(*) FROM sluice.clients", 6), 'clients that left are gone');
is(executed($other, 'name'), '2', 'a client that stayed still has its statement');

$server->stop;
done_testing();
