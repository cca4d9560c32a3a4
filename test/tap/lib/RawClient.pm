# SPDX-License-Identifier: PostgreSQL
#
# A client that speaks the frontend/backend protocol byte by byte, in core Perl.
# libpq hides what these tests are about: the exact sequence of messages, what
# happens to half a message, or to a client that goes away in the middle.
#
#   my $client = RawClient->connect(host => ..., port => ..., user => ..., dbname => ..., password => ...,
#                                   parameters => { application_name => 'x' }, timeout => 60);
#       dies if it is refused; try_connect returns the client with ->error set instead
#   my $client = RawClient->open(host => ..., port => ...);      a bare connection, nothing sent yet
#   $client->start_tls(direct => 1, alpn => [...], ...)     false if it is denied or fails; all bytes that follow are
#       encrypted (options of TlsLayer; connect and try_connect do it with the option tls => {...})
#
# A message is { type => 'D', body => $bytes }.  All reading has a time limit and dies when it passes; the end of the
# stream is the message { type => 'EOF' }.

package RawClient;

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Digest::SHA qw(sha256 hmac_sha256);
use Errno;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use MIME::Base64;
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

our $default_timeout_s = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

# --- connecting

# A host that begins with a slash is the directory of a Unix socket.  `from`, if given, is the address on this side.
# Returns undef if nobody listens.
sub open_socket
{
	my ($host, $port, $from) = @_;
	my $socket;
	if ($host =~ m{^/})
	{
		$socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => "$host/.s.PGSQL.$port");
	}
	else
	{
		$socket = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, LocalAddr => $from, Proto => 'tcp');
		setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1) if defined $socket;
	}
	binmode $socket if defined $socket;
	return $socket;
}

sub open
{
	my ($class, %option) = @_;
	my $socket = open_socket($option{host}, $option{port}, $option{from});
	die "could not connect to $option{host}:$option{port}: $!" unless defined $socket;
	return bless {
		%option,
		socket => $socket,
		buffer => '',
		timeout => $option{timeout} || $default_timeout_s,
		parameter_status => {},
		notices => []
	  },
	  $class;
}

sub try_connect
{
	my ($class, %option) = @_;
	my $self = $class->open(%option);
	if ($option{tls} && !$self->start_tls(%{ $option{tls} })) { $self->{error} = {}; return $self; }
	my %parameter = (
		user => $option{user},
		(defined $option{dbname} ? (database => $option{dbname}) : ()),
		%{ $option{parameters} || {} });
	$self->send_startup(%parameter);
	$self->authenticate;
	return $self;
}

sub connect
{
	my ($class, %option) = @_;
	my $self = $class->try_connect(%option);
	my $error = $self->error;
	die 'connection refused: ' . ($error->{M} || 'closed without a message') . "\n" if defined $error;
	return $self;
}

# --- encryption

sub start_tls
{
	my ($self, %option) = @_;
	require TlsLayer;
	if (!$option{direct})
	{
		$self->send_bytes(pack('NN', 8, 80877103));
		return 0 if $self->read_bytes(1) ne 'S';
	}
	return $self->finish_tls(TlsLayer->new(%option));
}

# Goes on with a handshake of which nothing, or the first flight, has been sent.
sub finish_tls
{
	my ($self, $tls) = @_;
	my $deadline = time() + $self->{timeout};
	my $done = $tls->shake_hands('');
	while (1)
	{
		$self->send_bytes($tls->outgoing);
		last if $done || !defined $done || $self->{at_end};
		die "no end of the handshake within $self->{timeout} s\n" if time() > $deadline;
		$self->_receive if IO::Select->new($self->{socket})->can_read(1);
		$done = $tls->shake_hands($self->{buffer});
		$self->{buffer} = '';
	}
	$self->{tls_error} = $tls->broken;
	return 0 unless $done;
	$self->{layer} = $tls;
	$self->{buffer} = $tls->decrypt('');
	return 1;
}

sub tls { return $_[0]{layer} }

sub socket { return $_[0]{socket} }
sub pid { return $_[0]{pid} }
sub key { return $_[0]{key} }

# Of the start-up: a hash of ErrorResponse's fields, {} for a connection closed without a word, undef if it went well.
sub error { return $_[0]{error} }

# Name to value, as of the last message read.
sub parameter_status { return $_[0]{parameter_status} }

