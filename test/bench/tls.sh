#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The benchmark of encrypted connections: the same load on the same throw-away server, directly, through PgBouncer and
# through pg_sluice, everything over TCP with TLS and with the same certificate.
#
# Throughput, of clients that stay connected, and connections with one query each, of 8 clients at a time: that is one
# full handshake per transaction.  With an RSA certificate of 2048 bits and with an ECDSA one of P-256, because signing
# with the first is most of a handshake, and with the second little of it.
#
# The curve of the key exchange is part of the work, too, and of the round trips: a client that has guessed another one
# is asked again.  The server offers ssl_ecdh_curve alone, prime256v1 by default, while PgBouncer would take X25519,
# which libpq guesses; so PgBouncer is told to offer what the server does.  BENCH_PGBOUNCER_CURVE=auto is its default.
#
# As in run.sh the legs of a scenario are interleaved and the first leg rotates; PgBouncer has the same number of server
# connections and reaches the server over its Unix socket, without TLS.
#
#   BENCH_ROUNDS=3  BENCH_SECONDS=5      rounds, seconds per leg
#   BENCH_POOL_SIZE                      server connections of either pool (cores * 2 + 1)
#   BENCH_SCALE=10                       pgbench scale
#   BENCH_PGBOUNCER_CURVE=prime256v1     client_tls_ecdhcurve
#   BENCH_KEYS="rsa ecdsa"               kinds of certificates
#   BENCH_LEGS="direct pgbouncer sluice" BENCH_SCENARIOS=REGEX   leave something out
#   BENCH_SYSCALLS=1                     counts the dispatcher's system calls per transaction as well (needs strace, root)
#
# The report goes to standard output (Markdown), progress to standard error; each measurement is a line of
# build/bench/tls.csv.  A missed target is reported, not an error; a leg that fails is one.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/measuring.sh"

rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-5}
pool_size=${BENCH_POOL_SIZE:-$(($(nproc) * 2 + 1))}
scale=${BENCH_SCALE:-10}
read -r -a keys <<<"${BENCH_KEYS:-rsa ecdsa}"
read -r -a legs <<<"${BENCH_LEGS:-direct pgbouncer sluice}"
wanted=${BENCH_SCENARIOS:-.}
pgbouncer_curve=${BENCH_PGBOUNCER_CURVE:-prime256v1}
csv=$results_dir/tls.csv

# name | what | unit | clients | pgbench options | target: times direct | target: times PgBouncer
scenarios_of() {
  local key=$1 label=$2
  cat <<END
${key}_simple_50|select, simple protocol, $label|tps|50|-S -M simple||0.95
${key}_prepared_50|select, prepared, $label|tps|50|-S -M prepared||0.95
${key}_connect_8|connect + select, $label|handshakes/s|8|-C -S -M simple -j 8||1
END
}

label_of() {
  case $1 in
    rsa) echo "RSA 2048" ;;
    ecdsa) echo "ECDSA P-256" ;;
    *) fail "no such kind of certificate: $1" ;;
  esac
}

has_leg() { [[ " ${legs[*]} " == *" $1 "* ]]; }
pgbouncer_port=
pgbouncer_pid=
pgbouncer_prepares=0

leg_port() {
  case $1 in
    direct) echo "$port" ;;
    pgbouncer) echo "$pgbouncer_port" ;;
    sluice) echo "$pool_port" ;;
  esac
}

# ---- certificates

make_certificate() {
  local key=$1 kind=(rsa:2048)
  if [ "$key" = ecdsa ]; then kind=(ec -pkeyopt ec_paramgen_curve:prime256v1); fi
  as_server_user openssl req -x509 -newkey "${kind[@]}" -nodes -days 2 -subj /CN=127.0.0.1 \
    -keyout "$workdir/$key.key" -out "$workdir/$key.crt" >"$workdir/openssl.txt" 2>&1 ||
    fail "openssl could not make a certificate: $(tail -n 1 "$workdir/openssl.txt")"
  as_server_user chmod 600 "$workdir/$key.key"
}

# ---- the servers

# start_server KEY
start_server() {
  { server_settings
    echo "ssl = on"
    echo "ssl_cert_file = '$workdir/$1.crt'"
    echo "ssl_key_file = '$workdir/$1.key'"
    if has_leg sluice; then
      extension_settings
      echo "sluice.max_pool_size = $pool_size"
    fi
  } | server_start
  if has_leg sluice; then wait_for_pool bench bench; fi
}

pgbouncer_settings() {
  cat <<END
[databases]
bench = host=$workdir port=$port dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir = $workdir
pool_mode = transaction
default_pool_size = $pool_size
max_client_conn = 1000
auth_type = trust
auth_file = $workdir/users.txt
listen_backlog = 1024
log_connections = 0
log_disconnections = 0
log_stats = 0
ignore_startup_parameters = extra_float_digits
server_tls_sslmode = disable
client_tls_sslmode = require
client_tls_ecdhcurve = $pgbouncer_curve
client_tls_cert_file = $workdir/$1.crt
client_tls_key_file = $workdir/$1.key
END
  if [ "$pgbouncer_prepares" = 1 ]; then echo "max_prepared_statements = 1000"; fi
}

