import { channel } from 'node:diagnostics_channel';
import type { ServerResponse } from 'node:http';
import { createToken } from '@longhaul/access';
import type { Vm } from '@longhaul/persistence';
import { makeUser, makeVm } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { listen, type Listener } from '../../test/support/listen.js';
import { mcpUrl, startTestApi, testApi } from '../../test/support/mcp.js';
import { rpc } from '../../test/support/tasks.js';

const { test, api } = testApi();
let worker: HandWorker;
let user: Awaited<ReturnType<typeof makeUser>>;
let vm: Vm;
const open = new Set<Listener>();

beforeAll(() => {
  worker = new HandWorker(test);
});
beforeEach(async () => {
  user = await makeUser(test.db);
  vm = await makeVm(test.db, user.caller);
});
afterEach(() => {
  open.forEach((listener) => listener.close());
  open.clear();
});

async function subscribe(notifications: object, options = {}, token = user.token): Promise<Listener> {
  const listener = await listen(mcpUrl(api.port), token, notifications, options);
  open.add(listener);
  return listener;
}

async function startTask(): Promise<string> {
  const args = { name: 'start_vm_command', arguments: { vm_id: vm.id, command: 'make' } };
  const { result } = await rpc(mcpUrl(api.port), user.token, 'tools/call', args);
  return result!.taskId as string;
}

const acknowledged = (listener: Listener) =>
  listener.frame(({ method }) => method === 'notifications/subscriptions/acknowledged');

describe('the token', () => {
  const update = (data: object) => test.db.token.update({ where: { id: user.caller.tokenId }, data });

  it('decides on the list of tools: who listens to it is told', async () => {
    const listener = await subscribe({ toolsListChanged: true, promptsListChanged: true });
    await acknowledged(listener);
    expect(listener.frames[0]!.params).toMatchObject({ notifications: { toolsListChanged: true } });
    await update({ scopes: ['vms:read'] });
    const frame = await listener.frame(({ method }) => method === 'notifications/tools/list_changed');
    expect(frame.params).toEqual({ _meta: { 'io.modelcontextprotocol/subscriptionId': 'sub-1' } });
  });

  it('may lose what a task needs: then nothing is told of it', async () => {
    const [taskId, uri] = [await startTask(), `longhaul://vms/${vm.id}`];
    const listener = await subscribe({ taskIds: [taskId], resourceSubscriptions: [uri] });
    await eventually(() => listener.tasks().length === 1);
    await update({ scopes: ['vms:read'] });
    await worker.claim(taskId);
    await test.db.vm.update({ where: { id: vm.id }, data: { powerState: 'stopped' } });
    await listener.frame(({ params }) => params?.uri === uri);
    expect(listener.tasks()).toHaveLength(1);
  });

  it('ends the stream when it is revoked', async () => {
    const revoked = await subscribe({ toolsListChanged: true });
    await acknowledged(revoked);
    await update({ revokedAt: new Date() });
    await eventually(() => revoked.ended());
    expect(revoked.frames).toHaveLength(1);
  });
});

