import { AppError } from '@longhaul/errors';
import type { Artifacts } from '@longhaul/artifacts';
import type {
  Answer,
  AttemptRef,
  Attempts,
  JobKind,
  Outcome,
  Progress,
  Question,
  Versions,
} from '@longhaul/jobs';
import type { LogStream, LogWriter } from '@longhaul/job-log';
import type { Database, Job, Vm } from '@longhaul/persistence';
import type { VmProvider } from '@longhaul/vm-providers';

/** What a handler gets for one attempt of one job. */
export interface JobContext {
  readonly job: Job;
  readonly ref: AttemptRef;
  /** Aborts when the attempt must end and leave the job to another one: it was fenced, or the worker goes away. */
  readonly stop: AbortSignal;
  /** Aborts when a client has asked to cancel the job. */
  readonly cancel: AbortSignal;
  readonly attempts: Attempts;
  readonly db: Database;
  openLog(stream: LogStream): Promise<LogWriter>;
  /** Bytes that a stream of the job's log keeps. */
  readonly logLimitBytes: number;
  readonly artifacts: Artifacts;
  vmProvider(vm: Vm): VmProvider;
  /**
   * The job's one-time secret: what `make` gives to the first attempt that asks, the same to later ones. Whoever made the job
   * is told it once, when the job has succeeded (jobs/root-password.ts); a week later it is gone.
   */
  secret(make: () => Buffer): Promise<Buffer>;
  /**
   * The answers of a person to each of the questions. While one is missing it throws AwaitingInput, which ends the attempt:
   * `run` begins anew, in any worker, once all are there, so what comes before must be safe to repeat. A key is unique over
   * the job's life; the job fails when nobody has answered in `answerSeconds`.
   */
  ask<Key extends string>(
    questions: Record<Key, Question>,
    answerSeconds: number,
  ): Promise<Record<Key, Answer>>;
  /** Costs nothing: clients see the latest with the next heartbeat. Of the message 256 characters are kept. */
  progress(progress: Progress): void;
}

/** What a clean-up gets: the job has ended, nothing may be written of it. */
export type CleanUpContext = Pick<JobContext, 'job' | 'attempts' | 'db' | 'vmProvider'>;

/**
 * The code of a kind. `run` answers how the job ended. It throws an AppError for a failure that a client should see,
 * lets AwaitingInput, FencedError and the reason of `stop` pass, and any other error makes the job be tried again a few times.
 */
export interface JobHandler<Payload = unknown> {
  kind: JobKind<Payload>;
  run(context: JobContext, payload: Payload): Promise<Outcome>;
  /** What it follows goes on without it: a worker that drains hands it over at once, rather than let it end first. */
  goesOn?: true;
  /** Makes sure that nothing of an `unknown` job is left in the guest. Throws when it cannot tell: it is tried again. */
  cleanUp?(context: CleanUpContext): Promise<void>;
}

/** The code of each kind, by the kind's name. */
export class Handlers extends Map<string, JobHandler> {
  /** The newest version of each kind that can be run here. */
  readonly versions: Versions;

  constructor(handlers: readonly JobHandler[]) {
    super(handlers.map((handler) => [handler.kind.name, handler]));
    this.versions = Object.fromEntries(handlers.map(({ kind }) => [kind.name, kind.version]));
  }
}

export const defineHandler = <Payload>(handler: JobHandler<Payload>): JobHandler => handler as JobHandler;

/** The job's VM. Errors: `vm_not_found`, when it was deleted before this job came to its turn. */
export async function vmOf({ db, job }: Pick<JobContext, 'db' | 'job'>): Promise<Vm> {
  const vm = job.vmId && (await db.vm.findUnique({ where: { id: job.vmId } }));
  if (!vm) throw new AppError('vm_not_found', 'The VM has been deleted.');
  return vm;
}
