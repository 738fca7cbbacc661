import { Inject, Injectable, type BeforeApplicationShutdown } from '@nestjs/common';
import { setTimeout as pause } from 'node:timers/promises';
import { Artifacts } from '@longhaul/artifacts';
import { CONFIG } from '@longhaul/config';
import { AppError, isAway, redactText, toAppError } from '@longhaul/errors';
import { JobLog, LogWriter } from '@longhaul/job-log';
import { JobConsumer } from '@longhaul/job-queue';
import {
  Attempts,
  AwaitingInput,
  FencedError,
  LogLostError,
  type AttemptRef,
  type Outcome,
  type Progress,
} from '@longhaul/jobs';
import { Database, StateChanges, type Job } from '@longhaul/persistence';
import { StoredSecrets } from '@longhaul/secrets';
import { correlation, createLogger, metrics, startSpan, traceIdOf } from '@longhaul/telemetry';
import { Handlers, type JobContext } from '@longhaul/toolsets/handler';
import type { WorkerConfig } from './config.js';
import { VmProviders } from './vm-providers.js';

/** An error that no handler foresaw is tried again by later attempts, this many in all; a server that is away, more often. */
const UNFORESEEN_ATTEMPTS = 5;
const TRY_AGAIN_SECONDS = 2;
/** After a notification; what comes meanwhile is asked for together. */
const ASK_MS = 50;
const ASK_AGAIN_MS = 2_000;
const PROGRESS_MESSAGE_MAX = 256;
/** How long a job's secret waits for its owner. */
const SECRET_SECONDS = 7 * 24 * 3600;

/** How an attempt ends for this process: with the job, or else. */
type End = Outcome['state'] | 'awaiting_input' | 'fenced' | 'handed_over' | 'failed_attempt';

const BAD_ENDS = new Set<End>(['failed', 'timed_out', 'unknown', 'fenced', 'failed_attempt']);

/** Why a handler was told to stop. */
class HandOver extends Error {}

interface Running {
  ref: AttemptRef;
  stop: AbortController;
  cancel: AbortController;
  goesOn?: boolean;
  /** The latest that the handler has told. */
  progress?: Progress;
}

/** Runs delivered jobs: claims, calls the kind's handler, writes the end. Holds what the heartbeat is about. */
@Injectable()
export class JobRunner extends JobConsumer implements BeforeApplicationShutdown {
  private readonly log = createLogger('job-runner');
  private readonly running = new Map<string, Running>();
  /** Of which a notification came. */
  private readonly changed = new Set<Running>();
  private asking: NodeJS.Timeout | undefined;
  private readonly consuming = new Set<Promise<void>>();
  private closing = false;

  constructor(
    @Inject(CONFIG) private readonly config: WorkerConfig,
    private readonly db: Database,
    private readonly attempts: Attempts,
    private readonly jobLog: JobLog,
    private readonly changes: StateChanges,
    private readonly providers: VmProviders,
    private readonly handlers: Handlers,
    private readonly artifacts: Artifacts,
    private readonly secrets: StoredSecrets,
  ) {
    super();
  }

  async consume(jobId: string): Promise<void> {
    // What is not claimed stays queued: recovery delivers it to a worker that stays.
    if (this.closing) return;
    const consumed = this.take(jobId);
    this.consuming.add(consumed);
    await consumed.finally(() => this.consuming.delete(consumed));
  }

  private async take(jobId: string): Promise<void> {
    try {
      const job = await this.claim(jobId);
      if (job) await this.attempt(job);
    } catch (error) {
      this.log.error({ err: error, jobId }, 'job not run, recovery will see to it');
    }
  }

  /** A delivery is kept in hand while the database is away: the next one may be a minute off. */
  private claim(jobId: string): Promise<Job | undefined> {
    return this.whileAway(() => this.attempts.claim(jobId, this.config.WORKER_NAME, this.handlers.versions));
  }

