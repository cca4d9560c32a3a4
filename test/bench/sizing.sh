#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Is the size that the extension advises for a pool a good one?  For each of several loads the pool's size is swept and
# the throughput measured; then the advice is asked for, and the size found best, the sizing rule's, the one fitted to
# what the pool has seen, and the advised one are measured once more side by side.  The second measurement is the one
# that counts: the best of many noisy figures is flattered by its noise.
#
# Sizes are visited in rounds, up and down in turn, so that a machine whose speed drifts drifts for all of them.
#
#   BENCH_ROUNDS=3 BENCH_SECONDS=2       rounds, seconds per figure
#   BENCH_SIZES="1 2 3 4 5 6 8 12 16 24 32"
#   BENCH_CLIENTS=50                     clients of each load
#   BENCH_WORKLOADS=REGEX                leave something out
#   BENCH_FSYNC=off                      fsync and synchronous_commit of the TPC-B-like load
#   BENCH_SCALE=10                       pgbench scale
#
# The report goes to standard output (Markdown), progress to standard error; each measurement is a line of
# build/bench/sizing.csv.  A missed target is reported, not an error.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/measuring.sh"

rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-2}
read -r -a sizes <<<"${BENCH_SIZES:-1 2 3 4 5 6 8 12 16 24 32}"
clients=${BENCH_CLIENTS:-50}
wanted=${BENCH_WORKLOADS:-.}
fsync=${BENCH_FSYNC:-off}
scale=${BENCH_SCALE:-10}
csv=$results_dir/sizing.csv

pool="database = 'bench' and role = 'bench'"

# What the extension says.  Nothing if it says nothing.
size_by_rule() { query "select size from sluice.sizing where $pool and rule = '$1'" bench; }
advised_size() { query "select size from sluice.sizing where $pool and advised" bench; }

# name | what | settings of the server | pgbench options
workloads() {
  cat <<END
cached|selects, all cached|shared_buffers = 512MB|-S -M simple
tpcb|TPC-B-like, fsync $fsync|fsync = $fsync,synchronous_commit = $fsync|-b tpcb-like -M simple
lock|update of one of 5 rows||-f lock.sql -M simple
thinking|2 ms of thinking inside the transaction||-f thinking.sql -D scale=$scale -M simple
io|selects, most blocks not in shared_buffers|shared_buffers = 8MB|-S -M simple
END
}

# start_server "SETTING, SETTING"
start_server() {
  { server_settings; extension_settings; tr ',' '\n' <<<"$1"; } | server_start
  wait_for_pool bench bench
}

# set_size SIZE: "default" for no size of its own.
set_size() {
  configure "sluice.max_pool_size = $1"
  query "select sluice.retire_backends('bench', 'bench')" bench >/dev/null
  pooled "select 1" >/dev/null
  [ "$1" = default ] || wait_until "the pool's size is $1" "select max_size = $1 from sluice.pools where $pool"
}

# load TIME_LIMIT pgbench options...
load() {
  local limit=$1
  shift
  pgbench_load "sizing" "$limit" 127.0.0.1 "$pool_port" "$clients" "$@"
}

# measure_size NAME PHASE ROUND SIZE OPTIONS
measure_size() {
  local name=$1 phase=$2 round=$3 size=$4 options=$5
  tidy_pgbench_tables
  set_size "$size"
  # The pool grows here and not in the measured time.
  # shellcheck disable=SC2086  # options are words
  load 60 -t 10 $options
  # shellcheck disable=SC2086
  load $((seconds + 60)) -T "$seconds" $options
  record "$name" "$phase" "$round" "$size" "$(pgbench_tps)"
  say "$(printf '  %-9s %-6s round %d  size %3d  %10.1f tps' "$name" "$phase" "$round" "$size" "$(pgbench_tps)")"
}

# measure_sizes NAME PHASE OPTIONS SIZE...: each, in each round
measure_sizes() {
  local name=$1 phase=$2 options=$3 round size order
  shift 3
  for round in $(seq "$rounds"); do
    order=$(printf '%s\n' "$@" | if [ $((round % 2)) = 1 ]; then cat; else tac; fi)
    for size in $order; do measure_size "$name" "$phase" "$round" "$size" "$options"; done
  done
}

# The size with the highest median in the sweep.
best_size() {
  local size tps
  for size in "${sizes[@]}"; do
    tps=$(awk -F, -v n="$1" -v s="$size" '$1 == n && $2 == "sweep" && $4 == s { print $5 }' "$csv" | median)
    echo "$tps $size"
  done | sort -g | awk 'END { print $2 }'
}

run_workload() {
  local name=$1 settings=$2 options=$3 best rule fitted advised
  start_server "$settings"
  # Caches.  What the pool learns from another load, or from this, must not count.
  # shellcheck disable=SC2086
  load 90 -T 2 $options
  query "select sluice.reset_statistics()" bench >/dev/null
  measure_sizes "$name" sweep "$options" "${sizes[@]}"
  best=$(best_size "$name")
  fitted=$(size_by_rule 'measured knee')
  set_size default
  rule=$(size_by_rule 'cores * 2 + spindles')
  advised=$(advised_size)
  record "$name" best "" "$best" ""
  record "$name" rule "" "$rule" ""
  record "$name" fitted "" "$fitted" ""
  record "$name" advised "" "$advised" ""
  say "  $name: best $best, rule ${rule:-says nothing}, fitted ${fitted:-says nothing}, advised ${advised:-none}"
  # shellcheck disable=SC2046  # sizes are words
  measure_sizes "$name" final "$options" $(printf '%s\n' "$best" "$rule" "$fitted" "$advised" | grep -v '^$' | sort -nu)
  configure "sluice.max_pool_size = default"
  server_stop
}

"$root/test/tools/install_packages.sh" >&2
mkdir -p "$results_dir"
echo "workload,phase,round,size,tps" >"$csv"

sandbox_open
install_extension >&2
server_init
say "creating the database"
{ server_settings; extension_settings; } | server_start
create_pgbench_tables "$scale"
query "create extension pg_sluice" bench
server_stop

while IFS='|' read -r name what settings options <&4; do
  [[ $name =~ $wanted ]] || continue
  say "$name: $what"
  run_workload "$name" "$settings" "$options"
done 4< <(workloads)
workloads >"$workdir/workloads.txt"
{
  describe_hardware
  echo "$("$bindir/postgres" --version). pgbench scale $scale, $clients clients, $rounds rounds of $seconds s," \
    "medians. fsync and synchronous_commit off but where it says otherwise."
  echo
  perl "$here/sizing_report.pl" "$workdir/workloads.txt" "$csv"
} | tee "$results_dir/sizing.md"
