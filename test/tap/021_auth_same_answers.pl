# SPDX-License-Identifier: PostgreSQL
#
# Roles by databases by methods by inputs: whatever a client says, both ports of the server answer with the same
# messages, and write the same to the log.

use strict;
use warnings;

use LoginProbe;
use PostgreSQL::Test::Utils;
use RawClient;
use SameAnswers;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $me = scalar getpwuid($>);
my $has_ipv6 = -e '/proc/net/if_inet6' && slurp_file('/proc/net/if_inet6') =~ /^0{31}1 /m;
my $server = SluiceTest->new('main', conf => SameAnswers::conf() . <<"CONF");
listen_addresses = '@{[ $has_ipv6 ? '127.0.0.1, ::1' : '127.0.0.1' ]}'
sluice.max_pools = 400
sluice.idle_timeout = 1s
CONF
my $node = $server->node;
my $version = $node->pg_version->major;
my $direct_port = $server->port;

# ---------------------------------------------------------------- what differs, and why

# An entry answers with what the pooled port shall say, or with nothing where it does not apply.
my %refused = map { $_ => 1 } qw(ident ldap pam radius gss);
my @by_design = (
	{
		name => 'methods',
		reason => 'the method is served by the server\'s own port only',
		pooled => sub {
			my ($direct, $pooled, %login) = @_;
			return unless defined $login{method} && $refused{ $login{method} };
			return {
				messages => [
					"ErrorResponse C=0A000; H=Connect to port $direct_port, where the server itself authenticates.; "
					  . "M=authentication method \"$login{method}\" is not supported on the pooled port; S=FATAL; V=FATAL",
					'EOF'
				],
				log => [
					(grep { /connection received/ } @{ $direct->{log} }),
					"0A000 $login{user}|postgres|$login{from} FATAL:  "
					  . "authentication method \"$login{method}\" is not supported on the pooled port",
					# The rule is the one that the direct port has found, too.
					(grep { / DETAIL:  Connection matched .*\Q$login{from}\E\/32 $login{method}/s } @{ $pooled->{log} }),
					"0A000 $login{user}|postgres|$login{from} HINT:  "
					  . "Connect to port $direct_port, where the server itself authenticates."
				]
			};
		}
	},
	{
		name => 'replication',
		reason => 'a pool has nothing to offer to a replica',
		pooled => sub {
			my ($direct, $pooled, %login) = @_;
			return unless $login{parameters} && ($login{parameters}{replication} || '') =~ /^(on|true|database|1)$/;
			return $pooled->{outcome} =~ /^asked : FATAL 0A000 replication connections are not supported/ ? $pooled : $direct;
		}
	},
	{
		name => 'half-closed',
		reason => 'a client that sends no more is taken for one that has gone',
		pooled => sub {
			my ($direct, $pooled, %login) = @_;
			return unless defined $login{hang_up} && $direct->{outcome} =~ /: OK$/;
			# However far the answer had come.
			my @told = @{ $pooled->{messages} };
			pop @told if @told && $told[-1] eq 'EOF';
			my @expected = @{ $direct->{messages} }[ 0 .. $#told ];
			return { %$direct, messages => [ @expected, @told < @{ $direct->{messages} } ? 'EOF' : () ] };
		}
	});
my $answers = SameAnswers->new($server, { by_design => \@by_design });

# ---------------------------------------------------------------- roles and databases

# Names that somebody might mistake for something else.
my $long = 'l' x 63;
my %odd_names = (
	'of 63 bytes' => $long,
	'with quotes' => q{o'ne "two"},
	'with spaces' => ' a role ',
	'in upper case' => 'UPPER',
	'in UTF-8' => "Zo\xc3\xab \xe6\x97\xa5\xe6\x9c\xac",
	'that is the keyword all' => 'all',
	'that is the keyword replication' => 'replication',
	'that is the keyword sameuser' => 'sameuser',
	'that looks like a group' => '+team',
	'that looks like an expression' => '/^s_',
	'that looks like a file' => '@list',
	'with a comma' => 'a,b',
	'with a backslash' => 'a\\b',
	'with a line feed' => "a\nb",
	'with conversions' => '%s%n%d',
	'with an equals sign' => 'user=x');

sub identifier { my ($name) = @_; $name =~ s/"/""/g; return "\"$name\"" }

$server->sql(<<'SQL');
SET password_encryption = 'scram-sha-256';
CREATE ROLE team;
CREATE ROLE inner_team IN ROLE team;
CREATE ROLE s_ok LOGIN PASSWORD 'secret';
CREATE ROLE s_other LOGIN PASSWORD 'secret';
CREATE ROLE s_member LOGIN PASSWORD 'secret' IN ROLE inner_team;
CREATE ROLE s_boss LOGIN SUPERUSER PASSWORD 'secret';
CREATE ROLE s_boss_limit0 LOGIN SUPERUSER CONNECTION LIMIT 0 PASSWORD 'secret';
CREATE ROLE s_nologin NOLOGIN PASSWORD 'secret';
CREATE ROLE s_expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01';
CREATE ROLE s_never LOGIN PASSWORD 'secret' VALID UNTIL '-infinity';
CREATE ROLE s_always LOGIN PASSWORD 'secret' VALID UNTIL 'infinity';
CREATE ROLE s_limit0 LOGIN CONNECTION LIMIT 0 PASSWORD 'secret';
CREATE ROLE s_limit1 LOGIN CONNECTION LIMIT 1 PASSWORD 'secret';
CREATE ROLE n_ok LOGIN;
CREATE ROLE n_nologin NOLOGIN;
CREATE ROLE s_replicator LOGIN REPLICATION PASSWORD 'secret';
SET password_encryption = 'md5';
CREATE ROLE m_ok LOGIN PASSWORD 'secret';
CREATE ROLE m_expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01';
CREATE ROLE m_nologin NOLOGIN PASSWORD 'secret';
CREATE ROLE m_limit0 LOGIN CONNECTION LIMIT 0 PASSWORD 'secret';
SQL
foreach my $name (values %odd_names) { $server->sql('CREATE ROLE ' . identifier($name) . q{ LOGIN PASSWORD 'secret'}) }
my @databases = ('closed', 'limited0', 'small', 'private', 'UPPER Db', $long, 's_ok', 'team', 'all', q{d'b "x"});
$server->sql('CREATE DATABASE ' . identifier($_)) foreach @databases;
$server->sql(<<'SQL');
ALTER DATABASE closed ALLOW_CONNECTIONS false;
ALTER DATABASE limited0 CONNECTION LIMIT 0;
ALTER DATABASE small CONNECTION LIMIT 1;
REVOKE CONNECT ON DATABASE private FROM public;
GRANT CONNECT ON DATABASE private TO team;
SQL

# ---------------------------------------------------------------- rules

# Clients come from addresses of their own, so that one file holds all methods.
my $data = $node->data_dir;
my $rules = <<"HBA";
local all $me trust
local peers all peer
local idents all ident
local maps all peer map=people
local "maps 2" all peer map=nobody
local expressions all peer map=expressions
local references all peer map=references
local badreference all peer map=badreference
local secrets all scram-sha-256
local rejected all reject
local postgres all trust
host all all 127.0.1.1/32 trust
host all all 127.0.1.2/32 reject
host all all 127.0.1.3/32 password
host all all 127.0.1.4/32 md5
host all all 127.0.1.5/32 scram-sha-256
host all all 127.0.1.6/32 ident
host all all 127.0.1.7/32 ldap ldapserver=127.0.0.1 ldapport=1 ldapprefix="cn=" ldapsuffix=",dc=x"
host all all 127.0.1.8/32 pam pamservice=no_such_service
host all all 127.0.1.9/32 radius radiusservers=127.0.0.1 radiussecrets=x radiusports=1
host all all 127.0.1.10/32 gss
hostssl all all 127.0.1.11/32 cert
hostssl all all 127.0.1.12/32 trust clientcert=verify-full
hostssl all all 127.0.1.13/32 reject
hostnossl all all 127.0.1.13/32 scram-sha-256
hostgssenc all all 127.0.1.14/32 trust
hostgssenc all all 127.0.1.15/32 reject
hostnogssenc all all 127.0.1.15/32 trust
host all all 127.0.2.0/30 trust
host all all 127.0.2.8 255.255.255.252 trust
host "all" all 127.0.3.1/32 trust
host all "all" 127.0.3.2/32 trust
host all +team 127.0.3.3/32 trust
host all "+team" 127.0.3.4/32 trust
host sameuser all 127.0.3.5/32 trust
host samerole all 127.0.3.6/32 trust
host samegroup all 127.0.3.7/32 trust
host replication all 127.0.3.8/32 trust
host "replication","sameuser","UPPER Db" all 127.0.3.9/32 trust
host all \@lists/roles 127.0.3.10/32 trust
host \@lists/databases all 127.0.3.11/32 trust
host all "UPPER","o'ne ""two""",$long 127.0.3.12/32 trust
host all s_ok,team,unknown 127.0.3.13/32 trust
host all +s_ok,+nobody_known 127.0.3.14/32 trust
host "$long" all 127.0.3.16/32 trust
host all +all,+"all" 127.0.3.17/32 trust
host all samehost_role samehost trust
host all samenet_role samenet trust
HBA
$rules .= <<"HBA" if $has_ipv6;
host all s_ok ::1/128 scram-sha-256
host all n_ok ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust
host all m_ok ::/0 md5
host all s_other ::ffff:127.0.0.1/128 trust
host all s_member all reject
HBA
$rules .= <<"HBA" if $version >= 16;
host all /^s_ 127.0.3.20/32 trust
host all "/^s_" 127.0.3.21/32 trust
host /^s_ok\$ all 127.0.3.22/32 trust
include lists/more
include_if_exists lists/no_such_file
HBA
my $more = "host all all 127.0.3.23/32 reject\n";
my $maps = <<"MAPS";
people $me s_ok
people nobody_of_that_name s_other
expressions /^(.)(.*)\$ s_ok
expressions /^no_such_user\$ s_other
references /^(.*)\$ \\1
references /^(..).*\$ s_\\1
references /^(.)(.*)\$ "a,b"
badreference /^.*\$ \\1_x
badreference $me s_ok
MAPS
$maps .= "people16 $me all\npeople16b $me +team\npeople16c $me /^s_\n" if $version >= 16;
$rules = "local people16 all peer map=people16\nlocal people16b all peer map=people16b\n"
  . "local people16c all peer map=people16c\n$rules"
  if $version >= 16;

sub write_file
{
	my ($path, $text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file;
	return;
}

# Both ports reread the files a moment after the signal: until a client from the marker's address is treated as wanted.
sub load_rules
{
	my ($text, $wanted) = @_;
	write_file("$data/pg_hba.conf", "host marker all 127.9.9.9/32 $wanted\n$text");
	$node->reload;
	my $expected = $wanted eq 'reject' ? qr/rejects/ : qr/: (OK|FATAL 3D000)/;
	foreach my $port ($server->port, $server->pool_port)
	{
		my $deadline = time() + $SluiceTest::patience_s;
		my $outcome = '';
		while ($outcome !~ $expected && time() < $deadline)
		{
			$outcome = $answers->attempt($port, from => '127.9.9.9', user => $me, dbname => 'marker')->{outcome};
			sleep 0.02;
		}
		like($outcome, $expected, "the rules are in force on port $port") or die 'nothing can be compared';
	}
	return;
}

mkdir "$data/lists" or die;
write_file("$data/lists/roles", "s_ok, \"UPPER\" # and others\n\@more_roles\n");
write_file("$data/lists/more_roles", "n_ok\n+team\n");
write_file("$data/lists/databases", "\"UPPER Db\"\nteam,sameuser\n");
write_file("$data/lists/more", $more);
write_file("$data/pg_ident.conf", $maps);
load_rules($rules, 'reject');

my @methods = (
	[ 'trust', '127.0.1.1' ], [ 'reject', '127.0.1.2' ], [ 'password', '127.0.1.3' ], [ 'md5', '127.0.1.4' ],
	[ 'scram-sha-256', '127.0.1.5' ]);
my %address_of = map { $_->[0] => $_->[1] } @methods;
my %postgres = (dbname => 'postgres');

# ---------------------------------------------------------------- roles by methods

my @roles = (
	$me, 's_ok', 's_member', 's_boss', 's_boss_limit0', 's_nologin', 's_expired', 's_never', 's_always', 's_limit0', 'n_ok',
	'n_nologin', 'm_ok', 'm_expired', 'm_nologin', 'm_limit0', 'team', 'unknown', 'S_OK', 'pg_monitor',
	'pg_database_owner', 'public');
my %title = map { $_ => $_ } @roles;
$title{ $odd_names{$_} } = "a name $_" foreach keys %odd_names;
$title{ $long . 'more' } = 'a name of 67 bytes';
$title{ 'x' x 5000 } = 'a name of 5000 bytes';
$title{"\xff\xfe"} = 'a name that is not in UTF-8';
$title{''} = 'an empty name';
foreach my $role (sort keys %title)
{
	foreach my $method (@methods)
	{
		my @passwords = $method->[0] =~ /^(trust|reject)$/ ? (undef) : ('secret', 'wrong');
		foreach my $password (@passwords)
		{
			my $what = defined $password ? ", password $password" : '';
			$answers->same(
				"$title{$role}, $method->[0]$what", %postgres,
				from => $method->[1],
				user => $role,
				password => $password);
		}
	}
}

# ---------------------------------------------------------------- roles by databases

my %database_title = map { $_ => "database $_" } 'unknown', 'template0', 'template1', @databases;
$database_title{$long} = 'a database with a name of 63 bytes';
$database_title{ $long . 'more' } = 'a database with a name of 67 bytes';
$database_title{''} = 'an empty database';
foreach my $database (sort keys %database_title)
{
	foreach my $role (
		's_ok', 's_member', 's_boss', 's_boss_limit0', 's_limit0', 's_nologin', 'team', 'unknown', 'all', $long, $long . 'more')
	{
		$answers->same("$title{$role}, $database_title{$database}",
			from => $address_of{trust}, user => $role, dbname => $database);
	}
}
$answers->same("$_, no database", from => $address_of{trust}, user => $_) foreach 's_ok', 'team', 'unknown', 's_other', 'all';

# ---------------------------------------------------------------- databases by methods

foreach my $database ('unknown', 'closed', 'template0', 'limited0', 'private', 'small')
{
	foreach my $method ('password', 'md5', 'scram-sha-256')
	{
		foreach my $password ('secret', 'wrong')
		{
			$answers->same("$database, $method, password $password",
				from => $address_of{$method}, user => 's_ok', dbname => $database, password => $password);
		}
	}
}

# ---------------------------------------------------------------- matching

foreach my $case (
	[ '127.0.1.11', 'cert without TLS', 's_ok' ],
	[ '127.0.1.12', 'verify-full without TLS', 's_ok' ],
	[ '127.0.1.13', 'hostnossl', 's_ok' ],
	[ '127.0.1.14', 'hostgssenc', 's_ok' ],
	[ '127.0.1.15', 'hostnogssenc', 's_ok', 'unknown' ],
	[ '127.0.9.9', 'no rule', 's_ok', 'unknown', $long ],
	[ '127.0.2.0', 'the first of a range', 's_ok' ],
	[ '127.0.2.3', 'the last of a range', 's_ok' ],
	[ '127.0.2.4', 'behind a range', 's_ok' ],
	[ '127.0.2.7', 'before a range with a mask', 's_ok' ],
	[ '127.0.2.8', 'the first of a range with a mask', 's_ok' ],
	[ '127.0.2.11', 'the last of a range with a mask', 's_ok' ],
	[ '127.0.2.12', 'behind a range with a mask', 's_ok' ],
	[ '127.0.3.2', 'the role "all"', 's_ok', 'all' ],
	[ '127.0.3.3', 'members of a group', 's_ok', 's_member', 's_boss', 'team', 'inner_team', 'unknown', '+team' ],
	[ '127.0.3.4', 'the role "+team"', 's_member', '+team', 'team' ],
	[ '127.0.3.10', 'roles of a file', 's_ok', 'UPPER', 'upper', 'n_ok', 's_member', 's_other', '@list' ],
	[ '127.0.3.12', 'quoted roles', 'UPPER', 'upper', q{o'ne "two"}, $long, $long . 'more', 's_ok' ],
	[ '127.0.3.13', 'roles that may not log in, or do not exist', 's_ok', 'team', 'unknown', 's_member' ],
	[ '127.0.3.14', 'a role as its own group', 's_ok', 's_other' ],
	[ '127.0.3.17', 'a group named all', 's_ok', 'all', 's_boss' ],
	[ '127.0.0.1', 'samehost', 'samehost_role', 's_ok' ],
	[ '127.0.0.2', 'not samehost', 'samehost_role' ],
	[ '127.0.0.3', 'samenet', 'samenet_role' ],
	[ '127.0.3.20', 'an expression', 's_ok', 'n_ok', '/^s_' ],
	[ '127.0.3.21', 'a quoted expression', 's_ok', '/^s_' ],
	[ '127.0.3.23', 'an included file', 's_ok' ])
{
	my ($from, $name, @users) = @$case;
	$answers->same("$name: $title{$_}", %postgres, from => $from, user => $_, password => 'secret')
	  foreach map { $title{$_} = $_ unless defined $title{$_}; $_ } @users;
}
foreach my $case (
	[ '127.0.3.1', 'the database "all"', 'all', 'postgres' ],
	[ '127.0.3.5', 'sameuser', 's_ok', 'postgres', 'team' ],
	[ '127.0.3.6', 'samerole', 's_ok', 'team', 'postgres', 'all' ],
	[ '127.0.3.7', 'samegroup', 's_ok', 'team', 'postgres' ],
	[ '127.0.3.8', 'replication', 'postgres', 'replication' ],
	[ '127.0.3.9', 'quoted keywords', 'replication', 'sameuser', 's_ok', 'UPPER Db', 'upper db' ],
	[ '127.0.3.11', 'databases of a file', 'UPPER Db', 'team', 's_ok', 'postgres' ],
	[ '127.0.3.16', 'a long name', $long, $long . 'more', substr($long, 1) ],
	[ '127.0.3.22', 'an expression', 's_ok', 's_okay', 'postgres' ])
{
	my ($from, $name, @names) = @$case;
	foreach my $database (@names)
	{
		$answers->same("$name: $_ and database $database", from => $from, user => $_, dbname => $database)
		  foreach 's_ok', 's_member', 's_boss', 'unknown', 'all';
	}
}

SKIP:
{
	skip 'there is no IPv6 here', 1 unless $has_ipv6;
	foreach my $role ('s_ok', 'n_ok', 'm_ok', 's_other', 's_member', 'unknown')
	{
		$answers->same("IPv6: $role", %postgres, host => '::1', user => $role, password => 'secret');
	}
}

# ---------------------------------------------------------------- the Unix socket

my %local = (host => $server->host);
foreach my $database (
	'peers', 'idents', 'maps', 'maps 2', 'expressions', 'references', 'badreference', 'secrets', 'rejected', 'postgres',
	'unlisted', 'people16', 'people16b', 'people16c')
{
	foreach my $role ('s_ok', 's_other', 's_member', 'n_ok', 'all', 'a,b', 's_' . substr($me, 0, 2), $me, 'unknown', 'team')
	{
		$answers->same("Unix socket: $role, database $database",
			%local, user => $role, dbname => $database, password => 'secret');
	}
}

# ---------------------------------------------------------------- what only the server's own port serves

# Whatever comes of it there, nobody can do for them; the parser of this build decides which there are.
my $known = $server->sql(
	q{SELECT coalesce(string_agg(DISTINCT auth_method, ' '), '') FROM pg_hba_file_rules WHERE error IS NULL});
my $refusals = 0;
foreach my $case (
	[ 'ident', '127.0.1.6' ], [ 'ldap', '127.0.1.7' ], [ 'pam', '127.0.1.8' ], [ 'radius', '127.0.1.9' ],
	[ 'gss', '127.0.1.10' ])
{
	my ($method, $from) = @$case;
	next unless $known =~ /\b$method\b/;
	$refusals++;
	$answers->same("$method: $_", %postgres, from => $from, user => $_, password => 'wrong', method => $method)
	  foreach 's_ok', 'unknown';
}
cmp_ok($refusals, '>=', 2, "this server knows of such methods: $known");

# ---------------------------------------------------------------- inputs

sub p { return RawClient::message('p', $_[0]) }
sub sasl { my ($mechanism, $data) = @_; return p("$mechanism\0" . pack('N', length $data) . $data) }

my %any_input = (
	'an empty password' => sub { p("\0") },
	'an empty message' => sub { p('') },
	'no terminator' => sub { p('abc') },
	'a NUL inside' => sub { p("ab\0c\0") },
	'a long password' => sub { p(('x' x 1000) . "\0") },
	'the longest password' => sub { p(('x' x 65530) . "\0") },
	'a password too long' => sub { 'p' . pack('N', 65536) . 'x' x 65532 },
	'a message of a gigabyte' => sub { 'p' . pack('N', 0x3fffffff) . 'x' },
	'a negative length' => sub { 'p' . pack('N', 0xffffffff) },
	'a length below the minimum' => sub { 'p' . pack('N', 3) },
	'a length of 0' => sub { 'p' . pack('N', 0) },
	'a query' => sub { RawClient::query('SELECT 1') },
	'a goodbye' => sub { RawClient::terminate() },
	'message type 0' => sub { RawClient::message("\0", 'x') },
	'message type 255' => sub { RawClient::message("\xff", 'x') },
	'a type and nothing else' => sub { 'Q' },
	'another start-up packet' => sub { RawClient::startup_packet(user => 's_ok', database => 'postgres') },
	'something in UTF-8' => sub { p("\xc3\xab\0") },
	'not UTF-8' => sub { p("\xff\xfe\0") });
my $first = 'n,,n=,r=abcdefghijklmnopqrstuvwx';
my %first_response = (
	'an unknown mechanism' => sasl('SCRAM-SHA-1', $first),
	'a mechanism in lower case' => sasl('scram-sha-256', $first),
	'a mechanism without a name' => sasl('', $first),
	'channel binding that was not offered' => sasl('SCRAM-SHA-256-PLUS', $first),
	'no data' => p("SCRAM-SHA-256\0" . pack('N', 0xffffffff)),
	'empty data' => sasl('SCRAM-SHA-256', ''),
	'no length' => p("SCRAM-SHA-256\0"),
	'half a length' => p("SCRAM-SHA-256\0\0\0"),
	'a length past the end' => p("SCRAM-SHA-256\0" . pack('N', 50) . $first),
	'a length before the end' => p("SCRAM-SHA-256\0" . pack('N', 5) . $first),
	'a negative length inside' => p("SCRAM-SHA-256\0" . pack('N', 0xfffffff9) . $first),
	'no terminator of the mechanism' => p('SCRAM-SHA-256'),
	'garbage' => sasl('SCRAM-SHA-256', 'hello'),
	'a NUL in the data' => sasl('SCRAM-SHA-256', "n,,n=,r=abc\0def"),
	'channel binding required' => sasl('SCRAM-SHA-256', 'p=tls-server-end-point,,n=,r=abcdefgh'),
	'channel binding that the server lacks' => sasl('SCRAM-SHA-256', 'y,,n=,r=abcdefgh'),
	'an unknown channel binding flag' => sasl('SCRAM-SHA-256', 'x,,n=,r=abcdefgh'),
	'no comma behind the flag' => sasl('SCRAM-SHA-256', 'n=,r=abcdefgh'),
	'another identity' => sasl('SCRAM-SHA-256', 'n,a=postgres,n=,r=abcdefgh'),
	'an unknown field of the header' => sasl('SCRAM-SHA-256', 'n,b=x,n=,r=abcdefgh'),
	'a mandatory extension' => sasl('SCRAM-SHA-256', 'n,,m=x,n=,r=abcdefgh'),
	'no name' => sasl('SCRAM-SHA-256', 'n,,r=abcdefgh'),
	'a name without an equals sign' => sasl('SCRAM-SHA-256', 'n,,n,r=abcdefgh'),
	'no nonce' => sasl('SCRAM-SHA-256', 'n,,n='),
	'an empty nonce' => sasl('SCRAM-SHA-256', 'n,,n=,r='),
	'a nonce that is not printable' => sasl('SCRAM-SHA-256', "n,,n=,r=abc\x01"),
	'something behind the nonce' => sasl('SCRAM-SHA-256', 'n,,n=,r=abcdefgh,x=y'),
	'a long first response' => sasl('SCRAM-SHA-256', $first . 'x' x 900),
	'the longest first response' => sasl('SCRAM-SHA-256', $first . 'x' x (1024 - 4 - 18 - length $first)),
	'a first response that is too long' => sasl('SCRAM-SHA-256', $first . 'x' x (1025 - 4 - 18 - length $first)));
# The second response by the first: changed by a substitution.
my %second_response = (
	'garbage for a proof' => sub { 'hello' },
	'nothing' => sub { '' },
	'no proof' => sub { $_[0] =~ s/,p=.*//sr },
	'an empty proof' => sub { $_[0] =~ s/,p=.*/,p=/sr },
	'a short proof' => sub { $_[0] =~ s/,p=.*/,p=AAAA/sr },
	'a proof that is not base64' => sub { $_[0] =~ s/,p=.*/,p=!!!!/sr },
	'a wrong proof' => sub { $_[0] =~ s/,p=.*/',p=' . 'A' x 43 . '='/ser },
	'something behind the proof' => sub { "$_[0],x=y" },
	'another nonce' => sub { $_[0] =~ s/,r=(.)/$1 eq 'x' ? ',r=y' : ',r=x'/er },
	'a nonce cut short' => sub { $_[0] =~ s/,r=([^,]*).,/,r=$1,/r },
	'a longer nonce' => sub { $_[0] =~ s/,r=([^,]*),/,r=$1x,/r },
	'no nonce' => sub { $_[0] =~ s/,r=[^,]*//r },
	'no channel binding' => sub { $_[0] =~ s/^c=biws,//r },
	'another channel binding' => sub { $_[0] =~ s/^c=biws,/c=eSws,/r },
	'channel binding that is not base64' => sub { $_[0] =~ s/^c=biws,/c=!,/r },
	'an extension before the proof' => sub { $_[0] =~ s/,p=/,x=y,p=/r },
	'a NUL in it' => sub { "$_[0]\0x" },
	'upper case' => sub { uc $_[0] },
	'a second response that is too long' => sub { $_[0] . 'x' x 1100 });
foreach my $case (
	[ 'password', 's_ok', 'n_ok', 'unknown' ],
	[ 'md5', 's_ok', 'm_ok', 'n_ok', 'unknown' ],
	[ 'scram-sha-256', 's_ok', 'm_ok', 'n_ok', 'unknown' ])
{
	my ($method, @users) = @$case;
	foreach my $role (@users)
	{
		my %login = (%postgres, from => $address_of{$method}, user => $role, password => 'secret');
		$answers->same("$method, $role: $_", %login, tamper => $any_input{$_}) foreach sort keys %any_input;
		# Hanging up: between messages, and within one.
		$answers->same("$method, $role: hangs up when asked", %login, tamper => sub { '' }, hang_up => 1);
		$answers->same("$method, $role: hangs up behind the start-up packet", %login, hang_up => 0, tamper => sub { '' });
		$answers->same("$method, $role: hangs up behind its first answer", %login, hang_up => 1);
		foreach my $bytes (1, 3, 5, 9)
		{
			$answers->same("$method, $role: hangs up behind $bytes bytes of its answer",
				%login, hang_up => 1, tamper => sub { substr(RawClient::message(@_[ 1, 2 ]), 0, $bytes) });
		}
		next if $method eq 'password';
		foreach my $name (sort keys %first_response)
		{
			$answers->same("$method, $role: $name", %login, tamper => sub { $first_response{$name} });
		}
		next if $method eq 'md5' && $role ne 's_ok';
		foreach my $name (sort keys %second_response)
		{
			$answers->same("$method, $role: the proof, $name",
				%login, tamper => sub { $_[0] == 0 ? RawClient::message(@_[ 1, 2 ]) : p($second_response{$name}->($_[2])) });
		}
		$answers->same("$method, $role: a query for a proof",
			%login, tamper => sub { $_[0] == 0 ? RawClient::message(@_[ 1, 2 ]) : RawClient::query('SELECT 1') });
		$answers->same("$method, $role: hangs up when asked for the proof",
			%login, hang_up => 2, tamper => sub { $_[0] == 0 ? RawClient::message(@_[ 1, 2 ]) : '' });
		foreach my $bytes (1, 4, 5, 40)
		{
			$answers->same("$method, $role: hangs up behind $bytes bytes of its proof",
				%login, hang_up => 2,
				tamper => sub { my $m = RawClient::message(@_[ 1, 2 ]); $_[0] == 0 ? $m : substr($m, 0, $bytes) });
		}
	}
}

# ---------------------------------------------------------------- start-up packets

sub packet { my ($body) = @_; return pack('N', length($body) + 4) . $body }
my $version3 = pack('N', 196608);
my %packets = (
	'no user' => packet("${version3}database\0postgres\0\0"),
	'an empty user' => packet("${version3}user\0\0database\0postgres\0\0"),
	'nothing at all' => packet("$version3\0"),
	'two users' => packet("${version3}user\0s_ok\0user\0unknown\0database\0postgres\0\0"),
	'two databases' => packet("${version3}user\0s_ok\0database\0unknown\0database\0postgres\0\0"),
	'replication, which is no boolean' => packet("${version3}user\0s_ok\0replication\0maybe\0\0"),
	'a newer minor version' => packet(pack('N', 196608 + 3) . "user\0unknown\0database\0postgres\0\0"),
	'an unknown protocol option' => packet("${version3}user\0unknown\0_pq_.x\0y\0\0"));
$answers->same("start-up packet with $_", from => $address_of{trust}, startup => $packets{$_}) foreach sort keys %packets;
foreach my $value ('on', 'database')
{
	$answers->same("replication=$value", %postgres, from => $address_of{trust}, user => 's_replicator',
		parameters => { replication => $value });
}
$answers->same('replication=off', %postgres, from => $address_of{trust}, user => 's_ok', parameters => { replication => 'off' });
$answers->same('application_name', %postgres, from => $address_of{trust}, user => 's_ok',
	parameters => { application_name => "caf\xc3\xa9 %s\n" });

# ---------------------------------------------------------------- limits

# A port counts its own clients, so the places are taken on each.
foreach my $case (
	[ 'a role\'s limit', 's_limit1', 'postgres', [ 's_limit1', 'postgres' ], [ 's_limit1', 'unknown' ], [ 's_limit1', 'closed' ],
		[ 's_limit1', 'private' ], [ 's_limit1', 'small' ], [ 's_ok', 'postgres' ] ],
	[ 'a database\'s limit', 's_ok', 'small', [ 's_ok', 'small' ], [ 's_other', 'small' ], [ 's_limit0', 'small' ],
		[ 's_boss', 'small' ], [ 's_nologin', 'small' ], [ 'unknown', 'small' ] ])
{
	my ($name, $role, $database, @logins) = @$case;
	my @kept;
	foreach my $port ($server->port, $server->pool_port)
	{
		my $kept = $answers->attempt($port, from => $address_of{trust}, user => $role, dbname => $database, keep => 1);
		is($kept->{outcome}, 'asked : OK', "$name: taken on port $port");
		push @kept, $kept->{client};
	}
	$answers->same("$name: $_->[0], database $_->[1]", from => $address_of{trust}, user => $_->[0], dbname => $_->[1])
	  foreach @logins;
	foreach my $method ('password', 'scram-sha-256')
	{
		$answers->same("$name: $method, password $_",
			from => $address_of{$method}, user => $role, dbname => $database, password => $_)
		  foreach 'secret', 'wrong';
	}
	$_->close foreach @kept;
}

# ---------------------------------------------------------------- no names are given away

# Of a login that fails: the kinds of messages in both directions, in their order, and the terms of the challenge.
sub shape
{
	my ($port, $method, $role) = @_;
	my $attempt =
	  $answers->attempt($port, %postgres, from => $address_of{$method}, user => $role, password => 'wrong', keep => 1);
	my ($challenge) = grep { /^Authentication 11 / } @{ $attempt->{messages} };
	my ($salt, $iterations) = defined $challenge ? $challenge =~ /,s=([^,]+),i=(\d+)/ : ('', '');
	my $shape = join ', ', map { /^(\w+( \d+)?)/ ? $1 : $_ } @{ $attempt->{messages} };
	$shape .= "; iterations $iterations, salt of " . length($salt) . ' characters, answers '
	  . ($attempt->{client}{message_number} || 0);
	my ($words) = grep { /^ErrorResponse/ } @{ $attempt->{messages} };
	$words =~ s/\Q$role\E/ROLE/g;
	$attempt->{client}->drop;
	return ("$shape; $words", $salt);
}
foreach my $port ($server->port, $server->pool_port)
{
	my $name = $port == $direct_port ? 'direct port' : 'pooled port';
	foreach my $method ('password', 'md5', 'scram-sha-256')
	{
		my ($known_shape, $known_salt) = shape($port, $method, 's_ok');
		foreach my $role ('unknown', 'unknown 2', 'n_ok', 's_expired', 's_nologin', 'team')
		{
			my ($shape, $salt) = shape($port, $method, $role);
			is($shape, $known_shape, "$name, $method: $role is refused as a role with a wrong password is");
			my (undef, $again) = shape($port, $method, $role);
			is($again, $salt, "$name, $method: $role has the same salt each time");
			isnt($salt, $known_salt, "$name, $method: $role has a salt of its own") unless $method eq 'password';
		}
		my (undef, $one) = shape($port, $method, 'unknown');
		my (undef, $other) = shape($port, $method, 'unknown 2');
		isnt($one, $other, "$name, $method: roles that do not exist differ in their salts") unless $method eq 'password';
	}
}

# With md5 rules a role that does not exist passes for one with the usual kind of secret.
$server->reload_with('password_encryption', 'md5');
load_rules($rules, 'trust');
like($answers->same("md5 is usual: $_", %postgres, from => $address_of{md5}, user => $_, password => 'wrong'),
	qr/^asked 5: FATAL 28P01/, "md5 is usual: $_ is asked for that") foreach 'unknown', 'n_ok', 'm_ok', 'm_expired';
$answers->same("md5 is usual: $_", %postgres, from => $address_of{md5}, user => $_, password => 'wrong')
  foreach 's_ok', 's_expired';
$answers->same("md5 is usual: $_, scram-sha-256", %postgres, from => $address_of{'scram-sha-256'}, user => $_, password => 'wrong')
  foreach 'unknown', 'm_ok';

# ---------------------------------------------------------------- reload

load_rules("host postgres late 127.0.4.1/32 reject\n$rules", 'reject');
$server->sql('CREATE ROLE late LOGIN');
my %late = (%postgres, from => '127.0.4.1', user => 'late');
like($answers->same('a rule that rejects', %late), qr/28000 pg_hba\.conf rejects/, 'as it says');
load_rules("host postgres late 127.0.4.1/32 trust\n$rules", 'trust');
is($answers->same('the next login after a reload', %late), 'asked : OK', 'the new rule holds');
foreach my $broken (
	"host postgres late 127.0.4.1/32 reject\n${rules}host all all no such thing\n",
	"host postgres late 127.0.4.1/32 no_such_method\n$rules",
	"host postgres late 127.0.4.1/33 reject\n$rules",
	"nonsense\n$rules",
	"\n# nothing\n")
{
	my $offset = $server->log_size;
	write_file("$data/pg_hba.conf", $broken);
	$node->reload;
	ok($server->wait_for_log(qr/pg_hba\.conf was not reloaded/, $offset), 'the server keeps its rules');
	ok($server->wait_for_log(qr/the pooled port keeps its former rules/, $offset), 'so does the pooled port');
	is($answers->same('with a broken pg_hba.conf', %late), 'asked : OK', 'the former rules hold');
}
load_rules("host postgres late 127.0.4.1/32 reject\n$rules", 'reject');
like($answers->same('the file is whole again', %late), qr/28000 pg_hba\.conf rejects/, 'the new rules hold');

# A broken pg_ident.conf changes nothing either; without one that is good, there are no maps.
my %mapped = (%local, user => 's_ok', dbname => 'maps');
my $offset = $server->log_size;
like($answers->same('a map', %mapped), qr/3D000/, 'it maps');
write_file("$data/pg_ident.conf", "nonsense\n$maps");
$node->reload;
ok($server->wait_for_log(qr/pg_ident\.conf was not reloaded/, $offset), 'the server keeps its maps');
ok($server->wait_for_log(qr/the pooled port keeps its former user maps/, $offset), 'so does the pooled port');
like($answers->same('with a broken pg_ident.conf', %mapped), qr/3D000/, 'the former maps hold');
$server->restart;
like($answers->same('with a broken pg_ident.conf at the start', %mapped), qr/28000 Peer/, 'there are no maps');
like($answers->same('peer without a map', %local, user => $me, dbname => 'peers'), qr/3D000/, 'but everything else');
write_file("$data/pg_ident.conf", $maps);
load_rules($rules, 'reject');
like($answers->same('the maps are whole again', %mapped), qr/3D000/, 'they map');

# ---------------------------------------------------------------- was it worth it?

my %outcomes = %{ $answers->outcomes };
note(join ', ', map { "$_: $outcomes{$_}" } sort keys %outcomes);
cmp_ok($outcomes{$_} || 0, '>=', 3, "outcomes with $_ were compared")
  foreach 'OK', '28000', '28P01', '3D000', '42501', '53300', '55000', '08P01', 'closed';
is(
	join(' ', $answers->differences_seen),
	join(' ', sort map { $_->{name} } @by_design),
	'every difference by design was met');
ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'nobody is left behind');
unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:/, 'nothing has crashed');
$server->stop;
done_testing();
