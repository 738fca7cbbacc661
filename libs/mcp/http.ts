import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { isAway } from '@longhaul/errors';
import { createLogger } from '@longhaul/telemetry';
import type { JSONRPCMessage } from '@modelcontextprotocol/server';

const log = createLogger('mcp');

export const FAILED = {
  jsonrpc: '2.0',
  id: null,
  error: { code: -32_603, message: 'Internal server error' },
};

/** A request that can be answered without a web response, which takes longer to make and to read than the JSON in it. */
export interface DirectAnswer {
  /** Of JSON-RPC; nothing has been checked. */
  rpcMethod: unknown;
  answerJson(message: JSONRPCMessage): void;
}

export const takesJson = (request: object | undefined): request is DirectAnswer =>
  request !== undefined && 'answerJson' in request;

/**
 * Lets a handler of web requests answer a request of Node's. The SDK's own adapter writes a parsed body as JSON again, makes a
 * whole web request of it, and reads a stream for every answer; all that takes longer than most calls.
 */
export async function answerHttp(
  fetch: (request: Request) => Promise<Response>,
  req: IncomingMessage,
  res: ServerResponse,
  body: unknown,
): Promise<void> {
  const lost = new AbortController();
  res.once('close', () => {
    if (!res.writableFinished) lost.abort();
  });
  if (res.destroyed) lost.abort();
  const { method: rpcMethod } = (body ?? {}) as { method?: unknown };
  const answerJson = (message: JSONRPCMessage) => {
    const text = JSON.stringify(message);
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
    res.end(text);
  };
  let response: Response;
  try {
    const request = toRequest(req, body, lost.signal);
    response = await fetch(body === undefined ? request : Object.assign(request, { rpcMethod, answerJson }));
  } catch (error) {
    log.error({ err: error }, 'a request failed');
    response = Response.json(FAILED, { status: isAway(error) ? 503 : 500 });
  }
  if (res.headersSent) return;
  res.writeHead(response.status, Object.fromEntries(response.headers));
  if (!response.body) res.end();
  else if (response.headers.get('content-type') === 'application/json') res.end(await response.text());
  else await stream(response.body, res, lost.signal);
}

/** With a parsed body it is no more than what is read of a web request then. */
export function toRequest(
  req: IncomingMessage,
  body?: unknown,
  signal = new AbortController().signal,
): Request {
  const { method = 'GET', headers: given } = req;
  const url = `http://${given.host}${req.url}`;
  const valueOf = (name: string) => {
    const value = given[name];
    return Array.isArray(value) ? value.join(', ') : value;
  };
  if (body === undefined) {
    const headers = new Headers();
    for (const name of Object.keys(given)) headers.set(name, valueOf(name) ?? '');
    return new Request(url, { method, headers, signal });
  }
  const headers: Pick<Headers, 'get'> = { get: (name) => valueOf(name.toLowerCase()) ?? null };
  return { method, url, headers, signal } as unknown as Request;
}

/** At the pace of its reader; a stream that breaks just ends. */
async function stream(body: ReadableStream<Uint8Array>, res: ServerResponse, lost: AbortSignal) {
  const reader = body.getReader();
  const cancel = () => void reader.cancel().catch(() => undefined);
  lost.addEventListener('abort', cancel);
  if (lost.aborted) cancel();
  res.flushHeaders();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read())
      if (!res.write(read.value)) await once(res, 'drain', { signal: lost });
  } catch {
    cancel();
  }
  res.end();
}
