#!/bin/bash
# SPDX-License-Identifier: PostgreSQL
#
# The idle herd (test/bench/lab/herd.sh) in a virtual machine, for machines whose own limit of open files is too low for
# it and cannot be raised.  The guest has Debian's kernel, and this machine's files: read-only, below a layer in its
# memory, so that it changes nothing here.
#
#   run_herd_in_machine.sh [CLIENTS]     100000 by default; through the pool, over TCP and the Unix socket
#
# What a client takes in memory is as true there as anywhere.  Where nothing virtualises the guest is emulated, and its
# rates mean nothing.  The report is build/lab/herd_in_machine.md, the measurements beside it.
#
# As root, on Debian or a descendant, amd64; installs what is missing for it.  KERNEL_PACKAGE=linux-image-...-amd64 takes another kernel than the newest of
# linux-image-amd64; GUEST_MEMORY_MB=8192; LAB_HERD_OVER, LAB_LEGS and LAB_HERD_SETTINGS go to the guest.

source "$(dirname "$0")/common.sh"
cd "$root"
[ "$EUID" -eq 0 ] || die "needs root: the guest has the files of this machine"
for command in apt-get dpkg; do
  command -v "$command" >/dev/null || die "needs $command (of Debian)"
done
# The guest has no network: what draws plots has to be here as well, but there is a report without it.  Its busybox is
# fetched below, and not installed.
test/tools/install_packages.sh qemu-system-x86 xz-utils || die 'could not install qemu-system-x86 and xz-utils'
test/tools/install_packages.sh gnuplot-nox || echo '# gnuplot could not be installed: there will be no plot' >&2
for command in qemu-system-x86_64 xz; do
  command -v "$command" >/dev/null || die "needs $command (of the packages qemu-system-x86 and xz-utils)"
done
find_postgres
clients=${1:-100000}

# Nothing of it is for the servers' user.
place=$(mktemp -d /tmp/pg_sluice_vm.XXXXXX)
guest=
trap '[ -z "$guest" ] || kill "$guest" 2>/dev/null || true; rm -rf "$place" "${workdir:-}"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$place"
mkdir "$place/result" "$place/ramdisk"

# ---------------------------------------------------------------- kernel and first steps

package=${KERNEL_PACKAGE:-$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')}
[ -n "$package" ] || die 'there is no linux-image-amd64: try "apt-get update"'
(cd "$place" && apt-get -q -o APT::Sandbox::User=root download "$package" busybox-static >/dev/null) || die "could not download $package and busybox-static"
for file in "$place"/*.deb; do dpkg -x "$file" "$place/packages"; done
busybox=$(find "$place/packages" -path '*bin/busybox')
modules=$(find "$place/packages" -path '*/lib/modules/*' -prune -type d)
[ -n "$modules" ] || die "$package has no modules"
find "$modules" -name '*.ko.xz' -print0 | xargs -0 -r -n 200 xz -d
"$busybox" depmod -b "${modules%/lib/modules/*}" "${modules##*/}"

# Modules for reaching the files of this machine; there is no need of others.
ramdisk=$place/ramdisk
mkdir -p "$ramdisk"/{bin,proc,sys,dev,host,layer,root} "$ramdisk/lib/modules/${modules##*/}"
cp "$busybox" "$ramdisk/bin/busybox"
ln -s busybox "$ramdisk/bin/sh"
cp "$modules"/modules.* "$ramdisk/lib/modules/${modules##*/}/"
for module in virtio_pci 9pnet_virtio 9p overlay; do
  sed -n "s,^\(.*/$module\.ko\):,\1 ,p" "$modules/modules.dep"
done | tr ' ' '\n' | sort -u | while read -r file; do
  [ -n "$file" ] || continue
  install -D "$modules/$file" "$ramdisk/lib/modules/${modules##*/}/$file"
