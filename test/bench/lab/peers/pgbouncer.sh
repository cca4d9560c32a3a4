# SPDX-License-Identifier: PostgreSQL
#
# PgBouncer as a leg of the load lab, see lab.sh: the package's, or LAB_PGBOUNCER=/path/to/pgbouncer.
#
# Pooling by transaction, with as many server connections as the other pools, over the server's Unix socket.  From 1.21
# on it carries prepared statements in this mode (max_prepared_statements).

pgbouncer_port=
pgbouncer_pid=
pgbouncer_binary=
pgbouncer_clients=100

pgbouncer_find() {
  if [ -n "${LAB_PGBOUNCER:-}" ]; then
    pgbouncer_binary=$LAB_PGBOUNCER
    [ -x "$pgbouncer_binary" ] || { echo "there is no LAB_PGBOUNCER=$pgbouncer_binary"; return 1; }
  else
    "$root/test/tools/install_packages.sh" pgbouncer >&2 || true
    pgbouncer_binary=$(PATH=$PATH:/usr/sbin command -v pgbouncer) || { echo "not installed"; return 1; }
  fi
  pgbouncer_version >/dev/null || { echo "$pgbouncer_binary does not run"; return 1; }
}

pgbouncer_version() { "$pgbouncer_binary" --version | sed -n '1p' | grep .; }

pgbouncer_prepares() {
  local version
  version=$(pgbouncer_version | sed 's/^PgBouncer //')
  [ "$(printf '1.21\n%s\n' "$version" | sort -V | head -n 1)" = 1.21 ]
}

pgbouncer_can() {
  if [ "$1" = prepared ] && ! pgbouncer_prepares; then
    echo "$(pgbouncer_version) does not carry prepared statements in transaction mode"
    return 1
  fi
}

pgbouncer_settings() {
  cat <<CONFIGURATION
[databases]
bench = host=$workdir port=$port dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir = $workdir
pool_mode = transaction
default_pool_size = $pool_size
max_client_conn = $((pgbouncer_clients + 100))
auth_type = trust
auth_file = $workdir/users.txt
logfile = $workdir/pgbouncer.log
listen_backlog = 1024
log_connections = 0
log_disconnections = 0
log_stats = 0
ignore_startup_parameters = extra_float_digits
server_tls_sslmode = disable
CONFIGURATION
  if pgbouncer_prepares; then echo "max_prepared_statements = 1000"; fi
  if [ "$lab_tls" = 1 ]; then
    # The server's curve: the same work for all.
    cat <<CONFIGURATION
client_tls_sslmode = require
client_tls_ecdhcurve = $tls_curve
client_tls_cert_file = $tls_certificate
client_tls_key_file = $tls_key
CONFIGURATION
  fi
}

pgbouncer_start() {
  pgbouncer_clients=$1
  pgbouncer_port=$(free_ports 1)
  echo '"bench" ""' >"$workdir/users.txt"
  pgbouncer_settings >"$workdir/pgbouncer.ini"
  become_server_user "$pgbouncer_binary" -q "$workdir/pgbouncer.ini" >"$workdir/pgbouncer.out" 2>&1 &
  pgbouncer_pid=$!
  wait_for_peer PgBouncer "$pgbouncer_pid" "$pgbouncer_port"
}

pgbouncer_stop() {
  [ -n "$pgbouncer_pid" ] || return 0
  # Not TERM: since 1.23 that waits for clients to leave.
  wait_for_end PgBouncer "$pgbouncer_pid" INT
  wait "$pgbouncer_pid" 2>/dev/null || true
  pgbouncer_pid=
}

pgbouncer_pids() { echo "$pgbouncer_pid"; }

pgbouncer_configuration() {
  pgbouncer_settings | grep ' = ' | grep -vE '_file|logfile|socket_dir|_port|max_client_conn|^bench' | paste -s -d ';' |
    sed 's/;/; /g'
}