# start_pgbouncer KEY
start_pgbouncer() {
  local version attempt
  pgbouncer=$(PATH=$PATH:/usr/sbin command -v pgbouncer) || fail "pgbouncer is not installed"
  version=$("$pgbouncer" --version | sed -n 's/^PgBouncer //p')
  # PgBouncer carries prepared statements in transaction mode since 1.21.
  if [ "$(printf '1.21\n%s\n' "$version" | sort -V | head -n 1)" = 1.21 ]; then pgbouncer_prepares=1; fi
  pgbouncer_port=$(free_ports 1)
  echo '"bench" ""' >"$workdir/users.txt"
  { pgbouncer_settings "$1"
    echo "logfile = $workdir/pgbouncer.log"
    echo "pidfile = $workdir/pgbouncer.pid"
  } >"$workdir/pgbouncer.ini"
  as_server_user "$pgbouncer" -q -d "$workdir/pgbouncer.ini" >"$workdir/pgbouncer_start.log" 2>&1 ||
    fail "PgBouncer did not start"
  for attempt in $(seq 50); do
    [ -s "$workdir/pgbouncer.pid" ] && (exec 3<>"/dev/tcp/127.0.0.1/$pgbouncer_port") 2>/dev/null && break
    [ "$attempt" != 50 ] || fail "PgBouncer does not answer"
    sleep 0.1
  done
  pgbouncer_pid=$(cat "$workdir/pgbouncer.pid")
  extra_processes=("$pgbouncer_pid")
}

stop_pgbouncer() {
  kill "$pgbouncer_pid"
  extra_processes=()
  for _ in $(seq 100); do
    kill -0 "$pgbouncer_pid" 2>/dev/null || { rm -f "$workdir/pgbouncer.pid"; return 0; }
    sleep 0.1
  done
  fail "PgBouncer did not stop"
}

