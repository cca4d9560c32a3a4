# SPDX-License-Identifier: PostgreSQL
#
# What must stay with whom it belongs to: clients' sockets with the pool's own
# processes, cancel keys with their clients, passwords and stored secrets nowhere
# at all once a login is over.

use strict;
use warnings;

use MIME::Base64 qw(decode_base64);
use PoolTest;
use PostgreSQL::Test::Utils;
use RawClient;
use Socket;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

use constant SOCK_SEQPACKET => 5;    # Linux; not in every Socket.pm

my $server = SluiceTest->new('main', tcp => 1, conf => "sluice.max_pool_size = 1\nlog_connections = on\n");
my $node = $server->node;
my $dispatcher = $server->sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sluice dispatcher'");

# ------------------------------------------------------------------ the control socket

# Tells what comes back: 'refused' if nothing does, ever.
sub knock
{
	my ($hello) = @_;
	socket(my $socket, AF_UNIX, SOCK_SEQPACKET, 0) or die "socket: $!";
	# The name of a socket is short; that of a data directory need not be.
	chdir $node->data_dir or die "chdir: $!";
	connect($socket, pack_sockaddr_un('pg_sluice.control')) or die "connect: $!";
	send($socket, $hello, 0) if defined $hello;    # too late if it has been refused already
	my $ready = '';
	vec($ready, fileno($socket), 1) = 1;
	select($ready, undef, undef, $SluiceTest::patience_s) or return 'no answer';
	my $from = recv($socket, my $message, 64, 0);
	return defined $from && length $message ? 'answered' : 'refused';
}

{
	local $SIG{PIPE} = 'IGNORE';
	my $client = $server->pool_raw(dbname => 'postgres');
	is($client->sql('SELECT 1'), '1', 'a client is served');
	my $log = $server->log_size;
	my $mode = (stat $node->data_dir . '/pg_sluice.control')[2] & 0777;
	is($mode, 0600, 'the control socket is for its own user');

	my (@outcomes, $count);
	foreach my $slot (0 .. 2)
	{
		foreach my $generation (1 .. 3)
		{
			push @outcomes, knock(pack('L4', 1, $slot, $generation, 0));
			$count++;
		}
	}
	is_deeply([ grep { $_ ne 'refused' } @outcomes ], [], 'no hello of a stranger is answered');
	is(knock(undef), 'refused', 'a stranger that says nothing is not waited for');
	is(knock(pack('L4', 3, 0, 0, 0)), 'refused', 'nor is one that asks for a client at once');
	is(knock('x'), 'refused', 'nor one that sends something else');
	is(knock(pack('L4', 1, 0xffffffff, 1, 0)), 'refused', 'nor one with a slot there is none of');
	$count += 4;

	$server->wait_for_log(qr/refused a connection to the control socket of pg_sluice/, $log);
	like($server->log_since($log), qr/Process $$ is not a pooled backend/, 'the log says which process it was');
	is($server->sql("SELECT class, count FROM sluice.errors WHERE last_message LIKE '%control socket%'"),
		"protocol|$count", 'sluice.errors counts them');

	is($client->sql('SELECT 2'), '2', 'the client is served on, by the same backend');
	is($server->pool_sql('SELECT 3'), '3', 'so is a new one');
	is($server->sql("SELECT pg_reload_conf() AND count(*) = 1 FROM sluice.backends"), 't', 'no backend was lost');
	$server->sql('SELECT sluice.retire_backends()');
	is($server->pool_sql('SELECT 4'), '4', 'and a new backend may come');
	$client->close;
}

# ------------------------------------------------------------------ cancel keys

