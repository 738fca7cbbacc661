import { Inject, Injectable } from '@nestjs/common';
import { Access } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { StateChanges } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { CallToolResult, Server, ServerContext } from '@modelcontextprotocol/server';
import { asProtocolError } from './answer.js';
import type { CallRequest } from './call.js';
import { CallPipeline } from './pipeline.js';
import { readResource } from './resource.js';
import { CATALOG, clientOf, httpRequestOf, shows } from './server.js';
import { Subscription, type Peer } from './subscription.js';
import type { Catalog } from './tool.js';
import { Topics, type Topic } from './topics.js';

/** Resources that one session follows. */
const SUBSCRIBED_MAX = 256;

const log = createLogger('mcp');

/**
 * What clients of 2025-11-25 are told unasked: that their tools have changed, and the resources that they have subscribed to.
 * Only a session can carry it.
 */
@Injectable()
export class SessionNews {
  constructor(
    @Inject(CATALOG) private readonly catalog: Catalog,
    private readonly topics: Topics,
    private readonly pipeline: CallPipeline,
    private readonly access: Access,
    private readonly changes: StateChanges,
  ) {}

  /** Tells the client of a session until the returned function is called. */
  async tell(server: Server, request: CallRequest): Promise<() => void> {
    const over = new AbortController();
    const { honoured, topics } = await this.topics.honour({ toolsListChanged: true }, request);
    const subscription = new Subscription(0, peerOf(server, over), this.access, this.changes);
    subscription.run(request.caller, honoured, topics).catch((error: unknown) => {
      log.error({ err: error }, 'a session is told no more');
    });
    this.serve(server, subscription);
    return () => over.abort();
  }

  /**
   * Serves `resources/subscribe` and `resources/unsubscribe`. Without a subscription nothing will be told, but what is not the
   * caller's is refused all the same.
   */
  serve(server: Server, subscription?: Subscription): void {
    const followed = new Map<string, Topic | undefined>();
    server.setRequestHandler('resources/subscribe', async ({ method, params: { uri } }, context) => {
      const request = requestOf(server, context);
      const find = async () => {
        if (followed.size >= SUBSCRIBED_MAX) {
          const message = `A session follows at most ${SUBSCRIBED_MAX} resources. Unsubscribe from some.`;
          throw new AppError('rate_limited', message);
        }
        const { topics } = await this.topics.honour({ resourceSubscriptions: [uri] }, request);
        return topics[0];
      };
      const topic = await this.pipeline.runMethod(method, { uri }, request, find).catch(asProtocolError);
      if (!topic) await this.requireReadable(uri, request);
      if (followed.has(uri)) return {};
      followed.set(uri, topic);
      if (topic) subscription?.watch(topic);
      return {};
    });
    server.setRequestHandler('resources/unsubscribe', ({ params: { uri } }) => {
      const topic = followed.get(uri);
      if (topic) subscription?.drop(topic);
      followed.delete(uri);
      return {};
    });
  }

  /** Something that never changes may be followed too. Errors: the protocol's own for what is not there for the caller. */
  private async requireReadable(uri: string, request: CallRequest): Promise<void> {
    const visible = this.catalog.resources.filter(({ definition }) => shows(request, definition.tool));
    await readResource(
      visible,
      uri,
      async (tool, args) => (await this.pipeline.run(tool, args, request)) as CallToolResult,
    );
  }
}

const requestOf = (server: Server, context: ServerContext): CallRequest => ({
  ...httpRequestOf(context),
  ...clientOf(server.getClientVersion()),
});

/** The client of a session, as one who is subscribed; the SDK keeps what it is sent while it does not listen. */
const peerOf = (server: Server, over: AbortController): Peer => ({
  over: over.signal,
  async send(message) {
    const { method, params } = message as { method: string; params: object };
    // Neither acknowledgements nor ids of subscriptions are known to that revision.
    if (method === 'notifications/subscriptions/acknowledged') return;
    const told = { method, params: { ...params, _meta: undefined } };
    await server.notification(told).catch(() => undefined);
  },
  keepAlive() {},
  // Its token holds no more.
  end: () => void server.close().catch(() => undefined),
});
