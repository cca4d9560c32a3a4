# SPDX-License-Identifier: PostgreSQL
#
# COPY in both directions and both protocols, with its data before, behind and
# in the middle of everything else.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = Dialogue::server('main');
my $dialogue = Dialogue->new($server);
my $setup = 'DROP TABLE IF EXISTS item; CREATE TABLE item (id int PRIMARY KEY, body text)';

sub simple { return RawClient::query($_[0]) }
sub data { return RawClient::copy_data($_[0]) }
sub done { return RawClient::copy_done() }
sub failed { return RawClient::copy_fail($_[0]) }
sub extended { return RawClient::parse('', $_[0]) . RawClient::bind('', '', []) . RawClient::execute('') }
sub S { return RawClient::sync() }

my $in = simple('COPY item FROM STDIN');
my $look = simple('SELECT count(*), sum(id), max(body) FROM item');

my @lines = $dialogue->same('COPY FROM STDIN, all in one step', [ $in . data("1\tone\n2\ttwo\n") . data("3\tthree\n")
	. done(), $look ], setup => $setup);
is_deeply([ @lines[ 0 .. 2 ] ], [ 'G \x00\x00\x02\x00\x00\x00\x00', 'CommandComplete COPY 3', 'ReadyForQuery I' ],
	'and the answer is the right one');
$dialogue->same('COPY FROM STDIN, data torn across messages', [ $in . data("1\to") . data("n") . data("e\n2")
	. data('') . data("\ttwo\n") . done(), $look ], setup => $setup);
$dialogue->same('COPY FROM STDIN, nothing', [ $in . done(), $in . data("\\.\n") . done(), $look ], setup => $setup);
$dialogue->same('COPY FROM STDIN of several times 8 kB behind the query, and queries behind it', [
		$in . join('', map { data("$_\t" . ('x' x ($_ % 700)) . "\n") } 1 .. 400) . done() . simple('SELECT 1')
			. $look . simple('SELECT 2') ], setup => $setup);
$dialogue->same('COPY FROM STDIN in one large message', [ $in . data(join '', map { "$_\t" . ('y' x 100)
	. "\n" } 1 .. 5000) . done() . $look ], setup => $setup);
# The place where the server's own buffer ends must not matter.
foreach my $length (8170 .. 8200)
{
	next if $length % 3 && ($length < 8180 || $length > 8196);
	my $row = data("1\t" . ('z' x ($length - length($in) - 5 - 3)) . "\n");
	$dialogue->same("COPY data that ends at byte $length", [ $in . $row . done()
		. simple('SELECT length(body) FROM item') ], setup => $setup, skip => [ 'in session mode',
		'a backend per step' ]);
}
$dialogue->same('CopyFail', [ $in . data("1\tone\n") . failed('no more'), $look, $in . failed(''), $look ],
	setup => $setup);
$dialogue->same('an error in the data, with more data coming', [ $in . data("1\tone\n") . data("x\tbad\n") . join('',
	map { data("$_\tmore\n") } 10 .. 2000) . done(), $look . simple('SELECT 1') ], setup => $setup);
$dialogue->same('an error before the data', [ [ simple('COPY nowhere FROM STDIN') . data("1\n") . done() . $look, 2 ],
	simple('SELECT 1') ], setup => $setup);
$dialogue->same('an error at the end of the data', [ $in . data("1\tone\n1\tagain\n") . done(), $look,
	simple('BEGIN'), $in . data("1\tone\n1\tagain\n") . done(), $look, simple('ROLLBACK') ], setup => $setup);
$dialogue->same('COPY in a transaction', [ simple('BEGIN'), $in . data("1\tone\n") . done(), $look,
	simple('ROLLBACK'), $look,
		simple('BEGIN; COPY item FROM STDIN; COMMIT; SELECT 5') . data("7\tseven\n") . done(), $look ],
			setup => $setup);
$dialogue->same('two COPYs in one string', [ simple('COPY item FROM STDIN; COPY item FROM STDIN; SELECT 1')
	. data("1\ta\n") . done() . data("2\tb\n") . done(), $look,
		simple('COPY item FROM STDIN; SELECT 1/0') . data("3\ta\n") . done(), $look ], setup => $setup);
