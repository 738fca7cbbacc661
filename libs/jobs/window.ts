import { JOB_COLUMNS, Prisma, type Job, type RawSql } from '@longhaul/persistence';
import { REDELIVER_SECONDS } from './states.js';

/** One project's jobs in one queue. */
export type QueueOf = Pick<Job, 'projectId' | 'queue'>;

const IN_WINDOW = Prisma.sql`(place = 'window' AND state IN ('queued', 'running'))`;
const HELD = Prisma.sql`(place = 'held' AND state = 'queued')`;

/** A table expression beside `projects`: `ahead` jobs are in the window, counted no further than it is wide. */
const windowOf = (queue: Prisma.Sql) => Prisma.sql`
  LATERAL (SELECT count(*)::int AS ahead FROM (SELECT FROM jobs
    WHERE project_id = projects.id AND queue = ${queue} AND ${IN_WINDOW} LIMIT projects.concurrency) AS counted) AS in_window`;

/**
 * The same for a new job, which `must_wait` while the window is full or others have waited longer. Who is next is looked for in
 * the order of their index: what is equal to anything PostgreSQL looks for in all jobs, once one project has most of them.
 */
export const turnIn = (queue: string) => Prisma.sql`${windowOf(Prisma.sql`${queue}`)},
  LATERAL (SELECT ahead >= projects.concurrency OR EXISTS (SELECT FROM (SELECT project_id, queue FROM jobs
    WHERE ${HELD} AND (project_id, queue) >= (projects.id, ${queue}) ORDER BY project_id, queue LIMIT 1) AS next
    WHERE next.project_id = projects.id AND next.queue = ${queue}) AS must_wait) AS turn`;

/**
 * Lets the job that was held back the longest into the window, if there is room, and answers it, to be delivered after the
 * commit. Called in the transaction in which another one leaves: one for one, so that no race makes a window fuller.
 */
export async function letNextIn(tx: RawSql, { projectId, queue }: QueueOf): Promise<Job | undefined> {
  const [job] = await tx.$queryRaw<Job[]>`
    UPDATE jobs SET place = 'window', delivery = delivery + 1,
      redeliver_at = now() + ${REDELIVER_SECONDS} * interval '1 second',
      priority = CASE WHEN attempt = 0 THEN ahead + 1 ELSE 0 END
    FROM projects, ${windowOf(Prisma.sql`${queue}`)}
    WHERE projects.id = ${projectId}::uuid AND ahead < projects.concurrency
      AND jobs.id = (SELECT id FROM jobs WHERE project_id = ${projectId}::uuid AND queue = ${queue} AND ${HELD}
        ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING ${JOB_COLUMNS}`;
  return job;
}

/** The windows with room that jobs are held back from, and how many fit in. Its cost grows with queues, not with jobs. */
export function windowsToFill(tx: RawSql): PromiseLike<(QueueOf & { room: number })[]> {
  return tx.$queryRaw`
    WITH RECURSIVE waiting AS (
      (SELECT project_id, queue FROM jobs WHERE ${HELD} ORDER BY project_id, queue LIMIT 1)
      UNION ALL
      SELECT next.* FROM waiting, LATERAL (SELECT project_id, queue FROM jobs
        WHERE ${HELD} AND (project_id, queue) > (waiting.project_id, waiting.queue)
        ORDER BY project_id, queue LIMIT 1) AS next)
    SELECT project_id AS "projectId", waiting.queue, concurrency - ahead AS room
    FROM waiting JOIN projects ON projects.id = project_id, ${windowOf(Prisma.sql`waiting.queue`)}
    WHERE ahead < concurrency`;
}

/** Priority of a job in the window, for a statement over `jobs`: how many of its project go before it, and itself. */
export const RANK = Prisma.sql`(CASE WHEN attempt > 0 THEN 0 ELSE 1 + (SELECT count(*) FROM jobs AS others
  WHERE others.project_id = jobs.project_id AND others.queue = jobs.queue
    AND others.place = 'window' AND others.state IN ('queued', 'running')
    AND (others.state = 'running' OR others.created_at < jobs.created_at)) END)`;
