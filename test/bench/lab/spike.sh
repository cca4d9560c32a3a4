#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Spike demand, after HikariCP's page of that name: a pool of a few connections is quiet, then fifty clients ask at
# once, while a new connection takes far longer than a query.  How many does each system open for it, and how long do
# its clients wait?
#
# Systems: pg_sluice, PgBouncer, pgpool-II, and pools of the Java world with real JDBC (HikariCP, DBCP2, Tomcat, c3p0),
# as far as they are here.  All execute the same query on the same server.  A backend of pg_sluice starts late by its
# own setting for tests (sluice.debug_backend_start_delay); for all others spike_proxy.cpp stands before the server and
# lets each new connection wait as long.  Their queries pass through it too: what that costs is measured and told.
#
# Nothing is sampled while the spike lasts.  Clients, server and proxy write down when what happened, by the same clock,
# and spike_run.pl says from that what the state was at any moment.
#
#   LAB_SPIKE_SYSTEMS="sluice pgbouncer pgpool pgpool_connect hikaricp dbcp2 tomcat c3p0"; not LAB_LEGS
#   LAB_SPIKE_RUNS=5                    of each system, the order rotated
#   LAB_SPIKE_CLIENTS=50  LAB_SPIKE_MIN=5  LAB_SPIKE_MAX=50
#   LAB_SPIKE_START_MS=150  LAB_SPIKE_QUERY_MS=2  LAB_SPIKE_SAMPLE_US=250
#   LAB_SPIKE_JAVA=/usr/share/java      where the libraries are
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

rounds=${LAB_SPIKE_RUNS:-$([ "$quick" = 1 ] && echo 1 || echo 5)}
clients=${LAB_SPIKE_CLIENTS:-50}
min_size=${LAB_SPIKE_MIN:-5}
pool_size=${LAB_SPIKE_MAX:-50}
start_ms=${LAB_SPIKE_START_MS:-150}
query_ms=${LAB_SPIKE_QUERY_MS:-2}
sample_us=${LAB_SPIKE_SAMPLE_US:-250}
java_dir=${LAB_SPIKE_JAVA:-/usr/share/java}
samples=$results_dir/spike_samples.csv
seconds=1
watch_ms=$((seconds * 1000))
rehearsal_seconds=$([ "$quick" = 1 ] && echo 1 || echo 3)
java_pools="hikaricp dbcp2 tomcat c3p0"

sleeping() {
  echo "select extract(epoch from clock_timestamp()) as began, pg_backend_pid() as backend," \
    "pg_sleep($1 / 1000.0) as slept, extract(epoch from clock_timestamp()) as ended"
}

# ---- the delaying proxy

proxy_pid=
proxy_port=
connections=

# A new one for each run: its book has the connections of that run.
start_proxy() {
  connections=$workdir/connections.csv
  rm -f "$workdir/proxy.port"
  "$workdir/spike_proxy" --delay-ms "$start_ms" --host "$workdir" --port "$port" --log "$connections" \
    >"$workdir/proxy.port" 2>"$workdir/proxy.log" &
  proxy_pid=$!
  extra_processes=("$proxy_pid")
  for _ in $(seq 100); do
    proxy_port=$(cat "$workdir/proxy.port")
    [ -z "$proxy_port" ] || return 0
    sleep 0.05
  done
  fail "the proxy did not start: $(cat "$workdir/proxy.log")"
}

stop_proxy() {
  kill "$proxy_pid"
  wait "$proxy_pid" 2>/dev/null || true
  extra_processes=()
}

# one_query PORT: how long a query takes that does nothing, in microseconds.
one_query() {
  echo "select 1;" >"$workdir/one.sql"
  "$bindir/pgbench" -n -c 1 -t 2000 -f "$workdir/one.sql" -h 127.0.0.1 -p "$1" -U bench bench 2>/dev/null |
    awk '/^latency average = / { printf "%.0f\n", $4 * 1000 }'
}

# ---- the systems

# PgBouncer and pgpool-II as everywhere in the lab, but behind the proxy, and with as many connections as the others.
rename_function() { eval "$2() $(declare -f "$1" | tail -n +2)"; }
rename_function pgbouncer_settings pgbouncer_usual_settings
rename_function pgpool_settings pgpool_usual_settings
rename_function leg_name usual_leg_name
pgbouncer_settings() {
  pgbouncer_usual_settings | sed "s/^bench = .*/bench = host=127.0.0.1 port=$proxy_port dbname=bench/"
  echo "min_pool_size = $min_size"
}
pgpool_settings() {
  pgpool_usual_settings | sed "s/^backend_hostname0 = .*/backend_hostname0 = '127.0.0.1'/
    s/^backend_port0 = .*/backend_port0 = $proxy_port/"
}

