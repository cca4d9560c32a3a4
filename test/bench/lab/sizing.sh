#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# How large should a pool be?  Two questions, each for pg_sluice and for PgBouncer with pools of the same sizes:
#
#  - The table: latencies of a one-row select at pool sizes 1, 5 and 100, with 2 clients (the two threads of the table
#    this follows) and with 50.  A "fixed" pool has all its server connections before the first measured request; an
#    "increasing" one has one of them, and what it starts meanwhile is part of what is measured.
#  - The sweep: throughput and latencies at sizes 1 to 100, for the select and for a transaction as in TPC-B, with 2, 50
#    and 500 clients.  The pools are full grown here.  With 2 clients no more than 2 connections ever have work, so only
#    some of the sizes are visited.
#
# Between the two, pg_sluice is shown each of the sweep's loads for half a minute while its size is stepped up and down,
# and then asked what it advises (sluice.sizing).  It has not seen the sweep.  In the end the size that was best in the
# sweep, the rule's and the advised one are measured once more side by side, for the best of many noisy figures is
# flattered by its noise: this is what the advice is judged by.
#
# Sizes are visited in rounds, up and down in turn, legs rotated at each size, so that a machine whose speed drifts
# drifts for all of them.  Server connections are new for each figure, in both legs.
#
#   LAB_ROUNDS=3 LAB_SECONDS=2            rounds; seconds per figure of the table, in the sweep 0.3 times that, and in
#                                         the end, where the sizes in question are measured again, half of it
#   LAB_LEGS="pgbouncer sluice"           any legs that have a pool whose size can be set at its start
#   LAB_SIZING_SIZES="1 2 3 4 5 6 8 10 12 16 24 32 50 75 100"
#   LAB_SIZING_CLIENTS="2 50 500"         of the sweep
#   LAB_SIZING_TABLE_SIZES="1 5 100"      LAB_SIZING_TABLE_CLIENTS="2 50"
#   LAB_SIZING_LOADS="select transaction"
#   LAB_SIZING_LEARN=4                    seconds at each size that pg_sluice learns from
#   LAB_SIZING_SCALE=10                   pgbench scale
#   LAB_SIZING_PROTOCOL=simple            or prepared
#   LAB_QUICK=1                           few sizes and clients, and moments only: shows that it runs
#
# Results: build/lab/sizing.csv, sizing.md, sizing_latency.svg, sizing_throughput.svg, sizing_p99.svg.
export LAB_SECONDS=${LAB_SECONDS:-2}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lab.sh"

if [ "$quick" = 1 ]; then
  seconds=0.2 rounds=1
  read -r -a sizes <<<"${LAB_SIZING_SIZES:-1 4 16}"
  read -r -a sweep_clients <<<"${LAB_SIZING_CLIENTS:-20}"
  read -r -a table_sizes <<<"${LAB_SIZING_TABLE_SIZES:-1 5}"
  read -r -a table_clients <<<"${LAB_SIZING_TABLE_CLIENTS:-2}"
  learning_sizes="1 4 8 2"
  learn=${LAB_SIZING_LEARN:-0.3}
  scale=${LAB_SIZING_SCALE:-1}
else
  read -r -a sizes <<<"${LAB_SIZING_SIZES:-1 2 3 4 5 6 8 10 12 16 24 32 50 75 100}"
  read -r -a sweep_clients <<<"${LAB_SIZING_CLIENTS:-2 50 500}"
  read -r -a table_sizes <<<"${LAB_SIZING_TABLE_SIZES:-1 5 100}"
  read -r -a table_clients <<<"${LAB_SIZING_TABLE_CLIENTS:-2 50}"
  learning_sizes="1 3 6 12 24 32 16 8 2"
  learn=${LAB_SIZING_LEARN:-4}
  scale=${LAB_SIZING_SCALE:-10}
fi
read -r -a loads <<<"${LAB_SIZING_LOADS:-select transaction}"
protocol=${LAB_SIZING_PROTOCOL:-simple}
sweep_seconds=$(awk -v s="$seconds" 'BEGIN { print s * 0.3 }')
final_seconds=$(awk -v s="$seconds" 'BEGIN { print s * 0.5 }')

columns=part,load,clients,leg,kind,size,round,backends,succeeded,failed,throughput_per_s
latencies="mean_us p50_us p90_us p95_us p99_us p999_us p9999_us max_us"
pool="database = 'bench' and role = 'bench'"

# ---- pools of a size

# Server connections that a leg's pool has.
backends() {
  if [ "$1" = sluice ]; then
    query "select total from sluice.pools where $pool" bench
  else
    query "select count(*) from pg_stat_activity where usename = 'bench' and backend_type = 'client backend'"
  fi
}

# One after the other, over the direct port, in one go.
queries() {
  local sql arguments=()
  for sql in "$@"; do arguments+=(-c "$sql"); done
  "$bindir/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$workdir" -p "$port" -U postgres -d bench "${arguments[@]}"
}

