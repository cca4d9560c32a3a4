#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The idle herd: how fast thousands of clients come in, what each costs while it is idle, in user space and in the
# kernel, and what one in a hundred notices of all the others when it works.
#
# Each turn is a way to the server (leg), a number of clients, and TCP or the Unix socket, on a server that has just
# been started: nothing is there already for clients that were here before.
#   1. One in a hundred of the clients alone, working: the measure for 4.
#   2. All come in, many at a time.
#   3. All are idle; memory is compared with that before 2.
#   4. One in a hundred works as in 1, all others stay idle.
# For the pool, what the server sets aside for so many clients when it starts counts as theirs.
#
#   LAB_HERD_CLIENTS="10000 100000"    as many as the machine takes are taken, and it is said which limit binds
#   LAB_HERD_OVER="tcp unix"           unix only with the first number of clients
#   LAB_HERD_UNDER_WAY=64              clients that are being opened at a time
#   LAB_HERD_DIRECT=500                clients of the direct leg, which has a process for each
#   LAB_HERD_SETTINGS=                 further settings of the server, separated by semicolons
#   LAB_HERD_LIMIT=240                 seconds for all of them to come in
#   LAB_ROUNDS, LAB_SECONDS, LAB_LEGS, LAB_QUICK as for all scenarios
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

under_way=${LAB_HERD_UNDER_WAY:-64}
herd_settings=${LAB_HERD_SETTINGS:-}
limit=${LAB_HERD_LIMIT:-240}
if [ "$quick" = 1 ]; then
  sizes=${LAB_HERD_CLIENTS:-2000}
  ways=${LAB_HERD_OVER:-tcp}
  samples=2
  direct_limit=${LAB_HERD_DIRECT:-100}
else
  sizes=${LAB_HERD_CLIENTS:-10000 100000}
  ways=${LAB_HERD_OVER:-tcp unix}
  samples=5
  direct_limit=${LAB_HERD_DIRECT:-500}
fi
# Of one in a hundred, but not less than this, so that backends have something to do.
least_active=10
# Clients of one source address: the kernel finds a free port quickly for so many, and hardly for more than half of its
# range (ip_local_port_range).
per_source=10000
# What a client and its pooler need beside one open file for each client.
spare_files=100
# Both ends of a connection in the kernel, and the load's own end: an estimate, to stop before memory is exhausted.
bytes_per_connection=16384

# ---- how many are possible

# smaller WHY NUMBER: lowers $possible, and remembers why.
smaller() {
  if [ "$2" -lt "$possible" ]; then
    possible=$2
    binding=$1
  fi
}

# Sets possible and binding.  The server knows best how many clients its open files are enough for, and says so.
find_possible() {
  local wanted=$1 hard said memory files
  possible=$wanted
  binding="nothing: all that were wanted"
  hard=$(ulimit -Hn)
  if [ "$hard" = unlimited ]; then hard=$(cat /proc/sys/fs/nr_open); fi
  smaller "open files of a process (ulimit -Hn: $hard)" $((hard - spare_files))
  memory=$(awk '/^MemAvailable:/ { printf "%.0f", $2 * 1024 / 2 }' /proc/meminfo)
  smaller "memory (half of what is available)" $((memory / bytes_per_connection))
  files=$(awk '{ printf "%.0f", ($1 > 1e9 ? 1e9 : $1) / 2 }' /proc/sys/fs/file-max)
  smaller "files of the system (fs.file-max)" "$files"
  # It keeps less than 10000 for itself with any settings, so that often there is no need to ask.
  if has_leg sluice && [ $((wanted + 10000)) -gt "$hard" ]; then
    start_server $((wanted + 200))
    said=$(sed -n 's/.*only \([0-9]*\) of [0-9]* clients can be served.*/\1/p' "$workdir/server.log" | tail -n 1)
    if [ -n "$said" ]; then smaller "open files of the server (ulimit -Hn: $hard)" $((said - 20)); fi
  fi
  possible=$((possible / 100 * 100))
}

# ---- one turn

start_server() {
  # All backends there are from the first client on: one that starts later is not to count as memory of clients.
  local more settings=("sluice.max_clients = $1")
  settings+=("sluice.max_pool_size = $pool_size" "sluice.min_pool_size = $pool_size")
  # The log is read for this start's complaints only.
  server_stop
  keep_crashes
  [ ! -e "$workdir/server.log" ] || : >"$workdir/server.log"
  if [ -n "$herd_settings" ]; then IFS=';' read -r -a more <<<"$herd_settings"; settings+=("${more[@]}"); fi
  lab_server "${settings[@]}"
}

