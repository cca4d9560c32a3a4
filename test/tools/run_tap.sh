#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Runs the end-to-end tests (PostgreSQL::Test::Cluster) against servers of their
# own.  Logs of tests that failed are shown, and all are kept in build/tap/.
#
#   run_tap.sh [test/tap/NNN_room_property.pl ...]    all by default

source "$(dirname "$0")/common.sh"
cd "$root"
find_postgres
shopt -s nullglob

if [ $# -gt 0 ]; then
  tests=("$@")
else
  tests=(test/tap/*.pl)
fi
[ ${#tests[@]} -gt 0 ] || die "there are no end-to-end tests"
for test in "${tests[@]}"; do
  [ -f "$test" ] || die "no such test: $test"
done

make_workdir
trap 'rm -rf "$workdir"' EXIT
trap 'exit 130' INT TERM
install_extension

# The server's user may not be able to read the checkout, and the tests write beside themselves.
mkdir -p "$workdir/test" "$workdir/run"
cp -R test/tap test/crosstalk test/bench "$workdir/test/"
build_crosstalk
cp build/test/crosstalk/crosstalk "$workdir/test/crosstalk/"
build_load_generator
cp build/test/bench/load_generator "$workdir/test/bench/"
[ "$EUID" -ne 0 ] || chown -R postgres: "$workdir/test" "$workdir/run"

echo "# end-to-end tests"
# TEMP_CONFIG ends up in every server's postgresql.conf.
status=0
as_server_user env \
  PATH="$bindir:$PATH" \
  PERL5LIB="$workdir/test/tap:$workdir/test/tap/lib:$pgxs_src/test/perl${PERL5LIB:+:$PERL5LIB}" \
  PG_REGRESS="$pgxs_src/test/regress/pg_regress" \
  TEMP_CONFIG="$workdir/extension.conf" \
  PG_TEST_PORT_DIR="$workdir/portlock" \
  bash -c '
    # One directory of logs per test: they run side by side.  TESTDIR is for PostgreSQL 15, the others for 16 on.
    cat >run_one <<\EOS
#!/bin/bash
name=$(basename "$1" .pl)
export TESTDIR=$PWD/run/$name TESTDATADIR=$PWD/run/$name/tmp_check TESTLOGDIR=$PWD/run/$name/tmp_check/log
mkdir -p "$TESTLOGDIR"
perl "$@" || { status=$?; touch "run/$name/failed"; exit "$status"; }
EOS
    chmod +x run_one
    exec prove --exec ./run_one --timer -j 2 "$@"' - "${tests[@]}" || status=$?

rm -rf build/tap
mkdir -p build/tap
for directory in "$workdir"/run/*/; do
  cp -R "$directory/tmp_check/log" "build/tap/$(basename "$directory")" 2>/dev/null || true
done

if [ "$status" -ne 0 ]; then
  for marker in "$workdir"/run/*/failed; do
    name=$(basename "$(dirname "$marker")")
    echo "# ---------------------------------------- $name"
    tail -n 60 "build/tap/$name/regress_log_$name" || true
    explain_logs "build/tap/$name/$name"_*.log
  done
  die "end-to-end tests failed; logs are in build/tap"
fi
