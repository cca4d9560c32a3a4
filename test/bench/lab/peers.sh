#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Peers: the same work on the same server, directly, through PgBouncer, pgpool-II and Odyssey, and through pg_sluice.
#
# In each round every row visits all legs, and the leg that comes first rotates from round to round, so that a machine
# whose speed drifts drifts for all of them; the report gives medians over the rounds with the least and the greatest
# value.  The pools are told the same size, and a peer reaches the server over its Unix socket, which is its best case.  A
# peer runs only while it is visited.  What a leg cannot do, and why, is in the report, and so is what has failed: neither
# ends the run, but its status is not zero if pg_sluice has failed at everything.
#
# The same size is not the same number of server connections.  That of PgBouncer and Odyssey is a limit.  pgpool-II needs
# a connection for each client that stays.  With pg_sluice it is how many backends may work: one whose client thinks
# within its transaction does not count, and another one may be started meanwhile (sluice.max_pool_size), as in the rows
# with transactions of several round trips.  So the report has the greatest number each leg really had, row by row.
#
# The chatty transaction (BEGIN, three selects, END: five round trips that hold a server connection) is measured with
# pg_sluice a second time, at the size the extension itself advises after it has seen that load (sluice.sizing).  If it
# advises none, that is reported.
#
# All TLS uses one certificate (ECDSA P-256) and one curve, and ends at the pooler: the way from there is a Unix socket.
#
#   LAB_PEERS_ROWS=REGEX               rows by name, see rows() below
#   LAB_PEERS_CLIENTS="4 8 50 500 1000 5000"   counts of clients to be measured
#   LAB_PEERS_SCALE=10                 pgbench scale
#   LAB_PEERS_LEARNING=48              seconds for the extension to see the chatty load before it is asked for a size
# and those of lab.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

wanted_rows=${LAB_PEERS_ROWS:-.}
max_connections=1200
load_grace=60
if [ "$quick" = 1 ]; then
  seconds=${LAB_SECONDS:-0.25}
  warmup=0.05
  scale=${LAB_PEERS_SCALE:-1}
  wanted_clients=${LAB_PEERS_CLIENTS:-4 8 50}
  learning=${LAB_PEERS_LEARNING:-1}
else
  seconds=${LAB_SECONDS:-3}
  warmup=1
  scale=${LAB_PEERS_SCALE:-10}
  wanted_clients=${LAB_PEERS_CLIENTS:-4 8 50 500 1000 5000}
  learning=${LAB_PEERS_LEARNING:-48}
fi

most_clients=$(printf '%s\n' $wanted_clients | sort -n | tail -n 1)

# name | what | unit | units per transaction | clients | socket | script and options | targets: clients or *, at which
# the pool must have so many times the best peer's value; "advised" is against direct
rows() {
  local prepared_at="4 50 500 1000 5000" unix_at=8
  if [ "$quick" = 1 ]; then prepared_at=50 unix_at=; fi
  cat <<END
select|select, simple protocol|per s|1|4 50 500 1000 5000|tcp|select|500:1.8 1000:1.8
prepared|select, prepared|per s|1|$prepared_at|tcp|select --protocol prepared|500:3 1000:3
tpcb|TPC-B-like|per s|1|50 500 1000|tcp|tpcb|*:1.3
chatty|BEGIN, 3 selects, END|per s|1|50 500 1000|tcp|chatty|*:1.5 advised:0.95
large|large results (10 MB each)|MB/s|10|4|tcp|large|*:3
copy_out|COPY TO STDOUT (10 MB each)|MB/s|10|4|tcp|copy_out|
copy_in|COPY FROM STDIN (1 MB each)|MB/s|1|4|tcp|copy_in|
connect_tcp|connect + select, TCP|per s|1|8|tcp|select --reconnect|*:1
connect_unix|connect + select, Unix socket|per s|1|$unix_at|unix|select --reconnect|*:1
tls_select|select, simple protocol, TLS|per s|1|50 500|tls|select|
tls_connect|connect + select, TLS|per s|1|8|tls|select --reconnect|
END
}

write_scripts() {
  cat >"$workdir/select.sql" <<'END'
\set aid random(1, 100000 * :scale)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
END
  cat >"$workdir/tpcb.sql" <<'END'
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
END
  cp "$bench_dir/transaction.sql" "$workdir/chatty.sql"
  cp "$bench_dir/large.sql" "$workdir/large.sql"
  echo "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000)) TO STDOUT;" >"$workdir/copy_out.sql"
  # Every row is read and thrown away, so that the table is not what is measured.
  printf '%s\n' "COPY lab_sink FROM STDIN WHERE false;" '\copyin 1000 1000' >"$workdir/copy_in.sql"
}

# ---- what a leg cannot do

# why_not LEG CLIENTS SOCKET OPTIONS: nothing if it can.
why_not() {
  local leg=$1 clients=$2 way="$3 $4" what
  case $leg in
    direct | pgpool)
      if [ "$clients" -ge "$max_connections" ]; then
        echo "needs a server connection for each of $clients clients, max_connections is $max_connections"
        return
      fi ;;
    advised) return ;;
  esac
  for what in prepared tls unix; do
    if [[ $way == *$what* ]]; then leg_can "$leg" "$what" || return 0; fi
  done
}

