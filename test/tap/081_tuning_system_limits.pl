# SPDX-License-Identifier: PostgreSQL
#
# Limits of the operating system are shown as they are, judged against the
# configuration, and nothing fails where /proc and /sys are hidden, elsewhere,
# or full of nonsense.

use strict;
use warnings;

use File::Path qw(make_path);
use PoolTest;
use PostgreSQL::Test::Utils;
use SluiceTest;
use Test::More;

my $server = SluiceTest->new('main', conf => <<'CONF');
sluice.max_clients = 2000
sluice.max_backends = 20
sluice.max_unauthenticated_clients = 300
CONF
my $limits = 21;    # rows

sub limit
{
	my ($resource, $columns, %option) = @_;
	return $server->sql("SELECT $columns FROM sluice.system_limits WHERE resource = '$resource'", %option);
}

# What the sizing rule rests on.
my $facts = <<'SQL';
(SELECT max(value) FILTER (WHERE input = 'cores') AS cores, max(reason) FILTER (WHERE input = 'cores') AS cores_reason,
        max(value) FILTER (WHERE input = 'physical cores') AS physical_cores,
        max(value) FILTER (WHERE input = 'logical CPUs') AS logical_cpus,
        max(value) FILTER (WHERE input = 'CPU quota') AS quota_cores,
        max(value) FILTER (WHERE input = 'spindles') AS spindles,
        max(reason) FILTER (WHERE input = 'spindles') AS spindles_reason
 FROM sluice.sizing_inputs) AS facts
SQL

sub machine
{
	my ($columns, %option) = @_;
	return $server->sql("SELECT $columns FROM $facts", %option);
}

sub write_file
{
	my ($path, $content) = @_;
	my ($directory) = $path =~ m{^(.*)/};
	make_path($directory);
	open(my $file, '>', $path) or die "could not write $path: $!";
	print $file $content;
	close $file;
	return;
}

sub read_file
{
	my ($path) = @_;
	open(my $file, '<', $path) or return;
	local $/ = undef;
	my $content = <$file>;
	return $content;
}

# Changes settings, and waits until the statistician has looked with them: it
# writes the number of cores down with each look.
my $mark = 100;

sub reload_with
{
	my (%setting) = @_;
	$mark++;
	$server->sql("ALTER SYSTEM SET sluice.cores = $mark");
	foreach my $name (sort keys %setting)
	{
		$server->sql(defined $setting{$name} ? "ALTER SYSTEM SET sluice.$name = '$setting{$name}'" : "ALTER SYSTEM RESET sluice.$name");
	}
	$server->sql('SELECT pg_reload_conf()');
	ok($server->wait_until("SELECT cores = $mark FROM $facts"), 'the machine has been looked at again');
	return;
}

# The same, with cores detected.
sub reload_and_detect
{
	my (%setting) = @_;
	reload_with(%setting);
	$server->sql('ALTER SYSTEM RESET sluice.cores');
	$server->sql('SELECT pg_reload_conf()');
	ok($server->wait_until("SELECT cores_reason NOT LIKE 'set by%' FROM $facts"), 'cores are detected');
	return;
}

# New sessions have the settings of the last reload: psql connects for each query.
sub all_answer
{
	my ($where) = @_;
	is($server->sql('SELECT count(*) FROM sluice.system_limits'), $limits, "$where: each limit has its row");
	is($server->sql('SELECT count(*) FROM sluice.system_limits WHERE num_nulls(resource, unit, verdict, explanation, command) > 0'), '0',
		"$where: nothing but numbers is NULL");
	is($server->sql(q{SELECT count(*) FROM sluice.system_limits
		WHERE verdict NOT IN ('ok', 'close', 'too low', 'unknown', 'information')
		   OR (verdict = 'unknown') <> (value IS NULL AND verdict <> 'ok')
		   OR verdict = 'too low' AND value >= needed
		   OR verdict IN ('ok', 'close') AND value < needed}), '0', "$where: verdicts agree with the numbers");
	like($server->sql('SELECT count(*) FROM sluice.recommendations'), qr/^\d+$/, "$where: there are recommendations or none");
	is($server->sql("SELECT bool_and(size >= 1) FROM sluice.sizing WHERE rule = 'cores * 2 + spindles'"), 't',
		"$where: the sizing rule has a result");
	return;
}

my $trouble = qr/ (WARNING|ERROR|FATAL|PANIC): /;
my $quiet_since = $server->log_size;

# --- as it is
is($server->sql("SELECT name, setting, context FROM pg_settings WHERE name IN ('sluice.procfs', 'sluice.sysfs') ORDER BY 1"),
	"sluice.procfs|/proc|sighup\nsluice.sysfs|/sys|sighup", 'the usual places');
