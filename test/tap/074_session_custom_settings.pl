# SPDX-License-Identifier: PostgreSQL
#
# Custom settings made up by clients: one backend sees many clients come and go,
# each with values of the same names, and nobody ever sees a name or a value that
# is not his own.

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\nsluice.min_pool_size = 1\n");
my @names = map { "app.s$_" } ('', '_1', 'x', '.y');
my $rounds = 60;

sub look
{
	my ($client) = @_;
	return join ',',
	  map { defined $_->[0] ? $_->[0] : 'null' }
	  $client->sql('SELECT current_setting(n, true) FROM unnest(ARRAY[' . join(', ', map { "'$_'" } @names) . ']) n');
}

sub count_wrong
{
	my ($connect) = @_;
	my (@clients, @models);
	my $wrong = 0;
	srand 7;
	foreach my $round (1 .. $rounds)
	{
		my $i = @clients < 6 ? scalar @clients : int rand @clients;
		if (!$clients[$i] || rand() < 0.2)
		{
			$clients[$i]->close if $clients[$i];
			$clients[$i] = $connect->();
			$models[$i] = { map { $_ => 'null' } @names };
		}
		my $name = $names[rand @names];
		my $value = "$i/$round";
		my @changes = (
			["SET $name = '$value'", 1],
			["SELECT set_config('$name', '$value', false)", 1],
			["DO \$\$BEGIN PERFORM set_config('$name', '$value', false); END\$\$", 1],
			["SELECT set_config('$name', '$value', true)", 0],
			["BEGIN; SET LOCAL $name = '$value'; COMMIT", 0],
			["BEGIN; SET $name = '$value'; ROLLBACK", 0]);
		my ($change, $stays) = @{ $changes[rand @changes] };
		$clients[$i]->sql($change);
		$models[$i]{$name} = $stays ? $value : $models[$i]{$name} eq 'null' ? '' : $models[$i]{$name};
		foreach my $k (0 .. $#clients)
		{
			my $expected = join ',', map { $models[$k]{$_} } @names;
			my $got = look($clients[$k]);
			next if $got eq $expected;
			$wrong++;
			diag "round $round, client $k: $got instead of $expected";
		}
	}
	return $wrong;
}

is(count_wrong(sub { $server->raw }), 0, 'direct connections: the model is right');
is(count_wrong(sub { $server->pool_raw }), 0, "$rounds changes by clients of one backend: everyone sees his own");

$server->stop;
done_testing();
