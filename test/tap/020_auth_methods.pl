# SPDX-License-Identifier: PostgreSQL
#
# Every authentication method, and every way to fail: the pooled port says what
# the server's own port says.

use strict;
use warnings;

use LoginProbe qw(login_outcome);
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $me = scalar getpwuid($>);
my $server = SluiceTest->new('main', tcp => 1, conf => "log_connections = on\n");
my $node = $server->node;

$server->sql(<<'SQL');
SET password_encryption = 'scram-sha-256';
CREATE ROLE s_ok LOGIN PASSWORD 'secret';
CREATE ROLE s_expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01';
CREATE ROLE s_future LOGIN PASSWORD 'secret' VALID UNTIL '2999-01-01';
CREATE ROLE s_nologin NOLOGIN PASSWORD 'secret';
CREATE ROLE s_nopassword LOGIN;
CREATE ROLE m_scram LOGIN PASSWORD 'secret';
CREATE ROLE m_nopassword LOGIN;
CREATE ROLE p_ok LOGIN PASSWORD 'secret';
CREATE ROLE p_expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01';
CREATE ROLE team;
CREATE ROLE g_member LOGIN PASSWORD 'secret' IN ROLE team;
CREATE ROLE g_stranger LOGIN PASSWORD 'secret';
CREATE ROLE t_ok LOGIN;
CREATE ROLE t_nologin;
CREATE ROLE rejected LOGIN;
CREATE ROLE unlisted LOGIN;
CREATE ROLE samename LOGIN;
CREATE ROLE mapped LOGIN;
CREATE ROLE unmapped LOGIN;
CREATE ROLE onlyssl LOGIN;
CREATE ROLE late LOGIN;
SET password_encryption = 'md5';
CREATE ROLE m_ok LOGIN PASSWORD 'secret';
CREATE ROLE m_expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01';
CREATE ROLE s_md5 LOGIN PASSWORD 'secret';
CREATE ROLE p_md5 LOGIN PASSWORD 'secret';
CREATE DATABASE peers;
CREATE DATABASE maps;
CREATE DATABASE idents;
CREATE DATABASE samename;
CREATE DATABASE "Quoted Db";
SQL

my $rules = <<"HBA";
local peers all peer
local maps all peer map=people
local idents all ident
local all all trust
host all s_ok,s_expired,s_future,s_nologin,s_nopassword,s_md5,s_unknown 127.0.0.1/32 scram-sha-256
host all m_ok,m_scram,m_expired,m_nopassword,m_unknown 127.0.0.1 255.255.255.255 md5
host all p_ok,p_md5,p_expired,p_unknown 127.0.0.1/32 password
host all +team samehost scram-sha-256
host all t_ok,t_nologin,t_unknown,$me samenet trust
host all rejected 127.0.0.1/32 reject
host sameuser samename 127.0.0.1/32 trust
host "Quoted Db" g_stranger 127.0.0.0/8 scram-sha-256
hostssl all onlyssl all trust
HBA

sub write_rules
{
	my ($text) = @_;
	my $path = $node->data_dir . '/pg_hba.conf';
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file;
	return;
}

# Both ports reread the files a moment after the signal.  The outcome as soon as it is as wanted, else the last one.
sub outcome_soon
{
	my ($wanted, %option) = @_;
	my $deadline = time() + $SluiceTest::patience_s;
	my $outcome;
	do
	{
		$outcome = login_outcome(%option);
		return $outcome if $outcome =~ $wanted;
		sleep 0.05;
	} while (time() < $deadline);
	return $outcome;
}

my %tcp = (host => '127.0.0.1', dbname => 'postgres');
my %direct = (port => $server->port);
my %pooled = (port => $server->pool_port);

append_to_file($node->data_dir . '/pg_ident.conf', "people /^(.)(.*)\$ mapped\npeople nobody_of_that_name unmapped\n");
write_rules($rules);
$node->reload;
foreach my $port (\%direct, \%pooled)
{
	like(outcome_soon(qr/pg_hba/, %tcp, %$port, user => 'rejected'), qr/pg_hba\.conf rejects/, "the rules are in force");
}

# ---------------------------------------------------------------- outcomes

