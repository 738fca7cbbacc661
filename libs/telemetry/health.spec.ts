import { freePort } from '@longhaul/persistence/embedded';
import { HealthServer } from './health-server.js';
import { setLogLevel } from './logger.js';
import { mcpCalls } from './metrics.js';
import { Readiness, type Check } from './readiness.js';

let server: HealthServer | undefined;
let url: string;
beforeAll(() => setLogLevel('silent'));
afterEach(() => server?.onApplicationShutdown());

async function serve(checks: Record<string, Check>, collect = async () => {}): Promise<Readiness> {
  const readiness = new Readiness(checks);
  const port = await freePort(0);
  url = `http://127.0.0.1:${port}`;
  server = new HealthServer(readiness, { host: '127.0.0.1', port, variable: 'PORT', collect });
  await server.onApplicationBootstrap();
  return readiness;
}

async function ask(path: string): Promise<[number, unknown]> {
  const answer = await fetch(url + path);
  return [answer.status, await answer.json()];
}

it('names what failed and nothing else of it, be it refused or without an answer', async () => {
  await serve({
    database: () => Promise.reject(new Error('postgres://user:secret@db.internal is away')),
    queue: () => new Promise(() => {}),
    artifacts: () => Promise.resolve(),
  });
  expect(await ask('/readyz')).toEqual([503, { status: 'not_ready', failed: ['database', 'queue'] }]);
  expect(await ask('/healthz')).toEqual([200, { status: 'ok' }]);
});

it('asks once, however many probes come at once, and not beside a question that hangs', async () => {
  let asked = 0;
  const hangs = () => new Promise(() => asked++);
  const readiness = await serve({ hangs });
  const answers = await Promise.all(Array.from({ length: 20 }, () => ask('/readyz')));
  expect(answers.every(([status]) => status === 503)).toBe(true);
  // By now the verdict is older than it may be.
  expect(await readiness.verdict()).toMatchObject({ failed: ['hangs'] });
  expect(asked).toBe(1);
});

it('is alive but not ready once it is told to stop', async () => {
  const readiness = await serve({});
  expect(await ask('/readyz')).toEqual([200, { status: 'ready' }]);
  readiness.onModuleDestroy();
  expect(await ask('/readyz')).toEqual([503, { status: 'stopping' }]);
  expect(await ask('/healthz')).toEqual([200, { status: 'ok' }]);
});

it('serves metrics, also while those of the database cannot be had', async () => {
  await serve({}, () => Promise.reject(new Error('the database is away')));
  mcpCalls.observe({ tool: 'whoami', code: 'ok' }, 0.003);
  const answer = await fetch(`${url}/metrics`);
  expect(answer.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  const text = await answer.text();
  expect(text).toContain('longhaul_mcp_call_duration_seconds_bucket{le="0.005",tool="whoami",code="ok"} 1\n');
  expect(text).toContain('process_resident_memory_bytes');
});

it('knows four paths and reads only', async () => {
  await serve({});
  expect(await (await fetch(`${url}/ping?x=1`)).text()).toBe('pong');
  expect((await fetch(`${url}/mcp`)).status).toBe(404);
  expect((await fetch(`${url}/metrics`, { method: 'POST' })).status).toBe(405);
});
