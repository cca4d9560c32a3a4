#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Shows the pool at work: builds the extension, starts a throw-away server,
# drives many pgbench clients through a pool of `cores * 2 + spindles` backends,
# and prints the views while they run and at the end.
#
#   KEEP=1             leave the server up, and say how to connect and how to stop it
#   DEMO_SECONDS=8     how long the clients run
#   DEMO_CLIENTS=500   how many they are
#   DEMO_POOL_PORT     the pool's port; a free one by default
#
# Nothing is left behind otherwise.  On any failure: the server's log lines that
# explain it, and an exit code other than zero.

source "$(dirname "$0")/common.sh"

seconds=${DEMO_SECONDS:-8}
clients=${DEMO_CLIENTS:-500}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "DEMO_SECONDS must be a number of seconds, not \"$seconds\""
[[ $clients =~ ^[1-9][0-9]*$ ]] || die "DEMO_CLIENTS must be a number of clients, not \"$clients\""

find_postgres
make_workdir
data=$workdir/data
log=$workdir/server.log
pgbench_pid=
reported=

# However it ends: no process and no file stays, and no failure goes unexplained.
leave() {
  local status=$?
  trap - EXIT INT TERM
  set +e
  if [ "$status" -ne 0 ] && [ -z "$reported" ]; then
    echo "demo.sh: failed" >&2
    explain_logs "$log" >&2
  fi
  [ -z "$pgbench_pid" ] || kill "$pgbench_pid" 2>/dev/null
  if [ -f "$data/postmaster.pid" ]; then
    as_server_user "$bindir/pg_ctl" -D "$data" -s -w -m immediate stop
  fi
  wait
  rm -rf "$workdir"
  exit "$status"
}
trap leave EXIT
trap 'reported=yes; exit 130' INT TERM

fail() {
  echo "demo.sh: $*" >&2
  explain_logs "$log" >&2
  reported=yes
  exit 1
}

# pgbench holds a socket per client.
wanted=$((clients + 100))
limit=$(ulimit -Sn)
if [ "$limit" != unlimited ] && [ "$limit" -lt "$wanted" ]; then
  ulimit -Sn "$wanted" 2>/dev/null || fail "$clients clients need $wanted open files, and the limit is $(ulimit -Hn)"
fi

install_extension

# Passwords, so that nobody else on this machine gets into the server, and because it is what one has: the pool asks
# for them as the server does, by pg_hba.conf and the catalog.
read -r port pool_port < <(free_ports 2)
pool_port=${DEMO_POOL_PORT:-$pool_port}
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
as_server_user bash -c 'umask 077; mkdir socket; echo "$1" >password; echo "*:*:*:*:$1" >pgpass' - "$password"

echo "# starting a server on port $port, with the pool on port $pool_port"
as_server_user "$bindir/initdb" -D "$data" -U postgres -A scram-sha-256 --pwfile="$workdir/password" -E UTF8 \
  --no-locale --no-sync --no-instructions >"$workdir/initdb.log" 2>&1 ||
  { log=$workdir/initdb.log; fail "initdb failed"; }
cat >>"$workdir/extension.conf" <<CONF
shared_preload_libraries = 'pg_sluice'
port = $port
listen_addresses = '127.0.0.1'
unix_socket_directories = '$workdir/socket'
fsync = off
sluice.port = $pool_port
sluice.max_pool_size = -1  # cores * 2 + spindles
CONF
as_server_user tee -a "$data/postgresql.conf" <"$workdir/extension.conf" >/dev/null
as_server_user "$bindir/pg_ctl" -D "$data" -l "$log" -s -w start 2>/dev/null || fail "the server does not start"

become_client() { # program, port, role, arguments ...
  local program=$1 client_port=$2 role=$3
  shift 3
  become_server_user env PGPASSFILE="$workdir/pgpass" PGCONNECT_TIMEOUT=10 "$bindir/$program" \
    -h 127.0.0.1 -p "$client_port" -U "$role" "$@"
}
client() {
  (become_client "$@")
}
admin_sql() {
  client psql "$port" postgres -X -q -v ON_ERROR_STOP=1 "$@"
}

admin_sql -d postgres -c "CREATE ROLE app LOGIN PASSWORD '$password'" -c "CREATE DATABASE demo OWNER app" ||
  fail "could not create the role and the database"
admin_sql -d demo -c "CREATE EXTENSION pg_sluice" || fail "could not create the extension"
client pgbench "$port" app -i -q -s 5 demo >"$workdir/pgbench_init.log" 2>&1 ||
  { cat "$workdir/pgbench_init.log" >&2; fail "pgbench could not fill its tables"; }

