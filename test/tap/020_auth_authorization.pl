# SPDX-License-Identifier: PostgreSQL
#
# What follows "who are you": roles that may not log in, databases that may not
# be entered, connection limits.  The pooled port says what the server's own says.

use strict;
use warnings;

use LoginProbe qw(login_outcome outcome);
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $me = scalar getpwuid($>);
my $server = SluiceTest->new('main');
my %direct = (host => $server->host, port => $server->port);
my %pooled = (host => $server->host, port => $server->pool_port);

$server->sql(<<'SQL');
CREATE ROLE plain LOGIN;
CREATE ROLE nologin;
CREATE ROLE expired LOGIN PASSWORD 'x' VALID UNTIL '2001-01-01';
CREATE ROLE team;
CREATE ROLE inner_team IN ROLE team;
CREATE ROLE member LOGIN IN ROLE team;
CREATE ROLE indirect LOGIN IN ROLE inner_team;
CREATE ROLE noinherit LOGIN NOINHERIT IN ROLE team;
CREATE ROLE boss LOGIN SUPERUSER;
CREATE ROLE owner LOGIN;
CREATE ROLE owners_friend LOGIN IN ROLE owner;
CREATE ROLE limited LOGIN CONNECTION LIMIT 2;
CREATE ROLE nobody LOGIN CONNECTION LIMIT 0;
CREATE ROLE limited_boss LOGIN SUPERUSER CONNECTION LIMIT 0;
CREATE DATABASE closed ALLOW_CONNECTIONS false;
CREATE DATABASE small CONNECTION LIMIT 1;
CREATE DATABASE private;
REVOKE CONNECT ON DATABASE private FROM public;
GRANT CONNECT ON DATABASE private TO team;
CREATE DATABASE owned OWNER owner;
REVOKE CONNECT ON DATABASE owned FROM public;
REVOKE CONNECT ON DATABASE owned FROM owner;
GRANT CONNECT ON DATABASE owned TO pg_database_owner;
CREATE DATABASE broken;
UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken';
SQL

sub same_outcome
{
	my ($expected, $user, $database, $when) = @_;
	my $name = "$user, database $database" . (defined $when ? ", $when" : '');
	my %login = (user => $user, dbname => $database);
	my $outcome = login_outcome(%direct, %login);
	like($outcome, qr/^asked : (FATAL )?$expected\b/, "$name: the direct port");
	is(login_outcome(%pooled, %login), $outcome, "$name: the pooled port says the same");
	return;
}

my %expected = (
	postgres => { nologin => '28000', no_such_role => '28000' },
	nodb => { map { $_ => '3D000' } 'plain', 'boss', 'nobody_known' },
	closed => { map { $_ => '55000' } 'plain', 'boss', 'member' },
	private => { map { $_ => '42501' } 'plain', 'noinherit', 'owner' },
	owned => { map { $_ => '42501' } 'plain', 'member' });
foreach my $database ('postgres', 'nodb', 'closed', 'private', 'owned')
{
	foreach my $user ('plain', 'nologin', 'expired', 'member', 'indirect', 'noinherit', 'boss', 'owner', 'owners_friend',
		'no_such_role')
	{
		my $result = $expected{$database}{$user};
		$result = '28000' if $user eq 'nologin' || $user eq 'no_such_role';
		$result = '3D000' if !defined $result && $database eq 'nodb';
		$result = '55000' if !defined $result && $database eq 'closed';
		$result = '42501' if !defined $result && $database eq 'private' && $user =~ /^(expired|owners_friend)$/;
		$result = '42501' if !defined $result && $database eq 'owned' && $user =~ /^(expired|indirect|noinherit)$/;
		same_outcome(defined $result ? $result : 'OK', $user, $database);
	}
}

# Minor versions differ in what they make of it.
foreach my $user ('plain', 'boss')
{
	is(
		login_outcome(%pooled, user => $user, dbname => 'broken'),
		login_outcome(%direct, user => $user, dbname => 'broken'),
		"$user, a database that was not dropped to the end");
}

# ---------------------------------------------------------------- changes count at once

$server->sql('REVOKE team FROM member');
same_outcome('42501', 'member', 'private', 'after leaving the group');
$server->sql('GRANT team TO member');
same_outcome('OK', 'member', 'private', 'after joining it again');
$server->sql('ALTER ROLE noinherit INHERIT');
same_outcome('OK', 'noinherit', 'private', 'now that it inherits');
$server->sql('ALTER ROLE plain NOLOGIN');
same_outcome('28000', 'plain', 'postgres', 'now that it may not log in');
$server->sql('ALTER ROLE plain LOGIN');
same_outcome('OK', 'plain', 'postgres', 'now that it may again');
$server->sql('ALTER ROLE boss NOSUPERUSER');
same_outcome('42501', 'boss', 'private', 'no longer a superuser');
$server->sql('ALTER ROLE boss SUPERUSER');
same_outcome('OK', 'boss', 'private', 'a superuser again');
$server->sql('ALTER DATABASE closed ALLOW_CONNECTIONS true');
same_outcome('OK', 'plain', 'closed', 'opened');
$server->sql('CREATE ROLE newcomer LOGIN');
same_outcome('OK', 'newcomer', 'postgres', 'just created');
$server->sql('DROP ROLE newcomer');
same_outcome('28000', 'newcomer', 'postgres', 'just dropped');
$server->sql('CREATE DATABASE fresh');
same_outcome('OK', 'plain', 'fresh', 'just created');
$server->sql('CREATE DATABASE former; ALTER DATABASE former RENAME TO present');
same_outcome('3D000', 'member', 'former', 'renamed');
same_outcome('OK', 'member', 'present', 'by its new name');
foreach my $catalog ('pg_authid', 'pg_database', 'pg_auth_members')
{
	$server->sql("VACUUM FULL $catalog");
	same_outcome('OK', 'indirect', 'private', "after VACUUM FULL $catalog");
}

# ---------------------------------------------------------------- connection limits

# Each port counts its own clients.
sub limit_holds
{
	my ($name, $limit, %login) = @_;
	my @refusals;
	foreach my $where (\%direct, \%pooled)
	{
		my @clients = map { RawClient->connect(%$where, %login) } 1 .. $limit;
		push @refusals, login_outcome(%$where, %login);
		$clients[0]->close if @clients;
		shift @clients;
		my $outcome = '';
		my $deadline = time() + $SluiceTest::patience_s;
		while ($limit > 0 && $outcome !~ /OK/ && time() < $deadline) { $outcome = login_outcome(%$where, %login) }
		like($outcome, qr/OK/, "$name: the next one may come in when one has left") if $limit > 0;
		is(scalar $_->sql('SELECT 1'), 1, "$name: those within the limit are served") foreach @clients;
		$_->close foreach @clients;
	}
	like($refusals[0], qr/FATAL 53300 too many connections for/, "$name: the direct port");
	is($refusals[1], $refusals[0], "$name: the pooled port says the same");
	return;
}
limit_holds('the limit of a role', 2, user => 'limited', dbname => 'postgres');
limit_holds('a role that may not connect', 0, user => 'nobody', dbname => 'postgres');
limit_holds('the limit of a database', 1, user => 'plain', dbname => 'small');
same_outcome('OK', 'limited_boss', 'postgres', 'a superuser knows no limit');
{
	my $first = RawClient->connect(%pooled, user => 'plain', dbname => 'small');
	is(login_outcome(%pooled, user => 'boss', dbname => 'small'), 'asked : OK', 'nor does it in a database');
	$first->close;
}

ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'nobody is left behind');
unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:/, 'nothing has crashed');
$server->stop;
done_testing();