done
cat >"$ramdisk/init" <<GUEST
#!/bin/sh
b=/bin/busybox
\$b mount -t proc proc /proc; \$b mount -t sysfs sysfs /sys; \$b mount -t devtmpfs dev /dev
for module in virtio_pci 9pnet_virtio 9p overlay; do \$b modprobe \$module; done
\$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host
\$b mount -t tmpfs -o size=50%,mode=755 layer /layer
\$b mkdir /layer/upper /layer/work
\$b mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /root
\$b mount -t proc proc /root/proc; \$b mount -t sysfs sysfs /root/sys; \$b mount -t devtmpfs dev /root/dev
\$b mkdir -p /root/dev/shm /root/dev/pts; \$b ln -s /proc/self/fd /root/dev/fd
\$b mount -t tmpfs -o mode=1777 shm /root/dev/shm; \$b mount -t devpts pts /root/dev/pts
\$b mount -t tmpfs -o mode=755 run /root/run
\$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 result "/root$place/result"
\$b ifconfig lo 127.0.0.1 up
echo "# guest with Linux \$(\$b uname -r)"
\$b chroot /root /bin/bash "$place/in_guest" </dev/null
\$b sync; \$b poweroff -f
GUEST
chmod 755 "$ramdisk/init"
# Twice as many files as clients, and some: each process has one for each client at most.
cat >"$place/in_guest" <<GUEST
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PG_CONFIG=$(printf %q "$pg_config")
: >"$place/result/booted"
echo $((clients * 2 + 100000)) >/proc/sys/fs/nr_open
echo $((clients * 8 + 100000)) >/proc/sys/fs/file-max
ulimit -n $((clients * 2 + 100000))
cd $(printf %q "$root")
export LAB_HERD_CLIENTS=$clients LAB_HERD_LIMIT=1800 LAB_ROUNDS=1 LAB_SECONDS=5
export LAB_LEGS=$(printf %q "${LAB_LEGS:-sluice}") LAB_HERD_OVER=$(printf %q "${LAB_HERD_OVER:-tcp unix}")
export LAB_HERD_SETTINGS=$(printf %q "${LAB_HERD_SETTINGS:-}")
# What it finds of an earlier run is this machine's, and not a result.
rm -f build/lab/herd*
test/bench/lab/herd.sh 2>&1
echo \$? >"$place/result/status"
cp build/lab/herd*.{csv,md,svg} "$place/result/"
GUEST
(cd "$ramdisk" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$place/initrd.gz"

# ---------------------------------------------------------------- the guest

# What is needed is built here, where it is quicker.
make_workdir
install_extension
build_load_generator

start_guest() {
  rm -f "$place/result"/*
  qemu-system-x86_64 -machine q35 "$@" -m "${GUEST_MEMORY_MB:-8192}" -smp 2 -nographic -no-reboot -net none \
    -kernel "$place"/packages/boot/vmlinuz-* -initrd "$place/initrd.gz" -append 'console=ttyS0 quiet panic=-1' \
    -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap" \
    -virtfs "local,path=$place/result,mount_tag=result,security_model=none" </dev/null >"$place/console" 2>&1 &
  guest=$!
  for ((second = 0; second < 120; second++)); do
    [ ! -e "$place/result/booted" ] || return 0
    kill -0 "$guest" 2>/dev/null || break
    sleep 1
  done
  kill "$guest" 2>/dev/null || true
  wait "$guest" || true
  guest=
  return 1
}

# Where this machine is a guest itself, there may be a /dev/kvm that cannot do it.
if [ -e /dev/kvm ] && start_guest -accel kvm -cpu host,-arch-capabilities; then
  note='in a virtual machine'
  limit=1800
else
  echo '# no guest with /dev/kvm: it is emulated'
  start_guest -accel tcg,thread=multi -cpu max || { tail -n 20 "$place/console"; die 'the guest did not start'; }
  note='in an emulated machine, whose rates and times mean nothing'
  limit=5400
fi
for ((second = 0; second < limit; second++)); do
  kill -0 "$guest" 2>/dev/null || break
  sleep 1
done
# The firmware leaves its escape sequences on the line where the guest begins.
tr -d '\r' <"$place/console" | sed -n 's/^.*# guest with/# guest with/; /^# guest/,$p'
[ -e "$place/result/status" ] || die "the guest did not end within $limit s, or broke down"
status=$(cat "$place/result/status")
if [ "$status" = 0 ]; then
  mkdir -p build/lab
  rm -f build/lab/herd_in_machine*
  { echo "The herd $note."; echo; cat "$place/result/herd.md"; } >build/lab/herd_in_machine.md
  cp "$place/result/herd.csv" build/lab/herd_in_machine.csv
  if [ -e "$place/result/herd_memory.svg" ]; then
    cp "$place/result/herd_memory.svg" build/lab/herd_in_machine_memory.svg
  else
    echo '# without a plot: the guest has drawn none' >&2
  fi
fi
exit "$status"
