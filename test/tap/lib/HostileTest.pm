# SPDX-License-Identifier: PostgreSQL
#
# What the tests of hostile clients share: a server that asks for passwords in
# every way, clients brought into each state of a login, and a witness of what
# must not change whatever they do.
#
#   my $test = HostileTest->new(conf => "...");          the server, and two clients that behave themselves
#   $test->server, $test->login(role)                    SluiceTest; options of RawClient for one of the roles
#   $test->tcp, $test->unix, $test->direct               options of RawClient: which way to the server
#   $test->undisturbed('after x')                        the same processes, nothing left behind, all are served
#   $test->served('while x')                             only that old and new clients are served
#   my ($bytes, $descriptors) = $test->footprint         of the dispatcher
#   $test->errors('class', 'sqlstate')                   counted until now
#   HostileTest::states()                                [name, sub { brings a RawClient there }] of a login, in order
#   $test->stuck($name, tcp => 1)                        a client in one of these states
#
# Roles: own name (trust), by_password, by_md5, by_scram; passwords are all "secret".

package HostileTest;

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RawClient;
use SluiceTest;
use Test::More;

my $me = scalar getpwuid($>);

sub new
{
	my ($class, %option) = @_;
	my $server = SluiceTest->new('main', tcp => 1, conf => <<"CONF" . ($option{conf} || ''));
max_connections = 200
sluice.max_pool_size = 3
CONF
	my $self = bless { server => $server }, $class;
	$server->sql(<<'SQL');
SET password_encryption = 'md5';
CREATE ROLE by_password LOGIN PASSWORD 'secret';
CREATE ROLE by_md5 LOGIN PASSWORD 'secret';
SET password_encryption = 'scram-sha-256';
CREATE ROLE by_scram LOGIN PASSWORD 'secret';
SQL
	my $path = $server->node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($path);
	my %method = (by_password => 'password', by_md5 => 'md5', by_scram => 'scram-sha-256');
	open my $file, '>', $path or die "$path: $!";
	foreach my $role (sort keys %method)
	{
		print $file "local all $role $method{$role}\nhost all $role 127.0.0.1/32 $method{$role}\n";
	}
	print $file $rules;
	close $file;
	$server->restart;
	$self->{witness} = RawClient->connect($self->tcp, $self->login($me));
	$self->{idle_witness} =
	  RawClient->connect($self->unix, $self->login($me), parameters => { application_name => 'idle' });
	$self->{witness}->sql($_) foreach 'BEGIN', 'CREATE TEMP TABLE kept(x int)';
	$self->{rounds} = 0;
	$self->{witness_pid} = $self->{witness}->sql('SELECT pg_backend_pid()');
	$self->{identity} = $self->identity;
	return $self;
}

sub server { return $_[0]{server} }
sub own_role { return $me }
sub tcp { my ($self) = @_; return (host => '127.0.0.1', port => $self->{server}->pool_port) }
sub unix { my ($self) = @_; return (host => $self->{server}->host, port => $self->{server}->pool_port) }
sub direct { my ($self) = @_; return (host => '127.0.0.1', port => $self->{server}->port) }
sub login { my ($self, $role) = @_; return (user => $role, dbname => 'postgres', password => 'secret') }

# A crash of any process would give most of them another number.
sub identity
{
	my ($self) = @_;
	return $self->{server}->sql(<<'SQL');
SELECT s.dispatcher_pid, s.statistician_pid, pg_postmaster_start_time(),
       (SELECT string_agg(a.backend_type || ' ' || a.pid, ', ' ORDER BY a.backend_type) FROM pg_stat_activity a
        WHERE a.backend_type IN ('checkpointer', 'background writer', 'walwriter', 'autovacuum launcher'))
FROM sluice.status s
SQL
}