sub startup_packet
{
	my (%parameter) = @_;
	my $body = pack('N', 196608);
	# The user first, as libpq does it.
	foreach my $name (sort { ($b eq 'user') <=> ($a eq 'user') || $a cmp $b } keys %parameter)
	{
		next unless defined $parameter{$name};
		$body .= "$name\0$parameter{$name}\0";
	}
	$body .= "\0";
	return pack('N', length($body) + 4) . $body;
}

sub send_startup
{
	my ($self, %parameter) = @_;
	$self->{startup_user} = $parameter{user};
	return $self->send_bytes(startup_packet(%parameter));
}

# Answers the server's questions until it is ready; fills pid, key, parameter_status or error.
sub authenticate
{
	my ($self) = @_;
	delete $self->{error};
	$self->{startup_messages} = [];
	while (1)
	{
		my $message = $self->read_message;
		my ($type, $body) = ($message->{type}, $message->{body});
		push @{ $self->{startup_messages} }, $message;
		if ($type eq 'EOF') { $self->{error} = {}; return; }
		if ($type eq 'E') { $self->{error} = error_fields($message); return; }
		return if $type eq 'Z';
		next if $type ne 'R';

		my $request = unpack('N', $body);
		push @{ $self->{requests} }, $request;
		my $password = defined $self->{password} ? $self->{password} : '';
		if ($request == 3) { $self->send_message('p', "$password\0"); }
		elsif ($request == 5)
		{
			my $salt = substr($body, 4, 4);
			my $inner = md5_hex($password . $self->{startup_user});
			$self->send_message('p', 'md5' . md5_hex($inner . $salt) . "\0");
		}
		elsif ($request == 10) { $self->_scram_first($body); }
		elsif ($request == 11) { $self->_scram_final(substr($body, 4)); }
		elsif ($request == 12)
		{
			my ($signature) = substr($body, 4) =~ /v=([^,]+)/;
			die 'wrong SCRAM server signature' unless $signature eq $self->{scram_server_signature};
		}
		elsif ($request != 0) { die "unknown authentication request $request"; }
	}
}

sub _scram_first
{
	my ($self, $body) = @_;
	my @mechanisms = split /\0/, substr($body, 4);
	die "no SCRAM-SHA-256 among @mechanisms" unless grep { $_ eq 'SCRAM-SHA-256' } @mechanisms;
	$self->{scram_nonce} = encode_base64(join('', map { chr int rand 256 } 1 .. 18), '');
	$self->{scram_first_bare} = "n=,r=$self->{scram_nonce}";
	my $first = "n,,$self->{scram_first_bare}";
	return $self->send_message('p', "SCRAM-SHA-256\0" . pack('N', length $first) . $first);
}

sub _scram_final
{
	my ($self, $server_first) = @_;
	my ($nonce, $salt, $iterations) = $server_first =~ /^r=([^,]+),s=([^,]+),i=(\d+)/
	  or die "bad SCRAM message: $server_first";
	die 'bad SCRAM nonce' unless index($nonce, $self->{scram_nonce}) == 0;

	my $password = defined $self->{password} ? $self->{password} : '';
	my $block = hmac_sha256(decode_base64($salt) . pack('N', 1), $password);
	my $salted = $block;
	for (2 .. $iterations)
	{
		$block = hmac_sha256($block, $password);
		$salted ^= $block;
	}
	my $client_key = hmac_sha256('Client Key', $salted);
	my $without_proof = "c=biws,r=$nonce";
	my $auth_message = "$self->{scram_first_bare},$server_first,$without_proof";
	my $proof = $client_key ^ hmac_sha256($auth_message, sha256($client_key));
	$self->{scram_server_signature} =
	  encode_base64(hmac_sha256($auth_message, hmac_sha256('Server Key', $salted)), '');
	return $self->send_message('p', "$without_proof,p=" . encode_base64($proof, ''));
}

# --- sending

# Raw bytes; returns false if the other side has gone.  What arrives meanwhile is kept, so that two sides with full
# buffers cannot block each other.
sub send_bytes
{
	my ($self, $bytes) = @_;
	$bytes = $self->{layer}->encrypt($bytes) if $self->{layer};
	return $self->send_plainly($bytes);
}

