# SPDX-License-Identifier: PostgreSQL
#
# The pool must speak the protocol as the server does.  A dialogue is a list of
# steps, each the bytes a client sends before it waits for ReadyForQuery.  It is
# held with the server on its direct port, and the answers of the pool must be
# the same, message by message, however the bytes arrive and wherever they are
# executed:
#
#   all at once             one write, and goodbye behind it
#   in small pieces         messages and their headers torn apart
#   a backend per step      every transaction on another backend than the one before
#   in session mode         step by step
#
#   my $dialogue = Dialogue->new($server, dbname => ...);    the server must have been made by Dialogue::server
#   $dialogue->same('name of the test', [ step, step, ... ], %options)
#
# A step is bytes, or [bytes, how many ReadyForQuery answer it] where that is not the number of Query, FunctionCall
# and Sync messages among them.  Options: setup (SQL executed on the direct port before each holding), skip (list of
# ways not to use), parameters (of the start-up packet).  Returns the answers of the direct port, as lines of text.

package Dialogue;

use strict;
use warnings;

use RawClient;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

# Two backends at most, and both always there.  Database "held" is in session mode.
sub server
{
	my ($name, %option) = @_;
	my $server = SluiceTest->new($name, %option, conf => <<"CONF" . ($option{conf} || ''));
sluice.min_pool_size = 2
sluice.max_pool_size = 2
sluice.max_backends = 3
CONF
	$server->sql('CREATE DATABASE held');
	$server->sql("ALTER DATABASE held SET sluice.pool_mode = 'session'");
	$server->sql('ALTER DATABASE held SET sluice.min_pool_size = 0');
	return $server;
}

sub new
{
	my ($class, $server) = @_;
	my $self = bless { server => $server }, $class;
	$self->{switch} = BackendSwitch->new($server);
	return $self;
}

sub switch { return $_[0]{switch} }

sub _bytes { my ($step) = @_; return ref $step ? $step->[0] : $step }

sub _readies
{
	my ($step) = @_;
	return $step->[1] if ref $step;
	my ($count, $rest) = (0, $step);
	while (length $rest >= 5)
	{
		my ($type, $length) = unpack('aN', $rest);
		$count++ if $type =~ /[QFS]/;
		$rest = substr $rest, $length + 1;
	}
	return $count;
}

# What differs between two runs on one and the same server is masked.
sub masked
{
	my ($line) = @_;
	$line =~ s/:(\d{5,9}):(\d+):(\d+):/$1 >= 16384 ? ":(table):$2:$3:" : ":$1:$2:$3:"/ge if $line =~ /^RowDescription/;
	$line =~ s/\bat character \d+//g;
	return $line;
}

sub _transcript
{
	my (@messages) = @_;
	my @lines = map { masked(RawClient::describe($_)) } @messages;
	# Changed parameters are reported in no particular order.
	my @ordered;
	while (@lines)
	{
		my @run;
		push @run, shift @lines while @lines && $lines[0] =~ /^ParameterStatus/;
		push @ordered, sort @run;
		push @ordered, shift @lines if @lines;
	}
	return \@ordered;
}

sub _step_by_step
{
	my ($self, $client, $steps, $before_step) = @_;
	my @messages;
	foreach my $step (@$steps)
	{
		$before_step->() if $before_step && ($client->transaction_state || 'I') eq 'I';
		$client->send_bytes(_bytes($step));
		push @messages, $client->read_until_ready(_readies($step)) if _readies($step) > 0;
		last if @messages && $messages[-1]{type} eq 'EOF';
	}
	$client->send_bytes(RawClient::terminate());
	push @messages, $client->read_until('') unless @messages && $messages[-1]{type} eq 'EOF';
	return @messages;
}

sub _all_at_once
{
	my ($self, $client, $steps) = @_;
	$client->send_bytes(join('', map { _bytes($_) } @$steps) . RawClient::terminate());
	return $client->read_until('');
}

