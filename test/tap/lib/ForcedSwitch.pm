# SPDX-License-Identifier: PostgreSQL
#
# What a client sees must not depend on where its transactions are executed.  The
# steps of a dialogue are taken on the direct port, and on the pooled one with
# every transaction on another backend than the one before.  In between other
# clients, who have made their own session state, execute something on those
# backends too.  All answers must be the same, message by message.
#
#   my $pair = ForcedSwitch->new('main', conf => ..., disturb => [ SQL of the other clients, once ]);
#   $pair->server                           a SluiceTest; two backends per pool
#   $pair->same('name of the test', [ step, step, ... ], %options)
#
# A step is SQL (sent as a simple query, and in another round in the extended protocol if it is a single statement), a
# reference to bytes, or code, which is called with the client.  Options: setup and cleanup (SQL executed on the direct
# port around each holding), user, dbname, parameters (of the start-up packet), only ("simple" or "extended"), mask
# (code that gets each line of the answers in $_).  Returns the answers of the direct port, as lines of text.

package ForcedSwitch;

use strict;
use warnings;

use Dialogue;
use RawClient;
use SluiceTest;
use Test::More;

sub new
{
	my ($class, $name, %option) = @_;
	my $server = SluiceTest->new($name, %option, conf => <<"CONF" . ($option{conf} || ''));
sluice.debug_force_switch = on
sluice.min_pool_size = 2
sluice.max_pool_size = 2
sluice.max_backends = 40
autovacuum = off
CONF
	return bless { server => $server, disturb => $option{disturb} || [], disturbers => {} }, $class;
}

sub server { return $_[0]{server} }

# Three others per pool: as many as backends, and one more.
sub _disturbers
{
	my ($self, %option) = @_;
	my $pool = join '/', $option{user} || '', $option{dbname} || '';
	$self->{disturbers}{$pool} = [ map { $self->_disturber($_, %option) } 1 .. 3 ] unless $self->{disturbers}{$pool};
	return @{ $self->{disturbers}{$pool} };
}

sub _disturber
{
	my ($self, $number, %option) = @_;
	my $client = $self->server->pool_raw(%option);
	foreach my $sql (@{ $self->{disturb} })
	{
		(my $own = $sql) =~ s/\%d/$number/g;
		$client->exchange(RawClient::query($own));
	}
	return $client;
}

# Ends the other clients: they may be in the way of an administrator.
sub calm
{
	my ($self) = @_;
	foreach my $clients (values %{ $self->{disturbers} }) { $_->close foreach @$clients; }
	$self->{disturbers} = {};
	return;
}

sub _extended
{
	my ($sql) = @_;
	return RawClient::parse('', $sql) . RawClient::bind('', '', []) . RawClient::describe_portal('')
	  . RawClient::execute('') . RawClient::sync();
}

sub _hold
{
	my ($self, $method, $extended, $steps, %option) = @_;
	my $server = $self->server;
	my %login = map { defined $option{$_} ? ($_ => $option{$_}) : () } 'user', 'dbname';
	$server->sql($option{setup}, dbname => $option{dbname} || 'postgres') if defined $option{setup};
	my @disturbers = $method eq 'raw' ? () : $self->_disturbers(%login);
	my $client = $server->$method(%login, parameters => $option{parameters} || {});
	my @messages = grep { $_->{type} =~ /[ES]/ } @{ $client->{startup_messages} };
	my $number = 0;
	foreach my $step (@$steps)
	{
		if (ref $step eq 'CODE') { $step->($client); next; }
		if (($client->transaction_state || 'I') eq 'I' && @disturbers)
		{
			$_->exchange(RawClient::query('SELECT count(*) FROM pg_class WHERE oid < 100')) foreach @disturbers;
		}
		my $bytes = ref $step ? $$step : $extended ? _extended($step) : RawClient::query($step);
		my $readies = ref $step ? _readies($bytes) : 1;
		$client->send_bytes($bytes);
		push @messages, $client->read_until_ready($readies);
		last if $messages[-1]{type} eq 'EOF';
	}
	$client->close;
	$server->sql($option{cleanup}, dbname => $option{dbname} || 'postgres') if defined $option{cleanup};
	return map { _line($_, $option{mask}) } @messages;
}

sub _readies
{
	my ($bytes) = @_;
	my $count = 0;
	while (length $bytes >= 5)
	{
		my ($type, $length) = unpack('aN', $bytes);
		$count++ if $type =~ /[QFS]/;
		$bytes = substr $bytes, $length + 1;
	}
	return $count;
}

sub _line
{
	my ($message, $mask) = @_;
	local $_ = Dialogue::masked(RawClient::describe($message));
	$mask->() if defined $mask;
	return $_;
}

# Reports of changed parameters come in no particular order.
sub _ordered
{
	my (@lines) = @_;
	my (@ordered, @run);
	foreach my $line (@lines, undef)
	{
		if (defined $line && $line =~ /^ParameterStatus/) { push @run, $line; next; }
		push @ordered, sort @run;
		@run = ();
		push @ordered, $line if defined $line;
	}
	return @ordered;
}

sub same
{
	my ($self, $name, $steps, %option) = @_;
	my @answers;
	foreach my $how ('simple', 'extended')
	{
		next if defined $option{only} && $option{only} ne $how;
		next if $how eq 'extended' && !defined $option{only} && grep { !ref && /;\s*\S/ && !/\$\$/ } @$steps;
		my @direct = _ordered($self->_hold('raw', $how eq 'extended', $steps, %option));
		my @pooled = _ordered($self->_hold('pool_raw', $how eq 'extended', $steps, %option));
		my $at = 0;
		$at++ while $at < @direct && $at < @pooled && $direct[$at] eq $pooled[$at];
		my $equal = $at == @direct && $at == @pooled;
		ok($equal, "$name ($how)");
		diag("message $at:\n  direct: " . (defined $direct[$at] ? $direct[$at] : '(nothing)')
			  . "\n  pooled: " . (defined $pooled[$at] ? $pooled[$at] : '(nothing)'))
		  unless $equal;
		@answers = @direct unless @answers;
	}
	return @answers;
}

1;
