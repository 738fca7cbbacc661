#!/usr/bin/env bash
# Builds a guest image from Debian packages. No systemd: busybox is init, and images/rootfs/ what it starts.
#
#   images/build.sh OUTPUT_DIRECTORY RECIPE [ARGUMENT...]
#
# makes OUTPUT_DIRECTORY with root.qcow2, vmlinuz, initrd and packages.txt (what was installed, with versions). It appears
# only when it is complete; when it exists already, nothing is done. Two builds at once: the second waits for the first.
# Runs as root or as any user with a range in /etc/subuid. Progress goes to stdout, one line a step.
#
# A recipe is images/RECIPE/recipe.sh, which is sourced with the arguments. It sets SUITE, PACKAGES, VARIANT and HOOK (of mmdebstrap: kind, and the last hook that it runs) and
# DISK_SIZE, and defines `finish`, which turns $root, as mmdebstrap left it, into the root of the image. Whatever it puts into
# $work/out comes out as well.
#
# Needs (names of Debian's packages): mmdebstrap uidmap fakeroot e2fsprogs qemu-utils cpio zstd, and
# debian-archive-keyring on hosts that are not Debian. On Debian the mirrors of the host's own apt are used.
set -euo pipefail

KERNEL=linux-image-cloud-amd64
# Loaded in this order by the initrd; each needs the ones before it. ext4 is built into the kernel.
BOOT_MODULES=(virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci
  block/virtio_blk)
# Hardware that a VM never has.
DROPPED_MODULES=(net/ethernet infiniband nvme hv xen gpu iio usb hid nvdimm thunderbolt)

here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { echo "usage: $0 OUTPUT_DIRECTORY RECIPE [ARGUMENT...]" >&2; exit 64; }
mkdir -p "$(dirname "$1")"
output=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C SOURCE_DATE_EPOCH=0

# shellcheck source=/dev/null
. "$here/$2/recipe.sh" "${@:3}"

say() { printf '%s\n' "$*"; }

# Prints apt lines for SUITE on the mirrors that this host itself uses for Debian; nothing on other systems.
host_sources() {
  command -v apt-get >/dev/null && [ -r /etc/debian_version ] || return 0
  # shellcheck disable=SC2016  # apt, not the shell, fills these in
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    awk -v suite="$SUITE" -v host="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" '
      host != "" && index($2, host) == 1 && $3 == "main" && $2 !~ /-(backports|proposed)/ {
        sub("^" host, suite, $2); print "deb", $1, $2, $3 }' | sort -u
}

# Runs inside the new root's user namespace: adds the kernel without its dependencies (they would bring initramfs tools).
# "$1" is the new root.
add_kernel() {
  local root=$1 image version module
  export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
  image=$(apt-cache depends "$KERNEL" | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
  mkdir "$root/kernel" && cd "$root/kernel"
  apt-get -o APT::Sandbox::User=root download "$image" >/dev/null
  dpkg-deb --fsys-tarfile ./*.deb | tar -x -C "$root" ./boot ./lib/modules
  echo "$image $(dpkg-deb -f ./*.deb Version)" >"$root/kernel.txt"
  cd / && rm -r "$root/kernel"
  version=$(ls "$root/lib/modules")
  for module in $dropped_modules; do rm -rf "$root/lib/modules/$version/kernel/drivers/$module"; done
  # Where it is missing, the recipe brings another one: modprobe's index is not the same for all.
  # -L, as its link leads out of the new root when seen from here.
  [ ! -L "$root/sbin/depmod" ] || chroot "$root" depmod "$version"
}

build() {
  local work=$1 root=$1/root
  mapfile -t sources < <(host_sources)
  say "Installing ${#PACKAGES[@]} packages of Debian $SUITE into a new root"
  export KERNEL hook dropped_modules="${DROPPED_MODULES[*]}"
  # As text: the hook runs under sh, which passes no functions on, and this file may be out of its sight.
  hook=$(declare -f add_kernel)
  mmdebstrap --mode=unshare --variant="$VARIANT" --quiet --include="$(IFS=,; echo "${PACKAGES[*]}")" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    "--$HOOK-hook="'bash -euc "$hook; add_kernel \"\$1\"" hook "$1"' \
    "$SUITE" - "${sources[@]}" >"$work/root.tar"

  say 'Adding the init, kernel modules and settings; making the disk'
  # fakeroot remembers the owners in the tar without being allowed to set them.
  mkdir "$work/out"
  export here work root DISK_SIZE
  export boot_modules="${BOOT_MODULES[*]}"
  fakeroot bash -euo pipefail -c "$(declare -f finish finish_root make_initrd); finish_root"

  say 'Compressing the disk'
  qemu-img convert -c -O qcow2 -o compression_type=zstd "$work/root.raw" "$work/out/root.qcow2"
  mv "$work"/{vmlinuz,initrd,packages.txt} "$work/out/"
  chmod 755 "$work/out"
  chmod 644 "$work"/out/*
}

finish_root() {
  mkdir "$root" && tar -x -f "$work/root.tar" -C "$root"
  local version
  version=$(ls "$root/lib/modules")
  mv "$root/boot/vmlinuz-$version" "$work/vmlinuz"
  rm -r "$root/boot" && mkdir "$root/boot"
  make_initrd "$root/lib/modules/$version/kernel/drivers"

  { cat "$root/kernel.txt"; dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package} ${Version}\n'; } >"$work/packages.txt"
  rm "$root/kernel.txt"
  finish
  cp -R "$here/rootfs/." "$root/"
  ln -sf /bin/busybox "$root/sbin/init"
  for command in halt poweroff reboot; do ln -sf /bin/busybox "$root/sbin/$command"; done
  chown -R 0:0 "$root/etc/inittab" "$root/etc/longhaul" && chmod 755 "$root"/etc/longhaul/*
  # root_owner: mke2fs would give the root directory to whoever builds.
  truncate -s "$DISK_SIZE" "$work/root.raw"
  mke2fs -q -t ext4 -d "$root" -L longhaul -m 1 -E root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0 "$work/root.raw"
}

make_initrd() {
  local drivers=$1 initrd=$work/initrd.d module
  mkdir -p "$initrd"/{bin,dev,proc,sys,root}
  cp "$root/bin/busybox" "$initrd/bin/"
  for module in $boot_modules; do cp "$drivers/$module.ko" "$initrd/"; done
  {
    echo '#!/bin/busybox sh'
    echo 'busybox mount -t devtmpfs dev /dev'
    for module in $boot_modules; do echo "busybox insmod /${module##*/}.ko"; done
    echo 'until [ -b /dev/vda ]; do busybox usleep 10000; done'
    echo 'busybox mount -t ext4 /dev/vda /root && busybox mount --move /dev /root/dev'
    echo 'exec busybox switch_root /root /sbin/init'
  } >"$initrd/init"
  chmod 755 "$initrd/init"
  find "$initrd" -exec touch -h -d @0 {} +
  (cd "$initrd" && find . | sort | cpio -o -H newc --reproducible --quiet) | zstd -q -f -o "$work/initrd"
}

exec 9>"$output.lock"
flock 9
if [ -e "$output" ]; then say "Already built: $output"; exit 0; fi
# What a killed build left: nobody else is at work, as the lock is ours.
rm -rf "$output".building.*
work=$(mktemp -d "$output.building.XXXXXX")
trap 'rm -rf "$work"' EXIT
build "$work"
mv -T "$work/out" "$output"
say "Built $output ($(du -sh "$output" | cut -f1))"
