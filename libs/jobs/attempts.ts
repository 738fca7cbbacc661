import { Inject, Injectable } from '@nestjs/common';
import { CONFIG, envInteger } from '@longhaul/config';
import type { ErrorBody } from '@longhaul/errors';
import {
  Database,
  Prisma,
  JOB_COLUMNS,
  type Job,
  type JobIntent,
  type RawSql,
  type Transaction,
} from '@longhaul/persistence';
import { z } from 'zod';
import { EXEC_FORBIDDEN } from './exec-gate.js';
import { Jobs } from './jobs.js';
import type { Answer, Question } from './questions.js';
import {
  AwaitingInput,
  FencedError,
  LogLostError,
  REDELIVER_SECONDS,
  type AttemptRef,
  type FinalState,
} from './states.js';
import { letNextIn } from './window.js';

export const jobsConfig = z.object({
  JOB_LEASE_SECONDS: envInteger(3, 600)
    .default(30)
    .describe('After this without a heartbeat a job is given to another worker; it beats six times as often'),
});

/** How long a command that may not begin is left alone, unless somebody switches commands on. */
const POSTPONED_SECONDS = 60;

/** Of kinds, by name. */
export type Versions = Readonly<Record<string, number>>;

export interface Outcome {
  state: FinalState;
  result?: unknown;
  error?: ErrorBody;
  /** Of `unknown`: keeps the VM's slot until a clean-up has made sure that nothing of it is left in the guest. */
  quarantine?: boolean;
  /** Bytes that these streams of its log must hold by then, or the end throws LogLostError. */
  log?: { stdout: number; stderr: number };
}

/** How far a job is; `progress` grows over all of its attempts, in units of the kind's own. */
export interface Progress {
  progress: number;
  total?: number;
  message?: string;
}

/** The side of jobs that workers see. Every write carries (job, attempt) and throws FencedError once it is not current. */
@Injectable()
export class Attempts {
  private readonly leaseSeconds: number;

  constructor(
    private readonly db: Database,
    private readonly jobs: Jobs,
    @Inject(CONFIG) config: z.output<typeof jobsConfig>,
  ) {
    this.leaseSeconds = config.JOB_LEASE_SECONDS;
  }

  /**
   * Takes a queued job of its project's window, or nothing when another worker was faster, it has ended, commands are
   * switched off, or its kind or version is none of `versions`: then the delivery is forgotten. `versions` has the newest that
   * the worker can run of each kind (without it, it can run any); from then on no worker that only knows older ones takes the job.
   */
  async claim(jobId: string, worker: string, versions?: Versions): Promise<Job | undefined> {
    const mine = Prisma.sql`(${versions ? JSON.stringify(versions) : null}::jsonb ->> kind)::int`;
    const canRun = versions ? Prisma.sql`version <= coalesce(${mine}, 0)` : Prisma.sql`true`;
    const [row] = await this.db.rows<Job>(Prisma.sql`
      WITH claimed AS (
        UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = ${worker}, version = coalesce(${mine}, version),
          lease_until = now() + ${this.leaseSeconds} * interval '1 second',
          started_at = coalesce(started_at, now()), deadline_at = now() + run_seconds * interval '1 second'
        WHERE id = ${jobId}::uuid AND state = 'queued' AND place = 'window' AND (attempt > 0 OR deadline_at > now())
          AND ${canRun} AND NOT ${EXEC_FORBIDDEN} RETURNING ${JOB_COLUMNS}),
      attempt AS (INSERT INTO job_attempts (job_id, attempt, worker) SELECT id, attempt, worker FROM claimed)
      TABLE claimed`);
    if (row) return row;
    // Of workers of two versions one that can run it is found within seconds, however often it was delivered to another.
    await this.db.$executeRaw`
      UPDATE jobs SET redeliver_at = least(redeliver_at, now() + ${REDELIVER_SECONDS} * interval '1 second')
      WHERE id = ${jobId}::uuid AND state = 'queued' AND place = 'window' AND NOT (${canRun})`;
    const next = await this.db.$transaction(async (tx) => {
      const postponed = await postpone(tx, jobId, 'queued');
      return postponed && letNextIn(tx, postponed);
    });
    if (next) await this.jobs.deliver(next);
    return undefined;
  }