# ---- the advised size

advised=
pool="database = 'bench' and role = 'bench'"

# set_size SIZE
set_size() {
  configure "sluice.max_pool_size = $1"
  query "select sluice.retire_backends('bench', 'bench')" bench >/dev/null
  pooled "select 1" >/dev/null
  wait_until "the pool's size is $1" "select max_size = $1 from sluice.pools where $pool"
}

# Why there is no advised size: it could not be learned, which is a failure, or there is no advice.
learning_failed=
no_advice=

# Lets the extension see the chatty load at many levels of concurrency, and asks it.
learn_size() {
  local size sizes=(1 2 3 4 5 6 8 10 12 16 24 32) each
  say "  pg_sluice learns the chatty load for $learning s"
  query "select sluice.reset_statistics()" bench >/dev/null
  each=$(awk -v all="$learning" -v n=${#sizes[@]} 'BEGIN { print all / n }')
  for size in "${sizes[@]}"; do
    set_size "$size"
    if ! try_load sluice --clients 50 --seconds "$each" --script "$workdir/chatty.sql" -D "scale=$scale"; then
      learning_failed="pg_sluice could not be shown the load: $load_reason"
      say "  $learning_failed"
      set_size "$pool_size"
      return
    fi
  done
  advised=$(query "select size from sluice.sizing where $pool and advised" bench)
  query "select format('- %s: %s%s; %s', rule, coalesce(size::text, 'no size'),
                       case when advised then ', advised' else '' end, note)
         from sluice.sizing where $pool and (advised or rule = 'measured knee') order by advised desc" bench \
    >"$workdir/advice.txt"
  set_size "$pool_size"
  if [ -z "$advised" ]; then no_advice="sluice.sizing advises no size after $learning s of this load"; fi
  say "  advised size: ${advised:-none}"
  record advised sluice "" "" "" "$advised" "" "" "" "" "" "" "$no_advice"
}

# ---- visits

in_ms() { awk -v us="${1:-}" 'BEGIN { if (us != "") printf "%.3f", us / 1000 }'; }

# per_transaction RATE PER_SECOND
per_transaction() { awk -v t="$1" -v us="${2:-}" 'BEGIN { if (t > 0 && us != "") printf "%.1f", us / t }'; }

# What each peer that runs was started for.
declare -A running=()

enter_leg() {
  local leg=$1 clients=$2
  if [ "$leg" = advised ]; then
    set_size "$advised"
    return
  fi
  is_peer "$leg" || return 0
  if [ "$quick" = 1 ]; then clients=$most_clients; fi
  [ "${running[$leg]:-}" != "$clients $lab_tls" ] || return 0
  if [ -n "${running[$leg]:-}" ]; then stop_leg "$leg"; fi
  running[$leg]=
  if ! try_start_leg "$leg" "$clients"; then
    stop_leg "$leg"
    return 1
  fi
  running[$leg]="$clients $lab_tls"
}

# A quick run leaves them running, and starts them for as many clients as any row has: to start them takes longer than to
# measure them.
leave_leg() {
  local leg=$1
  if [ "$leg" = advised ]; then
    set_size "$pool_size"
  elif is_peer "$leg" && [ "$quick" != 1 ]; then
    stop_leg "$leg"
    running[$leg]=
  fi
}

# A process that has served nobody yet is slow at first, and these two have one for each client.
warmup_of() {
  case $1 in
    direct | pgpool) if [ "$2" -ge 500 ]; then echo 3; else echo "$warmup"; fi ;;
    *) echo "$warmup" ;;
  esac
}

# failed NAME LEG ROUND CLIENTS REASON
failed() {
  record "$1" "$2" "$3" "$4" "" "" "" "" "" "" "" "" "$(tr ',\n' '; ' <<<"$5" | sed 's/ *;* *$//')"
  say "  $1, $4 clients, $(leg_name "$2"): $5"
}

