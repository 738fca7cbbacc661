import { Injectable } from '@nestjs/common';
import { Access, type Caller } from '@longhaul/access';
import { Audit } from '@longhaul/audit';
import { AppError, redactText, toAppError } from '@longhaul/errors';
import { JobLog } from '@longhaul/job-log';
import { Jobs } from '@longhaul/jobs';
import { Database, type Job, type Vm } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { CallToolResult } from '@modelcontextprotocol/server';
import { Call, type CallRequest, type Services } from './call.js';
import type { Tool } from './tool.js';

/** What the audit will say about a call, gathered on its way. */
interface Trail {
  vm?: Vm;
  job?: Job;
  call?: Call;
}

/**
 * The one way of every call: scope → parse → ownership → VM state → execution opt-in → handle → audit → map errors.
 * Nothing about a VM is said before it is known to be the caller's. Later gates have their place in `admit`.
 */
@Injectable()
export class CallPipeline {
  private readonly log = createLogger('mcp');
  private readonly services: Services;
  private readonly open = new Set<AbortController>();
  private stopping = false;

  constructor(
    private readonly audit: Audit,
    access: Access,
    db: Database,
    jobs: Jobs,
    jobLog: JobLog,
  ) {
    this.services = { access, db, jobs, jobLog };
  }

  /** Never throws: whatever goes wrong is an answer with `isError`. */
  async run(tool: Tool, args: unknown, request: CallRequest): Promise<CallToolResult> {
    const startedAt = performance.now();
    const trail: Trail = {};
    const outcome = await this.attempt(tool, args, request, trail).catch((thrown) =>
      this.explain(tool, thrown),
    );
    const error = outcome instanceof AppError ? outcome : undefined;
    const audited = await this.record(tool.name, args, request, trail, error, startedAt);
    return toResult(tool, audited ?? outcome);
  }

  /** A call of a tool that does not exist is audited like any other refusal. */
  async recordUnknown(name: string, args: unknown, request: CallRequest): Promise<void> {
    const error = new AppError('unknown_tool', 'There is no such tool.');
    await this.record(redactText(name, 128), args, request, {}, error, performance.now());
  }

  /** From now on calls that wait for a job answer with what they have, so that the process can end soon. */
  stop() {
    this.stopping = true;
    this.open.forEach((controller) => controller.abort());
  }

  private async attempt(tool: Tool, rawArgs: unknown, request: CallRequest, trail: Trail) {
    const args = await this.admit(tool, rawArgs, request.caller, trail);
    const controller = new AbortController();
    const abort = () => controller.abort();
    this.open.add(controller);
    request.cancelled?.addEventListener('abort', abort);
    if (this.stopping || request.cancelled?.aborted) abort();
    trail.call = new Call(request, this.services, trail.vm, trail.job, controller.signal);
    try {
      return await tool.handle(trail.call, args);
    } finally {
      this.open.delete(controller);
      request.cancelled?.removeEventListener('abort', abort);
    }
  }

  /** Every gate in its order; answers the parsed arguments. */
  private async admit(tool: Tool, rawArgs: unknown, caller: Caller, trail: Trail) {
    requireScope(tool, caller);
    const args = tool.parse(rawArgs);
    const { vm_id: vmId, job_id: jobId, command_id: commandId = jobId } = args;
    if (typeof vmId === 'string') trail.vm = await this.services.access.resolveVm(caller, vmId);
    if (typeof commandId === 'string') trail.job = await this.services.jobs.find(commandId, caller);
    if (trail.vm && tool.vm?.running) requireRunning(trail.vm);
    if (trail.vm && tool.vm?.exec) requireExec(trail.vm);
    return args;
  }

  private explain(tool: Tool, thrown: unknown): AppError {
    const error = toAppError(thrown);
    if (error.code === 'internal')
      this.log.error({ err: error.cause, tool: tool.name, ...error.details }, 'a call failed');
    return error;
  }

  /** Resolves once the event is stored; answers an error when it cannot be, and then the call's own answer is withheld. */
  private async record(
    tool: string,
    args: unknown,
    request: CallRequest,
    { vm, job, call }: Trail,
    error: AppError | undefined,
    startedAt: number,
  ): Promise<AppError | undefined> {
    const { caller, requestId, ip, userAgent, clientName, clientVersion } = request;
    const about = call?.submitted ?? job;
    try {
      await this.audit.record({
        event: 'call',
        tool,
        arguments: args,
        userId: caller.userId,
        tokenId: caller.tokenId,
        projectId: vm?.projectId ?? about?.projectId,
        vmId: vm?.id ?? about?.vmId,
        jobId: about?.id,
        result: !error ? 'ok' : FAULTS.has(error.code) ? 'failed' : 'refused',
        code: error?.code,
        durationMs: Math.round(performance.now() - startedAt),
        requestId,
        ip,
        userAgent,
        clientName,
        clientVersion,
      });
      return undefined;
    } catch (thrown) {
      this.log.error({ err: thrown, tool }, 'a call could not be audited');
      const made = call?.submitted && { job_id: call.submitted.id };
      return new AppError(
        'unavailable',
        'The call could not be audited, so its answer is withheld. Try again later.',
        made,
      );
    }
  }
}

/** Our own failures; any other error is a refusal. */
const FAULTS = new Set(['internal', 'unavailable']);

function requireScope(tool: Tool, caller: Caller) {
  if (tool.scope === 'any' || caller.scopes.includes(tool.scope)) return;
  throw new AppError('forbidden_scope', `${tool.name} needs a token with the scope ${tool.scope}.`, {
    required_scope: tool.scope,
  });
}

function requireRunning(vm: Vm) {
  // What has not been observed yet may well be running: the worker finds out.
  if (vm.powerState === 'running' || vm.powerState === 'unknown') return;
  throw new AppError('vm_state_blocked', `The VM is ${vm.powerState}. Start it, then call again.`, {
    power_state: vm.powerState,
    observed_at: vm.observedAt?.toISOString(),
  });
}

function requireExec(vm: Vm) {
  if (vm.execEnabled) return;
  throw new AppError(
    'mcp_exec_disabled',
    'Commands are switched off on this VM, as they are by default. Its owner can switch them on.',
  );
}

/**
 * An error is JSON in the text and nothing else: clients of the 2025-11-25 line check structured content against the
 * tool's output schema even when the result is an error.
 */
function toResult(tool: Tool, outcome: AppError | Record<string, unknown>): CallToolResult {
  if (outcome instanceof AppError) {
    const text = JSON.stringify({ error: outcome.toBody() });
    return { isError: true, content: [{ type: 'text', text }] };
  }
  return { content: [{ type: 'text', text: tool.text(outcome) }], structuredContent: outcome };
}
