import type { Reader, Services } from '@longhaul/mcp';
import type { Job } from '@longhaul/persistence';
import { vmCreate } from '../vms/vm-create.job.js';
import { vmReinstall } from '../vms/vm-reinstall.job.js';

const WITH_PASSWORD = [vmCreate.name, vmReinstall.name];

/**
 * The root password that a job has set, for every answer about a job: whoever made the job is told it with the first answer
 * after it has succeeded, whichever tool or method that is, and nobody ever again.
 */
export async function rootPassword(
  job: Job,
  { secrets }: Services,
  reader: Reader | undefined,
): Promise<string | undefined> {
  if (!WITH_PASSWORD.includes(job.kind) || job.state !== 'succeeded' || reader?.userId !== job.userId)
    return undefined;
  return (await secrets.deliverOnce(job.id, job.userId))?.toString();
}
