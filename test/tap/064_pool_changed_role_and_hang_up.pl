# SPDX-License-Identifier: PostgreSQL
#
# What a backend knew when it started must not outlive the truth: a role that is no superuser any more.  And a client
# that closes its sending side while nobody looks at it is answered, and forgotten.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\n");

# --- a superuser who is one no more
$server->sql('CREATE ROLE chief LOGIN SUPERUSER');
my $before = $server->pool_raw(user => 'chief');
is($before->sql('SHOW is_superuser'), 'on', 'the role is a superuser');
$before->close;
$server->sql('ALTER ROLE chief NOSUPERUSER');
my $after = $server->pool_raw(user => 'chief');
is($after->parameter_status->{is_superuser}, 'off', 'after ALTER ROLE ... NOSUPERUSER a new client is told so');
is($after->sql('SHOW is_superuser'), 'off', 'and it is so');
is($after->sql_error('SET SESSION AUTHORIZATION ' . own_name())->{C}, '42501', 'it cannot become anybody else');
$after->close;
$server->sql('ALTER ROLE chief SUPERUSER');
my $again = $server->pool_raw(user => 'chief');
is($again->sql('SHOW is_superuser'), 'on', 'and the way back');
$again->close;

# --- hanging up while idle, with a last command on the way
$server->sql('CREATE TABLE said(what text)');
my @others = map { $server->pool_raw } 1 .. 3;
$_->sql('SELECT 1') foreach @others, @others;
foreach my $round (1 .. 20)
{
	my $client = $server->pool_raw;
	$client->sql('SELECT 1');
	$others[0]->sql('SELECT 2');    # the pool's only backend is elsewhere now
	$client->send_bytes(RawClient::query("INSERT INTO said VALUES ('$round')"));
	shutdown($client->socket, 1);
	if ($round % 2)
	{
		# Answered or, if it counted as lost while its command ran, cancelled: the connection ends either way.
		my $message;
		do { $message = $client->read_message } until $message->{type} eq 'EOF';
		pass("round $round: the connection ends");
	}
	else { $client->drop }
}
ok($server->wait_until('SELECT count(*) = 3 FROM sluice.clients'), 'nobody is left behind');
is($_->sql('SELECT 3'), '3', 'the others are served') foreach @others;

done_testing();
