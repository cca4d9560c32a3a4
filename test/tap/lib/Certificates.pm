# SPDX-License-Identifier: PostgreSQL
#
# Certificates for one test, made with the openssl command in a directory of its own.
#
#   my $files = Certificates->new;                  an authority, and "server": RSA, for 127.0.0.1 and localhost
#   $files->make('name', subject => '/CN=someone', kind => 'rsa' | 'ecdsa', passphrase => '...')
#       key and certificate, issued by the authority
#   $files->certificate('name'), $files->key('name'), $files->authority, $files->revoked
#   $files->revoke('name')                          puts it on the list $files->revoked
#   $files->conf('name')                            lines of postgresql.conf that turn TLS on with it
#   $files->install('name', 'other')                puts name's certificate and key into the place of other's

package Certificates;

use strict;
use warnings;

use File::Copy qw(copy);
use PostgreSQL::Test::Utils;

sub new
{
	my ($class) = @_;
	my $self = bless { directory => PostgreSQL::Test::Utils::tempdir_short() }, $class;
	my $directory = $self->{directory};
	_write("$directory/authority.cnf", <<"CONF");
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
[leaf]
basicConstraints = CA:false
subjectAltName = IP:127.0.0.1, DNS:localhost
[ca]
default_ca = own
[own]
database = $directory/index.txt
default_md = sha256
default_crl_days = 30
CONF
	_write("$directory/index.txt", '');
	_run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 30, '-subj', '/CN=authority of the test',
		'-config', "$directory/authority.cnf", '-extensions', 'authority', '-keyout', "$directory/authority.key", '-out',
		"$directory/authority.crt");
	$self->make('server', subject => '/CN=server');
	$self->_list;
	return $self;
}

sub _write
{
	my ($file, $text) = @_;
	open my $handle, '>', $file or die "$file: $!";
	print $handle $text;
	close $handle or die "$file: $!";
	return;
}

sub _run
{
	my (@command) = @_;
	my ($output, $errors) = ('', '');
	IPC::Run::run(\@command, '<', \'', '>', \$output, '2>', \$errors) or die "@command: $errors";
	return $output;
}

sub certificate { my ($self, $name) = @_; return "$self->{directory}/$name.crt" }
sub key { my ($self, $name) = @_; return "$self->{directory}/$name.key" }
sub authority { return $_[0]{directory} . '/authority.crt' }
sub revoked { return $_[0]{directory} . '/revoked.pem' }

sub make
{
	my ($self, $name, %option) = @_;
	my $directory = $self->{directory};
	my @kind = ($option{kind} || 'rsa') eq 'rsa' ? ('rsa:2048') : ('ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1');
	my @lock = defined $option{passphrase} ? ('-passout', "pass:$option{passphrase}") : ('-nodes');
	my @unlock = defined $option{passphrase} ? ('-passin', "pass:$option{passphrase}") : ();
	$self->{serial}++;
	_run('openssl', 'req', '-newkey', @kind, @lock, '-subj', $option{subject} || "/CN=$name", '-config',
		"$directory/authority.cnf", '-keyout', $self->key($name), '-out', "$directory/$name.csr");
	_run('openssl', 'x509', '-req', '-in', "$directory/$name.csr", '-CA', $self->authority, '-CAkey',
		"$directory/authority.key", '-set_serial', 4000 + $self->{serial}, '-days', 30, '-extfile',
		"$directory/authority.cnf", '-extensions', 'leaf', '-out', $self->certificate($name));
	chmod 0600, $self->key($name);
	return;
}

sub _authority_command
{
	my ($self, @arguments) = @_;
	return _run('openssl', 'ca', '-config', "$self->{directory}/authority.cnf", '-keyfile',
		"$self->{directory}/authority.key", '-cert', $self->authority, @arguments);
}

sub _list { my ($self) = @_; return $self->_authority_command('-gencrl', '-out', $self->revoked) }

sub revoke
{
	my ($self, $name) = @_;
	$self->_authority_command('-revoke', $self->certificate($name));
	return $self->_list;
}

sub conf
{
	my ($self, $name) = @_;
	my ($certificate, $key, $authority) = ($self->certificate($name), $self->key($name), $self->authority);
	return <<"CONF";
ssl = on
ssl_cert_file = '$certificate'
ssl_key_file = '$key'
ssl_ca_file = '$authority'
CONF
}

sub install
{
	my ($self, $name, $other) = @_;
	copy($self->key($name), $self->key($other)) or die $!;
	copy($self->certificate($name), $self->certificate($other)) or die $!;
	return;
}

1;
