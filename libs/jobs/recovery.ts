import { Injectable } from '@nestjs/common';
import { AppError, type ErrorCode } from '@longhaul/errors';
import { Database, JOB_COLUMNS, Prisma, type Job, type Transaction } from '@longhaul/persistence';
import { metrics } from '@longhaul/telemetry';
import { Jobs } from './jobs.js';
import { REDELIVER_SECONDS } from './states.js';
import { RANK, letNextIn, windowsToFill } from './window.js';

/** A host none of whose workers has beaten for this long is unreachable. */
export const HOST_SILENT_SECONDS = 60;
/** Rows that one sweep takes of each sort; the next sweep takes the next. */
const BATCH = 100;
/** How long one clean-up may take before another worker tries as well. */
const CLEAN_UP_SECONDS = 30;
/** A job that has taken down this many workers is not given to another. */
const ATTEMPT_LIMIT = 100;

const REDELIVER_LAST_SECONDS = 60;
/** Of what has begun before: its VM waits for it, and there is little of it. */
const REDELIVER_BEGUN_SECONDS = 6;
/** How long after its deadline a job that may have begun in its guest waits for a worker to ask there. */
const PATIENCE_SECONDS = 3_600;
/** Advisory lock of who fills windows: two at once would each fill the same room. */
const FILLING = 7_001;

/**
 * Moves on what nobody else will: expired leases, lost deliveries, passed deadlines. Every worker runs it, without a
 * leader: rows are taken with FOR UPDATE SKIP LOCKED, and time is the database's.
 */
@Injectable()
export class Recovery {
  constructor(
    private readonly db: Database,
    private readonly jobs: Jobs,
  ) {}

  /** Says that a worker serves these hosts. A starting worker beats before its first sweep, so that it counts as theirs. */
  async beat(hosts: string[]): Promise<void> {
    await this.db.$executeRaw`
      INSERT INTO hosts (name, beat_at) SELECT unnest(${hosts}::text[]), now()
      ON CONFLICT (name) DO UPDATE SET beat_at = now()`;
  }

  async sweep(): Promise<void> {
    await this.requeueExpired();
    await this.endPastDeadline();
    await this.redeliver();
    await this.fillWindows();
  }

  /** A lost attempt goes back to the queue, if there is a worker that could ask the guest how it stands. */
  private async requeueExpired(): Promise<void> {
    const rows = await this.db.$queryRaw<Job[]>`
      WITH lost AS (
        SELECT id, attempt FROM jobs
        WHERE state = 'running' AND lease_until < now() AND ${LOSSES} < ${ATTEMPT_LIMIT} AND ${HOST_ALIVE}
        ORDER BY lease_until LIMIT ${BATCH} FOR UPDATE SKIP LOCKED),
      ended AS (
        UPDATE job_attempts SET ended_at = now(), outcome = 'lost' FROM lost
        WHERE job_attempts.job_id = lost.id AND job_attempts.attempt = lost.attempt)
      UPDATE jobs SET state = 'queued', lease_until = NULL, delivery = delivery + 1, priority = 0,
        redeliver_at = now() + ${REDELIVER_SECONDS} * interval '1 second'
      FROM lost WHERE jobs.id = lost.id RETURNING ${JOB_COLUMNS}`;
    metrics.jobsRedelivered.inc({ reason: 'lease_expired' }, rows.length);
    await this.deliverAll(rows);
  }

  /** Any queued job that nobody claimed for a while is delivered again, whatever was delivered before. */
  private async redeliver(): Promise<void> {
    const rows = await this.db.$queryRaw<Job[]>`
      WITH waiting AS (
        SELECT id FROM jobs WHERE state = 'queued' AND place = 'window' AND redeliver_at < now()
        ORDER BY redeliver_at LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)
      UPDATE jobs SET delivery = delivery + 1, priority = ${RANK},
        redeliver_at = now() + least(${REDELIVER_SECONDS} * 2 ^ least(delivery, 10),
          CASE WHEN attempt > 0 THEN ${REDELIVER_BEGUN_SECONDS}::int ELSE ${REDELIVER_LAST_SECONDS}::int END) * interval '1 second'
      FROM waiting WHERE jobs.id = waiting.id RETURNING ${JOB_COLUMNS}`;
    metrics.jobsRedelivered.inc({ reason: 'unclaimed' }, rows.length);
    await this.deliverAll(rows);
  }