sub served
{
	my ($self, $name) = @_;
	$self->{witness}->sql('INSERT INTO kept VALUES (1)');
	is(scalar $self->{witness}->sql('SELECT count(*) FROM kept'), ++$self->{rounds}, "$name: a client in a transaction goes on");
	is(scalar $self->{idle_witness}->sql('SHOW application_name'), 'idle', 'so does an idle one');
	foreach my $way ([ $self->tcp ], [ $self->unix ])
	{
		my $client = RawClient->connect(@$way, $self->login('by_scram'));
		is(scalar $client->sql('SELECT 17'), 17, 'and one that logs in now');
		$client->close;
	}
	return;
}

sub undisturbed
{
	my ($self, $name) = @_;
	my $server = $self->{server};
	$self->served($name);
	is(scalar $self->{witness}->sql('SELECT pg_backend_pid()'), $self->{witness_pid}, 'the transaction has kept its backend');
	ok($server->wait_until('SELECT count(*) = 2 FROM sluice.clients'), 'all other slots are free again');
	ok($server->wait_until('SELECT clients = 2 AND unauthenticated = 0 FROM sluice.status'), 'and so say the counts');
	ok( $server->wait_until(q{SELECT count(*) = 0 FROM sluice.backends WHERE state NOT IN ('waiting', 'lingering', 'thinking')}),
		'no backend is held');
	is($self->identity, $self->{identity}, 'no process has been replaced');
	return;
}

# Of the dispatcher: bytes in use in its memory contexts, and open descriptors.
sub footprint
{
	my ($self) = @_;
	my $server = $self->{server};
	my $pid = $server->sql('SELECT dispatcher_pid FROM sluice.status');
	my $offset = $server->log_size;
	$server->sql("SELECT pg_log_backend_memory_contexts($pid)");
	$server->wait_for_log(qr/Grand total: .* \d+ used/, $offset);
	my ($bytes) = $server->log_since($offset) =~ /Grand total: .* (\d+) used/;
	my @descriptors = glob "/proc/$pid/fd/*";
	return ($bytes, scalar @descriptors);
}

sub errors
{
	my ($self, $class, $sqlstate) = @_;
	return $self->{server}->sql(
		"SELECT coalesce(sum(count), 0) FROM sluice.errors WHERE class = '$class' AND sqlstate = '$sqlstate'");
}

sub finish
{
	my ($self) = @_;
	my $server = $self->{server};
	$self->{witness}->sql('COMMIT');
	$self->{$_}->close foreach 'witness', 'idle_witness';
	ok($server->wait_until('SELECT clients = 0 AND unauthenticated = 0 FROM sluice.status'), 'all slots are free at the end');
	unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:|terminating any other|reinitializing|exited with exit code [^01]/,
		'nothing has crashed');
	$server->stop;
	return;
}

# ---------------------------------------------------------------- states of a login

my $ssl_request = pack('NN', 8, 80877103);
my $gss_request = pack('NN', 8, 80877104);

sub startup { my ($role) = @_; return RawClient::startup_packet(user => $role, database => 'postgres') }

# The server denies encryption with one byte.
sub denied
{
	my ($client, $request) = @_;
	$client->send_bytes($request);
	$client->read_bytes(1) eq 'N' or die 'encryption was not denied';
	return;
}

# Has been asked for a password.
sub asked
{
	my ($client, $role) = @_;
	$client->send_startup(user => $role, database => 'postgres');
	my $message = $client->read_message;
	die 'no authentication request' if $message->{type} ne 'R';
	$client->{asked} = $message->{body};
	return;
}

# Has sent the first SCRAM message and got the second.
sub challenged
{
	my ($client) = @_;
	asked($client, 'by_scram');
	$client->_scram_first($client->{asked});
	my $message = $client->read_message;
	die 'no SCRAM challenge' if $message->{type} ne 'R' || unpack('N', $message->{body}) != 11;
	$client->{asked} = $message->{body};
	return;
}

