import { actorOf, projectFor, type Access, type Caller } from '@longhaul/access';
import type { Artifacts } from '@longhaul/artifacts';
import { AppError } from '@longhaul/errors';
import type { ImageCatalog } from '@longhaul/images';
import type { JobLog } from '@longhaul/job-log';
import type { JobKind, Jobs, Progress, Submission } from '@longhaul/jobs';
import type { Database, Job } from '@longhaul/persistence';
import { createLogger, traceIdOf, traced } from '@longhaul/telemetry';
import type { StoredSecrets } from '@longhaul/secrets';
import type { InputRequests } from '@modelcontextprotocol/server';
import { answersTo, digestOf, type Asking, type InputAnswers } from './input.js';
import { answerQuestions } from './questions.js';
import type { Selection } from './selection.js';
import type { Found, Tool } from './tool.js';

/** Who calls, over what: made by the transport for each request. */
export interface CallRequest {
  caller: Caller;
  /** The tools that the request is about; any other answers as if it did not exist. */
  selection: Selection;
  requestId: string;
  /** Of clients of OAuth: a WWW-Authenticate header that tells them to ask for these scopes. */
  challenge?: (scopes: readonly string[]) => string;
  /** W3C trace context that the client has sent along. */
  traceparent?: string;
  ip?: string;
  userAgent?: string;
  clientName?: string;
  clientVersion?: string;
  /** Aborts when the caller takes the request back, as its protocol revision understands that. */
  cancelled?: AbortSignal;
  client?: ClientSide;
}

/** What the client of a request can do beside waiting for its result. */
export interface ClientSide extends Asking {
  /** It takes a task instead of the result. */
  tasks: boolean;
  /** Undefined when it did not ask for progress. */
  progress?(progress: Progress): void;
  log(level: 'debug' | 'info' | 'warning' | 'error', data: unknown): void;
}

/** In whose name a request acts. */
export const actorOfRequest = ({ caller, requestId }: CallRequest) => ({ ...actorOf(caller), requestId });

/** What handlers may use. */
export interface Services {
  access: Access;
  db: Database;
  jobs: Jobs;
  jobLog: JobLog;
  artifacts: Artifacts;
  images(): Promise<ImageCatalog>;
  secrets: StoredSecrets;
}

type SubmitOptions = Partial<
  Pick<
    Submission<unknown>,
    'label' | 'lane' | 'queueSeconds' | 'idempotencyKey' | 'projectId' | 'vm' | 'isNewVm' | 'alongside'
  >
>;

const log = createLogger('mcp');

/** One call of a tool as its handler sees it: every gate has been passed, everything named in the arguments has been found. */
export class Call<R extends Found = Found> {
  /** Made by this call; the audit names it. */
  submitted?: Job;
  private readonly startedAt = performance.now();

  constructor(
    readonly tool: Tool,
    private readonly args: object,
    readonly request: CallRequest,
    readonly services: Services,
    readonly vm: R['vm'],
    readonly job: R['job'],
    private readonly interruption: () => AbortSignal,
  ) {}

  /** Aborts when the answer is wanted at once: the caller gave up, or this process is stopping. */
  get signal(): AbortSignal {
    return this.interruption();
  }

  /** Of its arguments and of what they named. */
  get digest(): string {
    return digestOf(this.tool.name, this.args, this.vm?.id, this.job?.id);
  }

  get caller(): Caller {
    return this.request.caller;
  }

  /**
   * Submits a job in the caller's name: on the call's VM, or in the first project in which the caller may change something.
   * Errors: those of Jobs.submit.
   */
  async submit<Payload>(
    kind: JobKind<Payload, unknown>,
    payload: Payload,
    options: SubmitOptions = {},
  ): Promise<Job> {
    const { vm, caller, request, tool, actor } = this;
    const { requestId, traceparent: parent } = request;
    const attributes = { 'longhaul.job.kind': kind.name, 'longhaul.request.id': requestId };
    const job = await traced('job submit', { parent, kind: 'producer', attributes }, (traceparent) =>
      this.services.jobs.submit({
        kind,
        payload,
        by: actor,
        projectId: vm?.projectId ?? projectFor(caller),
        vm: vm && { id: vm.id, host: vm.host, commandSlots: vm.commandSlots },
        tool: tool.name,
        requestId,
        traceparent,
        ...options,
      }),
    );
    this.submitted = job;
    const { id: jobId, kind: name, traceparent } = job;
    log.info(
      { requestId, jobId, traceId: traceIdOf(traceparent), kind: name, tool: tool.name },
      'job submitted',
    );
    return job;
  }

  /**
   * The job once `until` holds, or as it is when the call has taken `callMs` in all or its answer is wanted at once. Its
   * progress reaches a client that asked for it meanwhile.
   */
  waitFor(jobId: string, until: (job: Job) => boolean, callMs: number): Promise<Job> {
    const leftMs = callMs - (performance.now() - this.startedAt);
    let shown = -Infinity;
    const look = (job: Job) => {
      const progress = job.progress as Progress | null;
      if (progress && progress.progress > shown) {
        shown = progress.progress;
        this.progress(progress);
      }
      return until(job);
    };
    return this.services.jobs.wait(jobId, look, leftMs, this.signal);
  }

  cancel(jobId: string): Promise<Job> {
    return this.services.jobs.cancel(jobId, this.actor);
  }

  /**
   * Answers open questions of the call's job, by their keys. Errors: `invalid_arguments` when none of them is open, or when an
   * answer is not of the form that was asked for.
   */
  async answer(responses: Record<string, unknown>): Promise<Job> {
    const { job, answered } = await answerQuestions(this.job!, responses, this.services, this.actor);
    if (answered.length > 0) return job;
    throw new AppError('invalid_arguments', 'answers: the job has no open question of these keys.');
  }

  /** Tells a client that asked for progress. It must grow from call to call. */
  progress(progress: Progress): void {
    this.request.client?.progress?.(progress);
  }

  /**
   * What the client has answered to each of `requests`. While an answer is missing or is not of the form that was asked for,
   * the call ends here, asks, and begins anew with the answers. The answers are the client's word, no more: what must have
   * been asked first needs a confirmation.
   */
  ask(requests: InputRequests): InputAnswers {
    return answersTo(requests, this.request.client);
  }

  /** In whose name the call acts. */
  get actor() {
    return actorOfRequest(this.request);
  }
}