describe('bounds', () => {
  it('refuses what is too much or malformed, in band', async () => {
    const uri = `longhaul://vms/${vm.id}`;
    const refused: [object, object, RegExp][] = [
      [{ taskIds: 'all' }, {}, /taskIds/],
      [{ taskIds: [1] }, {}, /taskIds/],
      [
        { resourceSubscriptions: Array(200).fill(uri), taskIds: Array(57).fill('x') },
        {},
        /at most 256 tasks/,
      ],
      [{ resourceSubscriptions: ['x'.repeat(70_000)] }, {}, /at most 65536 bytes/],
      [{ toolsListChanged: true }, { id: 'x'.repeat(300) }, /^id: at most 256/],
    ];
    for (const [notifications, options, message] of refused) {
      const listener = await subscribe(notifications, options);
      await eventually(() => listener.frames.length === 1);
      expect(listener.status).toBe(200);
      expect(listener.frames[0]!.error).toMatchObject({
        code: -32602,
        message: expect.stringMatching(message),
      });
    }
    const untyped = await subscribe({ toolsListChanged: 'yes' });
    await eventually(() => untyped.frames.length === 1);
    expect(untyped.frames[0]!.error!.code).toBe(-32602);
  });

  it('gives one token 32 streams at a time', async () => {
    const streams = await Promise.all(
      Array.from({ length: 32 }, () => subscribe({ toolsListChanged: true })),
    );
    await Promise.all(streams.map(acknowledged));
    const refused = await subscribe({ toolsListChanged: true });
    await eventually(() => refused.frames.length === 1);
    expect(refused.frames[0]).toMatchObject({
      id: 'sub-1',
      error: { code: -32603, message: 'Subscription limit reached', data: { code: 'rate_limited' } },
    });
    streams[0]!.close();
    await eventually(async () => {
      const again = await subscribe({ toolsListChanged: true });
      await eventually(() => again.frames.length > 0);
      return again.frames[0]!.method;
    });
    const [events] = await test.db.$queryRaw<object[]>`
      SELECT count(*) FILTER (WHERE result = 'ok')::int AS ok, max(arguments::text) AS arguments, max(client_name) AS client
      FROM audit_events WHERE tool = 'subscriptions/listen' AND token_id = ${user.caller.tokenId}::uuid`;
    expect(events).toEqual({ ok: 33, arguments: '{"toolsListChanged": true}', client: 'raw' });
  });

  it('keeps no more for a stream that nobody reads than one message, whatever happens', async () => {
    const responses: ServerResponse[] = [];
    const opened = (message: unknown) => responses.push((message as { response: ServerResponse }).response);
    const requests = channel('http.server.request.start');
    requests.subscribe(opened);
    const taskId = await startTask();
    const listener = await subscribe({ taskIds: [taskId] }, { read: false });
    requests.unsubscribe(opened);
    const response = responses.at(-1)!;
    const ref = await worker.claim(taskId);
    const message = 'x'.repeat(100_000);
    const held: number[] = [];
    for (let n = 1; n <= 2_000; n++) {
      const progress = { progress: n, message };
      // Of what notifies: state or a request to cancel.
      const data =
        n % 2 ? { progress, cancelRequestedAt: new Date() } : { progress, cancelRequestedAt: null };
      await test.db.job.update({ where: { id: taskId }, data });
      held.push(response.writableLength);
    }
    // 100 MB of states have passed; the socket was full long before.
    expect(response.writableNeedDrain).toBe(true);
    expect(Math.max(...held)).toBeLessThan(250_000);

    // Who reads at last is told of the last state.
    let text = '';
    listener.response
      .setEncoding('utf8')
      .on('data', (chunk: string) => (text = (text + chunk).slice(-250_000)));
    await worker.finish(ref, {
      state: 'succeeded',
      result: { exit_code: 0, duration_ms: 5 },
    });
    await eventually(() => text.includes('"status":"completed"'));
  });
});

it('ends streams in order when the server stops', async () => {
  const stopping = await startTestApi(test.url);
  const listener = await listen(mcpUrl(stopping.port), user.token, { toolsListChanged: true });
  await acknowledged(listener);
  const startedAt = performance.now();
  await stopping.close();
  expect(performance.now() - startedAt).toBeLessThan(3_000);
  await eventually(() => listener.ended());
  expect(listener.frames.at(-1)).toMatchObject({
    id: 'sub-1',
    result: { resultType: 'complete', _meta: { 'io.modelcontextprotocol/serverInfo': { name: 'longhaul' } } },
  });
});

it('holds 1,024 streams and no more, tells all of them and ends all of them in order', async () => {
  const crowded = await startTestApi(test.url);
  const url = mcpUrl(crowded.port);
  const filter = { resourceSubscriptions: [`longhaul://vms/${vm.id}`] };
  const streams: Listener[] = [];
  for (let n = 0; n < 32; n++) {
    const { token } = await createToken(test.db, user.caller.userId, ['vms:read']);
    streams.push(...(await Promise.all(Array.from({ length: 32 }, () => listen(url, token, filter)))));
  }
  const refused = await listen(url, user.token, filter);
  await eventually(() => refused.frames.length === 1);
  expect(refused.frames[0]!.error).toMatchObject({ code: -32603, message: 'Subscription limit reached' });

  await test.db.vm.update({ where: { id: vm.id }, data: { powerState: 'stopped' } });
  await eventually(() => streams.every(({ frames }) => frames.length === 2));
  await crowded.close();
  await eventually(() => streams.every((stream) => stream.ended() && stream.frames.at(-1)!.result));
});
