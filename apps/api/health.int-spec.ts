import { jest } from '@jest/globals';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { applyMigrations } from '@longhaul/persistence/migrate';
import { postgresServer, redisServer, type Server } from '../../test/support/cluster-servers.js';
import { eventually } from '../../test/support/eventually.js';
import { connect, mcpUrl, startTestApi, testApi } from '../../test/support/mcp.js';
import { makeUser } from '../../test/support/database.js';
import { SWIFT_LACKS, startSwift, swiftEnv } from '../../test/support/swift.js';
import type { ApiServer } from './server.js';

jest.setTimeout(240_000);

/** Whatever is still to be ended, last first. */
const ends: (() => unknown)[] = [];
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'longhaul-health-'));
  await chmod(directory, 0o755);
  ends.push(() => rm(directory, { recursive: true, force: true }));
});
afterEach(async () => {
  while (ends.length > 0) await ends.pop()!();
});

/** Of the test's own: it can be stopped, and come back at the same address. */
async function own(starting: Promise<Server>): Promise<Server> {
  const server = await starting;
  ends.push(() => server.stop());
  return server;
}
const postgres = () => own(postgresServer(join(directory, 'postgres')));
const redis = () => own(redisServer(directory));

const answers = (port: number, path: string, host = '127.0.0.1') =>
  new Promise<[number | undefined, string]>((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, headers: { host } }, (response) => {
      let body = '';
      response.on('data', (chunk) => (body += chunk)).on('end', () => resolve([response.statusCode, body]));
    });
    asked.on('error', reject).end();
  });

const saying = (port: number, status: number, body: object) =>
  eventually(
    async () => {
      const [code, text] = await answers(port, '/readyz');
      if (code === status && text === JSON.stringify(body)) return true;
      throw new Error(`${code} ${text}`);
    },
    { withinMs: 60_000, everyMs: 200 },
  );

const isReady = (port: number) => saying(port, 200, { status: 'ready' });
const lacks = (port: number, name: string) => saying(port, 503, { status: 'not_ready', failed: [name] });

async function startApi(env: Record<string, unknown>, databaseUrl: string): Promise<ApiServer> {
  const api = await startTestApi(databaseUrl, { LOG_LEVEL: 'silent', LONGHAUL_HOME: directory, ...env });
  ends.push(() => api.close());
  return api;
}

it('turns unready while PostgreSQL or Redis is away, stays alive, and is ready again when it is back', async () => {
  const [database, queue] = [await postgres(), await redis()];
  await applyMigrations(database.url);
  const { port } = await startApi({ QUEUE_URL: queue.url }, database.url);
  await isReady(port);
  for (const [server, name] of [
    [queue, 'queue'],
    [database, 'database'],
  ] as const) {
    await server.stop();
    await lacks(port, name);
    expect(await answers(port, '/healthz')).toEqual([200, '{"status":"ok"}']);
    await server.start();
    await isReady(port);
  }
});

const onSwift = SWIFT_LACKS ? it.skip : it;
onSwift(`turns unready while its bucket is away ${SWIFT_LACKS ?? ''}`, async () => {
  const swift = await startSwift();
  ends.push(() => swift.stop());
  const database = await postgres();
  await applyMigrations(database.url);
  const { port } = await startApi(swiftEnv(swift), database.url);
  await isReady(port);
  await swift.stop();
  await lacks(port, 'artifacts');
});

describe('on its own database', () => {
  const { test, api } = testApi({ METRICS_PORT: 0 });

  it.each(['/ping', '/healthz', '/readyz'])('%s answers under any Host', async (path) => {
    expect(await answers(api.port, path, '10.42.0.7:7777')).toEqual([200, expect.any(String)]);
  });

  it('keeps metrics off the public port', async () => {
    expect((await answers(api.port, '/metrics'))[0]).toBe(404);
  });

  it('serves on for a while when it is told to stop, but says that it is not ready', async () => {
    const stopping = await startTestApi(test.url);
    const { token } = await makeUser(test.db);
    const client = await connect(mcpUrl(stopping.port), token);
    const closed = stopping.close(5_000);
    expect(await answers(stopping.port, '/readyz')).toEqual([503, '{"status":"stopping"}']);
    expect(await answers(stopping.port, '/healthz')).toEqual([200, '{"status":"ok"}']);
    expect(await client.callRaw('whoami')).not.toHaveProperty('isError');
    expect((await fetch(`http://127.0.0.1:${stopping.port}/ping`)).headers.get('connection')).toBe('close');
    await closed;
    await expect(answers(stopping.port, '/ping')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await client.close();
  });
});
