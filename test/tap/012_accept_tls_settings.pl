# SPDX-License-Identifier: PostgreSQL
#
# What the server's settings say about TLS holds on the pooled port as on its own:
# versions, ciphers, certificates, revocation, passphrases, rules, and all of it
# again after a reload.

use strict;
use warnings;

use Certificates;
use Config;
use File::Basename qw(dirname);
use IPC::Run;
use PoolTest;
use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);
use TlsLayer;

my $files = Certificates->new;
$files->make('second', subject => '/CN=second');
$files->make('curve', subject => '/CN=curve', kind => 'ecdsa');
$files->make('locked', subject => '/CN=locked', passphrase => 'open sesame');
$files->make('app', subject => '/C=XY/O=Some, Organisation/CN=app');
$files->make('stolen', subject => '/CN=app');
my $server = SluiceTest->new('main', tcp => 1, conf => $files->conf('server') . <<'CONF');
sluice.max_pool_size = 2
CONF
my %tls = (host => '127.0.0.1', sslmode => 'require', sslcert => '/none', sslkey => '/none');
my @ports = ([ 'direct', $server->port ], [ 'pooled', $server->pool_port ]);
my $data = $server->node->data_dir;

# One handshake: (1, layer, client), or (0, what the client's side says).
sub handshake
{
	my ($port, %option) = @_;
	my $client = RawClient->open(host => '127.0.0.1', port => $port);
	return (1, $client->tls, $client) if $client->start_tls(%option);
	return (0, $client->{tls_error});
}

sub subject
{
	my ($port) = @_;
	my ($done, $tls) = handshake($port);
	return $done ? $tls->subject : 'none';
}

# Settings take effect a moment after the reload, in each process by itself.
sub until_true
{
	my ($condition) = @_;
	my $deadline = time() + $SluiceTest::patience_s;
	while (time() < $deadline)
	{
		return 1 if $condition->();
		sleep 0.05;
	}
	return 0;
}

sub reload
{
	my (%settings) = @_;
	$server->sql("ALTER SYSTEM SET $_ = '$settings{$_}'") foreach keys %settings;
	$server->sql('SELECT pg_reload_conf()');
	return;
}

# The same statement on both ports: exit code and, of the errors, what the server said.
sub both
{
	my ($sql, %option) = @_;
	my @answers;
	foreach my $port (@ports)
	{
		my ($code, $output, $errors) = $server->_psql($server->_connstr($port->[1], %tls, %option), $sql);
		$errors =~ s/port \d+/port/g;
		push @answers, "$code: $output$errors";
	}
	return @answers;
}

sub same_on_both
{
	my ($name, $regexp, $sql, %option) = @_;
	my ($direct, $pooled) = both($sql, %option);
	like($direct, $regexp, "$name: the direct port");
	is($pooled, $direct, "$name: the pooled port says the same");
	return;
}

# ---------------------------------------------------------------- versions and ciphers

foreach my $version ('TLSv1.2', 'TLSv1.3')
{
	my ($done, $tls) = handshake($server->pool_port, min_version => $version, max_version => $version);
	ok($done && $tls->version eq $version, "a client that wants $version gets it");
}
{
	reload(ssl_min_protocol_version => 'TLSv1.3');
	foreach my $port (@ports)
	{
		ok(until_true(sub { !(handshake($port->[1], max_version => 'TLSv1.2'))[0] }),
			"$port->[0] port: an older version than ssl_min_protocol_version is refused after a reload");
		ok((handshake($port->[1]))[0], "$port->[0] port: a newer is not");
	}
	my $cipher = 'ECDHE-RSA-AES256-GCM-SHA384';
	reload(ssl_min_protocol_version => 'TLSv1.2', ssl_max_protocol_version => 'TLSv1.2', ssl_ciphers => $cipher);
	foreach my $port (@ports)
	{
		ok(until_true(sub { my ($done, $tls) = handshake($port->[1]); $done && $tls->version eq 'TLSv1.2' }),
			"$port->[0] port: no newer version than ssl_max_protocol_version");
		ok(until_true(sub { my ($done, $tls) = handshake($port->[1]); $done && $tls->cipher eq $cipher }),
			"$port->[0] port: with the cipher of ssl_ciphers");
		ok(!(handshake($port->[1], ciphers => 'ECDHE-RSA-AES128-GCM-SHA256'))[0], "$port->[0] port: and no other");
	}
	$server->sql("ALTER SYSTEM RESET $_") foreach qw(ssl_min_protocol_version ssl_max_protocol_version ssl_ciphers);
	reload();
	ok(until_true(sub { my ($done, $tls) = handshake($server->pool_port); $done && $tls->version eq 'TLSv1.3' }),
		'back again');
}

# ---------------------------------------------------------------- certificates change

