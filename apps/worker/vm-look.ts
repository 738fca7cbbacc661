import { AppError } from '@longhaul/errors';
import { readEpoch, type GuestSession } from '@longhaul/guest';
import type { Database, Vm } from '@longhaul/persistence';
import { currentEpoch } from '@longhaul/toolsets/vms/epoch';
import { observedOf, type Observed } from '@longhaul/toolsets/vms/observed';
import type { VmProvider } from '@longhaul/vm-providers';

const DISK_MS = 60_000;
/** A job that wants the guest waits this long at most. */
const HOLD_MS = 8_000;
const DF_MS = 3_000;
const FULL_PERCENT = 99;

export interface PowerLook {
  power: string;
  /** What becomes of `vms.observed`. */
  patch: Partial<Observed>;
}

/** What the provider says, without a word to the guest. */
export async function lookAtPower(vm: Pick<Vm, 'id'>, provider: VmProvider): Promise<PowerLook> {
  const { power } = await provider.observe(vm.id);
  const abilities = [...provider.abilities].sort();
  return {
    power,
    patch: power === 'running' ? { abilities } : { abilities, addresses: [], agent: 'unknown' },
  };
}

/**
 * What a running VM shows of itself: addresses, whether its agent answers, now and then how full its disk is. A guest that
 * has rebooted by itself gets a new epoch, and is told what it lost. One that somebody else talks to is left in peace: then
 * this throws `unavailable`.
 */
export async function lookInside(
  db: Database,
  vm: Pick<Vm, 'id' | 'epoch' | 'observed'>,
  provider: VmProvider,
): Promise<Partial<Observed>> {
  const agent = await askAgent(db, vm, provider);
  return { ...agent, addresses: await provider.addresses(vm.id) };
}

async function askAgent(
  db: Database,
  vm: Pick<Vm, 'id' | 'epoch' | 'observed'>,
  provider: VmProvider,
): Promise<Partial<Observed>> {
  const askedAt = await db.now();
  const now = askedAt.toISOString();
  const diskDue = askedAt.getTime() - Date.parse(observedOf(vm).disk_seen_at ?? '1970-01-01') > DISK_MS;
  let answered = false;
  try {
    const disk = await provider.guest(vm.id).session(
      async (session) => {
        await session.ping();
        answered = true;
        // Without an epoch on its row, nothing of ours was ever in this guest. One with another epoch is left to the next job: it
        // may belong to a second row of the same machine, and the two would fight over it.
        if (vm.epoch && !(await readEpoch(session))) await currentEpoch(db, vm.id, provider, session);
        return diskDue ? await readDisk(session, now) : {};
      },
      { waitMs: 0, holdMs: HOLD_MS },
    );
    return { agent: 'answers', agent_seen_at: now, agent_asked_at: now, ...disk };
  } catch (error) {
    // It answers; what it does not do is tell about its disk.
    if (answered) return { agent: 'answers', agent_seen_at: now, agent_asked_at: now };
    if (error instanceof AppError && error.code === 'guest_unreachable')
      return { agent: 'silent', agent_asked_at: now };
    throw error;
  }
}

/** Of `/`. Nothing when the guest has no df, or one that answers otherwise. */
async function readDisk(session: GuestSession, now: string): Promise<Partial<Observed>> {
  const { stdout } = await session.run({ path: 'df', args: ['-Pk', '/'] }, DF_MS);
  const [, usedText, freeText] =
    /\s(\d{1,15})\s+(\d{1,15})\s+\d{1,3}%\s+\/\s*$/.exec(stdout.toString()) ?? [];
  const [used, free] = [Number(usedText), Number(freeText)];
  if (!(used + free > 0)) return {};
  const percent = Math.floor((100 * used) / (used + free));
  return {
    disk_used_percent: percent,
    disk_full: percent >= FULL_PERCENT,
    disk_seen_at: now,
  };
}