# resize SIZE LEAST: new backends for pg_sluice's pool.
resize() {
  queries "alter system set sluice.max_pool_size = $1" "alter system set sluice.min_pool_size = $2" \
    "select pg_reload_conf()" "select sluice.retire_backends('bench', 'bench')" >/dev/null
}

# set_size LEG SIZE LEAST CLIENTS: a pool with one server connection that may have SIZE, and keeps LEAST.
set_size() {
  local leg=$1 size=$2 least=$3 clients=$4 most=$((least > 1 ? least : 1))
  if [ "$leg" = sluice ]; then
    resize "$size" "$least"
    pooled "select 1" >/dev/null
    for _ in $(seq 500); do
      [ "$(query "select max_size = $size and total <= $most from sluice.pools where $pool" bench)" != t ] ||
        return 0
      sleep 0.02
    done
    fail "the pool's size does not become $size"
  else
    pool_size=$size
    start_leg "$leg" $((clients > size ? clients : size))
    load "$leg" --clients 1 --seconds 0.01 --query "SELECT 1"
  fi
}

leave_size() { [ "$1" = sluice ] || stop_leg "$1"; }

# grow LEG SIZE CLIENTS: until the pool has all its connections, for those who measure a pool that has grown.  As many
# clients at once as there are places, and nobody done before the last one has begun; only some pools would start
# connections unasked, and those one after the other.
grow() {
  local leg=$1 size=$2
  for _ in 1 2 3 4; do
    [ "$(backends "$leg")" -lt "$size" ] || return 0
    load "$leg" --clients "$size" --seconds 0.01 --query "SELECT pg_sleep(0.05 + 0.005 * $size)"
  done
  say "  $leg: $(backends "$leg") of $size server connections"
}

# ---- one figure

# load_options LOAD
load_options() {
  echo "--script $here/sizing_$1.sql --define scale=$scale"
  [ "$protocol" = simple ] || echo "--protocol $protocol"
}

# measure PART LOAD CLIENTS LEG KIND SIZE ROUND
measure() {
  local part=$1 load=$2 clients=$3 leg=$4 kind=$5 size=$6 round=$7 fields=() name least=0 warmup=0 length
  [ "$load" = select ] || tidy_pgbench_tables
  case $part in
    table) length=$seconds ;;
    sweep) length=$sweep_seconds ;;
    final) length=$final_seconds ;;
  esac
  # One that increases keeps one connection; all the other ones keep what they have for as long as this takes.
  case $part,$kind in
    table,fixed) least=$size ;;
    table,increasing) least=1 ;;
  esac
  set_size "$leg" "$size" "$least" "$clients"
  if [ "$kind" = fixed ]; then
    grow "$leg" "$size"
    # What a new server connection remembers of its first statements.
    warmup=0.2
  fi
  # shellcheck disable=SC2046  # options are words
  load "$leg" --clients "$clients" --warmup "$warmup" --seconds "$length" $(load_options "$load")
  fields=("$part" "$load" "$clients" "$leg" "$kind" "$size" "$round" "$(backends "$leg")")
  for name in succeeded failed throughput_per_s; do fields+=("$(load_value summary "$name")"); done
  for name in $latencies; do fields+=("$(load_value latency "$name")"); done
  leave_size "$leg"
  record "${fields[@]}"
  say "$(printf '%-5s %-11s %3d clients  round %d  %-9s %-10s size %3d  %10.1f/s  p99 %7d us' "$part" "$load" \
    "$clients" "$round" "$leg" "$kind" "$size" "${fields[10]}" "${fields[15]}")"
}

# measure_sizes PART LOAD CLIENTS ROUND KIND SIZE...: in all legs
measure_sizes() {
  local part=$1 load=$2 clients=$3 round=$4 kind=$5 size turn=$4 order
  shift 5
  order=$(printf '%s\n' "$@" | if [ $((round % 2)) = 1 ]; then cat; else tac; fi)
  for size in $order; do
    for leg in $(rotated "$turn"); do measure "$part" "$load" "$clients" "$leg" "$kind" "$size" "$round"; done
    turn=$((turn + 1))
  done
}

# ---- the parts

