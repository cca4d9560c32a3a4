# SPDX-License-Identifier: PostgreSQL
#
# What a client has been told about the server's parameters is always true,
# whatever other clients of the same backend have set.

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

# A change within a transaction is told, and so is its end.
foreach my $client ($plain, $special)
{
	my $before = $client->parameter_status->{TimeZone};
	$client->sql('BEGIN');
	$client->sql("SET TimeZone = 'Pacific/Auckland'");
	is($client->parameter_status->{TimeZone}, 'Pacific/Auckland', 'a change is told');
	told_the_truth($client, 'in the transaction');
	$client->sql('COMMIT');
	told_the_truth($client, 'after it');
	is($client->parameter_status->{TimeZone}, $before,
		'the setting was taken back with the transaction, and the client told');
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

# In session mode, a client keeps what it has set.
$server->sql("CREATE DATABASE held");
$server->sql("ALTER DATABASE held SET sluice.pool_mode = 'session'");
my $held = $server->pool_raw(dbname => 'held');
$held->sql("SET TimeZone = 'Pacific/Auckland'");
is($held->parameter_status->{TimeZone}, 'Pacific/Auckland', 'a change in session mode is told');
told_the_truth($held, 'and stays');

$server->stop;
done_testing();
