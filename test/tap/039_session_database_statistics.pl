# SPDX-License-Identifier: PostgreSQL
#
# pg_stat_database counts clients as sessions, whichever backends serve them, and measures their time from the start of
# the backend that serves them.
use strict;
use warnings;

use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 2\n");

for my $mode (qw(transaction session))
{
	my $database = "in_${mode}_mode";
	$server->sql("create database $database");
	$server->sql("alter database $database set sluice.pool_mode = '$mode'");
	for (1 .. 5)
	{
		my $client = $server->pool_raw(dbname => $database);
		$client->sql('select pg_stat_force_next_flush()');
		$client->sql('select 1') for 1 .. 3;
		$client->close;
	}
	my $statistics = "from pg_stat_database where datname = '$database'";
	ok($server->wait_until("select sessions >= 5 $statistics"), "$mode mode: clients are counted");
	is($server->sql("select sessions $statistics"), '5', "$mode mode: each client is one session");
	is($server->sql("select session_time < extract(epoch from now() - pg_postmaster_start_time()) * 1000 * 2 $statistics"),
		't', "$mode mode: no more time than there was, for two backends");
}

$server->stop;
done_testing();
