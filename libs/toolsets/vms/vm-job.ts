import type { Reader, Services } from '@longhaul/mcp';
import type { Job } from '@longhaul/persistence';
import { z } from 'zod';
import { errorOf, errorShape, jobStatus } from '../jobs/job-fields.js';
import { rootPassword } from '../jobs/root-password.js';

/** How a tool answers that changes a VM by a job. */
export const vmJobShape = {
  job_id: z.string().describe('For wait_for_job, which also tells the result'),
  vm_id: z.string(),
  status: jobStatus,
  result: z.unknown().optional(),
  error: errorShape.optional(),
  root_password: z.string().optional(),
};

export async function vmJobAnswer(
  job: Job,
  services: Services,
  reader?: Reader,
): Promise<z.output<z.ZodObject<typeof vmJobShape>>> {
  return {
    job_id: job.id,
    vm_id: job.vmId!,
    status: job.state,
    result: job.result ?? undefined,
    error: errorOf(job),
    root_password: await rootPassword(job, services, reader),
  };
}
