import { AppError } from '@longhaul/errors';
import type { GuestChannel, GuestSession } from '@longhaul/guest';
import { ANY_VM, NoProcess, withQmp } from '../qemu/qmp.js';

/** What a machine says of itself. Sizes are those of the whole machine and of its root file system. */
export interface GuestFacts {
  hostname: string;
  system: string;
  cpus: number;
  memoryMb: number;
  diskGb: number;
}

const FACTS = `
for tool in setsid dd mkfifo mktemp stat; do command -v "$tool" >/dev/null || { echo "$tool" >&2; exit 1; }; done
[ "$(id -u)" = 0 ] || { echo 'the right to do everything' >&2; exit 1; }
hostname
(. /etc/os-release && echo "$PRETTY_NAME") 2>/dev/null || uname -sr
nproc
while read -r name size rest; do [ "$name" != MemTotal: ] || echo "$size"; done </proc/meminfo
df -Pk / | { read -r line; read -r device size rest; echo "$size"; }
`;

/** Looks whether commands can run there. Errors: those of the channel; `guest_missing_dependency`. */
export async function inspectGuest(channel: GuestChannel): Promise<GuestFacts> {
  const program = { path: 'sh', args: ['-c', FACTS] };
  // The first login to a busy machine may take long, and nobody else waits for it yet.
  const inspect = (guest: GuestSession) => guest.run(program, 10_000);
  const { exitCode, stdout, stderr } = await channel.session(inspect, { holdMs: 60_000 });
  const lines = stdout.toString('utf8').split('\n');
  const [hostname = '', system = ''] = lines.map((line) => line.replace(/[^ -~]/g, '').slice(0, 100));
  const [cpus, memoryKb, diskKb] = lines.slice(2, 5).map(Number);
  if (exitCode !== 0 || !cpus || !memoryKb || !diskKb) {
    const lack = stderr
      .toString('utf8')
      .replace(/[^ -~]/g, ' ')
      .trim()
      .slice(0, 200);
    throw new AppError('guest_missing_dependency', `The machine lacks what commands need there: ${lack}`);
  }
  return {
    hostname,
    system,
    cpus,
    memoryMb: Math.round(memoryKb / 1024),
    diskGb: Math.max(1, Math.round(diskKb / 2 ** 20)),
  };
}

/** The uuid and the state of the VM whose QMP socket it is. Errors: `unavailable`, when QEMU does not answer there. */
export async function inspectQemu(qmp: string, locks: string): Promise<{ uuid: string; state: string }> {
  try {
    return await withQmp({ id: ANY_VM, qmp: [qmp], locks }, async (session) => {
      const { UUID } = await session.execute<{ UUID: string }>('query-uuid');
      return { uuid: UUID, state: (await session.execute<{ status: string }>('query-status')).status };
    });
  } catch (error) {
    const advice =
      error instanceof NoProcess
        ? 'Nobody listens there.'
        : 'It serves one connection: is another program (libvirt, a console) on it? Then give QEMU one more -qmp.';
    throw new AppError('unavailable', `QEMU does not answer on ${qmp}. ${advice}`, undefined, {
      cause: error,
    });
  }
}