# visit NAME LEG ROUND CLIENTS UNIT UNITS SCRIPT options...
visit() {
  local name=$1 leg=$2 round=$3 clients=$4 unit=$5 units=$6 script=$7 per_s value through=$2 p99
  shift 7
  if [ "$leg" = advised ]; then through=sluice; fi
  [ "$quick" = 1 ] || settle
  note_other_backends "$through"
  enter_leg "$leg" "$clients" || { failed "$name" "$leg" "$round" "$clients" "$leg_reason"; return 0; }
  [ "$name" != tpcb ] || tidy_pgbench_tables
  if watched_load "$through" "$seconds" --clients "$clients" --warmup "$(warmup_of "$leg" "$clients")" --drain 20 \
    --script "$workdir/$script.sql" -D "scale=$scale" "$@"; then
    per_s=$(load_value summary throughput_per_s)
    if [ "$(awk -v t="$per_s" 'BEGIN { print t > 0 }')" = 0 ]; then
      failed "$name" "$leg" "$round" "$clients" "no request was answered within $seconds s"
      leave_leg "$leg"
      return
    fi
    value=$(awk -v t="$per_s" -v units="$units" 'BEGIN { printf "%.1f", t * units }')
    p99=$(in_ms "$(load_value latency p99_us)")
    record "$name" "$leg" "$round" "$clients" "$unit" "$value" "$(in_ms "$(load_value latency p50_us)")" \
      "$(in_ms "$(load_value latency p95_us)")" "$p99" "$(per_transaction "$per_s" "$machine_us_per_s")" \
      "$(per_transaction "$per_s" "$pooler_us_per_s")" "$server_connections" ""
    say "$(printf '  round %d  %-12s %5d  %-10s %10.1f %-6s p99 %9.2f ms' "$round" "$name" "$clients" "$leg" "$value" \
      "$unit" "$p99")"
  else
    failed "$name" "$leg" "$round" "$clients" "$load_reason"
  fi
  leave_leg "$leg"
}

# visit_row ROUND NAME UNIT UNITS CLIENTS SOCKET SCRIPT options...
visit_row() {
  local round=$1 name=$2 unit=$3 units=$4 clients=$5 socket=$6 script=$7 leg reason load_host=127.0.0.1
  local legs=("${legs[@]}")
  shift 7
  lab_tls=0
  case $socket in
    unix) load_host=unix ;;
    tls) lab_tls=1 ;;
  esac
  if [ "$name" = chatty ] && has_leg sluice; then
    [ -n "$advised$no_advice$learning_failed" ] || learn_size
    [ -n "$no_advice" ] || legs+=(advised)
  fi
  for leg in $(rotated "$round"); do
    reason=$(why_not "$leg" "$clients" "$socket" "$*")
    if [ "$leg" = advised ] && [ -n "$learning_failed" ]; then
      failed "$name" "$leg" "$round" "$clients" "$learning_failed"
    elif [ -z "$reason" ]; then
      visit "$name" "$leg" "$round" "$clients" "$unit" "$units" "$script" "$@"
    elif [ "$round" = 1 ]; then
      failed "$name" "$leg" "$round" "$clients" "$reason"
    fi
  done
}

run_rows() {
  local round name unit units all_clients clients socket script
  for round in $(seq "$rounds"); do
    while IFS='|' read -r name _ unit units all_clients socket script _ <&4; do
      [[ $name =~ $wanted_rows ]] || continue
      for clients in $all_clients; do
        [[ " $wanted_clients " == *" $clients "* ]] || continue
        # shellcheck disable=SC2086  # the script's name and options
        visit_row "$round" "$name" "$unit" "$units" "$clients" "$socket" $script
      done
    done 4< <(rows)
  done
}

# ---- plots

# plot_row NAME TITLE: throughput and p99 over the number of clients
plot_row() {
  local what=$1 title=$2 leg lines columns label file scale_y
  for file in throughput p99; do
    columns=4:5:6 label="transactions per second" scale_y="set yrange [0:*]" lines=
    if [ "$file" = p99 ]; then columns=7:8:9 label="p99 in ms" scale_y="set logscale y"; fi
    for leg in "${legs[@]}"; do
      grep -q "^$what,$leg," "$results_dir/peers_medians.csv" || continue
      lines+="${lines:+, }'< grep ^$what,$leg, $results_dir/peers_medians.csv' using 3:$columns with yerrorlines"
      lines+=" linewidth 2 pointtype 7 pointsize 0.6 linecolor rgb color_$leg title '$(leg_name "$leg")'"
    done
    [ -n "$lines" ] || continue
    plot "peers_${what}_$file.svg" <<END
set title '$title: medians of $rounds rounds, with the least and the greatest'
set xlabel 'clients'
set ylabel '$label'
set logscale x
set xtics (4, 50, 500, 1000, 5000)
set xrange [3:7000]
$scale_y
plot $lines
END
  done
}

lab_open peers \
  "row,leg,round,clients,unit,value,p50_ms,p95_ms,p99_ms,machine_us,pooler_us,server_connections,reason"
lab_legs
write_scripts
lab_certificate ecdsa
# The server offers TLS always; clients that do not want it do not pay for it.
lab_tls=1
lab_server "sluice.max_pool_size = $pool_size" "max_connections = $max_connections"
lab_tls=0
lab_tables "$scale"
query "create table lab_sink (line text); alter table lab_sink owner to bench" bench
run_rows
for leg in "${!running[@]}"; do if [ -n "${running[$leg]}" ]; then stop_leg "$leg"; fi; done

rows >"$workdir/rows.txt"
lab_tls=1
lab_report peers_report.pl "$workdir/rows.txt" "$csv" "$results_dir/peers_medians.csv"
if [ -s "$workdir/advice.txt" ]; then
  { echo; echo "What sluice.sizing said of the chatty load:"; echo; cat "$workdir/advice.txt"; } | tee -a "$results_dir/peers.md"
fi
plot_row select "Select, simple protocol"
plot_row prepared "Select, prepared"