sub _in_small_pieces
{
	my ($self, $client, $steps) = @_;
	my $bytes = join('', map { _bytes($_) } @$steps) . RawClient::terminate();
	my @sizes = (1, 3, 7, 2, 11);
	# Not forever: a few hundred pieces tear enough apart.
	for (my ($offset, $i) = (0, 0); $offset < length $bytes; $i++)
	{
		my $size = $i < 300 ? $sizes[ $i % @sizes ] : length $bytes;
		$client->send_bytes(substr $bytes, $offset, $size);
		sleep 0.001 if $i % 10 == 0;
		$offset += $size;
	}
	return $client->read_until('');
}

my @ways = (
	[ 'direct', 'port' ],
	[ 'all at once', 'pool_port' ],
	[ 'in small pieces', 'pool_port' ],
	[ 'a backend per step', 'pool_port' ],
	[ 'in session mode', 'pool_port', 'held' ]);

sub same
{
	my ($self, $name, $steps, %option) = @_;
	my $server = $self->{server};
	my %skip = map { $_ => 1 } @{ $option{skip} || [] };
	my $expected;
	my $failed = 0;
	foreach my $way (@ways)
	{
		my ($how, $port, $dbname) = @$way;
		next if $skip{$how};
		$dbname = 'postgres' unless defined $dbname;
		$server->sql($option{setup}, dbname => $dbname) if defined $option{setup};
		my $method = $port eq 'port' ? 'raw' : 'pool_raw';
		my $client = $server->$method(dbname => $dbname, parameters => $option{parameters} || {});
		my @messages =
		    $how eq 'all at once' ? $self->_all_at_once($client, $steps)
		  : $how eq 'in small pieces' ? $self->_in_small_pieces($client, $steps)
		  : $how eq 'a backend per step' ? $self->_step_by_step($client, $steps, sub { $self->{switch}->next_backend })
		  : $self->_step_by_step($client, $steps);
		$client->drop;
		my $transcript = _transcript(@messages);
		$expected = $transcript unless defined $expected;
		next if "@$transcript" eq "@$expected";
		# Say which way failed, and show the first difference only.
		my $at = 0;
		$at++ while $at < @$expected && $at < @$transcript && $expected->[$at] eq $transcript->[$at];
		diag("$name, $how, message $at:\n   direct: "
			  . (defined $expected->[$at] ? $expected->[$at] : '(nothing)')
			  . "\n   pooled: "
			  . (defined $transcript->[$at] ? $transcript->[$at] : '(nothing)'));
		$failed = 1;
	}
	ok(!$failed, $name);
	return @$expected;
}

# Makes sure that a client's next transaction is executed on another backend than
# the last: of the two backends of the pool one is always kept busy, by turns.
package BackendSwitch;

use strict;
use warnings;

sub new
{
	my ($class, $server, %option) = @_;
	my @clients = map { $server->pool_raw(%option) } 1 .. 2;
	my $self = bless { clients => \@clients, busy => 0 }, $class;
	$self->{pid}[$_] = undef foreach 0 .. 1;
	$self->_occupy(0);
	return $self;
}

sub _occupy
{
	my ($self, $which) = @_;
	$self->{clients}[$which]->sql('BEGIN');
	$self->{pid}[$which] = $self->{clients}[$which]->sql('SELECT pg_backend_pid()');
	return;
}

# Only while the client in question is in no transaction.
sub next_backend
{
	my ($self) = @_;
	my ($old, $new) = ($self->{busy}, 1 - $self->{busy});
	$self->_occupy($new);
	die 'both clients on the same backend' if defined $self->{pid}[$old] && $self->{pid}[$old] == $self->{pid}[$new];
	$self->{clients}[$old]->sql('COMMIT');
	$self->{free_pid} = $self->{pid}[$old];
	$self->{pid}[$old] = undef;
	$self->{busy} = $new;
	return;
}

# The backend that the next transaction gets.
sub free_pid { return $_[0]{free_pid} }

1;
