# SPDX-License-Identifier: PostgreSQL
#
# Messages of many megabytes in both directions, and those that are too long.
# SLUICE_TEST_LARGE_MB says how many; 64 by default, and up to 500 make sense.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $megabytes = $ENV{SLUICE_TEST_LARGE_MB} || 64;
my $bytes = $megabytes * 1024 * 1024;

my $server = Dialogue::server('main');
my $client = $server->pool_raw;
my $backend = $client->sql('SELECT pg_backend_pid()');
my $text = 'x' x $bytes;

is($client->sql("SELECT length('$text')"), $bytes, "a query of $megabytes MB");

my @messages = $client->exchange(RawClient::parse('',
	'SELECT length($1::text), md5($1) = md5(repeat($x$x$x$, $2::int))') . RawClient::bind('', '', [ $text, $bytes ])
	. RawClient::execute('') . RawClient::sync());
my ($row) = map { [ RawClient::row_fields($_) ] } grep { $_->{type} eq 'D' } @messages;
is_deeply($row, [ $bytes, 't' ], "a parameter of $megabytes MB");

@messages = $client->exchange(RawClient::query("SELECT repeat('y', $bytes)"));
($row) = map { [ RawClient::row_fields($_) ] } grep { $_->{type} eq 'D' } @messages;
ok(defined $row->[0] && $row->[0] eq 'y' x $bytes, "a result of $megabytes MB in one row");
undef @messages;
undef $row;

$server->sql('CREATE TABLE big (body text)');
my $line = ('z' x 999) . "\n";
my $lines = int($bytes / length $line);
@messages = $client->exchange(RawClient::query('COPY big FROM STDIN') . RawClient::copy_data($line x $lines)
	. RawClient::copy_done());
is(RawClient::describe($messages[1]), "CommandComplete COPY $lines", "COPY data of $megabytes MB in one message");
undef @messages;

# A client that reads slowly gets everything, and the backend waits for it.
$client->send_bytes(RawClient::query('SELECT body FROM big'));
my ($rows, $short) = (0, 0);
while (1)
{
	my $message = $client->read_message;
	if ($message->{type} eq 'D')
	{
		$rows++;
		$short++ if length $message->{body} != 999 + 6;
	}
	select undef, undef, undef, 0.01 if $rows % 20000 == 1;
	last if $message->{type} =~ /Z|EOF/;
}
is($rows, $lines, "$megabytes MB in many rows");
is($short, 0, 'all complete');
is($server->sql("SELECT count(*) FROM sluice.backends WHERE pid = $backend"), '1', 'no backend was lost over all that');

# Results and queries of many clients that do not read, while others go on.
my @lazy = map { $server->pool_raw } 1 .. 1;
$_->send_bytes(RawClient::query('SELECT body FROM big')) foreach @lazy;
is($server->pool_raw->sql('SELECT 1'), '1', 'a client that does not read its result keeps nobody from working');
$_->drop foreach @lazy;
ok($server->wait_until(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT body%' AND state = 'active'},
	0), 'and when it goes its query ends');

# What the server does not accept.
my $dialogue = Dialogue->new($server);
$dialogue->same('a message above the limit of the server', [ [ 'Q' . pack('N', 0x40000000) . 'SELECT 1', 1 ] ]);
$dialogue->same('a length that is negative', [ [ 'Q' . pack('N', 0xFFFFFFFF) . 'SELECT 1', 1 ] ]);
$dialogue->same('a Sync above its own limit', [ [ 'S' . pack('N', 20000) . 'x', 1 ] ]);
is($server->pool_sql('SELECT 1'), '1', 'and the pool goes on');

$server->stop;
done_testing();
