# SPDX-License-Identifier: PostgreSQL
#
# What the tests of pools and their views share: clients that do several things at once, and a gate that keeps
# backends busy for exactly as long as a test wants.
#
#   my $gate = PoolTest::Gate->new($server, dbname => 'postgres');
#       closed from now on: a pooled query with $gate->wait in it blocks until $gate->open
#   ask($client, $sql)              sends a simple query and does not wait
#   answer($client)                 reads its answer: first field of the first row; dies on an error
#   outcome($client)                the same, but an error is returned as a hash of its fields ({} for a closed stream)
#   begin_connect($server, ...)     a client that has sent its start-up packet; $client->authenticate does the rest
#   pool($server, $columns, ...)    these columns of a row of sluice.pools, joined by "|" (dbname, user)
#   until_pool($server, $condition, ...)    waits until the condition on that row holds

package PoolTest;

use strict;
use warnings;

use Exporter qw(import);
use RawClient;
use Test::More;

our @EXPORT = qw(ask answer outcome begin_connect pool until_pool own_name);

sub own_name { return scalar getpwuid($>) }

sub ask
{
	my ($client, $sql) = @_;
	return $client->send_bytes(RawClient::query($sql));
}

sub outcome
{
	my ($client) = @_;
	my ($value, $error);
	foreach my $message ($client->read_until_ready)
	{
		$error = RawClient::error_fields($message) if $message->{type} eq 'E' && !defined $error;
		$error = {} if $message->{type} eq 'EOF' && !defined $error;
		($value) = RawClient::row_fields($message) if $message->{type} eq 'D' && !defined $value;
	}
	return defined $error ? $error : $value;
}

sub answer
{
	my ($client) = @_;
	my $answer = outcome($client);
	die 'unexpected error: ' . ($answer->{M} || 'the connection was closed') . "\n" if ref $answer;
	return $answer;
}

sub begin_connect
{
	my ($server, %option) = @_;
	my %parameter = (
		host => $server->host,
		port => $server->pool_port,
		user => own_name(),
		dbname => 'postgres',
		%option);
	my $client = RawClient->open(%parameter);
	$client->send_startup(
		user => $parameter{user},
		database => $parameter{dbname},
		%{ $parameter{parameters} || {} });
	return $client;
}

sub _which
{
	my (%option) = @_;
	my $dbname = $option{dbname} || 'postgres';
	my $user = $option{user} || own_name();
	return "database = '$dbname' AND role = '$user'";
}

sub pool
{
	my ($server, $columns, %option) = @_;
	return $server->sql("SELECT $columns FROM sluice.pools WHERE " . _which(%option));
}

# The test that calls this fails by itself when the wait was in vain.
sub until_pool
{
	my ($server, $condition, %option) = @_;
	my $which = _which(%option);
	my $done = $server->wait_until("SELECT coalesce((SELECT $condition FROM sluice.pools WHERE $which), false)");
	diag($server->sql("SELECT p FROM sluice.pools p"), "\n", $server->sql("SELECT b FROM sluice.backends b")) unless $done;
	return $done;
}

package PoolTest::Gate;

sub new
{
	my ($class, $server, %option) = @_;
	my $self = bless { direct => $server->raw(%option) }, $class;
	return $self->shut;
}

sub shut
{
	my ($self) = @_;
	$self->{direct}->sql('SELECT pg_advisory_lock(4711)');
	return $self;
}

sub open
{
	my ($self) = @_;
	$self->{direct}->sql('SELECT pg_advisory_unlock(4711)');
	return;
}

# To be used as the whole FROM list: "SELECT 1 FROM <wait>".
sub wait { return 'pg_advisory_xact_lock_shared(4711)' }

1;
