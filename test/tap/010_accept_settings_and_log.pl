# SPDX-License-Identifier: PostgreSQL
#
# Settings that are wrong, a library that is not loaded, and what the log says
# about connections.

use strict;
use warnings;

use LoginProbe qw(login_outcome outcome);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $me = scalar getpwuid($>);
my $server = SluiceTest->new('main', tcp => 1, conf => <<'CONF');
log_connections = on
log_disconnections = on
log_line_prefix = '<%u|%d|%h|%a> '
log_statement = 'all'
CONF
my $node = $server->node;
my %direct = (port => $server->port);
my %pooled = (port => $server->pool_port);

# ---------------------------------------------------------------- connections in the log

$server->sql(q{CREATE ROLE scram LOGIN PASSWORD 'secret'; CREATE ROLE plain LOGIN});
{
	my $path = $node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($path);
	open my $file, '>', $path or die "$path: $!";
	print $file "host all scram 127.0.0.1/32 scram-sha-256\nlocal all $me peer\n$rules";
	close $file;
	$node->reload;
	my $deadline = time() + $SluiceTest::patience_s;
	foreach my $port (\%direct, \%pooled)
	{
		sleep 0.05
		  until login_outcome(%$port, host => '127.0.0.1', user => 'scram', dbname => 'postgres', password => 'x') =~
		  /28P01/ || time() > $deadline;
	}
	# The sessions that prepared all this may still be leaving.
	ok($server->wait_for_log(qr/(disconnection: .*){2}/s), 'what came before has left its lines');
}

# The lines a session leaves behind, without what differs from session to session.
sub log_of_session
{
	my ($where, %login) = @_;
	my $offset = $server->log_size;
	my $client = LoginProbe->try_connect(%$where, %login);
	if (!defined $client->error)
	{
		$client->sql('SELECT 4711');
		$client->close;
		$server->wait_for_log(qr/disconnection: session time/, $offset);
	}
	else
	{
		$server->wait_for_log(qr/FATAL/, $offset);
	}
	my $log = $server->log_since($offset);
	$log =~ s/port=\d+/port=N/g;
	$log =~ s/\(\d+\)>/(N)>/g;
	$log =~ s/session time: \d+:\d\d:\d\d\.\d\d\d/session time: T/g;
	return join "\n", grep { /connection|4711|FATAL|DETAIL/ } split /\n/, $log;
}

foreach my $case (
	[ 'TCP and SCRAM', host => '127.0.0.1', user => 'scram', password => 'secret' ],
	[ 'TCP and trust', host => '127.0.0.1', user => 'plain' ],
	[ 'an application_name', host => '127.0.0.1', user => 'plain', parameters => { application_name => 'tester' } ],
	[ 'peer', host => $server->host, user => $me ],
	[ 'a wrong password', host => '127.0.0.1', user => 'scram', password => 'wrong' ],
	[ 'a role that does not exist', host => $server->host, user => 'nobody' ],
	[ 'peer for somebody else', host => $server->host, user => 'nobody_else' ])
{
	my ($name, %login) = @$case;
	my $log = log_of_session(\%direct, %login, dbname => 'postgres');
	like($log, qr/connection received: host=(127\.0\.0\.1 port=N|\[local\])\n/, "$name: the log of the direct port");
	is(log_of_session(\%pooled, %login, dbname => 'postgres'), $log, "$name: the log of the pooled port is the same");
}
{
	my $log = log_of_session(\%pooled,
		host => '127.0.0.1', user => 'plain', dbname => 'postgres', parameters => { application_name => 'tester' });
	like($log, qr/<plain\|postgres\|127\.0\.0\.1\|tester> LOG:  statement: SELECT 4711/,
		'log_line_prefix shows user, database, host and application_name');
	like($log, qr/<plain\|postgres\|127\.0\.0\.1\|tester> LOG:  disconnection: session time: T user=plain database=postgres host=127\.0\.0\.1 port=N/,
		'also when the client has left');
}
{
	my $offset = $server->log_size;
	my $client = RawClient->connect(%pooled, host => $server->host, user => 'plain', dbname => 'postgres');
	$client->sql('SELECT 1');
	$client->drop;
	ok($server->wait_for_log(qr/disconnection: session time: 0:00:\d\d\.\d\d\d user=plain database=postgres host=\[local\]\n/, $offset),
		'a client that vanishes leaves a line, too');
}

