# SPDX-License-Identifier: PostgreSQL
#
# Clients whose connection the kernel encrypts (sluice.kernel_tls): which they are,
# that a session does there what it does elsewhere, and that what the kernel cannot
# deliver as bytes (the end of TLS, new keys, broken records) is the end of that
# client and of nothing else.

use strict;
use warnings;

use Certificates;
use IO::Socket::INET;
use IPC::Run;
use PoolTest;
use PostgreSQL::Test::Utils;
use RawClient;
use Socket;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

# ---------------------------------------------------------------- what this kernel can

# Constants of <linux/tls.h> and <netinet/tcp.h>: version, cipher, then nonce, key, salt and record number.
my %kernel_cipher = (
	'AES-128-GCM' => pack('SS x36', 0x0303, 51),
	'AES-256-GCM' => pack('SS x52', 0x0303, 52),
	'CHACHA20-POLY1305' => pack('SS x52', 0x0304, 54));

sub kernel_knows
{
	my ($cipher) = @_;
	my ($tcp_ulp, $sol_tls, $tls_tx, $tls_rx) = (31, 282, 1, 2);
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "no socket: $!";
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport) or die "no connection: $!";
	return setsockopt($socket, Socket::IPPROTO_TCP, $tcp_ulp, 'tls')
	  && setsockopt($socket, $sol_tls, $tls_tx, $kernel_cipher{$cipher})
	  && setsockopt($socket, $sol_tls, $tls_rx, $kernel_cipher{$cipher});
}

plan skip_all => "the kernel does not know TLS with AES-GCM here (\"modprobe tls\")"
  unless $^O eq 'linux' && kernel_knows('AES-128-GCM') && kernel_knows('AES-256-GCM');
{
	my ($output, $errors) = ('', '');
	IPC::Run::run([ 'openssl', 's_server', '-help' ], '<', \'', '>', \$output, '2>', \$errors);
	plan skip_all => 'OpenSSL is built without TLS by the kernel' unless "$output$errors" =~ /-sendfile/;
}

my $files = Certificates->new;
$files->make('app', subject => '/CN=app');
my $server = SluiceTest->new('main', tcp => 1, conf => $files->conf('server') . <<'CONF');
sluice.max_pool_size = 2
CONF
my %tcp = (host => '127.0.0.1');
my %tls = (%tcp, sslmode => 'require');
my %old = (max_version => 'TLSv1.2');
my $by = 'SELECT ssl_by FROM sluice.clients WHERE ssl';

sub tls_client { return $server->pool_raw(%tcp, tls => {@_}) }
sub until_alone { return $server->wait_until('SELECT count(*) FROM sluice.clients', 0) }

# One of the machine's counters of TLS.
sub counter
{
	my ($name) = @_;
	open my $file, '<', '/proc/net/tls_stat' or return undef;
	my ($value) = map { /^\Q$name\E\s+(\d+)/ ? $1 : () } <$file>;
	return $value;
}

my ($failures_before, $connections_before) = map { counter($_) } 'TlsDecryptError', 'TlsCurrRxSw';

# ---------------------------------------------------------------- whom the kernel serves

foreach my $case (
	[ 'AES-256-GCM', 'TLSv1.3', ciphersuites => 'TLS_AES_256_GCM_SHA384' ],
	[ 'AES-128-GCM', 'TLSv1.3', ciphersuites => 'TLS_AES_128_GCM_SHA256' ],
	[ 'CHACHA20-POLY1305', 'TLSv1.3', ciphersuites => 'TLS_CHACHA20_POLY1305_SHA256' ],
	[ 'AES-256-GCM', 'TLSv1.2', %old, ciphers => 'ECDHE-RSA-AES256-GCM-SHA384' ],
	[ 'AES-128-GCM', 'TLSv1.2', %old, ciphers => 'ECDHE-RSA-AES128-GCM-SHA256' ])
{
	my ($cipher, $version, %option) = @$case;
  SKIP:
	{
		skip "the kernel does not know $cipher", 3 unless kernel_knows($cipher);
		my $client = tls_client(%option);
		my $name = $option{ciphersuites} || $option{ciphers};
		is($server->sql('SELECT ssl_by, ssl_version, ssl_cipher FROM sluice.clients WHERE ssl'),
			"kernel|$version|$name", "$version with $cipher is the kernel's");
		is(scalar $client->sql(q{SELECT length(repeat('x', 1000000))}), 1000000, 'it is asked');
		ok(length($client->sql(q{SELECT repeat('x', 1000000)})) == 1000000, 'and answers');
		$client->close;
		until_alone();
	}
}
{
	my $client = tls_client(%old, ciphers => 'ECDHE-RSA-AES256-SHA384');
	is($server->sql($by), 'dispatcher', 'a cipher that it does not know is the dispatcher\'s');
	is(scalar $client->sql('SELECT 1'), 1, 'and no other');
	$client->close;
	until_alone();
}
$server->sql('ALTER SYSTEM SET sluice.kernel_tls = off');
$server->sql('SELECT pg_reload_conf()');
{
	my ($answer, $deadline) = ('', time() + $SluiceTest::patience_s);
	$answer = $server->pool_sql($by, %tls) while $answer ne 'dispatcher' && time() < $deadline;
	is($answer, 'dispatcher', 'without the setting all are');
}
$server->sql('ALTER SYSTEM RESET sluice.kernel_tls');
$server->sql('SELECT pg_reload_conf()');
{
	my ($answer, $deadline) = ('', time() + $SluiceTest::patience_s);
	$answer = $server->pool_sql($by, %tls) while $answer ne 'kernel' && time() < $deadline;
	is($answer, 'kernel', 'and with it none');
}
until_alone();

