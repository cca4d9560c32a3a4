# SPDX-License-Identifier: PostgreSQL
#
# One throw-away server for a longer measurement; to be sourced, and to be used with the functions of tools/common.sh.
#
# The server listens on loopback and on a Unix socket in its own temporary directory; a trap on EXIT stops it and
# removes the directory, however the script ends.  Clients (psql, pgbench) run as the caller: the server trusts
# everybody.
#
# Use:  sandbox_open; [install_extension;] server_init; server_start <<<"settings"; ...; server_stop
# Sets $workdir, $bindir, $pg_config, $pgxs_src, $port, $pool_port; logs are $workdir/*.log.

source "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"

workdir=
extra_processes=()
# Hundreds of clients here, thousands in the server: both inherit this.
ulimit -n "$(ulimit -Hn)"

say() { printf '%s\n' "$*" >&2; }

# Ends the script: the reason first, then what the logs have to say about it.
fail() {
  say ""
  say "FAILED: $*"
  if [ -n "$workdir" ]; then explain_logs "$workdir"/*.log >&2; fi
  exit 1
}

# A process and those it has started, and so on: what runs in the background is often a shell that waits for a program.
descendants() {
  local child
  echo "$1"
  for child in $(cat "/proc/$1/task/$1/children" 2>/dev/null || pgrep -P "$1" 2>/dev/null); do
    descendants "$child"
  done
}

# Ends them from the top, so that nobody complains of what has become of the rest.  What is stopped has to go on in
# order to end.
end_processes() {
  local pid all=()
  for pid in "$@"; do
    # shellcheck disable=SC2207  # numbers
    all+=($(descendants "$pid"))
  done
  for pid in "${all[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true
  done
}

sandbox_close() {
  local status=$?
  trap '' INT TERM
  end_processes "${extra_processes[@]}"
  server_stop
  if [ -n "$workdir" ]; then rm -rf "$workdir"; fi
  exit "$status"
}

sandbox_open() {
  find_postgres
  trap sandbox_close EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  make_workdir
  read -r port pool_port <<<"$(free_ports 2)"
}

server_init() {
  as_server_user rm -rf "$workdir/data"
  as_server_user "$bindir/initdb" --pgdata="$workdir/data" --username=postgres --auth=trust --no-locale \
    --encoding=UTF8 --no-sync >"$workdir/initdb.log" 2>&1 || fail "initdb did not succeed"
  rm -f "$workdir/initdb.log"
}

# Starts the server; its further settings, one per line, are read from standard input.
server_start() {
  {
    cat <<END
port = $port
listen_addresses = '127.0.0.1'
unix_socket_directories = '$workdir'
lc_messages = 'C'
fsync = off
synchronous_commit = off
log_line_prefix = '%m [%p] %b '
END
    cat
  } >"$workdir/throwaway.conf"
  grep -q throwaway.conf "$workdir/data/postgresql.conf" ||
    echo "include '$workdir/throwaway.conf'" >>"$workdir/data/postgresql.conf"
  as_server_user "$bindir/pg_ctl" start --pgdata="$workdir/data" --log="$workdir/server.log" --wait --timeout=60 \
    --silent </dev/null >/dev/null 2>&1 || fail "the server did not start"
}

# The settings of a server that has the extension loaded.
extension_settings() {
  cat "$workdir/extension.conf"
  echo "shared_preload_libraries = 'pg_sluice'"
  echo "sluice.port = $pool_port"
}

server_stop() {
  [ -n "$workdir" ] && [ -f "$workdir/data/postmaster.pid" ] || return 0
  local mode
  for mode in fast immediate; do
    as_server_user "$bindir/pg_ctl" stop --pgdata="$workdir/data" --mode=$mode --wait --timeout=30 --silent \
      >/dev/null 2>&1 && return 0
    say "the server did not stop ($mode)"
  done
}

postmaster_pid() { head -n 1 "$workdir/data/postmaster.pid"; }

# query SQL [DATABASE]: over the direct port, as the superuser.
query() {
  "$bindir/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$workdir" -p "$port" -U postgres -d "${2:-postgres}" -c "$1"
}

# wait_for_pool DATABASE ROLE: until the pool's port answers, for the dispatcher starts after the server has declared
# itself ready.
wait_for_pool() {
  local answer
  for _ in $(seq 100); do
    answer=$(PGCONNECT_TIMEOUT=10 timeout 20 "$bindir/psql" -X -q -A -t -h "$workdir" -p "$pool_port" -U "$2" -d "$1" \
      -c 'select 1' 2>&1) && return 0
    sleep 0.1
  done
  fail "the pool does not answer on port $pool_port: $answer"
}