{
	my $client = $server->pool_raw(dbname => 'postgres');
	my ($number, $key) = ($client->pid, $client->key);
	ask($client, 'SELECT pg_sleep(1000)');
	my $running = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(1000)%' AND state = 'active'";
	$server->wait_until($running);
	my $log = $server->log_size;
	$client->cancel(key => $key ^ $_) foreach (1, 1 << 31, $key);
	$client->cancel(pid => $number + 1, key => $key);
	$client->cancel(pid => $number + $_, key => 0) foreach (1 .. 3);
	$server->wait_for_log(qr/did not match any client/, $log);
	is($server->sql($running), 't', 'wrong keys and wrong numbers cancel nothing');
	unlike($server->log_since($log), qr/\b(?:$key|@{[ sprintf '%08x', $key ]})\b/, 'no key in the log');
	$client->cancel;
	is(outcome($client)->{C}, '57014', 'the right one does');
	$client->close;
}

# ------------------------------------------------------------------ passwords

my %role = (
	s_pass => { method => 'scram-sha-256', encryption => 'scram-sha-256' },
	m_pass => { method => 'md5', encryption => 'md5' },
	p_scram => { method => 'password', encryption => 'scram-sha-256' },
	p_md5 => { method => 'password', encryption => 'md5' },);
# Long enough, and nowhere else in a process.
foreach my $name (sort keys %role)
{
	$role{$name}{password} = "Zq7" . join('', map { chr(97 + int rand 26) } 1 .. 24);
	$role{$name}{wrong} = "Wq7" . join('', map { chr(97 + int rand 26) } 1 .. 24);
	$server->sql("SET password_encryption = '$role{$name}{encryption}'; SET log_min_error_statement = panic; "
		  . "CREATE ROLE $name LOGIN PASSWORD '$role{$name}{password}'");
	$role{$name}{stored} = $server->sql("SELECT rolpassword FROM pg_authid WHERE rolname = '$name'");
}
{
	open my $file, '>', $node->data_dir . '/pg_hba.conf' or die $!;
	print $file "local all all trust\n";
	print $file "host all $_ 127.0.0.1/32 $role{$_}{method}\n" foreach sort keys %role;
	close $file;
}
$node->reload;

sub log_in
{
	my ($name, $password) = @_;
	return RawClient->try_connect(
		host => '127.0.0.1', port => $server->pool_port, user => $name, dbname => 'postgres', password => $password);
}

my $deadline = time() + $SluiceTest::patience_s;
sleep 0.05 until ((log_in('s_pass', 'nonsense')->error || {})->{C} || '') eq '28P01' || time() > $deadline;

# What must not be found of each role, by name.
sub secrets_of
{
	my ($name) = @_;
	my $role = $role{$name};
	my %secret = ("password" => $role->{password}, "wrong password" => $role->{wrong});
	if ($role->{stored} =~ /^md5(.*)/)
	{
		$secret{'stored hash'} = $1;
	}
	else
	{
		my ($stored_key, $server_key) = $role->{stored} =~ /\$([^:\$]+):([^:\$]+)$/;
		@secret{ 'stored key', 'server key' } = ($stored_key, $server_key);
		@secret{ 'stored key, decoded', 'server key, decoded' } = (decode_base64($stored_key), decode_base64($server_key));
	}
	return \%secret;
}