# pgpool-II opens a server connection for each client that connects.  Clients that are connected before the spike have
# theirs already; so there is one more system, in which each client connects in the spike and leaves after its query.
pgpool_connect_find() { pgpool_find; }
pgpool_connect_start() { pgpool_start "$1"; pgpool_connect_port=$pgpool_port; }
pgpool_connect_stop() { pgpool_stop; }
pgpool_connect_version() { echo "pgpool-II again"; }
pgpool_connect_configuration() {
  echo "the same; clients do not stay, but connect in the spike. Its processes are there before," \
    "and $min_size of them have been connected to the server."
}

leg_name() {
  case $1 in
    pgpool_connect) echo "pgpool-II (connecting)" ;;
    hikaricp) echo HikariCP ;;
    dbcp2) echo DBCP2 ;;
    tomcat) echo "Tomcat JDBC" ;;
    c3p0) echo c3p0 ;;
    *) usual_leg_name "$1" ;;
  esac
}

is_java() { [[ " $java_pools " == *" $1 "* ]]; }

java_ready=
class_path=

# The program names all four pools: without one of them it cannot be compiled, and all are left out.
find_java() {
  local name
  [ -z "$java_ready" ] || { [ "$java_ready" = yes ] || echo "$java_ready"; [ "$java_ready" = yes ]; return; }
  "$root/test/tools/install_packages.sh" default-jdk-headless libhikaricp-java libcommons-dbcp2-java libtomcat9-java \
    libc3p0-java libpostgresql-jdbc-java libslf4j-java libcommons-logging-java >&2 || true
  class_path=$workdir/java
  for name in HikariCP commons-dbcp2 commons-pool2 tomcat9-jdbc tomcat9-juli c3p0 postgresql slf4j-api slf4j-nop \
    commons-logging; do
    if [ -z "$java_ready" ] && [ ! -e "$java_dir/$name.jar" ]; then java_ready="there is no $java_dir/$name.jar"; fi
    class_path+=:$java_dir/$name.jar
  done
  if ! command -v java >/dev/null || ! command -v javac >/dev/null; then java_ready="there is no Java"; fi
  if [ -z "$java_ready" ]; then
    mkdir -p "$workdir/java"
    if javac -cp "$class_path" -d "$workdir/java" "$lab_dir/SpikeDemand.java" >"$workdir/javac.txt" 2>&1; then
      java_ready=yes
    else
      cat "$workdir/javac.txt" >&2
      java_ready="SpikeDemand.java could not be compiled"
    fi
  fi
  find_java
}

# jar_version NAME: as its file, or the one that a link to it has, is called.
jar_version() {
  ls "$java_dir" | sed -n "s/^$1-\([0-9][0-9.]*\)\.jar$/\1/p" | head -n 1
}
java_configuration() {
  echo "$1; all else by default; JDBC driver $(jar_version postgresql) on $(java --version | head -n 1)," \
    "rehearsal of $rehearsal_seconds s on a pool of its own"
}

hikaricp_find() { find_java; }
dbcp2_find() { find_java; }
tomcat_find() { find_java; }
c3p0_find() { find_java; }
hikaricp_version() { echo "$(leg_name hikaricp) $(jar_version HikariCP)"; }
dbcp2_version() { echo "$(leg_name dbcp2) $(jar_version commons-dbcp2)"; }
tomcat_version() { echo "$(leg_name tomcat) $(jar_version tomcat9-jdbc)"; }
c3p0_version() { echo "$(leg_name c3p0) $(jar_version c3p0)"; }
hikaricp_configuration() { java_configuration "minimumIdle = $min_size; maximumPoolSize = $pool_size"; }
dbcp2_configuration() { java_configuration "initialSize = minIdle = $min_size; maxTotal = maxIdle = $pool_size"; }
tomcat_configuration() { java_configuration "initialSize = minIdle = $min_size; maxActive = maxIdle = $pool_size"; }
c3p0_configuration() { java_configuration "initialPoolSize = minPoolSize = $min_size; maxPoolSize = $pool_size"; }

# ---- one run

