import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { jobId } from '../arguments.js';
import { jobAnswer, jobAnswerShape } from './job-fields.js';

export const getJob = defineTool({
  name: 'get_job',
  title: 'Get a job',
  description: 'Shows the present status, progress, result or error of a job. Works for every kind of job.',
  toolset: 'jobs',
  scope: 'any',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({ job_id: jobId }),
  output: z.object(jobAnswerShape),
  async handle({ caller, job, services }) {
    return jobAnswer(job, services, caller);
  },
});
