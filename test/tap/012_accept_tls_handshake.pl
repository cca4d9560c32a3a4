# SPDX-License-Identifier: PostgreSQL
#
# The first bytes of clients that want TLS: in every order and in every size,
# wrong ones, none at all, and too many of them.

use strict;
use warnings;

use Certificates;
use PoolTest;
use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);
use TlsLayer;

my $files = Certificates->new;
my $server = SluiceTest->new('main', tcp => 1, conf => $files->conf('server') . <<'CONF');
sluice.max_pool_size = 1
CONF
my %direct_port = (host => '127.0.0.1', port => $server->port);
my %pooled = (host => '127.0.0.1', port => $server->pool_port);
my ($ssl_request, $gss_request) = (pack('NN', 8, 80877103), pack('NN', 8, 80877104));
my %login = (user => own_name(), database => 'postgres');

# Until this much is counted: what the client sees comes before.
sub until_counted
{
	my ($pattern, $before) = @_;
	return $server->wait_until("SELECT coalesce(sum(count), 0) > $before FROM sluice.errors WHERE $pattern");
}

sub counted
{
	my ($pattern) = @_;
	return $server->sql("SELECT coalesce(sum(count), 0) FROM sluice.errors WHERE $pattern");
}

sub finishes
{
	my ($client, $name) = @_;
	$client->send_startup(%login);
	$client->authenticate;
	is($client->error, undef, "$name: the client is let in");
	is(scalar $client->sql('SELECT 42'), 42, "$name: and served");
	$client->close;
	return;
}

sub fails_with
{
	my ($client, $name, $regexp, $log) = @_;
	ok($client->at_end_of_stream, "$name: the connection ends");
	ok($server->wait_for_log($regexp, $log), "$name: the log says why");
	return;
}

# ---------------------------------------------------------------- pieces

