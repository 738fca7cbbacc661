import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { jobId } from '../arguments.js';
import { jobFields, jobShape } from './job-fields.js';

export const cancelJob = defineTool({
  name: 'cancel_job',
  title: 'Cancel a job',
  description:
    'Asks a job to stop and answers at once; follow it with wait_for_job. A job that has ended stays as it is, and what ends before the stop keeps its real end.',
  toolset: 'jobs',
  scope: 'any',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({ job_id: jobId }),
  output: z.object(jobShape),
  async handle(call) {
    return jobFields(await call.cancel(call.job.id));
  },
});
