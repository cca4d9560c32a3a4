# SPDX-License-Identifier: PostgreSQL
#
# Statement mode: like transaction mode, each statement on another backend here,
# but transaction blocks are refused.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.pool_mode = statement
sluice.debug_force_switch = on
sluice.min_pool_size = 2
sluice.max_pool_size = 2
CONF
$server->sql('CREATE TABLE item AS SELECT i AS id FROM generate_series(1, 10) i');
$server->sql(q{CREATE FUNCTION run(sql text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; END$$});

my $client = $server->pool_raw;
my $refusal = 'transaction blocks not allowed in statement pooling mode';
foreach my $sql ('BEGIN', 'START TRANSACTION', 'begin transaction isolation level serializable read only', 'BEGIN; SELECT 1; COMMIT',
	'SELECT 1; BEGIN')
{
	my $error = $client->sql_error($sql);
	is_deeply([ @$error{qw(C M)} ], [ '0A000', $refusal ], "statement mode refuses: $sql");
	is($client->transaction_state, 'I', '  and no transaction is open');
	next if $sql =~ /;/;
	($error) = map { RawClient::error_fields($_) } grep { $_->{type} eq 'E' } $client->exchange(RawClient::parse('', $sql) . RawClient::bind('', '', []) . RawClient::execute('') . RawClient::sync());
	is_deeply([ @$error{qw(C M)} ], [ '0A000', $refusal ], '  in the extended protocol too');
	is($client->transaction_state, 'I', '  and no transaction is open');
	$client->exchange(RawClient::parse('b', $sql) . RawClient::sync());
	($error) = map { RawClient::error_fields($_) } grep { $_->{type} eq 'E' }
	  $client->exchange(RawClient::bind('', 'b', []) . RawClient::execute('') . RawClient::sync());
	is_deeply([ @$error{qw(C M)} ], [ '0A000', $refusal ], '  and as a prepared statement');
	$client->exchange(RawClient::close_statement('b') . RawClient::sync());
}
is($client->sql('SELECT 41 + 1'), 42, 'single statements are executed');
is(join(' ', map { $_->[0] } $client->sql('INSERT INTO item VALUES (11); SELECT count(*) FROM item')), 11, 'strings of statements');
ok(defined $client->sql_error('INSERT INTO item VALUES (12); SELECT 1/0'), 'which are one transaction');
is($client->sql('SELECT count(*) FROM item'), 11, 'that is undone as a whole');
my @types = map { $_->{type} } $client->exchange(RawClient::parse('p', 'SELECT $1::int') . join('', map { RawClient::bind('', 'p', [$_]) . RawClient::execute('') } 1 .. 3) . RawClient::sync());
is("@types", '1 2 D C 2 D C 2 D C Z', 'pipelines');
my %pids = map { scalar $client->sql('SELECT pg_backend_pid()') => 1 } 1 .. 4;
cmp_ok(scalar keys %pids, '>', 1, 'every statement has another backend');
is($client->sql(q{SELECT run('SET work_mem = ''7MB''')}), '', 'functions');
is($client->sql('SHOW work_mem'), '7MB', 'settings are carried');
$client->sql('CREATE TEMP TABLE own (id int)');
is($server->sql("SELECT array_to_string(pins, ',') FROM sluice.clients"), 'temporary_objects', 'and what cannot be carried pins');
is($client->sql('SELECT count(*) FROM own'), 0, 'as in transaction mode');
like($client->sql_error('SAVEPOINT s')->{M}, qr/SAVEPOINT can only be used in transaction blocks/, 'other answers are the server\'s');
$client->exchange(RawClient::query('COMMIT'));
is($client->transaction_state, 'I', 'COMMIT is a warning, as ever');
my @done = $client->exchange(RawClient::query(q{DO $$BEGIN INSERT INTO item VALUES (12); COMMIT; INSERT INTO item VALUES (13); ROLLBACK; END$$}));
is(RawClient::describe($done[0]), 'CommandComplete DO', 'a procedure may end its transactions itself');
is($client->sql('SELECT count(*) FROM item'), 12, 'and does');
$client->close;

$server->stop;
done_testing();
