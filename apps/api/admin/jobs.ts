import { AppError } from '@longhaul/errors';
import { STREAMS, encodeSlice } from '@longhaul/job-log';
import { JobState, type Job } from '@longhaul/persistence';
import { z } from 'zod';
import { found, id, inPath, page, pageOf, paged, shown, text, time, toPage } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';
import { retry } from './retry.js';

const state = z.enum(JobState);

const job = z.object({
  id: z.string(),
  kind: z.string(),
  tool: z.string().nullable(),
  state,
  label: z.string().nullable(),
  project_id: z.string(),
  user_id: z.string(),
  token_id: z.string().nullable(),
  vm_id: z.string().nullable(),
  host: z.string().nullable(),
  lane: z.string(),
  attempt: z.int().describe('How many workers have taken it up so far'),
  worker: z.string().nullable(),
  quarantined: z.boolean().describe('It has ended, but something of it may still run in the VM'),
  error: z.unknown(),
  request_id: z.string().nullable(),
  created_at: time,
  started_at: time.nullable(),
  finished_at: time.nullable(),
  deadline_at: time,
  cancel_requested_at: time.nullable(),
});

const oneJob = job.extend({
  payload: z.unknown(),
  progress: z.unknown(),
  result: z.unknown(),
  attempts: z.array(
    z.object({
      attempt: z.int(),
      worker: z.string(),
      started_at: time,
      ended_at: time.nullable(),
      outcome: z.string().nullable(),
    }),
  ),
  intents: z
    .array(z.object({ what: z.string(), attempt: z.int(), created_at: time, confirmed_at: time.nullable() }))
    .describe('Effects that must not happen twice, written down before they were tried'),
});

const list = defineRoute({
  method: 'GET',
  path: '/admin/v1/jobs',
  summary: 'List jobs, newest first',
  needs: 'staff',
  query: z.strictObject({
    ...page,
    state: state.optional(),
    kind: text(64).optional(),
    user_id: id.optional(),
    project_id: id.optional(),
    vm_id: id.optional(),
  }),
  answer: pageOf(job),
  async handle({ db, query }) {
    const { state, kind, user_id: userId, project_id: projectId, vm_id: vmId } = query;
    const where = { state, kind, userId, projectId, vmId };
    const rows = await db.job.findMany(paged(where, query));
    return toPage(rows, query, shown);
  },
});

const show = defineRoute({
  method: 'GET',
  path: '/admin/v1/jobs/{id}',
  summary: 'Show a job, its attempts and its intents',
  needs: 'staff',
  params: inPath,
  answer: oneJob,
  async handle({ db, params, about }) {
    const include = {
      attempts: { orderBy: { attempt: 'desc' }, take: 100 },
      intents: { orderBy: { createdAt: 'desc' }, take: 100 },
    } as const;
    const { attempts, intents, ...row } = found(await db.job.findUnique({ where: params, include }));
    about(subjectOf(row));
    return { ...shown(row), attempts: attempts.map(shown), intents: intents.map(shown) };
  },
});

const log = defineRoute({
  method: 'GET',
  path: '/admin/v1/jobs/{id}/log',
  summary: 'Read one stream of the log of a job from a byte offset',
  description:
    'system is what Longhaul itself noted. Pass next_offset back to read on; stop when eof is true.',
  needs: 'staff',
  params: inPath,
  query: z.strictObject({
    stream: z.enum(STREAMS),
    offset: z.coerce
      .number()
      .int()
      .min(0)
      .max(2 ** 50)
      .default(0),
    max_bytes: z.coerce.number().int().min(1).max(65_536).default(16_384),
  }),
  answer: z.object({
    text: z.string(),
    encoding: z.enum(['utf-8', 'base64']),
    next_offset: z.int(),
    size: z.int().describe('Bytes that the stream holds now'),
    eof: z.boolean().describe('Nothing will ever follow'),
    truncated_bytes: z.int().describe('Bytes beyond the size limit of a log, not kept'),
  }),
  async handle({ db, params, query, services, about }) {
    const { stream, offset, max_bytes: maxBytes } = query;
    about(subjectOf(found(await db.job.findUnique({ where: params }))));
    const { data, size, dropped, closed } = await services.jobLog.read(params.id, stream, offset, maxBytes);
    if (offset > size)
      throw new AppError('invalid_arguments', `offset: the stream has ${size} bytes now.`, {
        argument: 'offset',
        size,
      });
    const { text, encoding, bytes } = encodeSlice(data, !(closed && offset + data.length >= size));
    const next = offset + bytes;
    return { text, encoding, next_offset: next, size, eof: closed && next >= size, truncated_bytes: dropped };
  },
});

const cancel = defineRoute({
  method: 'POST',
  path: '/admin/v1/jobs/{id}/cancel',
  summary: 'Cancel a job',
  description:
    'One that runs is asked to end; read its state for whether it has. One that has ended stays as it is.',
  needs: 'staff',
  params: inPath,
  answer: job,
  transaction: 'own',
  async handle({ db, params, services, actor, about }) {
    about(subjectOf(found(await db.job.findUnique({ where: params }))));
    return shown(await services.jobs.cancel(params.id, actor));
  },
});

const again = defineRoute({
  method: 'POST',
  path: '/admin/v1/jobs/{id}/retry',
  summary: 'Submit the work of a job again, where that cannot do anything twice',
  description:
    'For jobs that have failed, timed out or been cancelled before anything was tried that must not happen twice: those ' +
    'without intents; any other is `job_not_retryable`. Asked again it answers the same new job, which belongs to you.',
  needs: 'staff',
  params: inPath,
  answer: job,
  status: 201,
  async handle({ db, params, services, actor, caller, about }) {
    const job = await retry(params.id, { db, jobs: services.jobs, actor, caller });
    about(subjectOf(job));
    return shown(job);
  },
});

const subjectOf = ({ id, vmId, projectId }: Job) => ({ jobId: id, vmId, projectId });

export const jobRoutes = [list, show, log, cancel, again];
