#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Trouble: what happens to clients when backends are killed, other clients vanish, the server restarts, readers stall
# and the network freezes, while operations go on whose every answer is checked.
#
# Each operation is a transaction that inserts a number of its own and has it returned (trouble_clients.cpp).  At the
# end the numbers that were told to be committed are compared with the table (trouble_check.pl): nothing may be lost,
# executed twice or answered to somebody else.  Where a connection died before its answer only the table knows; that is
# counted apart, for no way to the server can do without it.
#
# The incidents, one after the other, each until throughput is back or time is up:
#   terminate   five server processes that serve these clients, one after the other, by pg_terminate_backend()
#   crash       one of them by SIGKILL: the server ends all others and recovers
#   clients     20 more clients hang up in the middle of transactions and answers for 2 s, then all are killed
#   fast        the server is restarted, pg_ctl -m fast
#   immediate   ... -m immediate, as after a crash
#   stall       two clients stop reading in the middle of 100 MB for 3 s
#   freeze      all bytes between half of the clients and the server stand still for 3 s
# "freeze" has a run of its own, in which half of the clients come through a proxy that is stopped: that needs neither
# rights nor modules of the kernel, as delays by tc (netem) do.
#
#   LAB_TROUBLE_CLIENTS=60  LAB_TROUBLE_INCIDENTS="terminate crash clients fast immediate stall freeze"
#   LAB_TROUBLE_PATIENCE=30            seconds for an incident to be over
#   LAB_TROUBLE_ANSWER=20              seconds after which an answer will never come; the end of a run waits for as long
#   LAB_TROUBLE_SETTINGS=              further settings of the server, separated by semicolons
#   LAB_ROUNDS, LAB_LEGS, LAB_QUICK as for all scenarios
#
# The server runs with synchronous_commit = on.  fsync stays off: it is processes that die here, not the machine, and
# what they have written is in the kernel's hands.  build/lab/trouble_timeline.csv has what happened each 100 ms.
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

clients=${LAB_TROUBLE_CLIENTS:-60}
incidents=${LAB_TROUBLE_INCIDENTS:-terminate crash clients fast immediate stall freeze}
patience=${LAB_TROUBLE_PATIENCE:-30}
# More than the 15 s that a pool in front of a server may wait before it tries one again that was away.
answer_s=${LAB_TROUBLE_ANSWER:-20}
trouble_settings=${LAB_TROUBLE_SETTINGS:-}
own_choice="direct pgbouncer sluice"
quiet_s=2
kills=5
stall_s=3
if [ "$quick" = 1 ]; then
  clients=${LAB_TROUBLE_CLIENTS:-20}
  incidents=${LAB_TROUBLE_INCIDENTS:-terminate crash freeze}
  patience=${LAB_TROUBLE_PATIENCE:-1}
  answer_s=${LAB_TROUBLE_ANSWER:-5}
  kills=2
  quiet_s=1
  stall_s=1
  # Others may wait for 15 s before they try a server again that was away.
  own_choice="direct sluice"
fi
victims=20
victims_s=2
stallers=2
timeline=$results_dir/trouble_timeline.csv
load_pid=

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

# ---- the load

# begin_load RUN PORTS: $run.outcomes, $run.samples, $run.marks in $workdir
begin_load() {
  run=$1
  : >"$workdir/$run.marks"
  query "truncate done" bench
  "$workdir/trouble_clients" --host 127.0.0.1 --ports "$2" --clients "$clients" --seconds 1000 \
    --patience "$answer_s" --outcomes "$workdir/$run.outcomes" --samples "$workdir/$run.samples" >"$workdir/$run.txt" 2>"$workdir/$run.err" &
  load_pid=$!
  extra_processes+=("$load_pid")
  sleep "$quiet_s"
  grep -q '^[^a]' "$workdir/$run.samples" 2>/dev/null || fail "the clients do not work: $(cat "$workdir/$run.err")"
}

# Operations told in the last second.
rate_now() { tail -n 10 "$workdir/$run.samples" | awk -F, '$1 + 0 > 0 { told += $2 + $3 } END { print told + 0 }'; }

# await_recovery RATE: for so long that what comes next finds things as they were, but not for ever.
await_recovery() {
  local until=$(($(now_ms) + patience * 1000))
  sleep 1
  while [ "$(now_ms)" -lt "$until" ]; do
    kill -0 "$load_pid" 2>/dev/null || fail "the clients have ended: $(cat "$workdir/$run.err")"
    if awk -v now="$(rate_now)" -v before="$1" 'BEGIN { exit !(now >= 0.9 * before) }'; then break; fi
    sleep 0.2
  done
  # This time before the next incident is what that is measured by.
  sleep "$quiet_s"
}

# forget PID: it has ended.
forget() {
  local pid remaining=()
  for pid in "${extra_processes[@]}"; do [ "$pid" = "$1" ] || remaining+=("$pid"); done
  extra_processes=("${remaining[@]}")
}

end_load() {
  kill "$load_pid"
  wait "$load_pid" || fail "trouble_clients failed: $(cat "$workdir/$run.err")"
  forget "$load_pid"
  load_pid=
  # A transaction whose client has gone may still end.
  wait_until "all transactions have ended" "select count(*) = 0 from pg_stat_activity where usename = 'bench' and
    (state <> 'idle' or backend_xid is not null)"
  query "select id from done" bench >"$workdir/$run.table"
}

# ---- incidents

# Processes that execute for our clients, or wait to do so.
a_server_process() {
  query "select pid from pg_stat_activity
         where usename = 'bench' and backend_type in ('client backend', 'pg_sluice backend')
         order by random() limit 1"
}

