#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Runs sql/*.sql with pg_regress, in alphabetical order, on a temporary server
# that has pg_sluice preloaded, and compares with expected/*.out.  What came out
# is kept in build/regress/.
#
#   run_regress.sh [name ...]    all by default

source "$(dirname "$0")/common.sh"
cd "$root"
find_postgres
shopt -s nullglob

if [ $# -gt 0 ]; then
  tests=("$@")
else
  tests=(sql/*.sql)
fi
[ ${#tests[@]} -gt 0 ] || die "there are no regression tests"
tests=("${tests[@]#sql/}")
tests=("${tests[@]%.sql}")

make_workdir
trap 'rm -rf "$workdir"' EXIT
trap 'exit 130' INT TERM
install_extension

# The server's user may not be able to read the checkout.
cp -R sql expected "$workdir/"
read -r port sluice_port < <(free_ports 2)
cat >>"$workdir/extension.conf" <<CONF
shared_preload_libraries = 'pg_sluice'
sluice.port = $sluice_port
sluice.listen_addresses = '127.0.0.1'
CONF

echo "# regression tests"
status=0
as_server_user "$pgxs_src/test/regress/pg_regress" --bindir="$bindir" --inputdir="$workdir" \
  --outputdir="$workdir/output" --temp-instance="$workdir/instance" --temp-config="$workdir/extension.conf" \
  --port="$port" --no-locale --encoding=UTF8 --dbname=contrib_regression "${tests[@]}" || status=$?

rm -rf build/regress
mkdir -p build/regress
cp -R "$workdir"/output/. build/regress/ 2>/dev/null || true
if [ "$status" -ne 0 ]; then
  [ ! -s build/regress/regression.diffs ] || head -n 200 build/regress/regression.diffs
  explain_logs build/regress/log/postmaster.log
  die "regression tests failed; results are in build/regress"
fi
