# SPDX-License-Identifier: PostgreSQL
#
# What the scripts of this folder share; to be sourced.
#
# They run as root or as any user, but servers and tests never run as root:
# PostgreSQL refuses to.  All they make lies in one temporary directory in /tmp
# (not TMPDIR: the path of a socket must be short, and another user has to get
# there), or in build/, which version control ignores.

set -euo pipefail
umask 022
export LC_ALL=C
# A caller's make, and a caller's libpq settings, are not ours.
unset MAKEFLAGS MFLAGS MAKELEVEL
for name in "${!PG@}"; do
  [[ $name == PG_* ]] || unset "$name"
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
jobs=$(nproc)

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

as_root() {
  if [ "$EUID" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "need root or sudo for: $*"
  fi
}

# Sets pg_config, bindir and pgxs_src (where the server's test tools are).
find_postgres() {
  if [ -n "${PG_CONFIG:-}" ]; then
    pg_config=$(command -v "$PG_CONFIG") || die "there is no PG_CONFIG=$PG_CONFIG"
  else
    pg_config=$(command -v "/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config" || command -v pg_config) ||
      die "no pg_config found; run \"make packages\", or give PG_CONFIG=/path/to/pg_config"
  fi
  bindir=$("$pg_config" --bindir)
  pgxs_src=$(dirname "$(dirname "$("$pg_config" --pgxs)")")
  [ -d "$pgxs_src" ] || die "the server's development files are missing: $pgxs_src"
}

# Sets workdir, which belongs to the user that runs the servers.
make_workdir() {
  workdir=$(mktemp -d /tmp/pg_sluice.XXXXXX)
  if [ "$EUID" -eq 0 ]; then
    id postgres >/dev/null 2>&1 || die "no user \"postgres\", and servers do not run as root"
    chown postgres: "$workdir"
  fi
}

# Turns this shell into a command that runs as the user of the servers, in workdir.
become_server_user() {
  local -a drop=()
  [ "$EUID" -ne 0 ] || drop=(setpriv --reuid=postgres --regid=postgres --init-groups)
  cd "$workdir"
  exec "${drop[@]}" env HOME="$workdir" "$@"
}

as_server_user() {
  (become_server_user "$@")
}

# Builds the extension and makes it known to servers that read "$workdir/extension.conf".
#
# Debian's servers up to 17 can load an extension from below another root
# (extension_destdir), and those from 18 on along a path: then the system's
# directories stay as they are.  Any other server needs a real installation.
install_extension() {
  echo "# building pg_sluice for $("$pg_config" --version)"
  mkdir -p "$root/build"
  local -a make=(flock "$root/build/.lock" make -s -C "$root" "PG_CONFIG=$pg_config")
  "${make[@]}" -j "$jobs" all
  local stage=$workdir/stage settings
  settings=$("$bindir/postgres" --describe-config | cut -f 1)
  {
    if grep -qx extension_destdir <<<"$settings"; then
      echo "extension_destdir = '$stage'"
    elif grep -qx extension_control_path <<<"$settings"; then
      echo "extension_control_path = '$stage$("$pg_config" --sharedir):\$system'"
    else
      stage=
    fi
    # Also for extension_destdir, which does not reach shared_preload_libraries.
    [ -z "$stage" ] || echo "dynamic_library_path = '$stage$("$pg_config" --pkglibdir):\$libdir'"
  } >"$workdir/extension.conf"
  if [ -n "$stage" ]; then
    "${make[@]}" install DESTDIR="$stage" >/dev/null
  else
    as_root "${make[@]}" install >/dev/null
  fi
}

# Builds build/test/crosstalk/crosstalk, the clients of the cross-talk test.
build_crosstalk() {
  mkdir -p "$root/build/test"
  flock "$root/build/test/.lock" make -s -C "$root" -f test/tools/crosstalk.mk -j "$jobs" "PG_CONFIG=$pg_config"
}

# Builds build/test/bench/load_generator, the load generator.
build_load_generator() {
  mkdir -p "$root/build/test"
  flock "$root/build/test/.lock" make -s -C "$root" -f test/tools/load_generator.mk -j "$jobs" "PG_CONFIG=$pg_config"
}

# Prints $1 different ports of the loopback address that nobody uses now, below the range of outgoing connections.
free_ports() {
  perl -MIO::Socket::INET -e '
    my @held;
    for (1 .. 1000) {
      last if @held == $ARGV[0];
      my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 10200 + int(rand(22000)), Listen => 1);
      push @held, $socket if $socket;
    }
    die "no free port\n" if @held < $ARGV[0];
    print join(" ", map { $_->sockport } @held), "\n"' "$1"
}

# Prints the lines of server logs that explain a failure, or their ends where there is no such line.
explain_logs() {
  local log
  for log in "$@"; do
    [ -s "$log" ] || continue
    echo "# $log:"
    { grep -aE 'PANIC|FATAL|ERROR|WARNING|terminated|sluice[^.]' "$log" || cat "$log"; } | tail -n 40
  done
}
