# SPDX-License-Identifier: PostgreSQL
#
# The first packets of a client: requests, versions, start-up parameters.  The
# answers are those of the server's own port.

use strict;
use warnings;

use LoginProbe qw(login_outcome outcome);
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

my $me = scalar getpwuid($>);
my $server = SluiceTest->new('main', tcp => 1, conf => "sluice.max_pool_size = 1\n");
my $node = $server->node;
my %direct = (host => '127.0.0.1', port => $server->port);
my %pooled = (host => '127.0.0.1', port => $server->pool_port);
my ($ssl_request, $gss_request) = (pack('NN', 8, 80877103), pack('NN', 8, 80877104));

$server->sql(q{CREATE ROLE plain LOGIN; CREATE ROLE scram LOGIN PASSWORD 'secret'});

sub packet
{
	my ($protocol, $body) = @_;
	return pack('NN', 8 + length $body, $protocol) . $body;
}

# The answer to these bytes, as lines of text.
sub answer
{
	my ($where, $bytes, $until) = @_;
	my $client = RawClient->open(%$where);
	$client->send_bytes($bytes);
	my @messages = $client->read_until($until || 'ER');
	return join "\n", map { RawClient::describe($_) } @messages;
}

sub same_answer
{
	my ($name, $expected, $bytes, $until) = @_;
	my $answer = answer(\%direct, $bytes, $until);
	like($answer, $expected, "$name: the direct port");
	is(answer(\%pooled, $bytes, $until), $answer, "$name: the pooled port says the same");
	return;
}

# ---------------------------------------------------------------- encryption is denied

foreach my $requests ([ 'SSL', $ssl_request ], [ 'GSS', $gss_request ], [ 'SSL, then GSS', $ssl_request, $gss_request ])
{
	my ($name, @requests) = @$requests;
	my $client = RawClient->open(%pooled);
	foreach my $request (@requests)
	{
		$client->send_bytes($request);
		is($client->read_bytes(1), 'N', "a request for $name is denied");
	}
	$client->send_startup(user => $me, database => 'postgres');
	$client->authenticate;
	is(scalar $client->sql('SELECT 1'), 1, "$name: the client goes on without");
	$client->close;
}
{
	my $client = RawClient->open(%pooled);
	$client->send_bytes($ssl_request);
	is($client->read_bytes(1), 'N', 'the first request');
	$client->send_bytes($ssl_request);
	is(RawClient::error_fields($client->read_message)->{M},
		'unsupported frontend protocol 1234.5679: server supports 3.0 to 3.0', 'a second request is an error');
	ok($client->at_end_of_stream, 'and the end');
}
{
	# Clients do send the start-up packet without waiting.
	my $client = RawClient->open(%pooled);
	$client->send_bytes($ssl_request . RawClient::startup_packet(user => $me, database => 'postgres'));
	is($client->read_bytes(1), 'N', 'a request and the start-up packet in one piece');
	$client->authenticate;
	is($client->error, undef, 'both are seen');
	$client->close;
}

# ---------------------------------------------------------------- versions

my $names = "user\0$me\0database\0postgres\0";
foreach my $minor (0, 1)
{
	# The answer is in the words of that protocol, and no message to us.
	my $bytes = packet((2 << 16) + $minor, "$names\0");
	my @answers = map { my $client = RawClient->open(%$_); $client->send_bytes($bytes); $client->read_bytes(1000) }
	  (\%direct, \%pooled);
	like($answers[0], qr/^EFATAL:  unsupported frontend protocol 2\.$minor/, "protocol 2.$minor: the direct port");
	is($answers[1], $answers[0], "protocol 2.$minor: the pooled port says the same");
}
same_answer('protocol 4.0', qr/C=0A000.*unsupported frontend protocol 4\.0/, packet(4 << 16, "$names\0"));
same_answer('protocol 0.0', qr/C=0A000/, packet(0, "$names\0"));
same_answer('protocol 3.1', qr/^v /, packet((3 << 16) + 1, "$names\0"));
same_answer('an unknown protocol option', qr/^v .*_pq_\.x/, packet(3 << 16, "${names}_pq_.x\0on\0\0"));
same_answer('two of them, and version 3.7', qr/^v .*_pq_\.x.*_pq_\.y/,
	packet((3 << 16) + 7, "${names}_pq_.x\0on\0_pq_.y\0off\0\0"));