# The dispatcher opens its port a moment after the server's.
answer=
deadline=$((SECONDS + 10))
while [ "$SECONDS" -lt "$deadline" ]; do
  answer=$(client psql "$pool_port" app -X -A -t -d 'dbname=demo connect_timeout=5' -c 'SELECT 1' \
    2>"$workdir/answer.log") && break
  sleep 0.2
done
[ "$answer" = 1 ] || { cat "$workdir/answer.log" >&2; fail "the pool does not answer on port $pool_port"; }

show_views() {
  echo
  echo "# ---------- $1"
  admin_sql -d demo <<'SQL' || fail "a view failed"
\pset footer off
\pset null -
\pset linestyle unicode
\echo '-- sluice.pools'
SELECT database || '/' || role AS pool, total, active, idle, in_transaction AS in_xact, max_size AS max, clients,
       waiting, transactions, starts, starts_elided AS elided
  FROM sluice.pools ORDER BY 1;
SELECT database || '/' || role AS pool, waits, wait_p50_us, wait_p95_us, wait_p99_us, wait_max_us, peak_waiting
  FROM sluice.pools ORDER BY 1;
\echo '-- sluice.clients, summed up by state'
SELECT state, count(*) AS clients, sum(transactions) AS transactions, round(max(waiting_ms)) AS longest_wait_ms
  FROM sluice.clients GROUP BY state ORDER BY state;
\echo '-- sluice.backends'
SELECT pid, database, role, state, client, round(age_ms) AS age_ms, transactions FROM sluice.backends ORDER BY backend;
\echo '-- sluice.monitor'
SELECT * FROM sluice.monitor;
\echo '-- sluice.waits'
SELECT measure, count, round(mean_us) AS mean_us, p50_us, p95_us, p99_us, p9999_us, max_us FROM sluice.waits;
\echo '-- sluice.applications'
SELECT role, application_name, transactions, round(hold_ms) AS hold_ms, round(active_ms) AS active_ms,
       round(thinking_ms) AS thinking_ms FROM sluice.applications ORDER BY hold_ms DESC LIMIT 5;
\pset format wrapped
\pset columns 110
\echo '-- sluice.pressure'
SELECT resource, round(used::numeric, 2) AS used, round(maximum::numeric, 2) AS maximum, trend, verdict
  FROM sluice.pressure;
\echo '-- sluice.sizing'
SELECT rule, size, binds, advised, confidence, note FROM sluice.sizing;
\x on
\echo '-- sluice.recommendations'
SELECT * FROM sluice.recommendations;
SQL
}

echo "# $clients clients for $seconds s through port $pool_port"
(become_client pgbench "$pool_port" app -n -S -c "$clients" -j 2 -T "$seconds" -P 1 demo) &
pgbench_pid=$!
end_us=$((${EPOCHREALTIME/./} + seconds * 1000000))  # pgbench counts from here, too, and not from the last connection

# All connected, then half of the time that is left.
for _ in $(seq 300); do
  connected=$(admin_sql -A -t -d demo -c "SELECT count(*) FROM sluice.clients WHERE state <> 'authenticating'") ||
    fail "could not count the clients"
  [ "$connected" -lt "$clients" ] || break
  kill -0 "$pgbench_pid" 2>/dev/null || break
  sleep 0.1
done
middle_us=$(((${EPOCHREALTIME/./} + end_us) / 2))
while [ "${EPOCHREALTIME/./}" -lt "$middle_us" ]; do
  sleep 0.1  # in small pieces, since a signal waits for them
done
show_views "while they run"
wait "$pgbench_pid" || { pgbench_pid=; fail "pgbench failed"; }
pgbench_pid=
show_views "at the end"

if grep -aqE 'PANIC|TRAP:|terminated by signal' "$log"; then
  fail "a process of the server crashed"
fi

if [ -n "${KEEP:-}" ] && [ "${KEEP:-}" != 0 ]; then
  trap - EXIT INT TERM
  drop=
  [ "$EUID" -ne 0 ] || drop='runuser -u postgres -- '
  cat <<TEXT

# The server stays up.  Its log: $log
#   through the pool   PGPASSFILE=$workdir/pgpass $bindir/psql -h 127.0.0.1 -p $pool_port -U app demo
#   directly           PGPASSFILE=$workdir/pgpass $bindir/psql -h 127.0.0.1 -p $port -U postgres demo
#   to stop it         $drop$bindir/pg_ctl -D $data -m fast stop && rm -rf $workdir
TEXT
  exit 0
fi

as_server_user "$bindir/pg_ctl" -D "$data" -s -w -t 30 -m fast stop || fail "the server does not stop"
echo
echo "# done; nothing is left behind"
