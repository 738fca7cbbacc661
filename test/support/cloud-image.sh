#!/usr/bin/env bash
# Builds from Debian's packages what Debian's cloud images are: a disk that boots by BIOS, with GRUB, systemd and cloud-init,
# without a guest agent. For machines that reach mirrors of packages but none of images.
#
#   test/support/cloud-image.sh OUTPUT.qcow2
#
# OUTPUT appears only when it is complete; when it exists already, nothing is done. Needs what images/build.sh needs.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

PACKAGES=(
  linux-image-cloud-amd64 grub-pc-bin cloud-initramfs-growroot zstd
  systemd-sysv udev dbus libpam-systemd systemd-resolved systemd-timesyncd netplan.io
  cloud-init cloud-guest-utils fdisk openssh-server sudo iproute2 procps
)
# MiB. The file system begins behind the first one, where GRUB has room.
SIZE=2048

output=$1
[ ! -e "$output" ] || exit 0
mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$output.building.XXXXXX")
trap 'rm -rf "$work"' EXIT
export work SIZE

# shellcheck disable=SC2016  # "$1" is for the hook
mmdebstrap --mode=unshare --variant=minbase --quiet --include="$(IFS=,; echo "${PACKAGES[*]}")" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='chroot "$1" grub-mkimage -O i386-pc -o /boot/core.img -p "(hd0,msdos1)/boot/grub" biosdisk part_msdos ext2 normal linux serial' \
  bookworm >"$work/root.tar"

make_disk() {
  local root=$work/root
  mkdir "$root" && tar -x -f "$work/root.tar" -C "$root" --exclude='./dev/*'
  # Made anew by each VM.
  rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/etc/hostname"
  : >"$root/etc/machine-id"
  echo 'LABEL=system / ext4 defaults 0 1' >"$root/etc/fstab"
  # As in Debian's images; a locale needs a package more.
  printf '%s\n' 'manage_etc_hosts: true' 'locale: C.UTF-8' >"$root/etc/cloud/cloud.cfg.d/01_debian_cloud.cfg"
  mkdir -p "$root/boot/grub"
  printf '%s\n' 'serial --unit=0 --speed=115200' 'terminal_input serial' 'terminal_output serial' \
    'linux /vmlinuz root=LABEL=system ro console=tty0 console=ttyS0,115200' 'initrd /initrd.img' boot >"$root/boot/grub/grub.cfg"
  truncate -s "${SIZE}M" "$work/disk.raw"
  mke2fs -q -t ext4 -L system -d "$root" -E offset=$((1 << 20)),root_owner=0:0 "$work/disk.raw" "$((SIZE - 1))M"
}
fakeroot bash -euo pipefail -c "$(declare -f make_disk); make_disk"

# patch OFFSET: standard input over that place of the disk.
patch() { dd of="$work/disk.raw" bs=1 seek="$1" conv=notrunc status=none; }
number() { printf '%08x' "$1" | sed 's/\(..\)\(..\)\(..\)\(..\)/\\x\4\\x\3\\x\2\\x\1/'; }
head -c 440 "$work/root/usr/lib/grub/i386-pc/boot.img" | patch 0
patch 512 <"$work/root/boot/core.img"
# One partition, active, of Linux, to the end; then the mark of a boot sector.
printf '%b' "\x80\0\0\0\x83\0\0\0$(number 2048)$(number $(((SIZE - 1) * 2048)))" | patch 446
printf '\x55\xaa' | patch 510

qemu-img convert -c -O qcow2 -o compression_type=zstd "$work/disk.raw" "$work/disk.qcow2"
chmod 644 "$work/disk.qcow2"
mv "$work/disk.qcow2" "$output"
