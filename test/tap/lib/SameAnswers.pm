# SPDX-License-Identifier: PostgreSQL
#
# The same bytes to both ports of a server, and whether all that came of it is the same: every message of the answer up
# to ReadyForQuery or the end, and every line that the server's log got by it.
#
#   my $answers = SameAnswers->new($server, { by_design => [ { name => ..., reason => ..., pooled => sub {...} } ] });
#       the server needs SameAnswers::conf() in its configuration
#   $answers->same($name, %login)         a test; returns the outcome of the direct port, as login_outcome() does
#   $answers->attempt($port, %login)      { outcome, messages => [lines of text], log => [lines of text] }
#   $answers->outcomes                    how often each SQLSTATE (OK, closed) was the direct port's
#   SameAnswers::log_lines($text, $pooled)    what the clients of one port have left in a piece of the log
#
# %login is what RawClient takes, and
#   from => '127.0.1.3'    the client's own address (rules of pg_hba.conf can tell clients apart by it)
#   tamper => sub {...}    see LoginProbe
#   startup => $bytes      these in the place of a start-up packet
#   hang_up => n           no more input behind message n (0 = the start-up packet)
#   keep => 1              the client is left connected: { client }
#
# What cannot be the same for two logins is replaced by a word: process id, cancel key, salts and nonces that are drawn
# (not the salts of SCRAM: they belong to the role), the client's port number.  Source lines of errors are left out, and
# the order in which parameters are reported.

package SameAnswers;

use strict;
use warnings;

use Exporter 'import';
use LoginProbe qw(outcome);
use RawClient;
use Test::More;

our @EXPORT_OK = qw(log_lines);

# Every line of the log says who wrote it; everything that a login can leave there is there.
sub conf
{
	return <<'CONF';
log_line_prefix = '<<%b|%e|%u|%d|%h>> '
log_connections = on
log_min_messages = info
log_statement = none
autovacuum = off
CONF
}

sub new
{
	my ($class, $server, $option) = @_;
	my $by_design = $option ? $option->{by_design} : undef;
	return bless { server => $server, by_design => $by_design || [], outcomes => {}, used => {} }, $class;
}

sub outcomes { return $_[0]{outcomes} }

# Names of the entries of the table that were needed.
sub differences_seen { return sort keys %{ $_[0]{used} } }

# --- the log

# Of one port's clients: an entry is a line with what continues it.
sub log_lines
{
	my ($text, $pooled) = @_;
	my @entries;
	foreach my $line (split /^(?=<<)/m, $text)
	{
		next unless $line =~ /^<<([^|]*)\|(\w*)\|(.*?)>> (.*)$/s;
		my ($process, $sqlstate, $who, $rest) = ($1, $2, $3, $4);
		next unless $pooled ? $process eq 'pg_sluice dispatcher' : $process =~ /^(client backend|not initialized)$/;
		chomp $rest;
		push @entries, "$sqlstate $who $rest";
	}
	foreach (@entries) { s/\bport=\d+/port=N/; }
	return @entries;
}

# --- one login

sub describe
{
	my ($message) = @_;
	my ($type, $body) = @$message{ 'type', 'body' };
	return RawClient::describe($message) if $type ne 'R' && $type ne 'K';
	return 'BackendKeyData, ' . length($body) . ' bytes' if $type eq 'K';
	my ($request, $data) = unpack('Na*', $body);
	$data = length($data) . ' bytes' if $request == 5;
	$data =~ s/r=[^,]+,/r=NONCE,/ if $request == 11;
	$data =~ s/v=.*/v=SIGNATURE/ if $request == 12;
	$data =~ s/\0/\\0/g;
	return "Authentication $request $data";
}

# The protocol leaves the order of the parameters' reports open.
sub _in_order
{
	my (@messages) = @_;
	my @reports = sort grep { /^ParameterStatus/ } @messages;
	return map { /^ParameterStatus/ ? shift @reports : $_ } @messages;
}

