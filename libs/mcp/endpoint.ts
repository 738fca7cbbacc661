import { setTimeout } from 'node:timers/promises';
import { Inject, Injectable, type BeforeApplicationShutdown } from '@nestjs/common';
import { redactText } from '@longhaul/errors';
import { createLogger } from '@longhaul/telemetry';
import { toNodeHandler, type NodeMcpRequestHandler } from '@modelcontextprotocol/node';
import {
  CLIENT_INFO_META_KEY,
  ProtocolError,
  ProtocolErrorCode,
  Server,
  createMcpHandler,
  type McpRequestContext,
  type ServerContext,
} from '@modelcontextprotocol/server';
import type { CallRequest } from './call.js';
import { INSTRUCTIONS, SERVER_INFO } from './identity.js';
import { CallPipeline } from './pipeline.js';
import { getPrompt, listedPrompt } from './prompt.js';
import { completeResource, listResources, readResource, type RunTool } from './resource.js';
import { parseSelection, type Narrowing, type Selection } from './selection.js';
import type { Catalog, Tool } from './tool.js';

/** How long calls under way may take to answer when the process stops. */
const SHUTDOWN_MS = 3_000;

/** What clients may keep, of what changes only with an upgrade or with the token. */
const CACHE = { ttlMs: 300_000, cacheScope: 'private' } as const;
const CACHE_HINTS = { 'tools/list': CACHE, 'server/discover': CACHE };

type NodeRequest = Parameters<NodeMcpRequestHandler>[0];
type NodeResponse = Parameters<NodeMcpRequestHandler>[1];

/** Under this token the module finds the catalogue of its app. */
export const CATALOG = Symbol('catalog');

/**
 * Serves MCP over HTTP, both revisions, without a session: a server object is made for every request, from a catalogue
 * whose schemas were computed at load.
 */
@Injectable()
export class McpEndpoint implements BeforeApplicationShutdown {
  private readonly log = createLogger('mcp');
  private readonly byName: ReadonlyMap<string, Tool>;
  private readonly handler = createMcpHandler((context) => this.serve(context), {
    onerror: (error) => this.log.debug({ err: error }, 'request rejected'),
  });
  private readonly nodeHandler = toNodeHandler(this.handler);
  private readonly underway = new Set<Promise<void>>();

  constructor(
    @Inject(CATALOG) private readonly catalog: Catalog,
    private readonly pipeline: CallPipeline,
  ) {
    this.byName = new Map(catalog.tools.map((tool) => [tool.name, tool]));
  }

  /** Which tools an HTTP request is about. Errors: `invalid_arguments`. */
  select(narrowing: Narrowing): Selection {
    return parseSelection(narrowing, this.catalog);
  }

  /** Answers one HTTP request whose caller is known and whose body has been parsed. */
  async handle(req: NodeRequest, res: NodeResponse, body: unknown, request: CallRequest): Promise<void> {
    const { tokenId, scopes } = request.caller;
    req.auth = { token: tokenId, clientId: tokenId, scopes, extra: { request } };
    const answered = this.nodeHandler(req, res, body);
    this.underway.add(answered);
    await answered.finally(() => this.underway.delete(answered));
  }

  /** Lets calls under way answer, then ends what would stay open for ever. */
  async beforeApplicationShutdown() {
    this.pipeline.stop();
    const deadline = setTimeout(SHUTDOWN_MS, undefined, { ref: false });
    await Promise.race([Promise.allSettled(this.underway), deadline]);
    await this.handler.close();
  }

  private serve({ authInfo, era }: McpRequestContext): Server {
    const request = authInfo?.extra?.request as CallRequest;
    const server = new Server(SERVER_INFO, {
      capabilities: { tools: {}, resources: {}, prompts: {}, completions: {} },
      instructions: INSTRUCTIONS,
      cacheHints: CACHE_HINTS,
    });
    server.setRequestHandler('tools/list', () => ({
      tools: this.catalog.tools.filter((tool) => shows(request, tool)).map((tool) => tool.listed),
    }));
    const requestOf = (context: ServerContext): CallRequest => ({
      ...request,
      ...clientOf(context),
      // On the 2025-11-25 line a lost connection does not take a request back.
      ...(era === 'modern' && { cancelled: context.mcpReq.signal }),
    });
    server.setRequestHandler('tools/call', ({ params }, context) =>
      this.call(params.name, params.arguments, requestOf(context)),
    );
    this.serveReading(server, request, requestOf);
    return server;
  }

  /** Resources are read by tools; prompts are the same for everybody. */
  private serveReading(
    server: Server,
    request: CallRequest,
    requestOf: (context: ServerContext) => CallRequest,
  ) {
    const { prompts } = this.catalog;
    const resources = this.catalog.resources.filter(({ definition }) => shows(request, definition.tool));
    const runner =
      (context: ServerContext): RunTool =>
      (tool, args) =>
        this.pipeline.run(tool, args, requestOf(context));
    server.setRequestHandler('resources/templates/list', () => ({
      resourceTemplates: resources.map(({ listed }) => listed),
    }));
    server.setRequestHandler('resources/list', async (_request, context) => ({
      resources: await listResources(resources, runner(context)),
    }));
    server.setRequestHandler('resources/read', ({ params }, context) =>
      readResource(resources, params.uri, runner(context)),
    );
    server.setRequestHandler('completion/complete', async ({ params: { ref, argument } }, context) => {
      if (ref.type !== 'ref/resource') return { completion: { values: [] } };
      return {
        completion: { values: await completeResource(resources, ref.uri, argument, runner(context)) },
      };
    });
    server.setRequestHandler('prompts/list', () => ({ prompts: prompts.map(listedPrompt) }));
    server.setRequestHandler('prompts/get', ({ params }) =>
      getPrompt(prompts, params.name, params.arguments),
    );
  }

  private async call(name: string, args: unknown, request: CallRequest) {
    const tool = this.byName.get(name);
    if (tool && request.selection(tool)) return this.pipeline.run(tool, args, request);
    await this.pipeline.recordUnknown(name, args, request);
    const message = `Unknown tool ${redactText(name, 128)}; tools/list names those there are.`;
    throw new ProtocolError(ProtocolErrorCode.InvalidParams, message, { code: 'unknown_tool' });
  }
}

const shows = ({ caller, selection }: CallRequest, tool: Tool) =>
  selection(tool) && (tool.scope === 'any' || caller.scopes.includes(tool.scope));

/** Name and version of the client, where its revision sends them along with each request. */
function clientOf(context: ServerContext): Pick<CallRequest, 'clientName' | 'clientVersion'> {
  const envelope: Record<string, unknown> = context.mcpReq.envelope ?? {};
  const { name, version } = (envelope[CLIENT_INFO_META_KEY] ?? {}) as Record<string, unknown>;
  return {
    ...(typeof name === 'string' && { clientName: name }),
    ...(typeof version === 'string' && { clientVersion: version }),
  };
}