# The private, writable memory of a process; undef where this is not permitted.
sub read_memory
{
	my ($pid) = @_;
	open my $maps, '<', "/proc/$pid/maps" or return undef;
	open my $memory, '<:raw', "/proc/$pid/mem" or return undef;
	my @parts;
	while (my $line = <$maps>)
	{
		no warnings 'portable';
		my ($from, $to, $what) = $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw.p \S+ \S+ \S+\s*(.*)$/ or next;
		next if $what =~ /^\[v/;
		sysseek($memory, hex $from, 0) or next;
		my ($left, $bytes) = (hex($to) - hex($from), '');
		while ($left > 0)
		{
			my $got = sysread($memory, $bytes, $left, length $bytes);
			last if !$got;
			$left -= $got;
		}
		push @parts, [ $what eq '' ? 'unnamed memory' : $what, $bytes ];
	}
	return @parts ? \@parts : undef;
}

sub find_in_memory
{
	my ($parts, $secrets) = @_;
	my @found;
	foreach my $name (sort keys %$secrets)
	{
		push @found, map { "$name in $_->[0]" } grep { index($_->[1], $secrets->{$name}) >= 0 } @$parts;
	}
	return \@found;
}

# What is still found after a while.  Clients are answered before their login is cleared away.
sub find_in_dispatcher
{
	my ($secrets) = @_;
	my $until = time() + $SluiceTest::patience_s;
	my $found;
	do
	{
		my $memory = read_memory($dispatcher);
		return undef if !defined $memory;
		$found = find_in_memory($memory, $secrets);
		sleep 0.05 if @$found;
	} while (@$found && time() < $until);
	return $found;
}

my $before = $server->log_size;
my @views = split /\n/, $server->sql(
	"SELECT format('sluice.%I', viewname) FROM pg_views WHERE schemaname = 'sluice' ORDER BY 1");
cmp_ok(scalar @views, '>', 10, 'there are views to look at');

SKIP:
{
	my $memory = read_memory($dispatcher);
	skip 'the memory of other processes may not be read here', 1 if !defined $memory;
	# A test that looks in the wrong place finds nothing either.
	isnt(scalar @{ find_in_memory($memory, { 'the path of its rules' => $node->data_dir . '/pg_hba.conf' }) },
		0, 'memory can be read');
}

foreach my $name (sort keys %role)
{
	my $role = $role{$name};
	my $secrets = secrets_of($name);
	my $label = "$role->{method}, stored as $role->{encryption}";
	foreach my $good (1, 0)
	{
		my $when = $good ? 'a login' : 'a refused login';
		my $client = log_in($name, $good ? $role->{password} : $role->{wrong});
		if ($good)
		{
			is($client->error, undef, "$label: lets in");
			is($client->sql('SELECT current_user'), $name, "$label: whom it should");
		}
		else
		{
			is($client->error->{C}, '28P01', "$label: refuses");
		}
	  SKIP:
		{
			my $found = find_in_dispatcher($secrets);
			skip 'the memory of other processes may not be read here', 1 if !defined $found;
			is_deeply($found, [], "$label: nothing is left in the dispatcher after $when");
		}
		$client->close if $good;
	}
	# One that leaves in the middle of its answer, and one that never answers.
	my $lost = RawClient->open(host => '127.0.0.1', port => $server->pool_port);
	$lost->send_startup(user => $name, database => 'postgres');
	$lost->read_message;
	$lost->send_bytes('p' . pack('N', 200) . $role->{password});
	$lost->drop;
	$server->wait_until("SELECT count(*) = 0 FROM sluice.clients WHERE state = 'authenticating'");
  SKIP:
	{
		my $found = find_in_dispatcher($secrets);
		skip 'the memory of other processes may not be read here', 1 if !defined $found;
		is_deeply($found, [], "$label: nor after a client that left in the middle");
	}
}

# Everything a superuser can see, while a client is there whose key we know.
my $holder = log_in('s_pass', $role{s_pass}{password});
my %shown = map { $_ => $server->sql("SELECT v::text FROM $_ AS v") } @views;
my $log = $server->log_since($before);
foreach my $name (sort keys %role)
{
	my $secrets = secrets_of($name);
	is_deeply([ grep { index($log, $secrets->{$_}) >= 0 } sort keys %$secrets ], [], "$name: nothing in the log");
	my @showing = grep { my $view = $_; grep { index($shown{$view}, $secrets->{$_}) >= 0 } keys %$secrets } @views;
	is_deeply(\@showing, [], "$name: nothing in any view");
}
my $key = $holder->key;
is_deeply([ grep { $shown{$_} =~ /(?<!\d)$key(?!\d)/ } @views ], [], 'no view shows a cancel key');
is($holder->sql('SELECT 5'), '5', 'the client was there all the time');
$holder->close;

$server->stop;
done_testing();
