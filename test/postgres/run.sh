#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The independent proof: a suite of PostgreSQL's own, run twice, once against a plain server and once through the pool,
# and the two sets of result files compared byte for byte.  See README.md beside this file.
#
# Both runs have the same directories, locale, settings and schedule, one after the other, so that whatever a result
# file says about its surroundings says the same twice.
#
# In transaction mode each transaction of a client is made to run on another backend than the one before, and other
# clients of the same pool run beside the suite (churn.sh).
#
#   SUITE=regress|isolation    the core regression suite (regress), or the tests of concurrent sessions
#   MODE=session|transaction   sluice.pool_mode of the second run (session)
#   BASELINE=1                 the second run is direct as well: shows what two equal runs agree on
#   CHURN=0|1                  other clients beside the second run (1 in transaction mode, else 0)
#   POOL_SIZE=40               sluice.max_pool_size in transaction mode
#   TESTS="a b"                only these tests, one after the other; many need others before them
#   REUSE_DIRECT=1             compare with the direct run of last time, if it was of the same tests
#   ALLOWED_DIFFERENCES=5      how many result files may differ
#   POSTGRES_SOURCE=DIR        an unpacked source tree to take the suite from, instead of fetching one
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../bench/throwaway_server.sh"

suite_name=${SUITE:-regress}
mode=${MODE:-session}
baseline=${BASELINE:-0}
tests=(${TESTS:-})
if [ "$mode" = transaction ] && [ "$baseline" != 1 ]; then churn=${CHURN:-1}; else churn=${CHURN:-0}; fi
allowed=${ALLOWED_DIFFERENCES:-5}
# A run that died early, or that did not go through the pool, must not pass for one that agrees.
case $suite_name in
  regress) least_files=200 least_transactions=20000 ;;
  isolation) least_files=90 least_transactions=5000 ;;
