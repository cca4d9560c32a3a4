#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# churn.sh BINDIR HOST PORT DATABASE ROLE SUMMARY: other clients of a pool, for as long as a suite runs in it.
#
# A few clients of the same database and role execute the scripts in churn/, in short rounds with new connections each.
# They leave session state of every kind where the suite's next transaction may run, and check that what they find is
# their own: a failed check is a division by zero.  They make no permanent object, take no advisory lock, do not
# LISTEN, and hold a snapshot for no longer than a statement, so that nothing a test shows depends on them; their load
# is bounded by sleeps.  SIGTERM ends it after the round under way (about a second).
#
# In the end writes to SUMMARY: scripts executed, transactions committed by them, messages about failures; what failed
# is on standard error.
set -euo pipefail
bindir=$1 host=$2 port=$3 database=$4 role=$5 summary=$6
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scripts=(settings roles temporary prepared cursor)
executed=0 committed=0 failures=0 stopping=0
trap 'stopping=1' TERM INT
export PGAPPNAME=churn PGCONNECT_TIMEOUT=30
log=$(mktemp)

# Of script $1: how many transactions one execution is.  What is between BEGIN and its end is one.
transactions_of() {
  awk '
    /^(--|\\)/ || /^ / { next }
    /^begin;/ { inside = 1 }
    !inside || /^(commit|rollback);/ { n++ }
    /^(commit|rollback);/ { inside = 0 }
    END { print n }' "$here/churn/$1.sql"
}

declare -A worth
for name in "${scripts[@]}" newcomer; do worth[$name]=$(transactions_of "$name"); done

# One pgbench.  Its own signals are not ours: setsid keeps away what is sent to a group of processes.
bench() {
  setsid timeout --kill-after=10 120 "$bindir/pgbench" -n -h "$host" -p "$port" -U "$role" "$@" "$database" 2>&1
}

# Adds up what pgbench said: an account for each script, or one for all if there is but one script.
account() {
  local name count bad
  while read -r name count; do
    executed=$((executed + count))
    committed=$((committed + count * worth[$name]))
  done < <(awk '
    /^SQL script [0-9]+: / { sub(/^.*\//, ""); sub(/\.sql$/, ""); name = $0 }
    /^transaction type: / && /\.sql$/ { sub(/^.*\//, ""); sub(/\.sql$/, ""); name = $0 }
    /^ - [0-9]+ transactions/ { print name, $2; next }
    /^number of transactions actually processed: / && name {
      sub(/^.*: /, ""); sub(/\/.*/, ""); print name, $0
    }' "$log")
  bad=$(grep -aE 'error|ERROR|FATAL|aborted|WARNING' "$log") || return 0
  failures=$((failures + $(wc -l <<<"$bad")))
  sleep 0.5
  printf 'churn: %s\n' "$bad" >&2
}

files=()
for name in "${scripts[@]}"; do files+=(--file="$here/churn/$name.sql"); done
protocols=(simple extended prepared)
round=0
while [ "$stopping" = 0 ] && [ "$failures" -lt 1000 ]; do
  protocol=${protocols[round % 3]}
  round=$((round + 1))
  {
    bench --client=4 --transactions=8 --protocol="$protocol" "${files[@]}" >"$log" &
    first=$!
    bench --client=2 --transactions=8 --connect --protocol="$protocol" --file="$here/churn/newcomer.sql" \
      >"$log.newcomer" &
    second=$!
    # A trapped signal ends a wait early.
    while kill -0 "$first" 2>/dev/null; do wait "$first" || true; done
    while kill -0 "$second" 2>/dev/null; do wait "$second" || true; done
  }
  account
  mv "$log.newcomer" "$log"
  account
done
rm -f "$log"
echo "$executed $committed $failures" >"$summary"