# Each brings a new connection into a state in which the server waits for more.
sub states
{
	my @states = (
		[ 'nothing', sub { } ],
		[ 'half a length word', sub { $_[0]->send_bytes("\0\0") } ],
		[ 'a length word', sub { $_[0]->send_bytes(pack('N', 100)) } ],
		[ 'half a code', sub { $_[0]->send_bytes(pack('Nn', 100, 3)) } ],
		[ 'a start-up packet but for its last byte', sub { $_[0]->send_bytes(substr(startup('by_scram'), 0, -1)) } ],
		[ 'half a cancel request', sub { $_[0]->send_bytes(pack('NN', 16, 80877102)) } ],
		[ 'a cancel request but for its last byte', sub { $_[0]->send_bytes(substr(pack('NNNN', 16, 80877102, 1, 1), 0, -1)) } ],
		[ 'half an SSLRequest', sub { $_[0]->send_bytes(substr($ssl_request, 0, 7)) } ],
		[ 'an SSLRequest', sub { denied($_[0], $ssl_request) } ],
		[ 'a GSSENCRequest', sub { denied($_[0], $gss_request) } ],
		[ 'both requests', sub { denied($_[0], $_) foreach $gss_request, $ssl_request } ],
		[
			'half a start-up packet behind an SSLRequest',
			sub { denied($_[0], $ssl_request); $_[0]->send_bytes(substr(startup('by_scram'), 0, 20)) }
		]);
	foreach my $role ('by_password', 'by_md5', 'by_scram')
	{
		push @states, [ "$role: asked", sub { asked($_[0], $role) } ],
		  [ "$role: the type of the answer", sub { asked($_[0], $role); $_[0]->send_bytes('p') } ],
		  [ "$role: the header of the answer", sub { asked($_[0], $role); $_[0]->send_bytes('p' . pack('N', 100)) } ],
		  [ "$role: half the answer", sub { asked($_[0], $role); $_[0]->send_bytes('p' . pack('N', 100) . 'SCRAM-SHA-256') } ];
	}
	push @states, [ 'SCRAM: challenged', sub { challenged($_[0]) } ],
	  [ 'SCRAM: half the header of the proof', sub { challenged($_[0]); $_[0]->send_bytes("p\0") } ],
	  [ 'SCRAM: half the proof', sub { challenged($_[0]); $_[0]->send_bytes('p' . pack('N', 100) . 'c=biws,r=') } ],
	  [
		'SCRAM: nothing in the first message',
		sub {
			asked($_[0], 'by_scram');
			$_[0]->send_message('p', "SCRAM-SHA-256\0" . pack('N', 0xffffffff));
			$_[0]->read_message;
		}
	  ];
	return @states;
}

# Where a client can go on sending for long: [name, sub { brings it there }, bytes to be sent one after the other].
sub long_ways
{
	my $packet = RawClient::startup_packet(user => 'by_scram', database => 'postgres', application_name => 'x' x 9000);
	return (
		[ 'a start-up packet', sub { }, $packet ],
		[ 'a start-up packet behind a GSSENCRequest', sub { denied($_[0], $gss_request) }, $packet ],
		[ 'a password', sub { asked($_[0], 'by_password') }, 'p' . pack('N', 60000) . ('x' x 59996) ],
		[ 'an MD5 answer', sub { asked($_[0], 'by_md5') }, 'p' . pack('N', 60000) . ('x' x 59996) ],
		[ 'a SASL mechanism', sub { asked($_[0], 'by_scram') }, 'p' . pack('N', 1024) . ('x' x 1020) ],
		[ 'a SCRAM proof', sub { challenged($_[0]) }, 'p' . pack('N', 1024) . ('x' x 1020) ]);
}

# A client in a state of the lists above, over TCP or the Unix socket.
sub stuck
{
	my ($self, $state, %option) = @_;
	my $client = RawClient->open($option{unix} ? $self->unix : $option{direct} ? $self->direct : $self->tcp);
	$state->[1]->($client);
	return $client;
}

1;