  /** `ask` again for as long as the database is away; nothing once this worker drains. */
  private async whileAway<T>(ask: () => Promise<T>): Promise<T | undefined> {
    for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, ASK_AGAIN_MS)) {
      try {
        return await ask();
      } catch (error) {
        if (this.closing || !isAway(error)) throw error;
        await pause(waitMs);
        if (this.closing) return undefined;
      }
    }
  }

  private async attempt(job: Job): Promise<void> {
    const { id: jobId, kind, lane, attempt } = job;
    if (attempt === 1 && job.startedAt)
      metrics.queueWait.observe({ kind, lane }, (job.startedAt.getTime() - job.createdAt.getTime()) / 1000);
    const requestId = job.requestId ?? undefined;
    const attributes = {
      'longhaul.job.id': jobId,
      'longhaul.job.attempt': attempt,
      'longhaul.request.id': requestId,
    };
    const { traceparent, end } = startSpan(`job ${kind}`, {
      parent: job.traceparent,
      kind: 'consumer',
      attributes,
    });
    const about = { jobId, attempt, requestId, traceId: traceIdOf(traceparent), traceparent };
    let ended: End = 'failed_attempt';
    metrics.jobsRunning.inc();
    try {
      ended = await correlation.run(about, () => this.track(job));
    } finally {
      metrics.jobsRunning.dec();
      metrics.attemptsEnded.inc({ kind, outcome: ended });
      end(ended, BAD_ENDS.has(ended));
    }
  }

  /** Renews the leases of what runs here; aborts what was fenced, tells handlers of cancel requests. */
  async heartbeat(held = [...this.running.values()]): Promise<void> {
    if (held.length === 0) return;
    const current = await this.attempts.heartbeat(held.map(({ ref, progress }) => ({ ...ref, progress })));
    for (const { ref, stop, cancel } of held) {
      const beat = current.get(ref.jobId);
      if (beat?.attempt !== ref.attempt) stop.abort(new FencedError(ref));
      else if (beat.cancelRequested) cancel.abort();
    }
  }

  /** Whether it was cancelled, say. Its claim and its end are changes as well: a short job is over before it is asked for. */
  private askSoon(running: Running): void {
    this.changed.add(running);
    this.asking ??= setTimeout(() => {
      this.asking = undefined;
      const held = [...this.changed].filter((one) => this.running.get(one.ref.jobId) === one);
      this.changed.clear();
      this.heartbeat(held).catch((error: unknown) => this.log.warn({ err: error }, 'heartbeat failed'));
    }, ASK_MS);
  }

  /** Drains: what goes on without us is handed over at once, all else may end for a while before it is. */
  async beforeApplicationShutdown() {
    this.closing = true;
    const ended = Promise.all(this.consuming);
    for (const { stop, goesOn } of this.running.values()) if (goesOn) stop.abort(new HandOver());
    await Promise.race([ended, pause(this.config.DRAIN_SECONDS * 1_000, undefined, { ref: false })]);
    for (const { stop } of this.running.values()) stop.abort(new HandOver());
    await ended;
  }

  private async track(job: Job): Promise<End> {
    const ref = { jobId: job.id, attempt: job.attempt };
    const running: Running = {
      ref,
      stop: new AbortController(),
      cancel: new AbortController(),
      goesOn: this.handlers.get(job.kind)?.goesOn,
    };
    // Claimed while the drain began.
    if (this.closing) running.stop.abort(new HandOver());
    if (job.cancelRequestedAt) running.cancel.abort();
    this.running.set(job.id, running);
    const unsubscribe = this.changes.on(job.id, () => this.askSoon(running));
    try {
      return await this.run(job, running);
    } finally {
      unsubscribe();
      this.forget(running);
    }
  }

  private forget(running: Running): void {
    const { jobId } = running.ref;
    if (this.running.get(jobId) === running) this.running.delete(jobId);
  }

  private async run(job: Job, running: Running): Promise<End> {
    const { ref } = running;
    this.log.info({ kind: job.kind }, 'attempt begins');
    try {
      if (job.attempt > 1)
        await this.note(ref, `attempt ${job.attempt} goes on, by ${this.config.WORKER_NAME}`);
      const outcome = await this.handle(job, running).catch((error: unknown) => {
        // What comes of being told to stop says nothing about the job.
        running.stop.signal.throwIfAborted();
        return this.outcomeOf(job, error);
      });
      if (outcome.error)
        await this.note(ref, `${outcome.state}: ${outcome.error.code}: ${outcome.error.message}`);
      await this.finish(running, outcome);
      this.log.info({ kind: job.kind, state: outcome.state }, 'attempt ends the job');
      return outcome.state;
    } catch (error) {
      if (error instanceof AwaitingInput) {
        this.log.info('attempt ends with a question');
        return 'awaiting_input';
      }
      if (error instanceof FencedError) {
        this.log.info('attempt was fenced');
        return 'fenced';
      }
      if (error instanceof HandOver) {
        await this.attempts.handOver(ref);
        this.log.info('attempt was handed over');
        return 'handed_over';
      }
      this.log.error({ err: error }, 'attempt failed, another one will try');
      // No heartbeat may lengthen the lease again.
      this.forget(running);
      await this.whileAway(() => this.attempts.release(ref, TRY_AGAIN_SECONDS));
      return 'failed_attempt';
    }
  }

  /** What a reader of the job's log should know besides its output. */
  private async note(ref: AttemptRef, text: string): Promise<void> {
    const writer = await LogWriter.open(this.jobLog, ref, 'system', this.config.LOG_STREAM_LIMIT);
    await writer.write(Buffer.from(`${new Date().toISOString()} ${text}\n`));
  }

  private async handle(job: Job, running: Running): Promise<Outcome> {
    const { ref, stop, cancel } = running;
    const handler = this.handlers.get(job.kind)!;
    const context: JobContext = {
      job,
      ref,
      stop: stop.signal,
      cancel: cancel.signal,
      attempts: this.attempts,
      db: this.db,
      openLog: (stream) => LogWriter.open(this.jobLog, ref, stream, this.config.LOG_STREAM_LIMIT),
      artifacts: this.artifacts,
      logLimitBytes: this.config.LOG_STREAM_LIMIT,
      vmProvider: (vm) => this.providers.of(vm),
      secret: (make) =>
        this.attempts.fenced(ref, (tx) =>
          this.secrets.keepOnceFor(tx, job.id, job.userId, make, SECRET_SECONDS),
        ),
      ask: (questions, answerSeconds) => this.attempts.ask(ref, questions, answerSeconds),
      progress: ({ message, ...progress }) => {
        // Half of a surrogate pair would make the heartbeat of all jobs fail.
        const text = message && redactText(message).slice(0, PROGRESS_MESSAGE_MAX).toWellFormed();
        running.progress = { ...progress, message: text };
      },
    };
    return handler.run(context, handler.kind.payload.parse(job.payload));
  }

  /** The retry decision: what a client should see ends the job, what nobody foresaw is tried again a few times. */
  private async outcomeOf(job: Job, error: unknown): Promise<Outcome> {
    if (error instanceof AppError) return { state: 'failed', error: error.toBody() };
    if (error instanceof AwaitingInput || error instanceof FencedError || isAway(error)) throw error;
    if ((await this.attempts.losses(job.id)) + 1 < UNFORESEEN_ATTEMPTS) throw error;
    const body = toAppError(error).toBody();
    this.log.error({ err: error, errorId: body.details }, 'attempt failed for the last time');
    const touched = (await this.attempts.intents(job.id)).length > 0;
    return touched ? { state: 'unknown', quarantine: true, error: body } : { state: 'failed', error: body };
  }

  /** The end is known: it is written as soon as the database takes it, unless the attempt must end without. */
  private async finish({ ref, stop }: Running, outcome: Outcome): Promise<void> {
    for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, 5_000)) {
      try {
        return await this.attempts.finish(ref, outcome);
      } catch (error) {
        if (error instanceof FencedError || error instanceof LogLostError || stop.signal.aborted) throw error;
        this.log.warn({ err: error }, 'the end of the job could not be written yet');
        await pause(waitMs);
      }
    }
  }
}
