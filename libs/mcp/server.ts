import { Inject, Injectable } from '@nestjs/common';
import { AppError, redactText } from '@longhaul/errors';
import { CONFIG } from '@longhaul/config';
import { retentionConfig } from '@longhaul/jobs';
import { parseTraceparent } from '@longhaul/telemetry';
import {
  CLIENT_CAPABILITIES_META_KEY,
  CLIENT_INFO_META_KEY,
  Server,
  TRACEPARENT_META_KEY,
  type CallToolResult,
  type ClientCapabilities,
  type Implementation,
  type JSONRPCMessage,
  type ServerContext,
  type Transport,
  type TransportSendOptions,
} from '@modelcontextprotocol/server';
import type { z } from 'zod';
import { TASKS_EXTENSION, asProtocolError } from './answer.js';
import type { CallRequest, ClientSide } from './call.js';
import { takesJson, type DirectAnswer } from './http.js';
import { hasScope } from './gates.js';
import { INSTRUCTIONS, SERVER_INFO } from './identity.js';
import { LEGACY_TASKS, LegacyTasks } from './legacy-tasks.js';
import { CallPipeline, isJob, type CallOutcome } from './pipeline.js';
import { getPrompt, listedPrompt } from './prompt.js';
import { RequestStates } from './request-states.js';
import { completeResource, listResources, readResource, type RunTool } from './resource.js';
import { serveTasks } from './serve-tasks.js';
import { createdTask } from './tasks.js';
import type { Catalog, Tool } from './tool.js';

/** What clients may keep, of what changes only with an upgrade or with the token. */
const CACHE = { ttlMs: 300_000, cacheScope: 'private' } as const;
const CACHE_HINTS = { 'tools/list': CACHE, 'server/discover': CACHE };
const DAY_MS = 86_400_000;

/** Under this token the module finds the catalogue of its app. */
export const CATALOG = Symbol('catalog');

/** What a modern request says of its client; the SDK has checked it. */
export interface Envelope {
  [CLIENT_INFO_META_KEY]?: Implementation;
  [CLIENT_CAPABILITIES_META_KEY]?: ClientCapabilities;
}

/** `task` is of 2025-11-25; the SDK's types know it no more. */
interface CallParams {
  name: string;
  arguments?: unknown;
  task?: object;
}

/** How a server object is used: for one request of either revision, or for a session of the 2025-11-25 line. */
export type Serving = 'modern' | 'legacy' | 'session';

/** Makes the SDK's server objects out of the catalogue, whose schemas were computed at load. */
@Injectable()
export class McpServers {
  readonly byName: ReadonlyMap<string, Tool>;
  /** How long a task can be asked for, at least. */
  readonly ttlMs: number;
  private readonly legacyTasks: LegacyTasks;

  constructor(
    @Inject(CATALOG) private readonly catalog: Catalog,
    @Inject(CONFIG) config: z.output<typeof retentionConfig>,
    private readonly pipeline: CallPipeline,
    private readonly states: RequestStates,
  ) {
    this.byName = new Map(catalog.tools.map((tool) => [tool.name, tool]));
    this.ttlMs = config.JOB_RETENTION_DAYS * DAY_MS;
    this.legacyTasks = new LegacyTasks(pipeline, this.byName, this.ttlMs);
  }

  /** The request in whose name a handler is called travels in `authInfo.extra.request` of each HTTP request. */
  serve(serving: Serving, http?: Request): Server {
    const isModern = serving === 'modern';
    const server = new TaskServer(SERVER_INFO, {
      capabilities: {
        tools: { listChanged: true },
        // Nobody is told of a VM that is new, which would change the list.
        resources: { subscribe: true },
        prompts: {},
        completions: {},
        ...(isModern ? { extensions: { [TASKS_EXTENSION]: {} } } : { logging: {}, tasks: LEGACY_TASKS }),
      },
      instructions: INSTRUCTIONS,
      cacheHints: CACHE_HINTS,
      requestState: { verify: (state, context) => this.states.verify(state, context) },
    });
    if (isModern && takesJson(http)) server.direct = http;
    const requestOf = (context: ServerContext) => this.requestOf(server, serving, context);
    server.setRequestHandler('tools/call', async ({ params }, context) => {
      const { name, arguments: args, task } = params as CallParams;
      const call = (request: CallRequest) => this.call(name, args, request);
      const request = requestOf(context);
      const outcome = await (isModern
        ? call(request)
        : this.legacyTasks.call(name, args, task, request, call));
      if (!isJob(outcome)) return outcome;
      return isModern ? createdTask(outcome.job, this.ttlMs) : this.legacyTasks.created(outcome.job);
    });
    // A call is what most requests are, and the other handlers of a server object that is for one request are not needed then.
    if (server.direct?.rpcMethod === 'tools/call') return server;
    server.setRequestHandler('tools/list', async (_request, context) => {
      await this.enter(context);
      const request = httpRequestOf(context);
      const tools = this.catalog.tools.filter((tool) => shows(request, tool));
      return { tools: tools.map((tool) => (isModern ? tool.listed : this.legacyTasks.list(tool))) };
    });
    this.serveReading(server, requestOf);
    if (isModern) serveTasks(server, this.pipeline, this.byName, requestOf, this.ttlMs);
    else this.legacyTasks.serve(server, requestOf);
    return server;
  }

