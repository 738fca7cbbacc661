import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OlderTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

/** What stands behind a client: a person, a model, a place in the file system. */
export interface Behind {
  elicit?(params: { message: string }): Record<string, unknown> | Promise<Record<string, unknown>>;
  sample?(): Record<string, unknown>;
  roots?(): Record<string, unknown>;
  notified?(notification: { method: string; params?: Record<string, unknown> }): void;
}

const capabilitiesOf = ({ elicit, sample, roots }: Behind) => ({
  ...(elicit && { elicitation: {} }),
  ...(sample && { sampling: {} }),
  ...(roots && { roots: {} }),
});

const requestInit = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

/** The official client of the v1 line, which knows 2025-11-25 and no later revision. */
export async function connectOlder(url: URL, token: string, behind: Behind = {}): Promise<OlderClient> {
  const client = new OlderClient(
    { name: 'older', version: '1' },
    { capabilities: capabilitiesOf(behind), enforceStrictCapabilities: true },
  );
  const { elicit, sample, roots, notified } = behind;
  if (elicit)
    client.setRequestHandler(ElicitRequestSchema, async ({ params }) => (await elicit(params)) as never);
  if (sample) client.setRequestHandler(CreateMessageRequestSchema, () => sample() as never);
  if (roots) client.setRequestHandler(ListRootsRequestSchema, () => roots() as never);
  client.fallbackNotificationHandler = async (notification) => notified?.(notification as never);
  await client.connect(new OlderTransport(url, { requestInit: requestInit(token) }));
  return client;
}

/** The official client of today, on 2025-11-25. */
export const connectNewer = (url: URL, token: string, behind?: Behind) =>
  connectIn('legacy', url, token, behind);

/** The official client of today, on 2026-07-28. */
export const connectModern = (url: URL, token: string, behind?: Behind) =>
  connectIn('auto', url, token, behind);

async function connectIn(
  mode: 'legacy' | 'auto',
  url: URL,
  token: string,
  behind: Behind = {},
): Promise<Client> {
  const client = new Client(
    { name: 'newer', version: '2' },
    { capabilities: capabilitiesOf(behind), versionNegotiation: { mode } },
  );
  const { elicit, sample, roots, notified } = behind;
  if (elicit)
    client.setRequestHandler('elicitation/create', async ({ params }) => (await elicit(params)) as never);
  if (sample) client.setRequestHandler('sampling/createMessage', () => sample() as never);
  if (roots) client.setRequestHandler('roots/list', () => roots() as never);
  client.fallbackNotificationHandler = async (notification) => notified?.(notification as never);
  await client.connect(new StreamableHTTPClientTransport(url, { requestInit: requestInit(token) }));
  return client;
}

/** Both, as far as they are alike. */
export const OLDER_LINE: [string, (url: URL, token: string, behind?: Behind) => Promise<OlderClient>][] = [
  ['SDK v1', connectOlder],
  ['SDK v2', connectNewer as unknown as typeof connectOlder],
];

export interface RawSession {
  id: string;
  /** One message, or a request without one. */
  send(
    message: object | undefined,
    init?: { method?: string; signal?: AbortSignal; headers?: Record<string, string> },
  ): Promise<Response>;
}

/** A session by hand, to do what no client would. */
export async function openSession(url: URL, token: string, capabilities = {}): Promise<RawSession> {
  const send = (message: object | undefined, { method = 'POST', signal, headers = {} }: RequestInit = {}) =>
    fetch(url, {
      method,
      signal,
      headers: {
        authorization: `Bearer ${token}`,
        accept: 'application/json, text/event-stream',
        'mcp-protocol-version': '2025-11-25',
        ...(message && { 'content-type': 'application/json' }),
        ...(headers as Record<string, string>),
      },
      ...(message && { body: JSON.stringify({ jsonrpc: '2.0', ...message }) }),
    });
  const clientInfo = { name: 'raw', version: '0' };
  const params = { protocolVersion: '2025-11-25', capabilities, clientInfo };
  const answer = await send({ id: 0, method: 'initialize', params });
  const id = answer.headers.get('mcp-session-id');
  if (!id) throw new Error(`no session: ${answer.status} ${await answer.text()}`);
  await answer.text();
  return {
    id,
    send: (message, init = {}) =>
      send(message, { ...init, headers: { 'mcp-session-id': id, ...init.headers } }),
  };
}

/** The messages of a stream that has ended, as far as they came. */
export async function messagesOf(response: Response): Promise<Record<string, unknown>[]> {
  const text = await response.text();
  return text
    .split('\n')
    .filter((line) => line.startsWith('data: {'))
    .map((line) => JSON.parse(line.slice('data: '.length)) as Record<string, unknown>);
}

/** Id of the first event of a stream, with which a client can come back. */
export async function firstEventOf(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true });
    const [, id] = /^id: (.+)\n/m.exec(text) ?? [];
    if (id) return id;
  }
  throw new Error('the stream ended before an event');
}
