import { once } from 'node:events';
import {
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeaders,
} from 'node:http';
import { text } from 'node:stream/consumers';
import { newId } from '@longhaul/persistence';
import { makeUser, makeVm } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { connect, mcpUrl, startTestApi, testApi } from '../../test/support/mcp.js';
import { modernRequest } from '../../test/support/tasks.js';
import { BODY_LIMIT } from './body.js';

const { test, api } = testApi({
  ALLOWED_HOSTS: 'mcp.example.com',
  ALLOWED_ORIGINS: 'https://console.example.com',
});
let token: string;

beforeAll(async () => {
  ({ token } = await makeUser(test.db));
});

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/** As it goes over the wire: fetch would not let a test choose Host. */
async function send(
  path: string,
  headers: OutgoingHttpHeaders = {},
  body?: Buffer | string,
  method = 'POST',
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ port: api.port, path, method, headers, agent: false }, (response) => {
      text(response).then(
        (body) => resolve({ status: response.statusCode!, headers: response.headers, body }),
        reject,
      );
    });
    request.on('error', reject);
    request.end(body);
  });
}

const headers = (more: OutgoingHttpHeaders = {}) => ({
  authorization: `Bearer ${token}`,
  'content-type': 'application/json',
  accept: 'application/json, text/event-stream',
  ...more,
});
const whoami = JSON.stringify({
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/call',
  params: { name: 'whoami', arguments: {} },
});

describe('tokens', () => {
  it.each([
    ['missing', ''],
    ['unknown', `Bearer lh_${'x'.repeat(43)}`],
    ['empty', 'Bearer '],
    ['malformed', 'Bearer a b c'],
    ['of another scheme', 'Basic dXNlcjpwYXNz'],
    ['of absurd length', `Bearer ${'x'.repeat(10_000)}`],
  ])('%s are refused', async (_what, authorization) => {
    const answer = await send('/mcp', headers({ authorization }), whoami);
    expect(answer.status).toBe(401);
    expect(answer.headers['www-authenticate']).toMatch(/^Bearer/);
    expect(JSON.parse(answer.body)).toMatchObject({ code: 'unauthenticated', retryable: false });
  });

  it('are asked for on every method', async () => {
    for (const method of ['GET', 'DELETE'])
      expect(await send('/mcp', {}, undefined, method)).toMatchObject({ status: 401 });
  });

  it('stop working the moment they are revoked or expire', async () => {
    const { token, caller } = await makeUser(test.db);
    const attempt = () => send('/mcp', headers({ authorization: `Bearer ${token}` }), whoami);
    expect(await attempt()).toMatchObject({ status: 200 });
    await test.db.token.update({ where: { id: caller.tokenId }, data: { expiresAt: new Date(0) } });
    expect(await attempt()).toMatchObject({ status: 401 });
    await test.db.token.update({
      where: { id: caller.tokenId },
      data: { expiresAt: null, revokedAt: new Date() },
    });
    expect(await attempt()).toMatchObject({ status: 401 });
  });
});

describe('where a request is addressed and comes from', () => {
  it.each(['localhost', '127.0.0.1:1234', '[::1]', 'mcp.example.com'])('Host %s is served', async (host) => {
    expect(await send('/mcp', headers({ host }), whoami)).toMatchObject({ status: 200 });
  });

  it.each(['evil.example', 'localhost.evil.example', 'mcp.example.com.evil.example', '10.0.0.1'])(
    'Host %s is not',
    async (host) => {
      for (const path of ['/mcp', '/oauth/jwks']) {
        const answer = await send(
          path,
          headers({ host }),
          path === '/mcp' ? whoami : undefined,
          path === '/mcp' ? 'POST' : 'GET',
        );
        expect(answer.status).toBe(403);
        expect(JSON.parse(answer.body)).toMatchObject({ code: 'forbidden_host' });
      }
    },
  );

  it.each(['http://localhost:5173', 'http://127.0.0.1', 'https://console.example.com'])(
    'Origin %s is served',
    async (origin) => {
      expect(await send('/mcp', headers({ origin }), whoami)).toMatchObject({ status: 200 });
    },
  );

  it.each([
    'https://evil.example',
    'null',
    'https://console.example.com.evil.example',
    'http://console.example.com',
  ])('Origin %s is not', async (origin) => {
    const answer = await send('/mcp', headers({ origin }), whoami);
    expect(answer.status).toBe(403);
    expect(JSON.parse(answer.body)).toMatchObject({ code: 'forbidden_origin' });
  });
});