sub attempt
{
	my ($self, $port, %login) = @_;
	my $server = $self->{server};
	my $pooled = $port == $server->pool_port;
	my $offset = $server->log_size;
	my $client = SameAnswers::Client->open(timeout => $SluiceTest::patience_s, %login, port => $port);
	my %parameter = (
		user => $login{user},
		(defined $login{dbname} ? (database => $login{dbname}) : ()),
		%{ $login{parameters} || {} });

	$client->{startup_user} = $login{user};
	$client->send_bytes(defined $login{startup} ? $login{startup} : RawClient::startup_packet(%parameter));
	$client->no_more_input if defined $login{hang_up} && $login{hang_up} == 0;
	my $died = eval { $client->authenticate; 1 } ? '' : $@;
	$died =~ s/ at \S+ line \d+.*//s;
	my @messages = _in_order(map { describe($_) } @{ $client->{startup_messages} });
	push @messages, "client: $died" if $died ne '';
	if (defined $client->error && %{ $client->error })
	{
		push @messages, map { describe($_) } $client->read_until('');
	}
	my %result = (outcome => $died ne '' ? "client: $died" : outcome($client), messages => \@messages);
	if ($login{keep}) { $result{client} = $client; }
	else { $client->drop; }
	$result{log} = [ log_lines($server->log_since($offset), $pooled) ];
	return \%result;
}

# --- two logins

sub _count
{
	my ($self, $outcome) = @_;
	my ($result) = $outcome =~ /: (?:FATAL |ERROR )?(\w+)/;
	$self->{outcomes}{ defined $result ? $result : $outcome }++;
	return;
}

# The pooled port's answer where it differs for a reason: as the table says it shall be.
sub _expected
{
	my ($self, $direct, $pooled, %login) = @_;
	foreach my $entry (@{ $self->{by_design} })
	{
		my $expected = $entry->{pooled}->($direct, $pooled, %login);
		next unless defined $expected;
		$self->{used}{ $entry->{name} } = 1;
		return ($expected, " (by design: $entry->{reason})");
	}
	return ($direct, '');
}

sub same
{
	my ($self, $name, %login) = @_;
	my $server = $self->{server};
	my $direct = $self->attempt($server->port, %login);
	my $pooled = $self->attempt($server->pool_port, %login);
	my ($expected, $why) = $self->_expected($direct, $pooled, %login);
	my @lines = map { join("\n", @{ $_->{messages} }, '-- log', @{ $_->{log} }) } $expected, $pooled;

	$self->_count($direct->{outcome});
	is($lines[1], $lines[0], "$name$why");
	return $direct->{outcome};
}

# --- a client

package SameAnswers::Client;

use strict;
use warnings;

use IO::Socket::IP;
use RawClient;
use Socket qw(SHUT_WR);

our @ISA = ('LoginProbe');

sub open
{
	my ($class, %option) = @_;
	my $host = defined $option{host} ? $option{host} : '127.0.0.1';
	my $socket;
	if ($host =~ m{^/}) { $socket = RawClient::open_socket($host, $option{port}); }
	else
	{
		$socket = IO::Socket::IP->new(
			PeerHost => $host,
			PeerPort => $option{port},
			Type => Socket::SOCK_STREAM(),
			(defined $option{from} ? (LocalHost => $option{from}) : ()));
	}
	die "could not connect to $host:$option{port}: $!" unless defined $socket;
	binmode $socket;
	return bless { %option, socket => $socket, buffer => '', parameter_status => {}, notices => [] }, $class;
}

# The other side reads the end of the stream, and this one what is said to that.
sub no_more_input
{
	my ($self) = @_;
	return shutdown($self->{socket}, SHUT_WR);
}

sub send_message
{
	my ($self, $type, $body) = @_;
	my $sent = $self->SUPER::send_message($type, $body);
	$self->no_more_input if defined $self->{hang_up} && $self->{message_number} >= $self->{hang_up};
	return $sent;
}

1;
