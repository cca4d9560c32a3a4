# SPDX-License-Identifier: PostgreSQL
#
# The function call message, as the server answers it.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = Dialogue::server('main');
my $dialogue = Dialogue->new($server);

sub simple { return RawClient::query($_[0]) }
sub oid { return $server->sql("SELECT '$_[0]'::regprocedure::oid") }
sub call { return RawClient::function_call(@_) }

my $int4pl = oid('int4pl(integer,integer)');
my $upper = oid('upper(text)');
my $div = oid('int4div(integer,integer)');
my $generate = oid('generate_series(integer,integer)');

my @lines = $dialogue->same('text and binary', [
		call($int4pl, [ 3, 4 ]), call($int4pl, [ pack('N', 5), pack('N', 6) ], argument_formats => [1],
			result_format => 1),
		call($int4pl, [ pack('N', 7), 8 ], argument_formats => [ 1, 0 ]), call($upper, ['abc']), call($upper,
			[undef]) ]);
is($lines[0], 'V \x00\x00\x00\x017', 'and the answer is the right one');
$dialogue->same('errors', [ call($div, [ 1, 0 ]), call(1, []), call($int4pl, [1]), call($int4pl, ['x', 1]),
	call($generate, [ 1, 2 ]), call($upper, ["\xff"]), call($int4pl, [ 1, 2 ], argument_formats => [ 0, 0, 0 ]),
		call($int4pl, [ 1, 2 ], result_format => 5), simple('SELECT 1') ]);
$dialogue->same('within a transaction', [ simple('BEGIN'), call($int4pl, [ 1, 2 ]), call($div, [ 1, 0 ]),
	call($int4pl, [ 1, 2 ]), simple('ROLLBACK'), call($int4pl, [ 1, 2 ]) ]);

# Large objects are what the message is used for.
my $create = oid('lo_from_bytea(oid,bytea)');
my $open = oid('lo_open(oid,integer)');
my $read = oid('loread(integer,integer)');
my $size = 100_000;
$dialogue->same('a large object is written and read', [
		simple('BEGIN'), call($create, [ pack('N', 4711), 'z' x $size ], argument_formats => [1], result_format => 1),
			call($open, [ pack('N', 4711), pack('N', 0x40000) ], argument_formats => [1]),
		call($read, [ pack('N', 0), pack('N', $size) ], argument_formats => [1], result_format => 1),
			simple('COMMIT'), call($read, [ pack('N', 0), pack('N', $size) ], argument_formats => [1],
			result_format => 1) ],
	setup => 'SELECT lo_unlink(oid) FROM pg_largeobject_metadata');

# Without the right to execute it.
$server->sql('CREATE FUNCTION secret() RETURNS int LANGUAGE sql AS $$SELECT 1$$; REVOKE ALL ON FUNCTION secret() FROM PUBLIC; CREATE ROLE plain LOGIN');
my $error;
foreach my $method ('raw', 'pool_raw')
{
	my $client = $server->$method(user => 'plain');
	my ($message) = grep { $_->{type} eq 'E' } $client->exchange(call(oid('secret()'), []));
	my $text = RawClient::describe($message);
	is($text, $error, 'no permission to execute, in the same words') if defined $error;
	$error = $text;
}
like($error, qr/C=42501/, 'and with the right code');

$server->stop;
done_testing();
