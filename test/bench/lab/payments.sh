#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Payments: an application server with 100 users at once, each of whom holds a transaction open during an external call
# of 50 to 150 ms, in every step; one of seven steps needs a second connection while it holds the first.
#
# The pools are as they come: pg_sluice with its defaults, the peers as they are recommended and with a pool of 20,
# which is PgBouncer's default; and again with one of 100.  The direct leg has as many server connections as the
# application wants.  After each leg what the clients were told is compared with
# what is in the database: nothing lost, nothing done twice.  One run a leg unless LAB_ROUNDS says otherwise, each on
# a server that has just started, because memory is watched; the step's times have thousands of samples.  Of several
# rounds, each begins with another leg, and each is reported by itself: LEG, LEG_run2, LEG_run3 ...
#
#   LAB_PAYMENTS_SECONDS=120      of each leg; 14400 for hours
#   LAB_ROUNDS=1                  runs of each leg
#   LAB_PAYMENTS_USERS=100
#   LAB_PAYMENTS_EXTERNAL=50:150  milliseconds of an external call
#   LAB_PAYMENTS_THINK_MS=0       mean pause of a user between two steps
#   LAB_PAYMENTS_PEER_POOLS="20 100"   server connections of the peers: a leg for each size; 20 is PgBouncer's default,
#                                 100 as many as pg_sluice's sluice.max_backends
#   LAB_PAYMENTS_DRAIN=30         seconds after which steps that were begun in time are given up
#   LAB_PAYMENTS_SETTINGS=        settings of the server, separated by semicolons, to compare other configurations
#   LAB_LEGS="direct pgbouncer odyssey sluice"
#
# Writes build/lab/payments.csv (steps), payments_errors.csv, payments_pool.csv, payments_users.csv (what the users do),
# payments_memory.csv, payments_check.csv, payments_views.txt, payments.md and the plots payments_pool.svg,
# payments_memory.svg and payments_latency.svg.
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

users=${LAB_PAYMENTS_USERS:-100}
external=${LAB_PAYMENTS_EXTERNAL:-50:150}
think_ms=${LAB_PAYMENTS_THINK_MS:-0}
if [ "$quick" = 1 ]; then
  duration=${LAB_PAYMENTS_SECONDS:-3}
  drain=${LAB_PAYMENTS_DRAIN:-1}
  memory_every_ms=500
  pools=20
else
  duration=${LAB_PAYMENTS_SECONDS:-120}
  drain=${LAB_PAYMENTS_DRAIN:-30}
  memory_every_ms=2000
  pools="20 100"
fi
read -r -a peer_pools <<<"${LAB_PAYMENTS_PEER_POOLS:-$pools}"
# Of hours, a look at memory every ten seconds is enough.
[ "$duration" -le 1200 ] || memory_every_ms=10000
IFS=';' read -r -a settings <<<"${LAB_PAYMENTS_SETTINGS:-}"
rounds=${LAB_ROUNDS:-1}
seconds=$duration
clients_program=$root/build/test/bench/payments_clients
watch_pid=

build_clients() {
  mkdir -p "$root/build/test"
  flock "$root/build/test/.lock" make -s -C "$root" -f test/bench/lab/payments.mk "PG_CONFIG=$pg_config" >&2 ||
    fail "payments_clients could not be built"
}

conninfo() { echo "host=127.0.0.1 port=$1 dbname=bench user=bench sslmode=disable application_name=payments"; }
direct_conninfo() { echo "host=$workdir port=$port dbname=bench user=postgres application_name=watch"; }

# start_watch LEG LABEL
start_watch() {
  local leg=$1 label=$2 pid options=(--process "server=$(postmaster_pid)+")
  if [ "$leg" = sluice ]; then
    options+=(--sluice --process
      "dispatcher=$(query "select pid from pg_stat_activity where backend_type = 'pg_sluice dispatcher'")")
  fi
  if is_peer "$leg"; then for pid in $(leg_pids "$leg"); do options+=(--process "pooler=$pid"); done; fi
  "$clients_program" watch "${options[@]}" --label "$label" --memory-every "$memory_every_ms" \
    --seconds "$((duration + drain + 60))" --pool "$results_dir/payments_pool.csv" \
    --memory "$results_dir/payments_memory.csv" "$(direct_conninfo)" 2>"$workdir/watch.err" &
  watch_pid=$!
  extra_processes+=("$watch_pid")
}

