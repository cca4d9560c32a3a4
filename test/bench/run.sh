#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The benchmark: the same load on the same throw-away server, directly, through PgBouncer and through pg_sluice.
#
# One interleaved run.  In each round every scenario visits all legs, and the leg that comes first rotates from round to
# round, so that a machine whose speed drifts drifts for all of them; the report gives medians over the rounds.  The
# server has the extension loaded in all legs.  PgBouncer and the pool have the same number of server connections;
# PgBouncer reaches the server over its Unix socket, which is its best case.
#
# Then, for the pool and what it can be compared with: user memory per idle client, and the spike (many clients at once
# on few backends while the start of a new one is slow).
#
#   BENCH_ROUNDS=3  BENCH_SECONDS=5      rounds, seconds per leg
#   BENCH_POOL_SIZE                      server connections of either pool (cores * 2 + 1)
#   BENCH_SCALE=10                       pgbench scale
#   BENCH_IDLE_CLIENTS=10000             clients of the memory measurement
#   BENCH_LEGS="direct pgbouncer sluice" BENCH_SCENARIOS=REGEX   leave something out
#   BENCH_SYSCALLS=1                     counts system calls per transaction as well (needs strace, root)
#
# The report goes to standard output (Markdown), progress to standard error; each measurement is a line of
# build/bench/results.csv.  A missed target is reported, not an error; a leg that fails is one.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/measuring.sh"

rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-5}
cores=$(nproc)
pool_size=${BENCH_POOL_SIZE:-$((cores * 2 + 1))}
scale=${BENCH_SCALE:-10}
idle_clients=${BENCH_IDLE_CLIENTS:-10000}
direct_idle_clients=500
spike_clients=50
spike_runs=5
read -r -a legs <<<"${BENCH_LEGS:-direct pgbouncer sluice}"
wanted=${BENCH_SCENARIOS:-.}
csv=$results_dir/results.csv

# name | what | unit | clients | socket | pgbench options | target: times direct | target: times PgBouncer
scenarios() {
  cat <<END
select_4|select, simple protocol|tps|4|tcp|-S -M simple|0.95|
select_50|select, simple protocol|tps|50|tcp|-S -M simple||
select_500|select, simple protocol|tps|500|tcp|-S -M simple|2.5|1.8
prepared_500|select, prepared|tps|500|tcp|-S -M prepared|3|
tpcb_50|TPC-B-like|tps|50|tcp|-b tpcb-like -M simple||
transaction_50|BEGIN, 3 selects, END|tps|50|tcp|-f transaction.sql -D scale=$scale -M simple||
large_4|large results (10 MB each)|MB/s|4|tcp|-f large.sql -M simple|0.95|3
connect_unix_8|connect + select, Unix socket|tps|8|unix|-C -S -M simple||0.95
connect_tcp_8|connect + select, TCP|tps|8|tcp|-C -S -M simple||0.95
END
}
megabytes_per_large_result=10

has_leg() { [[ " ${legs[*]} " == *" $1 "* ]]; }
is_wanted() { [[ $1 =~ $wanted ]]; }
pgbouncer_port=
pgbouncer_pid=

leg_port() {
  case $1 in
    direct) echo "$port" ;;
    pgbouncer) echo "$pgbouncer_port" ;;
    sluice) echo "$pool_port" ;;
  esac
}

# ---- the servers

start_server() {
  { server_settings
    if has_leg sluice; then
      extension_settings
      printf '%s\n' "$@"
    fi
  } | server_start
  if has_leg sluice; then wait_for_pool bench bench; fi
}

create_database() {
  server_settings | server_start
  create_pgbench_tables "$scale"
  server_stop
  # The extension needs its library loaded: it is created on the first start with it.
  if has_leg sluice; then
    start_server
    query "create extension pg_sluice" bench
    server_stop
  fi
}

