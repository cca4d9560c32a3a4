# SPDX-License-Identifier: PostgreSQL
#
# Rules of pg_hba.conf that name a host: the pooled port says what the server's own port says, and a name service that
# does not answer holds up nobody else.

use strict;
use warnings;

use Config;
use File::Basename qw(dirname);
use IPC::Run;
use LoginProbe qw(login_outcome outcome);
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $me = scalar getpwuid($>);
my $resolvers = 4;    # at most

# ---------------------------------------------------------------- a name service of our own

my $directory = PostgreSQL::Test::Utils::tempdir();
my $library = "$directory/name_service.so";
my $names_file = "$directory/names";
my @compiler = split ' ', $ENV{CC} || $Config{cc};
system(@compiler, '-shared', '-fPIC', '-o', $library, dirname(__FILE__) . '/lib/name_service.c', '-ldl') == 0
  or die 'could not compile name_service.c';

my %names = (
	'reverse 127.0.0.2' => 'alpha.example',
	'forward alpha.example' => '127.0.0.9 127.0.0.2',
	'reverse 127.0.0.3' => 'beta.example',
	'forward beta.example' => '127.0.0.9 ::1',
	'reverse 127.0.0.4' => 'gamma.example',
	'reverse 127.0.0.5' => '-',
	'reverse 127.0.0.6' => 'ALPHA.Example',
	'forward ALPHA.Example' => '127.0.0.6',
	'reverse 127.0.0.7' => 'evilexample',
	'forward evilexample' => '127.0.0.7',
	'reverse 127.0.0.8' => 'a.delta.example',
	'forward a.delta.example' => '127.0.0.8',
	'reverse 127.0.0.9' => 'again',
	'reverse 127.0.0.10' => 'epsilon.example',
	'forward epsilon.example' => 'again');

# The file is never seen half written.
sub set_names
{
	my (%changed) = @_;
	%names = (%names, %changed);
	open my $file, '>', "$names_file.new" or die "$names_file.new: $!";
	print $file "$_ $names{$_}\n" foreach sort keys %names;
	close $file;
	rename "$names_file.new", $names_file or die "$names_file: $!";
	return;
}

set_names();
$ENV{SLUICE_NAME_SERVICE} = $names_file;

my $server = SluiceTest->new(
	'main',
	tcp => 1,
	start => 0,
	conf => "log_connections = on\nsluice.max_backends = 4\nmax_worker_processes = 4\n");
my $node = $server->node;
{
	local $ENV{LD_PRELOAD} = $library;
	$server->start;
}
$server->sql('CREATE EXTENSION pg_sluice');
$server->sql("CREATE ROLE $_ LOGIN PASSWORD 'secret'")
  foreach qw(by_name by_suffix rejected mixed by_password early other early_reject numeric only_db);
$server->sql('CREATE ROLE team; GRANT team TO other; CREATE DATABASE apart');

my $rules = <<'HBA';
local all all trust
host all numeric 127.0.0.0/16 trust
host all by_name alpha.example trust
host all by_suffix .example trust
host all rejected alpha.example reject
host all rejected .example reject
host all rejected 127.0.0.0/16 trust
host all early 127.0.0.5/32 trust
host all early alpha.example trust
host all early all reject
host all early_reject 127.0.0.0/29 reject
host all early_reject .example trust
host all mixed beta.example reject
host all mixed .delta.example trust
host all mixed nowhere.example trust
host all mixed 127.0.0.4/32 scram-sha-256
host all mixed alpha.example password
host all by_password .example scram-sha-256
host all +team Alpha.EXAMPLE md5
host apart only_db alpha.example trust
hostssl all only_db 127.0.0.0/8 trust
HBA

sub write_rules
{
	my ($text) = @_;
	my $path = $node->data_dir . '/pg_hba.conf';
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file;
	$node->reload;
	return;
}

sub poll_until
{
	my ($condition) = @_;
	my $deadline = time() + $SluiceTest::patience_s;
	while (time() < $deadline)
	{
		return 1 if $condition->();
		sleep 0.05;
	}
	return 0;
}

my %tcp = (host => '127.0.0.1', dbname => 'postgres', password => 'secret');
my %direct = (port => $server->port);
my %pooled = (port => $server->pool_port);

sub rules_are_in_force
{
	my ($wanted, %option) = @_;
	foreach my $port (\%direct, \%pooled)
	{
		ok(poll_until(sub { login_outcome(%tcp, %$port, %option) =~ $wanted }), "the rules are in force: $wanted");
	}
	return;
}

