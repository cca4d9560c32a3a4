# SPDX-License-Identifier: PostgreSQL
#
# The rules about the size of a pool: what each rests on, which binds, which is advised; and what would be if.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.cores = 4
sluice.spindles = 0
sluice.max_pool_size = -1
sluice.max_backends = 20
CONF
my $me = own_name();

sub sizing
{
	my ($rule, $columns) = @_;
	return $server->sql("SELECT $columns FROM sluice.sizing WHERE rule = '$rule'");
}

sub what_if
{
	my ($arguments, $columns) = @_;
	return $server->sql("SELECT $columns FROM sluice.what_if($arguments)");
}

ok($server->wait_until("SELECT count(*) > 0 FROM sluice.sizing WHERE rule = 'cores * 2 + spindles' AND size = 8"), 'the rule is eight');

# --- before there is a pool
is($server->sql('SELECT count(*) FROM sluice.sizing'), '6', 'six rules');
is($server->sql('SELECT count(*) FROM sluice.sizing WHERE binds'), '1', 'one binds');
is($server->sql('SELECT rule FROM sluice.sizing WHERE advised'), 'cores * 2 + spindles', 'which is also the advice');
is(sizing('measured knee', "size IS NULL AND note LIKE 'not enough data%'"), 't', 'there is no knee, and the reason is shown');
is(sizing('calibrated', "size IS NULL AND confidence = 'none'"), 't', 'nor a calibration');
is($server->sql("SELECT value || ' ' || reason || ' ' || setting FROM sluice.sizing_inputs WHERE input = 'cores'"), '4 set by sluice.cores sluice.cores',
	'the inputs say where they come from');
is($server->sql('SELECT count(*) FROM sluice.sizing_inputs WHERE reason IS NULL'), '0', 'all of them');
is(what_if('', 'count(*)'), '0', 'no pool, nothing to replay');

# --- a pool with leases of known lengths
my @clients = map { $server->pool_raw } 1 .. 4;
$_->sql('SELECT 1') foreach @clients;
$server->sql('SELECT sluice.reset_statistics()');
foreach my $round (1 .. 3)
{
	ask($_, 'SELECT pg_sleep(0.1)') foreach @clients;
	answer($_) foreach @clients;
}
is(sizing('max_backends', 'size'), '20', 'the limits are there');
is(sizing('deadlock minimum', 'size'), '3', 'so is the deadlock minimum for the clients of now');
my $leases = what_if('ARRAY[1]', 'leases');
cmp_ok($leases, '>=', 4, 'leases were recorded');
is(what_if('ARRAY[1, 2, 4]', 'string_agg(pool_size::text, $$ $$ ORDER BY pool_size)'), '1 2 4', 'the sizes asked for are replayed');
cmp_ok(what_if('ARRAY[1]', 'wait_max_us'), '>=', 200_000, 'one backend would have let somebody wait for two others at least');
is(what_if('ARRAY[4]', 'wait_p50_us'), '0', 'four would have had no queue to speak of');
is($server->sql('SELECT bool_and(ordered) FROM (SELECT wait_mean_us <= lag(wait_mean_us) OVER (ORDER BY pool_size) IS NOT FALSE AS ordered FROM sluice.what_if(ARRAY[1, 2, 3, 4])) o'),
	't', 'more backends never mean longer waits');
is(what_if('NULL', 'count(*) FILTER (WHERE current)'), '1', 'by default the present size is among them');
like($server->sql('SELECT note FROM sluice.what_if() WHERE current'), qr/as recorded: p50 \d+, p95 \d+, p99 \d+ us/, 'with the waits as they were');
is(what_if("ARRAY[2], 'postgres', '$me'", 'count(*)'), '1', 'of one pool');
is(what_if("ARRAY[2], 'postgres', 'nobody'", 'count(*)'), '0', 'or of none');
foreach my $bad ('ARRAY[0]', 'ARRAY[-5]', 'ARRAY[NULL]::int[]', 'ARRAY[10001]')
{
	my ($code, undef, $errors) = $server->psql("SELECT * FROM sluice.what_if($bad)");
	like($errors, qr/pool sizes must be between 1 and 10000/, "$bad is no pool size");
}
my (undef, undef, $many) = $server->psql('SELECT * FROM sluice.what_if((SELECT array_agg(i) FROM generate_series(1, 101) i))');
like($many, qr/too many pool sizes: at most 100/, 'there is a limit');
is(what_if("ARRAY[]::int[]", 'count(*)'), '0', 'no size, no row');

# --- session mode
$server->sql("ALTER ROLE $me SET sluice.pool_mode = 'session'");
$_->close foreach @clients;
$server->sql('SELECT sluice.retire_backends()');
my $client = $server->pool_raw;
$client->sql('SELECT 1');
ok(until_pool($server, "mode = 'session'"), 'a pool of sessions');
is($server->sql('SELECT count(*) FROM sluice.sizing WHERE advised'), '0', 'gets no advice about its size from these rules');
$client->close;
$server->sql("ALTER ROLE $me RESET sluice.pool_mode");

# --- a calibration is an advice
SKIP:
{
	skip 'no calibration', 3 if $server->sql("SELECT count(*) FROM pg_proc WHERE proname = 'calibrate'") eq '0';
	$server->sql('SELECT sluice.retire_backends()');
	is($server->pool_sql('SELECT 1'), '1', 'a pool in transaction mode again');
	my $best = $server->sql("SELECT size FROM sluice.calibrate('SELECT 1', ARRAY[1, 2], 0.2, 0) WHERE best");
	like($best, qr/^[12]$/, 'a calibration has a best size');
	is(sizing('calibrated', "size || ' ' || confidence || ' ' || advised"), "$best measured true", 'which is advised from now on');
}

# --- without timing
$server->sql('ALTER SYSTEM SET sluice.track_timing = off');
$server->sql('SELECT pg_reload_conf()');
ok($server->wait_until("SELECT count(*) > 0 FROM sluice.recommendations WHERE setting = 'sluice.track_timing'"), 'timing that is off is recommended');
like(sizing('measured knee', 'min(note)'), qr/not enough data: sluice.track_timing is off/, 'and the reason why there is no knee');
done_testing();
