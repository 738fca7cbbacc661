import { Inject, Injectable } from '@nestjs/common';
import { Access, Rates, actorOf, requireChange, requireExecSwitch, requireOpen } from '@longhaul/access';
import { Artifacts } from '@longhaul/artifacts';
import { Audit, resultOf } from '@longhaul/audit';
import { CONFIG } from '@longhaul/config';
import { AppError, redactText, toAppError } from '@longhaul/errors';
import { loadCatalog, type imagesConfig } from '@longhaul/images';
import { JobLog } from '@longhaul/job-log';
import { Jobs, isFinal } from '@longhaul/jobs';
import { Database, type Job, type Vm } from '@longhaul/persistence';
import { StoredSecrets } from '@longhaul/secrets';
import { createLogger, metrics, startSpan, traceIdOf } from '@longhaul/telemetry';
import type { CallToolResult, InputRequiredResult } from '@modelcontextprotocol/server';
import type { z } from 'zod';
import { answerOf, toError, toResult } from './answer.js';
import { Call, type CallRequest, type Services } from './call.js';
import { confirm, type ConfirmedBy } from './confirmation.js';
import { requireExec, requireRunning, requireScope, tasksRequired } from './gates.js';
import { InputNeeded, askClient, requireStateOf } from './input.js';
import { RequestStates } from './request-states.js';
import type { Found, JobWork, Tool } from './tool.js';

/** How a call ends: with its result, with questions to the client, or with a job that the client follows as a task. */
export type CallOutcome = CallToolResult | InputRequiredResult | { job: Job };

export const isJob = (outcome: CallOutcome): outcome is { job: Job } => 'job' in outcome;

/** Methods that are counted by their names, beside the tools; what else a client names is `other`. */
const COUNTED = new Set([
  'tasks/get',
  'tasks/update',
  'tasks/cancel',
  'tasks/result',
  'tasks/list',
  'resources/subscribe',
  'subscriptions/listen',
]);

/** What the audit will say about a call, gathered on its way. */
interface Trail {
  vm?: Vm;
  job?: Job;
  call?: Call;
  confirmedBy?: ConfirmedBy;
}

/**
 * The one way of every call: kill switches → caller's rate → scope → parse → ownership and role → state and rate of the VM →
 * execution opt-in → slot → confirmation → handle → audit → map errors. Nothing about a VM is said, and no limit of a VM is
 * touched, before it is known to be the caller's.
 */
@Injectable()
export class CallPipeline {
  private readonly log = createLogger('mcp');
  readonly services: Services;
  private readonly open = new Set<AbortController>();
  private stopping = false;

  constructor(
    private readonly audit: Audit,
    access: Access,
    db: Database,
    jobs: Jobs,
    jobLog: JobLog,
    artifacts: Artifacts,
    private readonly states: RequestStates,
    private readonly rates: Rates,
    secrets: StoredSecrets,
    @Inject(CONFIG) config: z.output<typeof imagesConfig>,
  ) {
    const images = () => loadCatalog(config.IMAGE_CATALOG);
    this.services = { access, db, jobs, jobLog, artifacts, images, secrets };
  }

  /**
   * What goes wrong is an answer with `isError`; it throws a ProtocolError only for what the protocol has an error of its own
   * for (answer.ts).
   */
  async run(tool: Tool, args: unknown, asked: CallRequest): Promise<CallOutcome> {
    const startedAt = performance.now();
    const trail: Trail = {};
    const { requestId, traceparent: parent } = asked;
    const attributes = { 'mcp.tool': tool.name, 'longhaul.request.id': requestId };
    const { traceparent, end } = startSpan(`tools/call ${tool.name}`, { parent, kind: 'server', attributes });
    const request = traceparent === parent ? asked : { ...asked, traceparent };
    const outcome = await this.attempt(tool, args, request, trail).catch((thrown: unknown) =>
      thrown instanceof InputNeeded ? thrown : this.explain(tool.name, request, thrown),
    );
    const withheld = await this.record(tool.name, args, request, trail, outcome, startedAt);
    const code = codeOf(withheld ?? outcome);
    end(code, outcome instanceof AppError || withheld !== undefined);
    count(tool.name, code, startedAt);
    if (withheld) return toError(withheld);
    if (outcome instanceof AppError) return toError(outcome);
    if (!(outcome instanceof InputNeeded)) return outcome;
    return askClient(outcome, trail.call!.digest, request.client!);
  }