same_answer('an option before a refusal', qr/^v .*\n.*C=28000/s, packet(3 << 16, "user\0nobody\0_pq_.x\0on\0\0"), 'E');
{
	my $client = RawClient->open(%pooled);
	$client->send_bytes(packet((3 << 16) + 1, "$names\0"));
	$client->read_message;
	$client->authenticate;
	is(scalar $client->sql('SELECT 1'), 1, 'a client of a later minor version is served');
	$client->close;
}

# ---------------------------------------------------------------- layout

same_answer('no user', qr/C=28000.*no PostgreSQL user name/, packet(3 << 16, "database\0postgres\0\0"));
same_answer('no parameters', qr/C=28000/, packet(3 << 16, "\0"));
same_answer('an unknown role', qr/C=28000.*role "nobody" does not exist/, packet(3 << 16, "user\0nobody\0\0"), 'E');
same_answer('an unknown database', qr/C=3D000/, packet(3 << 16, "user\0$me\0database\0nodb\0\0"), 'E');
same_answer('a name without a value', qr/C=08P01/, packet(3 << 16, "${names}options\0"));
same_answer('no terminator', qr/C=08P01/, packet(3 << 16, "user\0${me}"));
same_answer('bytes behind the terminator', qr/C=08P01/, packet(3 << 16, "$names\0\0\0"));
same_answer('a long name', qr/C=28000/, packet(3 << 16, "user\0" . ('n' x 200) . "\0\0"), 'E');
same_answer('a repeated user', qr/C=28000.*"nobody"/, packet(3 << 16, "${names}user\0nobody\0\0"), 'E');
same_answer('replication=garbage', qr/C=22023.*H=Valid values/, packet(3 << 16, "${names}replication\0maybe\0\0"));
like(
	answer(\%pooled, packet(3 << 16, $names . join('', map { "a.x$_\0$_\0" } 1 .. 200) . "\0")),
	qr/C=08P01; M=too many parameters in startup packet/,
	'more parameters than there is room for');
my $direct_port = $server->port;
foreach my $value ('true', 'on', 'database')
{
	like(
		answer(\%pooled, packet(3 << 16, "${names}replication\0$value\0\0")),
		qr/C=0A000; H=.*port $direct_port\b.*M=replication connections are not supported/,
		"replication=$value is refused");
}
is(login_outcome(%pooled, user => $me, dbname => 'postgres', parameters => { replication => 'off' }),
	'asked : OK', 'replication=off is none');

# ---------------------------------------------------------------- in pieces

foreach my $user ($me, 'scram')
{
	my $host = $server->host;
	if ($user eq 'scram')
	{
		my $path = $node->data_dir . '/pg_hba.conf';
		my $rules = slurp_file($path);
		open my $file, '>', $path or die "$path: $!";
		print $file "host all scram 127.0.0.1/32 scram-sha-256\n$rules";
		close $file;
		my $offset = $server->log_size;
		$node->reload;
		my $deadline = time() + $SluiceTest::patience_s;
		sleep 0.05
		  until login_outcome(%pooled, user => 'scram', dbname => 'postgres', password => 'x') =~ /28P01/
		  || time() > $deadline;
	}
	my $client =
	  LoginProbe->try_connect(%pooled, one_by_one => 1, user => $user, dbname => 'postgres', password => 'secret');
	is($client->error, undef, "$user logs in byte by byte");
	is(scalar $client->sql('SELECT current_user'), $user, 'and sends a query so');
	$client->close;
}

# ---------------------------------------------------------------- start-up settings

my $state = q{SELECT string_agg(name || '=' || CASE WHEN setting <> '' THEN setting || ':' || source ELSE '' END, ', ' ORDER BY name) FROM pg_settings
	WHERE source = 'client' OR name IN ('work_mem', 'DateStyle', 'client_encoding', 'application_name')};

# Logs in on both ports; compares refusal or settings.
sub same_session
{
	my ($name, $expected, $user, %parameters) = @_;
	my @seen;
	foreach my $where (\%direct, \%pooled)
	{
		my $client = LoginProbe->try_connect(%$where, user => $user, dbname => 'postgres', parameters => \%parameters);
		my $seen = outcome($client);
		if ($seen =~ /OK$/)
		{
			my $status = $client->parameter_status;
			$seen .= "\n" . $client->sql($state) . "\n" . join ', ', map { "$_=$status->{$_}" } sort keys %$status;
			$client->close;
		}
		push @seen, $seen;
	}
	like($seen[0], $expected, "$name: the direct port");
	is($seen[1], $seen[0], "$name: the same on the pooled port");
	return;
}