# The titles of the server's processes are the only place where resolvers show.
sub resolver_pids
{
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my @pids;
	foreach my $directory (glob '/proc/[0-9]*')
	{
		open my $stat, '<', "$directory/stat" or next;
		my $line = <$stat>;
		close $stat;
		next unless defined $line && $line =~ /^(\d+) \(.*\) \S (\d+) /s && $2 == $postmaster;
		my $pid = $1;
		open my $title, '<', "$directory/cmdline" or next;
		local $/;
		push @pids, $pid if (<$title> || '') =~ /pg_sluice resolver/;
		close $title;
	}
	return @pids;
}

sub parked { return $server->sql('SELECT unauthenticated FROM sluice.status') }

# Clients that have sent their start-up packet, and have not been answered.
sub begin_logins
{
	my ($user, @addresses) = @_;
	my @clients;
	foreach my $address (@addresses)
	{
		my $client = LoginProbe->open(%tcp, %pooled, from => $address, user => $user);
		$client->send_startup(user => $user, database => 'postgres');
		push @clients, $client;
	}
	return @clients;
}

sub finish_logins
{
	my (@clients) = @_;
	my %count;
	foreach my $client (@clients)
	{
		$client->authenticate;
		$count{ outcome($client) }++;
		$client->drop;
	}
	return join '; ', map { "$count{$_} x $_" } sort keys %count;
}

# ---------------------------------------------------------------- outcomes

write_rules($rules);
rules_are_in_force(qr/OK/, user => 'numeric');
is(scalar resolver_pids(), 0, 'without a look-up there is no process for it');

sub same_outcome
{
	my ($name, $expected, %option) = @_;
	my $outcome = login_outcome(%tcp, %option, %direct);
	like($outcome, $expected, "$name: the direct port");
	is(login_outcome(%tcp, %option, %pooled), $outcome, "$name: the pooled port says the same");
	return;
}

# The last number of the address, and what each role gets.
my %expected = (
	by_name => { 2 => 'OK', 6 => 'OK' },
	by_suffix => { 2 => 'OK', 6 => 'OK', 8 => 'OK' },
	rejected => { 1 => 'OK', 3 => 'OK', 4 => 'OK', 5 => 'OK', 7 => 'OK', 9 => 'OK', 10 => 'OK' },
	early => { 2 => 'OK', 5 => 'OK', 6 => 'OK' },
	early_reject => { 8 => 'OK' },
	mixed => { 2 => 'OK', 4 => 'OK', 6 => 'OK', 8 => 'OK' },
	by_password => { 2 => 'OK', 6 => 'OK', 8 => 'OK' },
	other => { 2 => 'OK', 6 => 'OK' },
	only_db => {},
	numeric => { map { $_ => 'OK' } 1 .. 10 });
foreach my $user (sort keys %expected)
{
	foreach my $number (1 .. 10)
	{
		my $result = $expected{$user}{$number} || 'FATAL 28000';
		same_outcome("$user from 127.0.0.$number", qr/^asked [\d,]*: $result\b/,
			user => $user, from => "127.0.0.$number");
	}
}
same_outcome('a rule for another database', qr/OK/, user => 'only_db', dbname => 'apart', from => '127.0.0.2');
same_outcome('a wrong password', qr/28P01/, user => 'by_password', password => 'wrong', from => '127.0.0.2');
same_outcome('a role that does not exist', qr/28000/, user => 'nobody', from => '127.0.0.2');
my $started = scalar resolver_pids();
ok($started >= 1 && $started <= $resolvers, "resolvers have been started: $started");

# What the log says about the client's name.
sub logged_names
{
	my ($offset) = @_;
	return join ' | ',
	  $server->log_since($offset) =~ /(Client IP address resolved to .*|Could not (?:resolve|translate) .*)/g;
}

write_rules("local all all trust\nhost all numeric 127.0.0.1/32 reject\n"
	  . "host all all alpha.example trust\nhost all all .delta.example trust\nhost all all epsilon.example trust\n");
