# SPDX-License-Identifier: PostgreSQL
#
# Client certificates: the method cert, clientcert=verify-ca and verify-full, names, maps, revocation and channel
# binding.  libpq connects to both ports of one server; outcome, messages and log lines must be the same.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SameAnswers;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

plan skip_all => 'there is no openssl command' if system('openssl version >/dev/null 2>&1') != 0;

my $server = SluiceTest->new('main', tcp => 1, conf => SameAnswers::conf() . "sluice.idle_timeout = 1s\n");
plan skip_all => 'this server is built without OpenSSL'
  if $server->sql(q{SELECT setting FROM pg_settings WHERE name = 'ssl_library'}) ne 'OpenSSL';
my $node = $server->node;
my $data = $node->data_dir;

# ---------------------------------------------------------------- certificates

my $ca = PostgreSQL::Test::Utils::tempdir;

sub write_file
{
	my ($path, $text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file;
	return;
}

sub openssl
{
	my (@arguments) = @_;
	system("openssl @arguments >>$ca/openssl.log 2>&1") == 0
	  or die "openssl @arguments: " . slurp_file("$ca/openssl.log");
	return;
}

write_file("$ca/$_.cnf", <<"CNF") foreach 'ours', 'theirs';
[ca]
default_ca = here
[here]
dir = $ca
database = $ca/$_.index
serial = $ca/$_.serial
new_certs_dir = $ca
default_md = sha256
default_days = 3650
default_crl_days = 3650
unique_subject = no
policy = anything
[anything]
countryName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
emailAddress = optional
[req]
distinguished_name = empty
[empty]
[authority]
basicConstraints = critical,CA:true
CNF
my $new_key = '-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes';
foreach my $authority ('ours', 'theirs')
{
	write_file("$ca/$authority.index", '');
	write_file("$ca/$authority.serial", "1000\n");
	openssl("req -x509 $new_key -keyout $ca/$authority.key -out $ca/$authority.crt -days 3650 -subj '/CN=$authority' "
		  . "-config $ca/$authority.cnf -extensions authority");
}

sub make_certificate
{
	my ($name, $subject, %option) = @_;
	my $authority = $option{authority} || 'ours';
	openssl("req -new $new_key -utf8 -keyout $ca/$name.key -out $ca/$name.csr -subj \"$subject\" -config $ca/$authority.cnf");
	openssl("ca -batch -utf8 -notext -preserveDN -config $ca/$authority.cnf -cert $ca/$authority.crt "
		  . "-keyfile $ca/$authority.key -in $ca/$name.csr -out $ca/$name.crt "
		  . ($option{expired} ? '-startdate 20010101000000Z -enddate 20020101000000Z' : ''));
	chmod 0600, "$ca/$name.key" or die;
	return;
}

sub make_crl { return openssl("ca -gencrl -config $ca/ours.cnf -cert $ca/ours.crt -keyfile $ca/ours.key -out $ca/crl.new") }

make_certificate('server', '/CN=127.0.0.1');
make_certificate('matching', '/O=Us/CN=s_ok');
make_certificate('somebody', '/CN=somebody');
make_certificate('commas', '/O=Comma, Inc./OU=a b/CN=commas');
make_certificate('utf8', "/O=Z\xc3\xbcrich, \xe6\x97\xa5/CN=Zo\xc3\xab");
make_certificate('nameless', '/O=No Name');
make_certificate('twice', '/CN=s_ok/CN=somebody');
make_certificate('expired', '/CN=s_ok', expired => 1);
make_certificate('revoked', '/CN=s_ok');
make_certificate('later', '/O=Us/CN=s_ok');
make_certificate('foreign', '/CN=s_ok', authority => 'theirs');
openssl("ca -config $ca/ours.cnf -cert $ca/ours.crt -keyfile $ca/ours.key -revoke $ca/revoked.crt");
make_crl();
foreach my $file ('server.crt', 'server.key', 'ours.crt', 'crl.new')
{
	(my $name = $file) =~ s/crl\.new/ours.crl/;
	write_file("$data/$name", slurp_file("$ca/$file"));
	chmod 0600, "$data/$name" or die;
}

# ---------------------------------------------------------------- rules, one for each database

my @rules = (
	[ cert => 'cert' ],
	[ cert_map => 'cert map=names' ],
	[ cert_expressions => 'cert map=expressions' ],
	[ cert_dn => 'cert clientname=DN' ],
	[ cert_dn_map => 'cert clientname=DN map=subjects' ],
	[ cert_cn => 'cert clientname=CN map=subjects' ],
	[ trust_ca => 'trust clientcert=verify-ca' ],
	[ trust_full => 'trust clientcert=verify-full' ],
	[ reject_ca => 'reject clientcert=verify-ca' ],
	[ scram => 'scram-sha-256' ],
	[ scram_ca => 'scram-sha-256 clientcert=verify-ca' ],
	[ scram_full => 'scram-sha-256 clientcert=verify-full' ],
	[ scram_dn => 'scram-sha-256 clientcert=verify-full clientname=DN' ],
	[ password_full => 'password clientcert=verify-full' ],
	[ md5_full => 'md5 clientcert=verify-full' ]);
$server->sql("CREATE DATABASE $_->[0]") foreach @rules, ['plain'];
$server->sql(<<"SQL");
SET password_encryption = 'scram-sha-256';
CREATE ROLE s_ok LOGIN PASSWORD 'secret';
CREATE ROLE s_other LOGIN PASSWORD 'secret';
CREATE ROLE "Zo\xc3\xab" LOGIN PASSWORD 'secret';
CREATE ROLE s_nologin PASSWORD 'secret';
SQL
write_file("$data/pg_ident.conf", <<'MAPS');
names somebody s_other
names s_ok s_other
expressions /^(s_).*$ \1other
subjects "CN=s_ok,O=Us" s_ok
subjects "CN=commas,OU=a b,O=Comma\, Inc." s_ok
subjects "/^CN=Zo.*,O=Z.*\\,.*$" s_other
MAPS
write_file("$data/pg_hba.conf",
	"local all all trust\nhostnossl plain all all reject\nhostssl plain all all trust\nhostnossl scram all all scram-sha-256\n"
	  . join('', map { "hostssl $_->[0] all 127.0.0.1/32 $_->[1]\n" } @rules));
$node->append_conf('postgresql.conf', <<'CONF');
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_ca_file = 'ours.crt'
ssl_crl_file = 'ours.crl'
CONF
$server->restart;

# ---------------------------------------------------------------- logging in

# What psql says, how it ends and what the log has got.
sub login
{
	my ($port, %option) = @_;
	my $offset = $server->log_size;
	my $certificate = delete $option{certificate};
	my $no_words = delete $option{no_words};
	local $ENV{PGPASSWORD} = delete $option{password};
	delete $ENV{PGPASSWORD} unless defined $ENV{PGPASSWORD};
	my ($code, $output, $errors) = $server->_psql(
		$server->_connstr(
			$port,
			host => '127.0.0.1',
			sslmode => 'verify-ca',
			sslrootcert => "$ca/ours.crt",
			sslcert => defined $certificate ? "$ca/$certificate.crt" : "$ca/no_such_file",
			sslkey => defined $certificate ? "$ca/$certificate.key" : "$ca/no_such_file",
			%option),
		'SELECT current_user');
	$errors =~ s/port \d+/port N/g;
	# How libpq puts it depends on whether it was still writing when it was told.
	$errors = $errors ne '' ? 'the connection failed' : '' if $no_words;
	return join "\n", "$code '$output' $errors",
	  SameAnswers::log_lines($server->log_since($offset), $port == $server->pool_port);
}

sub same
{
	my ($name, $expected, %option) = @_;
	my $direct = login($server->port, %option);
	like($direct, $expected, "$name: the direct port");
	is(login($server->pool_port, %option), $direct, "$name: the pooled port says the same");
	return;
}

my $ok = qr/^0 '/;
my $mismatch = qr/provided user name .* and authenticated user name .* do not match/;
my $unmapped = qr/no match in usermap/;
my $wanted = qr/connection requires a valid client certificate/;

foreach my $case (
	# database, certificate, role, password, what comes of it
	[ 'plain', undef, 's_ok', undef, $ok ],
	[ 'plain', 'matching', 's_ok', undef, $ok ],
	[ 'cert', 'matching', 's_ok', undef, $ok ],
	[ 'cert', 'matching', 's_other', undef, $mismatch ],
	[ 'cert', 'matching', 'unknown', undef, $mismatch ],
	[ 'cert', 'somebody', 's_ok', undef, qr/certificate authentication failed for user "s_ok"/ ],
	[ 'cert', 'somebody', 'somebody', undef, qr/role "somebody" does not exist/ ],
	[ 'cert', 'nameless', 's_ok', undef, qr/client certificate contains no user name/ ],
	[ 'cert', 'twice', 's_ok', undef, qr/^/ ],
	[ 'cert', 'twice', 'somebody', undef, qr/^/ ],
	[ 'cert', 'commas', 's_ok', undef, $mismatch ],
	[ 'cert', 'utf8', "Zo\xc3\xab", undef, $ok ],
	[ 'cert', undef, 's_ok', undef, $wanted ],
	[ 'cert', undef, 'unknown', undef, $wanted ],
	[ 'cert_map', 'matching', 's_ok', undef, $unmapped ],
	[ 'cert_map', 'matching', 's_other', undef, $ok ],
	[ 'cert_map', 'somebody', 's_other', undef, $ok ],
	[ 'cert_expressions', 'matching', 's_other', undef, $ok ],
	[ 'cert_expressions', 'matching', 's_ok', undef, $unmapped ],
	[ 'cert_expressions', 'somebody', 's_other', undef, $unmapped ],
	[ 'cert_dn', 'matching', 's_ok', undef, $mismatch ],
	[ 'cert_dn_map', 'matching', 's_ok', undef, $ok ],
	[ 'cert_dn_map', 'commas', 's_ok', undef, $ok ],
	[ 'cert_dn_map', 'utf8', 's_other', undef, qr/^/ ],
	[ 'cert_dn_map', 'somebody', 's_ok', undef, $unmapped ],
	[ 'cert_dn_map', 'nameless', 's_ok', undef, $unmapped ],
	[ 'cert_cn', 'matching', 's_ok', undef, $unmapped ],
	[ 'trust_ca', 'matching', 's_ok', undef, $ok ],
	[ 'trust_ca', 'somebody', 's_ok', undef, $ok ],
	[ 'trust_ca', 'nameless', 's_ok', undef, $ok ],
	[ 'trust_ca', undef, 's_ok', undef, $wanted ],
	[ 'trust_full', 'matching', 's_ok', undef, $ok ],
	[ 'trust_full', 'matching', 's_nologin', undef, qr/"trust" authentication failed for user "s_nologin"/ ],
	[ 'trust_full', 'somebody', 's_ok', undef, qr/\(clientcert=verify-full\) failed for user "s_ok": CN mismatch/ ],
	[ 'trust_full', 'nameless', 's_ok', undef, qr/client certificate contains no user name/ ],
	[ 'reject_ca', undef, 's_ok', undef, $wanted ],
	[ 'reject_ca', 'matching', 's_ok', undef, qr/pg_hba.conf rejects connection .*SSL encryption/ ],
	[ 'scram', undef, 's_ok', 'secret', $ok ],
	[ 'scram', undef, 's_ok', 'wrong', qr/password authentication failed/ ],
	[ 'scram', undef, 'unknown', 'secret', qr/password authentication failed/ ],
	[ 'scram_ca', 'somebody', 's_ok', 'secret', $ok ],
	[ 'scram_ca', undef, 's_ok', 'secret', $wanted ],
	[ 'scram_full', 'matching', 's_ok', 'secret', $ok ],
	[ 'scram_full', 'matching', 's_ok', 'wrong', qr/password authentication failed/ ],
	[ 'scram_full', 'somebody', 's_ok', 'secret', qr/CN mismatch/ ],
	[ 'scram_full', 'somebody', 's_ok', 'wrong', qr/password authentication failed/ ],
	[ 'scram_full', 'somebody', 'unknown', 'secret', qr/password authentication failed/ ],
	[ 'scram_full', undef, 's_ok', 'secret', $wanted ],
	[ 'scram_dn', 'matching', 's_ok', 'secret', qr/DN mismatch/ ],
	[ 'password_full', 'matching', 's_ok', 'secret', $ok ],
	[ 'password_full', 'somebody', 's_ok', 'secret', qr/CN mismatch/ ],
	[ 'md5_full', 'matching', 's_ok', 'secret', $ok ],
	[ 'md5_full', 'nameless', 's_ok', 'secret', qr/client certificate contains no user name/ ])
{
	my ($database, $certificate, $role, $password, $expected) = @$case;
	same(
		"$database, certificate " . ($certificate || 'none') . ", role $role" . (defined $password ? ", password $password" : ''),
		$expected,
		dbname => $database,
		certificate => $certificate,
		user => $role,
		password => $password);
}

# Certificates that end the handshake.
my $untrusted = qr/^2 '.*could not accept SSL connection/s;
foreach my $certificate ('expired', 'revoked', 'foreign')
{
	same("$certificate, $_", $untrusted, dbname => $_, certificate => $certificate, user => 's_ok', no_words => 1)
	  foreach 'cert', 'plain';
}

# ---------------------------------------------------------------- channel binding

foreach my $binding ('require', 'prefer', 'disable')
{
	same("channel_binding=$binding, password $_->[0]", $_->[1],
		dbname => 'scram', user => 's_ok', password => $_->[0], channel_binding => $binding)
	  foreach [ 'secret', $ok ], [ 'wrong', qr/password authentication failed/ ];
	same("channel_binding=$binding with a certificate", $ok, dbname => 'scram_full', user => 's_ok', password => 'secret',
		certificate => 'matching', channel_binding => $binding);
}
same('channel binding without TLS', qr/^2 '/, dbname => 'scram', user => 's_ok', password => 'secret',
	channel_binding => 'require', sslmode => 'disable');
same('no TLS, and no rule for that', qr/no pg_hba\.conf entry.*no encryption/, dbname => 'cert', user => 's_ok',
	certificate => 'matching', sslmode => 'disable');
same('hostnossl', qr/pg_hba\.conf rejects/, dbname => 'plain', user => 's_ok', sslmode => 'disable');

# ---------------------------------------------------------------- reload

# The log of the last login to each port, as soon as it is as wanted.
sub same_soon
{
	my ($name, $expected, %option) = @_;
	foreach my $port ($server->port, $server->pool_port)
	{
		my $deadline = time() + $SluiceTest::patience_s;
		sleep 0.05 while login($port, %option) !~ $expected && time() < $deadline;
	}
	same($name, $expected, %option);
	return;
}

my %later = (dbname => 'cert', user => 's_ok', certificate => 'later', no_words => 1);
same('a certificate that is good', $ok, %later);
openssl("ca -config $ca/ours.cnf -cert $ca/ours.crt -keyfile $ca/ours.key -revoke $ca/later.crt");
make_crl();
write_file("$data/ours.crl", slurp_file("$ca/crl.new"));
$node->reload;
same_soon('revoked, and reloaded', $untrusted, %later);
my $store = qr/client certificates can only be checked if a root certificate store is available/;
$node->append_conf('postgresql.conf', "ssl_ca_file = ''\nssl_crl_file = ''\n");
$node->reload;
same_soon('no authority', $store, dbname => 'cert', user => 's_ok', certificate => 'matching');
same('no authority, verify-ca', $store, dbname => 'scram_ca', user => 's_ok', password => 'secret');

ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'nobody is left behind');
unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:/, 'nothing has crashed');
$server->stop;
done_testing();
