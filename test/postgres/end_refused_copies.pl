#!/usr/bin/perl
# SPDX-License-Identifier: PostgreSQL
#
# When the server refuses a COPY FROM STDIN, an older psql goes on with the next line of its script; a newer one (even
# in a later minor release of the same major version) first skips the data that it expects there, up to "\.".  The
# scripts of older suites have refused COPYs without data, and the newer psql would skip much of the script, often the
# rest of it.  This puts "\." behind them.
#
# Which they are is told by the expected output, where psql shows every line of its script but no COPY data: behind the
# COPY and its error comes the very next line of the script.  So scripts of newer suites stay as they are.
#
# Use: end_refused_copies.pl DIRECTORY     (of the suite; its scripts are changed in place; prints how many COPYs were)
use strict;
use warnings;

my ($suite) = @ARGV;

sub lines_of
{
	my ($path) = @_;
	open my $file, '<:raw', $path or die "could not read $path: $!\n";
	chomp(my @lines = <$file>);
	return @lines;
}

my $changed = 0;
for my $script (sort glob "$suite/sql/*.sql")
{
	(my $expected = $script) =~ s{/sql/(.*)\.sql$}{/expected/$1.out};
	next unless -f $expected;
	my @script = lines_of($script);
	my @output = lines_of($expected);

	# Where the output shows each line, in the order of the script.
	my %shown;
	push @{ $shown{ $output[$_] } }, $_ for 0 .. $#output;

	my @ended;
	for my $i (0 .. $#script)
	{
		push @ended, $script[$i];
		next unless $script[$i] =~ /^\s*copy\b.*\bfrom\s+stdin\b.*;\s*(--.*)?$/i;
		my $at = shift @{ $shown{ $script[$i] } || [] };
		next unless defined $at;
		my $errors = 0;
		while (++$at <= $#output && $output[$at] =~ /^(ERROR|DETAIL|HINT|CONTEXT|LINE \d+|NOTICE|WARNING):|^\s+\^$/)
		{
			$errors++ if $output[$at] =~ /^ERROR:/;
		}
		my $next = $i + 1;
		$next++ while $next <= $#script && $script[$next] =~ /^\s*$/;    # psql does not show empty lines
		next if !$errors || $next > $#script || $at > $#output || $output[$at] ne $script[$next];
		push @ended, '\.';
		$changed++;
	}
	next if @ended == @script;
	open my $file, '>:raw', $script or die "could not write $script: $!\n";
	print $file map { "$_\n" } @ended;
	close $file or die "could not write $script: $!\n";
}
print "$changed\n";
