#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# Fetches and unpacks the source package of the installed PostgreSQL server with Debian's own tools, and prints the
# directory.  The machine's package configuration stays untouched: its "deb" entries are copied as "deb-src" entries
# into a private directory, with private lists and a private cache.  A mirror that no longer has the exact version gives
# the newest one of the same major version, with a note: the regression suite belongs to the major version.
#
# Use: fetch_source.sh DIRECTORY MAJOR_VERSION      (progress on standard error)
set -euo pipefail

target=$1
major=$2
package=$(dpkg-query -W -f='${source:Package}' "postgresql-$major")
installed=$(dpkg-query -W -f='${source:Version}' "postgresql-$major")

mkdir -p "$target"
target=$(cd "$target" && pwd)
stamp=$target/fetched          # "installed version, fetched version, directory" of the last complete fetch
if [ -f "$stamp" ]; then
  read -r for_version _ directory <"$stamp"
  if [ "$for_version" = "$installed" ] && [ -f "$target/$directory/src/test/regress/parallel_schedule" ]; then
    echo "$target/$directory"
    exit 0
  fi
fi

apt=$target/apt
rm -rf "$apt" "$stamp"
mkdir -p "$apt/sources" "$apt/lists/partial" "$apt/cache/archives/partial"
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  [ -f "$list" ] || continue
  sed -n 's/^deb[[:space:]]/deb-src /p' "$list" >"$apt/sources/$(basename "$list" .list).list"
done
for list in /etc/apt/sources.list.d/*.sources; do
  [ -f "$list" ] || continue
  sed 's/^Types:.*/Types: deb-src/' "$list" >"$apt/sources/$(basename "$list")"
done

options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/sources" -o "Dir::State::lists=$apt/lists"
  -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Acquire::Languages=none
  -o Acquire::http::Timeout=60 -o Acquire::Retries=2)

echo "reading the lists of source packages" >&2
timeout 300 apt-get "${options[@]}" -qq update >&2 ||
  echo "note: not every package source could be read; going on with the rest" >&2

# The installed version first, then what the mirrors list for the same major version, newest first.
versions=$(apt-cache "${options[@]}" showsrc --only-source "$package" | sed -n 's/^Version: //p' | sort -u -V -r |
  grep -v -x -F "$installed" || true)
for version in "$installed" $versions; do
  echo "fetching the source of $package $version" >&2
  rm -rf "$target/package"
  mkdir "$target/package"
  if (cd "$target/package" &&
    timeout 600 apt-get "${options[@]}" -qq source --only-source --download-only "$package=$version") \
    >"$target/fetch.log" 2>&1; then
    directory=$package-$version
    rm -rf "${target:?}/$directory"
    # apt has verified the files; dpkg-source need not look for the uploader's key.
    dpkg-source --no-check --no-copy -x "$target"/package/*.dsc "$target/$directory" >"$target/fetch.log" 2>&1 ||
      { cat "$target/fetch.log" >&2; exit 1; }
    rm -rf "$target/package" "$apt" "$target/fetch.log"
    [ "$version" = "$installed" ] ||
      echo "note: $package $installed is installed, its source is not on the mirror; using the source of $version" >&2
    echo "$installed $version $directory" >"$stamp"
    echo "$target/$directory"
    exit 0
  fi
done
echo "no source package of $package could be fetched; the last attempt said:" >&2
tail -n 5 "$target/fetch.log" >&2
exit 1
