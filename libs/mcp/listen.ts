import type { ServerResponse } from 'node:http';
import { Injectable } from '@nestjs/common';
import { Access } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { StateChanges } from '@longhaul/persistence';
import {
  CLIENT_CAPABILITIES_META_KEY,
  CLIENT_INFO_META_KEY,
  type RequestId,
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import { toProtocolError } from './answer.js';
import type { CallRequest } from './call.js';
import { EventStream } from './event-stream.js';
import { CallPipeline } from './pipeline.js';
import { clientOf, declaresTasks, traceOf, type Envelope } from './server.js';
import { Subscription } from './subscription.js';
import { Topics, type Filter, type Topic } from './topics.js';

const METHOD = 'subscriptions/listen';
const OPEN_MAX = 1_024;
const OPEN_MAX_OF_TOKEN = 32;
/** Tasks and resources of one subscription. */
const NAMED_MAX = 256;
/** Its id is repeated in every message, and all of it stays in memory as long as its stream is open. */
const ID_MAX = 256;
const REQUEST_MAX_BYTES = 64 * 1024;

/** A request as the SDK has checked it, which knows nothing of `taskIds`. */
export interface ListenRequest {
  method: typeof METHOD;
  id: RequestId;
  params: { _meta: Envelope; notifications: Filter };
}

export const isListen = (body: unknown): body is ListenRequest =>
  typeof body === 'object' && body !== null && (body as { method?: unknown }).method === METHOD;

/** Serves `subscriptions/listen` of revision 2026-07-28. */
@Injectable()
export class Subscriptions {
  /** One for each that is open or about to be. */
  private readonly places = new Set<{ tokenId: string }>();
  private readonly open = new Set<Subscription>();
  private stopping = false;

  constructor(
    private readonly topics: Topics,
    private readonly pipeline: CallPipeline,
    private readonly access: Access,
    private readonly changes: StateChanges,
  ) {}

  /** Answers a request that the SDK has found to be in order. Resolves when the stream is over. */
  async serve(res: ServerResponse, body: ListenRequest, request: CallRequest): Promise<void> {
    const place = { tokenId: request.caller.tokenId };
    try {
      const admitted = await this.admit(place, body, request).catch((error: AppError) =>
        refuse(res, body.id, error),
      );
      if (!admitted) return;
      const subscription = new Subscription(body.id, new EventStream(res), this.access, this.changes);
      this.open.add(subscription);
      const over = subscription.run(request.caller, admitted.honoured, admitted.topics);
      if (this.stopping) subscription.finish();
      await over.finally(() => this.open.delete(subscription));
    } finally {
      this.places.delete(place);
    }
  }

  /** Ends what is open, and from now on each stream right after it has begun. */
  stop(): void {
    this.stopping = true;
    this.open.forEach((subscription) => subscription.finish());
  }

  /** Audited like a call. Errors: `rate_limited`, `invalid_arguments`, `client_capability_missing`. */
  private admit(
    place: { tokenId: string },
    body: ListenRequest,
    request: CallRequest,
  ): Promise<{ honoured: Filter; topics: Topic[] }> {
    const { _meta, notifications } = body.params;
    const described = { ...request, ...clientOf(_meta[CLIENT_INFO_META_KEY]), ...traceOf({ ..._meta }) };
    return this.pipeline.runMethod(METHOD, notifications, described, async () => {
      this.take(place);
      requireBounds(body);
      if (notifications.taskIds && !declaresTasks(_meta[CLIENT_CAPABILITIES_META_KEY])) {
        throw new AppError('client_capability_missing', 'Notifications of tasks need the tasks extension.');
      }
      return this.topics.honour(notifications, request);
    });
  }

  private take(place: { tokenId: string }) {
    const ofToken = [...this.places].filter(({ tokenId }) => tokenId === place.tokenId);
    if (this.places.size >= OPEN_MAX || ofToken.length >= OPEN_MAX_OF_TOKEN) {
      throw new AppError('rate_limited', 'Subscription limit reached');
    }
    this.places.add(place);
  }
}

function requireBounds(body: ListenRequest) {
  const { id, params } = body;
  const { resourceSubscriptions = [], taskIds = [] } = params.notifications;
  if (typeof id === 'string' && id.length > ID_MAX) throw invalid(`id: at most ${ID_MAX} characters.`);
  if (!z.array(z.string()).safeParse(taskIds).success) throw invalid('taskIds: must be a list of strings.');
  if (resourceSubscriptions.length + taskIds.length > NAMED_MAX) {
    throw invalid(`One subscription names at most ${NAMED_MAX} tasks and resources.`);
  }
  if (Buffer.byteLength(JSON.stringify(body)) > REQUEST_MAX_BYTES) {
    throw invalid(`A request of ${METHOD} has at most ${REQUEST_MAX_BYTES} bytes.`);
  }
}

const invalid = (message: string) => new AppError('invalid_arguments', message);

/** In band but for what the client lacks, as the SDK answers. */
function refuse(res: ServerResponse, id: RequestId, error: AppError) {
  const { code, message, data } = toProtocolError(error);
  const status = error.code === 'client_capability_missing' ? 400 : 200;
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify({ jsonrpc: '2.0', id, error: { code, message, data } }));
}
