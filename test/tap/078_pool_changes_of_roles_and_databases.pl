# SPDX-License-Identifier: PostgreSQL
#
# A role or a database is changed or dropped while sessions use it: the same dialogue on the direct and on the pooled
# port, with a session that is idle, one inside a transaction, and one that comes afterwards.  Then what only a pool
# knows: an established client that needs a backend which the server refuses, new names in the views, slots of pools
# that nobody can come back to.

use strict;
use warnings;

use PoolTest;
use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', start => 0, conf => <<'CONF');
sluice.max_pool_size = 3
CONF
{
	my $rules = $server->node->data_dir . '/pg_hba.conf';
	my $rest = PostgreSQL::Test::Utils::slurp_file($rules);
	open my $file, '>', $rules or die "$rules: $!";
	print $file "local all secret scram-sha-256\n$rest";
	close $file;
}
$server->start;
$server->sql('CREATE EXTENSION pg_sluice');

sub words
{
	my ($answer) = @_;
	return $answer unless ref $answer;
	my $words = join ' | ', map { defined $_ ? $_ : '-' } @$answer{ 'S', 'C', 'M', 'H' };
	$words =~ s/(OID:?) \d+/$1 (some)/;
	return $words;
}

sub says
{
	my ($client, @queries) = @_;
	my @said;
	foreach my $query (@queries)
	{
		ask($client, $query);
		my $answer = outcome($client);
		push @said, "$query: " . words($answer);
		last if ref $answer && ($answer->{S} || '') ne 'ERROR';
	}
	return @said;
}

sub logs_in
{
	my ($port, %option) = @_;
	my $client = RawClient->try_connect(
		host => $server->host,
		port => $port eq 'direct' ? $server->port : $server->pool_port,
		%option);
	return words($client->error) if defined $client->error;
	$client->close;
	return 'may log in';
}

sub connected
{
	my ($port, %option) = @_;
	return $port eq 'direct' ? $server->raw(%option) : $server->pool_raw(%option);
}

my @questions = ('SELECT 1', 'SELECT current_user', 'SELECT session_user', 'SELECT current_database()',
	"SELECT pg_has_role(session_user, 'pg_monitor', 'member')", 'SHOW is_superuser');

my %setup = (
	role => [ 'CREATE ROLE app LOGIN' ],
	password => [ "CREATE ROLE secret LOGIN PASSWORD 'old'" ],
	database => [ 'CREATE DATABASE place', 'CREATE ROLE app LOGIN', 'REVOKE CONNECT ON DATABASE place FROM public',
		'GRANT CONNECT ON DATABASE place TO app' ]);

# From 17 on a worker can start for a role that may not log in.
my $nologin = $server->sql('SHOW server_version_num') >= 170000 ? 'goes on' : 'refused';

# What is done to the role or the database.  `left`: what becomes of an established pooled client that needs a new
# backend: "refused" as a new login would be, or "goes on" as it would directly.
my @changes = (
	{ change => 'ALTER ROLE app NOLOGIN', of => 'role', left => $nologin },
	{ change => 'DROP ROLE app', of => 'role', left => 'refused' },
	{ change => 'ALTER ROLE app RENAME TO application', of => 'role', left => 'goes on', undo => 'DROP ROLE application' },
	{ change => 'ALTER ROLE app SUPERUSER', of => 'role', left => 'goes on' },
	{ change => 'GRANT pg_monitor TO app', of => 'role', left => 'goes on' },
	{ change => "ALTER ROLE app VALID UNTIL '2001-01-01'", of => 'role', left => 'goes on' },
	{ change => "ALTER ROLE secret PASSWORD 'new'", of => 'password', left => 'goes on' },
	{ change => 'ALTER ROLE secret PASSWORD NULL', of => 'password', left => 'goes on' },
	{ change => "ALTER ROLE secret VALID UNTIL '2001-01-01'", of => 'password', left => 'goes on' },
	{ change => 'ALTER ROLE secret NOLOGIN', of => 'password', left => $nologin },
	{ change => 'REVOKE CONNECT ON DATABASE place FROM app', of => 'database', left => 'goes on' },
	{ change => 'ALTER DATABASE place ALLOW_CONNECTIONS false', of => 'database', left => 'goes on' },
	{ change => 'ALTER DATABASE place OWNER TO app', of => 'database', left => 'goes on' },
	{ change => 'ALTER DATABASE place RENAME TO spot', of => 'database', left => 'goes on' },
	{ change => 'ALTER DATABASE place SET TABLESPACE pg_default', of => 'database', left => 'goes on' },
	{ change => 'CREATE DATABASE copy TEMPLATE place', of => 'database', left => 'goes on' },
	{ change => 'DROP DATABASE place', of => 'database', left => 'goes on' });

