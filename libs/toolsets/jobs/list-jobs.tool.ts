import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { vmId } from '../arguments.js';
import { jobLine, jobLineShape, jobStatus } from './job-fields.js';

export const listJobs = defineTool({
  name: 'list_jobs',
  title: 'List jobs',
  description:
    'Lists your jobs, newest first, without results (get_job has them). next_cursor is there when more follow: pass it back as cursor.',
  toolset: 'jobs',
  scope: 'any',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    vm_id: vmId.optional(),
    status: z.array(jobStatus).min(1).max(8).optional().describe('Only jobs in one of these'),
    limit: z.int().min(1).max(100).default(20),
    cursor: z.string().min(1).max(64).optional(),
  }),
  output: z.object({ jobs: z.array(z.object(jobLineShape)), next_cursor: z.string().optional() }),
  async handle({ caller, services, vm }, { status, limit, cursor }) {
    const { projectIds, vmIds, scopes } = caller;
    const filter = { projectIds, vmIds, scopes, vmId: vm?.id, states: status, before: cursor };
    const found = await services.jobs.list(filter, limit + 1);
    const jobs = found.slice(0, limit).map(jobLine);
    return { jobs, next_cursor: found.length > limit ? jobs.at(-1)?.job_id : undefined };
  },
});