  /** Resources are read by tools; prompts are the same for everybody. */
  private serveReading(server: Server, requestOf: (context: ServerContext) => CallRequest) {
    const { prompts } = this.catalog;
    const visible = (context: ServerContext) =>
      this.catalog.resources.filter(({ definition }) => shows(httpRequestOf(context), definition.tool));
    const runner = (context: ServerContext): RunTool => {
      // What reads for a resource answers at once: it has nobody to ask and no task to give.
      const request = { ...requestOf(context), client: undefined };
      return async (tool, args) => (await this.pipeline.run(tool, args, request)) as CallToolResult;
    };
    server.setRequestHandler('resources/templates/list', async (_request, context) => {
      await this.enter(context);
      return { resourceTemplates: visible(context).map(({ listed }) => listed) };
    });
    server.setRequestHandler('resources/list', async (_request, context) => ({
      resources: await listResources(visible(context), runner(context)),
    }));
    server.setRequestHandler('resources/read', ({ params }, context) =>
      readResource(visible(context), params.uri, runner(context)),
    );
    server.setRequestHandler('completion/complete', async ({ params: { ref, argument } }, context) => {
      await this.enter(context);
      if (ref.type !== 'ref/resource') return { completion: { values: [] } };
      const values = await completeResource(visible(context), ref.uri, argument, runner(context));
      return { completion: { values } };
    });
    server.setRequestHandler('prompts/list', async (_request, context) => {
      await this.enter(context);
      return { prompts: prompts.map(listedPrompt) };
    });
    server.setRequestHandler('prompts/get', async ({ params }, context) => {
      await this.enter(context);
      return getPrompt(prompts, params.name, params.arguments, requestOf(context).client);
    });
  }

  /** What shows nothing of anybody is not audited; the gates that everything passes are for it, too. */
  private enter(context: ServerContext): Promise<void> {
    return this.pipeline.enter(httpRequestOf(context)).catch(asProtocolError);
  }

  private async call(name: string, args: unknown, request: CallRequest): Promise<CallOutcome> {
    const tool = this.byName.get(name);
    if (tool && request.selection(tool)) return this.pipeline.run(tool, args, request);
    const message = `Unknown tool ${redactText(name, 128)}; tools/list names those there are.`;
    return this.pipeline
      .refuse(name, args, request, new AppError('unknown_tool', message))
      .catch(asProtocolError);
  }

  private requestOf(server: Server, serving: Serving, context: ServerContext): CallRequest {
    const { mcpReq } = context;
    const envelope: Envelope = mcpReq.envelope ?? {};
    const isModern = serving === 'modern';
    const info = isModern ? envelope[CLIENT_INFO_META_KEY] : server.getClientVersion();
    // Nothing reaches a client of the older line before its result does, unless it has a session.
    const capabilities = isModern ? envelope[CLIENT_CAPABILITIES_META_KEY] : server.getClientCapabilities();
    return {
      ...httpRequestOf(context),
      ...clientOf(info),
      ...traceOf(mcpReq._meta),
      // On the 2025-11-25 line a lost connection does not take a request back; in a session there is a message for that.
      ...(serving !== 'legacy' && { cancelled: mcpReq.signal }),
      client: this.clientSide(capabilities, isModern, context),
    };
  }

  private clientSide(
    capabilities: ClientCapabilities | undefined,
    isModern: boolean,
    context: ServerContext,
  ): ClientSide {
    const { mcpReq } = context;
    const progressToken = mcpReq._meta?.progressToken;
    const notify = (method: string, params: object) =>
      void mcpReq.notify({ method, params: { ...params } }).catch(() => undefined);
    return {
      tasks: isModern && declaresTasks(capabilities),
      capabilities,
      responses: mcpReq.inputResponses,
      state: mcpReq.requestState(),
      seal: (state) => this.states.seal(state, context),
      ...(progressToken !== undefined && {
        progress: (progress) => notify('notifications/progress', { progressToken, ...progress }),
      }),
      log: (level, data) => void mcpReq.log(level, data).catch(() => undefined),
    };
  }
}

class TaskServer extends Server {
  /** Where a result goes that nothing went before, in place of the transport. */
  direct?: DirectAnswer;

  override connect(transport: Transport): Promise<void> {
    const send = transport.send.bind(transport);
    let isFirst = true;
    transport.send = (message: JSONRPCMessage, options?: TransportSendOptions) => {
      const result = 'result' in message ? message.result : undefined;
      // The SDK gives every result of tools/call a `content`; a task has none.
      if (result?.resultType === 'task' || result?.task) delete result.content;
      const { direct } = this;
      if (!direct || !result || !isFirst) {
        isFirst = false;
        return send(message, options);
      }
      direct.answerJson(message);
      return withoutTraces(() => transport.close());
    };
    return super.connect(transport);
  }
}

/** Closing makes errors that nobody reads; taking their stack traces was a twentieth of a call. */
function withoutTraces<T>(act: () => T): T {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return act();
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

export const declaresTasks = (capabilities: ClientCapabilities | undefined): boolean =>
  capabilities?.extensions?.[TASKS_EXTENSION] !== undefined;

/** As the HTTP side has made it. */
export const httpRequestOf = ({ http }: ServerContext): CallRequest =>
  http?.authInfo?.extra?.request as CallRequest;

export const shows = ({ caller, selection }: CallRequest, tool: Tool) =>
  selection(tool) && hasScope(tool, caller);

/** Name and version of the client, where it says them in the form that it should. */
export function clientOf(
  info: Partial<Implementation> | undefined,
): Pick<CallRequest, 'clientName' | 'clientVersion'> {
  const { name, version } = info ?? {};
  return {
    ...(typeof name === 'string' && { clientName: name }),
    ...(typeof version === 'string' && { clientVersion: version }),
  };
}

/** The trace that a request belongs to, by its `_meta`, which goes before that of the HTTP request. */
export function traceOf(meta: Record<string, unknown> | undefined): Pick<CallRequest, 'traceparent'> {
  const traceparent = parseTraceparent(meta?.[TRACEPARENT_META_KEY]);
  return traceparent === undefined ? {} : { traceparent };
}