esac
if [ ${#tests[@]} -gt 0 ]; then least_files=${#tests[@]} least_transactions=${#tests[@]}; fi
time_limit=${TIME_LIMIT:-1200}
kept=$root/build/postgres

# Copies the suite to where the server user can read and write, with the modules its tests load.  Sets $pg_regress, the
# command that runs it.
prepare_suite() {
  local source=$1 pkglibdir=$2 includes=$3
  suite=$workdir/suite
  cp -r "$source/src/test/$suite_name" "$suite"
  mkdir "$workdir/modules"
  if [ "$suite_name" = regress ]; then
    cc -shared -fPIC -O2 -w -I"$includes" -o "$workdir/modules/regress.so" "$suite/regress.c" \
      2>"$workdir/compiler.log" || fail "regress.c of the suite could not be compiled"
    rm -f "$workdir/compiler.log"
    cp "$pkglibdir/refint.so" "$pkglibdir/autoinc.so" "$workdir/modules/"
    database=regression schedule=parallel_schedule
    pg_regress=("$pgxs_src/test/regress/pg_regress" --dlpath="$workdir/modules" --max-concurrent-tests=20
      --encoding=UTF8)
  else
    # It finds isolationtester beside itself.
    database=isolation_regression schedule=isolation_schedule
    pg_regress=("$pgxs_src/test/isolation/pg_isolation_regress")
    # A step that waits for what does not come: after a minute it is cancelled, after two its test is over.
    export PGISOLATIONTIMEOUT=60
  fi
  pg_regress+=(--dbname="$database")
  if [ ${#tests[@]} -gt 0 ]; then
    pg_regress+=("${tests[@]}")
  else
    pg_regress+=(--schedule="$suite/$schedule")
  fi
  [ "$EUID" -ne 0 ] || chown -R postgres: "$suite" "$workdir/modules"
}

# A script that was written for an older psql must run to its end all the same: see end_refused_copies.pl.  Any server
# will do to find out what this psql does.
adapt_scripts() {
  local ended
  [ "$suite_name" = regress ] && [ -z "${adapted:-}" ] || return 0
  adapted=1
  if printf '%s\n' 'copy nowhere from stdin;' '\echo goes on' '\.' | query_script 2>/dev/null | grep -q 'goes on'; then
    return 0
  fi
  ended=$(perl "$here/end_refused_copies.pl" "$suite") || fail "the scripts of the suite could not be adapted"
  [ "$ended" = 0 ] || say "the suite is older than psql: the end of the data is marked behind $ended refused COPYs"
}

# Fails the run when both runs have been compared all the same: the differences may say why.
complaints=()
complain() {
  say "  $*"
  complaints+=("$*")
}

query_script() { "$bindir/psql" -X -q -A -t -h "$workdir" -p "$port" -U postgres -d postgres -f -; }

# See name_sessions.sql: how isolationtester is to name its sessions where they are clients of a pool.
name_sessions() {
  query "alter database template0 allow_connections true"
  "$bindir/psql" -X -q -v ON_ERROR_STOP=1 -h "$workdir" -p "$port" -U postgres -d template0 \
    -f "$here/name_sessions.sql" || fail "the function that isolationtester asks could not be replaced"
  query "alter database template0 allow_connections false"
}

# start_churn PORT WANTED: other clients, as soon as the suite's database is there, settings included.
start_churn() {
  churn_pid=
  [ "$2" = 1 ] || return 0
  rm -f "$workdir/churn.summary"
  (
    trap - EXIT INT TERM
    # Not yet churn.sh: nothing to be ended in an orderly way.
    until [ "$(query "select count(*) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
                      where datname = '$database'" 2>/dev/null)" = 1 ]; do sleep 0.1; done
    exec "$here/churn.sh" "$bindir" "$workdir" "$1" "$database" postgres "$workdir/churn.summary"
  ) 2>"$workdir/churn.txt" &
  churn_pid=$!
  extra_processes+=("$churn_pid")
}

# stop_churn NAME: sets $churn_transactions.
stop_churn() {
  local executed failures
  churn_transactions=0
  [ -n "$churn_pid" ] || return 0
  kill "$churn_pid" 2>/dev/null || true
  wait "$churn_pid" || true
  extra_processes=()
  cp "$workdir/churn.txt" "$kept/$1/"
  [ -s "$workdir/churn.summary" ] || { tail -n 5 "$workdir/churn.txt" >&2; fail "the churn beside the suite has died"; }
  read -r executed churn_transactions failures <"$workdir/churn.summary"
  say "  churn beside it: $executed scripts, $churn_transactions transactions, $failures failures"
  if [ "$failures" != 0 ]; then
    head -n 10 "$workdir/churn.txt" >&2
    complain "the clients beside the suite were not served well: see $1/churn.txt"
  fi
  [ "$churn_transactions" -gt 0 ] || complain "there was no churn"
}

# run_suite NAME PORT CHURN: leaves the result files in $kept/NAME.
run_suite() {
  local name=$1 suite_port=$2 status=0 bad output=$workdir/output
  rm -rf "$output" "${kept:?}/$name"
  as_server_user mkdir "$output"
  mkdir -p "$kept/$name"
  say "running the suite \"$suite_name\": $name"
  start_churn "$suite_port" "$3"
  # pg_regress asks the server for its own database, and psql for everything else, on the one port it is given.
  as_server_user timeout --kill-after=30 "$time_limit" "${pg_regress[@]}" \
    --inputdir="$suite" --outputdir="$output" --bindir="$bindir" \
    --host="$workdir" --port="$suite_port" --user=postgres \
    >"$workdir/pg_regress.txt" 2>&1 || status=$?
  cp -r "$output/results" "$workdir/pg_regress.txt" "$workdir/server.log" "$kept/$name/" 2>/dev/null || true
  if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    tail -n 5 "$workdir/pg_regress.txt" >&2
    fail "the suite ($name) did not end within $time_limit s"
  fi
  [ "$status" -le 1 ] && grep -qE 'tests (passed|failed)' "$workdir/pg_regress.txt" || {
    tail -n 20 "$workdir/pg_regress.txt" >&2
    fail "pg_regress ($name) ended with status $status"
  }
  # Also what a process says that has lost track of its resources, or of its place in a client's messages.
  bad=$(grep -aE 'TRAP|PANIC|terminated by signal|resource was not closed|leak: |invalid frontend message' \
    "$workdir/server.log") || true
  if [ -n "$bad" ]; then
    say "$bad"
    complain "a server process crashed or complained about itself: see $name/server.log"
  fi
  say "  $(grep -E 'tests (passed|failed)' "$workdir/pg_regress.txt" | tr -s ' =\n' ' ')"
  stop_churn "$name"
}

# Which way did the sessions of the suite go?
check_served_directly() {
  [ "$(query "select count(*) from pg_settings where name like 'sluice.%'")" = 0 ] ||
    fail "the server of the direct run has the extension loaded"
}

check_served_by_pool() {
  local transactions leases backends peak starts
  query 'create extension pg_sluice'
  transactions=$(query 'select coalesce(sum(transactions), 0) from sluice.pools')
  say "  pooled backends have executed $transactions transactions"
  [ $((transactions - churn_transactions)) -ge "$least_transactions" ] ||
    fail "without churn, that are less than $least_transactions: the suite did not run through the pool"
  IFS='|' read -r transactions leases backends peak starts < <(query "
    select p.transactions, p.leases, count(b), p.peak_backends, p.starts
    from sluice.pools p left join sluice.backends b using (database, role)
    where database = '$database' and role = 'postgres' and (b is null or b.transactions > 0)
    group by 1, 2, 4, 5")
  say "  pool of the suite: $transactions transactions in $leases leases; $starts backends were started," \
    "at most $peak at once, and $backends have executed transactions and are still there"
  [ "$mode" = session ] || [ "$peak" -ge 2 ] || fail "there was but one backend: nothing was carried between backends"
}

# What pg_regress gives a server of its own, and room for groups of twenty tests.
common_settings() {
  cat <<END
max_connections = 100
max_prepared_transactions = 2
log_autovacuum_min_duration = 0
log_checkpoints = on
log_lock_waits = on
log_temp_files = 128kB
END
}

pool_settings() {
  extension_settings
  cat <<END
sluice.pool_mode = '$mode'
sluice.max_backends = 80
END
  if [ "$mode" = session ]; then
    echo "sluice.max_pool_size = 60"
  else
    # Room for groups of twenty tests, and for churn, each with a backend of its own for a while.
    cat <<END
sluice.max_pool_size = ${POOL_SIZE:-40}
# A switch in a static variable of the suite's own library.
sluice.pin_functions = 'set_ttdummy'
sluice.min_pool_size = 4
sluice.debug_force_switch = on
END
  fi
}

# run_against NAME direct|pool CHURN: a fresh server for each run.
run_against() {
  server_init
  if [ "$2" = pool ]; then
    { common_settings; pool_settings; } | server_start
    adapt_scripts
    [ "$suite_name" = regress ] || [ "$mode" = session ] || name_sessions
    wait_for_pool postgres postgres
    run_suite "$1" "$pool_port" "$3"
    check_served_by_pool
  else
    common_settings | server_start
    adapt_scripts
    run_suite "$1" "$port" "$3"
    check_served_directly
  fi
  server_stop
  rm -rf "$workdir/server.log"
}

compare_runs() {
  local total differing
  "$here/compare.sh" "$1" "$2" | tee "$kept/$2.comparison.txt" || true
  total=$(ls "$kept/$1/results" "$kept/$2/results" | grep '\.out$' | sort -u | wc -l)
  differing=$(sed -n 's/^differing: //p' "$kept/$2.comparison.txt" | wc -w)
  echo "at most $allowed may differ; result files and differences: ${kept#"$root"/}"
  [ "$total" -ge "$least_files" ] || { echo "too few result files"; return 1; }
  [ "$differing" -le "$allowed" ] || { echo "too many files differ"; return 1; }
}

case $mode in session | transaction) ;; *) say "MODE must be session or transaction"; exit 2 ;; esac
case $suite_name in regress | isolation) ;; *) say "SUITE must be regress or isolation"; exit 2 ;; esac
"$root/test/tools/install_packages.sh" dpkg-dev >&2
sandbox_open
if [ "$baseline" != 1 ]; then install_extension >&2; fi
major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
mkdir -p "$kept"
source=${POSTGRES_SOURCE:-}
[ -n "$source" ] || source=$("$here/fetch_source.sh" "$root/build/postgres-source" "$major") ||
  fail "the source package of PostgreSQL $major could not be fetched"
prepare_suite "$source" "$("$pg_config" --pkglibdir)" "$("$pg_config" --includedir-server)"

first=$suite_name-direct
second=$suite_name-pool-$mode
second_kind=pool
if [ "$baseline" = 1 ]; then second=$suite_name-direct-again; second_kind=direct; fi
if [ "${REUSE_DIRECT:-0}" = 1 ] && [ "$(cat "$kept/$first/complete" 2>/dev/null)" = "tests: ${tests[*]}" ]; then
  say "taking the direct run of last time"
else
  run_against "$first" direct 0
  echo "tests: ${tests[*]}" >"$kept/$first/complete"
fi
run_against "$second" "$second_kind" "$churn"
compare_runs "$first" "$second" || complaints+=("the runs differ")
[ ${#complaints[@]} = 0 ] || {
  printf 'FAILED: %s\n' "${complaints[@]}" >&2
  exit 1
}