describe('bodies', () => {
  it.each([
    ['invalid UTF-8', Buffer.from(whoami.replace('whoami', 'who\x80ami'), 'latin1')],
    ['no JSON', Buffer.from('{"jsonrpc":')],
    ['nothing', Buffer.alloc(0)],
  ])('of %s are refused as what they are', async (_what, body) => {
    const answer = await send('/mcp', headers(), body);
    expect(answer.status).toBe(400);
    expect(JSON.parse(answer.body)).toMatchObject({ error: { code: -32700 } });
  });

  it('over the limit are refused, just below it they reach the tool', async () => {
    const long = whoami.replace('{}', `{"x":"${'x'.repeat(BODY_LIMIT - 200)}"}`);
    expect((await send('/mcp', headers(), long)).body).toContain('invalid_arguments');
    const tooLong = await send('/mcp', headers(), Buffer.alloc(BODY_LIMIT + 1, ' ')).catch(
      (error: Error) => error,
    );
    if (!(tooLong instanceof Error)) expect(tooLong).toMatchObject({ status: 413 });
  });

  it('nested a million deep are refused before anybody walks through them', async () => {
    const deep = whoami.replace('{}', `{"x":${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}}`);
    expect(await send('/mcp', headers(), deep)).toMatchObject({ status: 400 });
  });

  it('of another type are refused', async () => {
    expect(await send('/mcp', headers({ 'content-type': 'text/plain' }), whoami)).toMatchObject({
      status: 415,
    });
  });
});

describe('request ids', () => {
  it('are taken over when they are sane, and answered', async () => {
    const { headers: answered } = await send('/mcp', headers({ 'x-request-id': 'deploy-42' }), whoami);
    expect(answered['x-request-id']).toBe('deploy-42');
    expect(await test.db.auditEvent.findFirst({ where: { requestId: 'deploy-42' } })).toMatchObject({
      tool: 'whoami',
    });
    const { headers: made } = await send('/mcp', headers({ 'x-request-id': 'a b"c' }), whoami);
    expect(made['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  });
});

it('answers probes: alive always, ready while the database is', async () => {
  expect(await send('/healthz', {}, undefined, 'GET')).toMatchObject({ status: 200 });
  expect(await send('/readyz', {}, undefined, 'GET')).toMatchObject({ status: 200 });
  expect(await send('/nowhere', {}, undefined, 'GET')).toMatchObject({ status: 404 });
});

describe('a call that waits', () => {
  const waiting = async () => {
    const user = await makeUser(test.db);
    const vm = await makeVm(test.db, user.caller);
    const args = { vm_id: vm.id, command: 'sleep 60', idempotency_key: newId() };
    const job = () => eventually(() => test.db.job.findFirst({ where: { vmId: vm.id } }));
    return { ...user, args, job };
  };

  it.each([
    ['auto', true],
    ['legacy', false],
  ] as const)('ends its command when a client of mode %s goes away: %s', async (mode, cancels) => {
    const { token, args, job } = await waiting();
    const client = await connect(mcpUrl(api.port), token, mode);
    const call = client.callRaw('exec_vm_command', args).catch(() => undefined);
    const { id } = await job();
    await client.close();
    await call;
    if (cancels) {
      await eventually(async () => (await job()).state === 'cancelled');
      await eventually(() => test.db.auditEvent.findFirst({ where: { jobId: id, event: 'call' } }));
    } else {
      expect(await job()).toMatchObject({ state: 'queued', cancelRequestedAt: null });
    }
  });

  it.each(['auto', 'legacy'] as const)('is answered when the API stops (mode %s)', async (mode) => {
    const own = await startTestApi(test.url);
    const { token, args, job } = await waiting();
    const client = await connect(mcpUrl(own.port), token, mode);
    const call = client.callRaw('exec_vm_command', args);
    await job();
    const before = performance.now();
    await own.close();
    expect(performance.now() - before).toBeLessThan(2_000);
    expect(await call).toMatchObject({ structuredContent: { status: 'queued' } });
    expect(await job()).toMatchObject({ state: 'queued', cancelRequestedAt: null });
    await client.close();
  });
});

it('tells who is still sending when the API stops to try again', async () => {
  const own = await startTestApi(test.url);
  const { headers, body } = modernRequest(token, 'tools/call', { name: 'whoami', arguments: {} });
  const begin = async () => {
    const options = { port: own.port, path: '/mcp', method: 'POST', agent: false };
    const expecting = { ...headers, 'content-length': body.length, expect: '100-continue' };
    const request = httpRequest({ ...options, headers: expecting });
    request.flushHeaders();
    await once(request, 'continue');
    return request;
  };
  const sending = await Promise.all(Array.from({ length: 50 }, begin));
  const closed = own.close();
  const statuses = new Set<number>();
  await eventually(async () => {
    const [response] = (await once(sending.pop()!.end(body), 'response')) as [IncomingMessage];
    statuses.add(response.statusCode!);
    return response.statusCode === 503;
  });
  statuses.delete(200);
  expect([...statuses]).toEqual([503]);
  for (const request of sending) request.on('error', () => undefined).destroy();
  await closed;
});
