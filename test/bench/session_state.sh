#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# What carrying session state costs, measured inside a pooled backend: looking whether a transaction has left something
# behind, when it has not; and changing from one client to another that has ten settings of the same names and other
# values.  Medians of several rounds.
#
#   STATE_ROUNDS=7         how often
#   STATE_REPEATS=20000    how many times each is done in a round
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/measuring.sh"

rounds=${STATE_ROUNDS:-7}
repeats=${STATE_REPEATS:-20000}

pooled_as_postgres() { "$bindir/psql" -X -q -A -t -h "$workdir" -p "$pool_port" -U postgres -d postgres "$@"; }

sandbox_open
install_extension
server_init
{ extension_settings; } | server_start
wait_for_pool postgres postgres
pooled_as_postgres -c "create function time_session_state(integer) returns void
           as '\$libdir/pg_sluice', 'sluice_time_session_state' language c" ||
  fail "the function that measures could not be declared"
for _ in $(seq "$rounds"); do
  pooled_as_postgres -c "select time_session_state($repeats)" -c 'select 1' 2>>"$workdir/notices.txt" >/dev/null ||
    fail "a measurement did not succeed"
done
check=$(sed -n 's/^NOTICE:  session state check: \([0-9.]*\) us$/\1/p' "$workdir/notices.txt" | median)
change=$(sed -n 's/^NOTICE:  change of 10 settings: \([0-9.]*\) us$/\1/p' "$workdir/notices.txt" | median)
[ -n "$check" ] && [ -n "$change" ] || fail "nothing was measured"
printf '| %-44s | %10s | %7s |\n' "session state, per transaction" "measured" "target" \
  "$(printf -- '-%.0s' {1..44})" "----------" "-------" \
  "check, nothing is set" "$check us" "2 us" "change between clients, 10 settings differ" "$change us" "15 us"
