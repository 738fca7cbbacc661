import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import { isOff } from '@longhaul/vm-providers';
import type { z } from 'zod';
import { defineHandler, vmOf, type JobContext } from '../handler.js';
import { requireAbility } from './abilities.js';
import { growRootFileSystem } from './guest-setup.js';
import { requireQuota } from './quota.js';
import { vmResize, type vmSize } from './vm-resize.job.js';

/** The row first, as the project's quota counts it. */
export const vmResizeHandler = defineHandler({
  kind: vmResize,
  async run(context, { to, from }) {
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    requireAbility(provider.abilities, 'resize');
    const { cpus, memory_mb: memoryMb, disk_gb: diskGb } = to;
    await context.attempts.intend(context.ref, 'resize');
    await takeSize(context, vm.id, to);
    failpoint('sized');
    await orTakeBack(context, vm.id, from, () => provider.resize(vm.id, { cpus, memoryMb }));
    const grown = { ...to, disk_gb: from.disk_gb };
    await orTakeBack(context, vm.id, grown, () => provider.growDisk(vm.id, diskGb));
    failpoint('resized');

    if (isOff(await provider.observe(vm.id))) {
      const isLarger = diskGb > from.disk_gb;
      const message = 'Call resize_vm with the same disk_gb once the VM runs, so that its file system grows.';
      const rest = isLarger ? { file_system: 'to_be_grown', message } : { file_system: 'unchanged' };
      return { state: 'succeeded', result: { ...to, ...rest } };
    }
    return provider
      .guest(vm.id)
      .session((session) => growRootFileSystem(session), { holdMs: 60_000 })
      .then(
        () => ({ state: 'succeeded', result: { ...to, file_system: 'grown' } }),
        (error: unknown) => {
          if (!(error instanceof AppError)) throw error;
          const result = { ...to, file_system: 'to_be_grown' };
          return { state: 'failed', result, error: error.toBody() };
        },
      );
  },
});

type Size = z.output<typeof vmSize>;

async function takeSize({ attempts, ref }: JobContext, id: string, size: Size): Promise<void> {
  await attempts.fenced(ref, async (tx) => {
    const { projectId, ...vm } = await tx.vm.findUniqueOrThrow({ where: { id } });
    await requireQuota(tx, projectId, {
      vms: 0,
      cpus: size.cpus - vm.cpus,
      memoryMb: size.memory_mb - vm.memoryMb,
      diskGb: size.disk_gb - vm.diskGb,
    });
    const data = { cpus: size.cpus, memoryMb: size.memory_mb, diskGb: size.disk_gb };
    await tx.vm.update({ where: { id }, data });
  });
}

/** When the provider refuses, the row says again what is. */
async function orTakeBack(context: JobContext, id: string, size: Size, act: () => Promise<void>) {
  try {
    await act();
  } catch (error) {
    if (error instanceof AppError) await takeSize(context, id, size);
    throw error;
  }
}