pgbouncer_prepares=0
pgbouncer_settings() {
  cat <<END
[databases]
bench = host=$workdir port=$port dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir = $workdir
pool_mode = transaction
default_pool_size = $pool_size
max_client_conn = $((idle_clients + 100))
auth_type = trust
auth_file = $workdir/users.txt
listen_backlog = 1024
log_connections = 0
log_disconnections = 0
log_stats = 0
ignore_startup_parameters = extra_float_digits
END
  if [ "$pgbouncer_prepares" = 1 ]; then echo "max_prepared_statements = 1000"; fi
}

start_pgbouncer() {
  local version attempt
  pgbouncer=$(PATH=$PATH:/usr/sbin command -v pgbouncer) || fail "pgbouncer is not installed"
  version=$("$pgbouncer" --version | sed -n 's/^PgBouncer //p')
  # PgBouncer carries prepared statements in transaction mode since 1.21.
  if [ "$(printf '1.21\n%s\n' "$version" | sort -V | head -n 1)" = 1.21 ]; then pgbouncer_prepares=1; fi
  pgbouncer_port=$(free_ports 1)
  echo '"bench" ""' >"$workdir/users.txt"
  pgbouncer_settings >"$workdir/pgbouncer.ini"
  { echo "logfile = $workdir/pgbouncer.log"; echo "pidfile = $workdir/pgbouncer.pid"; } >>"$workdir/pgbouncer.ini"
  as_server_user "$pgbouncer" -q -d "$workdir/pgbouncer.ini" >"$workdir/pgbouncer_start.log" 2>&1 ||
    fail "PgBouncer did not start"
  for attempt in $(seq 50); do
    [ -s "$workdir/pgbouncer.pid" ] && (exec 3<>"/dev/tcp/127.0.0.1/$pgbouncer_port") 2>/dev/null && break
    [ "$attempt" != 50 ] || fail "PgBouncer does not answer"
    sleep 0.1
  done
  pgbouncer_pid=$(cat "$workdir/pgbouncer.pid")
  extra_processes=("$pgbouncer_pid")
}

stop_pgbouncer() {
  kill "$pgbouncer_pid"
  extra_processes=()
  for _ in $(seq 100); do
    kill -0 "$pgbouncer_pid" 2>/dev/null || { rm -f "$workdir/pgbouncer.pid"; return 0; }
    sleep 0.1
  done
  fail "PgBouncer did not stop"
}

