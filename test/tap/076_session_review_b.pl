# SPDX-License-Identifier: PostgreSQL
#
# A plan that a backend has kept for one client must be what another would get that prepares the same text now.
# And a client keeps its statements when the pool's mode is changed.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

# Everybody meets the same backend.
my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.min_pool_size = 1
sluice.max_pool_size = 1
sluice.max_backends = 2
CONF

$server->sql(<<'SQL');
CREATE SCHEMA early;
CREATE TABLE shadowed (v) AS SELECT 'public'::text;
CREATE TABLE covered (v) AS SELECT 'public'::text;
CREATE FUNCTION pick(bigint) RETURNS text LANGUAGE sql AS $$ SELECT 'bigint' $$;
CREATE TABLE moment (id int);
INSERT INTO moment VALUES (1);
SQL

sub Q { return RawClient::query($_[0]) }

# The first value of the first row.
sub value
{
	my ($client, $bytes) = @_;
	$client->send_bytes($bytes);
	my ($row) = grep { $_->{type} eq 'D' || $_->{type} eq 'E' } $client->read_until_ready;
	return defined $row && $row->{type} eq 'D' ? (RawClient::row_fields($row))[0] : 'no row';
}

# Prepared by Parse, and executed.
sub parsed
{
	my ($client, $name, $query) = @_;
	return value($client, RawClient::parse($name, $query) . RawClient::bind('', $name, []) . RawClient::execute('')
		  . RawClient::sync());
}

sub executed
{
	my ($client, $name) = @_;
	return value($client, RawClient::bind('', $name, []) . RawClient::execute('') . RawClient::sync());
}

# ---------------------------------------------------------------- names that mean something else by now

my @path = (parameters => { search_path => 'early, public' });
my ($first, $second) = map { $server->pool_raw(@path) } 1 .. 2;

is(parsed($first, 's', 'SELECT v FROM shadowed'), 'public', 'a table is found in the second schema of the path');
is(parsed($first, 'f', 'SELECT pick(1)'), 'bigint', 'a function is found');
$first->sql('PREPARE q AS SELECT v FROM shadowed');
is($first->sql('EXECUTE q'), 'public', 'and by PREPARE');
$server->sql(<<'SQL');
CREATE TABLE early.shadowed (v) AS SELECT 'early'::text;
CREATE FUNCTION pick(int) RETURNS text LANGUAGE sql AS $$ SELECT 'int' $$;
SQL
is(parsed($second, 's', 'SELECT v FROM shadowed'), 'early', 'a new statement finds the new table');
is(parsed($second, 'f', 'SELECT pick(1)'), 'int', 'and the new function');
$second->sql('PREPARE q AS SELECT v FROM shadowed');
is($second->sql('EXECUTE q'), 'early', 'and by PREPARE');

# A temporary table, made by a client of a backend that has had others.
$first->sql('CREATE TEMP TABLE nothing ()');
$first->sql('DROP TABLE nothing');
is(parsed($first, 'c', 'SELECT v FROM covered'), 'public', 'a table is found');
$second->sql(q{BEGIN; CREATE TEMP TABLE covered (v) ON COMMIT DROP AS SELECT 'temporary'::text});
is(parsed($second, 'c', 'SELECT v FROM covered'), 'temporary', 'a new statement finds a temporary table of its client');
$second->sql('COMMIT');

# ---------------------------------------------------------------- moments

# Of each text, the time that one client and then another gets.
my %moments = (
	dollars => 'SELECT $$now$$::timestamptz',
	comment => "-- it's\nSELECT 'now'::timestamptz",
	behind => q{SELECT 'now'::timestamptz AS x, 'it''s' AS "it's"},
	identifier => q{SELECT x FROM (SELECT 1 AS "it's", 'now'::timestamptz AS x) AS y});
foreach my $name (sort keys %moments)
{
	my $query = $moments{$name};
	my $one = parsed($first, $name, $query);
	$server->sql('SELECT pg_sleep(0.01)');
	isnt(parsed($second, $name, $query), $one, "another PREPARE is another moment: $name");
}

# ---------------------------------------------------------------- analysed again under other settings

$first->sql(q{PREPARE d AS SELECT '01/02/2003'::date - '2000-01-01'::date FROM moment});
my $days = $first->sql('EXECUTE d');
$first->send_bytes(Q('ALTER TABLE moment ADD a int') . Q('EXECUTE d') . Q('SET DateStyle = dmy')
	  . Q('ALTER TABLE moment ADD b int') . Q('EXECUTE d'));
$first->read_until_ready(5);
$second->sql(q{PREPARE d AS SELECT '01/02/2003'::date - '2000-01-01'::date FROM moment});
is($second->sql('EXECUTE d'), $days, 'a literal is read under the settings of its PREPARE');

$_->close foreach $first, $second;

# ---------------------------------------------------------------- in an aborted transaction

{
	my ($owner, $sharer) = map { $server->pool_raw } 1 .. 2;
	$owner->sql('SET DateStyle = dmy');
	$owner->exchange(RawClient::parse('i', 'INSERT INTO moment VALUES (2)') . RawClient::parse('end', 'ROLLBACK')
		  . RawClient::sync());
	# Its backend goes, and with it what it had analysed.
	$server->sql('SELECT sluice.retire_backends()');
	$owner->sql('SELECT 1');
	$owner->sql('SET DateStyle = mdy');
	$owner->exchange(Q('BEGIN'));
	$owner->exchange(Q('SELECT 1/0'));
	$owner->exchange(RawClient::describe_statement('i') . RawClient::sync()) for 1 .. 3;
	$owner->exchange(RawClient::bind('', 'end', []) . RawClient::execute('') . RawClient::sync());
	is($owner->sql('SHOW DateStyle'), 'ISO, MDY', 'settings are as they were after an error in an aborted transaction');
	$owner->sql('SET DateStyle = ymd');
	is($owner->sql('SHOW DateStyle'), 'ISO, YMD', 'and can be set');
	is($sharer->sql('SELECT 1'), '1', 'and the server lives');
	$_->close foreach $owner, $sharer;
}

# ---------------------------------------------------------------- another pool mode

my $client = $server->pool_raw;
is(parsed($client, 'before', q{SELECT 'before'}), 'before', 'a statement is prepared in transaction mode');
$client->sql(q{PREPARE sql_before AS SELECT 'sql'});
$client->sql('BEGIN');
$server->sql(q{ALTER SYSTEM SET sluice.pool_mode = 'session'});
$server->sql('SELECT pg_reload_conf()');
ok($server->node->poll_query_until('postgres', q{SELECT bool_or(mode = 'session') FROM sluice.pools}),
	'the mode is changed');
is(executed($client, 'before'), 'before', 'it is there in the transaction');
is($client->sql('EXECUTE sql_before'), 'sql', 'also that of SQL');
$client->sql('COMMIT');
foreach my $round (1 .. 2)
{
	is(executed($client, 'before'), 'before', "it is there after it ($round)");
	is($client->sql('EXECUTE sql_before'), 'sql', "also that of SQL ($round)");
}
is(parsed($client, 'after', q{SELECT 'after'}), 'after', 'there can be more');
is($client->sql('SELECT count(*) FROM pg_prepared_statements'), 3, 'all are shown');
$client->sql('DEALLOCATE ALL');
is(parsed($client, 'later', q{SELECT 'later'}), 'later', 'and others');
is($client->sql('SELECT count(*) FROM pg_prepared_statements'), 1, 'which are shown');
$client->close;

$server->stop;
done_testing();
