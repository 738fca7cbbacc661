import { readEpoch, writeEpoch, type GuestSession } from '@longhaul/guest';
import { newId, type Database } from '@longhaul/persistence';
import { traced } from '@longhaul/telemetry';
import type { VmProvider } from '@longhaul/vm-providers';

/**
 * The epoch of the guest's current boot. Where the guest has none or another one than the row, it has booted since: a
 * new epoch is made, on the row first, and the guest is told what it lost. No two workers can disagree, as only one session
 * with the guest exists at a time. A guest that does not take what it is told makes this fail once, not for ever.
 */
export async function currentEpoch(
  db: Database,
  vmId: string,
  provider: Pick<VmProvider, 'greet'>,
  guest: GuestSession,
): Promise<string> {
  const [inGuest, vm] = await Promise.all([
    readEpoch(guest),
    db.vm.findUniqueOrThrow({ where: { id: vmId } }),
  ]);
  if (inGuest && inGuest === vm.epoch) return inGuest;
  const epoch = newId();
  await db.vm.update({ where: { id: vmId }, data: { epoch } });
  await traced('guest greet', { kind: 'client' }, () =>
    provider.greet(vmId, guest).finally(() => writeEpoch(guest, epoch)),
  );
  return epoch;
}

/** Notes what the provider says of the VM's power. */
export async function notePower(db: Database, vmId: string, power: string): Promise<void> {
  await db.$executeRaw`UPDATE vms SET power_state = ${power}, observed_at = now() WHERE id = ${vmId}::uuid`;
}
