# SPDX-License-Identifier: PostgreSQL
#
# Statements that want a database for themselves.  Pooled backends without a client make way; an idle pooled client
# stands in the way as a session does, or is ended by FORCE; nobody who may not drop the database disturbs anyone.

use strict;
use warnings;

use POSIX ();
use PoolTest;
use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 3
max_prepared_transactions = 2
CONF
$server->sql($_) foreach 'CREATE ROLE owner CREATEDB LOGIN', 'CREATE ROLE other LOGIN', 'CREATE ROLE keeper LOGIN';

# A database, its pool with idle backends, and no clients.
sub idle_pool
{
	my ($dbname, %option) = @_;
	my $client = $server->pool_raw(dbname => $dbname, %option);
	$client->sql('SELECT 1');
	$client->close;
	ok(until_pool($server, 'clients = 0 AND idle > 0', dbname => $dbname, %option), "$dbname has pooled backends but no clients");
	return;
}

sub backends_of
{
	my ($dbname) = @_;
	return $server->sql("SELECT string_agg(pid::text, ',' ORDER BY pid) FROM sluice.backends WHERE database = '$dbname'");
}

# Code, primary message and detail of what psql was told.
sub told
{
	my ($sql, %option) = @_;
	my $client = $server->raw(%option);
	ask($client, $sql);
	my $answer = outcome($client);
	$client->close;
	return 'done' unless ref $answer;
	return join ' | ', map { defined $_ ? $_ : '-' } @$answer{ 'S', 'C', 'M', 'D' };
}

my $busy = 'is being accessed by other users | There is 1 pooled client using the database.';

# --- backends without clients
{
	my $directory = $server->node->basedir . '/elsewhere';
	mkdir $directory;
	$server->sql("SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''");
	$server->sql('CREATE DATABASE one');
	idle_pool('one');
	is(told('CREATE DATABASE copy TEMPLATE one'), 'done', 'it can be a template');
	idle_pool('one');
	is(told('ALTER DATABASE one SET TABLESPACE elsewhere'), 'done', 'its tablespace can be changed');
	is($server->pool_sql('SELECT current_database()', dbname => 'one'), 'one', 'it is served there');
	idle_pool('one');
	is(told('ALTER DATABASE one RENAME TO uno'), 'done', 'it can be renamed');
	is($server->pool_sql('SELECT current_database()', dbname => 'uno'), 'uno', 'it is served under its new name');
	idle_pool('uno');
	is(told('DROP DATABASE uno'), 'done', 'it can be dropped');
	ok($server->wait_until("SELECT count(*) = 0 FROM sluice.pools WHERE database IN ('one', 'uno')"), 'its pool is released');
	idle_pool('copy');
	my $rename = $server->raw;
	$rename->sql('BEGIN');
	$rename->sql('ALTER DATABASE copy RENAME TO copia');
	$rename->sql('ROLLBACK');
	is($server->pool_sql('SELECT current_database()', dbname => 'copy'), 'copy', 'after a rename that is rolled back all is as it was');
	idle_pool('copy');
	my $pooled = $server->pool_raw;
	$pooled->sql('DROP DATABASE copy');
	is($server->sql("SELECT count(*) FROM pg_database WHERE datname = 'copy'"), '0', 'a pooled session can drop it');
	$pooled->close;
}

# --- an idle pooled client, with and without a backend that lingers on it
$server->sql('CREATE DATABASE two');
foreach my $transactions (1, 3)
{
	my $client = $server->pool_raw(dbname => 'two');
	$client->sql('SELECT 1') foreach 1 .. $transactions;
	my $before = backends_of('two');
	is(told('DROP DATABASE two'), "ERROR | 55006 | database \"two\" $busy", "an idle client keeps its database ($transactions)");
	is(told('ALTER DATABASE two RENAME TO due'), "ERROR | 55006 | database \"two\" $busy", 'it cannot be renamed');
	is(told('ALTER DATABASE two SET TABLESPACE elsewhere'), "ERROR | 55006 | database \"two\" $busy", 'nor moved');
	is(told('CREATE DATABASE copy TEMPLATE two'), "ERROR | 55006 | source database \"two\" $busy", 'nor copied');
	my $direct = $server->raw(dbname => 'two');
	is(told('DROP DATABASE two'), 'ERROR | 55006 | database "two" is being accessed by other users | '
		  . 'There is 1 pooled client using the database, and other sessions: 1.', 'sessions of both kinds are counted');
	$direct->close;
	is($client->sql('SELECT 2'), '2', 'the client goes on');
	is(backends_of('two'), $before, 'with the backends there were');
	$client->close;
}

