import { AppError } from '@longhaul/errors';
import type { JobState } from '@longhaul/persistence';

export const FINAL_STATES = ['succeeded', 'failed', 'timed_out', 'cancelled', 'unknown'] as const;
export type FinalState = (typeof FINAL_STATES)[number];

export const isFinal = (state: JobState): state is FinalState =>
  (FINAL_STATES as readonly JobState[]).includes(state);

/** How long after a delivery (or its failure) an unclaimed job is delivered again. */
export const REDELIVER_SECONDS = 3;

/** One attempt's right to write: every write carries it and is refused once a later attempt exists. */
export interface AttemptRef {
  jobId: string;
  attempt: number;
}

/** The attempt has lost its right to write; its work must stop and leave the job alone. */
export class FencedError extends Error {
  override name = 'FencedError';
  constructor(ref: AttemptRef) {
    super(`attempt ${ref.attempt} of job ${ref.jobId} has been fenced`);
  }
}

/** A crash of the database took what had been stored of the job's log: another attempt stores it again, then ends the job. */
export class LogLostError extends Error {
  override name = 'LogLostError';
  constructor(ref: AttemptRef) {
    super(`attempt ${ref.attempt} of job ${ref.jobId} finds its log shorter than it was`);
  }
}

/** The attempt is over, as a question waits for its answer: another one goes on. Its handler must let this pass. */
export class AwaitingInput extends Error {
  override name = 'AwaitingInput';
  constructor(ref: AttemptRef) {
    super(`attempt ${ref.attempt} of job ${ref.jobId} ended with a question`);
  }
}

export const jobNotFound = () =>
  new AppError('job_not_found', 'You have no job of that id. list_jobs shows yours.');

/** A job's queue: the worker of a hypervisor serves that host's own, work without a host goes to a shared one. */
export const queueName = (lane: string, host: string | null | undefined) => `${lane}.${host ?? 'shared'}`;
