import type { Prisma, RawSql, Transaction } from '@longhaul/persistence';
import { z } from 'zod';

/** Amounts in the units of their names. */
export interface Resources {
  vms: number;
  cpus: number;
  memoryMb: number;
  diskGb: number;
}

const upTo = (most: number) => z.int().min(0).max(most);

/**
 * What the limits of a project may be: those of all of its VMs together, of its unfinished jobs, and of those that are delivered or
 * running in one queue. 0 lets nothing be made.
 */
export const projectLimits = z.strictObject({
  vmLimit: upTo(10_000),
  cpuLimit: upTo(100_000),
  memoryLimitMb: upTo(1_000_000_000),
  diskLimitGb: upTo(100_000_000),
  liveJobLimit: upTo(100_000),
  concurrency: z.int().min(1).max(10_000),
});

export type ProjectLimits = z.output<typeof projectLimits>;

/** What the VMs of a project have together. */
export async function resourcesOf(projectId: string, db: RawSql): Promise<Resources> {
  const [used] = await db.$queryRaw<[Resources]>`
    SELECT count(*)::float AS vms, coalesce(sum(cpus), 0)::float AS cpus,
      coalesce(sum(memory_mb), 0)::float AS "memoryMb", coalesce(sum(disk_gb), 0)::float AS "diskGb"
    FROM vms WHERE project_id = ${projectId}::uuid`;
  return used;
}

/** How many jobs of a project are queued, running or await input. */
export const unfinishedJobs = (projectId: string, db: Transaction): Promise<number> =>
  db.job.count({ where: { projectId, state: { in: ['queued', 'running', 'awaiting_input'] } } });

async function fullestWindow(projectId: string, db: Transaction): Promise<number> {
  const where: Prisma.JobWhereInput = { projectId, place: 'window', state: { in: ['queued', 'running'] } };
  const queues = await db.job.groupBy({ by: ['queue'], where, _count: { _all: true } });
  return Math.max(0, ...queues.map(({ _count }) => _count._all));
}

/** How much of each limit a project uses now; of `concurrency`, in the queue where it is most. */
export async function usedOf(projectId: string, db: Transaction): Promise<ProjectLimits> {
  const { vms, cpus, memoryMb, diskGb } = await resourcesOf(projectId, db);
  const liveJobLimit = await unfinishedJobs(projectId, db);
  const concurrency = await fullestWindow(projectId, db);
  return {
    vmLimit: vms,
    cpuLimit: cpus,
    memoryLimitMb: memoryMb,
    diskLimitGb: diskGb,
    liveJobLimit,
    concurrency,
  };
}