# herd NAME LEG WAY CLIENTS options...: its lines are in $workdir/NAME.csv
herd() {
  local name=$1 leg=$2 host=127.0.0.1 clients=$4 sources=0
  if [ "$3" = unix ]; then host=$workdir; fi
  if [ "$clients" -gt "$per_source" ]; then sources=$per_source; fi
  shift 4
  timeout --kill-after=10 $((seconds + limit + 60)) "$workdir/herd_clients" --host "$host" --port "$(leg_port "$leg")" \
    --clients "$clients" --under-way "$under_way" --per-source "$sources" --limit "$limit" "$@" \
    >"$workdir/$name.csv" 2>"$workdir/$name.txt" || fail "$clients clients, leg $leg: $(tail -n 3 "$workdir/$name.txt")"
}

# note MEASURE AT VALUE: of the turn
note() { record "$leg" "$way" "$wanted" "$clients" "$round" "$1" "$2" "$3"; }

# The command that looks at memory and processor time.
look_command() { echo "'$lab_dir/herd_memory.sh' $samples '$pooler' '$roots'"; }

# growth NAME: of what was looked at, between before.txt and after.txt
growth() {
  awk -v name="$1" '$1 == name { value[FILENAME] = $2; found++ }
    END { if (found == 2) printf "%.0f", value[ARGV[2]] - value[ARGV[1]] }' "$workdir/before.txt" "$workdir/after.txt"
}

# The line of what was active, as measures alone_... or beside_...
note_active() {
  local rate p50 p99 most
  IFS=, read -r _ _ rate p50 p99 most < <(grep '^active,' "$workdir/$2.csv")
  note "$1_tps" "$active" "$rate"
  note "$1_p50_us" "$active" "$p50"
  note "$1_p99_us" "$active" "$p99"
  note "$1_max_us" "$active" "$most"
}

note_opening() {
  local at rate p50 p99 most
  while IFS=, read -r _ at rate p50 p99 _; do
    note connect_rate "$at" "$rate"
    note connect_p50_us "$at" "$p50"
    note connect_p99_us "$at" "$p99"
  done < <(grep '^opening,' "$workdir/herd.csv")
  while IFS=, read -r _ at _ p50 p99 most; do
    note opened_p50_us "$at" "$p50"
    note opened_p99_us "$at" "$p99"
    note opened_max_us "$at" "$most"
  done < <(grep '^opened,' "$workdir/herd.csv")
  # All of them together: so many, in the sum of the steps' times.
  note opening_rate "$clients" "$(awk -F, '$1 == "opening" && $3 > 0 { time += ($2 - last) / $3; last = $2 }
    END { printf "%.0f", last / time }' "$workdir/herd.csv")"
}

note_memory() {
  local name
  for name in user kernel available; do
    note "${name}_bytes" "$clients" "$(awk -v a="$(growth $name)" -v n="$clients" 'BEGIN { printf "%.1f", a / n }')"
    note "${name}_error" "$clients" "$(awk -v n="$clients" -v name="${name}_error" '
      $1 == name { sum += $2 } END { printf "%.1f", sum / n }' "$workdir/before.txt" "$workdir/after.txt")"
  done
  # Of the kernel's caches those that have grown by 20 bytes for each client or more.
  awk -v n="$clients" '
    $1 !~ /^cache\./ { next }
    FILENAME == ARGV[1] { before[$1] = $2; next }
    ($2 - before[$1]) / n >= 20 { printf "%s %.0f\n", $1, ($2 - before[$1]) / n }' \
    "$workdir/before.txt" "$workdir/after.txt" |
    while read -r name bytes; do note "$name" "$clients" "$bytes"; done
}

run_turn() {
  local round=$1 leg=$2 way=$3 wanted=$4 clients=$5 active pooler roots step
  if [ "$leg" = direct ] && [ "$clients" -gt "$direct_limit" ]; then clients=$direct_limit; fi
  active=$((clients / 100 > least_active ? clients / 100 : least_active))
  step=$((clients / 10 < 10000 ? clients / 10 : 10000))
  start_server $((clients + 200))
  start_leg "$leg" $((clients + 200))
  pooler=$(leg_pids "$leg" | paste -s -d ' ')
  roots=$(postmaster_pid)
  if is_peer "$leg"; then roots="$roots $pooler"; fi
  # What is needed once, by whoever comes first, is there before anything is measured.
  local at_rest=()
  if [ "$leg" = sluice ]; then at_rest=(--at-rest "$(await_backends)"); fi
  herd warm "$leg" "$way" 100 --active 100 --seconds 0.3 "${at_rest[@]}"
  herd alone "$leg" "$way" "$active" --active "$active" --seconds "$seconds"
  note_active alone alone
  settle
  sleep 0.5
  # Looking costs the kernel some memory, the first time.
  "$lab_dir/herd_memory.sh" 1 "$pooler" "$roots" >/dev/null
  bash -c "$(look_command)" >"$workdir/before.txt"
  herd herd "$leg" "$way" "$clients" --step "$step" --active "$active" --seconds "$seconds" \
    --at-rest "sleep 0.5; $(look_command) >'$workdir/after.txt'"
  note_opening
  note_memory
  note connect_cpu_us "$clients" "$(awk -v a="$(growth cpu_us)" -v n="$clients" 'BEGIN { printf "%.1f", a / n }')"
  if [ "$leg" != direct ]; then
    note connect_pooler_cpu_us "$clients" \
      "$(awk -v a="$(growth pooler_cpu_us)" -v n="$clients" 'BEGIN { printf "%.1f", a / n }')"
  fi
  note_active beside herd
  say "$(printf '  round %d  %-9s %-4s %6d clients: %6.0f connects/s, %7.0f + %5.0f bytes each, %d work: %.0f/s (%.0f)' \
    "$round" "$leg" "$way" "$clients" "$(last_of opening_rate)" "$(last_of user_bytes)" "$(last_of kernel_bytes)" \
    "$active" "$(last_of beside_tps)" "$(last_of alone_tps)")"
  stop_leg "$leg"
}

