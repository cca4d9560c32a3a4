#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Stress: N clients with M operations each, through a pool as it is configured by default.
#
# Paced: each operation holds its backend for a millisecond or two, and clients begin them at instants drawn beforehand
# (Poisson), as often as it takes to keep the pool busy for 82.5 percent of the time (pool_load.sh).  "Acquire" is the
# time from that instant until a backend begins the operation, whoever made it wait: the generator, the network, the
# pool.  This is the load the usual targets for pools are meant for, and they stand beside the result.
#
# Unpaced: everybody asks for one row as fast as possible.  The pool is saturated, and clients wait for each other: in a
# closed loop the acquire time is about N / throughput whatever the pool does.
#
#   stress.sh [N...]                          numbers of clients (100 250 500 750 1000)
#   LAB_STRESS_CLIENTS="100 250 500 750 1000" the same
#   LAB_STRESS_OPERATIONS=M                   operations per client of the paced load (as many as take LAB_SECONDS)
#   LAB_STRESS_ARRIVALS=poisson               or constant
#   LAB_STRESS_POOL_SIZE=N                    sluice.max_pool_size (default: the sizing rule's)
#   LAB_UTILISATION=0.825                     at which the paced load aims
#   LAB_ROUNDS, LAB_SECONDS, LAB_QUICK        as in lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"
source "$lab_dir/pool_load.sh"

