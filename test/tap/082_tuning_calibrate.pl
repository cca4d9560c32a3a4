# SPDX-License-Identifier: PostgreSQL
#
# sluice.calibrate(): what it measures adds up, what it executes is executed as who called it, and it leaves no worker
# behind however it ends.  Nothing here depends on how fast anything is.

use strict;
use warnings;

use PoolTest;
use SluiceTest;
use Test::More;

# Sixteen worker slots: eight, those of the pools (without a reserve), two for dispatcher and statistician, four for
# resolvers.  Three are taken (dispatcher, statistician, logical replication launcher), and of the thirteen free ones a
# quarter is spared: ten calibrators at most.
my $server = SluiceTest->new('main', init => [ allows_streaming => 1 ], conf => <<'CONF');
sluice.cores = 2
sluice.spindles = 0
sluice.max_backends = 2
sluice.nested_reserve = 0
max_worker_processes = 8
max_parallel_workers_per_gather = 0
CONF
my $most = 10;

# A call for a short sweep.
sub calibrate
{
	my ($script, %option) = @_;
	my $sizes = exists $option{sizes} ? $option{sizes} : 'ARRAY[1,2]';
	my $seconds = defined $option{seconds} ? $option{seconds} : '0.05';
	my $pause = defined $option{pause} ? $option{pause} : '0';
	my $rounds = defined $option{rounds} ? $option{rounds} : '1';
	return "sluice.calibrate($script, $sizes, $seconds, $pause, $rounds)";
}

sub fails
{
	my ($call, $expected, $name, %option) = @_;
	my $before = delete $option{before} || '';
	my ($code, undef, $errors) = $server->psql("$before SELECT * FROM $call", %option);
	isnt($code, 0, $name);
	like($errors, $expected, "$name: says why");
	return $errors;
}

my $calibrators = q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sluice calibrator');

sub nobody_is_left
{
	my ($name) = @_;
	ok($server->wait_until($calibrators, '0'), "$name: no worker is left");
	return;
}

$server->wait_until("SELECT count(*) > 0 FROM sluice.sizing WHERE rule = 'cores * 2 + spindles' AND size = 4");
$server->sql('CREATE TABLE written (size int, who name, pid int, path text, memory text, isolation text)');

# ---------------------------------------------------------------- it works
{
	my $call = calibrate(q('INSERT INTO written (pid) VALUES (pg_backend_pid())'), sizes => 'ARRAY[3,1,2,1]', rounds => 2);
	my $rows = $server->sql(<<"SQL");
SELECT string_agg(size::text, ' ' ORDER BY ordinality),
       bool_and(transactions > 0 AND transactions_per_s > 0 AND relative > 0 AND relative <= 1),
       bool_and(p50_us <= p95_us AND p95_us <= p99_us AND p99_us <= max_us),
       bool_and(errors = 0 AND note IS NULL),
       count(*) FILTER (WHERE best), max(relative), bool_and(relative >= 0.97 OR NOT best)
FROM $call WITH ORDINALITY
SQL
	is($rows, '1 2 3|t|t|t|1|1|t', 'rows are in the order of the sizes, and add up');
	my ($executed, $processes) = split /\|/, $server->sql('SELECT count(*), count(DISTINCT pid) FROM written');
	cmp_ok($executed, '>', 0, 'what is executed is committed');
	is($processes, 3, 'by as many processes as the greatest size says');
	is($server->sql($calibrators), '0', 'they have gone when the function returns');
	$server->sql('TRUNCATE written');
	my $counted = $server->sql('SELECT sum(transactions) FROM ' . calibrate(q('INSERT INTO written (pid) VALUES (0)'), sizes => 'ARRAY[2]'));
	cmp_ok($server->sql('SELECT count(*) FROM written'), '>=', $counted + 2, 'nothing is counted that was not done; the trial is not counted');
}