last_of() { awk -F, -v name="$1" '$6 == name { value = $8 } END { print value }' "$csv"; }

# Ends, while clients are connected, when the pool has all its backends.
await_backends() {
  cat <<END
for _ in \$(seq 200); do
  [ "\$('$bindir/psql' -X -q -A -t -h '$workdir' -p $port -U postgres -d bench \\
    -c 'select coalesce(sum(idle), 0) from sluice.pools')" != $pool_size ] || break
  sleep 0.1
done
END
}

# What the server sets aside for each client when it starts: between two starts, one for hardly any clients.
measure_reserve() {
  local leg=sluice way=none wanted=$1 clients=$2 round=1 few=500 many count look values=()
  # Few clients would drown in the error.
  many=$((clients > 10000 ? clients : 10000))
  for count in "$few" "$many"; do
    start_server "$count"
    herd warm sluice tcp 100 --active 100 --seconds 0.3 --at-rest "$(await_backends)"
    look="'$lab_dir/herd_memory.sh' $samples '' $(postmaster_pid) >'$workdir/after.txt'"
    herd warm sluice tcp 10 --at-rest "$(await_backends); $look"
    values+=("$(awk '$1 == "user" { print $2 }' "$workdir/after.txt")")
  done
  note reserved_bytes "$clients" "$(awk -v a="${values[0]}" -v b="${values[1]}" -v n=$((many - few)) \
    'BEGIN { printf "%.1f", (b - a) / n }')"
  say "  the server sets $(last_of reserved_bytes) bytes aside for each client"
}

# ---- all turns

run_size() {
  local wanted=$1 ways=$2 round leg way
  find_possible "$wanted"
  say "$possible clients of $wanted; what binds: $binding"
  # Few clients tell little about each.
  [ "$possible" -ge 1000 ] || fail "only $possible clients are possible: $binding"
  record all none "$wanted" "$possible" 1 binds "$possible" "${binding//,/;}"
  if has_leg sluice; then measure_reserve "$wanted" "$possible"; fi
  for way in $ways; do
    for round in $(seq "$rounds"); do
      for leg in $(rotated "$round"); do
        if [ "$leg" = direct ] && [ "$wanted" != "${sizes%% *}" ]; then continue; fi
        if [ "$way" = unix ] && ! leg_can "$leg" unix >"$(lab_scratch)"; then continue; fi
        run_turn "$round" "$leg" "$way" "$wanted" "$possible"
      done
    done
  done
}

lab_open herd "leg,over,wanted,clients,round,measure,at,value"
lab_legs direct pgbouncer odyssey sluice
if has_leg pgpool; then
  legs_left_out+=("pgpool-II: it has a process for each client, and needs them all from the beginning")
  read -r -a legs <<<"$(tr ' ' '\n' <<<"${legs[*]}" | grep -vx pgpool | paste -s -d ' ')"
fi
g++ -std=c++17 -O2 -Wall -Wextra -Werror -o "$workdir/herd_clients" "$lab_dir/herd_clients.cpp" ||
  fail "herd_clients.cpp could not be compiled"
# Clients beyond the first come from other addresses of the loopback network.
as_server_user sed -i 's,127\.0\.0\.1/32,127.0.0.0/8,' "$workdir/data/pg_hba.conf"

over=$ways
for size in $sizes; do
  run_size "$size" "$over"
  over=${ways%% *}
done
for what in connect memory; do plot "herd_$what.svg" <<<"$(perl "$lab_dir/herd_report.pl" --plot "$what" "$csv")"; done
# The server has to run for its configuration to be told.
lab_report herd_report.pl "$csv"
