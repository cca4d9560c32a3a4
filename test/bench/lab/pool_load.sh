# SPDX-License-Identifier: PostgreSQL
#
# Loads on the pool alone, with what the pool itself has counted meanwhile; to be sourced after lab.sh.
#
#   pool_load_open                               after lab_server; starts all backends the pool may have, sets $max_size
#   pool_load OPTIONS...                         a load from a reset of the statistics on; failed requests do not end the
#                                                scenario; sets $duration, in seconds
#   pool_value MEASURE COLUMN                    of sluice.waits as it was at the end; MEASURE "pool": of sluice.pools
#   stall_value NAME                             stalled_ms or longest_stall_ms of the machine during the load
#   utilisation                                  percent of the time of max_size backends in which they were held
#   fit_load CLIENTS; refit_load                 see below
#
# An operation that occupies a backend without occupying a processor, as one that waits for a disk or a lock does, sleeps
# in the server.  pg_sleep() sleeps for whole milliseconds and a little, so some operations sleep for one and the others
# for two; their share sets the mean.
#
# How long may operations be?  With U the utilisation wanted and S backends, R operations per second go together with a
# mean of U * S / R and no other.  fit_load finds the longest operation, up to two milliseconds, with which a pool that
# is busy for U of its time serves R operations per second, by measuring how long backends are really held under that
# load.  It fits the load to the machine, not the result: how long clients then wait is not known to it.

fit_utilisation=${LAB_UTILISATION:-0.825}
fit_throughput=2080       # per second: the target of 2,000 and what Poisson arrivals scatter in a few seconds
fit_share=0               # of the operations that sleep for two milliseconds
fit_rate=
max_size=
duration=

pool_columns=(total active idle in_transaction waiting max_size peak_waiting peak_backends starts)
wait_columns=(count sum_ms mean_us p50_us p95_us p99_us max_us)

# What the pool has to say is read while the clients are still there: their goodbyes are leases as well.
prepare_snapshot() {
  local of="database = 'bench' and role = 'bench'"
  {
    echo "select concat_ws(' ', measure, $(IFS=,; echo "${wait_columns[*]}")) from sluice.waits where $of and count > 0;"
    echo "select concat_ws(' ', 'pool', $(IFS=,; echo "${pool_columns[*]}")) from sluice.pools where $of;"
  } >"$workdir/snapshot.sql"
  printf '#!/bin/sh\nexec "%s/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "%s" -p %s -U postgres -d bench -f "%s" >"%s"\n' \
    "$bindir" "$workdir" "$port" "$workdir/snapshot.sql" "$workdir/snapshot.txt" >"$workdir/snapshot"
  chmod +x "$workdir/snapshot"
}

pool_value() {
  local columns=("${wait_columns[@]}") i
  if [ "$1" = pool ]; then columns=("${pool_columns[@]}"); fi
  for i in "${!columns[@]}"; do
    [ "${columns[i]}" != "$2" ] || awk -v measure="$1" -v at=$((i + 2)) '$1 == measure { print $at }' "$workdir/snapshot.txt"
  done
}

# stall_value NAME: of the last load's summary; nothing if other processes may be in it.
stall_value() { [ "$(load_value summary stalls_realtime)" != 1 ] || load_value summary "$1"; }

generator_has() { "$load_generator" --help | grep -q -e "$1"; }

pool_load() {
  local status=0
  query "select sluice.reset_statistics()" bench >/dev/null
  rm -f "$workdir/snapshot.txt"
  try_load sluice --watch-stalls --before-leaving "$workdir/snapshot" "$@" || status=$?
  case $status in
    0) ;;
    2) say "  some requests failed: $load_reason" ;;
    *) fail "the load ended with status $status: $load_reason ($*)" ;;
  esac
  [ -s "$workdir/snapshot.txt" ] || fail "the pool's statistics were not read ($*)"
  duration=$(load_value summary seconds)
  [ -n "$duration" ] || duration=$(load_text_value measured)
}

utilisation() {
  awk -v held_ms="$(pool_value hold sum_ms)" -v size="$max_size" -v s="$duration" \
    'BEGIN { if (size * s > 0) printf "%.1f", held_ms / (size * s) / 10 }'
}

holding_query() { echo "select statement_timestamp() as began_at, pg_sleep(0.0005 + 0.001 * (random() < $1)::int)"; }

# Takes what the last load has shown over: $fit_share and $fit_rate for the next one.
refit_load() {
  read -r fit_share fit_rate < <(awk -v size="$max_size" -v hold_us="$(pool_value hold mean_us)" -v share="$fit_share" \
    -v utilisation="$fit_utilisation" -v throughput="$fit_throughput" '
    BEGIN {
      hold_ms = hold_us / 1000
      next_share = share + size * utilisation / throughput * 1000 - hold_ms
      if (next_share < 0) next_share = 0
      if (next_share > 1) next_share = 1
      printf "%.4f %.1f\n", next_share, size * utilisation * 1000 / (hold_ms + next_share - share)
    }')
}

# fit_load CLIENTS: before the first measurement with so many clients.
fit_load() {
  local probe probe_seconds=2
  if [ "$quick" = 1 ]; then probe_seconds=0.7; fi
  for probe in 1 2; do
    pool_load --connections "$1" --rate "$fit_rate" --seconds "$probe_seconds" --query "$(holding_query "$fit_share")"
    refit_load
    say "  fitted for $1 clients: $fit_rate/s, $fit_share of them 2 ms (held for $(pool_value hold mean_us) us on average)"
  done
}

pool_load_open() {
  local of="database = 'bench' and role = 'bench'"
  prepare_snapshot
  # More clients than backends: the pool starts all it may have.
  pool_load --clients 100 --seconds 1 --query "$(holding_query "$fit_share")"
  max_size=$(pool_value pool max_size)
  wait_until "the pool has its backends" "select total >= max_size and starting = 0 from sluice.pools where $of"
  refit_load
}