settle() {
  local clients
  for _ in $(seq 100); do
    sleep 0.1
    clients=$(query "select count(*) from pg_stat_activity
                     where datname = 'bench' and backend_type = 'client backend'")
    [ "$clients" -gt "$pool_size" ] || return 0
  done
  fail "the server still has clients of a leg that has ended"
}

# ---- legs

run_pgbench() {
  local leg=$1 limit=$2 clients=$3
  shift 3
  PGSSLMODE=require pgbench_load "leg $leg" "$limit" 127.0.0.1 "$(leg_port "$leg")" "$clients" "$@"
}

# encrypted LEG COMMAND
encrypted() {
  "$bindir/psql" -X -q -A -t -c "$2" "host=127.0.0.1 port=$(leg_port "$1") user=bench dbname=bench sslmode=require"
}

# What libpq itself says about a connection to this leg: nothing is measured that is not encrypted.
require_encryption() {
  local leg=$1 said
  said=$(encrypted "$leg" '\conninfo' 2>&1) || fail "leg $leg: $said"
  [[ $said == *SSL* ]] || fail "leg $leg is not encrypted: $said"
  say "  $leg: $(sed -n 's/^SSL connection //p' <<<"$said")"
}

# Processor time of everything on the server's side, PgBouncer included: on a noisy machine it says more than a rate.
server_cpu_time_us() {
  local postmaster
  postmaster=$(postmaster_pid)
  # shellcheck disable=SC2046  # numbers
  echo $(($(ended_cpu_time_us "$postmaster") + $(cpu_time_us "$postmaster" "${extra_processes[@]}" \
    $(cat "/proc/$postmaster/task/$postmaster/children"))))
}

run_leg() {
  local round=$1 leg=$2 name=$3 unit=$4 clients=$5 options=$6 value before_us cpu_us
  if [ "$leg" = pgbouncer ] && [[ $name == *prepared* ]] && [ "$pgbouncer_prepares" = 0 ]; then return; fi
  settle
  before_us=$(server_cpu_time_us)
  # shellcheck disable=SC2086  # options are words
  run_pgbench "$leg" $((seconds + 60)) "$clients" -T "$seconds" $options
  value=$(pgbench_tps)
  settle
  cpu_us=$((($(server_cpu_time_us) - before_us) / $(pgbench_transactions)))
  record "$name" "$leg" "$round" "$clients" "$unit" "$value" ""
  record "cpu_$name" "$leg" "$round" "$clients" "us per transaction" "$cpu_us" ""
  say "$(printf '  round %d  %-18s %-10s %12.1f %-12s %6d us of processor time each' "$round" "$name" "$leg" "$value" \
    "$unit" "$cpu_us")"
}

run_scenarios() {
  local key=$1 round i leg name unit clients options
  for leg in "${legs[@]}"; do
    require_encryption "$leg"
    run_pgbench "$leg" 60 20 -T 2 -S -M simple
  done
  for round in $(seq "$rounds"); do
    while IFS='|' read -r name _ unit clients options _ <&4; do
      [[ $name =~ $wanted ]] || continue
      for i in "${!legs[@]}"; do
        leg=${legs[$(((i + round - 1) % ${#legs[@]}))]}
        run_leg "$round" "$leg" "$name" "$unit" "$clients" "$options"
      done
    done 4< <(scenarios_of "$key" "$(label_of "$key")")
  done
}

# The calls of the one process that encrypts, under load; what it costs to be traced changes the rate, not their number
# for each transaction by much.
count_system_calls() {
  local leg=$1 traced=$2 transactions=400
  strace -f -c -U calls,name -o "$workdir/strace.txt" -p "$traced" >/dev/null 2>&1 &
  local tracer=$!
  sleep 1
  run_pgbench "$leg" 120 50 -t "$transactions" -S -M simple
  kill -INT "$tracer" 2>/dev/null || true
  wait "$tracer" 2>/dev/null || true
  awk -v leg="$leg" -v n=$((50 * transactions)) '
    $1 + 0 > 0 { calls[$2 == "total" ? "in all" : $2] = $1 }
    END { printf "System calls per transaction, %s:", leg
          for (name in calls) if (calls[name] / n >= 0.01) printf " %s %.2f", name, calls[name] / n
          print "" }' "$workdir/strace.txt"
}

dispatcher_pid() { query "select pid from pg_stat_activity where backend_type = 'pg_sluice dispatcher'"; }

# ---- the report

# The medians of the processor time, a line for each scenario.
report_cpu_time() {
  local name leg median separator=
  echo "Processor time of the server's side (PgBouncer included) per transaction, in us, medians:"
  echo
  while IFS='|' read -r name _; do
    for leg in "${legs[@]}"; do
      median=$(awk -F , -v name="cpu_$name" -v leg="$leg" '$1 == name && $2 == leg { print $6 }' "$csv" | median)
      [ -z "$median" ] || printf '%s' "${separator:-- $name: }$leg $median"
      [ -z "$median" ] || separator=", "
    done
    [ -z "${separator:-}" ] || echo
    separator=
  done <"$workdir/scenarios.txt"
}

describe_machine() {
  describe_hardware
  echo "Versions: $("$bindir/postgres" --version)$(has_leg pgbouncer && "$pgbouncer" --version | sed -n '1s/^/, /p')," \
    "$(openssl version | cut -d ' ' -f 1-2)."
  echo "Server: $(server_settings | paste -s -d ';' | sed 's/;/; /g'); fsync = off; synchronous_commit = off; ssl = on." \
    "pgbench scale $scale; sslmode=require."
  echo "Pool size: $pool_size server connections. $rounds rounds, $seconds s per leg, pgbench -j 2 (-j 8 where each transaction connects); medians."
  if has_leg pgbouncer; then
    echo "PgBouncer: $(pgbouncer_settings KEY | grep ' = ' | grep -vE '_file|socket_dir|_port|^bench' | paste -s -d ';' |
      sed 's/;/; /g')."
  fi
}

if has_leg pgbouncer; then "$root/test/tools/install_packages.sh" pgbouncer >&2; fi
mkdir -p "$results_dir"
echo "scenario,leg,round,clients,unit,value,p99_ms" >"$csv"

sandbox_open
if has_leg sluice; then install_extension >&2; fi
server_init
say "creating the database"
server_settings | server_start
create_pgbench_tables "$scale"
server_stop

created=
for key in "${keys[@]}"; do
  say "$(label_of "$key")"
  make_certificate "$key"
  start_server "$key"
  if has_leg sluice && [ -z "$created" ]; then query "create extension pg_sluice" bench; fi
  created=yes
  if has_leg pgbouncer; then start_pgbouncer "$key"; fi
  run_scenarios "$key"
  if has_leg sluice; then
    encrypted sluice "select 'Encryption on the pooled port, $(label_of "$key"): ' || ssl_version || ', ' || ssl_cipher || ', by the '
      || ssl_by || '.' from sluice.clients where ssl limit 1" >>"$workdir/facts.txt"
  fi
  if [ "${BENCH_SYSCALLS:-0}" = 1 ]; then
    if has_leg sluice; then count_system_calls sluice "$(dispatcher_pid)" >>"$workdir/facts.txt"; fi
    if has_leg pgbouncer; then count_system_calls pgbouncer "$pgbouncer_pid" >>"$workdir/facts.txt"; fi
  fi
  if has_leg pgbouncer; then stop_pgbouncer; fi
  server_stop
done

for key in "${keys[@]}"; do scenarios_of "$key" "$(label_of "$key")"; done |
  awk -F '|' -v OFS='|' '{ print $1, $2, $3, $4, "tcp", $5, $6, $7 }' >"$workdir/scenarios.txt"
{
  describe_machine
  echo
  perl "$here/report.pl" "$workdir/scenarios.txt" "$csv"
  echo
  report_cpu_time
  if [ -s "$workdir/facts.txt" ]; then echo; cat "$workdir/facts.txt"; fi
} | tee "$results_dir/tls.md"
