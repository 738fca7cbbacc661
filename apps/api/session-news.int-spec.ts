import { newId } from '@longhaul/persistence';
import { catalog } from '../../test/conformance/fixtures/catalog.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { OLDER_LINE, connectOlder } from '../../test/support/sessions.js';
import type { ApiServer } from './server.js';

let test: TestDatabase;
let withSessions: ApiServer;
let without: ApiServer;

beforeAll(async () => {
  test = await testDatabase();
  withSessions = await startTestApi(test.url, { MCP_SESSIONS: 'true' }, catalog);
  without = await startTestApi(test.url, {}, catalog);
});
afterAll(async () => {
  await withSessions.close();
  await without.close();
  await test.drop();
});

const uriOf = ({ id }: { id: string }) => `longhaul://vms/${id}`;
const setPower = (id: string, powerState: string) =>
  test.db.vm.update({ where: { id }, data: { powerState } });

describe.each(OLDER_LINE)('%s', (_name, connect) => {
  async function follow() {
    const { token, caller } = await makeUser(test.db);
    const told: { method: string; uri?: unknown }[] = [];
    const client = await connect(mcpUrl(withSessions.port), token, {
      notified: ({ method, params }) => told.push({ method, uri: params?.uri }),
    });
    return { client, caller, told };
  }

  it('is told of the resources that it has subscribed to, and of no other', async () => {
    const { client, caller, told } = await follow();
    const [first, second] = [await makeVm(test.db, caller), await makeVm(test.db, caller)];
    await client.subscribeResource({ uri: uriOf(first) });
    await setPower(second.id, 'stopped');
    await setPower(first.id, 'stopped');
    await eventually(() => told.length > 0);
    expect(told).toEqual([{ method: 'notifications/resources/updated', uri: uriOf(first) }]);

    await client.unsubscribeResource({ uri: uriOf(first) });
    await client.subscribeResource({ uri: uriOf(second) });
    await setPower(first.id, 'running');
    await setPower(second.id, 'running');
    await eventually(() => told.length > 1);
    expect(told[1]).toEqual({ method: 'notifications/resources/updated', uri: uriOf(second) });
    await client.close();
  });

  it('is told when its tools have changed', async () => {
    const { client, caller, told } = await follow();
    await test.db.token.update({ where: { id: caller.tokenId }, data: { scopes: ['vms:read'] } });
    await eventually(() => told.some(({ method }) => method === 'notifications/tools/list_changed'));
    await client.close();
  });
});

it('is told on its first stream what has changed before that was open', async () => {
  const { token, caller } = await makeUser(test.db);
  const url = mcpUrl(withSessions.port);
  const headers = {
    authorization: `Bearer ${token}`,
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
  };
  const initialize = {
    ...{ jsonrpc: '2.0', id: 1, method: 'initialize' },
    params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'raw', version: '1' } },
  };
  const opened = await fetch(url, { method: 'POST', headers, body: JSON.stringify(initialize) });
  await opened.text();
  const changed = new Promise<void>((resolve) => test.changes.on(caller.tokenId, resolve));
  await test.db.token.update({ where: { id: caller.tokenId }, data: { scopes: ['vms:read'] } });
  await changed;

  const over = new AbortController();
  const session = { ...headers, 'mcp-session-id': opened.headers.get('mcp-session-id')! };
  const stream = await fetch(url, { headers: session, signal: over.signal });
  let text = '';
  for await (const chunk of stream.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (text.includes('notifications/tools/list_changed')) break;
  }
  over.abort();
});

it.each([
  ['with', () => withSessions],
  ['without', () => without],
])('%s sessions a resource is subscribed to only by who may read it', async (_name, api) => {
  const { token, caller } = await makeUser(test.db);
  const client = await connectOlder(mcpUrl(api().port), token);
  const mine = [uriOf(await makeVm(test.db, caller)), 'test://static-text'];
  for (const uri of mine) expect(await client.subscribeResource({ uri })).toEqual({});
  const stranger = await makeVm(test.db, (await makeUser(test.db)).caller);
  for (const uri of [uriOf(stranger), uriOf({ id: newId() }), 'file:///etc/passwd']) {
    await expect(client.subscribeResource({ uri })).rejects.toThrow(/not found/i);
  }
  const audited = { tool: 'resources/subscribe', tokenId: caller.tokenId };
  expect(await test.db.auditEvent.count({ where: audited })).toBe(5);
  await client.close();
});
