# SPDX-License-Identifier: PostgreSQL
#
# What the server logs about statements: line by line the same for a client of
# the pool and a direct one.

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

my $server = Dialogue::server('main', tcp => 1, conf => <<'CONF');
log_line_prefix = '<%a|%u|%d|%h|%p> '
log_statement = none
session_preload_libraries = 'auto_explain'
CONF

sub simple { return RawClient::query($_[0]) }
sub P { return RawClient::parse(@_) }
sub B { return RawClient::bind(@_) }
sub E { return RawClient::execute(@_) }
sub S { return RawClient::sync() }

# The log lines of one client, without what differs from run to run.
sub logged
{
	my ($method, $name, $steps, $parameters) = @_;
	my $offset = $server->log_size;
	my $client = $server->$method(host => '127.0.0.1', parameters => { application_name => $name, %$parameters });
	$client->exchange($_) foreach @$steps;
	$client->close;
	$server->sql("DO \$\$BEGIN RAISE LOG 'end of $name'; END\$\$");
	$server->wait_for_log(qr/end of $name/, $offset);
	my (@lines, $ours);
	foreach my $line (split /\n/, $server->log_since($offset))
	{
		$ours = $1 eq $name if $line =~ /^<([^|]*)\|/;
		next unless $ours;
		next if $line =~ /LOG:  (?:dis)?connection/;
		$line =~ s/\|\d+> /> /;
		$line =~ s/duration: [\d.]+ ms/duration: (some) ms/;
		push @lines, $line;
	}
	return @lines;
}

my $number = 0;

sub same_log
{
	my ($name, $parameters, @steps) = @_;
	$number++;
	my @direct = logged('raw', "log $number", \@steps, $parameters);
	my @pooled = logged('pool_raw', "log $number", \@steps, $parameters);
	is_deeply(\@pooled, \@direct, $name);
	return join "\n", @direct;
}

my @work = (
	simple('SELECT 1'), simple('SELECT 2; SELECT 3'), simple(''), simple('SELECT 1/0'), simple('SELEC'),
		simple('CREATE TABLE IF NOT EXISTS made (id int)'), simple('INSERT INTO made VALUES (1)'),
	P('s', 'SELECT $1::int + 1, $2::text') . B('', 's', [ 5, "it's" ]) . E('') . S(), B('p', 's', [ 6, undef ])
		. E('p') . S(), P('', 'SELECT $1::int / 0') . B('', '', [7]) . E('') . S(),
	P('', 'SELECT i FROM generate_series(1, 3) i') . B('', '', []) . E('', 2) . E('', 2) . S(), simple('BEGIN'),
		simple('PREPARE q AS SELECT 8'), simple('EXECUTE q'), simple('COMMIT'),
	B('', 's', [ 'x', 'y' ]) . E('') . S(), P('', 'DROP TABLE made') . B('', '', []) . E('') . S());

my $text = same_log('log_statement = all', { options => '-c log_statement=all' }, @work);
like($text, qr/LOG:  execute s: SELECT \$1::int \+ 1, \$2::text\n.*DETAIL:  parameters: \$1 = '5', \$2 = 'it''s'/,
	'and the parameters are there');
like($text, qr/^<log 1\|\w+\|postgres\|127\.0\.0\.1> LOG:  statement: SELECT 1$/m, 'and the client is named');
same_log('log_statement = ddl', { log_statement => 'ddl' }, @work);
same_log('log_statement = mod', { log_statement => 'mod' }, @work);
same_log('nothing asked for, errors only', {}, @work);
same_log('log_min_duration_statement = 0', { log_min_duration_statement => 0 }, @work);
same_log('with log_statement as well', { log_min_duration_statement => 0, log_statement => 'all' }, @work);
same_log('log_duration', { log_duration => 'on' }, @work);
same_log('shortened parameters', { log_statement => 'all', log_parameter_max_length => 3,
	log_parameter_max_length_on_error => 3 }, @work);
same_log('no parameters', { log_statement => 'all', log_parameter_max_length => 0 }, @work);
same_log('log_min_error_statement = panic', { log_min_error_statement => 'panic' }, @work);
same_log('log_error_verbosity = terse', { log_error_verbosity => 'terse' }, @work);
same_log('only what takes long', { log_min_duration_statement => 200 }, simple('SELECT 1'),
	simple('SELECT pg_sleep(0.25)'),
	P('', 'SELECT pg_sleep($1)') . B('', '', ['0.25']) . E('') . S());
same_log('function call', { log_statement => 'all', log_min_duration_statement => 0 },
	RawClient::function_call($server->sql("SELECT 'int4pl'::regproc::oid"), [ 1, 2 ]),
	RawClient::function_call($server->sql("SELECT 'int4div'::regproc::oid"), [ 1, 0 ]));
same_log('COPY', { log_statement => 'all' }, simple('CREATE TABLE copied (id int)'), simple('COPY copied FROM STDIN')
	. RawClient::copy_data("1\n") . RawClient::copy_done(),
	simple('COPY copied FROM STDIN') . RawClient::copy_data("x\n") . RawClient::copy_done(),
		simple('DROP TABLE copied'));

# A library that is loaded into every session.
$text = same_log('session_preload_libraries',
	{ options => '-c auto_explain.log_min_duration=0 -c auto_explain.log_timing=off -c auto_explain.log_analyze=on' },
	simple('SELECT count(*) FROM generate_series(1, 10)'));
like($text, qr/Function Scan on generate_series/, 'is there, and obeys');

$server->stop;
done_testing();