  /**
   * Extends the leases of all attempts of a worker process, and stores their progress, in one statement. Answers those that
   * are still current, with their cancel requests; any other has been fenced. Jobs are locked in the order of their ids, as
   * appends to logs do.
   */
  async heartbeat(
    held: (AttemptRef & { progress?: Progress })[],
  ): Promise<Map<string, { attempt: number; cancelRequested: boolean }>> {
    const rows = await this.db.rows<{ id: string; attempt: number; cancelRequested: boolean }>(Prisma.sql`
      WITH mine AS (
        SELECT jobs.id, mine.progress
        FROM jobs JOIN jsonb_to_recordset(${JSON.stringify(held)}::jsonb) AS mine ("jobId" uuid, attempt int, progress jsonb)
          ON jobs.id = mine."jobId" AND jobs.attempt = mine.attempt
        WHERE state = 'running' ORDER BY jobs.id FOR NO KEY UPDATE OF jobs)
      UPDATE jobs SET lease_until = now() + ${this.leaseSeconds} * interval '1 second',
        progress = coalesce(mine.progress, jobs.progress),
        updated_at = CASE WHEN coalesce(mine.progress, jobs.progress) IS DISTINCT FROM jobs.progress
          THEN now() ELSE updated_at END
      FROM mine WHERE jobs.id = mine.id
      RETURNING jobs.id, jobs.attempt, cancel_requested_at IS NOT NULL AS "cancelRequested"`);
    return new Map(rows.map(({ id, ...rest }) => [id, rest]));
  }

  /** Stores where the next attempt is to go on. */
  async checkpoint(ref: AttemptRef, checkpoint: Prisma.InputJsonValue) {
    const { count } = await this.db.job.updateMany({ where: current(ref), data: { checkpoint } });
    if (count === 0) throw new FencedError(ref);
  }

  intents(jobId: string): Promise<JobIntent[]> {
    return this.db.jobIntent.findMany({ where: { jobId } });
  }

  /**
   * Commits that `what` is about to be done to the guest or the provider. An intent of an earlier attempt stays as it is. When
   * commands have been switched off since the claim, the job waits until they are on and the attempt is fenced.
   */
  async intend(ref: AttemptRef, what: string, epoch?: string): Promise<void> {
    const { isPostponed, next } = await this.db.rawTransaction(async (tx) => {
      await requireCurrent(tx, ref);
      const postponed = await postpone(tx, ref.jobId, 'running');
      if (postponed) {
        await tx.$executeRaw(attemptEnd(ref, 'switched_off'));
        return { isPostponed: true, next: await letNextIn(tx, postponed) };
      }
      await tx.$executeRaw`
        INSERT INTO job_intents (job_id, what, attempt, epoch)
        VALUES (${ref.jobId}::uuid, ${what}, ${ref.attempt}, ${epoch ?? null}::uuid) ON CONFLICT DO NOTHING`;
      return { isPostponed: false };
    });
    if (next) await this.jobs.deliver(next);
    if (isPostponed) throw new FencedError(ref);
  }

  /** Notes that the effect of an intent was seen to have happened. */
  async confirm(ref: AttemptRef, what: string): Promise<void> {
    await this.db.rawTransaction(async (tx) => {
      await requireCurrent(tx, ref);
      await tx.$executeRaw`
        UPDATE job_intents SET confirmed_at = now() WHERE job_id = ${ref.jobId}::uuid AND what = ${what}`;
    });
  }

  /**
   * The answers once all of `questions` have one. Else it asks what was not asked yet, ends the attempt and throws
   * AwaitingInput: the next attempt asks again and gets the answers. The VM slot stays held; the job fails when they have
   * not come in `answerSeconds`. Keys are unique over a job's life. After a cancel request nobody is asked: what has no
   * answer is answered with `cancel`.
   */
  async ask<Key extends string>(
    ref: AttemptRef,
    questions: Record<Key, Question>,
    answerSeconds: number,
  ): Promise<Record<Key, Answer>> {
    const keys = Object.keys(questions) as Key[];
    const { answers, next } = await this.fenced(ref, async (tx) => {
      const rows = await tx.jobQuestion.findMany({
        where: { jobId: ref.jobId, key: { in: keys }, answeredAt: { not: null } },
      });
      const given = new Map(rows.map(({ key, answer }) => [key, answer as Answer]));
      if (given.size === keys.length) return { answers: given };
      const [row] = await tx.$queryRaw<Job[]>`
        UPDATE jobs SET state = 'awaiting_input', lease_until = NULL,
          deadline_at = now() + ${answerSeconds} * interval '1 second'
        WHERE id = ${ref.jobId}::uuid AND cancel_requested_at IS NULL RETURNING ${JOB_COLUMNS}`;
      if (!row) return { answers: given };
      await tx.$executeRaw`
        INSERT INTO job_questions (job_id, key, question)
        SELECT ${ref.jobId}::uuid, key, value FROM jsonb_each(${JSON.stringify(questions)}::jsonb) ON CONFLICT DO NOTHING`;
      await tx.$executeRaw(attemptEnd(ref, 'awaiting_input'));
      return { next: await letNextIn(tx, row) };
    });
    if (next) await this.jobs.deliver(next);
    if (!answers) throw new AwaitingInput(ref);
    const entries = keys.map((key) => [key, answers.get(key) ?? { action: 'cancel' }]);
    return Object.fromEntries(entries) as Record<Key, Answer>;
  }

