# SPDX-License-Identifier: PostgreSQL
#
# The client's end of TLS between two strings of bytes, with no socket in it: a
# test decides itself which of them travel, when, and in how many pieces.
# RawClient puts it between itself and its socket ($client->start_tls).
#
#   my $tls = TlsLayer->new(alpn => ['postgresql'], certificate => $file, key => $file, ciphers => '...',
#                           ciphersuites => '... of TLS 1.3',
#                           min_version => 'TLSv1.2', max_version => 'TLSv1.2');
#   $tls->shake_hands($bytes)    goes on with what has been received: 1 = done, 0 = needs more, undef = failed
#   $tls->outgoing               bytes to be sent; take them after each other call
#   $tls->encrypt($bytes), $tls->decrypt($bytes)
#   $tls->ended                  the other side has said that nothing more will come
#   $tls->broken                 what came is no TLS, or an alert (text)
#   $tls->version, $tls->cipher, $tls->alpn, $tls->subject    of the connection, and of the server's certificate

package TlsLayer;

use strict;
use warnings;

use Net::SSLeay;

Net::SSLeay::load_error_strings();
Net::SSLeay::SSLeay_add_ssl_algorithms();

my %version = ('TLSv1' => 0x0301, 'TLSv1.1' => 0x0302, 'TLSv1.2' => 0x0303, 'TLSv1.3' => 0x0304);

sub new
{
	my ($class, %option) = @_;
	my $context = Net::SSLeay::CTX_new_with_method(Net::SSLeay::TLS_client_method()) or die 'no TLS context';
	my $self = bless { context => $context }, $class;
	Net::SSLeay::CTX_set_min_proto_version($context, $version{ $option{min_version} }) if $option{min_version};
	Net::SSLeay::CTX_set_max_proto_version($context, $version{ $option{max_version} }) if $option{max_version};
	if ($option{ciphers}) { Net::SSLeay::CTX_set_cipher_list($context, $option{ciphers}) or die 'unknown cipher'; }
	if ($option{ciphersuites}) { Net::SSLeay::CTX_set_ciphersuites($context, $option{ciphersuites}) or die 'unknown cipher'; }
	if ($option{certificate})
	{
		Net::SSLeay::set_cert_and_key($context, $option{certificate}, $option{key}) or die 'cannot use the certificate';
	}
	Net::SSLeay::CTX_set_alpn_protos($context, $option{alpn}) if $option{alpn};
	$self->{ssl} = Net::SSLeay::new($context) or die 'no TLS connection';
	$self->{$_} = Net::SSLeay::BIO_new(Net::SSLeay::BIO_s_mem()) foreach 'from_network', 'to_network';
	Net::SSLeay::set_bio($self->{ssl}, $self->{from_network}, $self->{to_network});
	Net::SSLeay::set_connect_state($self->{ssl});
	return $self;
}

sub ended { return $_[0]{ended} }
sub broken { return $_[0]{broken} }
sub version { return Net::SSLeay::get_version($_[0]{ssl}) }
sub cipher { return Net::SSLeay::get_cipher($_[0]{ssl}) }
sub alpn { return Net::SSLeay::P_alpn_selected($_[0]{ssl}) }

sub subject
{
	my ($self) = @_;
	my $certificate = Net::SSLeay::get_peer_certificate($self->{ssl}) or return undef;
	my $subject = Net::SSLeay::X509_NAME_oneline(Net::SSLeay::X509_get_subject_name($certificate));
	Net::SSLeay::X509_free($certificate);
	return $subject;
}

sub _take
{
	my ($self, $bytes) = @_;
	Net::SSLeay::BIO_write($self->{from_network}, $bytes) if defined $bytes && length $bytes;
	return;
}

# What a call with this result has to say.
sub _judge
{
	my ($self, $result) = @_;
	my $kind = Net::SSLeay::get_error($self->{ssl}, $result);
	return if $kind == Net::SSLeay::ERROR_WANT_READ() || $kind == Net::SSLeay::ERROR_WANT_WRITE();
	if ($kind == Net::SSLeay::ERROR_ZERO_RETURN()) { $self->{ended} = 1; return; }
	$self->{broken} = Net::SSLeay::ERR_error_string(Net::SSLeay::ERR_get_error()) unless defined $self->{broken};
	return;
}

sub outgoing
{
	my ($self) = @_;
	my $count = Net::SSLeay::BIO_pending($self->{to_network});
	return $count > 0 ? Net::SSLeay::BIO_read($self->{to_network}, $count) : '';
}

sub shake_hands
{
	my ($self, $bytes) = @_;
	$self->_take($bytes);
	Net::SSLeay::ERR_clear_error();
	my $result = Net::SSLeay::do_handshake($self->{ssl});
	return 1 if $result == 1;
	$self->_judge($result);
	return defined $self->{broken} ? undef : 0;
}

sub encrypt
{
	my ($self, $bytes) = @_;
	Net::SSLeay::ERR_clear_error();
	Net::SSLeay::write($self->{ssl}, $bytes) == length $bytes or die 'could not encrypt' if length $bytes;
	return $self->outgoing;
}

sub decrypt
{
	my ($self, $bytes) = @_;
	my $text = '';
	$self->_take($bytes);
	while (1)
	{
		Net::SSLeay::ERR_clear_error();
		my ($piece, $result) = Net::SSLeay::read($self->{ssl}, 1 << 16);
		$result = defined $piece ? length $piece : -1 unless defined $result;
		if ($result <= 0) { $self->_judge($result); return $text; }
		$text .= $piece;
	}
}

# Goodbye, to be sent.
sub say_end
{
	my ($self) = @_;
	Net::SSLeay::shutdown($self->{ssl});
	return $self->outgoing;
}

sub DESTROY
{
	my ($self) = @_;
	Net::SSLeay::free($self->{ssl}) if $self->{ssl};
	Net::SSLeay::CTX_free($self->{context}) if $self->{context};
	return;
}

1;
