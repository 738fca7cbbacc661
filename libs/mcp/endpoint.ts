import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { Inject, Injectable, type BeforeApplicationShutdown } from '@nestjs/common';
import { createLogger } from '@longhaul/telemetry';
import { createMcpHandler, isLegacyRequest, type Server } from '@modelcontextprotocol/server';
import type { CallRequest } from './call.js';
import { FAILED, answerHttp, toRequest } from './http.js';
import { Subscriptions, isListen, type ListenRequest } from './listen.js';
import { ParamHeaders } from './param-headers.js';
import { CallPipeline } from './pipeline.js';
import { parseSelection, type Narrowing, type Selection } from './selection.js';
import { answerChallenge, refuseUnscoped } from './scope-challenge.js';
import { CATALOG, McpServers } from './server.js';
import type { HttpOptions } from './session.js';
import { SessionNews } from './session-news.js';
import { Sessions } from './sessions.js';
import type { Catalog } from './tool.js';

/** How long calls under way may take to answer when the process stops. */
const SHUTDOWN_MS = 3_000;

/** Serves MCP over HTTP, both revisions: a server object is made for every request, unless it belongs to a session. */
@Injectable()
export class McpEndpoint implements BeforeApplicationShutdown {
  private readonly log = createLogger('mcp');
  private readonly handler = createMcpHandler(({ era, requestInfo }) => this.serve(era, requestInfo), {
    onerror: (error) => this.log.debug({ err: error }, 'request rejected'),
  });
  private readonly paramHeaders: ParamHeaders;
  private readonly underway = new Set<Promise<void>>();
  private isClosed = false;

  constructor(
    @Inject(CATALOG) private readonly catalog: Catalog,
    private readonly servers: McpServers,
    private readonly pipeline: CallPipeline,
    private readonly sessions: Sessions,
    private readonly subscriptions: Subscriptions,
    private readonly news: SessionNews,
  ) {
    this.paramHeaders = new ParamHeaders(catalog.tools);
  }

  /** Which tools an HTTP request is about. Errors: `invalid_arguments`. */
  select(narrowing: Narrowing): Selection {
    return parseSelection(narrowing, this.catalog);
  }

  /** Answers one HTTP request whose caller is known and whose body has been parsed. */
  async handle(
    req: IncomingMessage,
    res: ServerResponse,
    body: unknown,
    request: CallRequest,
  ): Promise<void> {
    const refusal = this.paramHeaders.check(body, req.headers);
    if (refusal) {
      res.writeHead(400, { 'content-type': 'application/json' });
      res.end(JSON.stringify(refusal));
      return;
    }
    const unscoped = await refuseUnscoped(body, request, this.catalog, this.pipeline);
    if (unscoped) return answerChallenge(res, unscoped, request);
    const { tokenId, scopes } = request.caller;
    const authInfo = { token: tokenId, clientId: tokenId, scopes, extra: { request } };
    const options = { authInfo, parsedBody: body };
    const answered = isListen(body)
      ? this.listen(req, res, body, request, options)
      : this.answer(req, res, options);
    this.underway.add(answered);
    await answered.finally(() => this.underway.delete(answered));
  }

  /** Lets calls under way answer, then ends what would stay open for ever. */
  async beforeApplicationShutdown() {
    this.pipeline.stop();
    this.sessions.stop();
    this.subscriptions.stop();
    const deadline = setTimeout(SHUTDOWN_MS, undefined, { ref: false });
    await Promise.race([Promise.allSettled(this.underway), deadline]);
    this.isClosed = true;
    await Promise.all([this.handler.close(), this.sessions.close()]);
  }

  /**
   * The SDK looks at headers, envelope and filter as it does for any request. Its own stream knows neither tasks nor whose things
   * are, and it buffers without bound.
   */
  private async listen(
    req: IncomingMessage,
    res: ServerResponse,
    body: ListenRequest,
    request: CallRequest,
    options: HttpOptions,
  ) {
    const asked = toRequest(req, body);
    const isModern = !(await isLegacyRequest(asked, body));
    const looked = isModern ? await this.handler.fetch(asked, options).catch(() => undefined) : undefined;
    await looked?.body?.cancel();
    const isStream = looked?.headers.get('content-type') === 'text/event-stream';
    return isStream ? this.subscriptions.serve(res, body, request) : this.answer(req, res, options);
  }

  private answer(req: IncomingMessage, res: ServerResponse, options: HttpOptions): Promise<void> {
    return answerHttp((request) => this.fetch(request, options), req, res, options.parsedBody);
  }

  private serve(era: 'modern' | 'legacy', request?: Request): Server {
    const server = this.servers.serve(era, request);
    if (era === 'legacy') this.news.serve(server);
    return server;
  }

  private async fetch(request: Request, options: HttpOptions): Promise<Response> {
    if (this.isClosed) return Response.json(FAILED, { status: 503 });
    const inSession = this.sessions.enabled && (await isLegacyRequest(request, options.parsedBody));
    return inSession ? this.sessions.fetch(request, options) : this.handler.fetch(request, options);
  }
}