# As on the server's own port, a reload counts for the sessions that begin after it.
sub logs_soon
{
	my ($wanted, $pattern) = @_;
	my $deadline = time() + $SluiceTest::patience_s;
	my $seen;
	do
	{
		my $offset = $server->log_size;
		login_outcome(%pooled, host => $server->host, user => 'plain', dbname => 'postgres');
		$server->wait_until('SELECT count(*) = 0 FROM sluice.clients');
		$seen = $server->log_since($offset) =~ $pattern ? 1 : 0;
	} until $seen == $wanted || time() > $deadline;
	return $seen == $wanted;
}
my %lines = (
	log_connections => qr/connection authorized: user=plain/,
	log_disconnections => qr/disconnection: .* user=plain/);
foreach my $name (sort keys %lines)
{
	$server->sql("ALTER SYSTEM SET $name = off");
	$node->reload;
	ok(logs_soon(0, $lines{$name}), "$name can be turned off by a reload");
	$server->sql("ALTER SYSTEM SET $name = on");
	$node->reload;
	ok(logs_soon(1, $lines{$name}), 'and on again');
}
{
	$server->sql('ALTER SYSTEM RESET ALL');
	remove_from_conf($node, qr/^log_(dis)?connections.*\n/m);
	$node->reload;
	ok(logs_soon(0, $lines{$_}), "$_ goes back to its default when it is no longer set") foreach sort keys %lines;
}

sub remove_from_conf
{
	my ($which, $remove) = @_;
	my $path = $which->data_dir . '/postgresql.conf';
	my $text = slurp_file($path);
	$text =~ s/$remove//g;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file;
	return;
}

# ---------------------------------------------------------------- wrong settings, by ALTER SYSTEM

foreach my $case (
	[ 'max_pool_size', '0', qr/invalid value for parameter "sluice.max_pool_size": 0\nDETAIL:  .*without backends.*\nHINT:  Use -1/ ],
	[ 'max_pool_size', '-2', qr/-2 is outside the valid range for parameter "sluice.max_pool_size" \(-1 \.\. \d+\)/ ],
	[ 'cores', '0', qr/invalid value for parameter "sluice.cores": 0\nDETAIL:  .*must be positive.*\nHINT:  Use -1/ ],
	[ 'cores', '-0.5', qr/invalid value for parameter "sluice.cores": -0.5\nDETAIL:  .*\nHINT:  / ],
	[ 'cores', '-2', qr/-2 is outside the valid range for parameter "sluice.cores" \(-1 \.\. \d+\)/ ],
	[ 'spindles', '-2', qr/outside the valid range/ ],
	[ 'port', '0', qr/0 is outside the valid range for parameter "sluice.port" \(1 \.\. 65535\)/ ],
	[ 'port', '65536', qr/outside the valid range/ ],
	[ 'max_clients', '0', qr/outside the valid range/ ],
	[ 'max_unauthenticated_clients', '0', qr/outside the valid range/ ],
	[ 'acquire_timeout', q{'soon'}, qr/invalid value for parameter "sluice.acquire_timeout": "soon"/ ],
	[ 'acquire_timeout', q{'5 weeks'}, qr/HINT:  Valid units/ ],
	[ 'pool_mode', q{'x'}, qr/invalid value for parameter "sluice.pool_mode": "x"\n.*HINT:  Available values: transaction, session/ ])
{
	my ($name, $value, $expected) = @$case;
	my ($code, undef, $errors) = $server->psql("ALTER SYSTEM SET sluice.$name = $value");
	ok($code != 0, "sluice.$name = $value is refused");
	like($errors, $expected, 'with a reason');
}
{
	my ($code, undef, $errors) = $server->psql('ALTER SYSTEM SET sluice.no_such_thing = 1');
	ok($code != 0, 'so is a setting that does not exist');
	($code, undef, $errors) = $server->psql('SET sluice.port = 6000');
	like($errors, qr/cannot be changed without restarting the server/, 'the port cannot be changed in a session');
}