stop_watch() {
  kill "$watch_pid" 2>/dev/null || true
  wait "$watch_pid" || fail "the pool could not be watched: $(cat "$workdir/watch.err")"
  extra_processes=()
}

# check_books LABEL
check_books() {
  local leg=$1 status=0 verdict=agrees
  "$clients_program" check "$workdir/told.txt" "$(direct_conninfo)" >"$workdir/check.txt" || status=$?
  case $status in
    0) ;;
    2) verdict=DIFFERS ;;
    *) fail "the books of leg $leg could not be checked" ;;
  esac
  say "  $leg: the database $verdict: $(tail -n 1 "$workdir/check.txt")"
  echo "$leg,$verdict,$(tr -d ',' <"$workdir/check.txt" | paste -s -d ';')" >>"$results_dir/payments_check.csv"
}

# What the pool itself has counted and noticed.
look_back() {
  { [ "$rounds" = 1 ] || echo "$1"
    query "select 'backends: most ' || sum(peak_backends) || ', started ' || sum(starts) || ', failed to start ' ||
             sum(start_failures) || '; clients waiting: most ' || sum(peak_waiting) || '; wait: p99 ' ||
             max(wait_p99_us) || ' us, longest ' || max(wait_max_us) || ' us; acquire timeouts ' ||
             sum(acquire_timeouts) || ', nested acquires ' || sum(nested_acquires) || ', leaks ' || sum(leaks)
             from sluice.pools where database = 'bench'" bench
    query "select 'events: ' || coalesce(string_agg(kind || ' ' || count, ', ' order by kind), 'none')
             from (select kind, count(*) from sluice.events group by kind) as kinds" bench
  } | tee -a "$results_dir/payments_views.txt" | sed 's/^/  sluice: /' >&2
}

# run_leg LEG LABEL
run_leg() {
  local leg=$1 label=$2
  say "$label: $users users, $duration s"
  lab_server "${settings[@]}"
  "$clients_program" prepare "host=$workdir port=$port dbname=bench user=bench"
  start_leg "$leg" $((users * 2))
  start_watch "$leg" "$label"
  timeout --kill-after=10 $((duration + drain + 60)) "$clients_program" run --progress --label "$label" \
    --users "$users" --seconds "$duration" --drain "$drain" --external "$external" --think "$think_ms" \
    --steps "$csv" --errors "$results_dir/payments_errors.csv" --told "$workdir/told.txt" \
    --samples "$results_dir/payments_users.csv" "$(conninfo "$(leg_port "$leg")")" >"$workdir/run.txt" ||
    fail "the users of leg $label could not be served"
  say "  $label: $(paste -s -d ' ' "$workdir/run.txt")"
  stop_watch
  [ "$leg" != sluice ] || look_back "$label"
  stop_leg "$leg"
  settle
  check_books "$label"
  labels+=("$label")
}

# ---- plots; one panel for each leg, or all legs in one

# color_of LABEL: pgbouncer_100 is a darker pgbouncer.
color_of() {
  case ${1%_run*} in
    pgbouncer_*) echo "'#0b3c5d'" ;;
    odyssey_*) echo "'#a04000'" ;;
    *) echo "color_${1%_run*}" ;;
  esac
}

plot_pool() {
  local label
  { echo "set terminal svg size 900,$((${#labels[@]} * 220 + 40)) font 'Helvetica,13' background '#ffffff' noenhanced"
    echo "set multiplot layout ${#labels[@]},1"
    echo "set xrange [0:$duration]; set yrange [0:*]; set ylabel 'connections, clients'"
    for label in "${labels[@]}"; do
      cat <<COMMANDS
set title '$label'
mine(value) = strcol(1) eq '$label' ? value : NaN
plot '$results_dir/payments_pool.csv' every ::1 using 2:(mine(\$3)) with lines lw 2 lc rgb '#000000' title 'total', \
  '' every ::1 using 2:(mine(\$4)) with lines lc rgb '#2ca02c' title 'active', \
  '' every ::1 using 2:(mine(\$5)) with lines lc rgb '#ff7f0e' title 'in transaction', \
  '' every ::1 using 2:(mine(\$6)) with lines lc rgb '#1f77b4' title 'idle', \
  '$results_dir/payments_users.csv' every ::1 using 2:(mine(\$4 + \$5)) with lines lw 2 lc rgb '#d62728' \
  title 'waiting', \
  '' every ::1 using 2:(mine(\$5)) with lines lc rgb '#9467bd' title 'for a second one'
COMMANDS
    done
    echo "unset multiplot"
  } | plot payments_pool.svg
}

