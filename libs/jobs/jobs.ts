import { Inject, Injectable } from '@nestjs/common';
import { Audit } from '@longhaul/audit';
import { CONFIG } from '@longhaul/config';
import { AppError, redactText } from '@longhaul/errors';
import {
  Database,
  StateChanges,
  JOB_COLUMNS,
  parseId,
  type Job,
  type RawSql,
  type Vm,
} from '@longhaul/persistence';
import { metrics } from '@longhaul/telemetry';
import type { z } from 'zod';
import { Backlog, type submissionConfig } from './backlog.js';
import { JobDelivery } from './delivery.js';
import type { VmSlot } from './kind.js';
import type { Answer, Question } from './questions.js';
import { REDELIVER_SECONDS, jobNotFound } from './states.js';
import { explainRefusal, insertJob, requireSlot, retryAfter, type Submission } from './submission.js';
import { letNextIn } from './window.js';

const LIVE = ['queued', 'running', 'awaiting_input'] as const;
const WAIT_POLL_MS = 1_000;
const ANSWER_MAX_BYTES = 64 * 1024;
/** In JSON: NUL or half of a surrogate pair, which jsonb refuses. A backslash before it would be one of the text's own. */
const NOT_STORABLE = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/;

/** Whose jobs are meant: those of these projects, of kinds that these scopes may read. */
export interface JobFilter {
  projectIds: string[];
  scopes: string[];
  /** Only jobs on these VMs; a job on no VM is then like one that does not exist. */
  vmIds?: string[];
}

/** In whose name something is done to a job, for its audit. */
export interface Actor {
  userId: string;
  tokenId?: string;
  /** Of OAuth. */
  clientId?: string;
  requestId?: string;
}

/** The side of jobs that clients see: submit, find, wait, cancel, answer. It never runs anything. */
@Injectable()
export class Jobs {
  private readonly backlog: Backlog;

  constructor(
    private readonly db: Database,
    private readonly audit: Audit,
    private readonly delivery: JobDelivery,
    private readonly changes: StateChanges,
    // Only processes that serve clients have the limit; operators and workers are not held back by it.
    @Inject(CONFIG) { QUEUE_LIMIT = Infinity }: Partial<z.output<typeof submissionConfig>> = {},
  ) {
    this.backlog = new Backlog(db, QUEUE_LIMIT);
  }

  /**
   * Stores the job and its audit event in one transaction, then delivers its id, if there is room in the project's window.
   * With the queue away it still succeeds: recovery delivers later. Errors: `vm_command_in_progress` or `vm_busy`
   * (details.job_id holds the slot), `idempotency_key_reused`, `rate_limited` (too many unfinished jobs, in the project or in
   * all; details.retry_after in seconds).
   */
  async submit<Payload>(submission: Submission<Payload>): Promise<Job> {
    const full = await this.backlog.isFull();
    // A conflict whose cause has gone by the time it is looked for (the other job just ended) is worth another try.
    for (let tries = 0; tries < 3; tries++) {
      const inserted = full
        ? undefined
        : await this.db.rawTransaction((tx) => insertJob(tx, this.audit, submission));
      if (inserted) this.backlog.added();
      if (inserted?.place === 'window') await this.deliver(inserted);
      const job = inserted ?? (await explainRefusal(this.db, submission));
      if (job) return job;
      if (full) {
        const details = { retry_after: retryAfter(this.backlog.unfinished) };
        throw new AppError(
          'rate_limited',
          'Too much work is waiting, of all projects together; try again later.',
          details,
        );
      }
    }
    throw new AppError('unavailable', 'The VM is contended right now; try again.');
  }

  /** Whether a job could have the slot now, for who asks a person before submitting it. Errors: those of `submit`. */
  requireSlot(vm: Pick<Vm, 'id' | 'commandSlots'>, slot: VmSlot, alone?: boolean): Promise<void> {
    return requireSlot(this.db, vm, slot, alone);
  }

  async find(jobId: string, filter: JobFilter): Promise<Job> {
    const id = parseId(jobId);
    const job = id && (await this.db.job.findFirst({ where: { id, ...visibleTo(filter) } }));
    if (!job) throw jobNotFound();
    if (!filter.scopes.includes(job.scope)) {
      throw new AppError('forbidden_scope', `Reading this job needs the scope ${job.scope}.`, {
        required_scope: job.scope,
      });
    }
    return job;
  }