arrivals=${LAB_STRESS_ARRIVALS:-poisson}
if [ "$quick" = 1 ]; then numbers="100 500"; else numbers="100 250 500 750 1000"; fi
read -r -a numbers <<<"${LAB_STRESS_CLIENTS:-$numbers}"
if [ $# -gt 0 ]; then numbers=("$@"); fi
for number in "${numbers[@]}"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "not a number of clients: $number"
done

# Of each number of clients: what its last load has taught.
declare -A share rate

# record_stress LOAD CLIENTS ROUND SHARE
record_stress() {
  local kind=$1 clients=$2 round=$3
  record "$kind" "$clients" "$round" "$(load_value summary requests)" "$(load_value summary succeeded)" "$duration" \
    "$(load_value summary throughput_per_s)" "$(pool_value pool max_size)" "$(pool_value pool total)" \
    "$(pool_value pool idle)" "$(load_value wait p50_us)" "$(load_value wait p95_us)" "$(load_value wait p99_us)" \
    "$(load_value wait max_us)" "$(load_value admission p99_us)" "$(load_value late p99_us)" \
    "$(pool_value wait p50_us)" "$(pool_value wait p95_us)" "$(pool_value wait p99_us)" "$(pool_value hold mean_us)" \
    "$(utilisation)" "$(pool_value pool peak_waiting)" "$4" \
    "$(stall_value stalled_ms)" "$(stall_value longest_stall_ms)"
  say "$(printf '  %-7s %5d clients, round %d: %8.1f/s, acquire p50 %s p95 %s p99 %s us, utilisation %s %%, the longest stall of the machine %s ms' "$kind" \
    "$clients" "$round" "$(load_value summary throughput_per_s)" "$(load_value wait p50_us)" \
    "$(load_value wait p95_us)" "$(load_value wait p99_us)" "$(utilisation)" "$(stall_value longest_stall_ms)")"
}

# run_paced CLIENTS ROUND
run_paced() {
  local clients=$1 operations longest
  if [ -n "${share[$1]:-}" ]; then
    fit_share=${share[$1]}
    fit_rate=${rate[$1]}
  else
    fit_load "$1"
  fi
  operations=$(awk -v m="${LAB_STRESS_OPERATIONS:-0}" -v r="$fit_rate" -v s="$seconds" -v n="$1" \
    'BEGIN { if (!m) { m = r * s / n; m = m == int(m) ? m : int(m) + 1 } print n * m }')
  longest=$(awk -v o="$operations" -v r="$fit_rate" 'BEGIN { printf "%.2f", o / r }')
  local -a end=(--seconds "$longest")
  if generator_has --operations; then
    end=(--operations "$operations" --seconds "$(awk -v s="$longest" 'BEGIN { printf "%.2f", s * 2 + 5 }')")
  fi
  pool_load --connections "$clients" --rate "$fit_rate" --arrivals "$arrivals" --seed "$2" "${end[@]}" \
    --query "$(holding_query "$fit_share")"
  record_stress paced "$1" "$2" "$fit_share"
  refit_load
  share[$1]=$fit_share
  rate[$1]=$fit_rate
}

# run_unpaced CLIENTS ROUND
run_unpaced() {
  pool_load --clients "$1" --seed "$2" --seconds "$seconds" -D "rows=$rows" --script "$lab_dir/one_row.sql"
  record_stress unpaced "$1" "$2" ""
}

lab_open stress "load,clients,round,operations,succeeded,seconds,throughput_per_s,max_size,backends,idle,\
acquire_p50_us,acquire_p95_us,acquire_p99_us,acquire_max_us,admission_p99_us,late_p99_us,\
pool_p50_us,pool_p95_us,pool_p99_us,hold_mean_us,utilisation_percent,peak_waiting,long_share,stalled_ms,longest_stall_ms"
most=$(printf '%s\n' "${numbers[@]}" | sort -n | tail -n 1)
require_open_files "$most"
if [ -n "${LAB_STRESS_POOL_SIZE:-}" ]; then
  lab_server "sluice.max_pool_size = $LAB_STRESS_POOL_SIZE"
else
  lab_server
fi
if [ "$quick" = 1 ]; then lab_tables 1; else lab_tables 10; fi
rows=$((lab_scale * 100000))
pool_load_open
for round in $(seq "$rounds"); do
  # Up and down in turn: a machine whose speed drifts drifts for all of them.
  order=$(printf '%s\n' "${numbers[@]}" | if [ $((round % 2)) = 1 ]; then cat; else tac; fi)
  for number in $order; do
    run_paced "$number" "$round"
    run_unpaced "$number" "$round"
  done
done

lab_report stress_report.pl --medians "$workdir/medians.csv" --arrivals "$arrivals" "$csv"
plot stress_acquire.svg <<END
set title 'Stress, paced: time to acquire a backend'
set xlabel 'clients'
set xrange [0:$((most + 50))]
set ylabel 'ms'
set logscale y
set yrange [0.01:]
plot '$workdir/medians.csv' using 2:(strcol(1) eq 'paced' ? \$3 : NaN) \
    with linespoints pt 7 lc rgb '#2ca02c' title 'p50', \
  '' using 2:(strcol(1) eq 'paced' ? \$4 : NaN) \
    with linespoints pt 7 lc rgb '#1f77b4' title 'p95', \
  '' using 2:(strcol(1) eq 'paced' ? \$5 : NaN) \
    with linespoints pt 7 lc rgb '#d62728' title 'p99', \
  2 with lines dt 2 lc rgb '#2ca02c' title 'target p50', \
  10 with lines dt 2 lc rgb '#1f77b4' title 'target p95', \
  20 with lines dt 2 lc rgb '#d62728' title 'target p99'
END
plot stress_throughput.svg <<END
set title 'Stress, paced: throughput and utilisation'
set xlabel 'clients'
set xrange [0:$((most + 50))]
set ylabel 'operations per second'
set y2label 'utilisation, percent'
set yrange [0:2500<*]
set y2range [0:100]
set y2tics
set ytics nomirror
plot '$workdir/medians.csv' using 2:(strcol(1) eq 'paced' ? \$6 : NaN) \
    with linespoints pt 7 lc rgb '#2ca02c' title 'throughput', \
  2000 with lines dt 2 lc rgb '#2ca02c' title 'target', \
  '$workdir/medians.csv' using 2:(strcol(1) eq 'paced' ? \$7 : NaN) \
    axes x1y2 with linespoints pt 5 lc rgb '#ff7f0e' title 'utilisation', \
  80 axes x1y2 with lines dt 2 lc rgb '#ff7f0e' title 'target, from', \
  85 axes x1y2 with lines dt 2 lc rgb '#ff7f0e' title 'to'
END
