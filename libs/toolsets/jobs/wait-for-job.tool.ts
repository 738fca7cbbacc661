import { isFinal } from '@longhaul/jobs';
import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { jobId } from '../arguments.js';
import { jobAnswer, jobAnswerShape } from './job-fields.js';

export const waitForJob = defineTool({
  name: 'wait_for_job',
  title: 'Wait for a job',
  description:
    'Waits until a job has ended or awaits input, at most timeout_seconds, and shows it as it is then. Call again while its status is queued or running.',
  toolset: 'jobs',
  scope: 'any',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    job_id: jobId,
    timeout_seconds: z.int().min(0).max(50).default(30),
  }),
  output: z.object(jobAnswerShape),
  async handle(call, { timeout_seconds: seconds }) {
    const settled = await call.waitFor(
      call.job.id,
      ({ state }) => isFinal(state) || state === 'awaiting_input',
      seconds * 1000,
    );
    return jobAnswer(settled, call.services, call.caller);
  },
});
