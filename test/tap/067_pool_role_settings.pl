# SPDX-License-Identifier: PostgreSQL
#
# ALTER ROLE and ALTER DATABASE ... SET: the next client that connects has the new defaults, as on a direct connection,
# whichever backends its pool has and however it is greeted.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 3
max_prepared_transactions = 2
CONF
$server->sql("CREATE ROLE $_ LOGIN") foreach qw(app other);
$server->sql('CREATE DATABASE shop');
my @who = (user => 'app', dbname => 'shop');

# A backend that sleeps, and one that has been greeted by nobody: the pool greets quickly.
sub warm_pool
{
	my (%option) = @_;
	my $client = $server->pool_raw(@who, %option);
	$client->sql('SELECT 1') foreach 1 .. 3;
	$client->close;
	return;
}

# What a new client is told and what it finds; both have to be what a direct one is told.
sub compare_with_direct
{
	my ($case, %option) = @_;
	my ($direct, $pooled) = ($server->raw(@who, %option), $server->pool_raw(@who, %option));
	is_deeply($pooled->parameter_status, $direct->parameter_status, "$case: what the client is told");
	my $show = "SELECT concat_ws(' ', current_setting('DateStyle'), current_setting('TimeZone'), "
	  . "current_setting('work_mem'), current_setting('application_name'), current_setting('search_path'))";
	my $found = $pooled->sql($show);
	is($found, scalar $direct->sql($show), "$case: what it finds");
	# Another one, with the pool in whatever state the first has left it.
	my $second = $server->pool_raw(@who, %option);
	is($second->sql($show), $found, "$case: and the next");
	is_deeply($second->parameter_status, $direct->parameter_status, "$case: is told the same");
	$_->close foreach $direct, $pooled, $second;
	return $found;
}

warm_pool();
compare_with_direct('before any change');

foreach my $change (
	[ 'ALTER ROLE app SET DateStyle = German', qr/^German, DMY / ],
	[ "ALTER DATABASE shop SET TimeZone = 'Asia/Tokyo'", qr/^German, DMY Asia\/Tokyo / ],
	[ "ALTER ROLE app IN DATABASE shop SET DateStyle = 'SQL, DMY'", qr/^SQL, DMY Asia/ ],
	[ "ALTER ROLE ALL SET work_mem = '7MB'", qr/ 7MB / ],
	[ "ALTER ROLE ALL IN DATABASE shop SET application_name = 'teller'", undef ],
	[ 'ALTER ROLE app IN DATABASE shop RESET DateStyle', qr/^German, DMY Asia/ ],
	[ 'ALTER DATABASE shop RESET ALL', undef ],
	[ 'ALTER ROLE app RESET ALL', qr/^ISO/ ],
	[ "ALTER ROLE app SET search_path = 'first', 'second'", qr/first, second$/ ],
	[ "DO \$\$ BEGIN EXECUTE 'ALTER ROLE app SET work_mem = ''9MB'''; END \$\$", qr/ 9MB / ],
	[ "BEGIN; ALTER ROLE app SET work_mem = '5MB'; SAVEPOINT s; ALTER ROLE app SET work_mem = '6MB'; ROLLBACK TO s; COMMIT",
		qr/ 5MB / ])
{
	my ($sql, $expected) = @$change;
	$server->sql($sql);
	my $found = compare_with_direct($sql);
	like($found, $expected, 'and that is the new value') if defined $expected;
	compare_with_direct("$sql, with settings of its own", parameters => { IntervalStyle => 'iso_8601' });
}

# --- every connection counts, also those that come in the middle of a change
{
	my $wrong = 0;
	foreach my $round (1 .. 40)
	{
		$server->sql("ALTER ROLE app SET work_mem = '${round}MB'");
		my $client = $server->pool_raw(@who);
		$wrong++ if $client->sql('SHOW work_mem') ne "${round}MB";
		$client->close;
	}
	is($wrong, 0, 'forty changes, each seen by the next client');
}