sub same_outcome
{
	my ($name, $expected, %option) = @_;
	my $outcome = login_outcome(%option, %direct);
	like($outcome, $expected, "$name: the direct port");
	is(login_outcome(%option, %pooled), $outcome, "$name: the pooled port says the same");
	return;
}

# user, password, what is asked, SQLSTATE or OK
foreach my $case (
	[ 's_ok', 'secret', '10,11,12', 'OK' ],
	[ 's_ok', 'wrong', '10,11', '28P01' ],
	[ 's_future', 'secret', '10,11,12', 'OK' ],
	[ 's_expired', 'secret', '10,11', '28P01' ],
	[ 's_nologin', 'secret', '10,11,12', '28000' ],
	[ 's_nologin', 'wrong', '10,11', '28P01' ],
	[ 's_nopassword', 'secret', '10,11', '28P01' ],
	[ 's_md5', 'secret', '10,11', '28P01' ],
	[ 's_unknown', 'secret', '10,11', '28P01' ],
	[ 'm_ok', 'secret', '5', 'OK' ],
	[ 'm_ok', 'wrong', '5', '28P01' ],
	[ 'm_scram', 'secret', '10,11,12', 'OK' ],
	[ 'm_scram', 'wrong', '10,11', '28P01' ],
	[ 'm_expired', 'secret', '10,11', '28P01' ],
	[ 'm_nopassword', 'secret', '10,11', '28P01' ],
	[ 'm_unknown', 'secret', '10,11', '28P01' ],
	[ 'p_ok', 'secret', '3', 'OK' ],
	[ 'p_ok', 'wrong', '3', '28P01' ],
	[ 'p_md5', 'secret', '3', 'OK' ],
	[ 'p_md5', 'wrong', '3', '28P01' ],
	[ 'p_expired', 'secret', '3', '28P01' ],
	[ 'p_unknown', 'secret', '3', '28P01' ],
	[ 'g_member', 'secret', '10,11,12', 'OK' ],
	[ 'g_stranger', 'secret', '', '28000' ],
	[ 't_ok', undef, '', 'OK' ],
	[ 't_nologin', undef, '', '28000' ],
	[ 't_unknown', undef, '', '28000' ],
	[ $me, undef, '', 'OK' ],
	[ 'rejected', undef, '', '28000' ],
	[ 'unlisted', undef, '', '28000' ],
	[ 'no_such_role', undef, '', '28000' ],
	[ 'samename', undef, '', '28000' ],
	[ 'onlyssl', undef, '', '28000' ],
	[ '', undef, '', '28000' ])
{
	my ($user, $password, $asked, $result) = @$case;
	same_outcome(
		"$user, password " . (defined $password ? $password : 'none'),
		qr/^asked $asked: (FATAL )?$result\b/,
		%tcp,
		user => $user,
		password => $password);
}
same_outcome('sameuser', qr/OK/, %tcp, user => 'samename', dbname => 'samename');
same_outcome('a quoted database', qr/OK/, %tcp, user => 'g_stranger', dbname => 'Quoted Db', password => 'secret');
same_outcome('no database given', qr/OK/, %tcp, user => 'samename', dbname => undef);

# ---------------------------------------------------------------- what is wrong with the answer

my $initial = "n,,n=,r=abcdefghijklmnopqrstuvwx";
my %tampering = (
	'another message' => sub { RawClient::query('select 1') },
	'message type 0' => sub { RawClient::message("\0", 'x') },
	'no terminator' => sub { RawClient::message('p', 'abc') },
	'an empty password' => sub { RawClient::message('p', "\0") },
	'a NUL inside' => sub { RawClient::message('p', "ab\0c\0") },
	'an empty message' => sub { RawClient::message('p', '') });
