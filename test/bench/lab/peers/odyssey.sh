# SPDX-License-Identifier: PostgreSQL
#
# Odyssey as a leg of the load lab, see lab.sh: what the search path finds, or LAB_ODYSSEY=/path/to/odyssey.
#
# Pooling by transaction, with as many server connections as the other pools, over the server's Unix socket.  As its
# documentation advises for busy servers it has a worker thread for each core, and keeps a coroutine for each connection.
# Prepared statements are carried between server connections (pool_reserve_prepared_statement), which asks for
# connections that are not discarded between clients.
#
# It has no setting for the curve of its key exchanges, but OpenSSL has: all legs offer the server's (ssl_ecdh_curve), so
# that all do the same work.

odyssey_port=
odyssey_pid=
odyssey_binary=
odyssey_clients=100

odyssey_find() {
  if [ -n "${LAB_ODYSSEY:-}" ]; then
    odyssey_binary=$LAB_ODYSSEY
    [ -x "$odyssey_binary" ] || { echo "there is no LAB_ODYSSEY=$odyssey_binary"; return 1; }
  else
    odyssey_binary=$(PATH=$PATH:/usr/sbin command -v odyssey) ||
      { echo "not installed, nor named by LAB_ODYSSEY"; return 1; }
  fi
  odyssey_version >/dev/null || { echo "$odyssey_binary does not run"; return 1; }
}

odyssey_version() { "$odyssey_binary" --version 2>&1 | sed -n '1s/^odyssey \([^ ]*\).*/Odyssey \1/p' | grep .; }

odyssey_can() { :; }

# odyssey_listen ADDRESS-LINE
odyssey_listen() {
  cat <<CONFIGURATION
listen {
  $1
  port $odyssey_port
  backlog 1024
CONFIGURATION
  if [ "$lab_tls" = 1 ] && [ -n "$1" ]; then
    cat <<CONFIGURATION
  tls "require"
  tls_cert_file "$tls_certificate"
  tls_key_file "$tls_key"
CONFIGURATION
  fi
  echo "}"
}

odyssey_settings() {
  cat <<CONFIGURATION
daemonize no
unix_socket_dir "$workdir"
unix_socket_mode "0777"
locks_dir "$workdir"
log_file "$workdir/odyssey.log"
log_format "%p %t %l [%i %s] (%c) %m\n"
log_to_stdout no
log_config no
log_debug no
log_session no
log_query no
log_stats no
workers $(nproc)
resolvers 1
readahead 8192
cache_coroutine $((odyssey_clients + pool_size + 20))
nodelay yes
keepalive 0
bindwith_reuseport no
enable_online_restart no
client_max_routing $((odyssey_clients + 100))
client_max $((odyssey_clients + 100))
CONFIGURATION
  odyssey_listen 'host "127.0.0.1"'
  odyssey_listen ""
  cat <<CONFIGURATION
storage "server" {
  type "remote"
  port $port
}
database "bench" {
  user "bench" {
    authentication "none"
    storage "server"
    pool "transaction"
    pool_size $pool_size
    pool_timeout 0
    pool_ttl 0
    pool_discard no
    pool_reserve_prepared_statement yes
    pool_cancel yes
    pool_rollback yes
  }
}
CONFIGURATION
}

odyssey_start() {
  odyssey_clients=$1
  odyssey_port=$(free_ports 1)
  odyssey_settings >"$workdir/odyssey.conf"
  cat >"$workdir/openssl.cnf" <<CONFIGURATION
openssl_conf = start
[start]
ssl_conf = modules
[modules]
system_default = defaults
[defaults]
Groups = $tls_curve
CONFIGURATION
  become_server_user OPENSSL_CONF="$workdir/openssl.cnf" "$odyssey_binary" "$workdir/odyssey.conf" >"$workdir/odyssey.out" 2>&1 &
  odyssey_pid=$!
  wait_for_peer Odyssey "$odyssey_pid" "$odyssey_port"
}

odyssey_stop() {
  [ -n "$odyssey_pid" ] || return 0
  wait_for_end Odyssey "$odyssey_pid" INT
  wait "$odyssey_pid" 2>/dev/null || true
  odyssey_pid=
}

odyssey_pids() { echo "$odyssey_pid"; }

odyssey_configuration() {
  odyssey_settings | grep -E '^ *(workers|resolvers|readahead|cache_coroutine|nodelay|keepalive|pool)' | sed 's/^ *//' |
    sed 's/^cache_coroutine .*/cache_coroutine clients + pool_size + 20/' | paste -s -d ';' | sed 's/;/; /g'
}
