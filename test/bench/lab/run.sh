#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The load lab: all scenarios, or those named as arguments, one after the other.  One that fails does not keep the others
# from running; the status tells whether all have run.  Reports, measurements and plots are in build/lab; all reports
# together are in build/lab/README.md.  What a scenario measures and how to read it: test/bench/README.md.
#
# Use: run.sh [SCENARIO...]        with the variables of lab.sh; LAB_QUICK=1 for all of them within five minutes
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../../tools/common.sh"

scenarios=(stress report monitor spike sizing payments herd trouble peers)
results=$root/build/lab

if [ $# -gt 0 ]; then scenarios=("$@"); fi
for scenario in "${scenarios[@]}"; do
  [ -x "$here/$scenario.sh" ] || die "there is no scenario \"$scenario\""
done

# One interrupted is not followed by the next.
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$results"
failed=()
began=$SECONDS
for scenario in "${scenarios[@]}"; do
  echo "=== $scenario" >&2
  at=$SECONDS
  "$here/$scenario.sh" || failed+=("$scenario")
  echo "=== $scenario: $((SECONDS - at)) s" >&2
done

# In the order of the list whichever were run now: the newest report of each, which begins with its date.
{ echo "# The load lab"
  echo
  echo "Put together on $(date -u '+%Y-%m-%d %H:%M UTC'); each report tells of when it is."
  for scenario in "${failed[@]}"; do echo; echo "**FAILED in the last run: $scenario.**"; done
  echo
  for scenario in stress report monitor spike sizing payments herd trouble peers; do
    [ ! -s "$results/$scenario.md" ] || { cat "$results/$scenario.md"; echo; }
  done
} >"$results/README.md"
echo "=== all: $((SECONDS - began)) s; reports, measurements and plots are in $results" >&2
[ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
