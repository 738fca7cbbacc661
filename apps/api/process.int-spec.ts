import { jest } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { forkApi } from '../../test/support/api-process.js';
import { testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { Relay } from '../../test/support/relay.js';

// A process that compiles its sources takes seconds to start on a busy machine.
jest.setTimeout(60_000);

let test: TestDatabase;
const started: ChildProcess[] = [];

beforeAll(async () => {
  test = await testDatabase();
});
afterEach(() => started.splice(0).forEach((child) => child.kill('SIGKILL')));
afterAll(() => test.drop());

function start(env: NodeJS.ProcessEnv) {
  const api = forkApi(test.url, env);
  started.push(api.child);
  return api;
}

it.each([
  ['SIGTERM', (child: ChildProcess) => child.kill('SIGTERM')],
  ['SIGINT', (child: ChildProcess) => child.kill('SIGINT')],
  ['the end of whoever started it', (child: ChildProcess) => child.disconnect()],
])('says when it is ready and where, and ends in order on %s', async (_what, end) => {
  const { child, exit, ready } = start({});
  const port = await ready();
  await eventually(async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).ok);
  end(child);
  expect(await exit).toEqual([0, null]);
});

it('says that its port is taken', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const { exit, output } = start({ PORT: String(port) });
  expect(await exit).toEqual([1, null]);
  expect(output()).toContain(`Port ${port} on 127.0.0.1 is taken. Set PORT to a free one.`);
  other.close();
});

it('names every fault of its environment at once', async () => {
  const { exit, output } = start({ PORT: 'http', DATABASE_URL: 'mysql://x' });
  expect(await exit).toEqual([1, null]);
  expect(output()).toMatch(/PORT: .*DATABASE_URL: |DATABASE_URL: .*PORT: /);
});

it('waits for a database that is away, which is its queue as well, and says so', async () => {
  const url = new URL(test.url);
  const relay = await Relay.open(Number(url.port));
  url.port = String(relay.port);
  relay.break('cut');
  const { output, ready } = start({ DATABASE_URL: url.href });
  await eventually(() => output().includes('PostgreSQL is away, trying again'));
  const port = ready();
  relay.heal();
  await eventually(async () => (await fetch(`http://127.0.0.1:${await port}/readyz`)).ok);
  relay.close();
});

it('says what is wrong with its database', async () => {
  const url = new URL(test.url);
  url.pathname = '/none';
  const { exit, output } = start({ DATABASE_URL: url.href });
  expect(await exit).toEqual([1, null]);
  expect(output()).toContain('The API cannot start: database \\"none\\" does not exist');
});
