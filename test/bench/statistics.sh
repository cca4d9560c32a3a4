#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# What the pool's own statistics cost, and whether they are right.
#
# Recording: the processor time that counting and timing one transaction takes (recording_cost.cpp).
#
# Overhead: the same load with sluice.track_timing on and off, in pairs whose order changes from round to round (on
# off, off on, ...), with a reload in between; the report gives the median of the pairs' ratios.  A noisy machine
# disturbs the rate more than the processor time the pool's processes take for a transaction, so that is reported too.
#
# Agreement: an open loop (load_generator.cpp) knows when each request was meant to start, and the server tells when it
# began; what the client saw is put beside what the pool says.  The loads are shares of what the pool can do, measured
# first.
#
# Views: how long each view of schema sluice takes while thousands of clients are connected.
#
#   BENCH_ROUNDS=10 BENCH_SECONDS=4      rounds, seconds per leg, of the overhead
#   BENCH_SETTING=sluice.track_timing    the setting that is switched
#   BENCH_AGREEMENT_SECONDS=10           seconds per load
#   BENCH_IDLE_CLIENTS=10000             clients while the views are read
#   BENCH_PARTS="recording overhead agreement views"
#   BENCH_POOL_SIZE, BENCH_SCALE         as in run.sh
#
# The report goes to standard output (Markdown), progress to standard error; each measurement is a line of
# build/bench/statistics.csv.  A missed target is reported, not an error.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/measuring.sh"

rounds=${BENCH_ROUNDS:-10}
seconds=${BENCH_SECONDS:-4}
setting=${BENCH_SETTING:-sluice.track_timing}
agreement_seconds=${BENCH_AGREEMENT_SECONDS:-10}
idle_clients=${BENCH_IDLE_CLIENTS:-10000}
parts=${BENCH_PARTS:-recording overhead agreement views}
pool_size=${BENCH_POOL_SIZE:-$(($(nproc) * 2 + 1))}
scale=${BENCH_SCALE:-10}
view_repeats=20
agreement_pool_size=4
agreement_connections=400
csv=$results_dir/statistics.csv

has_part() { [[ " $parts " == *" $1 "* ]]; }
load_generator=$root/build/test/bench/load_generator

start_server() {
  { server_settings; extension_settings; printf '%s\n' "$@"; } | server_start
  wait_for_pool bench bench
}

# ---- recording

run_recording() {
  local program=$root/build/test/bench/recording_cost
  mkdir -p "$(dirname "$program")"
  g++ -std=c++17 -O2 -Wall -Wextra -Werror -I"$root/src" -o "$program" "$here/recording_cost.cpp" \
    "$root"/src/core/stats/{lease_statistics,histogram,percentile}.cpp
  "$program" | sort -n >"$results_dir/recording.txt"
}

# ---- overhead

# name | clients | pgbench options
overhead_loads() {
  cat <<END
select_50|50|-S -M simple
select_500|500|-S -M simple
tpcb_50|50|-b tpcb-like -M simple
END
}