# The same past TLS.
sub send_plainly
{
	my ($self, $bytes) = @_;
	my $socket = $self->{socket};
	my $offset = 0;
	my $deadline = time() + $self->{timeout};
	local $SIG{PIPE} = 'IGNORE';
	$socket->blocking(0);
	while ($offset < length $bytes)
	{
		my $count = syswrite($socket, $bytes, 1 << 20 < length($bytes) - $offset ? 1 << 20 : length($bytes) - $offset,
			$offset);
		if (defined $count)
		{
			$offset += $count;
			next;
		}
		return 0 unless $!{EAGAIN} || $!{EINTR};
		die "could not send within $self->{timeout} s" if time() > $deadline;
		my $select = IO::Select->new($socket);
		my ($readable) = IO::Select::select($select, $select, undef, 1);
		$self->_receive if $readable && @$readable && !$self->{at_end};
	}
	return 1;
}

sub message { my ($type, $body) = @_; $body = '' unless defined $body; return $type . pack('N', length($body) + 4) . $body }

sub send_message { my ($self, $type, $body) = @_; return $self->send_bytes(message($type, $body)) }

# Builders of messages: they return bytes, to be joined and sent in one write.
sub query { my ($sql) = @_; return message('Q', "$sql\0") }
sub parse { my ($name, $sql, @oids) = @_; return message('P', "$name\0$sql\0" . pack('nN*', scalar @oids, @oids)) }

# bind(portal, statement, [parameters, undef = null], parameter_formats => [0 | 1 ...], result_formats => [...])
sub bind
{
	my ($portal, $statement, $parameters, %option) = @_;
	my @parameters = @{ $parameters || [] };
	my @formats = @{ $option{parameter_formats} || [] };
	my @result_formats = @{ $option{result_formats} || [] };
	my $body = "$portal\0$statement\0" . pack('nn*', scalar @formats, @formats) . pack('n', scalar @parameters);
	$body .= defined $_ ? pack('N', length $_) . $_ : pack('N', 0xFFFFFFFF) foreach @parameters;
	return message('B', $body . pack('nn*', scalar @result_formats, @result_formats));
}
sub describe_statement { my ($name) = @_; return message('D', "S$name\0") }
sub describe_portal { my ($name) = @_; return message('D', "P$name\0") }
sub execute { my ($portal, $rows) = @_; return message('E', "$portal\0" . pack('N', $rows || 0)) }
sub close_statement { my ($name) = @_; return message('C', "S$name\0") }
sub close_portal { my ($name) = @_; return message('C', "P$name\0") }
sub flush { return message('H') }
sub sync { return message('S') }
sub terminate { return message('X') }
sub copy_data { my ($data) = @_; return message('d', $data) }
sub copy_done { return message('c') }
sub copy_fail { my ($reason) = @_; return message('f', "$reason\0") }

# function_call(oid, [arguments, undef = null], argument_formats => [...], result_format => 0 | 1)
sub function_call
{
	my ($oid, $arguments, %option) = @_;
	my @arguments = @{ $arguments || [] };
	my @formats = @{ $option{argument_formats} || [] };
	my $body = pack('Nnn*', $oid, scalar @formats, @formats) . pack('n', scalar @arguments);
	$body .= defined $_ ? pack('N', length $_) . $_ : pack('N', 0xFFFFFFFF) foreach @arguments;
	return message('F', $body . pack('n', $option{result_format} || 0));
}

# --- receiving

# Takes what has arrived; false when nothing more will come.
sub _receive
{
	my ($self) = @_;
	$self->{socket}->blocking(0);
	my $tls = $self->{layer};
	my $wire = '';
	my $count =
	  $tls ? sysread($self->{socket}, $wire, 1 << 20)
	  : sysread($self->{socket}, $self->{buffer}, 1 << 20, length $self->{buffer});
	return 1 if !defined $count && ($!{EAGAIN} || $!{EINTR});
	$self->{buffer} .= $tls->decrypt($wire) if $tls && $count;
	$self->{at_end} = 1 if !$count || ($tls && ($tls->ended || defined $tls->broken));
	return $self->{at_end} ? 0 : 1;
}

# Dies if there is no whole message within the limit (seconds).
sub read_message
{
	my ($self, $timeout) = @_;
	my $message = $self->poll_message(defined $timeout ? $timeout : $self->{timeout});
	die 'no message within ' . (defined $timeout ? $timeout : $self->{timeout}) . " s\n" unless defined $message;
	return $message;
}