  /**
   * Lets in what was held back while nobody ended a job to make room: the window grew, or a job was submitted while the last
   * one ended. Postponed jobs wait for their turn again.
   */
  private async fillWindows(): Promise<void> {
    await this.db.$executeRaw`
      UPDATE jobs SET place = 'held', redeliver_at = NULL WHERE id IN (
        SELECT id FROM jobs WHERE state = 'queued' AND place = 'postponed' AND redeliver_at < now()
        ORDER BY redeliver_at LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)`;
    const next = await this.db.$transaction(async (tx) => {
      const [lock] = await tx.$queryRaw<{ isMine: boolean }[]>`
        SELECT pg_try_advisory_xact_lock(${FILLING}) AS "isMine"`;
      if (!lock!.isMine) return [];
      const next: Job[] = [];
      for (const { room, ...queue } of await windowsToFill(tx)) {
        for (let n = 0; n < room && next.length < BATCH; n++) {
          const job = await letNextIn(tx, queue);
          if (!job) break;
          next.push(job);
        }
      }
      return next;
    });
    await this.deliverAll(next);
  }

  private async deliverAll(jobs: Job[]): Promise<void> {
    await Promise.all(jobs.map((job) => this.jobs.deliver(job)));
  }

  private async endPastDeadline(): Promise<void> {
    const next = await this.db.$transaction(async (tx) => {
      const rows = await tx.$queryRaw<(Job & { touched: boolean; alive: boolean })[]>`
        SELECT id, state, attempt, ${TOUCHED} AS touched, ${HOST_ALIVE} AS alive
        FROM jobs
        WHERE (state IN ('queued', 'awaiting_input') AND deadline_at < now()
            AND NOT (${TOUCHED} AND ${HOST_ALIVE} AND deadline_at > now() - ${PATIENCE_SECONDS} * interval '1 second'))
          OR (state = 'running' AND lease_until < now()
            AND ((deadline_at < now() AND NOT ${HOST_ALIVE}) OR ${LOSSES} >= ${ATTEMPT_LIMIT}))
        ORDER BY deadline_at LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`;
      const next: Job[] = [];
      for (const row of rows) {
        const job = await this.end(tx, row);
        if (job) next.push(job);
      }
      return next;
    });
    await this.deliverAll(next);
  }

  private async end(
    tx: Transaction,
    job: Job & { touched: boolean; alive: boolean },
  ): Promise<Job | undefined> {
    // What may have begun in the guest has no known end; what never left the queue has simply failed.
    const unknown = job.state === 'running' || (job.state === 'queued' && job.touched);
    const error = pastDeadline(unknown, job);
    const [row] = await tx.$queryRaw<Job[]>`
      UPDATE jobs SET state = ${unknown ? 'unknown' : 'failed'}::job_state, quarantined = ${unknown && job.touched},
        error = ${JSON.stringify(error.toBody())}::jsonb, finished_at = now(), lease_until = NULL
      WHERE id = ${job.id}::uuid RETURNING ${JOB_COLUMNS}`;
    return this.jobs.afterEnd(tx, row!);
  }

  /**
   * Takes one quarantined job of these hosts for a clean-up; the taker has 30 s before another one tries.
   * `release` it once nothing of it can be left in the guest.
   */
  async takeQuarantined(hosts: string[]): Promise<Job | undefined> {
    const [row] = await this.db.$queryRaw<Job[]>`
      UPDATE jobs SET lease_until = now() + ${CLEAN_UP_SECONDS} * interval '1 second'
      WHERE id = (SELECT id FROM jobs WHERE quarantined AND host = ANY(${hosts}) AND coalesce(lease_until, '-infinity') < now()
        ORDER BY finished_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING ${JOB_COLUMNS}`;
    return row;
  }

  async release(jobId: string): Promise<void> {
    await this.db.job.updateMany({
      where: { id: jobId, quarantined: true },
      data: { quarantined: false, leaseUntil: null },
    });
  }
}

/** Something may have begun in the guest. */
const TOUCHED = Prisma.sql`(state <> 'awaiting_input' AND EXISTS (SELECT 1 FROM job_intents WHERE job_id = jobs.id))`;

const HOST_ALIVE = Prisma.sql`(host IS NULL OR EXISTS (SELECT 1 FROM hosts
  WHERE name = jobs.host AND beat_at > now() - ${HOST_SILENT_SECONDS} * interval '1 second'))`;

/** Attempts that were lost, unlike those that were handed over. */
const LOSSES = Prisma.sql`(SELECT count(*) FROM job_attempts WHERE job_id = jobs.id AND outcome = 'lost')`;

function pastDeadline(unknown: boolean, job: Job & { alive: boolean }): AppError {
  const messages: Partial<Record<ErrorCode, string>> = {
    outcome_unknown: 'Nobody could ask the VM how this ended; look there before you run it again.',
    input_timeout: 'No answer came in time.',
    host_unreachable: "No worker serves the VM's host right now; the job was not started.",
    queue_timeout: 'No worker was free in time, or commands were switched off; the job was not started.',
  };
  const code = unknown
    ? 'outcome_unknown'
    : job.state === 'awaiting_input'
      ? 'input_timeout'
      : job.alive
        ? 'queue_timeout'
        : 'host_unreachable';
  return new AppError(code, messages[code]!);
}
