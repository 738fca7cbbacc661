import { JobLog, type LogStream } from '@longhaul/job-log';
import {
  Attempts,
  AwaitingInput,
  JobDelivery,
  Jobs,
  jobsConfig,
  type Answer,
  type AttemptRef,
  type Outcome,
  type Progress,
  type Question,
} from '@longhaul/jobs';
import type { TestDatabase } from './database.js';

/** Delivers nowhere: redelivery is the recovery's work, and the tests that use this have their jobs in hand. */
export class NoDelivery extends JobDelivery {
  async deliver() {}
  async ping() {}
}

/** A worker moved by the test itself: claims, writes and ends jobs by the same means as the real one. */
export class HandWorker {
  private readonly attempts: Attempts;
  private readonly log: JobLog;

  constructor({ db, audit, changes }: TestDatabase) {
    this.attempts = new Attempts(db, new Jobs(db, audit, new NoDelivery(), changes), jobsConfig.parse({}));
    this.log = new JobLog(db);
  }

  async claim(jobId: string): Promise<AttemptRef> {
    const job = await this.attempts.claim(jobId, 'by-hand');
    if (!job) throw new Error(`nothing to claim of job ${jobId}`);
    return { jobId, attempt: job.attempt };
  }

  /** Appends at the end of the stream. */
  async write(ref: AttemptRef, stream: LogStream, data: Buffer): Promise<void> {
    const { size } = await this.log.open(ref, stream);
    await this.log.append(ref, stream, size, data);
  }

  /** Tells how far it is, as a heartbeat does. */
  async progress(ref: AttemptRef, progress: Progress): Promise<void> {
    await this.attempts.heartbeat([{ ...ref, progress }]);
  }

  /** The answers, or undefined when the attempt has ended until they are there. */
  async ask<Key extends string>(
    ref: AttemptRef,
    questions: Record<Key, Question>,
    answerSeconds = 60,
  ): Promise<Record<Key, Answer> | undefined> {
    return this.attempts.ask(ref, questions, answerSeconds).catch((error: unknown) => {
      if (error instanceof AwaitingInput) return undefined;
      throw error;
    });
  }

  finish(ref: AttemptRef, outcome: Outcome): Promise<void> {
    return this.attempts.finish(ref, outcome);
  }
}
