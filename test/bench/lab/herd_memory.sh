#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# What some processes and the kernel use now, for herd.sh: a line "name value" each, bytes where nothing else is said.
#
#   herd_memory.sh SAMPLES "POOLER PIDS" "PIDS"
#
#   pooler_cpu_us    processor time of the pooler's own processes
#   cpu_us           of all PIDS and their children, however deep
#   user             memory of these that is theirs: private, and shared by them, each page once (Pss of anonymous and
#                    shared memory; not programs and libraries)
#   kernel           slabs, page tables, stacks and socket buffers of the whole machine
#   available        what the whole machine has available
#   cache.NAME       of the kernel's slabs, one kind; only for root
#
# Memory is the median of so many samples, 0.2 s apart; user_error, kernel_error and available_error are half of what
# lies between the least and the greatest.
set -euo pipefail
samples=$1 pooler=$2 roots=$3

family() {
  local pid
  for pid in "$@"; do
    echo "$pid"
    # shellcheck disable=SC2046  # words
    family $(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
  done
}

cpu_us() {
  local pid files=()
  for pid in "$@"; do files+=("/proc/$pid"/task/[0-9]*/schedstat); done
  { [ ${#files[@]} = 0 ] || cat "${files[@]}" 2>/dev/null || true; } |
    awk '{ total += $1 } END { printf "%.0f\n", total / 1000 }'
}

# shellcheck disable=SC2086  # words
{
  echo "pooler_cpu_us $(cpu_us $pooler)"
  all=$(family $roots | sort -un)
  echo "cpu_us $(cpu_us $all)"
}

system=(/proc/meminfo /proc/net/sockstat)
if [ -r /proc/slabinfo ]; then system+=(/proc/slabinfo); fi
files=()
for pid in $all; do files+=("/proc/$pid/smaps_rollup"); done
sample() {
  # A process may have ended meanwhile.
  { cat "${files[@]}" 2>/dev/null || true; } |
    awk '/^Pss_(Anon|Shmem):/ { total += $2 } END { printf "user %.0f\n", total * 1024 }'
  # What the kernel keeps because of our looking into /proc is not counted.
  awk '
    FILENAME ~ /slabinfo/ && $1 == "proc_inode_cache" { kernel -= $3 * $4 }
    FILENAME ~ /meminfo/ && /^(Slab|PageTables|KernelStack):/ { kernel += $2 * 1024 }
    FILENAME ~ /meminfo/ && /^MemAvailable:/ { available = $2 * 1024 }
    FILENAME ~ /sockstat/ && /^TCP:/ { kernel += $NF * 4096 }
    END { printf "kernel %.0f\navailable %.0f\n", kernel, available }' "${system[@]}"
}

for ((i = 0; i < samples; i++)); do
  [ "$i" = 0 ] || sleep 0.2
  sample
done | sort -k1,1 -k2,2g | awk '
  function show() { printf "%s %.0f\n%s_error %.0f\n", name, value[int((n + 1) / 2)], name, (value[n] - value[1]) / 2 }
  $1 != name && n { show(); n = 0 }
  { name = $1; value[++n] = $2 }
  END { show() }'
{ cat /proc/slabinfo 2>/dev/null || true; } |
  awk 'NR > 2 && $2 > 0 && $1 != "proc_inode_cache" { printf "cache.%s %.0f\n", $1, $2 * $4 }'