restart_server() {
  as_server_user "$bindir/pg_ctl" restart --pgdata="$workdir/data" --log="$workdir/server.log" --mode="$1" --wait \
    --timeout=60 --silent </dev/null >/dev/null 2>&1 || fail "the server did not restart ($1)"
}

incident_terminate() {
  for _ in $(seq "$kills"); do
    query "select pg_terminate_backend($(a_server_process))" >/dev/null
    sleep 0.2
  done
}

incident_crash() {
  local pid
  pid=$(a_server_process)
  [ -n "$pid" ] || fail "nobody serves the clients"
  kill -KILL "$pid"
}

incident_clients() {
  local pid
  "$workdir/trouble_company" victims "$victims" 127.0.0.1 "$(leg_port "$leg")" >"$workdir/victims.txt" 2>&1 &
  pid=$!
  extra_processes+=("$pid")
  sleep "$victims_s"
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null || true
  forget "$pid"
}

incident_fast() { restart_server fast; }
incident_immediate() { restart_server immediate; }

incident_stall() {
  timeout --kill-after=5 60 "$workdir/trouble_company" stall "$stallers" "$stall_s" 127.0.0.1 "$(leg_port "$leg")" \
    >"$workdir/stall.txt" 2>&1 || true
}

incident_freeze() {
  kill -STOP "$proxy_pid"
  sleep "$stall_s"
  kill -CONT "$proxy_pid"
}

cause() {
  local incident=$1 before begin
  before=$(rate_now)
  begin=$(now_ms)
  "incident_$incident"
  echo "$incident,$begin,$(now_ms)" >>"$workdir/$run.marks"
  await_recovery "$before"
  if [ "$incident" = stall ]; then
    while read -r name value; do record "$leg" "$round" stall "answers_$name" "$value"; done <"$workdir/stall.txt"
  fi
}

# ---- what has come of it

note_run() {
  local name value incident first
  while read -r name value; do record "$leg" "$round" "run_$run" "$name" "$value"; done \
    < <(perl "$lab_dir/trouble_check.pl" "$workdir/$run.outcomes" "$workdir/$run.table")
  while IFS=, read -r incident name value; do record "$leg" "$round" "$incident" "$name" "$value"; done \
    < <(perl "$lab_dir/trouble_recovery.pl" "$workdir/$run".{outcomes,samples,marks} "$quiet_s")
  # Of the timeline: leg, round, run, ms since the first sample, told, failed, or a mark.
  first=$(sed -n '2s/,.*//p' "$workdir/$run.samples")
  awk -F, -v at="$leg,$round,$run" -v first="$first" '
    FNR > 1 { printf "%s,%d,%d,%d,%d,%d,\n", at, $1 - first, $2, $3, $4, $5 }' \
    "$workdir/$run.samples" >>"$timeline"
  awk -F, -v at="$leg,$round,$run" -v first="$first" '{ printf "%s,%d,,,,,%s\n", at, $2 - first, $1 }' \
    "$workdir/$run.marks" >>"$timeline"
  say "  round $round  $leg, $run: $(perl "$lab_dir/trouble_check.pl" "$workdir/$run.outcomes" "$workdir/$run.table" |
    awk '$1 !~ /error/ && $2 > 0' | paste -s -d ' ')"
}

run_incidents() {
  local incident chosen=()
  for incident in $incidents; do [ "$incident" = freeze ] || chosen+=("$incident"); done
  [ ${#chosen[@]} -gt 0 ] || return 0
  begin_load incidents "$(leg_port "$leg")"
  for incident in "${chosen[@]}"; do cause "$incident"; done
  end_load
  note_run
}

run_freeze() {
  local proxy_port
  [[ " $incidents " == *" freeze "* ]] || return 0
  proxy_port=$(free_ports 1)
  "$workdir/trouble_company" proxy "$proxy_port" 127.0.0.1 "$(leg_port "$leg")" 2>"$workdir/proxy.err" &
  proxy_pid=$!
  extra_processes+=("$proxy_pid")
  sleep 0.2
  begin_load freeze "$(leg_port "$leg"),$proxy_port"
  cause freeze
  end_load
  kill "$proxy_pid"
  wait "$proxy_pid" 2>/dev/null || true
  forget "$proxy_pid"
  note_run
}

run_leg() {
  local round=$1 leg=$2 run proxy_pid
  start_leg "$leg" $((clients + victims + 20))
  run_incidents
  run_freeze
  stop_leg "$leg"
}

for incident in $incidents; do
  declare -F "incident_$incident" >/dev/null || { echo "there is no incident called $incident" >&2; exit 1; }
done
# That is what it is for.
crashes_expected=1
lab_open trouble "leg,round,incident,measure,value"
lab_legs $own_choice
for program in trouble_clients trouble_company; do
  g++ -std=c++17 -O2 -Wall -Wextra -Werror -pthread -o "$workdir/$program" "$lab_dir/$program.cpp" ||
    fail "$program.cpp could not be compiled"
done
echo "leg,round,run,at_ms,told_1,told_2,failed,connected,mark" >"$timeline"
settings=("synchronous_commit = on")
if [ -n "$trouble_settings" ]; then IFS=';' read -r -a more <<<"$trouble_settings"; settings+=("${more[@]}"); fi
lab_server "${settings[@]}"
# Without an index: an operation that is executed twice is to be seen, not to be refused.
query "create table done (id bigint not null, client int not null); alter table done owner to bench" bench
for round in $(seq "$rounds"); do
  for leg in $(rotated "$round"); do run_leg "$round" "$leg"; done
done
plot trouble_timeline.svg <<<"$(perl "$lab_dir/trouble_report.pl" --plot "$timeline")"
lab_report trouble_report.pl "$csv"
