# SPDX-License-Identifier: PostgreSQL
#
# Logging in and telling what came of it in one line of text, so that two ports
# can be compared; and a client that tampers with what it sends.
#
#   login_outcome(host => ..., port => ..., user => ..., dbname => ..., password => ..., parameters => {...},
#                 tamper => sub { my ($number, $type, $body) = @_; return $bytes })
#       "asked 10,11,12: OK", "asked 10: FATAL 28P01 message | detail | hint" or "asked 10: closed"
#   $client = LoginProbe->open(..., byte_limit => n, one_by_one => 1)
#       as RawClient->open; hangs up (dies) after n bytes, or sends each byte by itself

package LoginProbe;

use strict;
use warnings;

use RawClient;
use Exporter 'import';

our @ISA = ('RawClient', 'Exporter');
our @EXPORT_OK = ('login_outcome', 'outcome');

# Messages after the start-up packet; the callback answers with the bytes to send in their place.
sub send_message
{
	my ($self, $type, $body) = @_;
	my $number = $self->{message_number}++;
	my $bytes = $self->{tamper} ? $self->{tamper}->($number, $type, $body) : RawClient::message($type, $body);
	return $self->send_bytes($bytes);
}

sub send_bytes
{
	my ($self, $bytes) = @_;
	if (defined $self->{byte_limit})
	{
		my $left = $self->{byte_limit} - ($self->{bytes_sent} || 0);
		if (length $bytes > $left)
		{
			$self->SUPER::send_bytes(substr($bytes, 0, $left)) if $left > 0;
			die "hung up\n";
		}
	}
	$self->{bytes_sent} += length $bytes;
	return $self->SUPER::send_bytes($bytes) unless $self->{one_by_one};
	$self->SUPER::send_bytes($_) foreach split //, $bytes;
	return 1;
}

sub outcome
{
	my ($client) = @_;
	my $asked = 'asked ' . join(',', grep { $_ != 0 } @{ $client->{requests} || [] }) . ': ';
	my $error = $client->error;
	return "${asked}OK" unless defined $error;
	return "${asked}closed" unless %$error;
	my $text = $asked . join ' ', map { defined $_ ? $_ : '-' } @$error{ 'V', 'C', 'M' };
	return join ' | ', $text, map { "$_=$error->{$_}" } grep { defined $error->{$_} } 'D', 'H';
}

sub login_outcome
{
	my (%option) = @_;
	my $client = LoginProbe->try_connect(%option);
	my $outcome = outcome($client);
	$client->drop;
	return $outcome;
}

1;
