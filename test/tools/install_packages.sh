#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Installs the Debian packages that are needed to build, test and demonstrate
# pg_sluice, and those named as arguments; does nothing, and asks for no
# password, if all are there.  Packages that are there are not upgraded, unless
# a missing one cannot be installed otherwise.
#
# No service starts because of it: no cluster "main", no pgbouncer, no pgpool.
# Two files make sure of that while apt runs, and both are gone at the end: a
# piece of configuration that keeps postgresql-common from making the cluster,
# and, unless the machine has one of its own, a policy-rc.d that refuses these
# three services only.  Clusters that exist already are not touched.

source "$(dirname "$0")/common.sh"

packages=(g++ make libboost-dev libcmocka-dev libipc-run-perl libkrb5-dev libnet-ssleay-perl libpq-dev openssl "$@")
# A server that was built from source is its owner's matter.  pgbench comes with the server's package.
if [ -z "${PG_CONFIG:-}" ]; then
  packages+=("postgresql-${PG_MAJOR:-15}" "postgresql-server-dev-${PG_MAJOR:-15}")
fi

if ! command -v apt-get >/dev/null; then
  echo "this is no Debian: make sure yourself that these or their like are installed: ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "# installing ${missing[*]}"
[ "$EUID" -eq 0 ] || command -v sudo >/dev/null || die "need root or sudo to install: ${missing[*]}"

cluster_conf=/etc/postgresql-common/createcluster.d/zz_pg_sluice_setup.conf
policy=/usr/sbin/policy-rc.d
own_policy=

restore() {
  as_root rm -f "$cluster_conf"
  as_root rmdir --ignore-fail-on-non-empty "$(dirname "$cluster_conf")" 2>/dev/null || true
  [ -z "$own_policy" ] || as_root rm -f "$policy"
}
trap restore EXIT
trap 'exit 130' INT TERM

as_root mkdir -p "$(dirname "$cluster_conf")"
echo 'create_main_cluster = false' | as_root tee "$cluster_conf" >/dev/null
if [ ! -e "$policy" ]; then
  own_policy=yes
  as_root tee "$policy" >/dev/null <<'POLICY'
#!/bin/sh
# Made for one run of apt-get by pg_sluice's install_packages.sh; may be removed.
case "$1" in postgresql* | pgbouncer* | pgpool*) exit 101 ;; esac
exit 0
POLICY
  as_root chmod 755 "$policy"
fi

apt=(as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout=300)
# An index that cannot be refreshed may still be good enough: the installation tells.
"${apt[@]}" update >/dev/null || echo "# apt-get update failed; trying with the index there is" >&2
"${apt[@]}" -o Dpkg::Options::=--force-confold install --no-upgrade --no-install-recommends "${missing[@]}"

# Installed for a comparison only: not to start with the machine either.
for package in pgbouncer pgpool2; do
  if [[ " ${missing[*]} " == *" $package "* ]]; then
    as_root update-rc.d "$package" disable >/dev/null 2>&1 || true
  fi
done
