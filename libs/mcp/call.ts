import type { Access, Caller } from '@longhaul/access';
import type { JobLog } from '@longhaul/job-log';
import type { JobKind, Jobs, Submission } from '@longhaul/jobs';
import type { Database, Job, Vm } from '@longhaul/persistence';
import type { Selection } from './selection.js';

/** Who calls, over what: made by the transport for each request. */
export interface CallRequest {
  caller: Caller;
  /** The tools that the request is about; any other answers as if it did not exist. */
  selection: Selection;
  requestId: string;
  ip?: string;
  userAgent?: string;
  clientName?: string;
  clientVersion?: string;
  /** Aborts when the caller takes the request back, as its protocol revision understands that. */
  cancelled?: AbortSignal;
}

/** What handlers may use. */
export interface Services {
  access: Access;
  db: Database;
  jobs: Jobs;
  jobLog: JobLog;
}

type SubmitOptions = Pick<Submission<unknown>, 'label' | 'lane' | 'queueSeconds' | 'idempotencyKey'>;

/** One call of a tool as its handler sees it: every gate has been passed, everything named in the arguments has been found. */
export class Call<
  R extends { vm: Vm | undefined; job: Job | undefined } = { vm: Vm | undefined; job: Job | undefined },
> {
  /** Made by this call; the audit names it. */
  submitted?: Job;
  private readonly startedAt = performance.now();

  constructor(
    readonly request: CallRequest,
    readonly services: Services,
    readonly vm: R['vm'],
    readonly job: R['job'],
    /** Aborts when the answer is wanted at once: the caller gave up, or this process is stopping. */
    readonly signal: AbortSignal,
  ) {}

  get caller(): Caller {
    return this.request.caller;
  }

  /** Submits a job on the call's VM, in the caller's name. Errors: those of Jobs.submit. */
  async submit<Payload>(
    kind: JobKind<Payload, unknown>,
    payload: Payload,
    options: SubmitOptions,
  ): Promise<Job> {
    if (!this.vm) throw new Error(`a ${kind.name} job needs a VM`);
    const { id, host, commandSlots, projectId } = this.vm;
    this.submitted = await this.services.jobs.submit({
      kind,
      payload,
      by: this.actor,
      projectId,
      vm: { id, host, commandSlots },
      requestId: this.request.requestId,
      ...options,
    });
    return this.submitted;
  }

  /** The job once `until` holds, or as it is when the call has taken `callMs` in all or its answer is wanted at once. */
  waitFor(jobId: string, until: (job: Job) => boolean, callMs: number): Promise<Job> {
    const leftMs = callMs - (performance.now() - this.startedAt);
    return this.services.jobs.wait(jobId, until, leftMs, this.signal);
  }

  cancel(jobId: string): Promise<Job> {
    return this.services.jobs.cancel(jobId, { ...this.actor, requestId: this.request.requestId });
  }

  private get actor() {
    return { userId: this.caller.userId, tokenId: this.caller.tokenId };
  }
}
