# SPDX-License-Identifier: PostgreSQL
#
# pgpool-II as a leg of the load lab, see lab.sh: the package's.
#
# In raw mode: one server, no replication, no balancing, no health checks.  pgpool-II does not share a server connection
# between clients: each of its processes has one client at a time and keeps one server connection for the next (max_pool
# = 1, for there is one database and one role).  Clients beyond num_init_children wait until another one has left.  So
# clients that stay need as many processes as there are clients, and as many server connections, which is what its
# documentation says num_init_children is: the limit of concurrent clients.  It has as many as the scenario has clients,
# and no fewer than the other pools have server connections.

pgpool_port=
pgpool_pid=
pgpool_binary=
pgpool_children=

pgpool_find() {
  "$root/test/tools/install_packages.sh" pgpool2 >&2 || true
  pgpool_binary=$(PATH=$PATH:/usr/sbin command -v pgpool) || { echo "not installed"; return 1; }
  pgpool_version >/dev/null || { echo "$pgpool_binary does not run"; return 1; }
}

pgpool_version() { "$pgpool_binary" --version 2>&1 | sed -n '1s/^pgpool-II version \([^ ]*\).*/pgpool-II \1/p' | grep .; }

pgpool_can() { :; }

pgpool_settings() {
  cat <<CONFIGURATION
backend_clustering_mode = 'raw'
listen_addresses = '127.0.0.1'
port = $pgpool_port
unix_socket_directories = '$workdir'
socket_dir = '$workdir'
pcp_listen_addresses = ''
pcp_port = $pgpool_pcp_port
pcp_socket_dir = '$workdir'
backend_hostname0 = '$workdir'
backend_port0 = $port
backend_weight0 = 1
backend_flag0 = 'DISALLOW_TO_FAILOVER'
num_init_children = ${pgpool_children:-5}
max_pool = 1
listen_backlog_multiplier = 2
child_life_time = 0
child_max_connections = 0
connection_life_time = 0
client_idle_limit = 0
connection_cache = on
load_balance_mode = off
health_check_period = 0
sr_check_period = 0
memory_cache_enabled = off
enable_pool_hba = off
log_destination = 'stderr'
pid_file_name = '$workdir/pgpool.pid'
logdir = '$workdir'
work_dir = '$workdir'
CONFIGURATION
  if [ "$lab_tls" = 1 ]; then
    cat <<CONFIGURATION
ssl = on
ssl_cert = '$tls_certificate'
ssl_key = '$tls_key'
ssl_ecdh_curve = '$tls_curve'
CONFIGURATION
  fi
}

pgpool_start() {
  pgpool_children=$(($1 > pool_size ? $1 : pool_size))
  read -r pgpool_port pgpool_pcp_port <<<"$(free_ports 2)"
  pgpool_settings >"$workdir/pgpool.conf"
  : >"$workdir/pcp.conf"
  : >"$workdir/pool_hba.conf"
  become_server_user "$pgpool_binary" -n -D -f "$workdir/pgpool.conf" -F "$workdir/pcp.conf" -a "$workdir/pool_hba.conf" \
    >"$workdir/pgpool-ii.log" 2>&1 &
  pgpool_pid=$!
  wait_for_peer pgpool-II "$pgpool_pid" "$pgpool_port" && wait_for_pgpool_children
}

# It listens before all of its processes are there.
wait_for_pgpool_children() {
  for _ in $(seq 300); do
    [ "$(pgpool_pids | wc -w)" -le "$pgpool_children" ] || return 0
    sleep 0.1
  done
  leg_reason="pgpool-II has not started $pgpool_children processes: $(peer_log pgpool-II)"
  return 1
}

# Fast: without waiting for clients.
pgpool_stop() {
  [ -n "$pgpool_pid" ] || return 0
  wait_for_end pgpool-II "$pgpool_pid" INT
  wait "$pgpool_pid" 2>/dev/null || true
  pgpool_pid=
}

pgpool_pids() { echo "$pgpool_pid $(cat "/proc/$pgpool_pid/task/$pgpool_pid/children" 2>/dev/null || true)"; }

pgpool_configuration() {
  local pgpool_port=- pgpool_pcp_port=-
  echo "$(pgpool_settings | grep -E '^(backend_cl|max_pool|listen_b|child|connection|client|load|health|memory|ssl_ecdh)' |
    paste -s -d ';' | sed 's/;/; /g'); num_init_children = the number of clients: it cannot share a server connection" \
    "between clients that stay, so it has a process and a server connection for each."
}