measure_table() {
  local clients round kind growing=()
  # One that may have one connection has nowhere to grow to.
  read -r -a growing <<<"$(printf '%s\n' "${table_sizes[@]}" | awk '$1 > 1' | xargs)"
  for clients in "${table_clients[@]}"; do
    for round in $(seq "$rounds"); do
      measure_sizes table select "$clients" "$round" fixed "${table_sizes[@]}"
      [ ${#growing[@]} = 0 ] || measure_sizes table select "$clients" "$round" increasing "${growing[@]}"
    done
  done
}

# mark LOAD KIND SIZE: what somebody says the size should be, an empty one if nothing.
mark() {
  record mark "$1" "" sluice "$2" "$3" "" "" "" "" "" "" "" "" "" "" "" "" ""
}

size_by_rule() { query "select size from sluice.sizing where $pool and rule = '$1'" bench; }

# What the extension makes of a load that it sees at several sizes.
learn_load() {
  local load=$1 size total process
  tidy_pgbench_tables
  query "select sluice.reset_statistics()" bench >/dev/null
  total=$(awk -v step="$learn" -v steps="$(wc -w <<<"$learning_sizes")" 'BEGIN { print step * steps }')
  # shellcheck disable=SC2046
  load sluice --clients 50 --seconds "$total" $(load_options "$load") &
  process=$!
  extra_processes+=("$process")
  for size in $learning_sizes; do
    resize "$size" 0
    sleep "$learn"
  done
  wait "$process" || fail "the load that was to be learnt from"
  extra_processes=()
  configure "sluice.max_pool_size = default"
  pooled "select 1" >/dev/null
  mark "$load" rule "$(size_by_rule 'cores * 2 + spindles')"
  mark "$load" knee "$(size_by_rule 'measured knee')"
  mark "$load" advised "$(query "select size from sluice.sizing where $pool and advised" bench)"
  query "select format('%s: %s%s%s%s', rule, coalesce(size::text, 'says nothing'), ', confidence ' || confidence,
    '; ' || note, case when advised then ' (advised)' end) from sluice.sizing
    where $pool and rule in ('cores * 2 + spindles', 'measured knee') order by 1" bench |
    sed "s/^/$load: /" | tee -a "$workdir/advice.txt" >&2
}

marked_size() { awk -F, -v l="$1" -v k="$2" '$1 == "mark" && $2 == l && $5 == k { print $6 }' "$csv"; }

# The size with the highest median throughput: best_size LOAD CLIENTS LEG
best_size() {
  local size value
  for size in "${sizes[@]}"; do
    value=$(awk -F, -v l="$1" -v c="$2" -v g="$3" -v s="$size" \
      '$1 == "sweep" && $2 == l && $3 == c && $4 == g && $6 == s { print $11 }' "$csv" | median)
    [ -z "$value" ] || echo "$value $size"
  done | sort -g | awk 'END { print $2 }'
}

# sizes_for CLIENTS: those that can matter, and the last.
sizes_for() {
  printf '%s\n' "${sizes[@]}" | awk -v most=$(($1 * 2)) '
    $1 <= most { print; next }
    { last = $1 }
    END { if (last) print last }'
}

sweep() {
  local load=$1 clients round
  for clients in "${sweep_clients[@]}"; do
    for round in $(seq "$rounds"); do
      # shellcheck disable=SC2046  # sizes are words
      measure_sizes sweep "$load" "$clients" "$round" fixed $(sizes_for "$clients")
    done
  done
}

# The sizes in question once more.
judge() {
  local load=$1 rule advised clients round leg size wanted
  rule=$(marked_size "$load" rule)
  advised=$(marked_size "$load" advised)
  for clients in "${sweep_clients[@]}"; do
    for round in $(seq "$rounds"); do
      for leg in $(rotated "$round"); do
        wanted=$(printf '%s\n' "$(best_size "$load" "$clients" "$leg")" "$rule" "$advised" | grep -v '^$' | sort -nu)
        for size in $(if [ $((round % 2)) = 1 ]; then cat; else tac; fi <<<"$wanted"); do
          measure final "$load" "$clients" "$leg" fixed "$size" "$round"
        done
      done
    done
  done
}

lab_open sizing "$columns,${latencies// /,}"
lab_server
lab_tables "$scale"
lab_legs pgbouncer sluice
# A leg without a pool has no size.
able=()
for leg in "${legs[@]}"; do
  if [ "$leg" = direct ]; then say "  without direct: it has no pool"
  elif reason=$(leg_can "$leg" "$protocol"); then able+=("$leg")
  else
    legs_left_out+=("$(leg_name "$leg"): $reason")
    say "  without $(leg_name "$leg"): $reason"
  fi
done
legs=("${able[@]}")
[ ${#legs[@]} -gt 0 ] || fail "no leg with a pool is left"

# Caches.
load sluice --clients 2 --seconds "$seconds" --script "$here/sizing_select.sql" --define "scale=$scale"
measure_table
for load in "${loads[@]}"; do
  if has_leg sluice; then learn_load "$load"; fi
  sweep "$load"
  judge "$load"
done

for what in latency throughput p99; do
  perl "$here/sizing_report.pl" --plot "$what" "$csv" >"$workdir/sizing.gnuplot" || fail "no commands for the plot"
  plot "sizing_$what.svg" <"$workdir/sizing.gnuplot"
done
touch "$workdir/advice.txt"
# For the configurations in the report.
pool_size=SIZE
echo "sluice.max_pool_size = SIZE, sluice.min_pool_size = SIZE or 1 in the table" >>"$workdir/settings_given"
lab_report sizing_report.pl --advice "$workdir/advice.txt" "$csv"