# Ends when there have been enough connections, and no change of them, for half a second.
quiet_proxy_command() {
  cat <<END
seen=0; before=
for _ in \$(seq 300); do
  now=\$(awk -F, '
    \$3 == "opened" { n++ } \$3 == "ready" { ready++ } \$3 == "closed" { n-- }
    END { print n + 0 "|" ready + 0 }' '$connections')
  if [ "\$now" = "\$before" ] && [ "\${now%|*}" -ge $min_size ] && [ "\${now#*|}" -ge $min_size ]; then
    seen=\$((seen + 1))
  else
    seen=0
  fi
  before=\$now
  [ \$seen -lt 5 ] || exit 0
  sleep 0.1
done
echo "not at rest with $min_size connections, but (open|ready) \$now" >&2
exit 1
END
}

pool_query() { echo "'$bindir/psql' -X -q -A -t -F , -h '$workdir' -p $port -U postgres -d bench"; }

quiet_pool_command() {
  cat <<END
seen=0
for _ in \$(seq 300); do
  now=\$($(pool_query) -c "select coalesce(sum(total), 0), coalesce(sum(idle), 0) from sluice.pools")
  if [ "\$now" = "$min_size,$min_size" ]; then seen=\$((seen + 1)); else seen=0; fi
  [ \$seen -lt 5 ] || exit 0
  sleep 0.1
done
echo "the pool did not come to rest at $min_size idle backends, but at (total,idle) \$now" >&2
exit 1
END
}

# The pool's own book: its events, from the first of this run on, written as the proxy does it.
pool_events_command() {
  cat <<END
{ echo at_us,connection,event
  $(pool_query) <<SQL
with started as (
  select e.number, e.at, b.started_at from sluice.events e left join sluice.backends b on b.pid = e.backend_pid
  where e.kind = 'backend_started' and e.number > $first_event)
select (extract(epoch from coalesce(started_at, at)) * 1e6)::bigint, number, 'opened' from started
union all
select (extract(epoch from at) * 1e6)::bigint, number, 'ready' from started
union all
select (extract(epoch from e.at) * 1e6)::bigint, s.number, 'closed'
from sluice.events e
  join sluice.events s on s.backend_pid = e.backend_pid and s.kind = 'backend_started' and s.number > $first_event
where e.kind = 'backend_retired' and e.number > $first_event
SQL
} >'$connections' &&
$(pool_query) -c "select string_agg(n || ' ' || reason, '; ') from (
  select reason, count(*) n, min(number) first from sluice.events
  where kind = 'backend_started' and number > $first_event group by reason order by first) r" >'$workdir/note.txt'
END
}

# spike_clients PORT BEFORE AFTER option...
spike_clients() {
  local to_port=$1 before=$2 after=$3
  shift 3
  timeout --kill-after=5 90 "$workdir/spike_clients" --host 127.0.0.1 --port "$to_port" --database bench --user bench \
    --clients "$clients" --query "$(sleeping "$query_ms")" --requests "$workdir/requests.csv" \
    --warm-query "$(sleeping 50)" --warm-clients "$min_size" \
    --before "$before" --after "$after" --watch-ms $watch_ms "$@" 2>"$workdir/clients.log"
}

spike_java() {
  timeout --kill-after=5 120 java -cp "$class_path" SpikeDemand "$1" --port "$proxy_port" --database bench \
    --user bench --clients "$clients" --min "$min_size" --max "$pool_size" \
    --query "$(sleeping "$query_ms")" --requests "$workdir/requests.csv" \
    --warm-query "$(sleeping 50)" --rehearsal-seconds "$rehearsal_seconds" \
    --before "$2" --after "$3" --watch-ms $watch_ms >"$workdir/note.txt" 2>"$workdir/clients.log"
}

first_event=0
run_sluice() {
  connections=$workdir/connections.csv
  # The backends of the run before, and of the start: each run begins with none.
  query "select sluice.retire_backends()" bench >/dev/null
  wait_until "the pool is empty" "select coalesce(sum(total), 0) = 0 from sluice.pools"
  first_event=$(query "select coalesce(max(number), 0) from sluice.events" bench)
  spike_clients "$pool_port" "$(quiet_pool_command)" "$(pool_events_command)"
}

# Two of its systems need more than others to begin with.
run_peer() {
  local leg=$1 status=0 options=()
  start_proxy
  if [ "$leg" = pgpool_connect ]; then options=(--connect --warm-rounds 1); fi
  if is_java "$leg"; then
    spike_java "$leg" "$(quiet_proxy_command)" "" || status=$?
  else
    start_leg "$leg" "$clients"
    spike_clients "$(leg_port "$leg")" "$(quiet_proxy_command)" "cp '$connections' '$workdir/connections.seen'" \
      "${options[@]}" || status=$?
    stop_leg "$leg"
    # Without what the leg's own end has closed.
    [ ! -e "$workdir/connections.seen" ] || mv "$workdir/connections.seen" "$connections"
  fi
  stop_proxy
  return "$status"
}

