import type { Transaction } from '@longhaul/persistence';
import { z } from 'zod';

/** Amounts in the units of their names. */
export interface Resources {
  vms: number;
  cpus: number;
  memoryMb: number;
  diskGb: number;
}

const upTo = (most: number) => z.int().min(0).max(most);

/** What the limits of a project may be: those of all of its VMs together, and of its unfinished jobs. 0 lets nothing be made. */
export const projectLimits = z.strictObject({
  vmLimit: upTo(10_000),
  cpuLimit: upTo(100_000),
  memoryLimitMb: upTo(1_000_000_000),
  diskLimitGb: upTo(100_000_000),
  liveJobLimit: upTo(100_000),
});

export type ProjectLimits = z.output<typeof projectLimits>;

/** What the VMs of a project have together. */
export async function resourcesOf(projectId: string, db: Transaction): Promise<Resources> {
  const { _count: vms, _sum: sum } = await db.vm.aggregate({
    where: { projectId },
    _count: true,
    _sum: { cpus: true, memoryMb: true, diskGb: true },
  });
  return { vms, cpus: sum.cpus ?? 0, memoryMb: sum.memoryMb ?? 0, diskGb: sum.diskGb ?? 0 };
}

/** How many jobs of a project are queued, running or await input. */
export const unfinishedJobs = (projectId: string, db: Transaction): Promise<number> =>
  db.job.count({ where: { projectId, state: { in: ['queued', 'running', 'awaiting_input'] } } });

/** How much of each limit a project uses now. */
export async function usedOf(projectId: string, db: Transaction): Promise<ProjectLimits> {
  const { vms, cpus, memoryMb, diskGb } = await resourcesOf(projectId, db);
  const liveJobLimit = await unfinishedJobs(projectId, db);
  return { vmLimit: vms, cpuLimit: cpus, memoryLimitMb: memoryMb, diskLimitGb: diskGb, liveJobLimit };
}