{
	my $established = $server->pool_raw(host => '127.0.0.1', tls => {});
	reload(ssl_cert_file => $files->certificate('second'), ssl_key_file => $files->key('second'));
	ok(until_true(sub { subject($server->pool_port) =~ /CN=second/ }), 'a new certificate is shown to new clients');
	is(scalar $established->sql('SELECT 1'), 1, 'older ones go on');

	my $log = $server->log_size;
	reload(ssl_cert_file => $files->certificate('server'));    # the key is of another
	ok($server->wait_for_log(qr/the pooled port keeps its former SSL configuration/, $log),
		'a pair that does not fit: the log says so');
	like(subject($server->pool_port), qr/CN=second/, 'and the former goes on');
	is(scalar $established->sql('SELECT 1'), 1, 'with its clients');
	reload(ssl_key_file => $files->key('server'));
	ok(until_true(sub { subject($server->pool_port) =~ /CN=server/ }), 'until the pair fits again');

	reload(ssl => 'off');
	foreach my $port (@ports)
	{
		ok(until_true(sub { !(handshake($port->[1]))[0] }), "$port->[0] port: ssl = off, by reload");
	}
	my $client = RawClient->open(host => '127.0.0.1', port => $server->pool_port);
	$client->send_bytes(pack('NN', 8, 80877103));
	is($client->read_bytes(1), 'N', 'a request is denied');
	is(scalar $established->sql('SELECT 1'), 1, 'clients that have it keep it');
	reload(ssl => 'on');
	ok(until_true(sub { (handshake($server->pool_port))[0] }), 'and on again');
	$established->close;
}

# ---------------------------------------------------------------- channel binding

$server->sql(q{CREATE ROLE scram LOGIN PASSWORD 'secret'});
$server->sql(q{CREATE ROLE app LOGIN});
$server->sql(q{CREATE ROLE reader LOGIN; CREATE ROLE auditor LOGIN; GRANT pg_read_all_stats TO auditor});
sub write_rules
{
	my ($rules) = @_;
	PostgreSQL::Test::Utils::append_to_file("$data/pg_hba.new", "local all all trust\n$rules");
	rename "$data/pg_hba.new", "$data/pg_hba.conf" or die $!;
	reload();
	return;
}
write_rules(<<'RULES');
host    all scram 127.0.0.1/32 scram-sha-256
hostssl all app   127.0.0.1/32 trust clientcert=verify-ca
hostnossl all reader 127.0.0.1/32 trust
hostssl all reader 127.0.0.1/32 reject
host    all all   127.0.0.1/32 trust
RULES
my %scram = (user => 'scram', password => 'secret', channel_binding => 'require');
foreach my $kind ([ 'server', 'RSA' ], [ 'curve', 'ECDSA' ])
{
	reload(ssl_cert_file => $files->certificate($kind->[0]), ssl_key_file => $files->key($kind->[0]));
	ok(until_true(sub { 2 == grep { subject($_->[1]) =~ /CN=$kind->[0]/ } @ports }),
		"the $kind->[1] certificate is there");
	ok(until_true(sub { ($server->pool_psql('SELECT 1', %tls, %scram))[0] == 0 }),
		"SCRAM binds to the channel, $kind->[1]");
	same_on_both("channel binding, $kind->[1]", qr/^0: scram$/, 'SELECT current_user', %scram);
	same_on_both("a wrong password, $kind->[1]", qr/password authentication failed/, 'SELECT 1',
		%scram, password => 'wrong');
}

# ---------------------------------------------------------------- rules

my %app = (user => 'app', sslcert => $files->certificate('app'), sslkey => $files->key('app'));
same_on_both('hostnossl without TLS', qr/^0: 1$/, 'SELECT 1', user => 'reader', sslmode => 'disable');
same_on_both('hostssl with TLS', qr/pg_hba.conf rejects connection .* SSL encryption/, 'SELECT 1', user => 'reader');
same_on_both('a certificate', qr/^0: app$/, 'SELECT current_user', %app);
same_on_both('no certificate', qr/connection requires a valid client certificate/, 'SELECT 1', user => 'app');

# ---------------------------------------------------------------- what the view shows

