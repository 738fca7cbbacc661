import { newId, type Vm } from '@longhaul/persistence';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { isTaskStatusNotificationV2 } from '@modelcontextprotocol/ext-tasks/core/v2';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { listen, type Listener } from '../../test/support/listen.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { TASKS, rpc } from '../../test/support/tasks.js';
import type { ApiServer } from './server.js';

const SUBSCRIPTION = 'io.modelcontextprotocol/subscriptionId';

let test: TestDatabase;
/** Two replicas: what is listened to on the first happens through the other. */
let api: ApiServer;
let other: ApiServer;
let worker: HandWorker;
let user: Awaited<ReturnType<typeof makeUser>>;
let vm: Vm;
const open = new Set<Listener>();

beforeAll(async () => {
  test = await testDatabase();
  worker = new HandWorker(test);
  [api, other] = await Promise.all([startTestApi(test.url), startTestApi(test.url)]);
});
afterAll(async () => {
  await Promise.all([api.close(), other.close()]);
  await test.drop();
});
beforeEach(async () => {
  user = await makeUser(test.db);
  vm = await makeVm(test.db, user.caller, { commandSlots: 8 });
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

async function startTask(token = user.token, vmId = vm.id): Promise<string> {
  const args = { name: 'start_vm_command', arguments: { vm_id: vmId, command: 'make' } };
  const { result } = await rpc(mcpUrl(other.port), token, 'tools/call', args);
  return result!.taskId as string;
}

const honoured = ({ frames }: Listener) => frames[0]?.params?.notifications;
const acknowledged = (listener: Listener) =>
  listener.frame(({ method }) => method === 'notifications/subscriptions/acknowledged');

describe('tasks', () => {
  it('are told of at once, and then from whatever replica they change by, to the end', async () => {
    const taskId = await startTask();
    const listener = await subscribe({ taskIds: [taskId] });
    expect(listener.status).toBe(200);
    expect(listener.response.headers['content-type']).toBe('text/event-stream');
    await eventually(() => listener.tasks().length === 1);
    expect(listener.frames[0]).toMatchObject({
      method: 'notifications/subscriptions/acknowledged',
      params: { notifications: { taskIds: [taskId] }, _meta: { [SUBSCRIPTION]: 'sub-1' } },
    });
    expect(listener.tasks()[0]).toMatchObject({
      taskId,
      status: 'working',
      statusMessage: 'Waiting for a worker',
    });

    const ref = await worker.claim(taskId);
    await eventually(() => listener.tasks().length === 2);
    expect(listener.tasks()[1]).not.toHaveProperty('statusMessage');
    await worker.write(ref, 'stdout', Buffer.from('done\n'));
    await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 5 } });
    await eventually(() => listener.tasks().length === 3);

    const { result } = await rpc(mcpUrl(other.port), user.token, 'tasks/get', { taskId });
    const task = { ...result };
    delete task.resultType;
    expect(listener.tasks()[2]).toEqual({ ...task, _meta: { [SUBSCRIPTION]: 'sub-1' } });
    expect(task).toMatchObject({ status: 'completed', result: { structuredContent: { exit_code: 0 } } });
    for (const frame of listener.frames.slice(1)) expect(isTaskStatusNotificationV2(frame)).toBe(true);
    expect(listener.ended()).toBe(false);
  });

  it('say what they ask, and that they were cancelled', async () => {
    const [asking, cancelled] = [await startTask(), await startTask()];
    const listener = await subscribe({ taskIds: [asking, cancelled] }, { id: 7 });
    const schema = { type: 'object', properties: { name: { type: 'string' } } };
    await worker.ask(await worker.claim(asking), { who: { message: 'Who?', schema } } as never);
    const asked = await listener.frame(({ params }) => params?.status === 'input_required');
    expect(isTaskStatusNotificationV2(asked)).toBe(true);
    expect(asked.params).toMatchObject({ taskId: asking, _meta: { [SUBSCRIPTION]: 7 } });
    expect(Object.keys(asked.params!.inputRequests as object)).toEqual(['who']);

    await rpc(mcpUrl(other.port), user.token, 'tasks/cancel', { taskId: cancelled });
    await listener.frame(({ params }) => params?.status === 'cancelled' && params.taskId === cancelled);
  });

  it('of others, of nobody and of no tool are left out, and nothing else is told of them', async () => {
    const stranger = await makeUser(test.db);
    const theirs = await startTask(stranger.token, (await makeVm(test.db, stranger.caller)).id);
    const mine = await startTask();
    const listener = await subscribe({ taskIds: [theirs, newId(), 'nonsense', mine, mine] });
    await eventually(() => listener.tasks().length === 1);
    expect(honoured(listener)).toEqual({ taskIds: [mine] });

    const none = await subscribe({ taskIds: [theirs], promptsListChanged: true, resourcesListChanged: true });
    await eventually(() => none.ended());
    expect(none.frames).toMatchObject([
      { method: 'notifications/subscriptions/acknowledged', params: { notifications: {} } },
      { id: 'sub-1', result: { resultType: 'complete', _meta: { [SUBSCRIPTION]: 'sub-1' } } },
    ]);
    const narrowed = new URL(`${mcpUrl(api.port).href}?toolsets=vms`);
    const unseen = await listen(narrowed, user.token, { taskIds: [mine] });
    await eventually(() => unseen.ended());
    expect(honoured(unseen)).toEqual({});
  });

  it('need the extension', async () => {
    const listener = await subscribe({ taskIds: [] }, { capabilities: {} });
    await eventually(() => listener.frames.length === 1);
    expect(listener.status).toBe(400);
    expect(listener.frames[0]).toMatchObject({
      id: 'sub-1',
      error: { code: -32021, data: { requiredCapabilities: TASKS } },
    });
  });
});

