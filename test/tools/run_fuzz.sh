#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Builds the fuzz targets with clang's sanitizers and runs each for a while.
#
#   run_fuzz.sh [target ...]         all of test/fuzz/*.cpp by default
#   FUZZ_SECONDS=15                  how long each
#   FUZZ_RUNS=20000000               how many executions each, however long they take
#
# The corpus in test/fuzz/corpus is only read: inputs that reach something new are kept in build/fuzz/corpus, and used
# by the next run.  An input that fails is kept in build/fuzz/findings.

source "$(dirname "$0")/common.sh"
cd "$root"

# The longest input of each target; short ones are more by the second.  A SASL message may have 1024 bytes: one that is
# too long fits, and one behind it.  Parameters of a start-up packet are too many from 300 bytes on.
longest_input() {
  case $1 in
    sasl_exchange) echo 1536 ;;
    *) echo 512 ;;
  esac
}
# An input takes microseconds; one that takes a minute never ends.
hangs_after_seconds=60

echo "# fuzz targets"
command -v clang++ >/dev/null ||
  die "there is no clang++: the fuzz targets need clang and its runtime (Debian: clang and libclang-rt-dev)"
mkdir -p build/fuzz/findings
if ! clang++ -fsanitize=fuzzer,address,undefined -x c++ -o build/fuzz/probe - 2>build/fuzz/probe.log <<'PROBE'; then
extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }
PROBE
  tail -n 3 build/fuzz/probe.log >&2
  die "this clang++ has no fuzzer or no sanitizers (Debian: libclang-rt-dev)"
fi
rm -f build/fuzz/probe build/fuzz/probe.log
flock build/fuzz/.lock make -s -f test/tools/fuzz.mk -j "$jobs"

targets=("$@")
if [ $# -eq 0 ]; then
  for source in test/fuzz/*.cpp; do
    targets+=("$(basename "$source" .cpp)")
  done
fi

if [ -n "${FUZZ_RUNS:-}" ]; then
  length=("-runs=$FUZZ_RUNS")
else
  length=("-max_total_time=${FUZZ_SECONDS:-15}")
fi

# The core allocates nothing: memory that was freed need not be kept for long.
export ASAN_OPTIONS=quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1

statistic() {
  sed -n "s/^stat::$1: *//p" "$log"
}

failed=()
for target in "${targets[@]}"; do
  [ -x "build/fuzz/bin/$target" ] || die "no such target: $target"
  log=build/fuzz/$target.log
  options=("${length[@]}" "-max_len=$(longest_input "$target")" "-timeout=$hangs_after_seconds" -print_final_stats=1
    "-artifact_prefix=build/fuzz/findings/$target-")
  [ ! -e "test/fuzz/dictionary/$target" ] || options+=("-dict=test/fuzz/dictionary/$target")
  mkdir -p "build/fuzz/corpus/$target"
  status=0
  "build/fuzz/bin/$target" "${options[@]}" "build/fuzz/corpus/$target" "test/fuzz/corpus/$target" >"$log" 2>&1 ||
    status=$?
  if [ "$status" -eq 0 ]; then
    printf '%-20s ok      %s executions, %s executions/s\n' "$target" \
      "$(statistic number_of_executed_units)" "$(statistic average_exec_per_sec)"
  else
    printf '%-20s FAILED  %s executions (exit code %s)\n' "$target" "$(statistic number_of_executed_units)" "$status"
    # Without the fuzzer's own part of the stack.
    { grep -aE '^violated property|ERROR: |runtime error|SUMMARY: |^ +#[0-9]+ |^Base64: ' "$log" || tail -n 20 "$log"; } |
      grep -avE '#[0-9]+ .*(fuzzer::Fuzzer|libc|_start| in main )' | head -n 40 | sed 's/^/    /'
    reproducer=$(sed -n 's/^.*Test unit written to //p' "$log" | tail -n 1)
    [ -z "$reproducer" ] || echo "    again: build/fuzz/bin/$target $reproducer"
    failed+=("$target")
  fi
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}; logs are in build/fuzz, inputs in build/fuzz/findings"
