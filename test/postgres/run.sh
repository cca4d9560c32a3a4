#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The independent proof: a suite of PostgreSQL's own, run twice, once against a plain server and once through the pool,
# and the two sets of result files compared byte for byte.  See README.md beside this file.
#
# Both runs have the same directories, locale, settings and schedule, one after the other, so that whatever a result
# file says about its surroundings says the same twice.
#
#   SUITE=regress|isolation    the core regression suite (regress), or the tests of concurrent sessions
#   MODE=session|transaction   sluice.pool_mode of the second run (session)
#   BASELINE=1                 the second run is direct as well: shows what two equal runs agree on
#   ALLOWED_DIFFERENCES=5      how many result files may differ
#   POSTGRES_SOURCE=DIR        an unpacked source tree to take the suite from, instead of fetching one
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../bench/throwaway_server.sh"

suite_name=${SUITE:-regress}
mode=${MODE:-session}
baseline=${BASELINE:-0}
allowed=${ALLOWED_DIFFERENCES:-5}
# A run that died early, or that did not go through the pool, must not pass for one that agrees.
case $suite_name in
  regress) least_files=200 least_transactions=20000 ;;
  isolation) least_files=90 least_transactions=5000 ;;
esac
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
    # It tries as a lesser role to empty pg_class: where the role ends with the transaction, it succeeds.
    [ "$mode" = session ] || sed -i 's/ privileges / /' "$suite/parallel_schedule"
    pg_regress=("$pgxs_src/test/regress/pg_regress" --dlpath="$workdir/modules" --schedule="$suite/parallel_schedule"
      --max-concurrent-tests=20 --encoding=UTF8 --dbname=regression)
  else
    # It finds isolationtester beside itself.
    pg_regress=("$pgxs_src/test/isolation/pg_isolation_regress" --schedule="$suite/isolation_schedule"
      --dbname=isolation_regression)
  fi
  [ "$EUID" -ne 0 ] || chown -R postgres: "$suite" "$workdir/modules"
}

# A script that was written for an older psql must run to its end all the same: see end_refused_copies.pl.  Any server
# will do to find out what this psql does.
adapt_scripts() {
  local ended
  [ "$suite_name" = regress ] || return 0
  if printf '%s\n' 'copy nowhere from stdin;' '\echo goes on' '\.' | query_script 2>/dev/null | grep -q 'goes on'; then
    return 0
  fi
  ended=$(perl "$here/end_refused_copies.pl" "$suite") || fail "the scripts of the suite could not be adapted"
  [ "$ended" = 0 ] || say "the suite is older than psql: the end of the data is marked behind $ended refused COPYs"
}

query_script() { "$bindir/psql" -X -q -A -t -h "$workdir" -p "$port" -U postgres -d postgres -f -; }

# run_suite NAME PORT: leaves the result files in $kept/NAME.
run_suite() {
  local name=$1 suite_port=$2 status=0 bad output=$workdir/output
  rm -rf "$output" "${kept:?}/$name"
  as_server_user mkdir "$output"
  say "running the suite \"$suite_name\": $name"
  # pg_regress asks the server for its own database, and psql for everything else, on the one port it is given.
  as_server_user timeout --kill-after=30 "$time_limit" "${pg_regress[@]}" \
    --inputdir="$suite" --outputdir="$output" --bindir="$bindir" \
    --host="$workdir" --port="$suite_port" --user=postgres \
    >"$workdir/pg_regress.txt" 2>&1 || status=$?
  mkdir -p "$kept/$name"
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
    fail "a server process crashed or complained about itself ($name)"
  fi
  say "  $(grep -E 'tests (passed|failed)' "$workdir/pg_regress.txt" | tr -s ' =\n' ' ')"
}

# Which way did the sessions of the suite go?
check_served_directly() {
  [ "$(query "select count(*) from pg_settings where name like 'sluice.%'")" = 0 ] ||
    fail "the server of the direct run has the extension loaded"
}

check_served_by_pool() {
  local transactions
  query 'create extension pg_sluice'
  transactions=$(query 'select coalesce(sum(transactions), 0) from sluice.pools')
  say "  pooled backends have executed $transactions transactions"
  [ "$transactions" -ge "$least_transactions" ] ||
    fail "that are less than $least_transactions: the suite did not run through the pool"
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
sluice.max_pool_size = 60
sluice.max_backends = 80
END
}

# run_against NAME direct|pool: a fresh server for each run.
run_against() {
  server_init
  if [ "$2" = pool ]; then
    { common_settings; pool_settings; } | server_start
    wait_for_pool postgres postgres
    run_suite "$1" "$pool_port"
    check_served_by_pool
  else
    common_settings | server_start
    adapt_scripts
    run_suite "$1" "$port"
    check_served_directly
  fi
  server_stop
  rm -rf "$workdir/server.log"
}

compare_runs() {
  local first=$kept/$1/results second=$kept/$2/results file total=0 agreeing=0 differing=()
  for file in $( (cd "$first" && ls; cd "$second" && ls) | grep "\.out$" | sort -u); do
    total=$((total + 1))
    if cmp -s "$first/$file" "$second/$file"; then
      agreeing=$((agreeing + 1))
    else
      differing+=("$file")
    fi
  done
  for file in "${differing[@]}"; do
    echo ""
    echo "differs: $file"
    if [ ! -f "$first/$file" ]; then echo "    only in the run \"$2\""; continue; fi
    if [ ! -f "$second/$file" ]; then echo "    only in the run \"$1\""; continue; fi
    diff -U 1 "$first/$file" "$second/$file" | sed -n '3,12s/^/    /p' || true
  done
  diff -r -U 3 "$first" "$second" >"$kept/$2.differences.diff" || true
  echo ""
  echo "$agreeing of $total result files are the same, byte for byte ($1 / $2; at most $allowed may differ)"
  [ ${#differing[@]} = 0 ] || echo "differing: ${differing[*]}"
  echo "result files and differences: ${kept#"$root"/}"
  [ "$total" -ge "$least_files" ] || { echo "FAILED: too few result files"; return 1; }
  [ ${#differing[@]} -le "$allowed" ] || { echo "FAILED: too many files differ"; return 1; }
}

case $mode in session | transaction) ;; *) say "MODE must be session or transaction"; exit 2 ;; esac
case $suite_name in regress | isolation) ;; *) say "SUITE must be regress or isolation"; exit 2 ;; esac
if [ "$suite_name" = isolation ] && [ "$mode" != session ]; then
  say "the suite \"isolation\" watches its sessions by their process numbers: it needs MODE=session"
  exit 2
fi
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
run_against "$first" direct
run_against "$second" "$second_kind"
compare_runs "$first" "$second"
