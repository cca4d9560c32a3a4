# SPDX-License-Identifier: PostgreSQL
#
# COPY FROM STDIN reads the socket with the server's own functions and buffer.  Whatever it has read beyond its own end
# belongs to the commands that follow: not a byte may get lost, wherever in the buffers the COPY began and ended.
use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\n");
$server->sql('create table words (id int, word text)');

my $bad_row = RawClient::copy_data("no number\tx\n");
my $row = RawClient::copy_data("1\tword\n");

# Much more than all buffers together, behind a row that ends the COPY.
sub fails_early
{
	my ($client, $query) = @_;
	$client->send_bytes(RawClient::query($query));
	my @answers = $client->read_until('G');
	push @answers, $client->exchange($bad_row . ($row x 20000) . RawClient::copy_done());
	return join ' ', map { $_->{type} } @answers;
}

for my $mode (qw(transaction session))
{
	$server->sql("alter database postgres set sluice.pool_mode = '$mode'");
	$server->restart;
	my $client = $server->pool_raw;

	# Queries of different lengths, so that the COPY begins at different places of the input buffer.
	for my $length (0, 1, 7, 100, 1000, 4000, 8000)
	{
		my $query = 'copy words from stdin' . ' ' x $length;
		is(fails_early($client, $query), 'G E Z', "$mode mode: COPY fails in its first row, query of $length more bytes");
		is(scalar $client->sql("select 'after $length'"), "after $length", "$mode mode: the next query is understood");
	}

	# Done, and the next queries are in the same write as the data.
	for my $rows (0, 1, 10, 500, 2000)
	{
		my $queries = join '', map { RawClient::query("select $_") } 1 .. 600;
		$client->send_bytes(RawClient::query('copy words from stdin' . ' ' x 300));
		$client->read_until('G');
		$client->send_bytes($row x $rows . RawClient::copy_done() . $queries);
		my $answers = join '', map { $_->{type} } $client->read_until_ready(601);
		is($answers, 'CZ' . 'TDCZ' x 600, "$mode mode: 600 queries behind the data of $rows rows");
	}
	$client->close;
}

$server->stop;
done_testing();
