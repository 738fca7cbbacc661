import { randomBytes } from 'node:crypto';
import { AppError } from '@longhaul/errors';
import type { GuestChannel } from '@longhaul/guest';
import { macAddress } from './machine.js';
import { poll } from './programs.js';
import { NoProcess, withQmp } from './qmp.js';
import type { VmFiles } from './vm-files.js';

/**
 * Waits until the guest's agent answers. Errors: `guest_unreachable` after `timeoutMs`, NoProcess when the VM ends.
 * Sessions are only opened once the agent has opened its port, as talking to a closed port costs a time-out.
 */
export async function waitForAgent(files: VmFiles, guest: GuestChannel, timeoutMs: number): Promise<void> {
  const ready = await poll(async () => {
    const devices = await withQmp(files, (qmp) =>
      qmp.execute<{ label: string; 'frontend-open': boolean }[]>('query-chardev'),
    );
    if (!devices.some((device) => device.label === 'agent' && device['frontend-open'])) return undefined;
    return guest
      .session((session) => session.ping())
      .then(
        () => true,
        (error: unknown) => {
          if (error instanceof AppError) return undefined;
          throw error;
        },
      );
  }, timeoutMs);
  if (ready) return;
  const message = `The guest of VM ${files.id} did not answer within ${Math.round(timeoutMs / 1000)} s of being started.`;
  throw new AppError('guest_unreachable', message);
}

/** Resolves to whether the guest has powered off within `timeoutMs`; a process that is gone counts as off. */
export async function waitForPowerOff(files: VmFiles, timeoutMs: number): Promise<boolean> {
  const off = await poll(
    async () => {
      try {
        const query = withQmp(files, (qmp) => qmp.execute<{ status: string }>('query-status'));
        return (await query).status === 'shutdown' || undefined;
      } catch (error) {
        if (error instanceof NoProcess) return true;
        throw error;
      }
    },
    timeoutMs,
    100,
  );
  return off ?? false;
}

/** What every VM made from one memory image shares: names, identifiers, random numbers to come. */
const PERSONALISE = `
set -e
printf '%s\\n' "$1" >/etc/hostname
printf '127.0.0.1 localhost\\n::1 localhost\\n127.0.1.1 %s\\n' "$1" >/etc/hosts
hostname "$1"
printf '%s\\n' "$2" >/etc/machine-id
ip link set eth0 address "$3"
perl -e '
  read(STDIN, $seed, 64) == 64 or die "no seed";
  open($random, ">", "/dev/urandom") or die $!;
  ioctl($random, 0x40085203, pack("iia*", 512, 64, $seed)) or die $!;  # RNDADDENTROPY
  ioctl($random, 0x5207, 0) or die $!;                                 # RNDRESEEDCRNG
'
if [ -e "$4" ]; then resize2fs "$4"; fi
sync
`;

/** Gives a guest its own identity and its file system all of the disk. Repeatable. */
export async function personalise(guest: GuestChannel, id: string, hostname: string): Promise<void> {
  const args = ['-c', PERSONALISE, 'sh', hostname, id.replaceAll('-', ''), macAddress(id), '/dev/vda'];
  const program = { path: '/bin/sh', args, stdin: randomBytes(64) };
  const holdMs = 60_000;
  const done = await guest.session((session) => session.run(program, holdMs), { holdMs });
  if (done.exitCode === 0) return;
  throw new Error(`The guest could not be set up: ${done.stderr.toString('utf8').slice(-1000)}`);
}