{
	my $of_server = join ', ', 'ssl', qw(version cipher bits client_dn client_serial issuer_dn);
	my $of_pool = join ', ', 'ssl', map { "ssl_$_" } qw(version cipher bits client_dn client_serial issuer_dn);
	my $direct =
	  ($server->_psql($server->_connstr($server->port, %tls, %app),
			"SELECT $of_server FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))[1];
	like($direct, qr/^t\|TLSv1.3\|.*CN=app/, 'what the server says about a client with a certificate');
	my $own = 'WHERE role = \'app\'';
	is(($server->pool_psql("SELECT $of_pool FROM sluice.clients $own", %tls, %app))[1], $direct, 'the pool says the same');
	is(($server->pool_psql("SELECT ssl_by FROM sluice.clients $own", %tls, %app))[1] =~ /^(?:dispatcher|kernel)$/,
		1, 'and who encrypts');
	my $client = $server->pool_raw(host => '127.0.0.1', user => 'app',
		tls => { certificate => $files->certificate('app'), key => $files->key('app') });
	is($server->sql("SELECT $of_pool FROM sluice.clients $own", user => 'auditor'), $direct,
		'so it does to pg_read_all_stats');
	is($server->sql("SELECT num_nonnulls($of_pool, ssl_by) FROM sluice.clients $own", user => 'reader'), 0,
		'and nothing to others');
	$client->close;
	is($server->pool_sql("SELECT num_nonnulls($of_pool, ssl_by), ssl FROM sluice.clients", sslmode => 'disable'), '1|f',
		'of a client without TLS only that');
}

# ---------------------------------------------------------------- revocation

$files->revoke('stolen');
my %stolen = (%app, sslcert => $files->certificate('stolen'), sslkey => $files->key('stolen'));
same_on_both('a certificate before its revocation is known', qr/^0: 1$/, 'SELECT 1', %stolen);
reload(ssl_crl_file => $files->revoked);
foreach my $port (@ports)
{
	ok(until_true(sub { ($server->_psql($server->_connstr($port->[1], %tls, %stolen), 'SELECT 1'))[0] != 0 }),
		"$port->[0] port: a revoked certificate is refused");
}
same_on_both('another of the same role', qr/^0: 1$/, 'SELECT 1', %app);
like((both('SELECT 1', %stolen))[1], qr/revoked/, 'and the client learns why');
$server->stop;

# ---------------------------------------------------------------- modules with a hook of their own

SKIP:
{
	my $library = PostgreSQL::Test::Utils::tempdir() . '/tls_hook.so';
	my @compiler = split ' ', $ENV{CC} || $Config{cc};
	chomp(my @include = map { "-I$_" } `pg_config --includedir-server`, `pg_config --includedir`);
	my ($output, $errors) = ('', '');
	eval {
		IPC::Run::run([ @compiler, '-shared', '-fPIC', @include, '-o', $library, dirname(__FILE__) . '/lib/tls_hook.c' ],
			'>', \$output, '2>', \$errors);
	} or skip 'no compiler, or no headers of the server', 1;
	# Either finds the other's: each order is a chain of its own.
	foreach my $libraries ("pg_sluice, $library", "$library, pg_sluice")
	{
		my $order = $libraries =~ /^pg_sluice/ ? 'behind' : 'in front';
		my $name = $order eq 'behind' ? 'hook_behind' : 'hook_in_front';
		my $chained = SluiceTest->new($name, tcp => 1, conf => $files->conf('server') . <<"CONF");
shared_preload_libraries = '$libraries'
CONF
		like($chained->log_since(0), qr/tls_hook was shown a context/, "a module with a hook, $order: it is called");
		foreach my $round ('started', 'reloaded')
		{
			like(subject($chained->$_), qr/CN=server/, "$round: the $_ serves TLS") foreach 'port', 'pool_port';
			is($chained->pool_sql('SELECT ssl FROM sluice.clients', %tls), 't', 'a session over it');
			my $log = $chained->log_size;
			$chained->sql('SELECT pg_reload_conf()');
			# The postmaster and the dispatcher.
			ok($chained->wait_for_log(qr/tls_hook was shown a context.*tls_hook was shown a context/s, $log),
				'a reload calls it again');
		}
		unlike($chained->log_since(0), qr/terminated by signal|PANIC|stack depth/, 'nothing has crashed');
		$chained->stop;
	}
}

# ---------------------------------------------------------------- passphrases

foreach my $again ('off', 'on')
{
	my $locked = SluiceTest->new("reload_$again", tcp => 1, conf => $files->conf('locked') . <<"CONF");
ssl_passphrase_command = 'echo "open sesame"'
ssl_passphrase_command_supports_reload = $again
sluice.max_pool_size = 1
CONF
	my $shows = sub { my ($port, $name) = @_; return subject($port) =~ /CN=$name/ };
	my $dispatcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sluice dispatcher'};
	ok($shows->($locked->$_, 'locked'), "reload $again: the $_ has the key") foreach 'port', 'pool_port';

	my $first = $locked->sql($dispatcher);
	$locked->sql("SELECT pg_terminate_backend($first)");
	ok($locked->wait_until("SELECT count(*) FROM ($dispatcher) d WHERE pid <> $first", 1),
		"reload $again: another dispatcher");
	$locked->wait_for_pool;
	ok($shows->($locked->pool_port, 'locked'), "reload $again: has it as well");

	# A second key under the same passphrase: seen after a reload only where the command may be asked again.
	$locked->sql("ALTER SYSTEM SET ssl_cert_file = '" . $files->certificate('second') . "'");
	$locked->sql("ALTER SYSTEM SET ssl_key_file = '" . $files->key('second') . "'");
	$locked->sql('SELECT pg_reload_conf()');
	foreach my $port ('port', 'pool_port')
	{
		ok(until_true(sub { $shows->($locked->$port, 'second') }), "reload $again: a key without one is loaded, $port");
	}
	my $log = $locked->log_size;
	$locked->sql('ALTER SYSTEM RESET ALL');
	$locked->sql('SELECT pg_reload_conf()');
	my $expected = $again eq 'on' ? 'locked' : 'second';
	ok($locked->wait_for_log(qr/the pooled port keeps its former SSL configuration/, $log), 'reload off: the log says so')
	  if $again eq 'off';
	foreach my $port ('port', 'pool_port')
	{
		ok(until_true(sub { $shows->($locked->$port, $expected) }), "reload $again: then $expected, $port");
	}
	$locked->stop;
}

done_testing();
