#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# What strangers cost those who work: the throughput of some clients through the pool, alone and beside a crowd that
# holds connections without getting anywhere, or beside floods of connections that come and go (hostile_clients.cpp).
#
# In each round every kind of company has its turn, in an order that changes from round to round; the report gives the
# median of the ratios to the turn without company in the same round.
#
#   BENCH_ROUNDS=5 BENCH_SECONDS=10      rounds (odd, at least 3), seconds per turn
#   BENCH_CLIENTS=50                     clients that work
#   BENCH_CROWD=10000                    connections of the crowd
#   BENCH_COMPANY="alone crowd silent_flood login_flood"
#   BENCH_OVER="tcp unix"                how those who work reach the pool
#   BENCH_POOL_SIZE, BENCH_SCALE         as in run.sh
#
# The report goes to standard output (Markdown), progress to standard error; each measurement is a line of
# build/bench/hostile.csv.  A missed target is reported, not an error.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Root may raise the limit for itself and for the server; throwaway_server.sh takes all there is.
ulimit -Hn 65536 2>/dev/null || true
source "$here/measuring.sh"

rounds=${BENCH_ROUNDS:-5}
seconds=${BENCH_SECONDS:-10}
clients=${BENCH_CLIENTS:-50}
crowd=${BENCH_CROWD:-10000}
companies=${BENCH_COMPANY:-alone crowd silent_flood login_flood}
ways=${BENCH_OVER:-tcp unix}
pool_size=${BENCH_POOL_SIZE:-$(($(nproc) * 2 + 1))}
scale=${BENCH_SCALE:-10}
target=0.95
csv=$results_dir/hostile.csv
company_pid=

# ---- the server

# Without limits of one's own in the way: what is measured is the crowd, not its refusal.
prepare_server() {
  server_init
  printf 'local all stranger scram-sha-256\nhost all stranger 127.0.0.1/32 scram-sha-256\n' >"$workdir/rules"
  cat "$workdir/data/pg_hba.conf" >>"$workdir/rules"
  cat "$workdir/rules" >"$workdir/data/pg_hba.conf"
  {
    server_settings
    extension_settings
    cat <<END
sluice.max_clients = $((crowd + clients + 200))
sluice.max_unauthenticated_clients = $((crowd + 100))
sluice.min_pool_size = $pool_size
sluice.max_pool_size = $pool_size
END
  } | server_start
  if has_setting sluice.max_unauthenticated_per_address; then
    configure "sluice.max_unauthenticated_per_address = 0"
  fi
  create_pgbench_tables "$scale"
  query "create role stranger login password 'unknown to strangers'"
  query "create extension pg_sluice" bench
  wait_for_pool bench bench
}

describe_settings() {
  local name
  for name in max_connections authentication_timeout sluice.max_clients sluice.max_unauthenticated_clients \
    sluice.max_unauthenticated_per_address sluice.max_accept_rate sluice.max_pool_size; do
    if has_setting "$name"; then echo "$name = $(query "show $name")"; fi
  done | paste -s -d ';' | sed 's/;/; /g'
}

# ---- the company

company_begins() {
  local -a what
  case $1 in
    alone) return ;;
    crowd) what=(hold "$crowd") ;;
    silent_flood) what=(flood silent) ;;
    login_flood) what=(flood login) ;;
    *) fail "there is no company called $1" ;;
  esac
  "$workdir/hostile_clients" "${what[@]}" 127.0.0.1 "$workdir" "$pool_port" bench bench stranger \
    >"$workdir/company.txt" 2>"$workdir/company.log" &
  company_pid=$!
  extra_processes=("$company_pid")
  for _ in $(seq 1200); do
    if grep -q ready "$workdir/company.txt"; then return; fi
    kill -0 "$company_pid" 2>/dev/null || fail "hostile_clients ended: $(cat "$workdir/company.log")"
    sleep 0.1
  done
  fail "the $1 was not ready within 120 s: $(query "select s from sluice.status s" bench)"
}

# company_number FIELD: of the line it has left.
company_number() { sed -n "s/.*\<$1 \([0-9.]*\).*/\1/p" "$workdir/company.txt" | tail -n 1; }

company_ends() {
  [ -n "$company_pid" ] || return 0
  kill "$company_pid"
  wait "$company_pid" || fail "hostile_clients failed: $(cat "$workdir/company.log")"
  company_pid=
  extra_processes=()
}

# ---- a turn