ok($server->wait_until("SELECT cores IS NOT NULL FROM $facts"), 'the machine has been looked at');
all_answer('real');

my %real_sysctl = (
	'fs.file-max' => 0,
	'fs.nr_open' => 0,
	'fs.epoll.max_user_watches' => 0,
	'net.core.somaxconn' => 0,
	'net.ipv4.tcp_max_syn_backlog' => 0,
	'net.ipv4.tcp_mem' => 1,
	'net.ipv4.tcp_rmem' => 0,
	'net.ipv4.tcp_wmem' => 0,
	'kernel.pid_max' => 0,
	'kernel.threads-max' => 0,
	'vm.max_map_count' => 0,
	'vm.overcommit_memory' => 0);
foreach my $name (sort keys %real_sysctl)
{
	(my $path = $name) =~ tr{.}{/};
	my $content = read_file("/proc/sys/$path");
  SKIP:
	{
		skip "$name cannot be read here", 1 unless defined $content && $content =~ /\d/;
		my @numbers = $content =~ /\d+/g;
		my $number = $numbers[ $real_sysctl{$name} ];
		$number = '9223372036854775807' if length $number > 19;
		is(limit($name, 'value'), $number, "$name is what the kernel says");
	}
}
my $dispatcher = $server->sql('SELECT dispatcher_pid FROM sluice.status');
my ($soft, $hard) = read_file("/proc/$dispatcher/limits") =~ /^Max open files\s+(\S+)\s+(\S+)/m;
s/unlimited/9223372036854775807/ foreach $soft, $hard;
is(limit('RLIMIT_NOFILE (soft)', 'value'), $soft, 'the soft limit is that of the dispatcher');
is(limit('RLIMIT_NOFILE (hard)', 'value'), $hard, 'and so is the hard one');
is(limit('RLIMIT_NOFILE (hard)', 'needed'), 1536 + 2000 + 64, 'descriptors are needed for each client, from the first number of clients on');
is(limit('net.core.somaxconn', 'needed'), 2 * 50 + 300, 'the backlog is what the listener asks for');
is(limit('net.ipv4.ip_local_port_range', "needed || ' ' || verdict"), '2000 information', 'ports are information');
is(limit('shared memory of pg_sluice', 'value > 1000000'), 't', 'the size of shared memory is shown');
cmp_ok(limit('fs.epoll.max_user_watches', 'needed'), '>', 2 * 2000, 'each client is registered twice');

unlike($server->log_since($quiet_since), $trouble, 'nothing went wrong');

# --- for everybody, but not where the files are
$server->sql('CREATE ROLE nobody_special LOGIN');
my @as_nobody = (user => 'nobody_special');
is($server->sql('SELECT count(*) FROM sluice.system_limits', @as_nobody), $limits, 'anybody may read the limits');
is($server->pool_sql('SELECT count(*) FROM sluice.system_limits', @as_nobody), $limits, 'through the pool as well');
my (undef, undef, $refusal) = $server->psql('SHOW sluice.procfs', @as_nobody);
like($refusal, qr/must be superuser or have privileges of pg_read_all_settings|permission denied to examine/, 'but not where the file system is mounted');

