import { AppError } from '@longhaul/errors';
import { HOST_SILENT_SECONDS } from '@longhaul/jobs';
import type { Database } from '@longhaul/persistence';

/** What makes new VMs. */
const PROVIDER = 'qemu';

/**
 * Where a new VM goes: to `wanted`, or to the host with the fewest VMs, of those that a worker serves. Errors:
 * `host_unreachable` when there is none.
 */
export async function placeFor(
  db: Database,
  wanted: string | undefined,
): Promise<{ provider: string; host: string }> {
  const [host] = await db.$queryRaw<{ name: string }[]>`
    SELECT name FROM hosts
    WHERE beat_at > now() - ${HOST_SILENT_SECONDS} * interval '1 second'
      AND (${wanted ?? null}::text IS NULL OR name = ${wanted ?? null})
    ORDER BY (SELECT count(*) FROM vms WHERE vms.host = hosts.name), name LIMIT 1`;
  if (host) return { provider: PROVIDER, host: host.name };
  throw new AppError('host_unreachable', `No worker serves ${wanted ?? 'a host for new VMs'} right now.`);
}