# memory_curves GROUP...: of all legs.
memory_curves() {
  local label group file separator="plot "
  for group in "$@"; do
    for label in "${labels[@]}"; do
      file=$workdir/memory_${label}_$group.csv
      awk -F, -v label="$label" -v group="$group" '$1 == label && $3 == group' \
        "$results_dir/payments_memory.csv" >"$file"
      [ -s "$file" ] || continue
      printf "%s'%s' using 2:(\$5 / 1048576) with linespoints pt 7 ps 0.3 lc rgb %s title '%s'" "$separator" "$file" \
        "$(color_of "$label")" "$label, $group"
      separator=", "
    done
  done
  echo
}

plot_memory() {
  { echo "set terminal svg size 900,760 font 'Helvetica,13' background '#ffffff' noenhanced"
    echo "set multiplot layout 2,1"
    echo "set xrange [0:$duration]; set yrange [0:*]; set ylabel 'RssAnon, MB'"
    echo "set title 'all processes of the server'"
    memory_curves server
    echo "set title 'dispatcher, pooler'; set xlabel 'seconds'"
    memory_curves dispatcher pooler
    echo "unset multiplot"
  } | plot payments_memory.svg
}

# A leg's bars stand side by side at each step: 90 % pale, the median in front of it.
plot_latency() {
  local i width
  width=$(awk -v legs=${#labels[@]} 'BEGIN { print 0.8 / legs }')
  { echo "set termoption noenhanced"
    echo "set style fill solid; set boxwidth $width; set yrange [0:*]; set ylabel 'ms, median and 90 % (pale)'"
    echo "set key above; set xtics rotate by 20 right; unset grid; set grid y"
    awk -F, -v label="${labels[0]}" '
      $1 == label && $2 != "connect" { names = names sep "\"" $2 "\" " place++; sep = ", " }
      END { print "set xtics (" names ")" }' "$csv"
    printf 'plot '
    for i in "${!labels[@]}"; do
      awk -F, -v label="${labels[$i]}" '$1 == label && $2 != "connect"' "$csv" >"$workdir/latency_$i.csv"
      [ "$i" = 0 ] || printf ', '
      printf "'%s' using (\$0 + %d * %s - 0.4):(\$7 / 1000) with boxes fill solid 0.3 lc rgb %s notitle, " \
        "$workdir/latency_$i.csv" "$i" "$width" "$(color_of "${labels[$i]}")"
      printf "'' using (\$0 + %d * %s - 0.4):(\$6 / 1000) with boxes lc rgb %s title '%s'" "$i" "$width" \
        "$(color_of "${labels[$i]}")" "${labels[$i]}"
    done
    echo
  } | plot payments_latency.svg
}

# ---- all of it

lab_open payments ""
rm -f "$results_dir"/payments_{pool,memory,users,errors}.csv "$results_dir/payments_views.txt" "$csv"
echo "leg,verdict,text" >"$results_dir/payments_check.csv"
build_clients
lab_legs direct pgbouncer odyssey sluice
labels=()
run_round() {
  local leg label run=
  [ "$1" = 1 ] || run=_run$1
  for leg in $(rotated "$1"); do
    if is_peer "$leg"; then
      # The name of a leg alone means the first size.
      for pool_size in "${peer_pools[@]}"; do
        label=$leg
        [ "$pool_size" = "${peer_pools[0]}" ] || label=${leg}_$pool_size
        run_leg "$leg" "$label$run"
      done
    else
      run_leg "$leg" "$leg$run"
    fi
  done
}
for round in $(seq "$rounds"); do run_round "$round"; done
pool_size=${peer_pools[0]}
plot_pool
plot_memory
plot_latency
lab_report payments_report.pl "$results_dir" "$duration" "$external"
