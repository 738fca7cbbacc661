import { HOST_SILENT_SECONDS } from '@longhaul/jobs';
import { z } from 'zod';
import { time } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

/** Lists of what is configured, not of what users make; more than this is cut. */
const SHOWN = 1_000;

const workers = defineRoute({
  method: 'GET',
  path: '/admin/v1/workers',
  summary: 'Show the hosts that workers serve, and what each worker runs now',
  needs: 'staff',
  answer: z.object({
    hosts: z.array(z.object({ name: z.string(), beat_at: time, reachable: z.boolean(), vms: z.int() })),
    workers: z.array(
      z.object({
        name: z.string(),
        running: z.int().describe('Attempts'),
        oldest_started_at: time,
        leases_expired: z
          .int()
          .describe('Attempts that have not been heard of in time; recovery takes them up'),
      }),
    ),
  }),
  async handle({ db }) {
    const hosts = await db.$queryRaw<{ name: string; beat_at: Date; reachable: boolean; vms: number }[]>`
      SELECT name, beat_at, beat_at > now() - ${HOST_SILENT_SECONDS} * interval '1 second' AS reachable,
        (SELECT count(*)::int FROM vms WHERE host = hosts.name) AS vms
      FROM hosts ORDER BY name LIMIT ${SHOWN}`;
    const workers = await db.$queryRaw<
      { name: string; running: number; oldest_started_at: Date; leases_expired: number }[]
    >`
      SELECT attempts.worker AS name, count(*)::int AS running, min(attempts.started_at) AS oldest_started_at,
        (count(*) FILTER (WHERE lease_until < now()))::int AS leases_expired
      FROM jobs JOIN job_attempts AS attempts ON attempts.job_id = jobs.id AND attempts.attempt = jobs.attempt
      WHERE state = 'running' GROUP BY attempts.worker ORDER BY name LIMIT ${SHOWN}`;
    return {
      hosts: hosts.map((host) => ({ ...host, beat_at: host.beat_at.toISOString() })),
      workers: workers.map((worker) => ({
        ...worker,
        oldest_started_at: worker.oldest_started_at.toISOString(),
      })),
    };
  },
});

const queues = defineRoute({
  method: 'GET',
  path: '/admin/v1/queues',
  summary: 'Count the jobs that wait, by lane and host',
  description: 'Counted from the jobs themselves: what the queue has lost is there, too.',
  needs: 'staff',
  answer: z.object({
    queues: z.array(
      z.object({
        lane: z.string(),
        host: z.string().nullable().describe('null: any worker'),
        queued: z.int(),
        oldest_at: time,
        oldest_seconds: z.int(),
      }),
    ),
    running: z.int(),
    awaiting_input: z.int(),
    quarantined: z.int(),
  }),
  async handle({ db }) {
    const queues = await db.$queryRaw<
      { lane: string; host: string | null; queued: number; oldest_at: Date; oldest_seconds: number }[]
    >`
      SELECT lane, host, count(*)::int AS queued, min(created_at) AS oldest_at,
        extract(epoch FROM now() - min(created_at))::int AS oldest_seconds
      FROM jobs WHERE state = 'queued' GROUP BY lane, host ORDER BY lane, host LIMIT ${SHOWN}`;
    const [counts] = await db.$queryRaw<{ running: number; awaiting_input: number; quarantined: number }[]>`
      SELECT (SELECT count(*)::int FROM jobs WHERE state = 'running') AS running,
        (SELECT count(*)::int FROM jobs WHERE state = 'awaiting_input') AS awaiting_input,
        (SELECT count(*)::int FROM jobs WHERE quarantined) AS quarantined`;
    return {
      queues: queues.map((queue) => ({ ...queue, oldest_at: queue.oldest_at.toISOString() })),
      ...counts!,
    };
  },
});

export const workerRoutes = [workers, queues];