sub session_of
{
	my ($case) = @_;
	return (user => 'app', dbname => 'place') if $case->{of} eq 'database';
	return (user => 'secret', dbname => 'postgres', password => 'old') if $case->{of} eq 'password';
	return (user => 'app', dbname => 'postgres');
}

sub undo
{
	my ($case) = @_;
	$server->sql($_) foreach $case->{undo} || (), 'DROP DATABASE IF EXISTS place', 'DROP ROLE IF EXISTS app', 'DROP ROLE IF EXISTS secret';
	return;
}

sub play
{
	my ($port, $case) = @_;
	my %session = session_of($case);
	$server->sql($_) foreach @{ $setup{ $case->{of} } };
	my ($idle, $settled, $inside) = map { connected($port, %session) } 1 .. 3;
	# The first holds a backend, so the others have one of their own.
	$inside->sql('BEGIN');
	$inside->sql('SELECT 1');
	$idle->sql('SELECT 1');
	$settled->sql('SELECT 1') foreach 1 .. 3;

	my $admin = $server->raw;
	ask($admin, $case->{change});
	my $answer = outcome($admin);
	$admin->close;
	my @played = ('the change: ' . (defined $answer ? words($answer) : 'done'));
	push @played, map { "idle: $_" } says($idle, @questions);
	push @played, map { "settled: $_" } says($settled, @questions);
	push @played, map { "inside: $_" } says($inside, @questions, 'COMMIT', @questions);
	push @played, 'afterwards: ' . logs_in($port, %session);
	push @played, 'with the new password: ' . logs_in($port, %session, password => 'new') if $case->{of} eq 'password';
	if ($port eq 'pooled')
	{
		# Established, and no backend left.  A greeting needs one, so the role's own answer is the server's.
		$_->close foreach $settled, $inside;
		$server->sql("SELECT sluice.retire_backends(NULL, role) FROM sluice.backends");
		ok($server->wait_until('SELECT count(*) = 0 FROM sluice.backends'), "$case->{change}: all backends have left");
		my ($left) = says($idle, 'SELECT 1');
		my ($login) = map { /^afterwards: (.*)/ ? $1 : () } @played;
		is($left, $case->{left} eq 'refused' ? "SELECT 1: $login" : 'SELECT 1: 1',
			"$case->{change}: an established client that needs a new backend " . ($case->{left} eq 'refused' ? 'is refused like a new one' : 'goes on'));
		ok($case->{left} ne 'refused' || $idle->at_end_of_stream, "$case->{change}: and disconnected if it is");
		$idle->close;
	}
	else
	{
		$_->close foreach $idle, $settled, $inside;
	}
	undo($case);
	return \@played;
}

foreach my $case (@changes)
{
	my $direct = play('direct', $case);
	my $pooled = play('pooled', $case);
	is_deeply($pooled, $direct, "$case->{change}: sessions and logins as on the direct port") or diag(explain($pooled, $direct));
	note("$case->{change}\n  ", join "\n  ", @$direct);
}
ok($server->wait_until("SELECT count(*) = 0 FROM sluice.pools WHERE role IN ('app', 'application', 'secret') OR database = 'place'"),
	'the pools of roles and databases that are gone are released');

