import { makeUser } from '../../test/support/database.js';
import { mcpUrl, testApi } from '../../test/support/mcp.js';
import { modernRequest } from '../../test/support/tasks.js';

const { test, api } = testApi();
let token: string;

beforeAll(async () => {
  ({ token } = await makeUser(test.db));
});

type Message = { id?: unknown; method?: unknown; params?: Record<string, unknown> } & Record<string, unknown>;
const META = 'io.modelcontextprotocol/';

/** A good call of whoami but for what `change` does to it. */
async function send(
  change: { headers?: Record<string, string | undefined>; message?: (message: Message) => unknown },
  as = token,
) {
  const good = modernRequest(as, 'tools/call', { name: 'whoami', arguments: {} });
  const message = JSON.parse(good.body) as Message;
  const headers = Object.entries({ ...good.headers, ...change.headers }).filter(([, value]) => value);
  const body = JSON.stringify(change.message ? change.message(message) : message);
  const response = await fetch(mcpUrl(api.port), {
    method: 'POST',
    headers: headers as [string, string][],
    body,
  });
  const text = await response.text();
  return {
    status: response.status,
    text,
    ...(JSON.parse(text) as { result?: object; error?: { code: number } }),
  };
}

const withMeta = (change: Record<string, unknown>) => (message: Message) => ({
  ...message,
  params: { ...message.params, _meta: { ...(message.params!._meta as object), ...change } },
});

it('takes the good one', async () => {
  expect(await send({})).toMatchObject({ status: 200, result: { resultType: 'complete' } });
});

const REFUSED: [string, Parameters<typeof send>[0], number, number][] = [
  ['a header that names another method', { headers: { 'mcp-method': 'tools/list' } }, 400, -32020],
  ['a header that names another tool', { headers: { 'mcp-name': 'list_vms' } }, 400, -32020],
  ['no header for the method', { headers: { 'mcp-method': undefined } }, 400, -32020],
  ['a header of another revision', { headers: { 'mcp-protocol-version': '2025-11-25' } }, 400, -32020],
  [
    'a revision that nobody knows',
    {
      headers: { 'mcp-protocol-version': '2099-01-01' },
      message: withMeta({ [`${META}protocolVersion`]: '2099-01-01' }),
    },
    400,
    -32022,
  ],
  [
    'a client without capabilities',
    { message: withMeta({ [`${META}clientCapabilities`]: undefined }) },
    400,
    -32602,
  ],
  [
    'capabilities that are none',
    { message: withMeta({ [`${META}clientCapabilities`]: 'all' }) },
    400,
    -32602,
  ],
  ['a revision that is no text', { message: withMeta({ [`${META}protocolVersion`]: 7 }) }, 400, -32602],
  ['another JSON-RPC', { message: (message) => ({ ...message, jsonrpc: '1.0' }) }, 400, -32600],
  ['an id that is none', { message: (message) => ({ ...message, id: { $ne: 1 } }) }, 400, -32600],
  ['a method that is none', { message: (message) => ({ ...message, method: 7 }) }, 400, -32600],
  ['a batch', { message: (message) => [message, message] }, 400, -32600],
  ['no object', { message: () => 'tools/call' }, 400, -32600],
];

it.each(REFUSED)("refuses %s by the protocol's own error", async (_what, change, status, code) => {
  const answer = await send(change);
  expect([answer.status, answer.error?.code]).toEqual([status, code]);
  expect(answer.text).not.toMatch(/node_modules|at Object|\.[jt]s:\d|prisma|postgres/i);
  expect(answer.text.length).toBeLessThan(2_000);
});

it('goes on after all of that', async () => {
  expect((await send({})).status).toBe(200);
});
