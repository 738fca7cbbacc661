import { collectCommands } from '@longhaul/guest';
import type { Database, Vm } from '@longhaul/persistence';
import type { VmProvider } from '@longhaul/vm-providers';
import { vmCommand } from './vm-command.job.js';

/** What a guest keeps of commands that are over; their output is in the job log long before. */
const LIMITS = { maxAgeSeconds: 3600, maxCount: 20 };

/** Frees what ended commands have left on the VM's disk. */
export async function collectOldCommands(db: Database, vm: Vm, provider: VmProvider): Promise<void> {
  const unresolved = await db.job.findMany({
    where: { vmId: vm.id, kind: vmCommand.name, OR: [{ finishedAt: null }, { quarantined: true }] },
    select: { id: true },
  });
  const keep = unresolved.map(({ id }) => id);
  await provider.guest(vm.id).session((guest) => collectCommands(guest, keep, LIMITS));
}