# The same, but undef if there is none.
sub poll_message
{
	my ($self, $timeout) = @_;
	my $deadline = time() + $timeout;
	while (1)
	{
		my $message = $self->_take_message;
		return $message if defined $message;
		return { type => 'EOF', body => '' } if $self->{at_end};
		my $left = $deadline - time();
		$left = 0 if $left < 0;
		return undef if !IO::Select->new($self->{socket})->can_read($left) && $left == 0;
		$self->_receive;
	}
}

sub _take_message
{
	my ($self) = @_;
	return undef if length $self->{buffer} < 5;
	my ($type, $length) = unpack('aN', $self->{buffer});
	return undef if length $self->{buffer} < $length + 1;
	my $body = substr($self->{buffer}, 5, $length - 4);
	substr($self->{buffer}, 0, $length + 1, '');
	my $message = { type => $type, body => $body };
	if ($type eq 'S')
	{
		my ($name, $value) = split /\0/, $body, -1;
		$self->{parameter_status}{$name} = $value;
	}
	elsif ($type eq 'K') { @$self{ 'pid', 'key' } = unpack('NN', $body); }
	elsif ($type eq 'Z') { $self->{transaction_state} = $body; }
	return $message;
}

# All messages up to and including the first of one of these types (or the end of the stream), as a list.
sub read_until
{
	my ($self, $types, $timeout) = @_;
	my @messages;
	while (1)
	{
		my $message = $self->read_message($timeout);
		push @messages, $message;
		return @messages if $message->{type} eq 'EOF' || index($types, $message->{type}) >= 0;
	}
}

# Up to and including $count ReadyForQuery.
sub read_until_ready
{
	my ($self, $count, $timeout) = @_;
	my @messages;
	foreach (1 .. $count || 1)
	{
		push @messages, $self->read_until('Z', $timeout);
		last if $messages[-1]{type} eq 'EOF';
	}
	return @messages;
}

# 'I', 'T' or 'E', as of the last ReadyForQuery read.
sub transaction_state { return $_[0]{transaction_state} }

# Bytes that are no message (the answer to an SSL request); fewer if the stream ends before.
sub read_bytes
{
	my ($self, $count) = @_;
	my $deadline = time() + $self->{timeout};
	while (length $self->{buffer} < $count && !$self->{at_end})
	{
		die "no $count bytes within $self->{timeout} s\n" if time() > $deadline;
		$self->_receive if IO::Select->new($self->{socket})->can_read(1);
	}
	return substr($self->{buffer}, 0, $count, '');
}

# True if the server closes the stream, whatever it says before.
sub at_end_of_stream
{
	my ($self, $timeout) = @_;
	while (1)
	{
		my $message = $self->poll_message(defined $timeout ? $timeout : $self->{timeout});
		return 0 unless defined $message;
		return 1 if $message->{type} eq 'EOF';
	}
}

# Sends bytes and returns the messages up to the given number of ReadyForQuery.
sub exchange
{
	my ($self, $bytes, $count) = @_;
	$self->send_bytes($bytes);
	return $self->read_until_ready($count);
}

# A simple query: dies on an error; returns the rows, each a reference to a list (scalar context: first field of the
# first row).
sub sql
{
	my ($self, $sql) = @_;
	my @messages = $self->exchange(query($sql));
	foreach my $message (@messages)
	{
		die "\"$sql\": " . error_fields($message)->{M} . "\n" if $message->{type} eq 'E';
		die "\"$sql\": the connection was closed\n" if $message->{type} eq 'EOF';
	}
	my @rows = map { [ row_fields($_) ] } grep { $_->{type} eq 'D' } @messages;
	return wantarray ? @rows : @rows ? $rows[0][0] : undef;
}

# A simple query that is expected to fail: the fields of its first error, or undef.
sub sql_error
{
	my ($self, $sql) = @_;
	foreach my $message ($self->exchange(query($sql)))
	{
		return error_fields($message) if $message->{type} eq 'E';
	}
	return undef;
}

# --- understanding

# Of an ErrorResponse or NoticeResponse: code letter to value.
sub error_fields
{
	my ($message) = @_;
	my %field;
	foreach my $piece (split /\0/, $message->{body})
	{
		$field{ substr($piece, 0, 1) } = substr($piece, 1) if length $piece;
	}
	return \%field;
}