$dialogue->same('Flush and Sync among COPY data are ignored', [ [ $in . data("1\ta\n") . RawClient::flush() . S()
	. data("2\tb\n") . S() . done(), 1 ], $look ], setup => $setup);
$dialogue->same('another message among COPY data', [ [ $in . data("1\ta\n") . simple('SELECT 1') . data("2\tb\n")
	. done(), 1 ] ], setup => $setup);
$dialogue->same('COPY messages where there is no COPY', [ data('x') . done() . failed('y') . simple('SELECT 1'),
	data("1\n") . extended('SELECT 2') . S() ], setup => $setup);
$dialogue->same('COPY in the extended protocol', [ [ extended('COPY item FROM STDIN') . data("1\tone\n") . done()
	. S(), 1 ], $look, [ extended('COPY item FROM STDIN') . S() . data("2\ttwo\n") . done() . S(), 1 ],
		$look, [ extended('COPY item FROM STDIN') . data("x\n") . data("3\tthree\n") . done() . S(), 1 ], $look,
			[ extended('COPY item FROM STDIN') . failed('no') . S(), 1 ], extended('COPY item TO STDOUT') . S(),
		[ extended('SELECT 1') . extended('COPY item FROM STDIN') . data("9\tnine\n") . done()
			. extended('SELECT count(*) FROM item') . S(), 1 ] ], setup => $setup);
$dialogue->same('COPY TO STDOUT',
	[ simple(q{COPY (SELECT i, repeat('x', i % 50) FROM generate_series(1, 3000) i) TO STDOUT}),
	simple(q{COPY (SELECT 1, NULL, E'a\tb') TO STDOUT (FORMAT csv, HEADER)}),
		simple('COPY (SELECT 1) TO STDOUT; SELECT 2; COPY (SELECT 3) TO STDOUT'),
			simple('COPY (SELECT 1/0) TO STDOUT'),
			simple('COPY (SELECT 1/(5-i) FROM generate_series(1, 9) i) TO STDOUT'), simple('COPY item TO STDOUT') ],
	setup => $setup);
my $binary = "PGCOPY\n\377\r\n\0" . pack('NN', 0, 0) . pack('nNNNa3', 2, 4, 77, 3, 'bin') . pack('n', 65535);
$dialogue->same('binary COPY', [ simple('COPY item FROM STDIN (FORMAT binary)') . data(substr $binary, 0, 5)
	. data(substr $binary, 5) . done(), $look, simple('COPY item TO STDOUT (FORMAT binary)'),
		simple('COPY item FROM STDIN (FORMAT binary)') . data('garbage and more') . done(),
			simple('COPY item FROM STDIN (FORMAT binary)') . data(substr $binary, 0, 30) . done(), $look ],
			setup => $setup);
$dialogue->same('COPY with a server-side error while it waits',
	[ simple('DO $$BEGIN EXECUTE $x$COPY item FROM STDIN$x$; END$$'), $look ], setup => $setup);
$dialogue->same('many COPYs, one behind the other', [ map { ($in . data("$_\tn\n") . done())
	. simple('SELECT 1') } 1 .. 30 ], setup => $setup);

# A client that ends its stream in the middle of COPY.
my $backend = $server->pool_sql('SELECT pg_backend_pid()');
foreach my $how ('drop', 'end of stream')
{
	$server->sql($setup);
	my $client = $server->pool_raw;
	$client->send_bytes($in . data("1\tone\n") . data("2\ttwo\n"));
	$client->read_until('G');
	$how eq 'drop' ? $client->drop : shutdown($client->socket, 1);
	$client->at_end_of_stream if $how ne 'drop';
	ok($server->wait_until(q{SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass}, 0),
		"locks of the COPY are released ($how)");
	is($server->sql('SELECT count(*) FROM item'), '0', 'and its rows are gone');
}
is($server->pool_sql("SELECT count(*) FROM sluice.backends WHERE pid = $backend"), '1', 'the backend lives on');

$server->stop;
done_testing();
