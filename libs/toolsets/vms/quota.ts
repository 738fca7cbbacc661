import { resourcesOf, type Resources } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { RawSql } from '@longhaul/persistence';

/**
 * Until the end of the transaction nobody else takes of the project's quota. Errors: `quota_exceeded` when its VMs would have
 * more than that together; what gives back or takes nothing is never refused.
 */
export async function requireQuota(tx: RawSql, projectId: string, more: Resources): Promise<void> {
  const [limit] = await tx.$queryRaw<[Resources]>`
    SELECT vm_limit AS vms, cpu_limit AS cpus, memory_limit_mb AS "memoryMb", disk_limit_gb AS "diskGb"
    FROM projects WHERE id = ${projectId}::uuid FOR UPDATE`;
  const used = await resourcesOf(projectId, tx);
  const names = Object.keys(limit) as (keyof Resources)[];
  const over = names.find((name) => more[name] > 0 && used[name] + more[name] > limit[name]);
  if (over === undefined) return;
  throw new AppError(
    'quota_exceeded',
    `The project may have ${limit[over]} ${UNITS[over]} in all and uses ${used[over]}.`,
    { resource: over, limit: limit[over], used: used[over] },
  );
}

const UNITS: Record<keyof Resources, string> = {
  vms: 'VMs',
  cpus: 'CPUs',
  memoryMb: 'MB of memory',
  diskGb: 'GB of disk',
};