sub row_fields
{
	my ($message) = @_;
	my ($count, $offset, @fields) = (unpack('n', $message->{body}), 2);
	foreach (1 .. $count)
	{
		my $length = unpack('N', substr($message->{body}, $offset, 4));
		$offset += 4;
		if ($length == 0xFFFFFFFF) { push @fields, undef; next; }
		push @fields, substr($message->{body}, $offset, $length);
		$offset += $length;
	}
	return @fields;
}

my %one_word = (
	1 => 'ParseComplete',
	2 => 'BindComplete',
	3 => 'CloseComplete',
	I => 'EmptyQueryResponse',
	n => 'NoData',
	s => 'PortalSuspended',
	c => 'CopyDone',
	EOF => 'EOF');

sub _printable
{
	my ($bytes) = @_;
	return '(' . length($bytes) . ' bytes, ' . unpack('%32C*', $bytes) . ')' if length $bytes > 1000;
	$bytes =~ s/([^\x20-\x7e])/sprintf '\\x%02x', ord $1/ge;
	return $bytes;
}

# A message as one line of text that is the same for two servers that behave the same: source lines of errors and
# the like are left out.
sub describe
{
	my ($message) = @_;
	my ($type, $body) = @$message{ 'type', 'body' };
	return $one_word{$type} if exists $one_word{$type};
	return "ReadyForQuery $body" if $type eq 'Z';
	return 'CommandComplete ' . substr($body, 0, -1) if $type eq 'C';
	return 'DataRow ' . join '|', map { defined $_ ? _printable($_) : 'NULL' } row_fields($message) if $type eq 'D';
	return 'ParameterStatus ' . join '=', (split /\0/, $body, -1)[ 0, 1 ] if $type eq 'S';
	return 'CopyData ' . _printable($body) if $type eq 'd';
	if ($type eq 'E' || $type eq 'N')
	{
		my $field = error_fields($message);
		return ($type eq 'E' ? 'ErrorResponse ' : 'NoticeResponse ') . join '; ',
		  map { "$_=" . _printable($field->{$_}) } grep { !/[FLR]/ } sort keys %$field;
	}
	if ($type eq 'T')
	{
		my ($count, $rest) = unpack('na*', $body);
		my @columns;
		foreach (1 .. $count)
		{
			my ($name, $table, $attribute, $oid, $size, $modifier, $format);
			($name, $table, $attribute, $oid, $size, $modifier, $format, $rest) = unpack('Z*NnNnNna*', $rest);
			push @columns, "$name:$table:$attribute:$oid:$size:$modifier:$format";
		}
		return 'RowDescription ' . join '|', @columns;
	}
	if ($type eq 't')
	{
		my ($count, @oids) = unpack('nN*', $body);
		return "ParameterDescription @oids";
	}
	if ($type eq 'A')
	{
		my ($pid, $channel, $payload) = unpack('NZ*Z*', $body);
		return "NotificationResponse $channel=$payload";
	}
	return "$type " . _printable($body);
}

# --- ending

sub close
{
	my ($self) = @_;
	$self->send_bytes(terminate()) if $self->{socket};
	return $self->drop;
}

# Without a word.
sub drop
{
	my ($self) = @_;
	CORE::close $self->{socket} if $self->{socket};
	delete $self->{socket};
	return;
}

# With a reset instead of an orderly end (TCP), even if data has not been read.
sub reset
{
	my ($self) = @_;
	setsockopt($self->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
	return $self->drop;
}

# Sends a cancel request for this client (or another pid and key) over a connection of its own, and waits until the
# server has closed that.
sub cancel
{
	my ($self, %option) = @_;
	my $pid = defined $option{pid} ? $option{pid} : $self->{pid};
	my $key = defined $option{key} ? $option{key} : $self->{key};
	my $other = RawClient->open(host => $self->{host}, port => $self->{port}, timeout => $self->{timeout});
	$other->send_bytes(pack('NNNN', 16, 80877102, $pid, $key));
	my $ended = $other->at_end_of_stream;
	$other->drop;
	return $ended;
}

sub DESTROY
{
	my ($self) = @_;
	CORE::close $self->{socket} if $self->{socket};
	return;
}

1;
