/**
 * Which paths of a guest the tools for files leave alone, as functions of POSIX sh that take a path without symlinks.
 * Whoever may run commands gets at them all the same. docs/files.md explains the lists.
 */

/** no_write PATH: succeeds for what an installation must not touch. */
export const NO_WRITE = `
no_write() {
  case $1/ in
    [!/]*) return ;;
    /proc/* | /sys/* | /dev/* | /boot/* | /efi/* | /run/longhaul/* | /var/lib/longhaul/*) return ;;
    /etc/passwd/ | /etc/passwd-/ | /etc/group/ | /etc/group-/ | /etc/shadow* | /etc/gshadow* | /etc/sudoers*) return ;;
    /etc/doas.conf/ | /etc/pam.d/* | /etc/ld.so.preload/ | /etc/ssh/ssh_host_* | */.ssh/*) return ;;
  esac
  return 1
}
`;

/** no_read PATH: succeeds for what is secret, and for what is no file as others are. */
export const NO_READ = `
no_read() {
  case $1/ in
    [!/]*) return ;;
    /proc/* | /sys/* | /dev/* | /run/longhaul/* | /var/lib/longhaul/* | /run/credentials/* | /swap*) return ;;
    /etc/shadow* | /etc/gshadow* | /etc/ssh/ssh_host_*_key/ | /etc/ssl/private/* | /var/lib/systemd/random-seed/) return ;;
    */.ssh/* | */.gnupg/* | */.aws/* | */.kube/* | */.docker/config.json/ | */.config/gcloud/*) return ;;
    */.netrc/ | */.pgpass/ | */.my.cnf/ | */.git-credentials/ | */.npmrc/ | */.pypirc/) return ;;
    *.key/ | *-key.pem/ | */privkey*.pem/ | *.p12/ | *.pfx/ | *.jks/ | *.kdbx/ | *_rsa/ | *_ed25519/ | *_ecdsa/) return ;;
  esac
  return 1
}
`;