{
	my $client = RawClient->open(%pooled);
	foreach my $byte (split //, $ssl_request) { $client->send_bytes($byte); sleep 0.002; }
	is($client->read_bytes(1), 'S', 'a request byte by byte');
	my $tls = TlsLayer->new;
	$tls->shake_hands('');
	foreach my $byte (split //, $tls->outgoing) { $client->send_bytes($byte); sleep 0.002; }
	ok($client->finish_tls($tls), 'a ClientHello byte by byte');
	foreach my $byte (split //, RawClient::startup_packet(%login)) { $client->send_bytes($byte); }
	$client->authenticate;
	is($client->error, undef, 'a start-up packet of which each byte is a TLS record');
	is(scalar $client->sql('SELECT 1'), 1, 'and the client is served');
	$client->close;
}
{
	# Start-up packet, query and goodbye in the flight that ends the handshake.
	my $client = RawClient->open(%pooled);
	$client->send_bytes($ssl_request);
	$client->read_bytes(1);
	my $tls = TlsLayer->new;
	my ($done, $received) = (0, '');
	while (!$done)
	{
		$done = $tls->shake_hands($received);
		last if $done;
		$client->send_bytes($tls->outgoing);
		$received = $client->read_bytes(1);
	}
	my $flight = $tls->outgoing;
	my $session = RawClient::startup_packet(%login)
	  . RawClient::query('SELECT 7') . RawClient::query('SELECT 8') . RawClient::terminate();
	$client->send_bytes($flight . $tls->encrypt($session));
	my $answer = '';
	while ((my $piece = $client->read_bytes(1)) ne '') { $answer .= $tls->decrypt($piece); }
	like($answer, qr/D\0\0\0\x0b\0\x01\0\0\0\x017.*D\0\0\0\x0b\0\x01\0\0\0\x018/s,
		'everything at once behind the handshake is executed');
}

# ---------------------------------------------------------------- direct TLS

{
	my $client = RawClient->open(%pooled);
	ok($client->start_tls(direct => 1, alpn => ['postgresql']), 'a client may begin with the handshake');
	is($client->tls->alpn, 'postgresql', 'if it names the protocol');
	finishes($client, 'direct TLS');

	$client = RawClient->open(%pooled);
	ok($client->start_tls(direct => 1, alpn => [ 'h2', 'postgresql' ]), 'among others');
	finishes($client, 'direct TLS with several protocols');

	$client = RawClient->open(%pooled);
	ok($client->start_tls(alpn => ['postgresql']), 'one that asks for TLS may name it, too');
	finishes($client, 'requested TLS with the protocol');

	my $log = $server->log_size;
	$client = RawClient->open(%pooled);
	my $begun = $client->start_tls(direct => 1);
	$client->send_startup(%login) if $begun;
	fails_with($client, 'without a protocol',
		qr/received direct SSL connection request without ALPN protocol negotiation extension/, $log);

	foreach my $asks (0, 1)
	{
		$log = $server->log_size;
		$client = RawClient->open(%pooled);
		ok(!$client->start_tls(direct => !$asks, alpn => ['http/1.1']),
			'another protocol is refused' . ($asks ? ' after a request' : ''));
		fails_with($client, 'another protocol', qr/could not accept SSL connection: no application protocol/, $log);
	}
	$client = RawClient->open(host => $server->host, port => $server->pool_port);
	ok(!$client->start_tls(direct => 1, alpn => ['postgresql']), 'there is none over a Unix socket');
}

# ---------------------------------------------------------------- requests in any order

foreach my $port ([ 'direct', \%direct_port ], [ 'pooled', \%pooled ])
{
	my ($which, $where) = @$port;
	my $client = RawClient->open(%$where);
	# The server's own port may have been built with GSS.
	if ($which eq 'pooled')
	{
		$client->send_bytes($gss_request);
		is($client->read_bytes(1), 'N', 'GSS is denied');
		ok($client->start_tls, 'TLS is not, behind it');
		finishes($client, 'GSS before TLS');
	}

	foreach my $request ($ssl_request, $gss_request)
	{
		my $name = $request eq $ssl_request ? 'SSL' : 'GSS';
		$client = RawClient->open(%$where);
		ok($client->start_tls, "$which port: TLS");
		$client->send_bytes($request);
		my ($error) = grep { $_->{type} eq 'E' } $client->read_until('E');
		is($error && RawClient::error_fields($error)->{M}, 'unsupported frontend protocol 1234.'
			  . ($name eq 'SSL' ? 5679 : 5680) . ': server supports 3.0 to 3.0', "$which port: no request for $name inside");
		$client->drop;
	}
}

# ---------------------------------------------------------------- bytes that do not belong there

{
	my $log = $server->log_size;
	my $before = counted(q{class = 'protocol'});
	my $client = RawClient->open(%pooled);
	# A query that somebody on the way has slipped in must not be seen as the client's.
	$client->send_bytes($ssl_request . RawClient::startup_packet(%login) . RawClient::query('SELECT 1'));
	is($client->read_bytes(1), 'S', 'a request with plain bytes behind it');
	my $answer = $client->read_bytes(1000);
	unlike($answer, qr/[RZ]\0\0\0/, 'gets no answer of the session');
	ok($server->wait_for_log(qr/could not accept SSL connection/, $log), 'but an end');
	ok(until_counted(q{class = 'protocol'}, $before), 'that is counted');
}
{
	my $log = $server->log_size;
	my $client = RawClient->open(%pooled);
	$client->send_bytes($ssl_request);
	$client->read_bytes(1);
	$client->send_bytes("GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n");
	fails_with($client, 'garbage instead of a ClientHello', qr/could not accept SSL connection/, $log);

	$log = $server->log_size;
	$client = RawClient->open(%pooled);
	$client->send_bytes($ssl_request);
	$client->read_bytes(1);
	$client->drop;
	ok($server->wait_for_log(qr/could not accept SSL connection: EOF detected/, $log),
		'of a client that hangs up it says that');

	$log = $server->log_size;
	$client = RawClient->open(%pooled);
	$client->send_bytes("\x16\x03\x01\xff\xff" . 'z' x 70000);
	fails_with($client, 'a record that is too long', qr/could not accept SSL connection/, $log);
	is($server->pool_sql('SELECT 1', host => '127.0.0.1', sslmode => 'require'), 1, 'others do not notice');
}

# ---------------------------------------------------------------- the stuck and the slow

{
	# Each stands still somewhere else; those behind them are served all the same.
	my @stuck = map { RawClient->open(%pooled) } 1 .. 20;
	foreach my $i (0 .. $#stuck)
	{
		my $tls = TlsLayer->new;
		$tls->shake_hands('');
		my $hello = $tls->outgoing;
		$stuck[$i]->send_bytes($ssl_request);
		$stuck[$i]->read_bytes(1);
		$stuck[$i]->send_bytes(substr $hello, 0, $i * length($hello) / $#stuck);
	}
	is($server->pool_sql('SELECT 1', host => '127.0.0.1', sslmode => 'require'), 1,
		'twenty handshakes that stand still keep nobody waiting');
	is($server->sql('SELECT count(*) FROM sluice.clients WHERE state = \'authenticating\''), 20, 'and go on standing');
	$_->drop foreach @stuck;
	ok($server->wait_until('SELECT count(*) FROM sluice.clients', 0), 'until they leave');
}
{
	my $before = counted(q{class = 'authentication' AND sqlstate = '57014'});
	my $log = $server->log_size;
	$server->reload_with('authentication_timeout', 2);
	# The dispatcher reads it a moment later than others; a client that is there before has the former minute.
	my $client = RawClient->open(%pooled);
	$client->send_bytes($ssl_request);
	$client->read_bytes(1);
	my $tls = TlsLayer->new;
	$tls->shake_hands('');
	$client->send_bytes(substr $tls->outgoing, 0, 50);
	ok($client->at_end_of_stream, 'a handshake that does not go on is given up after authentication_timeout');
	ok($server->wait_for_log(qr/canceling authentication due to timeout/, $log), 'the log says so');
	ok(until_counted(q{class = 'authentication' AND sqlstate = '57014'}, $before), 'and it is counted');

	$client = RawClient->open(%pooled);
	ok($client->start_tls, 'a handshake that ends');
	ok($client->at_end_of_stream, 'and nothing behind it: likewise');
}
$server->stop;

# ---------------------------------------------------------------- no descriptors left

{
	# Clients have the numbers from a base on, and 64 are spare; relays share what is above the clients.
	my $small = SluiceTest->new('small', tcp => 1, conf => $files->conf('server') . <<'CONF');
sluice.max_clients = 60
sluice.kernel_tls = off
sluice.max_pool_size = 1
sluice.max_backends = 2
CONF
	my $client = $small->pool_raw;
	my $pid = $small->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sluice dispatcher'});
	# The client is the first: its number is the base.
	my ($base) = sort { $b <=> $a } map { m{/(\d+)$} ? $1 : () } glob "/proc/$pid/fd/*";
	$client->close;
	$small->stop;
	my $limit = $base + 60 + 64;
	my ($data, $log) = ($small->node->data_dir, $small->node->logfile);
	is(system('bash', '-c', "ulimit -n $limit && exec pg_ctl -w -D '$data' -l '$log' start >/dev/null"), 0,
		"a server with a limit of $limit files");
	$small->node->_update_pid(1);
	$small->wait_for_pool;
	my $offset = $small->log_size;
	my (@clients, $refused);
	while (@clients < 60)
	{
		my $next = RawClient->open(host => '127.0.0.1', port => $small->pool_port);
		$next->send_bytes($ssl_request);
		my $answer = $next->read_bytes(1);
		if ($answer ne 'S') { $refused = $answer . $next->read_bytes(1000); last; }
		last unless $next->finish_tls(TlsLayer->new);
		$next->send_startup(%login);
		$next->authenticate;
		last if defined $next->error;
		push @clients, $next;
	}
	is(scalar @clients, 32, 'there are places for some clients with TLS, and no more');
	like($refused, qr/^E.*\0C53300\0.*sorry, too many clients already/s, 'the next hears so in plain words');
	ok($small->wait_for_log(qr/too many clients with SSL: no descriptors left for another/, $offset),
		'the log gives the reason');
	is($small->sql(q{SELECT count > 0 FROM sluice.errors WHERE class = 'limit' AND sqlstate = '53300'}), 't',
		'it is counted');
	is($small->pool_sql('SELECT 1', host => '127.0.0.1', sslmode => 'disable'), 1, 'those who do without are served');
	is(join('', map { scalar $_->sql('SELECT 1') } @clients), '1' x @clients, 'and those with TLS go on');
	(shift @clients)->close;
	ok($small->wait_until('SELECT count(*) FROM sluice.clients', scalar @clients), 'when one leaves');
	is($small->pool_sql('SELECT 1', host => '127.0.0.1', sslmode => 'require'), 1, 'another can have its place');
	$_->drop foreach @clients;
	$small->stop;
}

done_testing();