is($server->sql(q(SELECT string_agg(size::text, ' ') FROM ) . calibrate(q('SELECT 1'), sizes => 'NULL', seconds => '0.02')),
	"1 2 3 4 6 8 $most", 'without sizes, they are chosen by the rule and by the workers there are');
{
	my (undef, undef, $errors) = $server->psql('SELECT * FROM ' . calibrate(q('SELECT 1'), sizes => 'NULL', seconds => '0.02'));
	like($errors, qr/NOTICE:  the sizes end at $most for lack of worker processes/, 'with a word about the latter');
}

# ---------------------------------------------------------------- scripts
{
	$server->sql('CREATE TABLE account (id int PRIMARY KEY, balance int)');
	$server->sql('INSERT INTO account SELECT i, 0 FROM generate_series(1, 10) i');
	my $script = q($s$ UPDATE account SET balance = balance - 1 WHERE id = 1;
		UPDATE account SET balance = balance + 1 WHERE id = 2; SELECT ';';; -- and a comment; or two
		INSERT INTO written (size) VALUES (7) $s$);
	$server->sql('TRUNCATE written');
	my $counted = $server->sql('SELECT sum(transactions) FROM ' . calibrate($script));
	my ($balance, $total, $rows) = split /\|/,
	  $server->sql('SELECT (SELECT balance FROM account WHERE id = 2), (SELECT sum(balance) FROM account), (SELECT count(*) FROM written)');
	is($total, 0, 'several statements are one transaction');
	is($balance, $rows, 'each of them is executed');
	cmp_ok($rows, '>=', $counted, 'in each transaction');

	is($server->sql('SELECT bool_and(transactions > 0 AND errors = 0) FROM '
			. calibrate(q('CREATE TEMP TABLE t (a int) ON COMMIT DROP; INSERT INTO t VALUES (1); SELECT * FROM t'))),
		't', 'a statement can need what an earlier one creates');
	is($server->sql('SELECT bool_and(transactions > 0 AND errors = 0) FROM '
			. calibrate(q('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1; SET LOCAL work_mem = 100'))),
		't', 'SET TRANSACTION comes before the snapshot');
}

