import { newId } from '@longhaul/persistence';
import {
  WebStandardStreamableHTTPServerTransport,
  isJSONRPCNotification,
  isJSONRPCRequest,
  isJSONRPCResponse,
  type AuthInfo,
  type JSONRPCMessage,
  type RequestId,
  type Server,
} from '@modelcontextprotocol/server';
import { boundedStream } from './bounded-stream.js';
import { EventLog, START_OF_LISTENING } from './event-log.js';

/** What one session keeps for streams that are lost, and what one stream keeps for a reader that is slow. */
const BUFFER_BYTES = 256 * 1024;
/** After this a client that has lost a stream comes back. */
const RETRY_MS = 1_000;
/** Requests under way, and open streams, that one session may have. */
const UNDERWAY_MAX = 64;

export interface HttpOptions {
  authInfo?: AuthInfo;
  parsedBody?: unknown;
}

/** One client on the 2025-11-25 line: a server object that lives from `initialize` on, and the streams that lead to it. */
export class Session {
  readonly id = newId();
  private readonly transport = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: () => this.id,
    eventStore: new EventLog(BUFFER_BYTES),
    retryInterval: RETRY_MS,
  });
  /** Those that have no answer yet. They go on when the client has lost the stream. */
  private readonly requests = new Set<RequestId>();
  /** Whether the client has opened the stream that is not of a request. */
  private hasListened = false;
  /** HTTP requests whose answer is not complete. */
  private exchanges = 0;
  private usedAt = performance.now();

  /** `closed` is called once, whoever ends it. */
  constructor(
    readonly tokenId: string,
    private readonly server: Server,
    closed: () => void,
  ) {
    const { transport } = this;
    const send = transport.send.bind(transport);
    transport.send = (message, options) => {
      if (isJSONRPCResponse(message) && message.id !== undefined) this.requests.delete(message.id);
      return send(message, options);
    };
    transport.onmessage = (message) => this.note(message);
    transport.onclose = closed;
  }

  connect(): Promise<void> {
    return this.server.connect(this.transport);
  }

  /** How long nobody has used it, in ms; 0 while a stream is open or a request under way. */
  get idleMs(): number {
    return this.exchanges + this.requests.size > 0 ? 0 : performance.now() - this.usedAt;
  }

  /** Answers an HTTP request of the session's token. */
  async fetch(request: Request, options: HttpOptions): Promise<Response> {
    const opensStream = request.method === 'GET' || [options.parsedBody].flat().some(isJSONRPCRequest);
    if (opensStream && Math.max(this.exchanges, this.requests.size) >= UNDERWAY_MAX)
      return refuse(429, `A session has at most ${UNDERWAY_MAX} requests under way. Wait for some to end.`);
    this.exchanges++;
    const complete = () => {
      this.exchanges--;
      this.usedAt = performance.now();
    };
    try {
      const response = await this.transport.handleRequest(this.fromTheStart(request), options);
      const isStream = response.headers.get('content-type')?.startsWith('text/event-stream');
      if (response.body && isStream)
        return new Response(boundedStream(response.body, BUFFER_BYTES, request.signal, complete), response);
      complete();
      return response;
    } catch (error) {
      complete();
      throw error;
    }
  }

  /** The SDK keeps what it is to tell before anybody listens, but gives it only to who comes back: so the first one does. */
  private fromTheStart(request: Request): Request {
    if (request.method !== 'GET' || this.hasListened || request.headers.has('last-event-id')) return request;
    this.hasListened = true;
    const headers = new Headers(request.headers);
    headers.set('last-event-id', START_OF_LISTENING);
    return new Request(request, { headers });
  }

  /** Ends the stream that would stay open for ever. */
  endListening(): void {
    this.transport.closeStandaloneSSEStream();
  }

  close(): Promise<void> {
    return this.transport.close();
  }

  private note(message: JSONRPCMessage): void {
    if (isJSONRPCRequest(message)) this.requests.add(message.id);
    if (!isJSONRPCNotification(message) || message.method !== 'notifications/cancelled') return;
    const { requestId } = (message.params ?? {}) as { requestId?: RequestId };
    if (requestId === undefined || !this.requests.has(requestId)) return;
    // The SDK answers a cancelled request never, and so would neither end its stream nor forget it. Nobody reads this answer.
    this.transport.closeSSEStream(requestId);
    const error = { code: -32_000, message: 'Cancelled' };
    void this.transport.send({ jsonrpc: '2.0', id: requestId, error }).catch(() => undefined);
  }
}

/** An HTTP answer to what never gets to be a request of the protocol. */
export const refuse = (status: number, message: string, code = -32_000) =>
  Response.json({ jsonrpc: '2.0', id: null, error: { code, message } }, { status });
