import { readEpoch, writeEpoch, type GuestChannel } from '@longhaul/guest';
import { newId, type Database } from '@longhaul/persistence';

/**
 * The epoch of the guest's current boot. Where the guest has none or another one than the row, it has booted since: a
 * new epoch is made, on the row first. Both happen in one session of the guest, so that no two workers can disagree.
 */
export function currentEpoch(db: Database, vmId: string, guest: GuestChannel): Promise<string> {
  return guest.session(async (session) => {
    const inGuest = await readEpoch(session);
    const vm = await db.vm.findUniqueOrThrow({ where: { id: vmId } });
    if (inGuest && inGuest === vm.epoch) return inGuest;
    const epoch = newId();
    await db.vm.update({ where: { id: vmId }, data: { epoch } });
    await session.setTime(new Date());
    await writeEpoch(session, epoch);
    return epoch;
  });
}

/** Notes what the provider says of the VM's power. */
export async function notePower(db: Database, vmId: string, power: string): Promise<void> {
  await db.vm.update({ where: { id: vmId }, data: { powerState: power, observedAt: new Date() } });
}
