import { jest } from '@jest/globals';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { messagesOf, openSession } from '../../test/support/sessions.js';

const HALF_HOUR_MS = 30 * 60_000;

let test: TestDatabase;

beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test.drop());

const startApi = () => startTestApi(test.url, { MCP_SESSIONS: 'true' });
const ping = { id: 1, method: 'ping' };
const listening = { method: 'GET' };

it('ends a session that nobody has used for half an hour, unless it is listened to', async () => {
  // Only what the age of a session goes by; everything else takes its time.
  jest.useFakeTimers({
    doNotFake: ['Date', 'hrtime', 'nextTick', 'queueMicrotask', 'setImmediate', 'setTimeout', 'clearTimeout'],
  });
  const api = await startApi();
  try {
    const { token } = await makeUser(test.db);
    const [idle, used, open] = await Promise.all([1, 2, 3].map(() => openSession(mcpUrl(api.port), token)));
    const stream = await open!.send(undefined, listening);
    const statuses = async () =>
      (await Promise.all([used, open].map((session) => session!.send(ping)))).map(({ status }) => status);
    jest.advanceTimersByTime(HALF_HOUR_MS - 60_000);
    expect(await statuses()).toEqual([200, 200]);
    jest.advanceTimersByTime(3 * 60_000);
    expect((await idle!.send(ping)).status).toBe(404);
    expect(await statuses()).toEqual([200, 200]);
    jest.advanceTimersByTime(HALF_HOUR_MS - 60_000);
    await stream.body!.cancel();
    jest.advanceTimersByTime(2 * 60_000);
    expect((await used!.send(ping)).status).toBe(404);
    expect((await open!.send(ping)).status).toBe(200);
  } finally {
    await api.close();
    jest.useRealTimers();
  }
});

it('answers calls that wait and ends streams when the process stops', async () => {
  const api = await startApi();
  const { token, caller } = await makeUser(test.db);
  const vm = await makeVm(test.db, caller);
  const session = await openSession(mcpUrl(api.port), token);
  const stream = await session.send(undefined, listening);
  const params = { name: 'exec_vm_command', arguments: { vm_id: vm.id, command: 'make' } };
  const answer = await session.send({ id: 1, method: 'tools/call', params });
  const { id } = await eventually(() => test.db.job.findFirst({ where: { vmId: vm.id } }));
  const closed = api.close();
  expect(await messagesOf(stream)).toEqual([]);
  const messages = await messagesOf(answer);
  expect(messages).toMatchObject([{ result: { structuredContent: { command_id: id, status: 'queued' } } }]);
  await closed;
  expect((await test.db.job.findUniqueOrThrow({ where: { id } })).cancelRequestedAt).toBeNull();
});

it('takes a call back whose session its client ends', async () => {
  const api = await startApi();
  const { token, caller } = await makeUser(test.db);
  const vm = await makeVm(test.db, caller);
  const session = await openSession(mcpUrl(api.port), token);
  const params = { name: 'exec_vm_command', arguments: { vm_id: vm.id, command: 'make' } };
  const answer = await session.send({ id: 1, method: 'tools/call', params });
  const { id } = await eventually(() => test.db.job.findFirst({ where: { vmId: vm.id } }));
  await session.send(undefined, { method: 'DELETE' });
  expect(await messagesOf(answer)).toEqual([]);
  await eventually(async () => (await test.db.job.findUnique({ where: { id } }))?.state === 'cancelled');
  await api.close();
});

it('ends with its token', async () => {
  const api = await startApi();
  const { token, caller } = await makeUser(test.db);
  const session = await openSession(mcpUrl(api.port), token);
  const stream = await session.send(undefined, listening);
  await test.db.token.update({ where: { id: caller.tokenId }, data: { revokedAt: new Date() } });
  expect(await messagesOf(stream)).toEqual([]);
  expect((await session.send(ping)).status).toBe(401);
  await api.close();
});