# ---------------------------------------------------------------- who they are

$server->sql(q{CREATE ROLE scram LOGIN PASSWORD 'secret'; CREATE ROLE app LOGIN; GRANT pg_read_all_stats TO app});
{
	my $rules = $server->node->data_dir . '/pg_hba.conf';
	my $former = PostgreSQL::Test::Utils::slurp_file($rules);
	open my $file, '>', $rules or die $!;
	print $file "hostssl all scram 127.0.0.1/32 scram-sha-256\nhostssl all app 127.0.0.1/32 trust clientcert=verify-ca\n$former";
	close $file;
}
$server->sql('SELECT pg_reload_conf()');
$server->wait_until(q{SELECT count(*) FROM pg_hba_file_rules WHERE 'app' = ANY (user_name)}, 1);
foreach my $version ('TLSv1.3', 'TLSv1.2')
{
	my %both = (%tls, ssl_min_protocol_version => $version, ssl_max_protocol_version => $version);
	my ($deadline, $code) = (time() + $SluiceTest::patience_s);
	my ($answer, $errors);
	do
	{
		($code, $answer, $errors) = $server->pool_psql('SELECT ssl_by, current_user FROM sluice.clients WHERE ssl', %both,
			user => 'app', sslcert => $files->certificate('app'), sslkey => $files->key('app'));
	} while (($code != 0 || $answer !~ /app/) && time() < $deadline);
	is($answer, 'kernel|app', "$version: a certificate of the client") or diag($errors);
	($code, $answer, $errors) = $server->pool_psql('SELECT current_user', %both,
		user => 'scram', password => 'secret', channel_binding => 'require');
	is($answer, 'scram', "$version: SCRAM bound to the channel") or diag($errors);
	($code, $answer, $errors) = $server->pool_psql('SELECT current_user', %both,
		user => 'scram', password => 'wrong', channel_binding => 'require');
	like($errors, qr/FATAL:\s+password authentication failed for user "scram"\s*$/,
		"$version: a refusal arrives, and nothing behind it");
}
until_alone();

# ---------------------------------------------------------------- what a session does

