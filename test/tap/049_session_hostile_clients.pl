# SPDX-License-Identifier: PostgreSQL
#
# What a client can do on purpose must not bring the server down, use up what the backend has, or show the next client
# of the backend what the last one left.
use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\nwal_level = logical\n");
$server->sql('create table numbers (n int)');

# A Unix socket whose other end does not read any more gives an error to the writer and still nothing to the reader.
for my $format ('text', 'binary')
{
	my $offset = $server->log_size;
	my $client = $server->pool_raw;
	shutdown($client->socket, 0);
	$client->send_bytes(RawClient::query("copy numbers from stdin (format $format)"));
	ok($server->wait_for_log(qr/could not send data to client/, $offset), "$format COPY to a client that does not read");
	is($server->pool_sql('select 1'), '1', "the pool serves the next client");
	unlike($server->log_since($offset), qr/terminated by signal|terminating any other/, "no process has crashed");
	$client->close;
}

# Many COPYs in one query string.
{
	my $client = $server->pool_raw;
	my $pid = $client->sql('select pg_backend_pid()');
	my $copies = sub {
		my ($count) = @_;
		$client->send_bytes(RawClient::query('copy numbers from stdin;' x $count)
			  . (RawClient::copy_data("1\n") . RawClient::copy_done()) x $count);
		my $answers = join '', map { $_->{type} } $client->read_until('Z');
		is($answers, 'GC' x $count . 'Z', "$count COPYs in one query");
		return scalar(() = glob "/proc/$pid/fd/*");
	};
	my $before = $copies->(2);
	my $after = $copies->(50);
	cmp_ok($after, '<', $before + 10, 'they leave no descriptors behind');
	$client->close;
}

# The name of one client is not that of the next, whatever else they bring.
for my $options (undef, '-c work_mem=5MB', '-c application_name=own')
{
	my $expected = defined $options && $options =~ /name=(\w+)/ ? $1 : '';
	for my $same ($options, '-c work_mem=6MB')
	{
		my $named = $server->pool_raw(parameters => { application_name => 'named', options => $same });
		is($named->sql('show application_name'), 'named', 'a name of its own');
		my $nameless = $server->pool_raw(parameters => { options => $options });
		is($nameless->sql('show application_name'), $expected, 'none, or that of its options');
		is($nameless->parameter_status->{application_name}, $expected, 'and is told so');
		$_->close for $named, $nameless;
	}
}

# What administrators' functions leave in the process.
for my $mode (qw(transaction session))
{
	$server->sql("alter database postgres set sluice.pool_mode = '$mode'");
	$server->sql('select sluice.retire_backends()');
	$server->wait_until('select count(*) = 0 from sluice.backends');
	my $client = $server->pool_raw;
	$client->sql("select pg_replication_origin_create('origin of $mode')");
	$client->sql("select pg_replication_origin_session_setup('origin of $mode')");
	$client->sql("select pg_create_logical_replication_slot('slot_of_$mode', 'test_decoding', true)");
	$client->sql("select pg_backup_start('of $mode', true)");
	$client->close;
	is($server->pool_sql('select pg_replication_origin_session_is_setup()'), 'f', "$mode mode: no replication origin");
	is($server->pool_sql('select count(*) from pg_replication_slots'), '0', "$mode mode: no temporary slot");
	like(($server->pool_psql('select pg_backup_stop()'))[2], qr/backup is not in progress/, "$mode mode: no backup");
}

unlike($server->log_since(0), qr/all server processes terminated; reinitializing/, 'the server has not been started again');
$server->stop;
done_testing();