# --- what is refused
foreach my $name ('procfs', 'sysfs')
{
	foreach my $value ('', 'proc', './proc')
	{
		my (undef, undef, $errors) = $server->psql("ALTER SYSTEM SET sluice.$name = '$value'");
		like($errors, qr/invalid value for parameter "sluice.$name": "\Q$value\E"\nDETAIL:  The path must be absolute\./, qq{$name cannot be "$value"});
	}
	my (undef, undef, $errors) = $server->psql("ALTER SYSTEM SET sluice.$name = '/" . 'x' x 300 . q{'});
	like($errors, qr/DETAIL:  The path must be shorter than \d+ bytes\./, "$name cannot be very long");
	(undef, undef, $errors) = $server->psql("SET sluice.$name = '/tmp'");
	like($errors, qr/cannot be changed now/, "$name is not for one session");
}
my $refused_until = $server->log_size;

# --- nothing there at all
reload_and_detect(procfs => '/nonexistent', sysfs => '/nonexistent/sys');
all_answer('nonexistent');
like(machine('cores_reason'), qr{cannot read "/nonexistent/self/mountinfo": No such file or directory}, 'the CPU quota is unknown, with the reason');
like(machine('cores_reason'), qr{^logical CPUs .*; cannot read "/nonexistent/sys/devices/system/cpu/cpu\d+/topology/core_cpus_list": No such file or directory},
	'cores are logical CPUs, with the reason');
is(machine('cores = logical_cpus AND physical_cores IS NULL AND quota_cores IS NULL AND spindles IS NULL'), 't', 'what is unknown is NULL');
like(machine('spindles_reason'), qr{^unknown: .*; cannot read "/nonexistent/.*": No such file or directory}, 'so are spindles');
is($server->sql(q{SELECT string_agg(resource, ', ') FROM sluice.system_limits WHERE verdict <> 'unknown'
	AND resource NOT LIKE 'RLIMIT%' AND resource NOT IN ('shared memory of pg_sluice', '/dev/shm')}), '', 'nothing else is known');
is(limit('net.core.somaxconn', 'explanation'), 'cannot read "/nonexistent/sys/net/core/somaxconn": No such file or directory', 'the row says why');
is(limit('net.core.somaxconn', 'explanation', @as_nobody), 'cannot read "sys/net/core/somaxconn": No such file or directory',
	'without the place for those who may not know it');
unlike(machine("concat(cores_reason, spindles_reason)", @as_nobody), qr/nonexistent|procfs|sysfs/, 'nor with the cores and spindles');
$server->sql('GRANT pg_read_all_settings TO nobody_special');
like(limit('net.core.somaxconn', 'explanation', @as_nobody), qr{"/nonexistent/sys/net}, 'members of pg_read_all_settings may');
$server->sql('REVOKE pg_read_all_settings FROM nobody_special');
is($server->pool_sql('SELECT 1'), '1', 'the pool works');

# --- the numbers of the sizing rule can be set all the same
reload_with(spindles => 7);
is(machine("cores || ' ' || cores_reason || ', ' || spindles || ' ' || spindles_reason"),
	"$mark set by sluice.cores, 7 set by sluice.spindles", 'cores and spindles that are set need no files');
all_answer('overridden');

# --- another machine
my $fake = PostgreSQL::Test::Utils::tempdir();
my ($proc, $sys) = ("$fake/proc", "$fake/sys");
my %fake_proc = (
	'loadavg' => "0.50 0.40 0.30 2/345 6789\n",
	'meminfo' => "MemTotal:        2048000 kB\nMemFree:           10000 kB\nMemAvailable:       1000 kB\n",
	'net/sockstat' => "sockets: used 7\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 300\nUDP: inuse 0 mem 0\n",
	'self/cgroup' => "0::/pool\n",
	'self/maps' => "a\n" x 70,
	'self/mountinfo' => "25 20 0:20 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n",
	'sys/fs/epoll/max_user_watches' => "1000\n",
	'sys/fs/file-max' => "4000\n",
	'sys/fs/file-nr' => "1600\t0\t4000\n",
	'sys/fs/nr_open' => "2048\n",
	'sys/kernel/pid_max' => "32768\n",
	'sys/kernel/threads-max' => "100\n",
	'sys/kernel/yama/ptrace_scope' => "2\n",
	'sys/net/core/somaxconn' => "16\n",
	'sys/net/ipv4/ip_local_port_range' => "40000\t40099\n",
	'sys/net/ipv4/tcp_max_syn_backlog' => "64\n",
	'sys/net/ipv4/tcp_mem' => "1000\t2000\t3000\n",
	'sys/net/ipv4/tcp_rmem' => "4096\t131072\t6291456\n",
	'sys/net/ipv4/tcp_syncookies' => "0\n",
	'sys/net/ipv4/tcp_wmem' => "4608\t16384\t4194304\n",
	'sys/vm/max_map_count' => "95\n",
	'sys/vm/overcommit_memory' => "2\n");
my %fake_sys = (
	'fs/cgroup/pool/cpu.max' => "50000 100000\n",
	'fs/cgroup/pool/pids.max' => "500\n",
	'fs/cgroup/pids.max' => "40\n");
write_file("$proc/$_", $fake_proc{$_}) foreach keys %fake_proc;
write_file("$sys/$_", $fake_sys{$_}) foreach keys %fake_sys;

reload_and_detect(procfs => $proc, sysfs => $sys, spindles => undef);
all_answer('fake');
is(machine('quota_cores'), '0.5', 'the CPU quota is read below sluice.sysfs');
like(machine('cores_reason'), qr/^limited by the CPU quota of a control group/, 'and counts');

my %expected = (
	'fs.epoll.max_user_watches' => '1000 too low',
	'fs.file-max' => '4000 close',    # 1600 + 2000 and some hundred
	'fs.nr_open' => '2048 too low',
	'kernel.pid_max' => '32768 ok',
	'kernel.threads-max' => '100 too low',
	'kernel.yama.ptrace_scope' => '2 information',
	'memory of sockets' => '1024000 too low',
	'net.core.somaxconn' => '16 too low',
	'net.ipv4.ip_local_port_range' => '100 information',
	'net.ipv4.tcp_max_syn_backlog' => '64 too low',
	'net.ipv4.tcp_mem' => '2000 too low',
	'net.ipv4.tcp_rmem' => '4096 information',
	'net.ipv4.tcp_wmem' => '4608 information',
	'pids.max (control group)' => '40 too low',
	'vm.max_map_count' => '95 close',
	'vm.overcommit_memory' => '2 information');

foreach my $resource (sort keys %expected)
{
	is(limit($resource, "value || ' ' || verdict"), $expected{$resource}, "$resource: value and verdict");
}
like(limit('fs.file-max', 'explanation'), qr/fs\.file-nr\): 1600;/, 'what others use counts');
is(limit('net.core.somaxconn', 'command'), 'sysctl -w net.core.somaxconn=400', 'the command raises it to what is needed');
like(limit('net.ipv4.tcp_mem', 'command'), qr/^sysctl -w net\.ipv4\.tcp_mem="\d+ \d+ \d+"$/, 'three numbers where there are three');
is(limit('kernel.pid_max', 'command'), 'sysctl kernel.pid_max', 'a limit that is high enough is shown by its command');
like(limit('pids.max (control group)', 'command'), qr/TasksMax=\d+/, 'a limit of the unit is raised there');

# --- raised as the commands say, all is well
foreach my $line (split /\n/, $server->sql("SELECT command FROM sluice.system_limits WHERE command LIKE 'sysctl -w %'"))
{
	my ($name, $value) = $line =~ /^sysctl -w ([^=]+)="?([\d ]+)"?$/ or die "unexpected command: $line";
	$name =~ tr{.}{/};
	write_file("$proc/sys/$name", "$value\n");
}
is($server->sql("SELECT string_agg(resource, ', ') FROM sluice.system_limits WHERE command LIKE 'sysctl -w %'"), '', 'then nothing is left to be raised');
all_answer('raised');

# --- SYN cookies, no limit, no Yama
write_file("$proc/sys/net/ipv4/tcp_syncookies", "1\n");
write_file("$proc/sys/net/ipv4/tcp_max_syn_backlog", "1\n");
is(limit('net.ipv4.tcp_max_syn_backlog', 'verdict'), 'information', 'with SYN cookies the backlog of half-open connections does not count');
write_file("$sys/fs/cgroup/$_", "max\n") foreach 'pids.max', 'pool/pids.max';
is(limit('pids.max (control group)', "value || ' ' || verdict"), '9223372036854775807 ok', 'no limit is a very large one');
unlink "$proc/sys/kernel/yama/ptrace_scope";
is(limit('kernel.yama.ptrace_scope', 'verdict'), 'ok', 'without Yama nothing is forbidden');
all_answer('without Yama');

# --- nonsense
my @nonsense = (
	[ 'empty', '' ],
	[ 'a line end', "\n" ],
	[ 'garbage', "\x00\xff\xfe some avg10=nan %s%n -1 -1 -1\n" ],
	[ 'negative', "-5 -5 -5 -5\n" ],
	[ 'huge', '9' x 5000 ]);
foreach my $case (@nonsense)
{
	my ($name, $content) = @$case;
	write_file("$proc/$_", $content) foreach keys %fake_proc;
	write_file("$sys/$_", $content) foreach keys %fake_sys;
	reload_and_detect(procfs => $proc, sysfs => $sys);
	all_answer($name);
	is($server->sql(q{SELECT string_agg(resource, ', ') FROM sluice.system_limits WHERE verdict <> 'unknown'
		AND resource NOT LIKE 'RLIMIT%' AND resource NOT IN ('shared memory of pg_sluice', '/dev/shm')}), '', "$name: nothing is known");
	unlike($server->sql("SELECT string_agg(explanation, '') FROM sluice.system_limits", @as_nobody), qr/\Q$fake\E/, "$name: and nobody learns where");
	is(machine('cores > 0 AND quota_cores IS NULL'), 't', "$name: cores are known");
}
like(limit('net.core.somaxconn', 'explanation'), qr/^cannot read ".*somaxconn": File too large$/, 'what is too long is not read');

# --- back again
reload_and_detect(procfs => undef, sysfs => undef);
all_answer('back');
unlike(machine("concat(cores_reason, spindles_reason)"), qr/\Q$fake\E/, 'reasons are of the real machine again');
is(limit('net.core.somaxconn', 'value'), (read_file('/proc/sys/net/core/somaxconn') // '') =~ s/\s//gr, 'and so are the limits');

# --- nothing of this was worth more than a line of information
unlike($server->log_since($refused_until), $trouble, 'nothing went wrong all the time');
is($server->sql('SELECT dispatcher_pid FROM sluice.status'), $dispatcher, 'the dispatcher is the same');

$server->stop;
done_testing();
