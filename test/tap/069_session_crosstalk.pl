# SPDX-License-Identifier: PostgreSQL
#
# Hundreds of clients of several databases and roles share a few backends, and none of them can tell: each changes all
# of its session at random and compares every answer with what it knows.  See the top of test/crosstalk/crosstalk.cpp
# for what is covered.  The server's own port comes first, which shows that the clients are right.
#
# CROSSTALK_TRANSACTIONS=100000 makes it long, CROSSTALK_SEED another one.  By hand:
#   CROSSTALK_TRANSACTIONS=100000 make test-tap TAP_TESTS=test/tap/069_session_crosstalk.pl

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $directory = dirname(__FILE__) . '/../crosstalk';
my $max_pinned = 20;

# Room for all pools at their largest, for clients that are pinned or think inside a transaction, and for backends that
# have not noticed yet that their client is gone.
my $server = SluiceTest->new('main', conf => <<"CONF");
max_connections = 150
max_locks_per_transaction = 256
sluice.pool_mode = transaction
sluice.debug_force_switch = on
sluice.max_pool_size = 4
sluice.max_backends = 80
sluice.acquire_timeout = ${SluiceTest::patience_s}s
timezone = 'UTC'
CONF

my @databases = ('crosstalk_a', 'crosstalk_b');
$server->sql(slurp_file("$directory/roles.sql"));
foreach my $database (@databases)
{
	$server->sql("CREATE DATABASE $database ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0");
	$server->sql(slurp_file("$directory/objects.sql"), dbname => $database);
}

sub crosstalk
{
	my ($name, $port, %option) = @_;
	my @command = (
		"$directory/crosstalk",
		'--host' => $server->host,
		'--port' => $port,
		'--databases' => join(',', @databases),
		'--roles' => 'crosstalk_one,crosstalk_two',
		'--superusers' => 'crosstalk_boss',
		'--max-pinned' => $max_pinned,
		'--timeout' => $SluiceTest::patience_s,
		map { ("--$_" => $option{$_}) } sort keys %option);
	my $output = '';
	IPC::Run::run(\@command, '<', \undef, '>&', \$output);
	my $status = $? >> 8;
	is($?, 0, "$name: every client gets the answers of its own session");
	$status == 0 ? note($output) : diag($output);
	my ($mean) = $output =~ /^mean backends per client: ([\d.]+)/m;
	return $mean || 0;
}

{
	# The long run is meant for the pool.
	local %ENV = %ENV;
	delete $ENV{CROSSTALK_TRANSACTIONS};
	my $mean = crosstalk('direct', $server->port, clients => 60, transactions => 1000);
	cmp_ok($mean, '==', 1, 'direct: each has a backend of its own');
}
{
	my $mean = crosstalk('pooled', $server->pool_port, clients => 300, transactions => 4000);
	cmp_ok($mean, '>', 1.5, 'pooled: clients move from backend to backend');
}

ok($server->wait_until('SELECT clients = 0 FROM sluice.status'), 'afterwards no client is stuck');
ok($server->wait_until("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'"), 'and no lock is left');

# That a client is gone in the middle of a transaction is what the test does.
(my $log = $server->log_since(0)) =~ s/unexpected EOF on client connection//g;
my @bad = grep { /PANIC|TRAP|terminated by signal|unexpected/ } split /\n/, $log;
is("@bad[0 .. ($#bad > 9 ? 9 : $#bad)]", '', 'nothing crashed');

$server->stop;
done_testing();
