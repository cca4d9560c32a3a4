#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Proves that the core is pure and its headers complete, then builds and runs
# the unit tests, with sanitizers where the compiler has them.
#
#   run_unit.sh [test_<noun> ...]    all by default

source "$(dirname "$0")/common.sh"
cd "$root"

echo "# unit tests"
mkdir -p build/unit

# The wall: the core includes itself, the standard library and Boost.  A path would get around the missing include
# directory, so the text is looked at too.
if grep -rnE '^[[:space:]]*#[[:space:]]*include' src/core --include='*.[ch]pp' |
  grep -vE 'include[[:space:]]*("core/|<[a-z_0-9]+>|<boost/)'; then
  die "src/core may include \"core/...\", <the standard library> and <boost/...> only"
fi

make_variables=()
probe=$(mktemp -d /tmp/pg_sluice.XXXXXX)
trap 'rm -rf "$probe"' EXIT
echo 'int main() { return 0; }' >"$probe/probe.cpp"
if ! { g++ -fsanitize=address,undefined -o "$probe/probe" "$probe/probe.cpp" && "$probe/probe"; } 2>/dev/null; then
  echo "# no sanitizers here: building without"
  make_variables+=(SANITIZE=)
fi
# A change of flags is a change of everything.
if [ "$(cat build/unit/flags 2>/dev/null)" != "flags ${make_variables[*]:-}" ]; then
  rm -rf build/unit && mkdir -p build/unit
  echo "flags ${make_variables[*]:-}" >build/unit/flags
fi

flock build/unit/.lock make -s -f test/tools/unit.mk -j "$jobs" "${make_variables[@]}" headers tests

shopt -s nullglob
if [ $# -gt 0 ]; then
  tests=("$@")
else
  tests=(test/unit/test_*.cpp)
fi
[ ${#tests[@]} -gt 0 ] || die "there are no unit tests"

failed=()
for source in "${tests[@]}"; do
  name=$(basename "$source" .cpp)
  if "build/unit/$name" >"$probe/output" 2>&1; then
    printf '%-40s ok    %s tests\n' "$name" "$(grep -cF '[       OK ]' "$probe/output" || true)"
  else
    printf '%-40s FAILED (exit code %s)\n' "$name" $?
    grep -vE '^\[( RUN      |       OK )\]' "$probe/output" | sed 's/^/    /' || true
    failed+=("$name")
  fi
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
