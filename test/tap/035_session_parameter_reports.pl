# SPDX-License-Identifier: PostgreSQL
#
# What a client has been told about the server's parameters is always true,
# whatever other clients of the same backend have set, and wherever its next
# transaction is executed.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\nsluice.min_pool_size = 1\n");
my @names = ('TimeZone', 'DateStyle', 'client_encoding', 'application_name', 'IntervalStyle',
	'standard_conforming_strings', 'session_authorization', 'is_superuser', 'default_transaction_read_only');

sub told_the_truth
{
	my ($client, $when) = @_;
	my %actual = map { $_->[0] => $_->[1] } $client->sql('SELECT name, current_setting(name) FROM unnest(ARRAY['
		. join(', ', map { "'$_'" } @names) . ']) name');
	my %told = map { $_ => $client->parameter_status->{$_} } @names;
	return is_deeply(\%told, \%actual, $when);
}

# The start-up reports the same names and values as a direct connection.
my %parameters = (TimeZone => 'Asia/Tokyo', DateStyle => 'German', application_name => 'teller',
	client_encoding => 'LATIN1');
foreach my $parameters ({}, \%parameters, { options => '-c IntervalStyle=iso_8601 -c TimeZone=Europe/Paris' })
{
	my ($direct, $pooled) = ($server->raw(parameters => $parameters), $server->pool_raw(parameters => $parameters));
	is_deeply($pooled->parameter_status, $direct->parameter_status,
		'parameters at start-up are those of a direct connection: ' . join ' ', sort keys %$parameters);
}

my $plain = $server->pool_raw;
my $special = $server->pool_raw(parameters => \%parameters);
my $backend = $plain->sql('SELECT pg_backend_pid()');
is($special->sql('SELECT pg_backend_pid()'), $backend, 'one backend serves both');
foreach (1 .. 2)
{
	told_the_truth($plain, 'a client without settings of its own');
	told_the_truth($special, 'a client with settings of its own');
}

# A change within a transaction is told, and so is its end if that takes it back.
foreach my $client ($plain, $special)
{
	my $other = $client == $plain ? $special : $plain;
	my $before = $client->parameter_status->{TimeZone};
	foreach my $end ('COMMIT', 'ROLLBACK')
	{
		$client->sql('BEGIN');
		$client->sql("SET TimeZone = 'Pacific/Auckland'");
		is($client->parameter_status->{TimeZone}, 'Pacific/Auckland', 'a change is told');
		told_the_truth($client, 'in the transaction');
		$client->sql($end);
		told_the_truth($client, "after $end");
		told_the_truth($other, 'and the other client');
		told_the_truth($client, 'and the first one again');
		my $expected = $end eq 'COMMIT' ? 'Pacific/Auckland' : $before;
		is($client->parameter_status->{TimeZone}, $expected, "the setting after $end");
		$client->sql('RESET TimeZone');
		is($client->parameter_status->{TimeZone}, $before, 'RESET is told too');
	}
}
$plain->sql("SET TimeZone = 'Pacific/Auckland'");
told_the_truth($plain, 'after a change outside of a transaction');
told_the_truth($special, 'the other client');
$plain->sql("BEGIN; SET LOCAL TimeZone = 'Pacific/Auckland'; SET application_name = 'other'");
told_the_truth($plain, 'several changes at once');
$plain->sql('ROLLBACK');
told_the_truth($plain, 'after they were rolled back');
$plain->sql("SELECT set_config('DateStyle', 'SQL', false); SELECT set_config('client_encoding', 'LATIN2', false)");
told_the_truth($plain, 'after changes by function');
$plain->sql('CREATE ROLE visitor');
$plain->sql('BEGIN; SET SESSION AUTHORIZATION visitor');
is($plain->parameter_status->{session_authorization}, 'visitor', 'the role is told');
is($plain->parameter_status->{is_superuser}, 'off', 'and what it may do');
$plain->sql('COMMIT');
told_the_truth($special, 'the other client, who has another role');
told_the_truth($plain, 'and the one with the role of the transaction before');
is($plain->parameter_status->{session_authorization}, 'visitor', 'which it still has');
$plain->sql('RESET SESSION AUTHORIZATION');
isnt($plain->parameter_status->{session_authorization}, 'visitor', 'the role that comes back is told');
told_the_truth($plain, 'after the role was taken back');

# Nobody is told what does not concern it.
foreach (1 .. 5)
{
	foreach my $client ($plain, $special)
	{
		my @told = grep { $_->{type} eq 'S' } $client->exchange(RawClient::query('SELECT 1'));
		is(scalar @told, 0, 'no report for a change of client');
	}
}

# On another backend for each transaction, nothing is told but what the client changes.
$server->sql('CREATE DATABASE forced');
$server->sql("ALTER DATABASE forced SET sluice.$_") foreach 'debug_force_switch = on', 'max_pool_size = 2', 'min_pool_size = 2';
my $wanderer = $server->pool_raw(dbname => 'forced', parameters => \%parameters);
my $change = "SET TimeZone = 'Pacific/Auckland'; SET application_name = 'wanderer'; SET client_encoding = 'LATIN2'; "
  . 'SET ROLE visitor; SET default_transaction_read_only = on';
my @told = grep { $_->{type} eq 'S' } $wanderer->exchange(RawClient::query($change));
is(scalar @told, 5, 'each change is told once');
my %pids;
foreach (1 .. 6)
{
	my @messages = map { $wanderer->exchange(RawClient::query('SELECT pg_backend_pid()')) } 1 .. 2;
	is(scalar(grep { $_->{type} eq 'S' } @messages), 0, 'no report for a change of backend');
	$pids{$_}++ foreach map { RawClient::row_fields($_) } grep { $_->{type} eq 'D' } @messages;
	told_the_truth($wanderer, 'what was told before is true');
}
is(scalar keys %pids, 2, 'there were two backends');
$wanderer->sql('RESET ALL; RESET ROLE');
is($wanderer->parameter_status->{TimeZone}, 'Asia/Tokyo', 'RESET ALL returns to the values of the start-up, and tells');
told_the_truth($wanderer, 'after RESET ALL');
$wanderer->close;

# In session mode, a client keeps what it has set.
$server->sql("CREATE DATABASE held");
$server->sql("ALTER DATABASE held SET sluice.pool_mode = 'session'");
my $held = $server->pool_raw(dbname => 'held');
$held->sql("SET TimeZone = 'Pacific/Auckland'");
is($held->parameter_status->{TimeZone}, 'Pacific/Auckland', 'a change in session mode is told');
told_the_truth($held, 'and stays');

$server->stop;
done_testing();
