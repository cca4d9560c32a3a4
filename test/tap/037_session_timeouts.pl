# SPDX-License-Identifier: PostgreSQL
#
# The server's time limits hold in the pool: they cost the statement or the
# client what they cost on a direct connection, and never the backend.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = Dialogue::server('main',
	conf => "sluice.max_pool_size = 1\nsluice.min_pool_size = 1\nsluice.max_backends = 3\n");

sub simple { return RawClient::query($_[0]) }
sub run { return RawClient::parse('', $_[0]) . RawClient::bind('', '', []) . RawClient::execute('') }

my $backend = $server->pool_sql('SELECT pg_backend_pid()');

# What both ports answer, one after the other.
sub same_answers
{
	my ($name, $steps, %option) = @_;
	my @transcripts;
	foreach my $method ('raw', 'pool_raw')
	{
		my $client = $server->$method(%option);
		push @transcripts, [ map { RawClient::describe($_) } map { $client->exchange($_) } @$steps ];
		$client->close;
	}
	is_deeply($transcripts[1], $transcripts[0], $name);
	return @{ $transcripts[0] };
}

my @lines = same_answers('statement_timeout from the start-up packet', [ simple('SELECT pg_sleep(600)'),
	simple('SELECT 1'), simple('SELECT 1; SELECT pg_sleep(600)'), run('SELECT 2') . run('SELECT pg_sleep(600)')
	. RawClient::sync() ],
	parameters => { statement_timeout => '100ms' });
like("@lines", qr/C=57014; M=canceling statement due to statement timeout/, 'and the error is the right one');
same_answers('statement_timeout set in the transaction', [ simple('BEGIN'),
	simple("SET LOCAL statement_timeout = '50ms'"), simple('SELECT pg_sleep(600)'), simple('SELECT 1'),
	simple('ROLLBACK'), simple('SELECT pg_sleep(0.2)') ]);
is($server->pool_sql('SELECT 1 FROM pg_sleep(0.3)'), '1', 'no other client inherits a statement_timeout');

$server->sql('CREATE TABLE wanted ()');
my $locker = $server->raw;
$locker->sql('BEGIN; LOCK TABLE wanted');
@lines = same_answers('lock_timeout', [ simple('TABLE wanted'), simple('BEGIN'), simple('TABLE wanted'),
	simple('COMMIT') ], parameters => { lock_timeout => '50ms' });
like("@lines", qr/C=55P03/, 'and the error is the right one');

# Two that wait for each other.
my $x = $server->pool_raw;
my $y = $server->raw;
$server->sql('CREATE TABLE pair (id int PRIMARY KEY); INSERT INTO pair VALUES (1), (2)');
$x->sql('BEGIN; SELECT * FROM pair WHERE id = 1 FOR UPDATE');
$y->sql("BEGIN; SET deadlock_timeout = '600s'; SELECT * FROM pair WHERE id = 2 FOR UPDATE");
$y->send_bytes(simple('SELECT * FROM pair WHERE id = 1 FOR UPDATE'));
my $error = $x->sql_error('SELECT * FROM pair WHERE id = 2 FOR UPDATE');
is($error->{C}, '40P01', 'a deadlock is found');
$x->sql('ROLLBACK');
$y->read_until_ready;
$y->close;
$x->close;

# In a transaction, thinking for too long.
foreach my $how ('start-up', 'SET', 'aborted transaction')
{
	my $client = $server->pool_raw(parameters => $how ne 'SET' ? { idle_in_transaction_session_timeout => '100ms' } : {});
	$client->sql('BEGIN');
	$client->sql('INSERT INTO pair VALUES (3)') if $how ne 'aborted transaction';
	$client->sql_error('SELECT 1/0') if $how eq 'aborted transaction';
	$client->sql("SET LOCAL idle_in_transaction_session_timeout = '100ms'") if $how eq 'SET';
	my @messages = map { RawClient::describe($_) } $client->read_until('');
	is_deeply(\@messages,
		[ 'ErrorResponse C=25P03; M=terminating connection due to idle-in-transaction timeout; S=FATAL; V=FATAL',
		'EOF' ], "idle_in_transaction_session_timeout ends the client ($how)");
	is($server->pool_sql('SELECT pg_backend_pid()'), $backend, 'and not the backend');
	is($server->sql('SELECT count(*) FROM pair'), '2', 'its transaction is rolled back');
}

# It counts the client's time only, and only within a transaction.
my $slow = $server->pool_raw(parameters => { idle_in_transaction_session_timeout => '300ms' });
$slow->sql('BEGIN');
$slow->sql('SELECT pg_sleep(0.6)');
$slow->sql('COMMIT');
select undef, undef, undef, 0.5;
is($slow->sql('SELECT 1'), '1',
	'idle_in_transaction_session_timeout does not count what the server takes, nor time outside');
$slow->close;

# Idle for too long, with a backend or without.
$server->sql("CREATE ROLE guest LOGIN; ALTER ROLE guest SET idle_session_timeout = '400ms'");
my @guests = map { $server->pool_raw(user => 'guest') } 1 .. 3;
my ($guest_backend) = map { scalar $_->sql('SELECT pg_backend_pid()') } @guests;
foreach my $guest (@guests)
{
	my @messages = map { RawClient::describe($_) } $guest->read_until('');
	is_deeply(\@messages,
		[ 'ErrorResponse C=57P05; M=terminating connection due to idle-session timeout; S=FATAL; V=FATAL', 'EOF' ],
		'idle_session_timeout ends an idle client');
}
is($server->pool_sql('SELECT pg_backend_pid()', user => 'guest'), $guest_backend, 'and not its backend');
my $busy = $server->pool_raw(user => 'guest');
$busy->sql('BEGIN');
select undef, undef, undef, 0.9;
is($busy->sql('SELECT 1 FROM pg_sleep(0.9)'), '1', 'idle_session_timeout spares a transaction and a query');
$busy->close;

is($server->pool_sql('SELECT pg_backend_pid()'), $backend, 'one backend has served all of them');

$server->stop;
done_testing();