describe('resources', () => {
  it('of a VM, a job and its log are told to have changed, and no others', async () => {
    const taskId = await startTask();
    const ref = await worker.claim(taskId);
    await worker.write(ref, 'stdout', Buffer.from('before\n'));
    const stranger = await makeVm(test.db, (await makeUser(test.db)).caller);
    const [vmUri, nameUri] = [`longhaul://vms/${vm.id}`, `longhaul://vms/${vm.hostname}`];
    const jobUri = `longhaul://jobs/${taskId}`;
    const [out, err] = [`${jobUri}/logs/stdout`, `${jobUri}/logs/stderr`];
    const foreign = [
      `longhaul://vms/${stranger.id}`,
      `${jobUri}/logs/x`,
      'file:///etc/passwd',
      `longhaul://jobs/${newId()}`,
    ];
    const uris = [vmUri, nameUri, jobUri, out, err];
    const listener = await subscribe({ resourceSubscriptions: [...uris, ...foreign] }, { capabilities: {} });
    await acknowledged(listener);
    expect(honoured(listener)).toEqual({ resourceSubscriptions: uris });

    await test.db.vm.update({ where: { id: vm.id }, data: { powerState: 'stopped' } });
    await listener.frame(({ params }) => params?.uri === nameUri);
    await worker.write(ref, 'stdout', Buffer.from('after\n'));
    await listener.frame(({ params }) => params?.uri === out);
    await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 5 } });
    await listener.frame(({ params }) => params?.uri === jobUri);
    expect(uris.map(listener.updates)).toEqual([1, 1, 1, 1, 0]);
    expect(listener.frames).toHaveLength(5);
    expect(listener.frames[1]!.params).toMatchObject({ _meta: { [SUBSCRIPTION]: 'sub-1' } });
  });

  it('are only those whose tool the caller may call', async () => {
    const { token } = await makeUser(test.db, ['account:read']);
    const listener = await subscribe({ resourceSubscriptions: [`longhaul://vms/${vm.id}`] }, {}, token);
    await eventually(() => listener.ended());
    expect(honoured(listener)).toEqual({});
  });
});

it('lets the official client listen', async () => {
  const client = new Client({ name: 'newer', version: '1' }, { versionNegotiation: { mode: 'auto' } });
  const requestInit = { headers: { authorization: `Bearer ${user.token}` } };
  await client.connect(new StreamableHTTPClientTransport(mcpUrl(api.port), { requestInit }));
  const updated: string[] = [];
  client.setNotificationHandler(
    'notifications/resources/updated',
    ({ params }) => void updated.push(params.uri),
  );
  const uri = `longhaul://vms/${vm.id}`;
  const subscription = await client.listen({ resourceSubscriptions: [uri], toolsListChanged: true });
  expect(subscription.honoredFilter).toEqual({ resourceSubscriptions: [uri], toolsListChanged: true });
  await test.db.vm.update({ where: { id: vm.id }, data: { powerState: 'stopped' } });
  await eventually(() => updated.includes(uri));
  await subscription.close();
  expect(await subscription.closed).toBe('local');
  await client.close();
});

it('answers clients of the older line as it answers any method that they do not have', async () => {
  const response = await fetch(mcpUrl(api.port), {
    method: 'POST',
    headers: {
      authorization: `Bearer ${user.token}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'subscriptions/listen',
      params: { notifications: {} },
    }),
  });
  expect(await response.text()).toContain('-32601');
});
