import { mayChange } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { isFinal } from '@longhaul/jobs';
import type { Job } from '@longhaul/persistence';
import {
  MissingRequiredClientCapabilityError,
  ProtocolError,
  ProtocolErrorCode,
  RELATED_TASK_META_KEY,
  type CallToolResult,
  type InputRequest,
  type Result,
  type Server,
  type ServerContext,
  type Tool as ListedTool,
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import { answerOf, asProtocolError, faultOf } from './answer.js';
import { actorOfRequest, type CallRequest, type Services } from './call.js';
import { takesForms } from './confirmation.js';
import { STATE_SECONDS } from './input.js';
import type { CallOutcome, CallPipeline } from './pipeline.js';
import { answerQuestions, questionsOf } from './questions.js';
import { taskParams } from './serve-tasks.js';
import { taskOf } from './tasks.js';
import type { Tool } from './tool.js';

/** What the server says it can do with tasks. */
export const LEGACY_TASKS = { list: {}, cancel: {}, requests: { tools: { call: {} } } };

const PAGE = 50;
/** How long tasks/cancel waits for the job to stop; the revision wants it to have. */
const CANCEL_MS = 10_000;

/** Jobs as the experimental tasks of 2025-11-25, on which each call says whether it wants one. */
export class LegacyTasks {
  private readonly listed: ReadonlyMap<Tool, ListedTool>;

  constructor(
    private readonly pipeline: CallPipeline,
    private readonly tools: ReadonlyMap<string, Tool>,
    /** A task's life as answered: that of a job, whatever was wished for. */
    private readonly ttlMs: number,
  ) {
    this.listed = new Map([...tools.values()].map((tool) => [tool, listedOf(tool)]));
  }

  /** As tools/list of that revision shows a tool. */
  list(tool: Tool): ListedTool {
    return this.listed.get(tool)!;
  }

  /**
   * A call of that revision. Errors: -32601 for a task of a tool that makes none, and where only a task will do.
   */
  async call(
    name: string,
    args: unknown,
    task: object | undefined,
    request: CallRequest,
    call: (request: CallRequest) => Promise<CallOutcome>,
  ): Promise<CallOutcome> {
    const tool = this.tools.get(name);
    if (task && tool && !('submit' in tool.work) && request.selection(tool)) {
      const message = `${name} answers at once; it makes no task.`;
      const refuse = async () => {
        throw new AppError('invalid_arguments', message);
      };
      return this.pipeline.runMethod(name, args, request, refuse).catch(() => {
        throw new ProtocolError(ProtocolErrorCode.MethodNotFound, message);
      });
    }
    const asked = { ...request, client: request.client && { ...request.client, tasks: task !== undefined } };
    return call(asked).catch((error: unknown) => {
      if (!(error instanceof MissingRequiredClientCapabilityError)) throw error;
      throw new ProtocolError(ProtocolErrorCode.MethodNotFound, `${name} can only be called as a task.`);
    });
  }

  /** What tools/call answers instead of a result. */
  created(job: Job): CallToolResult {
    // The SDK insists on content; what serves it takes it out again.
    return { content: [], task: this.taskOf(job) } as CallToolResult;
  }

  /** The methods of tasks. Each goes through the gates of every call; what is not the caller's is -32602. */
  serve(server: Server, requestOf: (context: ServerContext) => CallRequest): void {
    const serve = (method: string, effect: 'reads' | 'changes', act: Act) =>
      server.setRequestHandler(method, { params: taskParams }, async ({ taskId }, context) => {
        // Waiting ends with the connection, or with the request where that has a life of its own.
        const request = { ...requestOf(context), cancelled: context.mcpReq.signal };
        const outcome = await this.pipeline
          .runOnTask(method, taskId, request, this.tools, effect, (job, tool, services, signal) =>
            act({ job, tool, services, signal, request, context }),
          )
          .catch(asProtocolError);
        if (outcome instanceof ProtocolError) throw outcome;
        return outcome;
      });

    serve('tasks/get', 'reads', async ({ job }) => this.taskOf(job));
    serve('tasks/result', 'reads', (task) => this.result(task));
    serve('tasks/cancel', 'changes', async ({ job, services, signal, request }) => {
      if (isFinal(job.state)) throw new AppError('invalid_arguments', `The task has ended: ${job.state}.`);
      await services.jobs.cancel(job.id, actorOfRequest(request));
      return this.taskOf(await services.jobs.wait(job.id, ({ state }) => isFinal(state), CANCEL_MS, signal));
    });
    server.setRequestHandler('tasks/list', { params: listParams }, ({ cursor }, context) => {
      const request = requestOf(context);
      return this.pipeline
        .runMethod('tasks/list', { cursor }, request, () => this.page(request, cursor))
        .catch(asProtocolError);
    });
  }

  /** Newest first: jobs of tools that the request is about. */
  private async page({ caller, selection }: CallRequest, before: string | undefined) {
    const { projectIds, vmIds, scopes } = caller;
    const tools = [...this.tools.values()].filter(selection).map(({ name }) => name);
    const filter = { projectIds, vmIds, scopes, tools, before };
    const found = await this.pipeline.services.jobs.list(filter, PAGE + 1);
    const jobs = found.slice(0, PAGE);
    return {
      tasks: jobs.map((job) => this.taskOf(job)),
      ...(found.length > PAGE && { nextCursor: jobs.at(-1)!.id }),
    };
  }

  /** Waits for the end of the task, however long that takes, and has a client that can be asked answer what the task asks. */
  private async result(task: Task): Promise<Result | ProtocolError> {
    const { tool, services, signal, request } = task;
    const asks = takesForms(request.client?.capabilities) && mayChange(request.caller, task.job.projectId);
    for (;;) {
      const job = await services.jobs.wait(
        task.job.id,
        ({ state }) => isFinal(state) || (asks && state === 'awaiting_input'),
        Infinity,
        signal,
      );
      await this.requireStill(task);
      if (isFinal(job.state))
        return (
          faultOf(job) ?? { ...(await answerOf(tool, job, services, request.caller)), _meta: relatedTo(job) }
        );
      if (signal.aborted) throw new AppError('unavailable', 'The task has not ended yet. Ask again.');
      await askOf(job, task);
    }
  }

  /** It may have waited for hours: who lost the right to ask meanwhile is told nothing. */
  private async requireStill({ job, services, request }: Task): Promise<void> {
    const now = await services.access.renew(request.caller);
    if (!now) throw new AppError('unauthenticated', 'These credentials hold no more.');
    await services.jobs.find(job.id, now);
  }

  private taskOf(job: Job) {
    const { ttlMs: ttl, pollIntervalMs: pollInterval, ...task } = taskOf(job, this.ttlMs);
    // Of a task that completed, the result is not an error in that revision.
    const isFailed = task.status === 'completed' && job.state !== 'succeeded';
    return { ...task, ttl, pollInterval, ...(isFailed && { status: 'failed' as const }) };
  }
}

function listedOf({ listed, work }: Tool): ListedTool {
  if (!('submit' in work)) return listed;
  return { ...listed, execution: { taskSupport: work.task ?? 'optional' } };
}

const listParams = z.looseObject({ cursor: z.string().max(128).optional() });

interface Task {
  job: Job;
  tool: Tool;
  services: Services;
  /** Aborts when the answer is not wanted any more, or wanted at once. */
  signal: AbortSignal;
  request: CallRequest;
  context: ServerContext;
}

type Act = (task: Task) => Promise<Result | ProtocolError>;

const relatedTo = ({ id }: Job) => ({ [RELATED_TASK_META_KEY]: { taskId: id } });

/** Puts all open questions to the client and stores its answers. Ends early when the job does not wait for them any more. */
async function askOf(job: Job, { services, signal, request, context }: Task): Promise<void> {
  const over = new AbortController();
  const abort = () => over.abort();
  signal.addEventListener('abort', abort);
  const ask = async ([key, { method, params }]: [string, InputRequest]) => {
    const question = { method, params: { ...params, _meta: relatedTo(job) } } as ElicitRequest;
    const options = { timeout: STATE_SECONDS * 1000, signal: over.signal };
    return [key, await context.mcpReq.send(question, options)] as const;
  };
  const moved = services.jobs.wait(job.id, ({ state }) => state !== 'awaiting_input', Infinity, over.signal);
  try {
    const questions = Object.entries(await questionsOf(job, services));
    const answered = Promise.all(questions.map(ask));
    const answers = await Promise.race([answered, moved]);
    if (Array.isArray(answers))
      await answerQuestions(job, Object.fromEntries(answers), services, actorOfRequest(request));
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError('unavailable', 'The client did not answer what the task asks. Ask again.');
  } finally {
    signal.removeEventListener('abort', abort);
    abort();
    await moved;
  }
}

type ElicitRequest = Extract<InputRequest, { method: 'elicitation/create' }>;
