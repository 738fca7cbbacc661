import { setTimeout } from 'node:timers/promises';
import { Inject, Injectable, type BeforeApplicationShutdown } from '@nestjs/common';
import { createLogger } from '@longhaul/telemetry';
import { toNodeHandler, type NodeMcpRequestHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, isLegacyRequest } from '@modelcontextprotocol/server';
import type { CallRequest } from './call.js';
import { ParamHeaders } from './param-headers.js';
import { CallPipeline } from './pipeline.js';
import { parseSelection, type Narrowing, type Selection } from './selection.js';
import { CATALOG, McpServers } from './server.js';
import type { HttpOptions } from './session.js';
import { Sessions } from './sessions.js';
import type { Catalog } from './tool.js';

/** How long calls under way may take to answer when the process stops. */
const SHUTDOWN_MS = 3_000;

type NodeRequest = Parameters<NodeMcpRequestHandler>[0];
type NodeResponse = Parameters<NodeMcpRequestHandler>[1];

/** Serves MCP over HTTP, both revisions: a server object is made for every request, unless it belongs to a session. */
@Injectable()
export class McpEndpoint implements BeforeApplicationShutdown {
  private readonly log = createLogger('mcp');
  private readonly handler = createMcpHandler(({ era }) => this.servers.serve(era), {
    onerror: (error) => this.log.debug({ err: error }, 'request rejected'),
  });
  private readonly nodeHandler = toNodeHandler({
    fetch: (request, options) => this.fetch(request, options ?? {}),
  });
  private readonly paramHeaders: ParamHeaders;
  private readonly underway = new Set<Promise<void>>();

  constructor(
    @Inject(CATALOG) private readonly catalog: Catalog,
    private readonly servers: McpServers,
    private readonly pipeline: CallPipeline,
    private readonly sessions: Sessions,
  ) {
    this.paramHeaders = new ParamHeaders(catalog.tools);
  }

  /** Which tools an HTTP request is about. Errors: `invalid_arguments`. */
  select(narrowing: Narrowing): Selection {
    return parseSelection(narrowing, this.catalog);
  }

  /** Answers one HTTP request whose caller is known and whose body has been parsed. */
  async handle(req: NodeRequest, res: NodeResponse, body: unknown, request: CallRequest): Promise<void> {
    const refusal = this.paramHeaders.check(body, req.headers);
    if (refusal) {
      res.writeHead(400, { 'content-type': 'application/json' });
      res.end(JSON.stringify(refusal));
      return;
    }
    const { tokenId, scopes } = request.caller;
    req.auth = { token: tokenId, clientId: tokenId, scopes, extra: { request } };
    const answered = this.nodeHandler(req, res, body);
    this.underway.add(answered);
    await answered.finally(() => this.underway.delete(answered));
  }

  /** Lets calls under way answer, then ends what would stay open for ever. */
  async beforeApplicationShutdown() {
    this.pipeline.stop();
    this.sessions.stop();
    const deadline = setTimeout(SHUTDOWN_MS, undefined, { ref: false });
    await Promise.race([Promise.allSettled(this.underway), deadline]);
    await Promise.all([this.handler.close(), this.sessions.close()]);
  }

  private async fetch(request: Request, options: HttpOptions): Promise<Response> {
    const inSession = this.sessions.enabled && (await isLegacyRequest(request, options.parsedBody));
    return inSession ? this.sessions.fetch(request, options) : this.handler.fetch(request, options);
  }
}