# --- a pooled session does not stand in its own way
{
	my $client = $server->pool_raw(dbname => 'two');
	ask($client, 'CREATE DATABASE copy TEMPLATE two');
	ok(!ref outcome($client), 'a pooled session copies the database it is in');
	$client->close;
	$server->sql('DROP DATABASE copy');
}

# --- where the statement is refused for another reason nobody is disturbed
{
	my $client = $server->pool_raw(dbname => 'two');
	$client->sql('SELECT 1');
	my $before = backends_of('two');
	like(told('DROP DATABASE two', user => 'other'), qr/^ERROR \| 42501 \| must be owner of database two/, 'a role that may not drop it');
	like(told('DROP DATABASE two WITH (FORCE)', user => 'other'), qr/^ERROR \| 42501 \| must be owner/, 'nor with force');
	like(told('ALTER DATABASE two RENAME TO due', user => 'other'), qr/^ERROR \| 42501 \| must be owner/, 'nor rename it');
	like(told('ALTER DATABASE two SET TABLESPACE elsewhere', user => 'other'), qr/^ERROR \| 42501 \| must be owner/, 'nor move it');
	like(told('CREATE DATABASE copy TEMPLATE two', user => 'owner'), qr/^ERROR \| 42501 \| permission denied to copy/, 'nor copy it');
	like(told('CREATE DATABASE two TEMPLATE two'), qr/^ERROR \| 42P04/, 'a copy of a name that is taken');
	like(told('ALTER DATABASE two RENAME TO postgres'), qr/^ERROR \| 42P04/, 'a new name that is taken');
	like(told('ALTER DATABASE two SET TABLESPACE nowhere'), qr/^ERROR \| 42704/, 'a tablespace that does not exist');
	like(told('BEGIN; DROP DATABASE two'), qr/^ERROR \| 25001/, 'a transaction block');
	like(told('SET default_transaction_read_only = on; DROP DATABASE two'), qr/^ERROR \| 25001/, 'an implicit one');
	like(told('DROP DATABASE two WITH (FORCE)', dbname => 'two'), qr/^ERROR \| 55006 \| cannot drop the currently open/, 'its own session');
	$server->sql('ALTER DATABASE two IS_TEMPLATE true');
	like(told('DROP DATABASE two WITH (FORCE)'), qr/^ERROR \| 42809 \| cannot drop a template database/, 'a template');
	$server->sql('ALTER DATABASE two IS_TEMPLATE false');
	is(told('DROP DATABASE IF EXISTS nosuch'), 'done', 'one that does not exist');
	is($client->sql('SELECT 2'), '2', 'the client goes on');
	is(backends_of('two'), $before, 'with the backends there were');

	# Prepared transactions keep FORCE away.
	$server->sql("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'p'", dbname => 'two');
	like(told('DROP DATABASE two WITH (FORCE)'), qr/^ERROR \| 55006 \| database "two" is being used by prepared transactions/, 'a prepared transaction');
	is($client->sql('SELECT 2'), '2', 'the client goes on');
	is(backends_of('two'), $before, 'with the backends there were');
	$server->sql("ROLLBACK PREPARED 'p'", dbname => 'two');
	$client->close;
}

# --- FORCE
sub ended
{
	my ($client, $name) = @_;
	my ($error) = map { RawClient::error_fields($_) } grep { $_->{type} eq 'E' } $client->read_until('');
	is(join(' | ', map { defined $_ ? $_ : '-' } @{ $error || {} }{ 'S', 'C', 'M' }),
		'FATAL | 57P01 | terminating connection due to administrator command', $name);
	return;
}

foreach my $port ('direct', 'pooled')
{
	$server->sql('CREATE DATABASE three');
	my ($idle, $lingering, $thinking, $working) = map { $server->pool_raw(dbname => 'three') } 1 .. 4;
	$idle->sql('SELECT 1');
	$thinking->sql('BEGIN');
	ask($working, 'SELECT pg_sleep(1000)');
	ok(until_pool($server, 'active = 1 AND in_transaction = 1', dbname => 'three'), 'clients of all kinds');
	$lingering->sql('SELECT 1') foreach 1 .. 3;
	my $client = $port eq 'direct' ? $server->raw : $server->pool_raw;
	$client->sql('DROP DATABASE three WITH (FORCE)');
	ended($idle, "WITH (FORCE) on the $port port ends an idle client");
	ended($lingering, 'one with a backend beside it');
	ended($thinking, 'one inside a transaction');
	ended($working, 'one that works');
	$client->close;
	my (undef, undef, $errors) = $server->pool_psql('SELECT 1', dbname => 'three');
	like($errors, qr/FATAL:  database "three" does not exist/, 'a new client is refused as on a direct connection');
	ok($server->wait_until("SELECT count(*) = 0 FROM sluice.pools WHERE database = 'three'"), 'the pool is released');
	is($server->sql("SELECT count(*) FROM sluice.clients WHERE database = 'three'"), '0', 'nothing is left of its clients');
}

