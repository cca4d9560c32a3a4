# SPDX-License-Identifier: PostgreSQL
#
# Clients that come and go in all ways, in the middle of everything, in great numbers.  Afterwards nothing is stuck,
# no gauge has drifted, and the next load is served as the first.

use strict;
use warnings;

use IO::Select;
use PoolTest;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time);

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_pool_size = 2
sluice.max_backends = 40
sluice.acquire_timeout = 0
sluice.max_unauthenticated_clients = 1000
CONF
# The same every time.
srand(20231);

sub clean
{
	my ($name) = @_;
	ok(until_pool($server, 'clients = 0 AND waiting = 0 AND active = 0 AND in_transaction = 0 AND held = 0 AND starting = 0'),
		"$name: no client and no backend is stuck");
	is($server->sql('SELECT clients || \' \' || unauthenticated FROM sluice.status'), '0 0', "$name: no slot is taken");
	is($server->sql("SELECT count(*) FROM sluice.clients"), '0', "$name: no client is listed");
	is($server->sql('SELECT (SELECT count(*) FROM sluice.backends) = (SELECT backends FROM sluice.status)'), 't',
		"$name: the count of backends is the number of backends");
	is($server->sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), '0', "$name: no lock is left");
	return;
}

# --- five hundred connections, twenty at a time
sub churn
{
	my ($name) = @_;
	my ($served, $errors) = (0, 0);
	foreach my $batch (1 .. 25)
	{
		my @clients = map { begin_connect($server) } 1 .. 20;
		# Some do not even wait for their greeting.
		foreach my $i (18, 19)
		{
			$clients[$i]->drop;
		}
		splice @clients, 18;
		foreach my $client (@clients)
		{
			$client->authenticate;
			defined $client->error ? $errors++ : $served++;
		}
		foreach my $i (0 .. $#clients)
		{
			my $client = $clients[$i];
			ask($client, "SELECT $i");
			$errors++ if outcome($client) ne $i;
			if ($i % 6 == 0) { $client->close; }
			elsif ($i % 6 == 1) { $client->drop; }
			elsif ($i % 6 == 2) { ask($client, 'BEGIN; SELECT pg_advisory_xact_lock_shared(1)'); answer($client); $client->drop; }
			elsif ($i % 6 == 3) { ask($client, 'SELECT pg_sleep(0.01)'); $client->drop; }
			elsif ($i % 6 == 4) { ask($client, 'SELECT repeat(md5(g::text), 100) FROM generate_series(1, 3000) g'); $client->drop; }
			else { ask($client, 'BEGIN'); answer($client); $client->close; }
		}
	}
	is($served, 450, "$name: every client that waits is served");
	is($errors, 0, "$name: with its own results");
	clean($name);
	return;
}

churn('five hundred connections');
churn('once more');

# --- two hundred clients on a pool of two
sub crowd
{
	my ($name, $seconds) = @_;
	my ($asked, $answered, $wrong, $lost, $number) = (0, 0, 0, 0, 0);
	my (%client, $select);
	$select = IO::Select->new;

	my $join = sub {
		my $client = begin_connect($server);
		$client->{number} = ++$number;
		$client->{greeted} = 0;
		$client->{expected} = [];
		$client->{got} = [];
		$client{ fileno($client->socket) } = $client;
		$select->add($client->socket);
	};
	my $leave = sub {
		my ($client, $how) = @_;
		delete $client{ fileno($client->socket) };
		$select->remove($client->socket);
		$client->$how;
	};
	my $next = sub {
		my ($client) = @_;
		my $id = $client->{number} . '.' . ++$client->{count};
		my $kind = int rand 8;
		my $quoted = "'$id'";
		# What is expected: the values of all rows, and so many ReadyForQuery.
		my ($bytes, @values, $ready);
		if ($kind == 0)
		{
			$bytes = RawClient::query("BEGIN; SELECT $quoted") . RawClient::query('COMMIT');
			(@values, $ready) = ($id);
			$ready = 2;
		}
		elsif ($kind == 1)
		{
			$bytes = RawClient::parse('s', 'SELECT $1::text') . RawClient::bind('', 's', [$id]) . RawClient::execute('')
			  . RawClient::close_statement('s') . RawClient::sync();
			@values = ($id);
			$ready = 1;
		}
		elsif ($kind == 2)
		{
			$bytes = RawClient::query("SELECT $quoted FROM generate_series(1, 200)");
			@values = ($id) x 200;
			$ready = 1;
		}
		elsif ($kind == 3)
		{
			$bytes = RawClient::query('SELECT 1/0') . RawClient::query("SELECT $quoted");
			@values = ($id);
			$ready = 2;
		}
		elsif ($kind == 4)
		{
			$bytes = RawClient::query("SET application_name = $quoted; SELECT current_setting('application_name')");
			@values = ($id);
			$ready = 1;
		}
		elsif ($kind == 5)
		{
			$bytes = RawClient::query("SELECT $quoted FROM pg_sleep(0.003)");
			@values = ($id);
			$ready = 1;
		}
		else
		{
			$bytes = RawClient::query("SELECT $quoted");
			@values = ($id);
			$ready = 1;
		}
		@$client{ 'expected', 'got', 'ready' } = (\@values, [], $ready);
		$client->send_bytes($bytes);
		$asked++;
	};

	$join->() foreach 1 .. 200;
	my $end = time() + $seconds;
	my $give_up = time() + $seconds + $SluiceTest::patience_s;
	my $working = 1;
	while (%client && time() < $give_up)
	{
		$working = 0 if $working && time() > $end;
		foreach my $socket ($select->can_read(1))
		{
			my $client = $client{ fileno $socket } or next;
			while (defined(my $message = $client->poll_message(0)))
			{
				my $type = $message->{type};
				if ($type eq 'EOF') { $lost++; $leave->($client, 'drop'); last; }
				push @{ $client->{got} }, (RawClient::row_fields($message))[0] if $type eq 'D';
				next if $type ne 'Z';
				if (!$client->{greeted}) { $client->{greeted} = 1; }
				elsif (--$client->{ready} > 0) { next; }
				else
				{
					$answered++;
					$wrong++ if "@{$client->{got}}" ne "@{$client->{expected}}";
				}
				if (!$working) { $leave->($client, 'close'); last; }
				$next->($client);
				# Some go away without waiting for the answer; another one takes the place.
				if (rand() < 0.03) { $asked--; $leave->($client, rand() < 0.5 ? 'drop' : 'close'); $join->(); last; }
			}
		}
	}
	is(scalar(keys %client), 0, "$name: every client is served to the end");
	is($answered, $asked, "$name: every question is answered");
	is($wrong, 0, "$name: by the answer to that question");
	is($lost, 0, "$name: nobody is disconnected");
	note("$number clients, $answered answers");
	$_->drop foreach values %client;
	return;
}

foreach my $round ('two hundred clients on two backends', 'once more')
{
	crowd($round, 4);
	clean($round);
	my $total = pool($server, 'total');
	cmp_ok(pool($server, 'peak_waiting'), '>', 0, "$round: they had to wait");
}

# The gauges that decide who watches and who lingers: a lone client must still be served without the queue.
{
	my $before = pool($server, 'waits');
	my $client = $server->pool_raw;
	$client->sql('SELECT 1') foreach 1 .. 200;
	cmp_ok(pool($server, 'waits') - $before, '<=', 3, 'afterwards a lone client does not queue');
	$client->close;
}

# p50 <= p95 <= p99 <= max, after all this.
is(pool($server, 'wait_p50_us <= wait_p95_us AND wait_p95_us <= wait_p99_us AND wait_p99_us <= wait_max_us AND waits <= leases'), 't',
	'percentiles are in order');
unlike($server->log_since(0), qr/PANIC|terminated by signal/, 'nothing crashed');

$server->stop;
done_testing();
