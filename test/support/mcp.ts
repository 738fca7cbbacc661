import type { Catalog } from '@longhaul/mcp';
import { startServer, type ApiServer } from '../../apps/api/server.js';
import { apiConfig } from '../../apps/api/config.js';
import { TEST_SECRETS_KEYS, testDatabase, type TestDatabase } from './database.js';
import { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OlderTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client, StreamableHTTPClientTransport, type Tool } from '@modelcontextprotocol/client';

/** What the official clients have in common, as far as the tests use it. */
export interface McpClient {
  tools(): Promise<Tool[]>;
  /** The whole answer, structured content and all. */
  callRaw(name: string, args?: object): Promise<Record<string, unknown>>;
  close(): Promise<void>;
}

/** The API in this process on a free port, on a database of the test's own; it serves `catalog`, by default the product. */
export function startTestApi(
  databaseUrl: string,
  env: Record<string, unknown> = {},
  catalog?: Catalog,
): Promise<ApiServer> {
  const config = apiConfig.parse({
    DATABASE_URL: databaseUrl,
    SECRETS_KEYS: TEST_SECRETS_KEYS,
    LOG_LEVEL: 'error',
    PORT: 0,
    ...env,
  });
  return startServer(config, catalog);
}

/** For specs that call more in a minute than a user does. */
export const NO_RATES = { RATE_CALLS: 1_000_000, RATE_VM_CALLS: 1_000_000, RATE_SUBMISSIONS: 1_000_000 };

/** A database and an API of the spec's own, for all of its tests: both are there once its `beforeAll` begins. */
export function testApi(
  env?: Record<string, unknown>,
  catalog?: Catalog,
): { test: TestDatabase; api: ApiServer } {
  const test = {} as TestDatabase;
  const api = {} as ApiServer;
  beforeAll(async () => {
    Object.assign(test, await testDatabase());
    Object.assign(api, await startTestApi(test.url, env, catalog));
  });
  afterAll(async () => {
    await api.close();
    await test.drop();
  });
  return { test, api };
}

export const mcpUrl = (port: number) => new URL(`http://127.0.0.1:${port}/mcp`);

type Headers = Record<string, string>;

const requestInit = (token: string, headers?: Headers) => ({
  headers: { ...headers, authorization: `Bearer ${token}` },
});

/** Each official client in each revision that it speaks; they are what users have. */
export const CLIENTS: Record<string, (url: URL, token: string, headers?: Headers) => Promise<McpClient>> = {
  'SDK v1, 2025-11-25': async (url, token, headers) => {
    const client = new OlderClient({ name: 'older', version: '1.2.3' });
    await client.connect(new OlderTransport(url, { requestInit: requestInit(token, headers) }));
    return {
      tools: async () => (await client.listTools()).tools as Tool[],
      callRaw: (name, args = {}) => client.callTool({ name, arguments: { ...args } }),
      close: () => client.close(),
    };
  },
  'SDK v2, 2025-11-25': (url, token, headers) => connect(url, token, 'legacy', headers),
  'SDK v2, 2026-07-28': (url, token, headers) => connect(url, token, 'auto', headers),
};

export async function connect(
  url: URL,
  token: string,
  mode: 'legacy' | 'auto' = 'auto',
  headers?: Headers,
): Promise<McpClient> {
  const client = new Client({ name: 'newer', version: '4.5.6' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(url, { requestInit: requestInit(token, headers) }));
  return {
    tools: async () => (await client.listTools()).tools,
    callRaw: (name, args = {}) => client.callTool({ name, arguments: { ...args } }),
    close: () => client.close(),
  };
}

/** The structured content of a call that has succeeded. */
export async function call<T = Record<string, unknown>>(
  client: McpClient,
  name: string,
  args = {},
): Promise<T> {
  const result = await client.callRaw(name, args);
  if (result.isError) throw new Error(`${name} failed: ${JSON.stringify(result.content)}`);
  return result.structuredContent as T;
}

export interface Refusal {
  code: string;
  message: string;
  retryable: boolean;
  details?: Record<string, unknown>;
}

/** The error of a call that has failed. */
export async function refusal(client: McpClient, name: string, args = {}): Promise<Refusal> {
  const result = await client.callRaw(name, args);
  if (!result.isError) throw new Error(`${name} succeeded: ${JSON.stringify(result.structuredContent)}`);
  const [{ text }] = result.content as [{ text: string }];
  return (JSON.parse(text) as { error: Refusal }).error;
}
