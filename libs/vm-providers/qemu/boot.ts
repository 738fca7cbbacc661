import { randomBytes } from 'node:crypto';
import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import type { GuestChannel, GuestSession, SessionOptions } from '@longhaul/guest';
import { CONSOLE_BYTES, macAddress } from './machine.js';
import { poll } from './programs.js';
import { NoProcess, withQmp, type QmpFiles, type QmpSession } from './qmp.js';
import type { VmFiles, VmRecord } from './vm-files.js';

/** How long setting up a guest may hold its channel. */
export const GREETING_MS = 60_000;
const TRY_CLOSED_MS = 10_000;

/**
 * Waits until the guest's agent answers, then does `greet` in the same session; `greet` may be repeated. Errors: `guest_unreachable` after `timeoutMs`, NoProcess when the VM ends.
 * As talking to a closed port costs a time-out, it is tried rarely: QEMU shows a port as closed, too, whose socket was swapped
 * since the agent opened it.
 */
export async function waitForAgent(
  files: VmFiles,
  guest: GuestChannel,
  timeoutMs: number,
  greet: (session: GuestSession) => Promise<void> = (session) => session.ping(),
): Promise<void> {
  let isOpen = false;
  let tryClosedAt = performance.now() + TRY_CLOSED_MS;
  const ready = await poll(async () => {
    const devices = await withQmp(files, (qmp) =>
      qmp.execute<{ label: string; 'frontend-open': boolean }[]>('query-chardev'),
    );
    isOpen = devices.some((device) => device.label === 'agent' && device['frontend-open']);
    if (!isOpen && performance.now() < tryClosedAt) return undefined;
    tryClosedAt = performance.now() + TRY_CLOSED_MS;
    return tryGreeting(guest, greet, { holdMs: GREETING_MS });
  }, timeoutMs);
  if (ready) return;
  const message = `The guest of VM ${files.id} did not answer within ${Math.round(timeoutMs / 1000)} s of being started.`;
  const said = await withQmp(files, (qmp) =>
    qmp.execute<string>('ringbuf-read', { device: 'console', size: CONSOLE_BYTES }),
  ).catch(String);
  const cause = new Error(
    `Its agent's port is ${isOpen ? 'open' : 'closed'}; its console said: ${said.slice(-1000)}`,
  );
  throw new AppError('guest_unreachable', message, undefined, { cause });
}

/** True once `greet` was done; undefined while the guest does not let it. */
export async function tryGreeting(
  guest: GuestChannel,
  greet: (session: GuestSession) => Promise<void>,
  options?: SessionOptions,
): Promise<true | undefined> {
  try {
    await guest.session(greet, options);
    return true;
  } catch (error) {
    if (error instanceof AppError) return undefined;
    throw error;
  }
}

export async function pressReset(qmp: QmpSession): Promise<void> {
  await qmp.execute('system_reset');
  // From this event on the old guest is gone: whatever answers is the new one.
  await qmp.event('RESET', 5_000);
  failpoint('reset');
}

/** Resolves to whether the guest has powered off within `timeoutMs`; a process that is gone counts as off. */
export async function waitForPowerOff(files: QmpFiles, timeoutMs: number): Promise<boolean> {
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
printf '%s\\n' "$2" >/etc/hostname
printf '127.0.0.1 localhost\\n::1 localhost\\n127.0.1.1 %s\\n' "$2" >/etc/hosts
hostname "$2"
printf '%s\\n' "$3" >/etc/machine-id
ip link set eth0 address "$4"
# The random numbers of VMs that begin from one memory are the same until then. Only images with perl have such a memory.
if command -v perl >/dev/null; then perl -e '
  read(STDIN, $seed, 64) == 64 or die "no seed";
  open($random, ">", "/dev/urandom") or die $!;
  ioctl($random, 0x40085203, pack("iia*", 512, 64, $seed)) or die $!;  # RNDADDENTROPY
  ioctl($random, 0x5207, 0) or die $!;                                 # RNDRESEEDCRNG
'; fi
if [ "$5" = larger ]; then resize2fs /dev/vda; fi
sync
`;

/** busybox knows no fractions. date, as the agent's own guest-set-time waits for the next second of the emulated hardware clock. */
const SET_CLOCK = 'set -e; date -s "@$1" >/dev/null 2>&1 || date -s "@${1%.*}" >/dev/null';

export async function setClock(session: GuestSession): Promise<void> {
  await runInGuest(session, SET_CLOCK, []);
}

/** Sets the clock, gives a guest its own identity and its file system all of a larger disk. Repeatable. */
export async function personalise(
  session: GuestSession,
  { spec, isLarger }: Pick<VmRecord, 'spec' | 'isLarger'>,
): Promise<void> {
  const disk = isLarger ? 'larger' : 'as it is';
  const args = [spec.hostname, spec.id.replaceAll('-', ''), macAddress(spec.id), disk];
  await runInGuest(session, SET_CLOCK + PERSONALISE, args);
}

async function runInGuest(session: GuestSession, script: string, args: string[]): Promise<void> {
  const words = ['-c', script, 'sh', `${Date.now() / 1000}`, ...args];
  const program = { path: '/bin/sh', args: words, stdin: randomBytes(64) };
  const done = await session.run(program, GREETING_MS);
  if (done.exitCode === 0) return;
  throw new Error(`The guest could not be set up: ${done.stderr.toString('utf8').slice(-1000)}`);
}