# run_turn ROUND COMPANY TCP_OR_UNIX
run_turn() {
  local round=$1 company=$2 way=$3 to=127.0.0.1 before shown=
  if [ "$way" = unix ]; then to=$workdir; fi
  company_begins "$company"
  before=$(query "select dispatcher_pid from sluice.status" bench)
  pgbench_load "$company" $((seconds + 60)) "$to" "$pool_port" "$clients" -S -M simple -T "$seconds"
  if [ "$company" = crowd ]; then shown=$(query "select clients || ' clients connected' from sluice.status" bench); fi
  company_ends
  [ "$(query "select dispatcher_pid from sluice.status" bench)" = "$before" ] || fail "the dispatcher was replaced"
  record "$company" "$way" "$round" tps "$(pgbench_tps)"
  if [ "$company" != alone ]; then
    record "$company" "$way" "$round" per_second \
      "$(awk -v n="$(company_number attempts)" -v s="$(company_number seconds)" 'BEGIN { printf "%.0f", n / s }')"
    record "$company" "$way" "$round" held "$(company_number held)"
    shown="$shown $(tail -n 1 "$workdir/company.txt")"
  fi
  say "$(printf '  round %2d  %-4s %-12s %10.1f tps  %s' "$round" "$way" "$company" "$(pgbench_tps)" "$shown")"
  # The next turn is not to pay for this one's goodbyes.
  wait_until "all have left" "select clients <= 1 from sluice.status"
}

run_rounds() {
  local round company way order
  for way in $ways; do
    # Caches, and the backends.
    pgbench_load warm-up 90 "$workdir" "$pool_port" "$clients" -S -M simple -T 2
    for round in $(seq "$rounds"); do
      order=$companies
      if [ $((round % 2)) = 0 ]; then order=$(tr ' ' '\n' <<<"$companies" | tac | paste -s -d ' '); fi
      for company in $order; do run_turn "$round" "$company" "$way"; done
    done
  done
}

# ---- the report

# column COMPANY WAY MEASURE
column() { awk -F, -v c="$1" -v w="$2" -v m="$3" '$1 == c && $2 == w && $4 == m { print $5 }' "$csv"; }

# Median over the rounds of a company's rate to that without company.
ratio() {
  awk -F, -v c="$1" -v w="$2" '
    $2 == w && $4 == "tps" && $1 == "alone" { alone[$3] = $5 }
    $2 == w && $4 == "tps" && $1 == c { with[$3] = $5 }
    END { for (r in with) if (alone[r] > 0) printf "%.4f\n", with[r] / alone[r] }' "$csv" | median
}

describe_company() {
  case $1 in
    alone) echo "nobody else" ;;
    crowd) echo "$crowd silent or slow connections" ;;
    silent_flood) echo "connects that say nothing, as fast as one process can" ;;
    login_flood) echo "logins that fail (SCRAM), 50 at a time, as fast as one process can" ;;
  esac
}

report() {
  local company way per_second aim
  echo "$clients clients of pgbench through the pool (select, simple protocol), $rounds rounds of $seconds s, medians."
  echo
  describe_hardware
  "$bindir/postgres" --version
  echo "Settings: $settings; open files: $(ulimit -n)"
  echo "Command: BENCH_ROUNDS=$rounds BENCH_SECONDS=$seconds BENCH_CLIENTS=$clients BENCH_CROWD=$crowd make bench-hostile"
  echo
  echo "| working clients over | beside | tps | ratio | target | connections of strangers per second |"
  echo "|---|---|---|---|---|---|"
  for way in $ways; do
    for company in $companies; do
      per_second=$(column "$company" "$way" per_second | median)
      aim=
      if [ "$company" = crowd ]; then aim=">= $target"; fi
      printf '| %s | %s | %.0f | %.3f | %s | %s |\n' "$way" "$(describe_company "$company")" \
        "$(column "$company" "$way" tps | median)" "$(ratio "$company" "$way")" "$aim" "$per_second"
    done
  done
}

[[ " $companies " == *" alone "* ]] || companies="alone $companies"
[ "$rounds" -ge 3 ] || say "medians of $rounds rounds say little"
mkdir -p "$results_dir"
: >"$csv"
sandbox_open
require_open_files $((crowd + clients + 1000))
install_extension
g++ -std=c++17 -O2 -Wall -Wextra -Werror -o "$workdir/hostile_clients" "$here/hostile_clients.cpp" ||
  fail "hostile_clients.cpp could not be compiled"
prepare_server
settings=$(describe_settings)
run_rounds
report
