# SPDX-License-Identifier: PostgreSQL
#
# What the end-to-end tests share: a server with pg_sluice preloaded whose pooled
# port is a free one, and short ways to reach it through either port.
#
#   my $server = SluiceTest->new('main', conf => "sluice.max_pool_size = 1\n", tcp => 1, init => [ ... ]);
#   $server->node                    the PostgreSQL::Test::Cluster behind it
#   $server->port, $server->pool_port, $server->host
#   $server->connstr(...), $server->pool_connstr(dbname => 'postgres', user => 'app', ...)
#   $server->sql($query, ...)        psql on the direct port, dies on error, returns the output
#   $server->pool_sql($query, ...)   the same through the pool
#   $server->pool_psql($query, ...)  (exit code, output, errors), never dies
#   $server->raw(...), $server->pool_raw(...)   RawClient, connected and authenticated
#   $server->wait_until($query, ...)            until the query gives "t" on the direct port
#   $server->reload_with($setting, $value)      ALTER SYSTEM, and until new connections see it
#   $server->wait_for_log($regexp, $offset), $server->log_size, $server->log_since($offset)
#
# Options of the psql and raw calls: dbname, user, password, host, and whatever a connection string may have.
# The server trusts everyone on the Unix socket unless pg_hba.conf is changed.
#
# With SLUICE_TEST_TLS=1 in the environment the clients of the pooled port that name no host use TLS over TCP.

package SluiceTest;

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RawClient;
use Test::More;
use Time::HiRes qw(sleep time);

my $over_tls = $ENV{SLUICE_TEST_TLS};

# No waiting in a test may depend on how fast the machine is.
our $patience_s = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

sub new
{
	my ($class, $name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $pool_port = PostgreSQL::Test::Cluster::get_free_port();
	my $self = bless { node => $node, pool_port => $pool_port }, $class;

	$node->init(@{ $option{init} || [] });
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_sluice'
sluice.port = $pool_port
fsync = off
max_connections = 50
log_min_messages = info
CONF
	$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\n") if $option{tcp} || $over_tls;
	if ($over_tls)
	{
		require Certificates;
		$self->{certificates} = Certificates->new;
		$node->append_conf('postgresql.conf', $self->{certificates}->conf('server'));
	}
	$node->append_conf('postgresql.conf', $option{conf}) if defined $option{conf};
	$self->start unless defined $option{start} && !$option{start};
	$self->sql('CREATE EXTENSION pg_sluice') unless $option{no_extension} || defined $option{start} && !$option{start};
	return $self;
}

sub node { return $_[0]{node} }
sub host { return $_[0]{node}->host }
sub port { return $_[0]{node}->port }
sub pool_port { return $_[0]{pool_port} }

# The dispatcher opens its port a moment after the server's.
sub start
{
	my ($self) = @_;
	$self->node->start;
	$self->wait_for_pool;
	return;
}

sub restart
{
	my ($self) = @_;
	$self->node->restart;
	$self->wait_for_pool;
	return;
}

sub stop
{
	my ($self, @arguments) = @_;
	$self->node->stop(@arguments);
	return;
}

sub wait_for_pool
{
	my ($self) = @_;
	my $deadline = time() + $patience_s;
	while (time() < $deadline)
	{
		my $socket = RawClient::open_socket($self->host, $self->pool_port);
		return if defined $socket;
		sleep 0.05;
	}
	die "nobody listens on the pooled port " . $self->pool_port;
}

sub _connstr
{
	my ($self, $port, %option) = @_;
	my %parameter = (host => $self->host, port => $port, dbname => 'postgres', %option);
	my @pieces;
	foreach my $key (sort keys %parameter)
	{
		my $value = $parameter{$key};
		next unless defined $value;
		$value =~ s/([\\'])/\\$1/g;
		push @pieces, "$key='$value'";
	}
	return join ' ', @pieces;
}

sub connstr { my ($self, %option) = @_; return $self->_connstr($self->port, %option) }
sub pool_connstr
{
	my ($self, %option) = @_;
	%option = (host => '127.0.0.1', sslmode => 'require', %option) if $over_tls;
	return $self->_connstr($self->pool_port, %option);
}

sub _psql
{
	my ($self, $connstr, $query) = @_;
	my ($output, $errors) = ('', '');
	my $code = $self->node->psql(
		'postgres', $query,
		connstr => $connstr,
		stdout => \$output,
		stderr => \$errors,
		timeout => $patience_s);
	return ($code, $output, $errors);
}

sub psql { my ($self, $query, %option) = @_; return $self->_psql($self->connstr(%option), $query) }
sub pool_psql { my ($self, $query, %option) = @_; return $self->_psql($self->pool_connstr(%option), $query) }

sub _sql
{
	my ($code, $output, $errors) = @_;
	die "psql failed with $code: $errors" if $code != 0 || $errors =~ /ERROR|FATAL/;
	return $output;
}

sub sql { my ($self, $query, %option) = @_; return _sql($self->psql($query, %option)) }
sub pool_sql { my ($self, $query, %option) = @_; return _sql($self->pool_psql($query, %option)) }

sub _raw
{
	my ($self, $port, %option) = @_;
	my %parameter = (
		host => $self->host,
		port => $port,
		user => scalar getpwuid($>),
		dbname => 'postgres',
		timeout => $patience_s,
		%option);
	return RawClient->connect(%parameter);
}

sub raw { my ($self, %option) = @_; return $self->_raw($self->port, %option) }
sub pool_raw
{
	my ($self, %option) = @_;
	%option = (host => '127.0.0.1', tls => {}, %option) if $over_tls && !defined $option{host};
	return $self->_raw($self->pool_port, %option);
}

sub wait_until
{
	my ($self, $query, $expected) = @_;
	$expected = 't' unless defined $expected;
	my $deadline = time() + $patience_s;
	my $answer;
	while (time() < $deadline)
	{
		$answer = $self->sql($query);
		return 1 if $answer eq $expected;
		sleep 0.05;
	}
	diag("waited for \"$expected\" of: $query\nlast answer: $answer");
	return 0;
}

# New backends see it as soon as new connections do.
sub reload_with
{
	my ($self, $name, $value) = @_;
	$self->sql("ALTER SYSTEM SET $name = $value");
	$self->sql('SELECT pg_reload_conf()');
	return $self->wait_until("SELECT setting = '$value' FROM pg_settings WHERE name = '$name'");
}

sub log_size { return -s $_[0]->node->logfile }

sub log_since
{
	my ($self, $offset) = @_;
	return PostgreSQL::Test::Utils::slurp_file($self->node->logfile, $offset);
}

# True as soon as the log behind $offset matches.
sub wait_for_log
{
	my ($self, $regexp, $offset) = @_;
	my $deadline = time() + $patience_s;
	while (time() < $deadline)
	{
		return 1 if $self->log_since($offset || 0) =~ $regexp;
		sleep 0.05;
	}
	diag("the log never matched $regexp");
	return 0;
}

1;