# Waits until the server processes of the last leg are gone: hundreds of exits must not burden the next one.
settle() {
  local clients
  for _ in $(seq 100); do
    sleep 0.1
    clients=$(query "select count(*) from pg_stat_activity
                     where datname = 'bench' and backend_type = 'client backend'")
    [ "$clients" -gt "$pool_size" ] || return 0
  done
  fail "the server still has clients of a leg that has ended"
}

# ---- pgbench legs

# run_pgbench LEG TIME_LIMIT SOCKET CLIENTS options...: output in $workdir/pgbench.txt
run_pgbench() {
  local leg=$1 limit=$2 socket=$3 clients=$4 host=127.0.0.1
  shift 4
  if [ "$socket" = unix ]; then host=$workdir; fi
  pgbench_load "leg $leg" "$limit" "$host" "$(leg_port "$leg")" "$clients" "$@"
}

# The 99th percentile, in ms, of the sampled transaction times.
percentile_99() {
  cat "$workdir"/sample.* | awk '{ print $3 }' | sort -n |
    awk '{ at[NR] = $1 } END { if (NR) printf "%.2f", at[int(0.99 * (NR - 1)) + 1] / 1000 }'
}

run_leg() {
  local round=$1 leg=$2 name=$3 unit=$4 clients=$5 socket=$6 options=$7 sampling=() tps value p99="" duration=$seconds
  if [ "$leg" = pgbouncer ] && [[ $name == prepared* ]] && [ "$pgbouncer_prepares" = 0 ]; then return; fi
  if [ "$clients" -ge 500 ]; then
    # Writing down one transaction in twenty costs the load generator little, and the same on each leg.
    sampling=(-l --sampling-rate=0.05 "--log-prefix=$workdir/sample")
    # pgbench's clock starts before it opens its connections (the rate it reports does not count that time).
    duration=$((seconds + 3))
  fi
  rm -f "$workdir"/sample.*
  if [[ $name == tpcb* ]]; then tidy_pgbench_tables; fi
  settle
  # shellcheck disable=SC2086  # options are words
  run_pgbench "$leg" $((duration + 60)) "$socket" "$clients" -T "$duration" $options "${sampling[@]}"
  tps=$(pgbench_tps)
  value=$tps
  if [ "$unit" = MB/s ]; then
    value=$(awk -v tps="$tps" -v size=$megabytes_per_large_result 'BEGIN { print tps * size }')
  fi
  if [ "$clients" -ge 500 ]; then p99=$(percentile_99); fi
  record "$name" "$leg" "$round" "$clients" "$unit" "$value" "$p99"
  say "$(printf '  round %d  %-16s %-10s %12.1f %s' "$round" "$name" "$leg" "$value" "$unit")"
}

run_scenarios() {
  local round i leg name unit clients socket options
  # Warm caches and fill both pools before the first measurement.
  for leg in "${legs[@]}"; do run_pgbench "$leg" 60 tcp 20 -T 2 -S -M simple; done
  for round in $(seq "$rounds"); do
    while IFS='|' read -r name _ unit clients socket options _ <&4; do
      is_wanted "$name" || continue
      for i in "${!legs[@]}"; do
        leg=${legs[$(((i + round - 1) % ${#legs[@]}))]}
        run_leg "$round" "$leg" "$name" "$unit" "$clients" "$socket" "$options"
      done
    done 4< <(scenarios)
  done
}

# System calls per transaction: two runs of different length under strace; their difference is free of the set-up.
count_system_calls() {
  local leg=$1 transactions=$2 pids=() pid postmaster
  postmaster=$(postmaster_pid)
  for pid in "$postmaster" $(cat "/proc/$postmaster/task/$postmaster/children"); do pids+=(-p "$pid"); done
  if [ "$leg" = pgbouncer ]; then pids+=(-p "$pgbouncer_pid"); fi
  strace -f -c -U calls,name -o "$workdir/strace.txt" "${pids[@]}" >/dev/null 2>&1 &
  local tracer=$!
  sleep 1
  run_pgbench "$leg" 120 tcp 50 -t "$transactions" -S -M simple
  kill -INT "$tracer" 2>/dev/null || true
  wait "$tracer" 2>/dev/null || true
  awk '$2 == "total" { print $1 }' "$workdir/strace.txt"
}

measure_system_calls() {
  local leg short long difference
  for leg in "${legs[@]}"; do
    settle
    short=$(count_system_calls "$leg" 20)
    settle
    long=$(count_system_calls "$leg" 220)
    difference=$(awk -v a="$short" -v b="$long" 'BEGIN { printf "%.2f", (b - a) / 10000 }')
    record system_calls "$leg" 1 50 "per transaction" "$difference" ""
  done
}

# ---- memory and spike

# measure_memory LEG CLIENTS PROCESS: bytes per idle client, over the process and its children.
measure_memory() {
  local leg=$1 clients=$2 process=$3 before after value
  run_pgbench "$leg" 60 tcp "$pool_size" -T 1 -S -M simple
  settle
  sleep 1
  before=$("$here/process_memory.sh" "$process")
  after=$(timeout 180 "$workdir/raw_client" idle "$clients" 127.0.0.1 "$(leg_port "$leg")" bench bench \
    "sleep 2; '$here/process_memory.sh' $process") || fail "$clients idle clients: leg $leg"
  value=$(((after - before) / clients))
  record memory "$leg" 1 "$clients" "bytes per idle client" "$value" ""
  say "$(printf '  memory   %6d idle clients  %-10s %8d bytes per client' "$clients" "$leg" "$value")"
}

run_memory() {
  require_open_files "$idle_clients"
  start_server "sluice.max_clients = $((idle_clients + 100))" "sluice.max_pool_size = $pool_size"
  if has_leg direct; then measure_memory direct $direct_idle_clients "$(postmaster_pid)"; fi
  if has_leg pgbouncer; then
    # Fresh processes, here and below: nothing is there already for clients that were here before.
    stop_pgbouncer
    start_pgbouncer
    measure_memory pgbouncer "$idle_clients" "$pgbouncer_pid"
  fi
  server_stop
  if has_leg sluice; then
    start_server "sluice.max_clients = $((idle_clients + 100))" "sluice.max_pool_size = $pool_size"
    measure_memory sluice "$idle_clients" "$(postmaster_pid)"
    server_stop
  fi
}

# Ends, with the clients connected, when the pool has had exactly five backends, all idle, for half a second.
at_rest_command() {
  cat <<END
for _ in \$(seq 150); do
  numbers=\$('$bindir/psql' -X -q -A -t -h '$workdir' -p $port -U postgres -d bench -c "$pool_numbers")
  if [ "\$numbers" = "5|5" ]; then seen=\$((seen + 1)); else seen=0; fi
  [ \$seen -lt 5 ] || exit 0
  sleep 0.1
done
echo "the pool did not come to rest at 5 idle backends, but at (total|idle) \$numbers" >&2
exit 1
END
}
pool_numbers='select coalesce(sum(total), 0), coalesce(sum(idle), 0) from sluice.pools'

run_spike() {
  local run times first median last backends starts
  for run in $(seq $spike_runs); do
    start_server "sluice.min_pool_size = 5" "sluice.max_pool_size = 50" "sluice.debug_backend_start_delay = '150ms'"
    times=$(timeout 120 "$workdir/raw_client" spike $spike_clients 127.0.0.1 "$pool_port" bench bench \
      "$(at_rest_command)" "select pg_sleep(0.002)") || fail "spike, run $run"
    sleep 0.6
    IFS='|' read -r backends _ <<<"$(query "$pool_numbers" bench)"
    starts=$(query "select sum(starts) from sluice.pools" bench)
    server_stop
    read -r first median last <<<"$times"
    record spike_first sluice "$run" $spike_clients ms "$first" ""
    record spike_median sluice "$run" $spike_clients ms "$median" ""
    record spike_last sluice "$run" $spike_clients ms "$last" ""
    record spike_backends sluice "$run" $spike_clients backends "$backends" ""
    record spike_starts sluice "$run" $spike_clients starts "$starts" ""
    say "  spike    run $run: last answer after $last ms, $backends backends at the end, $starts starts"
  done
}

# ---- the report

describe_machine() {
  describe_hardware
  echo "Versions: $("$bindir/postgres" --version)$(has_leg pgbouncer && "$pgbouncer" --version | sed -n '1s/^/, /p')."
  echo "Server: $(server_settings | paste -s -d ';' | sed 's/;/; /g'); fsync = off; synchronous_commit = off." \
    "pgbench scale $scale."
  echo "Pool size: $pool_size server connections. $rounds rounds, $seconds s per leg, pgbench -j 2; medians."
  if has_leg pgbouncer; then
    echo "PgBouncer: $(pgbouncer_settings | grep ' = ' | grep -vE '_file|socket_dir|_port|^bench' | paste -s -d ';' |
      sed 's/;/; /g')."
  fi
}

"$root/test/tools/install_packages.sh" pgbouncer >&2
mkdir -p "$results_dir"
echo "scenario,leg,round,clients,unit,value,p99_ms" >"$csv"

sandbox_open
if has_leg sluice; then install_extension >&2; fi
server_init
say "creating the database"
create_database
if has_leg pgbouncer; then start_pgbouncer; fi
build_raw_client

start_server "sluice.max_pool_size = $pool_size"
run_scenarios
if [ "${BENCH_SYSCALLS:-0}" = 1 ]; then measure_system_calls; fi
server_stop
if is_wanted memory; then run_memory; fi
if has_leg sluice && is_wanted spike; then run_spike; fi

scenarios >"$workdir/scenarios.txt"
{
  describe_machine
  echo
  perl "$here/report.pl" "$workdir/scenarios.txt" "$csv"
} | tee "$results_dir/results.md"