run_one() {
  local leg=$1 run=$2 status=0 line
  rm -f "$workdir/requests.csv" "$workdir/connections.seen"
  : >"$workdir/note.txt"
  if [ "$leg" = sluice ]; then run_sluice || status=$?; else run_peer "$leg" || status=$?; fi
  # Requests that failed are part of the result.
  [ "$status" = 0 ] || [ "$status" = 2 ] ||
    fail "$(leg_name "$leg"), run $run, ended with status $status: $(tail -n 3 "$workdir/clients.log")"
  line=$(perl "$lab_dir/spike_run.pl" --system "$(leg_name "$leg")" --run "$run" --requests "$workdir/requests.csv" \
    --connections "$connections" --end-ms $watch_ms --step-us "$sample_us" --samples "$samples" \
    --note "$(head -n 1 "$workdir/note.txt")") || fail "spike_run.pl has failed"
  echo "$line" >>"$csv"
  say "$(awk -F, '{
    printf "  run %d  %-22s %2d connections before, %2d opened, %2d at the end; ", $2, $1, $9, $10, $11
    printf "served: first %s, median %s, last %s ms; %d failed", $6, $7, $8, $5 }' <<<"$line")"
}

# ---- plots

# The run of a system that was in the middle, by its last answer.
middle_run() {
  awk -F, -v name="$1" '$1 == name { print $8, $2 }' "$csv" | sort -g |
    awk '{ run[NR] = $2 } END { print run[int((NR + 1) / 2)] }'
}

plot_system() {
  local leg=$1 name run data=$workdir/samples_$1.csv
  name=$(leg_name "$leg")
  run=$(middle_run "$name")
  awk -F, -v name="$name" -v run="$run" 'NR == 1 || ($1 == name && $2 == run)' "$samples" >"$data"
  plot "spike_$leg.svg" <<END
set title "$name: $clients clients at once, run $run of $rounds (the middle one)"
set xlabel 'ms from the first request on'
set xrange [-10:300]
set ylabel 'clients, connections'
set yrange [0:$((clients > pool_size ? clients + 4 : pool_size + 4))]
plot '$data' using 3:4 skip 1 with steps linewidth 2 linecolor '#d62728' title 'queued', \
  '' using 3:5 skip 1 with steps linewidth 2 linecolor '#2ca02c' title 'active', \
  '' using 3:6 skip 1 with steps linewidth 1 linecolor '#1f77b4' title 'idle', \
  '' using 3:7 skip 1 with steps linewidth 1 dashtype 2 linecolor '#ff7f0e' title 'starting', \
  '' using 3:8 skip 1 with steps linewidth 2 linecolor '#555555' title 'total'
END
}

plot_all() {
  local leg style commands queued= total=
  for leg in "${legs[@]}"; do
    style="skip 1 with steps linewidth 2 title \"$(leg_name "$leg")\""
    queued+="${queued:+, }'$workdir/samples_$leg.csv' using 3:4 $style"
    total+="${total:+, }'$workdir/samples_$leg.csv' using 3:8 $style"
  done
  commands="set xrange [-10:300]
set multiplot layout 2,1 title \"$clients clients at once: middle run of each system\"
set yrange [0:*]
set ylabel 'clients queued'
plot $queued
set xlabel 'ms from the first request on'
set ylabel 'connections open'
plot $total
unset multiplot"
  plot spike.svg <<<"$commands"
}

# ---- all

columns=system,run,clients,served,failed,first_ms,median_ms,last_ms,before,opened,at_end,peak_queued,peak_active
lab_open spike "$columns,backends,longest_query_ms,note"
echo "system,run,at_ms,queued,active,idle,starting,total" >"$samples"
for program in spike_proxy spike_clients; do
  g++ -std=c++17 -O2 -Wall -Wextra -Werror -o "$workdir/$program" "$lab_dir/$program.cpp" ||
    fail "$program.cpp could not be compiled"
done
if [ "$quick" = 1 ]; then
  LAB_LEGS=${LAB_SPIKE_SYSTEMS:-sluice pgbouncer pgpool_connect hikaricp}
else
  LAB_LEGS=${LAB_SPIKE_SYSTEMS:-sluice pgbouncer pgpool pgpool_connect $java_pools}
fi
lab_legs
lab_server "sluice.min_pool_size = $min_size" "sluice.max_pool_size = $pool_size" \
  "sluice.debug_backend_start_delay = '${start_ms}ms'"

start_proxy
proxy_cost_us=$(($(one_query "$proxy_port") - $(one_query "$port")))
stop_proxy

for run in $(seq "$rounds"); do
  for leg in $(rotated "$run"); do run_one "$leg" "$run"; done
done
for leg in "${legs[@]}"; do plot_system "$leg"; done
plot_all
lab_report spike_report.pl "$csv" "$min_size" "$pool_size" "$start_ms" "$query_ms" "$proxy_cost_us"