rules_are_in_force(qr/pg_hba\.conf rejects/, user => 'numeric');
my %details;
foreach my $number (1 .. 10)
{
	my $offset = $server->log_size;
	my $outcome = login_outcome(%tcp, %direct, user => 'by_name', from => "127.0.0.$number");
	my $logged = logged_names($offset);
	$offset = $server->log_size;
	is(login_outcome(%tcp, %pooled, user => 'by_name', from => "127.0.0.$number"),
		$outcome, "rules with names alone, 127.0.0.$number: the pooled port says the same");
	is(logged_names($offset), $logged, "rules with names alone, 127.0.0.$number: so does the log");
	$details{$logged =~ s/".*"/NAME/r} = 1;
}
set_names('forward alpha.example' => '127.0.0.1');
{
	my $offset = $server->log_size;
	like(login_outcome(%tcp, %pooled, user => 'by_name', from => '127.0.0.2'), qr/28000/, 'a false name');
	like(logged_names($offset), qr/"alpha\.example", forward lookup does not match\./, 'the log says that it is one');
	set_names('forward alpha.example' => '127.0.0.9 127.0.0.2');
}
cmp_ok(scalar(keys %details), '>=', 5, 'all that may be known of a name has been met');
write_rules($rules);
rules_are_in_force(qr/OK/, user => 'numeric');

# A name that changes counts at the next login.
set_names('forward alpha.example' => '127.0.0.9');
same_outcome('a name that has got other addresses', qr/28000/, user => 'by_name', from => '127.0.0.2');
set_names('forward alpha.example' => '127.0.0.2');
same_outcome('and its former one again', qr/OK/, user => 'by_name', from => '127.0.0.2');

# Whatever is sent before the name is known is read afterwards.
{
	my ($client) = begin_logins('by_name', '127.0.0.2');
	$client->send_bytes(RawClient::query('SELECT 42'));
	$client->authenticate;
	is(outcome($client), 'asked : OK', 'a client that does not wait for the answer');
	my @rows = grep { $_->{type} eq 'D' } $client->read_until_ready;
	is((RawClient::row_fields($rows[0]))[0], '42', 'and its query');
	$client->close;
}

# ---------------------------------------------------------------- many at once

my @many = map { "127.0.1.$_" } 1 .. 45;    # more than there is room for questions
set_names((map { ("reverse $_" => 'hang') } @many), 'forward many.example' => "@many");
{
	my @clients = begin_logins('by_suffix', @many, @many);
	ok($server->wait_until('SELECT unauthenticated = 90 FROM sluice.status'), 'all wait for the name service');
	ok(poll_until(sub { resolver_pids() == $resolvers }), 'as many resolvers as may run');

	# Others take no notice.
	foreach my $round (1 .. 5)
	{
		is($server->pool_sql('SELECT 1'), '1', 'a client of the Unix socket is served');
		is(login_outcome(%tcp, %pooled, user => 'numeric', from => $many[0]), 'asked : OK',
			'and one that falls under a rule without a name, even of such an address');
	}
	my $worker = $server->sql('CREATE DATABASE fleeting; DROP DATABASE fleeting; SELECT 1');
	is($worker, '1', 'a database can be dropped');
	is(parked(), '90', 'they still wait');

	set_names(map { ("reverse $_" => 'many.example') } @many);
	is(finish_logins(@clients), '90 x asked : OK', 'all get their answers');
	is(parked(), '0', 'nobody is left behind');
	cmp_ok(scalar resolver_pids(), '<=', $resolvers, 'no more resolvers than may run');
}

# One address that has no answer takes one resolver, however many clients come from there.
set_names('reverse 127.0.0.20' => 'hang');
{
	my @clients = begin_logins('by_suffix', ('127.0.0.20') x 20);
	ok($server->wait_until('SELECT unauthenticated = 20 FROM sluice.status'), 'they wait');
	same_outcome('a client of another address meanwhile', qr/OK/, user => 'by_name', from => '127.0.0.2') foreach 1 .. 3;
	is(parked(), '20', 'they still wait');
	set_names('reverse 127.0.0.20' => '-');
	like(finish_logins(@clients), qr/^20 x asked : FATAL 28000 no pg_hba\.conf entry for host "127\.0\.0\.20"/,
		'all get the same answer');
}

# Nor does one address get all resolvers with different questions: its name changes all the time, and none of its names
# has an answer.
{
	my @own_names = map { "own$_.example" } 1 .. $resolvers;
	my @clients;
	foreach my $count (1 .. $resolvers)
	{
		my $name = $own_names[ $count - 1 ];
		set_names('reverse 127.0.0.28' => $name, "forward $name" => 'hang');
		push @clients, begin_logins('by_suffix', '127.0.0.28');
		ok($server->wait_until("SELECT unauthenticated = $count FROM sluice.status"), "$count wait");
		# While these are answered its new name is read, unless its turn has not come.
		same_outcome('a client of another address meanwhile', qr/OK/, user => 'by_name', from => '127.0.0.2')
		  foreach 1 .. 3;
	}
	is(parked(), $resolvers, 'they still wait');
	set_names(map { ("forward $_" => '127.0.0.28') } @own_names);
	is(finish_logins(@clients), "$resolvers x asked : OK", 'all get their answers');
}

