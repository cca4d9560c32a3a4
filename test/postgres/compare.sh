#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# compare.sh [-n LINES] FIRST SECOND [TEST...]: two runs of a suite, by the directories run.sh keeps in build/postgres.
#
# Shows each result file that differs: how many lines have changed in how many places, and the first LINES lines of the
# difference (12; 0 for names alone).  With tests named, only these, from beginning to end unless -n is given.  The
# whole difference is also in SECOND.differences.diff.  Ends with 0 if all result files are the same, 1 if not.
set -euo pipefail
lines=
if [ "${1:-}" = -n ]; then lines=$2; shift 2; fi
[ $# -ge 2 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
kept=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/postgres
first=$kept/$1/results second=$kept/$2/results first_name=$1 second_name=$2
shift 2
[ -d "$first" ] && [ -d "$second" ] || {
  echo "there are no results of $first_name and $second_name in $kept" >&2
  exit 2
}
if [ $# -gt 0 ]; then
  files=("${@/%/.out}")
  lines=${lines:-1000000}
else
  mapfile -t files < <( (cd "$first" && ls; cd "$second" && ls) | grep '\.out$' | sort -u)
  lines=${lines:-12}
  diff -r -U 3 "$first" "$second" >"$kept/$second_name.differences.diff" || true
fi

agreeing=0 differing=()
for file in "${files[@]}"; do
  if cmp -s "$first/$file" "$second/$file"; then
    agreeing=$((agreeing + 1))
    continue
  fi
  differing+=("${file%.out}")
  echo ""
  if [ ! -f "$first/$file" ]; then echo "$file: only in $second_name"; continue; fi
  if [ ! -f "$second/$file" ]; then echo "$file: only in $first_name"; continue; fi
  { diff -a -U 1 "$first/$file" "$second/$file" || true; } | awk -v file="$file" -v lines="$lines" '
    NR <= 2 { next }
    /^@@/ { places++ }
    /^-/ { gone++ }
    /^\+/ { come++ }
    shown < lines { text[shown++] = $0 }
    { all++ }
    END {
      printf "%s: %d places, -%d +%d lines\n", file, places, gone, come
      for (i = 0; i < shown; i++) print "    " substr(text[i], 1, 160)
      if (shown && shown < all) print "    ... (" all - shown " more)"
    }'
done
echo ""
echo "$agreeing of ${#files[@]} result files are the same, byte for byte ($first_name / $second_name)"
[ ${#differing[@]} = 0 ] || { echo "differing: ${differing[*]}"; exit 1; }
