# SPDX-License-Identifier: PostgreSQL
#
# Many clients with prepared statements of their own on few backends: each finds its statement wherever it is served.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 3\nsluice.acquire_timeout = 0\n");

my @clients = map { $server->pool_raw } 1 .. 40;

# All use the same names, half of them for another text.
foreach my $i (0 .. $#clients)
{
	my $text = $i % 2 ? "SELECT \$1::int + $i" : 'SELECT $1::int * 2';
	my @messages = $clients[$i]->exchange(RawClient::parse('mine', $text, 23) . RawClient::sync());
	is(join(' ', map { $_->{type} } @messages), '1 Z', 'client prepares') if $i < 2;
}
my ($wrong, %pids) = (0);
foreach my $round (1 .. 20)
{
	foreach my $client (@clients)
	{
		$client->send_bytes(RawClient::bind('', 'mine', [$round]) . RawClient::execute('') . RawClient::parse('', 'SELECT pg_backend_pid() FROM pg_sleep(0.0005)')
			  . RawClient::bind('', '', []) . RawClient::execute('') . RawClient::sync());
	}
	foreach my $i (0 .. $#clients)
	{
		my ($value, $pid) = map { (RawClient::row_fields($_))[0] } grep { $_->{type} eq 'D' } $clients[$i]->read_until_ready;
		my $expected = $i % 2 ? $round + $i : $round * 2;
		$wrong++ if !defined $value || $value != $expected;
		$pids{$pid}++ if defined $pid;
	}
}
is($wrong, 0, 'every client executes its own statement');
cmp_ok(scalar(keys %pids), '<=', 3, 'on a few backends');
cmp_ok(scalar(keys %pids), '>=', 2, 'but not on one');

# They outlive all backends.
$server->sql('SELECT sluice.retire_backends()');
my @values = map {
	my ($row) = grep { $_->{type} eq 'D' } $_->exchange(RawClient::bind('', 'mine', [100]) . RawClient::execute('') . RawClient::sync());
	$row ? (RawClient::row_fields($row))[0] : 'none'
} @clients[ 0, 1 ];
is("@values", '200 101', 'statements outlive the backends they were prepared on');

# A change of the table is seen everywhere, by whoever prepared before it and by whoever prepares after it.
$server->sql('CREATE TABLE item (a int)');
$server->sql('INSERT INTO item VALUES (1)');
$_->exchange(RawClient::parse('sum', 'SELECT sum(a) FROM item') . RawClient::sync()) foreach @clients;
$server->sql('ALTER TABLE item ALTER a TYPE bigint');
$server->sql('INSERT INTO item VALUES (5000000000)');
my @unexpected = (0, 0);
foreach my $round (1 .. 3)
{
	foreach my $i (0 .. $#clients)
	{
		my $anew = $i % 2;
		if ($anew && $round == 1)
		{
			$clients[$i]->exchange(RawClient::close_statement('sum') . RawClient::parse('sum', 'SELECT sum(a) FROM item') . RawClient::sync());
		}
		my @messages = $clients[$i]->exchange(RawClient::bind('', 'sum', []) . RawClient::execute('') . RawClient::sync());
		my ($error) = map { RawClient::error_fields($_) } grep { $_->{type} eq 'E' } @messages;
		my ($row) = grep { $_->{type} eq 'D' } @messages;
		$unexpected[$anew]++
		  unless $anew
		  ? $row && (RawClient::row_fields($row))[0] eq '5000000001'
		  : $error && "$error->{C} $error->{M}" eq '0A000 cached plan must not change result type';
	}
}
is($unexpected[0], 0, 'a result that has changed is an error everywhere');
is($unexpected[1], 0, 'unless the statement was prepared anew');

$_->close foreach @clients;
ok(until_pool($server, 'clients = 0 AND active = 0 AND waiting = 0'), 'nothing is left over');

$server->stop;
done_testing();