  /**
   * One of the `tasks/…` methods on a job that a tool has made, through the gates of every call. A task of a tool that the
   * request is not about is `task_not_found` like a foreign one. Errors: AppError, also when the call cannot be audited.
   */
  runOnTask<Result>(
    method: string,
    jobId: string,
    request: CallRequest,
    tools: ReadonlyMap<string, Tool>,
    effect: 'reads' | 'changes',
    act: (job: Job, tool: Tool, services: Services, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    return this.runMethod(method, { taskId: jobId }, request, async (trail) => {
      trail.job = await this.services.jobs.find(jobId, request.caller);
      const tool = tools.get(trail.job.tool ?? '');
      if (!tool || !request.selection(tool)) throw new AppError('job_not_found', 'There is no such task.');
      const { job } = trail;
      if (effect === 'changes') requireChange(request.caller, job.projectId);
      return this.interruptible(request, (signal) => act(job, tool, this.services, signal()));
    });
  }

  /** The gates that everything passes, whatever it is about. Errors: `switched_off`, `vm_state_blocked`, `rate_limited`. */
  async enter({ caller }: CallRequest, tool?: Tool): Promise<void> {
    requireOpen(caller);
    if (tool?.vm?.exec) requireExecSwitch(caller);
    await this.rates.call(caller);
  }

  /** A method other than tools/call, audited like it. Errors: AppError, also when it cannot be audited. */
  async runMethod<Result>(
    method: string,
    args: unknown,
    request: CallRequest,
    act: (trail: Trail) => Promise<Result>,
  ): Promise<Result> {
    const startedAt = performance.now();
    const trail: Trail = {};
    const outcome = await this.enter(request)
      .then(() => act(trail))
      .catch((thrown: unknown) => this.explain(method, request, thrown));
    const withheld = await this.record(method, args, request, trail, outcome, startedAt);
    count(COUNTED.has(method) ? method : 'other', codeOf(withheld ?? outcome), startedAt);
    if (withheld) throw withheld;
    if (outcome instanceof AppError) throw outcome;
    return outcome;
  }

  /** A call that there is nothing for is audited like any other refusal. Throws `error`, or that of a gate before it. */
  refuse(name: string, args: unknown, request: CallRequest, error: AppError): Promise<never> {
    return this.runMethod(redactText(name, 128), args, request, () => Promise.reject(error));
  }

  /** From now on calls that wait for a job answer with what they have, so that the process can end soon. */
  stop() {
    this.stopping = true;
    this.open.forEach((controller) => controller.abort());
  }

  private attempt(
    tool: Tool,
    rawArgs: unknown,
    request: CallRequest,
    trail: Trail,
  ): Promise<CallToolResult | { job: Job }> {
    return this.interruptible(request, async (signal) => {
      const { call, args } = await this.admit(tool, rawArgs, request, trail, signal);
      if ('handle' in tool.work) return toResult(tool, await tool.work.handle(call, args));
      return this.workAsJob(tool, tool.work, call, args);
    });
  }

  /**
   * The signal aborts when the caller takes the request back, or this process is stopping. It is made when it is asked for,
   * which most calls never do.
   */
  private async interruptible<T>(
    { cancelled }: CallRequest,
    act: (signal: () => AbortSignal) => Promise<T>,
  ): Promise<T> {
    let forget = () => {};
    const make = () => {
      const controller = new AbortController();
      const abort = () => controller.abort();
      this.open.add(controller);
      cancelled?.addEventListener('abort', abort);
      if (this.stopping || cancelled?.aborted) abort();
      forget = () => {
        this.open.delete(controller);
        cancelled?.removeEventListener('abort', abort);
      };
      return controller.signal;
    };
    let signal: AbortSignal | undefined;
    try {
      return await act(() => (signal ??= make()));
    } finally {
      forget();
    }
  }

  private async workAsJob(tool: Tool, work: Work, call: Call, args: Record<string, unknown>) {
    const job = await work.submit(call, args);
    if (call.request.client?.tasks) return { job };
    if (work.answerWithinMs === 0) return answerOf(tool, job, this.services, call.caller);
    const last = await call.waitFor(job.id, ({ state }) => isFinal(state), work.answerWithinMs);
    // Who takes the request back before the id was answered could never stop the job.
    if (call.request.cancelled?.aborted) await call.cancel(job.id);
    return answerOf(tool, last, this.services, call.caller);
  }

  /** Every gate in its order; answers the call and the parsed arguments. */
  private async admit(
    tool: Tool,
    rawArgs: unknown,
    request: CallRequest,
    trail: Trail,
    signal: () => AbortSignal,
  ) {
    const { caller, client } = request;
    await this.enter(request, tool);
    requireScope(tool, caller);
    if ('submit' in tool.work && tool.work.task === 'required' && !client?.tasks) throw tasksRequired(tool);
    const args = tool.parse(rawArgs);
    const { vm_id: vmId, job_id: jobId, command_id: commandId = jobId } = args;
    if (typeof vmId === 'string') trail.vm = await this.services.access.resolveVm(caller, vmId);
    if (typeof commandId === 'string') trail.job = await this.services.jobs.find(commandId, caller);
    if (!tool.listed.annotations?.readOnlyHint)
      requireChange(caller, trail.vm?.projectId ?? trail.job?.projectId);
    if (trail.vm && tool.vm?.running) requireRunning(trail.vm);
    if (trail.vm) await this.rates.vmCall(trail.vm.id);
    if (trail.vm && tool.vm?.exec) requireExec(trail.vm);
    if ('submit' in tool.work) await this.rates.submission(caller);
    // The statement that makes a job takes its slot, too. Asking before is for persons, who need not confirm in vain.
    if (trail.vm && tool.vm?.slot && tool.confirmation)
      await this.services.jobs.requireSlot(trail.vm, tool.vm.slot, tool.vm.alone && args.force !== true);
    const call = new Call(tool, args, request, this.services, trail.vm, trail.job, signal);
    trail.call = call;
    if (client?.state) requireStateOf(call.digest, client);
    trail.confirmedBy = await confirm(call, args, this.states);
    return { call, args };
  }

  private explain(tool: string, { requestId }: CallRequest, thrown: unknown): AppError {
    const error = toAppError(thrown);
    if (error !== thrown)
      this.log.error({ err: error.cause, tool, requestId, ...error.details }, 'a call failed');
    return error;
  }

  /** Resolves once the event is stored; answers an error when it cannot be, and then the call's own answer is withheld. */
  private async record(
    tool: string,
    args: unknown,
    request: CallRequest,
    { vm, job, call, confirmedBy }: Trail,
    outcome: unknown,
    startedAt: number,
  ): Promise<AppError | undefined> {
    const { caller, requestId, traceparent, ip, userAgent, clientName, clientVersion } = request;
    const error = outcome instanceof AppError ? outcome : undefined;
    const about = call?.submitted ?? job;
    try {
      await this.audit.record({
        event: 'call',
        tool,
        arguments: args,
        ...actorOf(caller),
        projectId: vm?.projectId ?? about?.projectId,
        vmId: vm?.id ?? about?.vmId,
        jobId: about?.id,
        result: outcome instanceof InputNeeded ? 'asked' : resultOf(error),
        confirmedBy,
        code: error?.code,
        durationMs: Math.round(performance.now() - startedAt),
        requestId,
        traceId: traceIdOf(traceparent),
        ip,
        userAgent,
        clientName,
        clientVersion,
      });
      return undefined;
    } catch (thrown) {
      this.log.error({ err: thrown, tool, requestId }, 'a call could not be audited');
      const made = call?.submitted && { job_id: call.submitted.id };
      return new AppError(
        'unavailable',
        'The call could not be audited, so its answer is withheld. Try again later.',
        made,
      );
    }
  }
}

const codeOf = (outcome: unknown) =>
  outcome instanceof InputNeeded ? 'asked' : outcome instanceof AppError ? outcome.code : 'ok';

const count = (tool: string, code: string, startedAt: number) =>
  metrics.mcpCalls.observe({ tool, code }, (performance.now() - startedAt) / 1000);

type Work = JobWork<Found, Record<string, unknown>, object>;