# ---------------------------------------------------------------- clients that leave, and time limits

set_names('reverse 127.0.0.21' => 'hang');
{
	my @clients = begin_logins('by_suffix', '127.0.0.21', '127.0.0.21');
	ok($server->wait_until('SELECT unauthenticated = 2 FROM sluice.status'), 'two wait');
	$clients[0]->drop;
	ok($server->wait_until('SELECT unauthenticated = 1 FROM sluice.status'), 'one that leaves is forgotten at once');
	$clients[1]->drop;
	ok($server->wait_until('SELECT unauthenticated = 0 FROM sluice.status'), 'the last one as well');

	# Nobody waits for that answer any more, but the next client of that address does.
	@clients = begin_logins('by_suffix', '127.0.0.21');
	ok($server->wait_until('SELECT unauthenticated = 1 FROM sluice.status'), 'another one waits');
	set_names('reverse 127.0.0.21' => 'late.example', 'forward late.example' => '127.0.0.21');
	is(finish_logins(@clients), '1 x asked : OK', 'it gets the answer');
}

$server->reload_with('authentication_timeout', 2);
set_names('reverse 127.0.0.22' => 'hang');
{
	ok(poll_until(
			sub {
				my $offset = $server->log_size;
				my @clients = begin_logins('by_suffix', '127.0.0.22');
				return finish_logins(@clients) eq '1 x asked : closed'
				  && $server->log_since($offset) =~ /canceling authentication due to timeout/;
			}),
		'authentication_timeout ends a login that waits for its name');
	is(parked(), '0', 'nobody is left behind');
	set_names('reverse 127.0.0.22' => 'late.example', 'forward late.example' => '127.0.0.22 127.0.0.21');
}
$server->reload_with('authentication_timeout', 60);
ok(poll_until(sub { login_outcome(%tcp, %pooled, user => 'by_suffix', from => '127.0.0.22') =~ /OK/ }),
	'the address is not spoilt for later clients');

# ---------------------------------------------------------------- rules that change meanwhile

set_names('reverse 127.0.0.23' => 'hang', 'forward late.example' => '127.0.0.23');
{
	my @clients = begin_logins('by_suffix', '127.0.0.23');
	ok($server->wait_until('SELECT unauthenticated = 1 FROM sluice.status'), 'a login waits');
	write_rules("host all numeric 127.0.0.1/32 reject\nhost all by_suffix late.example reject\n$rules");
	rules_are_in_force(qr/pg_hba\.conf rejects/, user => 'numeric');
	set_names('reverse 127.0.0.23' => 'late.example');
	like(finish_logins(@clients), qr/pg_hba\.conf rejects/, 'the rules as they are when the name is known decide');
	write_rules($rules);
	rules_are_in_force(qr/OK/, user => 'numeric');
}

# ---------------------------------------------------------------- encrypted clients

SKIP:
{
	my $data = $node->data_dir;
	my @certificate = ('req', '-x509', '-nodes', '-newkey', 'rsa:2048', '-subj', '/CN=localhost');
	skip 'no TLS', 6
	  if $server->sql('SHOW ssl_library') eq ''
	  || !run_log([ 'openssl', @certificate, '-keyout', "$data/server.key", '-out', "$data/server.crt" ]);
	chmod 0600, "$data/server.key";
	$node->append_conf('postgresql.conf', "ssl = on\n");
	write_rules("hostssl all by_password local.example scram-sha-256\n"
		  . "hostssl all by_name local.example trust\n$rules");
	local $ENV{PGPASSWORD} = 'secret';
	ok(poll_until(
			sub { ($server->pool_psql('SELECT 1', host => '127.0.0.1', user => 'numeric', sslmode => 'require'))[0] == 0 }),
		'the pooled port encrypts');
	set_names('reverse 127.0.0.1' => 'hang', 'forward local.example' => '127.0.0.1');
	my @asking = map { my $user = $_;
		IPC::Run::start(
			[ 'psql', '-XAtc', 'SELECT current_user',
				$server->pool_connstr(host => '127.0.0.1', user => $user, sslmode => 'require') ],
			'>', \my $output, '2>&1')
	} 'by_password', 'by_name';
	ok(poll_until(
			sub { $server->sql('SELECT unauthenticated FROM sluice.status') eq '2' && resolver_pids() > 0 }),
		'encrypted clients wait as well');
	is($server->pool_sql('SELECT 1'), '1', 'and others are served');
	set_names('reverse 127.0.0.1' => 'local.example');
	is(scalar(grep { $_->finish } @asking), 2, 'then they are let in');
	foreach my $user ('by_password', 'by_name')
	{
		is($server->pool_sql('SELECT current_user', host => '127.0.0.1', user => $user, sslmode => 'require'),
			$user, "$user by the name of its host, encrypted");
	}
	set_names('reverse 127.0.0.1' => '-');
	write_rules($rules);
}

