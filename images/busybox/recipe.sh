# shellcheck shell=bash disable=SC2034  # images/build.sh reads these
# A kernel, busybox, the guest agent with its libraries, and what grows the disk. Nothing is installed, only taken out of the
# packages, so that it is built in seconds. Comes with agent.tar.gz: the agent and its libraries below usr/local/lib/longhaul,
# which run on any Linux.
SUITE=bookworm
VARIANT=extract HOOK=extract
DISK_SIZE=1G
PACKAGES=(qemu-guest-agent busybox-static e2fsprogs)

finish() {
  local packages=$root version loader library module
  root=$work/small
  version=$(ls "$packages/lib/modules")
  mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,lib/modules/"$version",lib64,etc,dev,proc,sys,run,tmp,root,boot,mnt,opt,var/lib,var/log,var/tmp}
  chmod 1777 "$root/tmp" "$root/var/tmp" && chmod 700 "$root/root"
  for name in lib sbin; do mkdir -p "$root/usr/$name"; done

  cp "$packages/bin/busybox" "$root/bin/"
  "$root/bin/busybox" --list-full | while read -r applet; do
    [ "$applet" = bin/busybox ] || ln -sf /bin/busybox "$root/$applet"
  done

  local bundle=$work/agent/usr/local/lib/longhaul
  mkdir -p "$bundle"
  cp "$packages/usr/sbin/qemu-ga" "$packages/sbin/resize2fs" "$root/usr/sbin/"
  loader=$packages/lib64/ld-linux-x86-64.so.2
  loader=$packages/$(readlink "$loader" | sed 's,^/,,')
  for program in "$packages/usr/sbin/qemu-ga" "$packages/sbin/resize2fs"; do
    env -u LD_PRELOAD "$loader" --library-path "$packages/lib/x86_64-linux-gnu:$packages/usr/lib/x86_64-linux-gnu" --list "$program" |
      sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'
  done | sort -u | while read -r library; do
    case $library in *ld-linux*) continue ;; esac
    cp -L "$library" "$bundle/"
    cp -L "$library" "$root/usr/lib/"
    ln -sf "../usr/lib/${library##*/}" "$root/lib/${library##*/}"
  done
  cp -L "$loader" "$root/lib64/ld-linux-x86-64.so.2"
  cp -L "$loader" "$bundle/ld.so"
  cp "$packages/usr/sbin/qemu-ga" "$bundle/"
  tar -c -z -f "$work/out/agent.tar.gz" -C "$work/agent" usr

  for module in drivers/virtio drivers/block/virtio_blk.ko drivers/net/virtio_net.ko drivers/net/net_failover.ko \
    net/core/failover.ko drivers/char/virtio_console.ko drivers/char/hw_random drivers/acpi/button.ko drivers/input/evdev.ko; do
    mkdir -p "$root/lib/modules/$version/kernel/${module%/*}"
    cp -R "$packages/lib/modules/$version/kernel/$module" "$root/lib/modules/$version/kernel/$module"
  done
  cp "$packages/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$version/"
  chroot "$root" /bin/busybox depmod "$version"

  echo 'root:*:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
  echo 'root:*::0:99999:7:::' >"$root/etc/shadow" && chmod 640 "$root/etc/shadow"
  printf '%s\n' root:x:0: tty:x:5: shadow:x:42: nogroup:x:65534: >"$root/etc/group"
  local release
  release=$("$root/bin/busybox" | sed -n '1s/BusyBox v\([0-9.]*\).*/\1/p')
  printf '%s\n' ID=busybox NAME=BusyBox "VERSION_ID=$release" "PRETTY_NAME=\"BusyBox $release\"" >"$root/etc/os-release"
  touch "$root/etc/machine-id"
}