my %sasl_tampering = (
	'an unknown mechanism' => sub { RawClient::message('p', "FOO\0" . pack('N', 0xffffffff)) },
	'a length past the end' => sub { RawClient::message('p', "SCRAM-SHA-256\0" . pack('N', 50) . 'x') },
	'a negative length' => sub { RawClient::message('p', "SCRAM-SHA-256\0" . pack('N', 0xfffffff9)) },
	'bytes behind the data' => sub { RawClient::message('p', "SCRAM-SHA-256\0" . pack('N', 1) . 'xyz') },
	'no data' => sub { RawClient::message('p', "SCRAM-SHA-256\0" . pack('N', 0)) },
	'garbage for data' => sub { RawClient::message('p', "SCRAM-SHA-256\0" . pack('N', 5) . 'hello') },
	'channel binding that was not offered' =>
	  sub { RawClient::message('p', "SCRAM-SHA-256-PLUS\0" . pack('N', length $initial) . $initial) },
	'garbage for a proof' => sub {
		my ($number, $type, $body) = @_;
		return RawClient::message($type, $number == 0 ? $body : 'hello');
	},
	'a short proof' => sub {
		my ($number, $type, $body) = @_;
		$body =~ s/,p=.*/,p=AAAA/s if $number == 1;
		return RawClient::message($type, $body);
	},
	'another nonce' => sub {
		my ($number, $type, $body) = @_;
		$body =~ s/,r=./,r=/ if $number == 1;
		return RawClient::message($type, $body);
	});
foreach my $user ('s_ok', 's_unknown', 'm_ok', 'p_ok', 'p_unknown')
{
	foreach my $name (sort keys %tampering)
	{
		same_outcome("$user, $name", qr/FATAL/, %tcp, user => $user, password => 'secret', tamper => $tampering{$name});
	}
}
foreach my $user ('s_ok', 's_unknown')
{
	foreach my $name (sort keys %sasl_tampering)
	{
		same_outcome("$user, $name", qr/FATAL/,
			%tcp, user => $user, password => 'secret', tamper => $sasl_tampering{$name});
	}
}

# A body longer than any answer can be is not even read.
my %oversized = (
	'a length below the minimum' => "p\0\0\0\3",
	'a negative length' => "p\xff\xff\xff\xff",
	'a long password' => 'p' . pack('N', 65536) . ('x' x 100));
foreach my $name (sort keys %oversized)
{
	my $offset = $server->log_size;
	is(login_outcome(%tcp, %pooled, user => 'p_ok', tamper => sub { $oversized{$name} }), 'asked 3: closed', $name);
	ok($server->wait_for_log(qr/invalid message length/, $offset), "$name: in the log");
}
my $offset = $server->log_size;
same_outcome('a long SASL response', qr/FATAL 28P01/, %tcp, user => 's_ok',
	tamper => sub { 'p' . pack('N', 1025) . ('x' x 100) });
ok($server->wait_for_log(qr/invalid message length/, $offset), 'a long SASL response: in the log');

# Roles that do not exist get the same salt each time, as those that do.
{
	my @salts;
	foreach (1 .. 2)
	{
		my $client = LoginProbe->open(%tcp, %pooled);
		$client->send_startup(user => 's_unknown', database => 'postgres');
		eval { $client->authenticate };
		my ($challenge) = grep { $_->{type} eq 'R' && unpack('N', $_->{body}) == 11 } @{ $client->{startup_messages} };
		push @salts, $challenge->{body} =~ /,s=([^,]+),i=/;
		$client->drop;
	}
	is($salts[0], $salts[1], 'a role that does not exist has a salt of its own');
	is(length $salts[0], 24, 'of the usual length');
}

# ---------------------------------------------------------------- the Unix socket

my %local = (host => $server->host);
foreach my $case (
	[ 'trust', $me, 'postgres', 'OK' ],
	[ 'trust for another role', 't_ok', 'postgres', 'OK' ],
	[ 'peer', $me, 'peers', 'OK' ],
	[ 'peer for another role', 't_ok', 'peers', '28000' ],
	[ 'peer for a role that does not exist', 'no_such_role', 'peers', '28000' ],
	[ 'ident, which is peer here', $me, 'idents', 'OK' ],
	[ 'ident for another role', 't_ok', 'idents', '28000' ],
	[ 'a user map', 'mapped', 'maps', 'OK' ],
	[ 'a user map that maps somebody else', 'unmapped', 'maps', '28000' ],
	[ 'a user map without the role', $me, 'maps', '28000' ])
{
	my ($name, $user, $database, $result) = @$case;
	same_outcome("$name on the Unix socket", qr/^asked : (FATAL )?$result\b/, %local, user => $user, dbname => $database);
}

