#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Builds and runs the model of the hand-over (test/model) under ThreadSanitizer,
# where the compiler has it.
#
#   run_model.sh [seed [runs]]    see test/model/hand_over.cpp; CXX=clang++ for another compiler

source "$(dirname "$0")/common.sh"
cd "$root"

echo "# model of the hand-over"
mkdir -p build/model
compiler=${CXX:-g++}
flags=(-std=c++17 -Wall -Wextra -Werror -O1 -g -Isrc -Itest)
probe=$(mktemp -d /tmp/pg_sluice.XXXXXX)
trap 'rm -rf "$probe"' EXIT
echo 'int main() { return 0; }' >"$probe/probe.cpp"
if { "$compiler" -fsanitize=thread -o "$probe/probe" "$probe/probe.cpp" && "$probe/probe"; } 2>/dev/null; then
  flags+=(-fsanitize=thread)
  # It does not understand fences; sequence_locks.cpp says what follows from that.
  ! "$compiler" -Werror -Wno-error=tsan -fsyntax-only "$probe/probe.cpp" 2>/dev/null || flags+=(-Wno-tsan)
else
  echo "# no ThreadSanitizer here: interleavings only"
fi

make_model() {
  flock build/model/.lock make -s -f test/tools/model.mk -j "$jobs" "CXX=$compiler" "CXXFLAGS=${flags[*]}"
}
# A change of flags is a change of everything.
if [ "$(cat build/model/flags 2>/dev/null)" != "$compiler ${flags[*]}" ]; then
  rm -rf build/model && mkdir -p build/model
  echo "$compiler ${flags[*]}" >build/model/flags
fi
make_model
TSAN_OPTIONS="halt_on_error=0 exitcode=66 report_thread_leaks=0" build/model/hand_over "$@" || die "the model has found something"
