import { STREAMS } from '@longhaul/job-log';
import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { SLICE_MAX_BYTES, jobId, offset } from '../arguments.js';
import { jobStatus } from './job-fields.js';
import { jobBeside, requireOffset, streamFields, streamShape } from './stream-fields.js';

const streams = z
  .object({ ...streamShape('stdout'), ...streamShape('stderr'), ...streamShape('system') })
  .partial();

export const readJobLogs = defineTool({
  name: 'read_job_logs',
  title: 'Read the log of a job',
  description:
    'Reads one stream of a job from a byte offset; system is what Longhaul itself noted. Pass next_<stream>_offset back to read on; stop when <stream>_eof is true.',
  toolset: 'jobs',
  scope: 'any',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    job_id: jobId,
    stream: z.enum(STREAMS),
    offset: offset.default(0),
    max_bytes: z.int().min(1).max(SLICE_MAX_BYTES).default(16_384),
  }),
  output: z.object({ job_id: z.string(), status: jobStatus, ...streams.shape }),
  async handle(call, { stream, offset, max_bytes: maxBytes }) {
    const slice = await call.services.jobLog.read(call.job.id, stream, offset, maxBytes);
    requireOffset('offset', offset, slice);
    const { id, state } = await jobBeside(call, slice);
    return { job_id: id, status: state, ...streamFields(stream, slice, offset) };
  },
});