fails(calibrate(q('')), qr/the script is empty/, 'an empty script');
fails(calibrate(q('  ; -- nothing')), qr/the script is empty/, 'a script of nothing');
fails(calibrate(q('-- a statement that is typical of this pool')), qr/ERROR:  the script is empty/, 'a script that is a comment');
fails(calibrate(q('/* SELECT 1 */')), qr/ERROR:  the script is empty/, 'of the other kind');
fails(calibrate(q('SELECT 1; COMMIT')), qr/COMMIT is not allowed in the script/, 'transaction control');
fails(calibrate(q('COPY account TO STDOUT')), qr/COPY to or from the client is not allowed/, 'COPY to the client');
fails(calibrate(q('SELECT 1 FROM WHERE')), qr/syntax error at or near "WHERE"\nLINE 1: SELECT 1 FROM WHERE\n/, 'a script with a syntax error');
fails(calibrate(q('VACUUM account')), qr/VACUUM cannot be executed from a function/, 'a statement that is no part of a transaction');
fails(calibrate(q('SELECT $1')), qr/there is no parameter \$1/, 'a parameter');
fails(calibrate(q($$SELECT * FROM sluice.calibrate('SELECT 1', '{1}', 0.1)$$)), qr/the script cannot call sluice\.calibrate\(\) itself/, 'itself');
{
	my $errors = fails(calibrate(q('SELECT 1; SELECT 1/0'), sizes => 'ARRAY[3]', seconds => 60), qr/ERROR:  division by zero/, 'a script that fails everywhere');
	like($errors, qr/first execution of the script of sluice\.calibrate\(\)/, 'with its context');
	is($server->sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%1/0%' AND pid <> pg_backend_pid()"), '0', 'without waiting for the time given');
	nobody_is_left('after an error');
	$errors = fails(calibrate(q($$DO 'BEGIN RAISE EXCEPTION USING MESSAGE = ''out of luck'', DETAIL = ''None is left.'', HINT = ''Buy some.''; END'$$)),
		qr/ERROR:  out of luck\nDETAIL:  None is left\.\nHINT:  Buy some\./, 'an error with detail and hint');
}

# Errors now and then: counted, and the run goes on.
{
	$server->sql('CREATE SEQUENCE turn');
	my $row = $server->sql('SELECT bool_and(errors > 0 AND transactions > 0), bool_and(note ~ $r$^the first of the errors was 22012: division by zero$r$) FROM '
		  . calibrate(q($$SELECT 1 / (nextval('turn') % 2)$$), seconds => '0.5'));
	is($row, 't|t', 'errors are counted, and one of them is shown');

	$server->sql('TRUNCATE account');
	$server->sql('INSERT INTO account VALUES (1, 0)');
	$row = $server->sql('SELECT sum(transactions), sum(errors), bool_and(note IS NULL OR note ~ $r$40001|40P01$r$) FROM '
		  . calibrate(q('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; UPDATE account SET balance = balance + 1'), sizes => 'ARRAY[4]', seconds => '0.3'));
	my ($transactions, $failed, $as_expected) = split /\|/, $row;
	is($as_expected, 't', 'serialization failures are errors of that kind');
	cmp_ok($server->sql('SELECT balance FROM account'), '>=', $transactions, 'what failed is not counted as done');
}

# A transaction that does not end is cancelled in the end.
{
	my $locker = $server->raw;
	$locker->sql('BEGIN');
	$locker->sql('LOCK TABLE account');
	fails(calibrate(q('SELECT count(*) FROM account')), qr/the script did not end within .* seconds/, 'a script that waits for ever');
	nobody_is_left('after that');
	$locker->sql('COMMIT');
	$locker->close;
	fails(calibrate(q('SELECT count(*) FROM account')), qr/look for locks, also those held by this transaction/,
		'a script that waits for its caller', before => 'BEGIN; LOCK TABLE account;');
}

# The same after the trial: the row says so, and is not the best.  The trial comes first, and the pause takes longer
# than the second during which nobody sleeps.
{
	$server->sql('CREATE TABLE executed (at timestamptz)');
	my $script = q($$INSERT INTO executed VALUES (clock_timestamp());
		SELECT pg_sleep(1000) WHERE clock_timestamp() > (SELECT min(at) + interval '1 s' FROM executed)$$);
	is($server->sql(q(SELECT concat_ws(' ', transactions, transactions_per_s, relative, p50_us, max_us, errors, best, note) FROM )
			. calibrate($script, pause => 1.5, sizes => 'ARRAY[2]')),
		'0 0 0 f transactions that took too long and were cancelled: 2', 'what takes too long is cancelled, and is neither a transaction nor an error');
}

# Parallel plans, as a client would have them, with workers of their own.
is($server->sql('SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	SELECT bool_and(transactions > 0 AND errors = 0) FROM ' . calibrate(q('SELECT count(*) FROM written'))), 't', 'parallel queries');

# ---------------------------------------------------------------- whose session it is
{
	$server->sql('CREATE ROLE guest LOGIN');
	$server->sql('CREATE ROLE helper LOGIN');
	$server->sql('CREATE ROLE nobody NOLOGIN');
	$server->sql('GRANT nobody TO guest');
	$server->sql('TRUNCATE written');
	$server->sql('GRANT INSERT ON written TO guest, helper');
	$server->sql('CREATE TABLE secret ()');

	my $call = calibrate(q('INSERT INTO written (who) VALUES (current_user), (session_user)'));
	fails($call, qr/permission denied for function calibrate/, 'without EXECUTE', user => 'guest');
	$server->sql('GRANT EXECUTE ON FUNCTION sluice.calibrate TO guest, nobody, helper');
	is($server->sql("SELECT bool_and(transactions > 0 AND errors = 0) FROM $call", user => 'guest'), 't', 'with EXECUTE');
	is($server->sql('SELECT string_agg(DISTINCT who::text, $$ $$) FROM written'), 'guest', 'it runs as the role that called');
	fails(calibrate(q('SELECT * FROM secret')), qr/permission denied for table secret/, 'nothing is gained', user => 'guest');
	fails(calibrate(q('RESET ROLE; SELECT * FROM secret')), qr/permission denied for table secret/, 'not by RESET ROLE', user => 'guest');
	fails(calibrate(q('RESET ROLE; RESET SESSION AUTHORIZATION; SELECT * FROM secret')),
		qr/permission denied for table secret/, 'not behind a superuser either', before => 'SET ROLE guest;');
	fails($call, qr/role "nobody" is not permitted to log in\nDETAIL:  Calibrators connect/, 'a role without LOGIN', before => 'SET ROLE nobody;');

	$server->sql('TRUNCATE written');
	$server->sql("SET ROLE helper; SELECT * FROM $call");
	is($server->sql('SELECT string_agg(DISTINCT who::text, $$ $$) FROM written'), 'helper', 'the current role counts, not the session\'s');

	$server->sql('TRUNCATE written; GRANT guest TO helper; ALTER ROLE helper SET role = guest');
	$server->sql("SET ROLE helper; SELECT * FROM $call");
	is($server->sql('SELECT string_agg(DISTINCT who::text, $$ $$) FROM written'), 'helper', 'even if its sessions begin with another');
	$server->sql('ALTER ROLE helper RESET role');

	$server->sql('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
	fails($call, qr/could not start a calibrator: permission denied for database "postgres"/, 'a role that may not connect', before => 'SET ROLE helper;');
	$server->sql('GRANT CONNECT ON DATABASE postgres TO PUBLIC');
	nobody_is_left('after all that');
}

# In a security-restricted operation somebody else's code would run with the rights of the table's owner.
{
	$server->sql('CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS $f$ SELECT size FROM ' . calibrate(q('SELECT 1')) . ' LIMIT 1 $f$');
	my ($code, undef, $errors) = $server->psql('CREATE MATERIALIZED VIEW sneaked AS SELECT sneak()');
	like($errors, qr/cannot execute sluice\.calibrate\(\) within security-restricted operation/, 'not in a security-restricted operation');
}

# ---------------------------------------------------------------- settings
{
	$server->sql('CREATE SCHEMA elsewhere');
	$server->sql('CREATE TABLE elsewhere.there (path text, memory text, isolation text, own text, timeout text)');
	$server->sql('GRANT ALL ON SCHEMA elsewhere TO guest');
	$server->sql('GRANT ALL ON elsewhere.there TO guest');
	my $call = calibrate(q($$INSERT INTO there VALUES (current_setting('search_path'), current_setting('work_mem'),
		current_setting('transaction_isolation'), current_setting('app.tenant'), current_setting('statement_timeout'))$$));
	$server->sql("SET search_path = elsewhere, public; SET work_mem = '7MB'; SET default_transaction_isolation = 'serializable';
		SET app.tenant = 'acme'; SET statement_timeout = '1h'; SELECT * FROM $call", user => 'guest');
	is($server->sql('SELECT DISTINCT there FROM elsewhere.there'), '("elsewhere, public",7MB,serializable,acme,0)',
		'settings of the session are carried, its statement timeout is not');
	$server->sql(q(ALTER ROLE guest SET statement_timeout = '50ms'));
	fails(calibrate(q('SELECT pg_sleep(1000)')), qr/canceling statement due to statement timeout/, 'that of the role counts',
		user => 'guest', before => 'SET statement_timeout = 0;');
	$server->sql('ALTER ROLE guest RESET statement_timeout');
	fails(calibrate(q('TRUNCATE written')), qr/cannot execute TRUNCATE TABLE in a read-only transaction/,
		'a read-only caller has read-only workers', before => 'BEGIN READ ONLY;');
}

# What a caller has set under a name that no library has claimed yet counts by the caller's privileges when one does,
# also where the workers are a superuser's.
{
	$server->sql('CREATE TABLE chosen (conflict text, tenant text)');
	my $call = calibrate(q($s$ DO $$ BEGIN INSERT INTO chosen
		VALUES (current_setting('plpgsql.variable_conflict'), current_setting('app.tenant', true)); END $$ $s$), sizes => 'ARRAY[1]');
	$server->sql("CREATE FUNCTION wrapped() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS \$f\$ SELECT sum(transactions + errors) FROM $call \$f\$");
	my $claim = q(SET plpgsql.variable_conflict = 'use_column'; SET app.tenant = 'acme';);
	my $chosen = q(SELECT string_agg(DISTINCT concat_ws(' ', conflict, tenant), ', ') FROM chosen);

	cmp_ok($server->sql("$claim SELECT wrapped()", user => 'guest'), '>', 0, 'a function of a superuser calibrates');
	is($server->sql($chosen), 'error acme', 'its caller cannot choose what only superusers may, and keeps what anybody may');
	$server->sql('TRUNCATE chosen');
	{
		local $ENV{PGOPTIONS} = '-c plpgsql.variable_conflict=use_column -c app.tenant=packet';
		$server->sql('SELECT wrapped()', user => 'guest');
	}
	is($server->sql($chosen), 'error packet', 'nor by a start-up packet');
	$server->sql('TRUNCATE chosen; GRANT INSERT ON chosen TO guest');
	$server->sql("$claim SELECT wrapped()");
	is($server->sql($chosen), 'use_column acme', 'a superuser can');
	$server->sql('TRUNCATE chosen');
	$server->sql("$claim SET ROLE guest; SELECT * FROM $call");
	is($server->sql($chosen), 'error acme', 'but not for the workers of another role');
	$server->sql('TRUNCATE chosen; GRANT SET ON PARAMETER plpgsql.variable_conflict TO guest');
	$server->sql("$claim SELECT wrapped()", user => 'guest');
	is($server->sql($chosen), 'use_column acme', 'nor is it kept from those to whom it was granted');
	$server->sql('REVOKE SET ON PARAMETER plpgsql.variable_conflict FROM guest');
}

# ---------------------------------------------------------------- one at a time
{
	my $call = 'SELECT * FROM ' . calibrate(q('SELECT pg_sleep(0.01)'), sizes => 'ARRAY[2]', seconds => 600);
	my $first = $server->raw;
	my $pid = answer_of($first, 'SELECT pg_backend_pid()');
	my $next = calibrate(q('SELECT 1'), sizes => 'ARRAY[1]');
	foreach my $end ("SELECT pg_cancel_backend($pid)", "SELECT pg_terminate_backend($pid)")
	{
		ask($first, $call);
		ok($server->wait_until("$calibrators AND state = 'active'", '2'), 'a sweep is running');
		my (undef, undef, $errors) = $server->psql("\\set VERBOSITY verbose\nSELECT * FROM $next");
		like($errors, qr/ERROR:  55006: a calibration is already running\nDETAIL:  The process with PID $pid runs it\./, 'another is refused, and told who runs it');
		fails($next, qr/a calibration is already running/, 'as often as it is tried');
		$server->sql($end);
		ok(defined outcome($first), 'the first one ends');
		nobody_is_left('after one that was alone');
		ok($server->wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active'", '0'), 'it has ended');
		is($server->sql("SELECT count(*) FROM $next"), '1', 'the next one can begin');
	}
	$first->close;
	fails(calibrate(q('SELECT 1/0')), qr/division by zero/, 'one that fails');
	fails(calibrate(q('SELECT 1'), rounds => 0), qr/rounds is out of range/, 'one that does not begin');
	is($server->sql("DO \$\$ BEGIN PERFORM * FROM " . calibrate(q('SELECT 1/0')) . "; EXCEPTION WHEN division_by_zero THEN NULL; END \$\$;
		SELECT count(*) FROM $next, LATERAL (SELECT count(*) FROM $next) again"), '1', 'leave nothing behind');
}

# ---------------------------------------------------------------- it can be ended
{
	my $call = 'SELECT * FROM ' . calibrate(q('SELECT pg_sleep(0.01)'), sizes => 'ARRAY[3]', seconds => 600);
	my $busy = q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sluice calibrator' AND state = 'active' AND query = 'SELECT pg_sleep(0.01)' AND datname = 'postgres');

	my $client = $server->raw;
	my $pid = answer_of($client, 'SELECT pg_backend_pid()');
	ask($client, $call);
	ok($server->wait_until($busy, '3'), 'workers are seen at work');
	$server->sql("SELECT pg_cancel_backend($pid)");
	is(outcome($client)->{C}, '57014', 'the caller is cancelled');
	nobody_is_left('after a cancel');

	ask($client, "SET statement_timeout = '300ms'; $call");
	is(outcome($client)->{C}, '57014', 'the caller has a statement timeout');
	nobody_is_left('after a timeout');
	$client->sql('RESET statement_timeout');

	# In a block with an exception handler only a subtransaction ends.
	ask($client, "DO \$\$ BEGIN SET LOCAL statement_timeout = 0; PERFORM * FROM " . calibrate(q('SELECT pg_sleep(0.01)'), sizes => 'ARRAY[3]', seconds => 600)
		  . "; EXCEPTION WHEN query_canceled THEN NULL; END \$\$; BEGIN; SELECT pg_sleep(0)");
	ok($server->wait_until($busy, '3'), 'called from a block with an exception handler');
	$server->sql("SELECT pg_cancel_backend($pid)");
	isnt(ref outcome($client), 'HASH', 'which catches the cancel');
	nobody_is_left('after the subtransaction');
	$client->sql('ROLLBACK');

	# A long pause.
	ask($client, 'SELECT * FROM ' . calibrate(q('SELECT 1'), sizes => 'ARRAY[3]', pause => 600));
	ok($server->wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sluice calibrator' AND state = 'idle'", '3'), 'workers in a pause');
	$server->sql("SELECT pg_cancel_backend($pid)");
	is(outcome($client)->{C}, '57014', 'the caller is cancelled then');
	nobody_is_left('after a cancel in the pause');

	ask($client, $call);
	ok($server->wait_until($busy, '3'), 'a caller that will be terminated');
	$server->sql("SELECT pg_terminate_backend($pid)");
	nobody_is_left('after its end');

	# A worker that is terminated ends the sweep.
	$client = $server->raw;
	ask($client, $call);
	ok($server->wait_until($busy, '3'), 'a worker will be terminated');
	$server->sql("SELECT pg_terminate_backend(min(pid)) FROM pg_stat_activity WHERE backend_type = 'pg_sluice calibrator'");
	like(outcome($client)->{M}, qr/a calibrator has ended before the sweep was over/, 'the caller is told');
	nobody_is_left('nor of the others');
	$client->close;

	# A cancelled worker has an error more.  The first execution decides whether there is a sweep: it must not be the one cancelled.
	$server->sql('ALTER SEQUENCE turn RESTART');
	is($server->sql("SELECT errors > 0 AND transactions > 0 AND note ~ '57014: canceling statement due to user request' FROM "
			. calibrate(q($$SELECT pg_cancel_backend(pg_backend_pid()) WHERE nextval('turn') % 2 = 0; SELECT pg_sleep(0.001)$$), sizes => 'ARRAY[1]', seconds => 1)),
		't', 'the cancel of a worker is an error of the script');

	# Cancelled at any moment, also while the workers are being started: their places become free again.
	foreach my $ms (map { 2 * $_ } 1 .. 25)
	{
		my (undef, undef, $errors) = $server->psql("SET statement_timeout = $ms; SELECT * FROM " . calibrate(q('SELECT pg_sleep(0.01)'), sizes => 'ARRAY[6]', seconds => 600));
		like($errors, qr/canceling statement due to statement timeout|no worker process slot is free|not measured/, "cancelled after $ms ms");
	}
	nobody_is_left('after cancels at any moment');
	ok($server->wait_until('SELECT max(size) FROM ' . calibrate(q('SELECT 1'), sizes => 'NULL', seconds => '0.02'), $most), 'and all workers can be had again');

	# The same through the pool, where a pooled backend is the caller.
	my $pooled = $server->pool_raw;
	$pid = answer_of($pooled, 'SELECT pg_backend_pid()');
	is(answer_of($pooled, 'SELECT count(*) FROM ' . calibrate(q('SELECT 1'))), '2', 'through the pool');
	ask($pooled, $call);
	ok($server->wait_until($busy, '3'), 'workers of a pooled caller');
	is($server->sql('SELECT bool_or(sluice.cancel_client(client)) FROM sluice.clients'), 't', 'its client is cancelled');
	is(outcome($pooled)->{C}, '57014', 'a cancel reaches it');
	nobody_is_left('after the cancel of a pooled caller');
	$pooled->close;
}

sub answer_of
{
	my ($client, $sql) = @_;
	ask($client, $sql);
	return answer($client);
}

# ---------------------------------------------------------------- too few worker slots
{
	my (undef, $rows, $errors) = $server->psql('SELECT size, transactions > 0, best, note FROM ' . calibrate(q('SELECT 1'), sizes => 'ARRAY[1,500]'));
	like($rows, qr/^1\|t\|t\|\n500\|\|f\|not measured: \d of 500 backends could be started$/, 'a size beyond the worker slots is not measured');
	like($errors, qr/WARNING:  sizes above \d were not measured.*HINT:  You may need to increase max_worker_processes/s, 'and there is a hint');
	($rows) = $server->sql('SELECT size, best FROM ' . calibrate(q('SELECT 1'), sizes => 'ARRAY[600,500]'));
	is($rows, "500|f\n600|f", 'even if none is');
}

# ---------------------------------------------------------------- very many sizes
{
	# Who sleeps gets twice as much done by two; the second size is the best one, and 62 others are not measured.
	is($server->pool_sql('SELECT 1'), '1', 'there is a pool');
	my $call = calibrate(q('SELECT pg_sleep(0.02)'), sizes => 'ARRAY[1,2] || (SELECT array_agg(i) FROM generate_series(100, 161) i)', seconds => '0.4');
	is($server->sql("SELECT size FROM $call WHERE best"), '2', 'there can be 64 sizes');
	my ($size, $note) = split /\|/, $server->sql(q(SELECT size, note FROM sluice.sizing WHERE rule = 'calibrated' AND database = 'postgres' LIMIT 1));
	is($size, '2', 'the best of them is remembered');
	like($note, qr/best of 2 sizes .*: [1-9]\d* transactions/, 'with its throughput');
}

# ---------------------------------------------------------------- arguments
fails(calibrate('NULL'), qr/argument "script" must not be NULL/, 'no script');
fails(calibrate(q('SELECT 1'), seconds => 'NULL'), qr/argument "seconds_per_size" must not be NULL/, 'no seconds');
fails(calibrate(q('SELECT 1'), pause => 'NULL'), qr/argument "pause_s" must not be NULL/, 'no pause');
fails(calibrate(q('SELECT 1'), rounds => 'NULL'), qr/argument "rounds" must not be NULL/, 'no rounds');
fails(calibrate(q('SELECT 1'), sizes => q('{1,NULL}')), qr/argument "sizes" must not contain NULL/, 'NULL among the sizes');
fails(calibrate(q('SELECT 1'), sizes => q('{{1,2},{3,4}}')), qr/argument "sizes" must have one dimension/, 'a matrix of sizes');
fails(calibrate(q('SELECT 1'), sizes => q('{}')), qr/cannot calibrate: no size is given/, 'no sizes');
fails(calibrate(q('SELECT 1'), sizes => 'ARRAY[0]'), qr/cannot calibrate: a size is out of range\nDETAIL:  Sizes go from 1 to 1000\./, 'size 0');
fails(calibrate(q('SELECT 1'), sizes => 'ARRAY[-2147483648]'), qr/a size is out of range/, 'a negative size');
fails(calibrate(q('SELECT 1'), sizes => 'ARRAY[2147483647]'), qr/a size is out of range/, 'a huge size');
fails(calibrate(q('SELECT 1'), sizes => '(SELECT array_agg(1) FROM generate_series(1, 1000000))'), qr/too many sizes are given/, 'very many sizes');
foreach my $seconds ('-1', '0', q('NaN'), q('Infinity'), q('-Infinity'), '1e300')
{
	fails(calibrate(q('SELECT 1'), seconds => $seconds), qr/the time for each size is out of range/, "$seconds seconds");
}
foreach my $pause ('-0.1', q('NaN'), '1e10')
{
	fails(calibrate(q('SELECT 1'), pause => $pause), qr/the pause is out of range/, "a pause of $pause seconds");
}
foreach my $rounds (0, -1, 101, 2147483647)
{
	fails(calibrate(q('SELECT 1'), rounds => $rounds), qr/the number of rounds is out of range/, "$rounds rounds");
}
fails(calibrate(q('SELECT 1'), sizes => 'ARRAY[1,2,3,4]', seconds => 300, rounds => 4),
	qr/the sweep would take too long\nDETAIL:  4 rounds of 4 sizes with 300 seconds/, 'more than an hour');
fails(calibrate(q('SELECT 1'), sizes => 'ARRAY[1]', seconds => 601),
	qr/the sweep would take too long\nDETAIL:  1 rounds of 1 sizes with 601 seconds .* can take 3606 seconds/, 'more than an hour if transactions have to be cancelled');

# ---------------------------------------------------------------- on a standby
{
	$server->node->backup('copy');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($server->node, 'copy', has_streaming => 1);
	$standby->append_conf('postgresql.conf', 'sluice.port = ' . PostgreSQL::Test::Cluster::get_free_port());
	$standby->start;
	is($standby->safe_psql('postgres', 'SELECT bool_and(transactions > 0 AND errors = 0) FROM ' . calibrate(q('SELECT count(*) FROM written'))), 't',
		'a standby can be calibrated with what only reads');
	my ($code, undef, $errors) = $standby->psql('postgres', 'SELECT * FROM ' . calibrate(q('INSERT INTO written (size) VALUES (1)')));
	like($errors, qr/cannot execute INSERT in a read-only transaction/, 'and with nothing else');
	$standby->stop;
}

is($server->sql($calibrators), '0', 'no worker is left at the end');
# A fast shutdown does not wait for a sweep.
{
	my $client = $server->raw;
	ask($client, 'SELECT * FROM ' . calibrate(q('SELECT 1'), sizes => 'ARRAY[3]', seconds => 600));
	ok($server->wait_until("$calibrators AND state = 'active'", '3'), 'the server is stopped in the middle of a sweep');
	$server->stop('fast');
	is(outcome($client)->{C}, '57P01', 'it ends');
}

unlike($server->log_since(0), qr/PANIC|terminated by signal|TRAP|leaked|snapshot .* still active/, 'the server has nothing to complain about');

done_testing();
