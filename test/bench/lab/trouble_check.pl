# SPDX-License-Identifier: PostgreSQL
#
# Holds what clients were told against what the table says: was anything lost, executed twice, or answered wrongly?
#
#   trouble_check.pl OUTCOMES TABLE
#
# OUTCOMES is written by trouble_clients; TABLE has a line for each row of "done", beginning with its id.  Prints
# "NAME NUMBER" lines:
#   told                committed, as the client was told
#   lost                ... and not in the table
#   twice               ids that are in the table more than once
#   refused_there       an error was answered, but the id is in the table
#   unsent_there        the message that commits was never sent, but the id is in the table
#   strangers           rows with an id that nobody has used (such as -1, of transactions that were never committed)
#   wrong unasked odd unanswered
#                       things that must not happen, see trouble_clients
#   unknown             the connection died before the answer, and of these ...
#   unknown_there       ... are in the table
#   error.OUTCOME.STATE how often, with the SQLSTATE or the word for how the connection ended
# Exit status 0 if it could be read; what it has found is for the reader.
use strict;
use warnings;

my ($outcomes, $table) = @ARGV;
die "use: trouble_check.pl OUTCOMES TABLE\n" unless defined $table;

my %rows;
open(my $rows, '<', $table) or die "could not open $table: $!\n";
while (my $line = <$rows>)
{
	$rows{$1}++ if $line =~ /^(-?\d+)\b/;
}
close($rows);

my %count = map { $_ => 0 } qw(told lost twice refused refused_there unsent unsent_there strangers wrong unasked odd unanswered
	unknown unknown_there connect);
my %used;
open(my $lines, '<', $outcomes) or die "could not open $outcomes: $!\n";
scalar <$lines>;
while (my $line = <$lines>)
{
	chomp $line;
	my ($id, undef, $outcome, undef, undef, $state) = split /,/, $line, -1;
	# A line that was being written when its writer was killed.
	next unless defined $state;
	$used{$id} = 1;
	$count{$outcome}++;
	my $there = $rows{$id};
	if ($outcome eq 'told') { $count{lost}++ unless $there; next; }
	$count{"${outcome}_there"}++ if $there && $outcome =~ /^(?:refused|unsent|unknown)$/;
	# The numbers that wrong answers had would be kinds of their own.
	$state = '' if $outcome =~ /^(?:wrong|unasked|odd)$/;
	$count{ "error.$outcome" . ($state ne '' ? ".$state" : '') }++;
}
close($lines);
$count{twice} = grep { $rows{$_} > 1 && $used{$_} } keys %rows;
foreach my $id (grep { !$used{$_} } keys %rows) { $count{strangers} += $rows{$id}; }

print "$_ $count{$_}\n" foreach sort keys %count;
