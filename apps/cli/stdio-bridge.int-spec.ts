import { join } from 'node:path';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as OlderTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';

const CLI = join(import.meta.dirname, '../../dist/apps/cli/main.js');

let test: TestDatabase;
let api: Awaited<ReturnType<typeof startTestApi>>;
let hostname: string;
let server: { command: string; args: string[]; env: Record<string, string> };

beforeAll(async () => {
  test = await testDatabase();
  api = await startTestApi(test.url);
  const { token, caller } = await makeUser(test.db);
  ({ hostname } = await makeVm(test.db, caller));
  const env = { PATH: process.env.PATH!, LONGHAUL_URL: mcpUrl(api.port).href, LONGHAUL_TOKEN: token };
  server = { command: process.execPath, args: [CLI, 'mcp', '--stdio'], env };
});
afterAll(async () => {
  await api.close();
  await test.drop();
});

const modern = { versionNegotiation: { mode: 'auto' as const } };
const CLIENTS = {
  'SDK v1': () => connect(new OlderClient({ name: 'older', version: '1' }), new OlderTransport(server)),
  'SDK v2, 2025-11-25': () =>
    connect(new Client({ name: 'newer', version: '1' }), new StdioClientTransport(server)),
  'SDK v2, 2026-07-28': () =>
    connect(new Client({ name: 'newer', version: '1' }, modern), new StdioClientTransport(server)),
};

async function connect<T>(client: { connect(transport: T): Promise<void> }, transport: T) {
  await client.connect(transport);
  return client as unknown as Client;
}

it.each(Object.entries(CLIENTS))('serves %s over stdio as over HTTP', async (_name, make) => {
  const client = await make();
  expect((await client.listTools()).tools.map(({ name }) => name)).toContain('list_vms');
  const result = await client.callTool({ name: 'list_vms', arguments: {} });
  expect(result.structuredContent).toMatchObject({ vms: [{ hostname }] });
  await client.close();
});

it('answers instead of hanging when the token does not hold', async () => {
  const env = { ...server.env, LONGHAUL_TOKEN: 'lh_nobody' };
  const client = new Client({ name: 'newer', version: '1' });
  await expect(
    client.connect(new StdioClientTransport({ ...server, env, stderr: 'ignore' })),
  ).rejects.toThrow();
  await client.close();
});
