# SPDX-License-Identifier: PostgreSQL
#
# The monitor: a line for each pool that tells the truth and fits into 80 columns.

use strict;
use warnings;
use utf8;

use Encode qw(decode encode);
use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', tcp => 1, init => [ extra => [ '--encoding=UTF8', '--locale=C' ] ], conf => <<'CONF');
sluice.max_pool_size = 4
sluice.acquire_timeout = 0
CONF
my $me = own_name();
$ENV{PGCLIENTENCODING} = 'UTF8';

# Lines as psql shows them, its settings untouched.
sub shown
{
	my ($query, %option) = @_;
	my ($output, $errors) = PostgreSQL::Test::Utils::run_command([ 'psql', '-X', '-d', $server->connstr(%option), '-c', $query ]);
	is($errors, '', 'psql is content');
	return map { decode('UTF-8', $_) } grep { $_ ne '' } split /\n/, $output;
}

sub columns
{
	my ($line) = @_;
	my $wide = () = $line =~ /\p{East_Asian_Width=Wide}/g;
	return length($line) + $wide;
}

sub fits
{
	my ($what, @lines) = @_;
	my ($worst) = sort { columns($b) <=> columns($a) } @lines;
	cmp_ok(columns($worst), '<=', 80, "$what fits into 80 columns") or diag(encode('UTF-8', $worst));
	return;
}

sub until_monitor { my ($condition) = @_; return $server->wait_until("SELECT $condition FROM sluice.monitor") }

is($server->sql('SELECT count(*) FROM sluice.monitor'), '0', 'without pools there is nothing to see');
fits('nothing', shown('SELECT * FROM sluice.monitor'));

# --- one pool from idle to full
my @clients = map { $server->pool_raw } 1 .. 7;
$_->sql('SELECT 1') foreach @clients;
is($server->sql('SELECT pool FROM sluice.monitor'), "postgres/$me", 'a pool has its name') if length("postgres/$me") <= 14;
ok(until_monitor("(bar, use, waiting, state) = ('[..........]', '0/4', 0, 'idle')"), 'nothing is in use');
ok(until_monitor('tps = 0 AND p99_ms IS NULL'), 'and nothing was executed in the last second');

$clients[0]->sql('BEGIN');
ok(until_monitor("(bar, use, waiting, state) = ('[===.......]', '1/4', 0, 'ok')"), 'one thinks');
my $gate = PoolTest::Gate->new($server);
ask($clients[1], 'SELECT ' . $gate->wait);
ok(until_monitor("(bar, use, waiting, state) = ('[###==.....]', '2/4', 0, 'ok')"), 'and one executes');
ask($_, 'SELECT ' . $gate->wait) foreach @clients[ 2, 3 ];
ok(until_monitor("(bar, use, waiting, state) = ('[########==]', '4/4', 0, 'busy')"), 'all are in use');
ask($clients[4], 'SELECT ' . $gate->wait);
ok(until_monitor("(use, waiting, state) = ('5/4', 0, 'full')"), 'who thinks does not count');
ask($_, 'SELECT ' . $gate->wait) foreach @clients[ 5, 6 ];
ok(until_monitor("(bar, use, waiting, state) = ('[########==]', '5/4', 2, 'waiting')"), 'others wait');
fits('a pool under pressure', shown('SELECT * FROM sluice.monitor'));
$gate->open;
answer($_) foreach @clients[ 1 .. 6 ];
$clients[0]->sql('COMMIT');
ok(until_monitor("state = 'idle'"), 'until all is over');

# --- the last second
my $seen = 0;
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
while (!$seen && time() < $deadline)
{
	$clients[0]->sql('SELECT 1') foreach 1 .. 200;
	$seen = $server->sql('SELECT tps > 0 AND p99_ms >= 0 AND EXISTS (SELECT FROM sluice.history h WHERE abs(h.tps - m.tps) <= 0.5) FROM sluice.monitor m') eq 't';
}
ok($seen, 'the last second is there, as in the history');
$_->close foreach @clients;

# --- names of all kinds
my @databases = ('a', 'd' x 63, 'größte_datenbank_überhaupt', '日本語のデータベース', "line\nbreak\tand so on", 'with "quotes" and / slashes');
my @roles = ($me, 'r' x 63, 'größter_benutzer', '日本', "line\nbreak");
foreach my $role (@roles[ 1 .. $#roles ])
{
	$server->sql(encode('UTF-8', "CREATE ROLE \"$role\" LOGIN"));
}
$server->node->append_conf('pg_hba.conf', "host all all 127.0.0.1/32 trust\n");
$server->node->reload;
foreach my $i (0 .. $#databases)
{
	my $database = $databases[$i] =~ s/"/""/gr;
	$server->sql(encode('UTF-8', "CREATE DATABASE \"$database\""));
	my $role = $roles[ $i % @roles ];
	push @clients, $server->pool_raw(dbname => encode('UTF-8', $databases[$i]), user => encode('UTF-8', $role));
	push @clients, $server->pool_raw(dbname => 'a', user => encode('UTF-8', $role));
}
my @lines = shown('SELECT * FROM sluice.monitor');
fits('every name', @lines);
is(scalar(grep { !/^[^|]* \|(?:[^|]*\|){5}[^|]*$/ } @lines[ 0, 2 .. $#lines - 1 ]), 0, 'each pool is one line');
my %label = map { (split /\s*\|\s*/, $_)[0] => 1 } @lines;
ok($label{" a/$me"}, 'a short name is shown as it is') if length("a/$me") <= 14;
ok((grep { /^ ddddd+…\/rrr+…$/ } keys %label), 'long names are cut on both sides of the slash');
ok((grep { /^ größ\w*…\/größ\w*…$/ } keys %label), 'letters of two bytes are letters');
ok((grep { /^ 日本\w*…\/日本$/ } keys %label), 'wide letters are wide');
ok((grep { /^ line\?b…\/line\?…$/ } keys %label), 'a line break breaks no line');
is((grep { index(encode('UTF-8', $_), "\xef\xbf\xbd") >= 0 } @lines) + 0, 0, 'no letter is cut in half');

# --- the widest there may be
@lines = shown(q{SELECT pool, bar, '12k/15k' AS use, 1000000 AS waiting, 9999999 AS tps, 999999 AS p99_ms, 'waiting' AS state FROM sluice.monitor});
fits('ten thousands of backends, a million clients and millions of transactions', @lines);
@lines = shown('SELECT pool, bar, use, 10000 AS waiting, 9999999 AS tps, 12.34 AS p99_ms, state FROM sluice.monitor');
fits('ten thousand clients', @lines);

# --- a database of another encoding, and somebody without privileges
$server->sql("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0");
$server->sql('CREATE EXTENSION pg_sluice', dbname => 'plain');
@lines = shown('SELECT * FROM sluice.monitor', dbname => 'plain');
fits('another encoding', @lines);
ok((grep { /^ ddddd+~\/rrr+~ / } @lines), 'has another mark where a name is cut');
is($server->sql('SELECT count(*) > 10 FROM sluice.monitor', user => 'r' x 63), 't', 'everybody may look');
$_->close foreach grep { defined $_->socket } @clients[ 7 .. $#clients ];

# --- without a history
$server->node->append_conf('postgresql.conf', "sluice.history_seconds = 0\n");
$server->restart;
my $client = $server->pool_raw;
$client->sql('BEGIN');
ok(until_monitor("(bar, use, state) = ('[===.......]', '1/4', 'ok') AND num_nulls(tps, p99_ms) = 2"), 'without a history it still works');
$client->close;

$server->stop;
done_testing();
