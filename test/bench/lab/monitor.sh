#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Live monitor: a utilisation bar and counters of each pool, from the view sluice.monitor, refreshed in place.
#
# Without options: watches a server of its own, over a load that rises until it is more than the pool can serve, and
# falls again; the samples are plotted.  The operations are those of pool_load.sh, and the steps are percent of what
# the pool can serve.
#
#   LAB_MONITOR_STEPS="10 30 60 90 120 60 30 10"    percent; each step lasts LAB_SECONDS
#   LAB_MONITOR_CLIENTS=400
#   LAB_MONITOR_INTERVAL=0.2                        seconds between two refreshes
#
# With options it watches another server, makes no load and writes nothing but to --csv:
#
#   monitor.sh --host localhost --port 5432 --dbname app [--user U] [--interval 1] [--seconds 60] [--csv FILE]
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Before anything that forgets the caller's libpq settings.
if [ $# -gt 0 ]; then exec perl "$here/monitor.pl" "$@"; fi
source "$here/lab.sh"
source "$lab_dir/pool_load.sh"

clients=${LAB_MONITOR_CLIENTS:-400}
interval=${LAB_MONITOR_INTERVAL:-0.2}
read -r -a steps <<<"${LAB_MONITOR_STEPS:-10 30 60 90 120 60 30 10}"
step_seconds=$seconds
if [ "$quick" = 1 ]; then step_seconds=${LAB_SECONDS:-1.5}; fi

lab_open monitor "at_s,step,offered_percent,pool,in_use,max_size,utilisation_percent,waiting,tps,p99_ms,state"
lab_server
pool_load_open
fit_load "$clients"

rate_of() { awk -v r="$fit_rate" -v u="$fit_utilisation" -v p="$1" 'BEGIN { printf "%.1f", r / u * p / 100 }'; }

total=$(awk -v n=${#steps[@]} -v s="$step_seconds" 'BEGIN { print n * s }')
bursts=()
for i in "${!steps[@]}"; do
  bursts+=(--burst "$(rate_of "${steps[i]}"):$(awk -v i="$i" -v s="$step_seconds" 'BEGIN { print i * s }'):$step_seconds")
done
say "  steps of $step_seconds s: ${steps[*]} percent of $(rate_of 100) operations per second"
load sluice --connections "$clients" --rate "$(rate_of "${steps[0]}")" "${bursts[@]}" --seconds "$total" \
  --query "$(holding_query "$fit_share")" &
load_pid=$!
extra_processes+=("$load_pid")
# The load begins when all its clients are connected.
wait_until "the load's clients are connected" "select coalesce(sum(clients), 0) >= $clients from sluice.pools"
perl "$here/monitor.pl" --psql "$bindir/psql" --host "$workdir" --port "$port" --dbname bench --user postgres \
  --interval "$interval" --seconds "$total" --csv "$workdir/samples.csv" >&2
wait "$load_pid" || fail "the load did not succeed"
extra_processes=()

awk -F, -v OFS=, -v steps="${steps[*]}" -v length_s="$step_seconds" '
  BEGIN { count = split(steps, percent, " ") }
  NR > 1 && $2 == "bench/bench" {
    step = int($1 / length_s) + 1
    if (step > count) step = count
    $1 = $1 OFS step OFS percent[step]
    print
  }' "$workdir/samples.csv" >>"$csv"
lab_report monitor_report.pl "$csv"
plot monitor.svg <<END
set title 'Live monitor: a load that rises and falls'
set xlabel 's'
set ylabel 'utilisation, percent'
set y2label 'clients that wait'
set xrange [0:$total]
set yrange [0:*]
set y2range [0:$clients]
set y2tics
set ytics nomirror
set key below
second(x) = floor(x) + 0.5
plot '$csv' using 1:8 axes x1y2 with filledcurves y2=0 fs transparent solid 0.25 lc rgb '#d62728' title 'waiting', \
  '' using 1:3 with steps lw 2 dt 2 lc rgb '#7f7f7f' title 'offered', \
  '' using 1:7 with points pt 7 ps 0.4 lc rgb '#98d898' title 'utilisation, samples', \
  '' using (second(\$1)):7 smooth unique with lines lw 2 lc rgb '#2ca02c' title 'utilisation, mean of a second'
END