  /** Newest first. `before` is the id of the last job of the page before. */
  async list(
    filter: JobFilter & { vmId?: string; states?: Job['state'][]; tools?: string[]; before?: string },
    limit: number,
  ): Promise<Job[]> {
    const before = filter.before === undefined ? undefined : await this.find(filter.before, filter);
    return this.db.job.findMany({
      where: {
        ...visibleTo(filter),
        scope: { in: filter.scopes },
        ...(filter.vmId && { AND: { vmId: filter.vmId } }),
        ...(filter.states && { state: { in: filter.states } }),
        ...(filter.tools && { tool: { in: filter.tools } }),
        ...(before && {
          OR: [
            { createdAt: { lt: before.createdAt } },
            { createdAt: before.createdAt, id: { lt: before.id } },
          ],
        }),
      },
      orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
      take: limit,
    });
  }

  /** The job as soon as `until` holds for it, or as it is after `timeoutMs` or when `signal` aborts. */
  async wait(
    jobId: string,
    until: (job: Job) => boolean,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Job> {
    const deadline = performance.now() + timeoutMs;
    let changed = false;
    let wake = () => {};
    const notify = () => {
      changed = true;
      wake();
    };
    const unsubscribe = this.changes.on(jobId, notify);
    signal?.addEventListener('abort', notify);
    try {
      for (;;) {
        changed = false;
        const job = await this.db.job.findUniqueOrThrow({ where: { id: jobId } });
        const left = deadline - performance.now();
        if (until(job) || left <= 0 || signal?.aborted) return job;
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.min(left, WAIT_POLL_MS));
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
          if (changed) wake();
        });
      }
    } finally {
      unsubscribe();
      signal?.removeEventListener('abort', notify);
    }
  }

  /**
   * Ends a job that nothing has been started for; asks the worker to end any other (it hears by notification and
   * heartbeat). Has no effect on one that has ended. Answers the job as it is then. Nobody in `by` is the operator.
   */
  async cancel(jobId: string, by: Partial<Actor>): Promise<Job> {
    const { job, next } = await this.db.$transaction(async (tx) => {
      const [job] = await tx.$queryRaw<Job[]>`
        UPDATE jobs SET
          cancel_requested_at = coalesce(cancel_requested_at, now()),
          (state, finished_at) = (
            SELECT CASE WHEN untouched THEN 'cancelled' ELSE jobs.state END, CASE WHEN untouched THEN now() END
            FROM (SELECT jobs.state = 'awaiting_input' OR (jobs.state = 'queued'
              AND NOT EXISTS (SELECT 1 FROM job_intents WHERE job_id = jobs.id)) AS untouched) AS u)
        WHERE id = ${jobId}::uuid AND state IN ('queued', 'running', 'awaiting_input') RETURNING ${JOB_COLUMNS}`;
      if (!job) return { job: await tx.job.findUniqueOrThrow({ where: { id: jobId } }) };
      const { projectId, vmId } = job;
      await this.audit.write(tx, {
        event: 'job.cancel_requested',
        ...by,
        projectId,
        vmId,
        jobId,
        result: job.state,
      });
      return { job, next: job.state === 'cancelled' ? await this.afterEnd(tx, job) : undefined };
    });
    if (next) await this.deliver(next);
    return job;
  }

  /** Ends all commands there are, running or not, as `cancel` does; answers how many. */
  async cancelCommands(by: Partial<Actor>): Promise<number> {
    const live = await this.db.job.findMany({ where: { exec: true, state: { in: [...LIVE] } } });
    for (const { id } of live) await this.cancel(id, by);
    return live.length;
  }

  /** Has workers look again at commands that waited for being switched on, as they are now. */
  async redeliverCommands(): Promise<void> {
    await this.db.$executeRaw`
      UPDATE jobs SET redeliver_at = now() WHERE exec AND state = 'queued' AND place <> 'held'`;
  }

  /** The questions that a job waits for, by key. */
  async questions(jobId: string): Promise<Record<string, Question>> {
    const open = await this.db.jobQuestion.findMany({
      where: { jobId, answeredAt: null, job: { state: 'awaiting_input' } },
      orderBy: [{ askedAt: 'asc' }, { key: 'asc' }],
    });
    return Object.fromEntries(open.map(({ key, question }) => [key, question as unknown as Question]));
  }

  /**
   * Stores answers, whose form the caller has checked; when no question is left open the job is queued again. Unknown keys,
   * questions that have an answer and a job that awaits none are left alone. Answers the job as it is then. Errors:
   * `invalid_arguments` (an answer is larger than 64 KiB of JSON, or PostgreSQL could not keep its text).
   */
  async answer(jobId: string, answers: Record<string, Answer>, by: Actor): Promise<Job> {
    const given = storable(answers);
    const { job, isQueued } = await this.db.$transaction(async (tx) => {
      const [row] = await tx.$queryRaw<Job[]>`
        SELECT ${JOB_COLUMNS} FROM jobs WHERE id = ${jobId}::uuid AND state = 'awaiting_input' FOR UPDATE`;
      if (!row) return { job: await tx.job.findUniqueOrThrow({ where: { id: jobId } }), isQueued: false };
      const stored = await tx.$queryRaw<{ key: string; action: string }[]>`
        UPDATE job_questions AS questions SET answer = value, answered_by = ${by.userId}::uuid, answered_at = now()
        FROM jsonb_each(${given}::jsonb) AS given
        WHERE job_id = ${jobId}::uuid AND questions.key = given.key AND answered_at IS NULL
        RETURNING questions.key, value ->> 'action' AS action`;
      if (stored.length === 0) return { job: row, isQueued: false };
      const isQueued = (await tx.jobQuestion.count({ where: { jobId, answeredAt: null } })) === 0;
      const [changed] = isQueued
        ? await tx.$queryRaw<Job[]>`
            UPDATE jobs SET state = 'queued', delivery = delivery + 1, priority = 0,
              redeliver_at = now() + ${REDELIVER_SECONDS} * interval '1 second',
              deadline_at = now() + run_seconds * interval '1 second'
            WHERE id = ${jobId}::uuid RETURNING ${JOB_COLUMNS}`
        : await tx.$queryRaw<Job[]>`
            UPDATE jobs SET updated_at = now() WHERE id = ${jobId}::uuid RETURNING ${JOB_COLUMNS}`;
      const job = changed!;
      const { projectId, vmId, state: result } = job;
      const event = 'job.answered';
      await this.audit.write(tx, { event, ...by, projectId, vmId, jobId, arguments: stored, result });
      return { job, isQueued };
    });
    if (isQueued) await this.deliver(job);
    return job;
  }

  async deliver({ id: jobId, delivery: number, queue, priority }: Job): Promise<void> {
    await this.delivery.deliver({ jobId, number, queue, priority }).catch(() => undefined);
  }

  /**
   * What belongs into the transaction that ended a job: its `job.finished` event, and the turn of the next one, which is
   * answered, to be delivered after the commit. The end is counted.
   */
  async afterEnd(tx: RawSql, job: Job): Promise<Job | undefined> {
    const { id: jobId, userId, tokenId, projectId, vmId, requestId, state, kind } = job;
    metrics.jobsEnded.inc({ kind, state });
    if (job.startedAt && job.finishedAt)
      metrics.jobRun.observe({ kind }, (job.finishedAt.getTime() - job.startedAt.getTime()) / 1000);
    const code = (job.error as { code?: string } | null)?.code ?? null;
    await this.audit.write(tx, {
      event: 'job.finished',
      userId,
      tokenId,
      projectId,
      vmId,
      jobId,
      requestId,
      result: state,
      code,
    });
    return letNextIn(tx, job);
  }
}

const visibleTo = ({ projectIds, vmIds }: JobFilter) => ({
  projectId: { in: projectIds },
  ...(vmIds && { vmId: { in: vmIds } }),
});

function storable(answers: Record<string, Answer>): string {
  for (const [key, answer] of Object.entries(answers)) {
    if (Buffer.byteLength(JSON.stringify(answer)) <= ANSWER_MAX_BYTES) continue;
    throw new AppError(
      'invalid_arguments',
      `The answer ${redactText(key, 64)} is larger than ${ANSWER_MAX_BYTES} bytes.`,
    );
  }
  const json = JSON.stringify(answers);
  if (!NOT_STORABLE.test(json)) return json;
  throw new AppError('invalid_arguments', 'Answers must be valid Unicode without NUL characters.');
}
