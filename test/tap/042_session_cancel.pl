# SPDX-License-Identifier: PostgreSQL
#
# A cancel request ends the query of the client it names, and of nobody else,
# whoever is served by the same backend a moment later.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\nsluice.min_pool_size = 1\n");
$server->sql('CREATE DATABASE held');
$server->sql("ALTER DATABASE held SET sluice.pool_mode = 'session'");

sub simple { return RawClient::query($_[0]) }
sub run { return RawClient::parse('', $_[0]) . RawClient::bind('', '', []) . RawClient::execute('') }

sub sleeping
{
	my ($count) = @_;
	return $server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'},
		defined $count ? $count : 1);
}

sub answer { return join ', ', map { RawClient::describe($_) } @_ }

my $canceled = 'ErrorResponse C=57014; M=canceling statement due to user request; S=ERROR; V=ERROR';
my $a = $server->pool_raw;
my $b = $server->pool_raw;
my $backend = $a->sql('SELECT pg_backend_pid()');

foreach my $case (
	[ 'a simple query', simple('SELECT pg_sleep(600)'), 'I' ],
	[ 'the extended protocol', run('SELECT 1') . run('SELECT pg_sleep(600)') . run('SELECT 2') . RawClient::sync(),
		'I' ],
	[ 'a string of several', simple('SELECT 1; SELECT pg_sleep(600); SELECT 2'), 'I' ])
{
	my ($name, $bytes, $state) = @$case;
	$a->send_bytes($bytes);
	sleeping();
	ok($a->cancel, 'the connection of the request is closed without an answer');
	my @messages = $a->read_until_ready;
	like(answer(@messages), qr/\Q$canceled\E, ReadyForQuery $state$/, "cancel of $name");
}
$a->sql('BEGIN');
$a->send_bytes(simple('SELECT pg_sleep(600)'));
sleeping();
$a->cancel;
is(answer(grep { $_->{type} =~ /[EZ]/ } $a->read_until_ready), "$canceled, ReadyForQuery E",
	'cancel within a transaction');
$a->sql('ROLLBACK');

# A wrong key, a wrong number, somebody else's key.
$a->send_bytes(simple('SELECT pg_sleep(600)'));
sleeping();
ok($a->cancel(key => $a->key ^ 1), 'a request with a wrong key is closed as well');
$a->cancel(key => $b->key);
$a->cancel(pid => $b->pid, key => $a->key);
$a->cancel(pid => $_, key => 0) foreach 0, 1, $backend, 0x7FFFFFFF, 0xFFFFFFFF, $a->pid + 5000;
$a->cancel(pid => $backend, key => $a->key);
ok(!defined $a->poll_message(0.3), 'and does nothing');
sleeping();

# One who waits for the only backend, and one who is idle, hit nobody.
$b->send_bytes(simple('SELECT 7'));
$server->wait_until("SELECT count(*) FROM sluice.clients WHERE waiting_ms > 0", 1);
$b->cancel;
my $idle = $server->pool_raw(dbname => 'held');
$idle->cancel;
ok(!defined $a->poll_message(0.3), 'the cancel of one who waits for the backend does not hit the one who has it');
$a->cancel;
like(answer($a->read_until_ready), qr/\Q$canceled\E/, 'his own does');
like(answer($b->read_until_ready), qr/DataRow 7, CommandComplete SELECT 1, ReadyForQuery I$/,
	'and the one who waited is served');

foreach my $i (1 .. 20)
{
	$b->cancel;
	$a->cancel;
	die unless $a->sql('SELECT 1') == 1;
}
pass('a cancel between queries does not hit the next query');
is($idle->sql('SELECT 1'), '1', 'also not in session mode');

# In session mode the pid is the backend's own, so pg_cancel_backend and the protocol agree.
is($idle->pid, $idle->sql('SELECT pg_backend_pid()'), 'in session mode the client knows its backend');
$idle->send_bytes(simple('SELECT pg_sleep(600)'));
sleeping();
$idle->cancel;
like(answer($idle->read_until_ready), qr/\Q$canceled\E/, 'and can cancel its query');

# Two clients share one backend; requests of one fly while the other is served.
my ($hits, $wrong) = (0, 0);
foreach my $round (1 .. 400)
{
	$a->send_bytes(simple('SELECT pg_sleep(0.001)'));
	$b->send_bytes(simple('SELECT pg_sleep(0.002)'));
	my $request = RawClient->open(host => $server->host, port => $server->pool_port);
	$request->send_bytes(pack('NNNN', 16, 80877102, $a->pid, $a->key));
	$hits++ if grep { $_->{type} eq 'E' } $a->read_until_ready;
	$wrong++ if grep { $_->{type} eq 'E' } $b->read_until_ready;
	$request->at_end_of_stream if $round % 2;
	$request->drop;
}
is($wrong, 0, "of 400 requests of one client, $hits hit its own queries and none the other's");

# Every client of a crowd is cancelled for itself.
my @crowd = map { $server->pool_raw } 1 .. 8;
$_->send_bytes(simple('SELECT pg_sleep(0.01)')) foreach @crowd;
$crowd[$_]->cancel foreach 0, 2, 4, 6;
my @failed = grep { grep { $_->{type} eq 'E' } $crowd[$_]->read_until_ready } 0 .. $#crowd;
is(scalar(grep { $_ % 2 } @failed), 0, 'nobody is cancelled who was not meant');
is($a->sql('SELECT pg_backend_pid()'), $backend, 'one backend served all of that');

# A client that has left cannot be cancelled, nor can its successor in its place.
my $gone = $server->pool_raw;
my ($pid, $key) = ($gone->pid, $gone->key);
$gone->close;
$server->wait_until('SELECT count(*) FROM sluice.clients', 11);
my $successor = $server->pool_raw;
$successor->send_bytes(simple('SELECT pg_sleep(600)'));
sleeping();
$a->cancel(pid => $pid, key => $key);
ok(!defined $successor->poll_message(0.3), 'the key of a client that has left opens nothing');
$successor->cancel;
$successor->read_until_ready;

$server->stop;
done_testing();