# ---------------------------------------------------------------- through libpq

{
	local $ENV{PGPASSWORD} = 'secret';
	is($server->pool_sql('SELECT current_user', host => '127.0.0.1', user => 's_ok'), 's_ok', 'psql logs in with SCRAM');
	is($server->pool_sql('SELECT current_user', host => '127.0.0.1', user => 'm_ok'), 'm_ok', 'psql logs in with MD5');
	$ENV{PGPASSWORD} = 'wrong';
	my ($code, undef, $errors) = $server->pool_psql('SELECT 1', host => '127.0.0.1', user => 's_ok');
	is($code, 2, 'psql is refused');
	like($errors, qr/FATAL:  password authentication failed for user "s_ok"/, 'psql says why');
}

# ---------------------------------------------------------------- a change of the secret

$server->sql(q{SET password_encryption = 'scram-sha-256'; ALTER ROLE s_ok PASSWORD 'newer'});
same_outcome('the former password', qr/28P01/, %tcp, user => 's_ok', password => 'secret');
same_outcome('the new password', qr/OK/, %tcp, user => 's_ok', password => 'newer');
$server->sql(q{ALTER ROLE s_ok RENAME TO s_unknown});
same_outcome('a role that was renamed', qr/28P01/, %tcp, user => 's_ok', password => 'newer');
same_outcome('its new name', qr/OK/, %tcp, user => 's_unknown', password => 'newer');
$server->sql('REVOKE team FROM g_member');
same_outcome('a former member of a group', qr/28000/, %tcp, user => 'g_member', password => 'secret');

# ---------------------------------------------------------------- methods that wait for others

my %methods = (
	ident => 'ident',
	ldap => 'ldap ldapserver=localhost ldapprefix="x"',
	radius => 'radius radiusservers=127.0.0.1 radiussecrets=x',
	pam => 'pam',
	gss => 'gss');
my @known;
foreach my $method (sort keys %methods)
{
	write_rules("host all by_$method 127.0.0.1/32 $methods{$method}\n$rules");
	next if $server->sql('SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL AND line_number = 1') ne '0';
	push @known, $method;
	$server->sql("CREATE ROLE by_$method LOGIN");
}
cmp_ok(scalar @known, '>=', 2, "the server knows of such methods: @known");
write_rules(join('', map { "host all by_$_ 127.0.0.1/32 $methods{$_}\n" } @known) . $rules);
$node->reload;
my $direct_port = $server->port;
foreach my $method (@known)
{
	like(
		outcome_soon(qr/0A000/, %tcp, %pooled, user => "by_$method"),
		qr/^asked : FATAL 0A000 authentication method "$method" is not supported on the pooled port \| H=.*port $direct_port\b/,
		"$method is refused by name, with the port that serves it");
}

# ---------------------------------------------------------------- reload

same_outcome('before the rule', qr/28000 no pg_hba/, %tcp, user => 'late');
write_rules("host all late 127.0.0.1/32 trust\n$rules");
$node->reload;
foreach my $port (\%direct, \%pooled)
{
	like(outcome_soon(qr/OK/, %tcp, %$port, user => 'late'), qr/OK/, 'a new rule holds for the next login');
}

# A file with an error in it changes nothing, however good the rest is.
$offset = $server->log_size;
write_rules("host all late 127.0.0.1/32 reject\n${rules}host all all no such thing\n");
$node->reload;
ok($server->wait_for_log(qr/the pooled port keeps its former rules/, $offset), 'a broken pg_hba.conf is in the log');
same_outcome('a broken pg_hba.conf', qr/OK/, %tcp, user => 'late');
write_rules("host all late 127.0.0.1/32 reject\n$rules");
$node->reload;
foreach my $port (\%direct, \%pooled)
{
	like(outcome_soon(qr/28000/, %tcp, %$port, user => 'late'), qr/rejects/, 'the mended file holds');
}

$server->wait_until('SELECT count(*) = 0 FROM sluice.clients');
is($server->sql('SELECT clients, unauthenticated FROM sluice.status'), '0|0', 'nobody is left behind');
is($server->sql(q{SELECT authentication_failures > 20 FROM sluice.status}), 't', 'failures were counted');
$server->stop;
done_testing();