same_session('nothing', qr/OK/, 'plain');
same_session('application_name', qr/application_name=tester:client/, 'plain', application_name => 'tester');
same_session('an empty application_name', qr/OK/, 'plain', application_name => '');
same_session('a long application_name', qr/application_name=a{63}:/, 'plain', application_name => 'a' x 100);
same_session('an application_name beyond ASCII', qr/application_name=\?/, 'plain', application_name => "\xc3\xa4x\x01");
same_session('DateStyle', qr/DateStyle=SQL, DMY:client/, 'plain', DateStyle => 'SQL, DMY');
same_session('client_encoding', qr/client_encoding=LATIN1/, 'plain', client_encoding => 'LATIN1');
same_session('options', qr/work_mem=5120:client/, 'plain', options => '-c work_mem=5MB -c app.x=y');
same_session('an old name of a setting', qr/work_mem=8192:client/, 'plain', options => '-c sort_mem=8MB');
same_session('a setting nobody else knows', qr/OK/, 'plain', 'made.up' => 'value');
same_session('switches', qr/enable_nestloop=off:client/, 'plain', options => '-fn --work-mem=6MB -S 7000 -e');
same_session('escapes', qr/application_name=a b\\c:client/, 'plain', options => '-c application_name=a\\ b\\\\c');
same_session('both kinds', qr/work_mem=3072/, 'plain', options => '-c work_mem=2MB', work_mem => '3MB');
same_session('a role', qr/is_superuser=off/, $me, options => '-c role=pg_monitor');
same_session('log_statement as superuser', qr/log_statement=all:client/, $me, options => '-c log_statement=all');
same_session('no switches at all', qr/OK/, 'plain', options => '   ');

same_session('a bad DateStyle', qr/FATAL 22023.*DateStyle/, 'plain', DateStyle => 'nonsense');
same_session('a bad client_encoding', qr/FATAL 22023.*client_encoding/, 'plain', client_encoding => 'nope');
same_session('an unknown setting', qr/FATAL 42704.*no_such/, 'plain', no_such_setting => '1');
same_session('an unknown setting in options', qr/FATAL 42704.*no_such/, 'plain', options => '-c no_such_setting=1');
same_session('a bad value in options', qr/FATAL 22023.*work_mem/, 'plain', options => '-c work_mem=much');
same_session('a value out of range', qr/FATAL 22023.*work_mem/, 'plain', work_mem => '1kB');
same_session('an unknown switch', qr/FATAL 42601 invalid command-line argument/, 'plain', options => '-z');
same_session('an argument', qr/FATAL 42601 invalid command-line argument/, 'plain', options => 'garbage');
same_session('-c without a value', qr/FATAL 42601 -c work_mem requires a value/, 'plain', options => '-c work_mem');
same_session('-- without a value', qr/FATAL 42601 --work_mem requires a value/, 'plain', options => '--work_mem');
same_session('somebody else\'s setting', qr/FATAL 42501.*log_statement/, 'plain', options => '-c log_statement=all');
same_session('a setting of the server', qr/FATAL 55P02.*shared_buffers/, 'plain', options => '-c shared_buffers=1MB');
same_session('a setting of a reload', qr/FATAL 55P02.*authentication_timeout/, 'plain', authentication_timeout => '5');
same_session('a role one may not have', qr/FATAL/, 'plain', options => "-c role=$me");
same_session('after all that, nothing', qr/OK/, 'plain');
is($server->sql(q{SELECT starts || ' ' || retirements FROM sluice.pools WHERE role = 'plain'}),
	'1 0', 'one backend has seen it all, and has not been lost to any of them');

foreach my $where (\%direct, \%pooled)
{
	my $client = RawClient->connect(
		%$where,
		user => 'plain',
		dbname => 'postgres',
		parameters => { options => '-c work_mem=5MB -c app.x=y', DateStyle => 'German' });
	my @rows = map { scalar $client->sql($_) } (
		'BEGIN', "SET work_mem = '9MB'", "SET app.x = 'z'", "SET DateStyle = 'ISO'",
		'RESET work_mem', 'RESET app.x', 'RESET DateStyle',
		q{SELECT current_setting('work_mem') || current_setting('app.x') || current_setting('DateStyle')});
	is($rows[-1], '5MByGerman, DMY', "RESET returns to the start-up values on port $where->{port}");
	$client->sql('ROLLBACK');
	$client->sql("SET work_mem = '9MB'");
	$client->sql('RESET ALL');
	is(scalar $client->sql('SHOW work_mem'), '5MB', 'so does RESET ALL');
	$client->close;
}