# --- while the pool is busy
{
	my $gate = PoolTest::Gate->new($server, dbname => 'shop');
	my @clients = map { $server->pool_raw(@who) } 1 .. 3;
	ask($_, "SELECT current_setting('work_mem') FROM " . $gate->wait) foreach @clients;
	ok(until_pool($server, 'active = 3', @who), 'all backends work');
	$server->sql("ALTER ROLE app SET work_mem = '77MB'");
	my $late = begin_connect($server, @who);
	ok(until_pool($server, 'clients = 4 AND waiting = 1', @who), 'a new client waits');
	$gate->open;
	is(answer($_), '40MB', 'those that work go on with what they have') foreach @clients;
	$late->authenticate;
	is($late->sql('SHOW work_mem'), '77MB', 'the new client has the new default');
	ok($server->wait_until("SELECT count(*) = 0 FROM sluice.backends WHERE role = 'app' AND retire_reason IS NOT NULL"),
		'the outdated backends leave');
	is($_->sql('SHOW work_mem'), '77MB', 'clients that were there get it with another backend') foreach @clients;
	$_->close foreach @clients, $late;
}

# --- a client that stays, alone
{
	my $client = $server->pool_raw(@who);
	$client->sql('SELECT 1') foreach 1 .. 3;
	my $before = $client->sql('SELECT pg_backend_pid()');
	$server->sql("ALTER ROLE app SET work_mem = '78MB'");
	ok($server->wait_until("SELECT count(*) = 0 FROM sluice.backends WHERE pid = $before"), 'its backend leaves, though nobody else comes');
	is($client->sql('SHOW work_mem'), '78MB', 'it goes on with the new default');
	$client->close;
}

# --- through the pool itself, and inside of a transaction
{
	$server->sql('ALTER ROLE app CREATEROLE');
	my $client = $server->pool_raw(@who);
	$client->sql('BEGIN');
	$client->sql("ALTER ROLE app SET work_mem = '79MB'");
	my $other = $server->pool_raw(@who);
	is($other->sql('SHOW work_mem'), '78MB', 'what is not committed concerns nobody');
	$client->sql('COMMIT');
	my $third = $server->pool_raw(@who);
	is($third->sql('SHOW work_mem'), '79MB', 'a change by a pooled client is seen once it is committed');
	$client->sql('BEGIN');
	$client->sql("ALTER ROLE app SET work_mem = '80MB'");
	$client->sql('ROLLBACK');
	$_->close foreach $client, $other, $third;
	compare_with_direct('after a rollback');
}

# --- in two phases
{
	warm_pool();
	$server->sql("BEGIN; ALTER ROLE app SET work_mem = '81MB'; PREPARE TRANSACTION 'change'");
	is(compare_with_direct('while it is prepared') =~ / 79MB /, 1, 'a prepared change concerns nobody');
	warm_pool();
	$server->sql("COMMIT PREPARED 'change'");
	like(compare_with_direct('after COMMIT PREPARED'), qr/ 81MB /, 'until it is committed');
}

# --- nobody else is troubled
{
	my $client = $server->pool_raw(user => 'other');
	$client->sql('SELECT 1') foreach 1 .. 3;
	my $pid = $client->sql('SELECT pg_backend_pid()');
	$server->sql("ALTER ROLE app SET work_mem = '82MB'");
	$server->sql("ALTER DATABASE shop SET work_mem = '83MB'");
	my $new = $server->pool_raw(user => 'other');
	$new->sql('SELECT 1');
	is(pool($server, "retirements || ' ' || starts", user => 'other') =~ /^0 /, 1, 'backends of other roles and databases stay');
	is($server->sql("SELECT count(*) FROM sluice.backends WHERE pid = $pid AND retire_reason IS NULL"), '1', 'undisturbed');
	$_->close foreach $client, $new;
}

# --- a new pool size counts from the next connection on
{
	$server->sql('ALTER ROLE app SET sluice.max_pool_size = 1');
	my $client = $server->pool_raw(@who);
	ok(until_pool($server, 'max_size = 1', @who), 'settings of pools follow as well');
	$client->close;
}

$server->stop;
done_testing();