# --- new names
{
	$server->sql($_) foreach 'CREATE ROLE app LOGIN', 'CREATE DATABASE place';
	my $client = $server->pool_raw(user => 'app');
	$client->sql('SELECT 1');
	my $created = pool($server, 'created_at', user => 'app');
	$server->sql('ALTER ROLE app RENAME TO application');
	ok($server->wait_until("SELECT count(*) = 1 FROM sluice.clients WHERE role = 'application'"), 'a new name of a role shows');
	is($server->pool_sql('SELECT current_user', user => 'application'), 'application', 'it can log in under its new name');
	is($server->sql("SELECT count(*) FROM sluice.pools WHERE role IN ('app', 'application')"), '1', 'into the pool there is');
	$server->sql('CREATE ROLE app LOGIN');
	is($server->pool_sql('SELECT current_user', user => 'app'), 'app', 'another role may have the former name');
	is($client->sql('SELECT current_user'), 'application', 'and nobody mistakes the one for the other');
	$client->close;

	$server->pool_sql('SELECT 1', dbname => 'place');
	ok(until_pool($server, 'clients = 0', dbname => 'place'), 'a database without clients');
	$server->sql('ALTER DATABASE place RENAME TO spot');
	ok($server->wait_until("SELECT count(*) = 1 FROM sluice.pools WHERE database = 'spot'"), 'a new name of a database shows');
	is($server->sql("SELECT count(*) FROM sluice.pools WHERE database = 'place'"), '0', 'in the place of the former one');
	$server->sql($_) foreach 'DROP DATABASE spot', 'DROP ROLE app', 'DROP ROLE application';
}
$server->stop;

# --- more databases than there may be pools
{
	my $small = SluiceTest->new('small', conf => "sluice.max_pools = 3\n");
	my @names = map { "d$_" } 1 .. 8;
	$small->sql("CREATE DATABASE $_") foreach @names;
	foreach my $round (1, 2)
	{
		is($small->pool_sql('SELECT current_database()', dbname => $_), $_, "database $_ is served") foreach @names;
	}
	ok($small->wait_until('SELECT count(*) <= 3 FROM sluice.pools'), 'by three pools at a time');

	my @clients = map { $small->pool_raw(dbname => $_) } @names[ 0 .. 2 ];
	$_->sql('SELECT 1') foreach @clients;
	my (undef, undef, $errors) = $small->pool_psql('SELECT 1', dbname => 'd4');
	like($errors, qr/FATAL:  too many pools: database "d4"/, 'while all have clients there is no other');
	$_->sql('SELECT 2') foreach @clients;
	$_->close foreach @clients;
	ok($small->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'when these have left');

	# All at once: each new pool has to wait until another has been left by its backends.
	@clients = map { begin_connect($small, dbname => $_) } @names[ 3 .. 5 ];
	foreach my $client (@clients)
	{
		$client->authenticate;
		is($client->error, undef, 'a pool is given to those who wait for one');
	}
	is(join(' ', map { scalar $_->sql('SELECT current_database()') } @clients), 'd4 d5 d6', 'and serves them');
	my $late = begin_connect($small, dbname => 'd7');
	$late->authenticate;
	is(words($late->error), 'FATAL | 53400 | too many pools: database "d7" and role "' . own_name() . '" would need another one | '
		  . 'You may need to increase "sluice.max_pools".', 'no more than there are');
	$_->close foreach @clients;

	# What has been dropped makes room by itself.
	ok($small->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'all have left');
	$small->sql("DROP DATABASE $_") foreach @names;
	ok($small->wait_until('SELECT count(*) = 0 FROM sluice.pools'), 'no pool is left of databases that are gone');
	is($small->pool_sql('SELECT 1'), '1', 'the others are served');
	$small->stop;
}
done_testing();