is( $server->pool_sql(q{SELECT repeat('0123456789', 1000000)}, %tls) eq '0123456789' x 1000000,
	1, 'one value of 10 MB arrives as it is');
{
	my $lines = join '', map { "$_\t" . ('v' x 500) . "\n" } 1 .. 10000;
	my ($input, $output) = map { PostgreSQL::Test::Utils::tempdir() . "/$_" } 'input', 'output';
	PostgreSQL::Test::Utils::append_to_file($input, $lines);
	$server->sql('CREATE TABLE copied (id int, text text)');
	$server->pool_sql("\\copy copied from '$input'", %tls);
	is($server->sql('SELECT count(*), sum(id), sum(length(text)) FROM copied'),
		join('|', 10000, 10000 * 10001 / 2, 10000 * 500), '5 MB are copied in');
	$server->pool_sql("\\copy (SELECT * FROM copied ORDER BY id) to '$output'", %tls);
	ok(PostgreSQL::Test::Utils::slurp_file($output) eq $lines, 'and out');
}
{
	# More clients than backends: each meets those of the others.
	my @clients = map { tls_client($_ % 2 ? %old : ()) } 1 .. 6;
	$_->exchange(RawClient::parse('add', 'SELECT $1::int + 1') . RawClient::sync()) foreach @clients;
	my $wrong = 0;
	foreach my $round (1 .. 20)
	{
		$clients[$_]->send_bytes(RawClient::bind('', 'add', [ $_ * 100 + $round ]) . RawClient::execute('') . RawClient::sync())
		  foreach 0 .. $#clients;
		foreach my $number (0 .. $#clients)
		{
			my $got = outcome($clients[$number]);
			$wrong++ unless defined $got && $got eq $number * 100 + $round + 1;
		}
	}
	is($wrong, 0, 'prepared statements of idle clients, on whichever backend');
	is($server->sql(q{SELECT count(*), count(DISTINCT ssl_by), min(ssl_by) FROM sluice.clients WHERE ssl}), '6|1|kernel',
		'through the kernel, all of them');
	$_->close foreach @clients;
	until_alone();
}
{
	my $client = tls_client();
	ask($client, 'SELECT pg_sleep(3000)');
	$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
	my $other = RawClient->open(%tcp, port => $server->pool_port);
	$other->start_tls;
	$other->send_bytes(pack('NNNN', 16, 80877102, $client->pid, $client->key));
	ok($other->at_end_of_stream && $other->tls->ended && !$other->tls->broken,
		'a request to cancel is answered by the end of TLS alone');
	is(outcome($client)->{C}, '57014', 'and obeyed');
	$client->close;
}
foreach my $option ([%old], [])
{
	# Records that come in pieces: half of one is nothing yet.
	my $client = tls_client(@$option);
	my $record = $client->tls->encrypt(RawClient::query('SELECT 42'));
	foreach my $byte (split //, $record)
	{
		$client->send_plainly($byte);
		sleep 0.01;
	}
	is(outcome($client), 42, 'a record may come byte by byte');
	$client->close;
}
until_alone();
is(counter('TlsDecryptError'), $failures_before, 'not one record was found to be broken');

# ---------------------------------------------------------------- the server ends a client

foreach my $option ([%old], [])
{
	my $client = tls_client(@$option);
	my $slot = $server->sql('SELECT client FROM sluice.clients WHERE ssl');
	$server->sql("SELECT sluice.disconnect_client($slot)");
	my ($error) = grep { $_->{type} eq 'E' } $client->read_until('E');
	is($error && RawClient::error_fields($error)->{C}, '57P01', 'a client that is disconnected is told so');
	ok($client->at_end_of_stream, 'before its stream ends');
	ok($client->tls->ended && !$client->tls->broken, 'in order, by close_notify');
}

# ---------------------------------------------------------------- the client ends

my $log = $server->log_size;
foreach my $how ('idle', 'in a transaction', 'in a query', 'in COPY', 'not yet logged in')
{
	foreach my $option ([%old], [])
	{
		foreach my $way ('drop', 'keep', 'nonsense')
		{
			my $client;
			if ($how eq 'not yet logged in')
			{
				$client = RawClient->open(%tcp, port => $server->pool_port);
				$client->start_tls(@$option);
			}
			else
			{
				$client = tls_client(@$option);
				$client->sql('BEGIN') if $how eq 'in a transaction';
				if ($how eq 'in COPY')
				{
					ask($client, 'COPY copied FROM STDIN');
					$client->read_until('G');
				}
				if ($how eq 'in a query')
				{
					next if $way ne 'drop';    # while it is executed nobody reads
					ask($client, 'SELECT pg_sleep(3000)');
					$server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
				}
			}
			# Whoever keeps the connection has only said that nothing follows.
			$client->send_plainly($way eq 'nonsense' ? "\x17\x03\x03\x00\x20" . 'n' x 32 : $client->tls->say_end);
			$client->drop if $way eq 'drop';
			my $version = @$option ? 'TLS 1.2' : 'TLS 1.3';
			ok(until_alone(), "$version: a client $how has ended ($way)");
			ok($server->wait_until(q{SELECT sum(active) FROM sluice.pools}, 0), 'and its backend is free');
			$client->drop if $way ne 'drop';
		}
	}
}
{
	# New keys, which nobody here would be told.
	my ($input, $output) = ("K\n", '');
	my $client = IPC::Run::start(
		[ 'openssl', 's_client', '-tls1_3', '-starttls', 'postgres', '-connect', '127.0.0.1:' . $server->pool_port ],
		'<', \$input, '>', \$output, '2>&1', IPC::Run::timer($SluiceTest::patience_s));
	ok(eval { $client->pump until $output =~ /KEYUPDATE.*closed/s; 1 } || $output =~ /KEYUPDATE/, 'a client changes its keys');
	$client->kill_kill(grace => 0);
	ok(until_alone(), 'which ends it');
}
{
	my $client = tls_client();
	my $tls = $client->tls;
	$server->sql('CREATE TABLE last_will (id int)');
	$client->send_plainly($tls->encrypt(RawClient::query('INSERT INTO last_will VALUES (1)') . RawClient::terminate()) .
		$tls->say_end);
	$client->drop;
	ok($server->wait_until('SELECT count(*) FROM last_will', 1), 'a last query is executed before the end is');
}
is($server->pool_sql('SELECT 1', %tls), 1, 'nobody else is in trouble');
unlike($server->log_since($log), qr/PANIC|crash|terminated by signal|internal error/i,
	'none of it was a trouble of the server');
ok(until_alone(), 'in the end no client is left');
# Backends keep copies of sockets until they need their numbers; they end with the server.
$server->stop('fast');
{
	my $deadline = time() + $SluiceTest::patience_s;
	sleep 0.1 while counter('TlsCurrRxSw') > $connections_before && time() < $deadline;
	cmp_ok(counter('TlsCurrRxSw'), '<=', $connections_before, 'nor a connection in the kernel');
}

done_testing();
