import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import {
  createTaskSessionFromClient,
  type ApplicationElicitResult,
  type ApplicationInputRequest,
  type TaskEnabledSession,
} from '@modelcontextprotocol/ext-tasks/client';

const PROTOCOL = '2026-07-28';
export const TASKS = { extensions: { 'io.modelcontextprotocol/tasks': {} } };
const clientInfo = { name: 'raw', version: '7.8.9' };

export interface RpcAnswer {
  status: number;
  result?: Record<string, unknown>;
  error?: { code: number; message: string; data?: Record<string, unknown> };
}

/** A request of revision 2026-07-28, as bare as it is on the wire; `capabilities` are those that the client declares. */
export function modernRequest(
  token: string,
  method: string,
  params: Record<string, unknown>,
  capabilities: object = TASKS,
  id: string | number = 1,
): { method: 'POST'; headers: Record<string, string>; body: string } {
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': PROTOCOL,
    'io.modelcontextprotocol/clientInfo': clientInfo,
    'io.modelcontextprotocol/clientCapabilities': capabilities,
    ...(params._meta as object),
  };
  const name = params.name ?? params.taskId ?? params.uri;
  return {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': PROTOCOL,
      'mcp-method': method,
      ...(typeof name === 'string' && { 'mcp-name': name }),
    },
    body: JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta } }),
  };
}

export async function rpc(url: URL, ...request: Parameters<typeof modernRequest>): Promise<RpcAnswer> {
  const response = await fetch(url, modernRequest(...request));
  const text = await response.text();
  // An answer that came with notifications is the last event of a stream.
  const last = text.startsWith('{') ? text : text.split('data: ').at(-1)!;
  return { status: response.status, ...(JSON.parse(last) as object) };
}

/** The tasks client insists on objects of its own realm; fetch, outside of Jest's, would make others. */
export async function fetchHere(input: URL | string, init?: RequestInit): Promise<Response> {
  const response = await fetch(input, init);
  return Object.assign(response, { json: async () => JSON.parse(await response.text()) as unknown });
}

type Elicitation = Extract<ApplicationInputRequest, { kind: 'elicitation' }>;

/** The official tasks client on the official client; `answer` is the person in front of it. */
export async function connectTasks(
  url: URL,
  token: string,
  answer?: (request: Elicitation) => ApplicationElicitResult,
): Promise<TaskEnabledSession & { end(): Promise<void> }> {
  const capabilities = answer ? { elicitation: {}, ...TASKS } : TASKS;
  const client = new Client(clientInfo, { capabilities, versionNegotiation: { mode: 'auto' } });
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  await client.connect(new StreamableHTTPClientTransport(url, { requestInit, fetch: fetchHere }));
  const session = createTaskSessionFromClient(client, {
    endpointId: 'longhaul-test',
    rawDispatch: async (request) => {
      const { method, params } = request as { method: string; params: Record<string, unknown> };
      const { result, error } = await rpc(url, token, method, params, capabilities);
      return error ? { kind: 'error', error: error as never } : { kind: 'result', result: result as never };
    },
    v2RequestFraming: { protocolVersion: PROTOCOL, clientInfo, clientCapabilities: capabilities as never },
    ...(answer && {
      onInputRequest: async (request) => {
        if (request.kind !== 'elicitation') throw new Error(`nobody answers a ${request.kind}`);
        return answer(request) as never;
      },
    }),
  });
  return Object.assign(session, {
    async end() {
      await session.close();
      await client.close();
    },
  });
}

/** What a tool says, or the error body. */
export type ToolAnswer = Record<string, unknown> & {
  job_id: string;
  code?: string;
  details?: Record<string, unknown>;
};

/** A call by a client that knows no tasks. */
export async function callTool(url: URL, token: string, name: string, args: object): Promise<ToolAnswer> {
  const { result } = await rpc(url, token, 'tools/call', { name, arguments: args }, {});
  const { structuredContent, content } = result as {
    structuredContent?: ToolAnswer;
    content: [{ text: string }];
  };
  return structuredContent ?? (JSON.parse(content[0].text) as { error: ToolAnswer }).error;
}