# ---------------------------------------------------------------- processes that end

kill 'TERM', resolver_pids();
ok(poll_until(sub { resolver_pids() == 0 }), 'idle resolvers end when they are told to');
same_outcome('a login after that', qr/OK/, user => 'by_name', from => '127.0.0.2');

set_names('reverse 127.0.0.24' => 'hang', 'forward late.example' => '127.0.0.24');
{
	my @clients = begin_logins('by_suffix', '127.0.0.24');
	ok($server->wait_until('SELECT unauthenticated = 1 FROM sluice.status'), 'a login waits');
	kill 'TERM', resolver_pids();
	set_names('reverse 127.0.0.24' => 'late.example');
	is(finish_logins(@clients), '1 x asked : OK', 'a resolver that is told to end in the middle of a look-up');
}

# A new dispatcher finds its predecessor's questions, and processes.
set_names('reverse 127.0.0.25' => 'hang', 'forward late.example' => '127.0.0.25');
{
	my @clients = begin_logins('by_suffix', ('127.0.0.25') x 3);
	ok($server->wait_until('SELECT unauthenticated = 3 FROM sluice.status'), 'logins wait');
	my $former = $server->sql('SELECT dispatcher_pid FROM sluice.status');
	$server->sql("SELECT pg_terminate_backend($former)");
	like(finish_logins(@clients), qr/^3 x asked : (closed|FATAL 57P01)/, 'their dispatcher leaves them');
	ok($server->wait_until("SELECT dispatcher_pid <> $former FROM sluice.status WHERE port > 0"), 'a new dispatcher');
	$server->wait_for_pool;
	same_outcome('a login after that', qr/OK/, user => 'by_name', from => '127.0.0.2');
	@clients = begin_logins('by_suffix', ('127.0.0.25') x 3);
	ok($server->wait_until('SELECT unauthenticated = 3 FROM sluice.status'), 'they ask again');
	set_names('reverse 127.0.0.25' => 'late.example');
	is(finish_logins(@clients), '3 x asked : OK', 'and get their answers');
}

ok(poll_until(sub { resolver_pids() == 0 }), 'resolvers without work end');

# ---------------------------------------------------------------- no process for it

# Every worker slot is taken by somebody else.
{
	$server->sql('CREATE TABLE sleepers AS SELECT generate_series(1, 10000) AS n; '
		  . 'ALTER TABLE sleepers SET (parallel_workers = 100)');
	my $holder = $server->raw;
	$holder->sql("SET $_")
	  foreach 'max_parallel_workers = 100', 'max_parallel_workers_per_gather = 100', 'parallel_setup_cost = 0',
	  'parallel_tuple_cost = 0';
	$holder->send_bytes(RawClient::query('SELECT count(pg_sleep(1000 + n)) FROM sleepers'));
	ok($server->wait_until(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'parallel worker'}),
		'parallel workers have all worker slots');
	my $port = $server->port;
	like(
		login_outcome(%tcp, %pooled, user => 'by_name', from => '127.0.0.2'),
		qr/^asked : FATAL 53400 could not look up the client's host name \| D=.* \| H=.*max_worker_processes.*\b$port\b/,
		'without a worker slot a login that needs a name is refused');
	is(login_outcome(%tcp, %pooled, user => 'rejected', from => '127.0.0.1') =~ /53400/ ? 1 : 0, 1,
		'so is one that a rule with a name might have to keep out');
	is(login_outcome(%tcp, %direct, user => 'by_name', from => '127.0.0.2'),
		'asked : OK', 'the direct port has no such need');
	is(parked(), '0', 'nobody is left behind');
	$server->sql('SELECT pg_terminate_backend(' . $holder->pid . ')');
	ok(poll_until(sub { login_outcome(%tcp, %pooled, user => 'by_name', from => '127.0.0.2') =~ /OK/ }),
		'as soon as there is one the login succeeds');
}

# ---------------------------------------------------------------- the end

set_names('reverse 127.0.0.26' => 'hang');
my @last = begin_logins('by_suffix', '127.0.0.26');
ok($server->wait_until('SELECT unauthenticated = 1 FROM sluice.status'), 'a login waits');
$server->stop('immediate');
ok(1, 'an immediate shutdown does not wait for the name service');
done_testing();
