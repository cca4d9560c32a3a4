# SPDX-License-Identifier: PostgreSQL
#
# Session state at its edges: one backend serves clients in turn, and what one of
# them leaves in the process must not be met, told or paid for by the next.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use RawClient;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

my $server = SluiceTest->new('main', init => [ allows_streaming => 1 ], conf => <<'CONF');
sluice.max_pool_size = 1
sluice.min_pool_size = 1
CONF
my $watch = $server->raw;
$server->sql("CREATE DATABASE $_") foreach 'claimed', 'crowded', 'strict';

sub client { return $server->pool_raw(@_) }

sub wait_until_alone { return $server->wait_until('SELECT count(*) = 0 FROM sluice.clients'); }

sub pins { return $watch->sql('SELECT array_to_string(pins, \',\') FROM sluice.clients WHERE pins IS NOT NULL') }

sub notices { return join '; ', map { RawClient::error_fields($_)->{M} } grep { $_->{type} eq 'N' } @_ }

# --- the same settings above different names
{
	my ($one, $other) = map { client(parameters => { application_name => $_ }) } 'one', 'shared';
	$_->sql('SELECT 1') foreach $one, $other;
	$_->sql(q{SET application_name = 'shared'}) foreach $one, $other;
	$one->sql('SELECT 1');
	$_->sql('RESET application_name') foreach $other, $one;
	is(join(' ', map { $_->parameter_status->{application_name} } $one, $other), 'one shared', 'RESET returns to one\'s own start-up name');
	$_->close foreach $one, $other;
}

# --- the seed is obeyed, whatever becomes of the setting
foreach my $how ('BEGIN; SET LOCAL seed = 0.5; COMMIT', 'BEGIN; SET seed = 0.5; ROLLBACK',
	q{CREATE FUNCTION seeding() RETURNS int LANGUAGE sql SET seed = 0.5 AS 'SELECT 1'; SELECT seeding(); DROP FUNCTION seeding()})
{
	my $client = client();
	$client->sql($_) foreach split /; /, $how;
	is(pins(), 'random_seed', "pinned: $how");
	$client->close;
	wait_until_alone();
}

# --- the temporary schema under its own name
{
	my ($maker, $bystander) = (client(), client());
	$maker->sql($_) foreach 'CREATE TEMP TABLE own ()', 'DROP TABLE own';
	my $schema = $maker->sql('SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()');
	foreach my $what ([ 'FUNCTION', 'own()', q{RETURNS int LANGUAGE sql AS 'SELECT 1'} ], [ 'TYPE', 'own', q{AS ENUM ('x')} ],
		[ 'DOMAIN', 'own', 'AS int' ])
	{
		my ($kind, $name, $rest) = @$what;
		$maker->sql("CREATE $kind $schema.$name $rest");
		is(pins(), 'temporary_objects', "$kind in the temporary schema: pinned");
		$maker->sql("DROP $kind $schema.$name");
		is(pins(), undef, '  and released');
	}
	$maker->sql(qq{CREATE FUNCTION $schema.own() RETURNS int LANGUAGE sql AS 'SELECT 1'});
	is($bystander->sql_error('SELECT pg_temp.own()')->{V}, 'ERROR', 'nobody else meets it');
	$maker->close;
	$bystander->close;
	wait_until_alone();
}

# --- names made up by others, and a library that claims their prefix
{
	my $first = client(dbname => 'claimed');
	$first->sql(q{SET plpgsql.secret = 'x'});
	$first->close;
	wait_until_alone();
	my $second = client(dbname => 'claimed');
	is(notices($second->exchange(RawClient::query('DO $$BEGIN NULL; END$$'))), '', 'a library does not tell about names of others');
	$second->close;
}

# --- the number of temporary buffers
{
	my $client = client(parameters => { options => '-c temp_buffers=2000' });
	$client->sql($_) foreach 'CREATE TEMP TABLE own (a int)', 'INSERT INTO own VALUES (1)';
	my $pid = $client->sql('SELECT pg_backend_pid()');
	$client->close;
	wait_until_alone();
	$client = client();
	is($server->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), 1,
		'a backend survives a client with a start-up setting it cannot take back');
	$client->close;
}

# --- more than can be carried
{
	my ($client, $other) = (client(), client());
	$client->sql(q{SELECT length(set_config('app.data', repeat('x', 70000000), false))});
	ok($server->wait_until(q{SELECT count(*) = 1 FROM sluice.clients WHERE pins = '{state_too_large}'}), 'data kept in a setting pins');
	is($other->sql('SELECT 1'), '1', 'others are served');
	is($client->sql(q{SELECT length(current_setting('app.data'))}), '70000000', 'it is there');
	$client->sql(q{SET app.data = ''});
	ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients WHERE pins IS NOT NULL'), 'without it the client is released');
	$_->close foreach $client, $other;
	wait_until_alone();
}

# --- temporary objects that go with what they depend on
{
	my $client = client();
	$client->sql($_) foreach 'CREATE TYPE lasting AS (a int)', q{CREATE FUNCTION pg_temp.own(lasting) RETURNS int LANGUAGE sql AS 'SELECT 1'};
	is(pins(), 'temporary_objects', 'a temporary function pins');
	$client->sql('DROP TYPE lasting CASCADE');
	ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients WHERE pins IS NOT NULL'), 'until it is dropped, by whatever means');
	$client->close;
	wait_until_alone();
}

