import type { Transaction } from '@longhaul/persistence';

/** The VM's row goes and its artifacts expire; its jobs keep the id. Nothing happens where it has gone before. */
export async function forgetVm(tx: Transaction, id: string): Promise<void> {
  await tx.$executeRaw`UPDATE artifacts SET expires_at = now() WHERE vm_id = ${id}::uuid`;
  await tx.vm.deleteMany({ where: { id } });
}