# Whose sessions an owner may end.
$server->sql('CREATE DATABASE his OWNER owner');
{
	my %said;
	foreach my $port ('raw', 'pool_raw')
	{
		foreach my $user (own_name(), 'keeper', 'owner')
		{
			my $client = $server->$port(dbname => 'his', user => $user);
			$client->sql('SELECT 1');
			$said{$port} .= told('DROP DATABASE his WITH (FORCE)', user => 'owner') . "\n";
			ask($client, 'SELECT 2');
			my $answer = outcome($client);
			$said{$port} .= (ref $answer ? "ended $answer->{C}" : $answer) . "\n";
			$client->close unless ref $answer;
			$server->wait_until("SELECT count(*) = 0 FROM sluice.clients WHERE database = 'his'");
		}
		like($said{$port}, qr/^ERROR.*\n2\nERROR.*\n2\ndone\nended/, 'the owner ends his own sessions only');
		ok($server->wait_until("SELECT count(*) = 0 FROM sluice.pools WHERE database = 'his'"), 'the pools are released');
		$server->sql('CREATE DATABASE his OWNER owner');
	}
	is($said{pool_raw}, $said{raw}, 'on the pooled port as on the direct one');
	idle_pool('his');
	is(told('DROP DATABASE his WITH (FORCE)', user => 'owner'), 'done', "a superuser's backend without a client is nobody's session");
}

# --- those who come back at once do not keep FORCE from coming to its end
{
	my $stop = PostgreSQL::Test::Utils::tempdir() . '/stop';
	my $deadline = time() + $SluiceTest::patience_s;
	my ($test, @visitors) = ($$);
	$server->sql('CREATE DATABASE stormed');
	foreach my $number (1 .. 8)
	{
		my $visitor = fork;
		die "fork: $!" unless defined $visitor;
		if ($visitor) { push @visitors, $visitor; next; }
		$SIG{PIPE} = 'IGNORE';
		my $over = sub { return -e $stop || time() > $deadline || getppid() != $test };
		until ($over->())
		{
			eval {
				my $client = RawClient->try_connect(host => $server->host, port => $server->pool_port, user => own_name(),
					dbname => 'stormed', timeout => 10);
				$client->sql('SELECT 1') until $client->error || $over->();
			};
		}
		# Nothing of the parent's is to be cleared up here.
		POSIX::_exit(0);
	}
	foreach my $round (1 .. 5)
	{
		$server->sql('CREATE DATABASE stormed') if $round > 1;
		ok($server->wait_until(q{SELECT count(*) >= 4 FROM sluice.clients WHERE database = 'stormed'}), "clients come back ($round)");
		is(told('DROP DATABASE stormed WITH (FORCE)'), 'done', 'while they do, FORCE drops their database');
	}
	PostgreSQL::Test::Utils::append_to_file($stop, '');
	waitpid $_, 0 foreach @visitors;
	ok($server->wait_until(q{SELECT count(*) = 0 FROM sluice.clients WHERE database = 'stormed'}), 'nothing is left of them');
}

# --- a new database of the same name is a new pool
$server->sql('CREATE DATABASE three');
is($server->pool_sql('SELECT current_database()', dbname => 'three'), 'three', 'a new database of that name is served');

# --- a minimum does not bring backends back while the statement waits
{
	my $client = $server->pool_raw(dbname => 'three');
	$client->sql('ALTER ROLE ' . own_name() . " IN DATABASE three SET sluice.min_pool_size = 2");
	$client->close;
	$client = $server->pool_raw(dbname => 'three');
	$client->sql('SELECT 1');
	ok(until_pool($server, 'idle >= 2', dbname => 'three'), 'a pool keeps two backends');
	$client->close;
	is(told('DROP DATABASE three'), 'done', 'and makes way when its client has left');
}

$server->stop;
done_testing();
