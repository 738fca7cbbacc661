# shellcheck shell=bash disable=SC2034  # images/build.sh reads these
# Debian's essential packages and those below. Argument: the suite.
SUITE=$1
VARIANT=essential HOOK=customize
DISK_SIZE=10G
PACKAGES=(
  qemu-guest-agent                                    # the only way in: runs commands for the worker
  busybox-static                                      # init, and all of the initrd
  mount kmod e2fsprogs iproute2 procps                # modules, growing the disk, network, ps
  ca-certificates curl openssh-server nginx-light nftables
)

finish() {
  # Everything that must differ between two VMs: made when a VM is created, never part of the image.
  rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
  touch "$root/etc/machine-id"
}