# ---------------------------------------------------------------- in the file, at a reload

{
	my $before = $server->sql('SHOW sluice.max_pool_size');
	my $offset = $server->log_size;
	my $size = -s $node->data_dir . '/postgresql.conf';
	$node->append_conf('postgresql.conf', "sluice.max_pool_size = 0\nsluice.cores = -0.5\nsluice.pool_mode = 'x'\nsluice.idle_timeout = '7min'\n");
	$node->reload;
	ok($server->wait_for_log(qr/contains errors; unaffected changes were applied/, $offset), 'a reload with wrong settings');
	my $log = $server->log_since($offset);
	like($log, qr/invalid value for parameter "sluice.max_pool_size": 0\n.*DETAIL:  .*\n.*HINT:  /, 'the log has the details');
	like($log, qr/invalid value for parameter "sluice.cores": -0.5\n.*DETAIL:  .*\n.*HINT:  /, 'of each');
	like($log, qr/invalid value for parameter "sluice.pool_mode": "x"\n.*HINT:  /, 'of them');
	ok($server->wait_until(q{SELECT setting = '420000' FROM pg_settings WHERE name = 'sluice.idle_timeout'}),
		'what is right is applied');
	is($server->sql('SHOW sluice.max_pool_size'), $before, 'what is wrong is not');
	is($server->pool_sql('SELECT 1'), '1', 'clients are served');

	# At a start as well: the server does not refuse to start for the sake of a setting of an extension.
	$offset = $server->log_size;
	$node->restart;
	$server->wait_for_pool;
	$log = $server->log_since($offset);
	like($log, qr/invalid value for parameter "sluice.max_pool_size": 0\n.*DETAIL:  .*\n.*HINT:  /, 'at a start the log has the details');
	is($server->sql('SHOW sluice.max_pool_size'), '-1', 'and the default is in force');
	is($server->sql('SHOW sluice.pool_mode'), 'transaction', 'for each of them');
	truncate $node->data_dir . '/postgresql.conf', $size;
}
unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:/, 'nothing has crashed');
$server->stop;

# ---------------------------------------------------------------- the library is not loaded

{
	my $bare = PostgreSQL::Test::Cluster->new('bare');
	$bare->init;
	$bare->start;
	my ($code, $output, $errors) = $bare->psql('postgres', 'CREATE EXTENSION pg_sluice');
	is($code, 0, 'without the library in shared_preload_libraries the extension can be created');
	my @views = split /\n/, $bare->safe_psql('postgres', q{SELECT viewname FROM pg_views WHERE schemaname = 'sluice' ORDER BY 1});
	cmp_ok(scalar @views, '>=', 5, 'it has views');
	foreach my $view (@views)
	{
		($code, $output, $errors) = $bare->psql('postgres', "SELECT * FROM sluice.$view");
		ok($code != 0, "sluice.$view is an error then");
		like($errors, qr/ERROR:  pg_sluice must be loaded .*\n.*HINT:  Add pg_sluice to shared_preload_libraries in postgresql\.conf/,
			'which says what to add');
	}
	my @functions = split /\n/, $bare->safe_psql('postgres', q{SELECT oid::regprocedure FROM pg_proc
		WHERE pronamespace = 'sluice'::regnamespace AND pronargs = 1 AND proargtypes[0] = 'integer'::regtype ORDER BY 1});
	foreach my $function (@functions)
	{
		(my $call = $function) =~ s/\(.*/(1)/;
		($code, $output, $errors) = $bare->psql('postgres', "SELECT $call");
		like($errors, qr/shared_preload_libraries/, "so does $call");
	}
	is(scalar($bare->psql('postgres', 'DROP EXTENSION pg_sluice')), 0, 'it can be dropped');
	$bare->stop;
}
done_testing();
