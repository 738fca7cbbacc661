import { randomInt } from 'node:crypto';
import type { GuestSession } from '@longhaul/guest';
import type { VmProvider } from '@longhaul/vm-providers';
import type { JobContext } from '../handler.js';
import { currentEpoch } from './epoch.js';
import { runScript } from './guest-script.js';

// What is set inside a guest, the same on every provider. Repeating any of it is harmless.

/** The kernel's own file, as not every guest has `hostname`; cloud-init would put the old name back at the next boot, in some images into /etc/hosts only. */
const HOSTNAME = `
printf '%s\\n' "$1" >/etc/hostname
printf '%s' "$1" >/proc/sys/kernel/hostname
{ sed '/^127\\.0\\.1\\.1[[:space:]]/d' /etc/hosts; printf '127.0.1.1 %s\\n' "$1"; } >/etc/hosts.longhaul
cat /etc/hosts.longhaul >/etc/hosts
rm /etc/hosts.longhaul
if [ -d /etc/cloud/cloud.cfg.d ]; then
  printf 'preserve_hostname: true\\nmanage_etc_hosts: false\\n' >/etc/cloud/cloud.cfg.d/99-longhaul-hostname.cfg
fi
sync`;

/**
 * BusyBox would hash with DES by default, which looks at eight characters, and may have no chpasswd at all. What is secret
 * stays in builtins of the shell, which other users of the guest do not see.
 */
const PASSWORD = `
umask 077
read -r line
case $(readlink -f "$(command -v chpasswd)") in
  */busybox) printf '%s\\n' "$line" | chpasswd -c sha512 ;;
  /*) printf '%s\\n' "$line" | chpasswd ;;
  *)
    hash=$(printf '%s\\n' "\${line#root:}" | mkpasswd -m sha512 -P 0)
    while IFS= read -r row; do
      case $row in root:*) row=root:$hash:\${row#root:*:} ;; esac
      printf '%s\\n' "$row"
    done </etc/shadow >/etc/shadow.longhaul
    cat /etc/shadow.longhaul >/etc/shadow
    rm /etc/shadow.longhaul ;;
esac
sync`;

const AUTHORIZE = `
umask 077
mkdir -p /root/.ssh
touch /root/.ssh/authorized_keys
read -r key
grep -qxF -- "$key" /root/.ssh/authorized_keys || printf '%s\\n' "$key" >>/root/.ssh/authorized_keys
sync`;

/** The device by its number, as /proc/mounts may call it /dev/root. growpart: 1 means that there was nothing to grow. */
const GROW = `
set -- $(awk '$5 == "/" { for (i = 7; i < NF; i++) if ($i == "-") print $3, $(i + 1) }' /proc/self/mountinfo | tail -n 1)
device=$(basename "$(readlink -f "/sys/dev/block/$1")")
if [ -e "/sys/class/block/$device/partition" ]; then
  disk=$(basename "$(dirname "$(readlink -f "/sys/class/block/$device")")")
  growpart "/dev/$disk" "$(cat "/sys/class/block/$device/partition")" >&2 || [ $? -eq 1 ]
fi
case $2 in
  ext*) resize2fs "/dev/$device" >&2 ;;
  xfs) xfs_growfs / >&2 ;;
  *) echo "a tool that grows $2: not found" >&2; exit 1 ;;
esac
sync`;

export const setHostname = (session: GuestSession, hostname: string) =>
  runScript(session, HOSTNAME, { args: [hostname] });

const setRootPassword = (session: GuestSession, password: string) =>
  runScript(session, PASSWORD, { stdin: `root:${password}\n` });

/** Lets the owner of an OpenSSH public key in as root. */
const authorizeKey = (session: GuestSession, publicKey: string) =>
  runScript(session, AUTHORIZE, { stdin: `${publicKey}\n` });

/** Gives the root file system all of a disk that has grown. */
export const growRootFileSystem = (session: GuestSession) => runScript(session, GROW);

/** Of a guest that has just been made: its epoch, the job's one-time secret as root's password, and who may log in. */
export async function welcomeOwner(
  context: JobContext,
  vmId: string,
  provider: VmProvider,
  publicKey: string | undefined,
): Promise<void> {
  const password = await context.secret(makePassword);
  await provider.guest(vmId).session(
    async (session) => {
      await currentEpoch(context.db, vmId, provider, session);
      if (publicKey !== undefined) await authorizeKey(session, publicKey);
      await setRootPassword(session, password.toString());
    },
    { holdMs: 60_000, signal: context.stop },
  );
}

/** Without those that look alike, as people type it into consoles. */
const LETTERS = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789';

/** About 139 bits of chance. */
const makePassword = () =>
  Buffer.from(Array.from({ length: 24 }, () => LETTERS[randomInt(LETTERS.length)]).join(''));
