# SPDX-License-Identifier: PostgreSQL
#
# What the benchmarks share besides the server: loads, their results, and where they go.  To be sourced, and to be used
# with the functions of throwaway_server.sh.
#
# A benchmark sets $csv and writes one line into it for each measurement.  Its database and its role are both named
# "bench".

source "$(dirname "${BASH_SOURCE[0]}")/throwaway_server.sh"

bench_dir=$root/test/bench
results_dir=$root/build/bench
csv=

# record FIELD...
record() { (IFS=,; echo "$*") >>"$csv"; }

# The median of the numbers on standard input; nothing if there are none.
median() {
  sort -g | awk '
    { value[NR] = $1 }
    END { if (NR) print (value[int((NR + 1) / 2)] + value[int((NR + 2) / 2)]) / 2 }'
}

describe_hardware() {
  local model memory
  model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
  memory=$(awk '/^MemTotal:/ { printf "%.1f", $2 / 1048576 }' /proc/meminfo)
  echo "Machine: $(nproc) cores (${model:-unknown}), $memory GiB, Linux $(uname -r);" \
    "load generator on the same machine."
}

server_settings() {
  cat <<END
max_connections = 1200
shared_buffers = 256MB
autovacuum = off
max_wal_size = 4GB
checkpoint_timeout = 1h
END
}

build_raw_client() {
  g++ -std=c++17 -O2 -Wall -Wextra -Werror -o "$workdir/raw_client" "$bench_dir/raw_client.cpp" ||
    fail "raw_client.cpp could not be compiled"
}

# require_open_files N: for so many clients.
require_open_files() {
  local hard
  hard=$(ulimit -Hn)
  [ "$hard" -ge $(($1 + 500)) ] ||
    fail "$1 idle clients need $(($1 + 500)) open files, the hard limit (ulimit -Hn) is $hard"
}

# create_pgbench_tables SCALE: role, database and tables, on the server that runs.
create_pgbench_tables() {
  query "create role bench login"
  query "create database bench owner bench"
  "$bindir/pgbench" -i -q -s "$1" -h "$workdir" -p "$port" -U bench bench >"$workdir/pgbench.txt" 2>&1 ||
    fail "pgbench could not create its tables: $(tail -n 3 "$workdir/pgbench.txt")"
}

# Without dead rows of the transactions before.
tidy_pgbench_tables() {
  query "vacuum pgbench_branches, pgbench_tellers" bench
  query "truncate pgbench_history" bench
}

# pgbench_load WHAT TIME_LIMIT HOST PORT CLIENTS options...: output in $workdir/pgbench.txt.  Any failed transaction
# ends the benchmark; WHAT says what failed.
pgbench_load() {
  local what=$1 limit=$2 host=$3 to_port=$4 clients=$5 status=0
  shift 5
  (cd "$bench_dir" && timeout --kill-after=10 "$limit" "$bindir/pgbench" -n -c "$clients" -j 2 "$@" \
    -h "$host" -p "$to_port" -U bench bench) >"$workdir/pgbench.txt" 2>&1 || status=$?
  if [ "$status" != 0 ] || ! grep -q '^tps = ' "$workdir/pgbench.txt"; then
    tail -n 5 "$workdir/pgbench.txt" >&2
    fail "pgbench ended with status $status: $what, $clients clients, $*"
  fi
  if ! grep -qE '^number of failed transactions: 0 ' "$workdir/pgbench.txt"; then
    fail "transactions failed: $what, $clients clients, $*"
  fi
}

# What the last pgbench_load has measured.
pgbench_tps() { sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$workdir/pgbench.txt"; }
pgbench_transactions() {
  sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$workdir/pgbench.txt"
}

# Is there a setting, a view or a column of the extension?  A benchmark says what it leaves out.
has_setting() { [ "$(query "select count(*) from pg_settings where name = '$1'")" = 1 ]; }
has_view() { [ "$(query "select to_regclass('$1') is not null" bench)" = t ]; }

# configure "SETTING = VALUE" ...: for the running server; a value of its own is forgotten by "SETTING = DEFAULT".
configure() {
  local setting
  for setting in "$@"; do query "alter system set $setting"; done
  query "select pg_reload_conf()" >/dev/null
}

# pooled SQL: through the pool.
pooled() {
  "$bindir/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$workdir" -p "$pool_port" -U bench -d bench -c "$1"
}

# wait_until WHAT SQL: until the query gives "t", asked over the direct port.
wait_until() {
  for _ in $(seq 150); do
    [ "$(query "$2" bench)" != t ] || return 0
    sleep 0.1
  done
  fail "waited in vain until $1"
}

# Fields of /proc/PID/stat after the command's name, which is in parentheses and may have blanks in it: the first is the
# state.  Nothing if the process has ended.
stat_fields() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null || true; }

# Processor time of some processes, in microseconds: as the scheduler counts it, where the kernel tells, and else in
# ticks (utime + stime).
cpu_time_us() {
  local pid total=0 nanoseconds fields tick_us=$((1000000 / $(getconf CLK_TCK)))
  for pid in "$@"; do
    if read -r nanoseconds _ 2>/dev/null <"/proc/$pid/schedstat"; then
      total=$((total + nanoseconds / 1000))
    else
      read -r -a fields <<<"$(stat_fields "$pid")"
      total=$((total + (${fields[11]:-0} + ${fields[12]:-0}) * tick_us))
    fi
  done
  echo "$total"
}

# The same of those children of a process that have ended (cutime + cstime).
ended_cpu_time_us() {
  local fields
  read -r -a fields <<<"$(stat_fields "$1")"
  echo $(((${fields[13]:-0} + ${fields[14]:-0}) * 1000000 / $(getconf CLK_TCK)))
}