  /** Writes the end: state, result, slot release, attempt, audit event and whose turn is next in one transaction. Throws LogLostError. */
  async finish(ref: AttemptRef, outcome: Outcome): Promise<void> {
    const next = await this.db.rawTransaction(async (tx) => {
      const [job] = await tx.$queryRaw<Job[]>`
        WITH ended AS (${attemptEnd(ref, outcome.state)})
        UPDATE jobs SET state = ${outcome.state}::job_state, result = ${json(outcome.result)}::jsonb,
          error = ${json(outcome.error)}::jsonb, quarantined = ${outcome.quarantine ?? false},
          finished_at = now(), lease_until = NULL
        WHERE id = ${ref.jobId}::uuid AND attempt = ${ref.attempt} AND state = 'running' AND NOT EXISTS (
          SELECT FROM jsonb_each_text(${JSON.stringify(outcome.log ?? {})}::jsonb) AS expected (stream, size)
          LEFT JOIN job_log_streams AS streams ON streams.job_id = jobs.id AND streams.stream = expected.stream
          WHERE coalesce(streams.size, 0) < expected.size::bigint)
        RETURNING ${JOB_COLUMNS}`;
      if (!job) {
        await requireCurrent(tx, ref);
        throw new LogLostError(ref);
      }
      return this.jobs.afterEnd(tx, job);
    });
    if (next) await this.jobs.deliver(next);
  }

  /** Ends the attempt of a job that another worker is to go on with at once. One that is not current is left alone. */
  async handOver({ jobId, attempt }: AttemptRef): Promise<void> {
    const [job] = await this.db.$queryRaw<Job[]>`
      WITH handed_over AS (
        UPDATE jobs SET state = 'queued', lease_until = NULL, delivery = delivery + 1, priority = 0,
          redeliver_at = now() + ${REDELIVER_SECONDS} * interval '1 second'
        WHERE id = ${jobId}::uuid AND attempt = ${attempt} AND state = 'running'
        RETURNING ${JOB_COLUMNS}),
      attempt AS (
        UPDATE job_attempts SET ended_at = now(), outcome = 'handed_over' FROM handed_over
        WHERE job_attempts.job_id = handed_over.id AND job_attempts.attempt = handed_over.attempt)
      TABLE handed_over`;
    if (job) await this.jobs.deliver(job);
  }

  /** How many attempts have failed or lost their worker. */
  losses(jobId: string): Promise<number> {
    return this.db.jobAttempt.count({ where: { jobId, outcome: 'lost' } });
  }

  /** Gives up the attempt, which has failed: recovery hands the job to another one after `seconds`. */
  async release(ref: AttemptRef, seconds: number): Promise<void> {
    await this.db.$executeRaw`
      UPDATE jobs SET lease_until = now() + ${seconds} * interval '1 second'
      WHERE id = ${ref.jobId}::uuid AND attempt = ${ref.attempt} AND state = 'running'`;
  }

  /** Runs `write` while the attempt is current; a claim by a later attempt waits until it has committed. */
  async fenced<T>(ref: AttemptRef, write: (tx: Transaction) => PromiseLike<T>): Promise<T> {
    return this.db.$transaction(async (tx) => {
      await requireCurrent(tx, ref);
      return write(tx);
    });
  }
}

const current = (ref: AttemptRef) => ({ id: ref.jobId, attempt: ref.attempt, state: 'running' as const });

/** It stays so until the transaction ends. */
async function requireCurrent(tx: RawSql, ref: AttemptRef): Promise<void> {
  const held = await tx.$queryRaw<unknown[]>`
    SELECT FROM jobs WHERE id = ${ref.jobId}::uuid AND attempt = ${ref.attempt} AND state = 'running' FOR UPDATE`;
  if (held.length === 0) throw new FencedError(ref);
}

const attemptEnd = (ref: AttemptRef, outcome: string) => Prisma.sql`
  UPDATE job_attempts SET ended_at = now(), outcome = ${outcome}
  WHERE job_id = ${ref.jobId}::uuid AND attempt = ${ref.attempt}`;

/** A command that may not begin leaves the window: nothing else waits for it. Recovery looks at it again. */
async function postpone(tx: RawSql, jobId: string, state: 'queued' | 'running'): Promise<Job | undefined> {
  const [row] = await tx.$queryRaw<Job[]>`
    UPDATE jobs SET state = 'queued', place = 'postponed', lease_until = NULL,
      redeliver_at = now() + ${POSTPONED_SECONDS} * interval '1 second'
    WHERE id = ${jobId}::uuid AND state = ${state}::job_state AND place = 'window' AND ${EXEC_FORBIDDEN} RETURNING ${JOB_COLUMNS}`;
  return row;
}

const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));
