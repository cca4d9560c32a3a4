#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Prints the user memory, in bytes, of a process and its children: the sum of their proportional set sizes, in which a
# page that several of them share counts once.  Memory of the kernel (sockets, epoll entries) is not in it.
#
# Use: process_memory.sh PID
set -euo pipefail
children=$(cat "/proc/$1/task/$1/children")
total=0
for pid in "$1" $children; do
  kilobytes=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null) || continue   # it has just ended
  total=$((total + ${kilobytes:-0}))
done
echo $((total * 1024))