# --- functions named by the administrator, called by others than expressions
{
	$server->sql(q{ALTER DATABASE claimed SET sluice.pin_functions = 'keep, plpgsql_inline_handler'});
	$server->sql($_, dbname => 'claimed') foreach 'CREATE TABLE item (a int)',
	  'CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$',
	  'CREATE TRIGGER keeping BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION keep()';
	foreach my $sql ('INSERT INTO item VALUES (1)', 'DO $$BEGIN NULL; END$$')
	{
		my $client = client(dbname => 'claimed');
		$client->sql('SELECT 1');
		is(pins(), undef, 'not pinned');
		$client->sql($sql);
		is(pins(), 'function', "pinned: $sql");
		$client->close;
		wait_until_alone();
	}
}

# --- refused: temporary objects by other ways
{
	$server->sql(q{ALTER DATABASE strict SET sluice.on_session_state = 'error'});
	$server->sql($_, dbname => 'strict') foreach 'CREATE TABLE item (a int, b int)', 'CREATE FOREIGN DATA WRAPPER nothing',
	  'CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing';
	my $client = client(dbname => 'strict');
	is($client->sql_error($_)->{C}, '0A000', "refused: $_")
	  foreach 'EXPLAIN ANALYZE CREATE TEMP TABLE own AS SELECT 1', 'EXPLAIN (ANALYZE, COSTS OFF) SELECT 1 AS a INTO TEMP own',
	  'CREATE FOREIGN TABLE pg_temp.own (a int) SERVER nowhere', 'CREATE STATISTICS pg_temp.own ON a, b FROM item',
	  q{CREATE CONVERSION pg_temp.own FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8},
	  'CREATE OPERATOR FAMILY pg_temp.own USING btree';
	is(scalar(grep { $_->{type} eq 'E' } $client->exchange(RawClient::query($_))), 0, "allowed: $_")
	  foreach 'EXPLAIN CREATE TEMP TABLE own AS SELECT 1', 'EXPLAIN (ANALYZE off) CREATE TEMP TABLE own AS SELECT 1',
	  'EXPLAIN ANALYZE CREATE TEMP TABLE own ON COMMIT DROP AS SELECT 1', 'CREATE STATISTICS lasting ON a, b FROM item';
	is(pins(), undef, 'nobody is pinned');
	$client->close;
}

# --- a client that went away while it waited leaves an entry in the queue, which must not keep anyone awake
{
	$server->sql('ALTER DATABASE crowded SET sluice.acquire_timeout = 100');
	$server->sql('ALTER DATABASE crowded SET sluice.max_pool_size = 1');
	my $blocker = client(dbname => 'crowded');
	my $waiter = client(dbname => 'crowded');
	$_->sql('SELECT 1') foreach $waiter, $blocker;
	my $pid = $blocker->sql('SELECT pg_backend_pid()');
	my $gate = $server->raw(dbname => 'crowded');
	$gate->sql('SELECT pg_advisory_lock(1)');
	$blocker->send_bytes(RawClient::query('SELECT pg_advisory_xact_lock(1)'));
	$server->wait_until(q{SELECT count(*) = 1 FROM sluice.backends WHERE database = 'crowded' AND state = 'active'});
	$waiter->send_bytes(RawClient::query('SELECT 1'));
	my @messages = $waiter->read_until('');
	is(RawClient::error_fields($messages[0])->{C}, '53300', 'a client waits in vain');
	$gate->close;
	$blocker->read_until_ready;
	$blocker->close;
	my $used = sub {
		open my $file, '<', "/proc/$pid/stat" or die "$pid: $!";
		my @fields = split ' ', (<$file> =~ s/.*\) //r);
		return $fields[11] + $fields[12];
	};
	my $sleeps = 0;
	foreach my $attempt (1 .. 100)
	{
		my $before = $used->();
		sleep 0.5;
		$sleeps = $used->() == $before ? $sleeps + 1 : 0;
		last if $sleeps == 3;
	}
	is($sleeps, 3, 'the backend sleeps');
}

# --- a promotion is news to clients that were away
{
	$server->node->backup('copy');
	my $node = PostgreSQL::Test::Cluster->new('standby');
	$node->init_from_backup($server->node, 'copy', has_streaming => 1);
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	$node->append_conf('postgresql.conf', "sluice.port = $port\n");
	my $standby = bless { node => $node, pool_port => $port }, 'SluiceTest';
	$standby->start;
	my @clients = map { $standby->pool_raw } 1 .. 3;
	foreach my $round (1 .. 2) { $_->sql('SELECT 1') foreach @clients }
	is(join(' ', map { $_->parameter_status->{in_hot_standby} } @clients), 'on on on', 'clients of a standby');
	$node->promote;
	ok($standby->wait_until('SELECT NOT pg_is_in_recovery()'), 'it is promoted');
	$_->sql('SELECT 1') foreach @clients;
	is(join(' ', map { $_->parameter_status->{in_hot_standby} } @clients), 'off off off', 'all are told with their next answer');
	$_->close foreach @clients;
	$standby->stop;
}

$server->stop;
done_testing();