# The processor time that the pool's processes have taken so far, in us: backends, dispatcher, and all processes of the
# server that have ended, for a backend may have ended meanwhile.
pool_cpu_time_us() {
  local pids
  pids=$(query "select pid from sluice.backends where pid is not null
                union all select dispatcher_pid from sluice.status where dispatcher_pid is not null" bench)
  # shellcheck disable=SC2086  # process numbers are words
  echo $(($(cpu_time_us $pids) + $(ended_cpu_time_us "$(postmaster_pid)")))
}

# run_overhead_leg ROUND ON_OR_OFF NAME CLIENTS OPTIONS
run_overhead_leg() {
  local round=$1 leg=$2 name=$3 clients=$4 options=$5 duration=$seconds before after cpu
  # pgbench's clock starts before it opens its connections (the rate it reports does not count that time).
  if [ "$clients" -ge 500 ]; then duration=$((seconds + 3)); fi
  configure "$setting = $leg"
  if [[ $name == tpcb* ]]; then tidy_pgbench_tables; fi
  sleep 0.5
  [ "$(pooled "show $setting")" = "$leg" ] || fail "the pool has not taken over $setting = $leg"
  before=$(pool_cpu_time_us)
  # shellcheck disable=SC2086  # options are words
  pgbench_load "$setting = $leg" $((duration + 60)) 127.0.0.1 "$pool_port" "$clients" -T "$duration" $options
  after=$(pool_cpu_time_us)
  cpu=$(awk -v us=$((after - before)) -v n="$(pgbench_transactions)" 'BEGIN { printf "%.3f", us / n }')
  record overhead "$name" "$leg" "$round" tps "$(pgbench_tps)"
  record overhead "$name" "$leg" "$round" cpu_us "$cpu"
  say "$(printf '  round %2d  %-12s %-4s %10.1f tps %10s us' "$round" "$name" "$leg" "$(pgbench_tps)" "$cpu")"
}

run_overhead() {
  local round name clients options leg legs
  start_server "sluice.min_pool_size = $pool_size" "sluice.max_pool_size = $pool_size"
  if ! has_setting "$setting"; then
    say "there is no setting $setting: its overhead is not measured"
    server_stop
    return
  fi
  # Caches, and the backends each load needs.
  while IFS='|' read -r _ clients options <&4; do
    # shellcheck disable=SC2086
    pgbench_load warm-up 90 127.0.0.1 "$pool_port" "$clients" -T 2 $options
  done 4< <(overhead_loads)
  for round in $(seq "$rounds"); do
    if [ $((round % 2)) = 1 ]; then legs="on off"; else legs="off on"; fi
    while IFS='|' read -r name clients options <&4; do
      for leg in $legs; do run_overhead_leg "$round" "$leg" "$name" "$clients" "$options"; done
    done 4< <(overhead_loads)
  done
  configure "$setting = default"
  server_stop
}

# ---- agreement

# What the pool has to say is read while the clients are still there: their goodbyes are leases as well.
prepare_pool_measures() {
  if has_view sluice.waits; then
    echo "select concat_ws(' ', measure, count, mean_us, p50_us, p95_us, p99_us) from sluice.waits
          where database = 'bench' and role = 'bench' and count > 0"
  else
    say "there is no view sluice.waits: only the wait in sluice.pools is looked at"
    echo "select concat_ws(' ', 'wait', leases, -1, wait_p50_us, wait_p95_us, wait_p99_us) from sluice.pools
          where database = 'bench' and role = 'bench' and leases > 0"
  fi >"$workdir/pool_measures.sql"
  printf '#!/bin/sh\nexec "%s/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "%s" -p %s -U postgres -d bench -f "%s" >"%s"\n' \
    "$bindir" "$workdir" "$port" "$workdir/pool_measures.sql" "$workdir/pool_measures.txt" >"$workdir/pool_measures"
  chmod +x "$workdir/pool_measures"
}

# pool_measures MEASURE: count, mean, p50, p95, p99 as the pool has them, in us; nothing if it does not measure that.
pool_measures() { sed -n "s/^$1 //p" "$workdir/pool_measures.txt"; }

# client_measures MEASURE: the same of the last load.
client_measures() {
  awk -F, -v measure="$1" '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
    $1 == measure { print $at["count"], $at["mean_us"], $at["p50_us"], $at["p95_us"], $at["p99_us"] }
  ' "$workdir/load.csv"
}

# record_measures NAME LEG MEASURE "COUNT MEAN P50 P95 P99"
record_measures() {
  local name=$1 leg=$2 measure=$3 count mean p50 p95 p99
  [ -n "$4" ] || return 0
  read -r count mean p50 p95 p99 <<<"$4"
  record agreement "$name" "$leg" 1 "${measure}_count" "$count"
  if [ "$mean" != -1 ]; then record agreement "$name" "$leg" 1 "${measure}_mean_us" "$mean"; fi
  record agreement "$name" "$leg" 1 "${measure}_p50_us" "$p50"
  record agreement "$name" "$leg" 1 "${measure}_p95_us" "$p95"
  record agreement "$name" "$leg" 1 "${measure}_p99_us" "$p99"
}

# run_load options...: report in $workdir/load.txt and .csv
run_load() {
  timeout --kill-after=10 $((agreement_seconds * 2 + 120)) "$load_generator" --csv "$workdir/load.csv" "$@" \
    "host=$workdir port=$pool_port dbname=bench user=bench" >"$workdir/load.txt" 2>&1 || {
      cat "$workdir/load.txt" >&2
      fail "the load did not succeed: $*"
    }
}

# run_agreement NAME options...: one load, from a reset of the statistics on.
run_agreement() {
  local name=$1 measure
  shift
  sleep 0.5
  query "select sluice.reset_statistics()" bench >/dev/null
  run_load --connections $agreement_connections --seconds "$agreement_seconds" \
    --before-leaving "$workdir/pool_measures" "$@"
  for measure in wait admission service queued; do
    record_measures "$name" client $measure "$(client_measures $measure)"
  done
  for measure in wait hold active thinking; do record_measures "$name" pool $measure "$(pool_measures $measure)"; done
  say "  $name: $(sed -n 's/^throughput: //p' "$workdir/load.txt")," \
    "admission (count mean p50 p95 p99 in us): client $(client_measures admission), pool $(pool_measures wait)"
}

run_agreements() {
  local capacity percent rate sleeping="select clock_timestamp() as began_at, pg_sleep(0.005)"
  start_server "sluice.min_pool_size = $agreement_pool_size" "sluice.max_pool_size = $agreement_pool_size" \
    "sluice.acquire_timeout = 0"
  prepare_pool_measures
  # A pool keeps its least number of backends as long as it has clients: the first load starts them.
  run_load --clients $agreement_connections --seconds 2 --query "$sleeping"
  wait_until "the pool has its backends" "select total = $agreement_pool_size and starting = 0 from sluice.pools
                                          where database = 'bench' and role = 'bench'"
  # As many clients as backends: the most the pool can do.
  run_load --clients $agreement_pool_size --seconds 3 --query "$sleeping"
  capacity=$(sed -n 's/^throughput: \([0-9.]*\).*/\1/p' "$workdir/load.txt")
  record agreement capacity client 1 tps "$capacity"
  say "  $agreement_pool_size backends answer $capacity requests per second"
  # What the path costs without waiting: the client's wait has it, the pool's has not.
  run_agreement path --rate 20 --query "$sleeping"
  for percent in 60 80 90 95; do
    rate=$(awk -v c="$capacity" -v p=$percent 'BEGIN { printf "%.1f", c * p / 100 }')
    run_agreement "load_$percent" --rate "$rate" --query "$sleeping"
  done
  # Twice as much as it can do, for a tenth of the time.
  rate=$(awk -v c="$capacity" 'BEGIN { printf "%.1f", c * 0.6 }')
  run_agreement burst --rate "$rate" --query "$sleeping" --burst \
    "$(awk -v c="$capacity" -v s="$agreement_seconds" 'BEGIN { printf "%.1f:%.2f:%.2f", c * 2, s * 0.3, s * 0.1 }')"
  printf '%s\n' 'begin;' "select clock_timestamp() as began_at, pg_sleep(0.010);" '\sleep 30 ms' \
    'select pg_sleep(0.010);' 'end;' >"$workdir/thinking.sql"
  run_agreement thinking --rate 30 --script "$workdir/thinking.sql"
  server_stop
}

# ---- views

# time_view VIEW: lines "execution_ms total_ms".
time_view() {
  local statement="select * from sluice.$1"
  {
    echo '\timing on'
    for _ in $(seq $view_repeats); do
      echo "explain (analyze, timing off, costs off) $statement;"
      echo '\o /dev/null'
      echo "$statement;"
      echo '\o'
    done
  } >"$workdir/view.sql"
  "$bindir/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$workdir" -p "$port" -U postgres -d bench -f "$workdir/view.sql" \
    >"$workdir/view.txt" 2>&1 || fail "sluice.$1 could not be read: $(grep -m 1 ERROR "$workdir/view.txt")"
  # Each pair leaves "Execution Time" of the first and "Time" of both.
  awk '/^Execution Time: / { execution = $3; first = 1 }
       /^Time: / { if (!first) print execution, $2; first = 0 }' "$workdir/view.txt"
}

run_views() {
  local view round execution total clients_pid
  require_open_files "$idle_clients"
  build_raw_client
  start_server "sluice.max_clients = $((idle_clients + 100))" "sluice.max_pool_size = $pool_size"
  rm -f "$workdir/connected" "$workdir/measured"
  timeout --kill-after=10 600 "$workdir/raw_client" idle "$idle_clients" 127.0.0.1 "$pool_port" bench bench \
    "touch '$workdir/connected'; until [ -e '$workdir/measured' ]; do sleep 0.1; done" >"$workdir/raw_client.txt" 2>&1 &
  clients_pid=$!
  extra_processes=("$clients_pid")
  for _ in $(seq 1800); do
    [ ! -e "$workdir/connected" ] || break
    kill -0 "$clients_pid" 2>/dev/null ||
      fail "$idle_clients clients could not connect: $(cat "$workdir/raw_client.txt")"
    sleep 0.1
  done
  [ -e "$workdir/connected" ] || fail "$idle_clients clients were not connected in time"
  say "  $(query "select clients from sluice.status" bench) clients are connected"
  for view in $(query "select viewname from pg_views where schemaname = 'sluice' order by 1" bench); do
    record views "$view" "" 1 rows "$(query "select count(*) from sluice.$view" bench)"
    round=0
    while read -r execution total; do
      round=$((round + 1))
      record views "$view" "" "$round" execution_ms "$execution"
      record views "$view" "" "$round" total_ms "$total"
    done < <(time_view "$view")
    [ "$round" = $view_repeats ] || fail "sluice.$view was timed $round times"
  done
  touch "$workdir/measured"
  wait "$clients_pid" || fail "not all clients stayed connected: $(cat "$workdir/raw_client.txt")"
  extra_processes=()
  server_stop
}

"$root/test/tools/install_packages.sh" >&2
mkdir -p "$results_dir"
echo "part,name,leg,round,unit,value" >"$csv"

sandbox_open
install_extension >&2
build_load_generator >&2
server_init
say "creating the database"
{ server_settings; extension_settings; } | server_start
create_pgbench_tables "$scale"
query "create extension pg_sluice" bench
server_stop

for part in recording overhead agreement views; do
  has_part $part || continue
  say "$part"
  case $part in
    recording) run_recording ;;
    overhead) run_overhead ;;
    agreement) run_agreements ;;
    views) run_views ;;
  esac
done
{
  describe_hardware
  echo "$("$bindir/postgres" --version). fsync and synchronous_commit off, pgbench scale $scale."
  echo
  if has_part recording; then
    echo "Counting and timing one transaction takes $(sed -n 4p "$results_dir/recording.txt") ns of processor time (median of 7)."
    echo
  fi
  perl "$here/statistics_report.pl" "$csv"
} | tee "$results_dir/statistics.md"
