#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Load report: what clients of a pool in its default configuration see in five situations.
#
#   sustained   500 workers, 5,000 operations that hold a backend for a millisecond or two, begun at instants drawn
#               beforehand, so often that the pool is busy for 82.5 percent of the time (pool_load.sh)
#   saturated   the same workers and operations, but each begins the next one when it has been answered: as much as
#               the pool can do, and everybody waits for everybody else
#   burst       1,000 clients ask for one row each at the same instant, of a pool that has its backends
#   churn       50 workers connect, ask for one row and leave, all the time
#   complex     50 workers, a join of three tables with aggregates
#
# Acquisition is the time from the instant an operation should begin until a backend begins it, whoever made it wait; in
# churn the connection is opened in that time.  Execution is from there until the generator has the last byte of the
# answer, which takes longer than the server needs while hundreds of others have to be read or sent; what the pool itself
# has counted stands beside it.
#
#   LAB_REPORT_PHASES="sustained saturated burst churn complex"
#   LAB_REPORT_WORKERS=500  LAB_REPORT_OPERATIONS=5000        sustained and saturated
#   LAB_REPORT_BURST=1000                                     clients of the burst
#   LAB_REPORT_CHURN=50     LAB_REPORT_CHURN_OPERATIONS=5000
#   LAB_REPORT_COMPLEX=50   LAB_REPORT_COMPLEX_OPERATIONS=2000
#   LAB_UTILISATION, LAB_ROUNDS, LAB_QUICK                    as in stress.sh and lab.sh
#
# Besides report.csv there is report_distribution.csv: all durations, in buckets.
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"
source "$lab_dir/pool_load.sh"

smaller() { if [ "$quick" = 1 ]; then echo "$2"; else echo "$1"; fi; }

phases=${LAB_REPORT_PHASES:-sustained saturated burst churn complex}
workers=${LAB_REPORT_WORKERS:-500}
operations=${LAB_REPORT_OPERATIONS:-$(smaller 5000 2000)}
burst=${LAB_REPORT_BURST:-$(smaller 1000 500)}
churn=${LAB_REPORT_CHURN:-50}
churn_operations=${LAB_REPORT_CHURN_OPERATIONS:-$(smaller 5000 1000)}
complex=${LAB_REPORT_COMPLEX:-50}
complex_operations=${LAB_REPORT_COMPLEX_OPERATIONS:-$(smaller 2000 300)}
# Operations end a load, not time: this is when it is given up.
longest=60
distribution=$results_dir/report_distribution.csv

# record_phase PHASE ROUND
record_phase() {
  local measure name column
  for name in requests succeeded failed unfinished throughput_per_s peak_concurrency; do
    record "$1" "$2" "$name" "$(load_value summary $name)"
  done
  record "$1" "$2" seconds "$duration"
  for name in stalled_ms longest_stall_ms; do record "$1" "$2" "$name" "$(stall_value "$name")"; done
  record "$1" "$2" utilisation_percent "$(utilisation)"
  for column in max_size total peak_waiting peak_backends starts; do
    record "$1" "$2" "$column" "$(pool_value pool $column)"
  done
  for measure in wait active; do
    for column in p50_us p95_us p99_us; do record "$1" "$2" "pool_${measure}_$column" "$(pool_value "$measure" $column)"; done
  done
  while read -r measure name; do
    for column in min_us mean_us p50_us p95_us p99_us max_us; do
      record "$1" "$2" "${name}_$column" "$(load_value "$measure" $column)"
    done
  done <<<$'wait acquire\nservice execute\nconnect connect\nlatency latency'
  awk -F, -v phase="$1" -v round="$2" 'NR > 1 { print phase "," round "," $0 }' "$workdir/histogram.csv" >>"$distribution"
  say "$(printf '  %-9s round %d: %s operations, %.1f/s, acquisition p50 %s p99 %s us, execution p50 %s p99 %s us' "$1" \
    "$2" "$(load_value summary requests)" "$(load_value summary throughput_per_s)" "$(load_value wait p50_us)" \
    "$(load_value wait p99_us)" "$(load_value service p50_us)" "$(load_value service p99_us)")"
}

# run_phase PHASE ROUND
run_phase() {
  local options=(--seconds "$longest")
  case $1 in
    sustained)
      options+=(--connections "$workers" --rate "$fit_rate" --operations "$operations" --query "$(holding_query "$fit_share")") ;;
    saturated) options+=(--clients "$workers" --operations "$operations" --query "$(holding_query "$fit_share")") ;;
    burst) options+=(--clients "$burst" --operations "$burst" --begin-together --script "$lab_dir/one_row.sql") ;;
    churn) options+=(--clients "$churn" --operations "$churn_operations" --reconnect --script "$lab_dir/one_row.sql") ;;
    complex) options+=(--clients "$complex" --operations "$complex_operations" --script "$lab_dir/complex.sql") ;;
    *) fail "there is no such phase: $1" ;;
  esac
  pool_load -D "rows=$rows" -D "branches=$lab_scale" --seed "$2" --histogram "$workdir/histogram.csv" "${options[@]}"
  record_phase "$1" "$2"
  if [ "$1" = sustained ]; then refit_load; fi
}

lab_open report "phase,round,figure,value"
generator_has --operations || fail "the load generator is too old for this scenario"
echo "phase,round,measure,low_us,high_us,count" >"$distribution"
require_open_files "$burst"
lab_server
lab_tables "$(smaller 10 2)"
rows=$((lab_scale * 100000))
pool_load_open
fit_load "$workers"
for round in $(seq "$rounds"); do
  for phase in $phases; do run_phase "$phase" "$round"; done
done
lab_report load_report.pl --curves "$workdir/curves.csv" "$csv" "$distribution"
colors=('#2ca02c' '#1f77b4' '#d62728' '#ff7f0e' '#9467bd')
for measure in wait service; do
  if [ $measure = wait ]; then what=acquisition; else what=execution; fi
  {
    echo "set title 'Load report: distribution of $what'"
    echo "set xlabel 'percentile'"
    echo "set ylabel 'ms'"
    echo "set logscale xy"
    echo "set xrange [1:10000]"
    echo "set yrange [0.01:]"
    echo "set xtics ('0' 1, '50' 2, '90' 10, '99' 100, '99.9' 1000, '99.99' 10000)"
    printf 'plot '
    color=0
    for phase in $phases; do
      printf "'%s' using (strcol(1) eq '%s' && strcol(2) eq '%s' ? \$3 : NaN):4 with steps lw 2 lc rgb '%s' title '%s', " \
        "$workdir/curves.csv" "$phase" "$measure" "${colors[color++]}" "$phase"
    done
    echo "NaN notitle"
  } | plot "report_$what.svg"
done