# ---------------------------------------------------------------- different settings on one backend

{
	my @clients = map { RawClient->connect(%pooled, user => 'plain', dbname => 'postgres', parameters => $_) } (
		{ options => '-c work_mem=5MB -c app.x=first', DateStyle => 'German', application_name => 'one' },
		{ options => '-c work_mem=6MB', client_encoding => 'LATIN1', application_name => 'two' },
		{ options => '-c app.y=third' },
		{});
	my @expected = (
		"5MB|first|-|German, DMY|UTF8|one", "6MB|-|-|ISO, MDY|LATIN1|two",
		"4MB|-|third|ISO, MDY|UTF8|", "4MB|-|-|ISO, MDY|UTF8|");
	my $default = $server->raw(%direct, user => 'plain')->parameter_status;
	s/ISO, MDY/$default->{DateStyle}/, s/UTF8/$default->{client_encoding}/ foreach @expected;
	my (%pids, @wrong);
	foreach my $round (1 .. 20)
	{
		foreach my $number (sort { ($a * 7 + $round) % 4 <=> ($b * 7 + $round) % 4 } 0 .. 3)
		{
			my ($row) = $clients[$number]->sql(q{SELECT current_setting('work_mem'),
				coalesce(nullif(current_setting('app.x', true), ''), '-'),
				coalesce(nullif(current_setting('app.y', true), ''), '-'), current_setting('DateStyle'),
				current_setting('client_encoding'), current_setting('application_name'), pg_backend_pid()});
			$pids{ pop @$row }++;
			my $seen = join '|', @$row;
			push @wrong, "client $number, round $round: $seen" if $seen ne $expected[$number];
		}
	}
	is(join("\n", @wrong), '', 'each client sees its own start-up settings in every transaction');
	is(scalar keys %pids, 1, 'though they share one backend');
	$_->close foreach @clients;
}

# A library that is loaded meanwhile may know what the client seemed to have made up.
{
	$server->sql('CREATE ROLE loader LOGIN');
	my %login = (%pooled, user => 'loader', dbname => 'postgres');
	my $first = RawClient->connect(%login,
		parameters => { options => '-c plpgsql.check_asserts=off -c plpgsql.extra_errors=all' });
	$first->sql('DO $$ BEGIN END $$');
	my $second = RawClient->connect(%login);
	my $show = q{SELECT current_setting('plpgsql.check_asserts') || ' ' || current_setting('plpgsql.extra_errors')};
	foreach (1 .. 3)
	{
		is(scalar $first->sql($show), 'off all', 'who set it has it');
		is(scalar $second->sql($show), 'on none', 'others have the default');
	}
	$first->close;
	is(scalar $second->sql($show), 'on none', 'also when that client has left');
	$second->close;
}

# ---------------------------------------------------------------- cancel requests

{
	my $client = RawClient->connect(%pooled, user => 'plain', dbname => 'postgres');
	my $offset = $server->log_size;
	$client->send_bytes(RawClient::query('SELECT pg_sleep(600)'));
	$server->wait_until(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'});

	ok($client->cancel(key => $client->key ^ 1), 'a cancel request with a wrong key is closed');
	ok($server->wait_for_log(qr/wrong key in cancel request/, $offset), 'and logged');
	ok($client->cancel(pid => 12345), 'a cancel request for an unknown number is closed');
	ok($server->wait_for_log(qr/number 12345 in cancel request did not match/, $offset), 'and logged');
	foreach my $length (8, 12, 15, 17, 100)
	{
		my $other = RawClient->open(%pooled);
		$other->send_bytes(pack('NNNN', $length, 80877102, $client->pid, $client->key) . ('x' x 84));
		is($other->read_message->{type}, 'EOF', "a cancel request of $length bytes is closed");
	}
	is($client->poll_message(0), undef, 'nothing of this has cancelled the query');
	$client->cancel;
	is(RawClient::error_fields(($client->read_until('E'))[-1])->{C}, '57014', 'the right number and key do');
	$client->read_until_ready;
	is(scalar $client->sql('SELECT 1'), 1, 'the client goes on');
	$client->cancel;
	is(scalar $client->sql('SELECT 2'), 2, 'a cancel request between queries does nothing');
	$client->close;
}

ok($server->wait_until('SELECT count(*) = 0 FROM sluice.clients'), 'nobody is left behind');
unlike($server->log_since(0), qr/terminated by signal|PANIC|TRAP:/, 'and nothing has crashed');
$server->stop;
done_testing();
