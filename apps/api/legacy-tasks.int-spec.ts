import { newId, type Vm } from '@longhaul/persistence';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createTaskSessionFromClient, resultFromTaskOutcome } from '@modelcontextprotocol/ext-tasks/client';
import type { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { CallToolResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { z } from 'zod';
import { catalog } from '../../test/conformance/fixtures/catalog.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { connect, mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { connectOlder } from '../../test/support/sessions.js';
import { fetchHere } from '../../test/support/tasks.js';
import type { ApiServer } from './server.js';

let test: TestDatabase;
let worker: HandWorker;
let api: ApiServer;
let token: string;
let vm: Vm;
let client: OlderClient;

beforeAll(async () => {
  test = await testDatabase();
  worker = new HandWorker(test);
});
afterAll(() => test.drop());
beforeEach(async () => {
  const user = await makeUser(test.db);
  token = user.token;
  vm = await makeVm(test.db, user.caller, { commandSlots: 8 });
});

const url = () => mcpUrl(api.port);
const anything = z.looseObject({});
const ask = (method: string, params: Record<string, unknown>) =>
  client.request({ method, params } as never, anything);
const related = (taskId: string) => ({ 'io.modelcontextprotocol/related-task': { taskId } });

async function start(name = 'start_vm_command'): Promise<string> {
  const params = { name, arguments: { vm_id: vm.id, command: 'make' }, task: { ttl: 60_000 } };
  const created = (await ask('tools/call', params)) as { task: { taskId: string } };
  return created.task.taskId;
}

describe.each(['false', 'true'])('tasks of 2025-11-25, sessions: %s', (MCP_SESSIONS) => {
  beforeAll(async () => {
    api = await startTestApi(test.url, { MCP_SESSIONS }, catalog);
  });
  afterAll(() => api.close());
  beforeEach(async () => {
    client = await connectOlder(url(), token);
  });
  afterEach(() => client.close());

  it('are offered on this line only', async () => {
    expect(client.getServerCapabilities()?.tasks).toEqual({
      list: {},
      cancel: {},
      requests: { tools: { call: {} } },
    });
    const { tools } = await client.listTools();
    const support = Object.fromEntries(tools.map(({ name, execution }) => [name, execution?.taskSupport]));
    expect(support).toMatchObject({ start_vm_command: 'optional', failing_job: 'required' });
    expect(support.whoami).toBeUndefined();
    const modern = await connect(url(), token);
    expect(JSON.stringify(await modern.tools())).not.toContain('taskSupport');
    await modern.close();
  });

  it('go through the official client from the call to the result', async () => {
    await client.listTools();
    const params = { name: 'exec_vm_command', arguments: { vm_id: vm.id, command: 'make' } };
    const stream = client.experimental.tasks.callToolStream(params, CallToolResultSchema, { task: {} });
    const seen: string[] = [];
    for await (const message of stream) {
      seen.push(message.type);
      if (message.type === 'error') throw message.error;
      if (message.type === 'taskCreated') {
        const ref = await worker.claim(message.task.taskId);
        await worker.write(ref, 'stdout', Buffer.from('done\n'));
        await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 5 } });
      }
      if (message.type === 'result')
        expect(message.result).toMatchObject({ structuredContent: { stdout: 'done\n', exit_code: 0 } });
    }
    expect(seen[0]).toBe('taskCreated');
    expect(seen.at(-1)).toBe('result');
  });

  it('say what they are in words of that revision', async () => {
    const taskId = await start();
    const { tasks } = client.experimental;
    const task = await tasks.getTask(taskId);
    expect(task).toMatchObject({ taskId, status: 'working', ttl: 30 * 86_400_000, pollInterval: 250 });
    const ref = await worker.claim(taskId);
    await worker.finish(ref, { state: 'failed', result: { exit_code: 2, duration_ms: 1 } });
    expect(await tasks.getTask(taskId)).toMatchObject({ status: 'failed' });
    const result = await tasks.getTaskResult(taskId, CallToolResultSchema);
    expect(result).toMatchObject({
      isError: true,
      structuredContent: { exit_code: 2 },
      _meta: related(taskId),
    });
  });

  it('answer the result when there is one, and a fault as the call would have', async () => {
    const taskId = await start();
    const result = client.experimental.tasks.getTaskResult(taskId, CallToolResultSchema);
    const error = { code: 'internal' as const, message: 'Quote error id 1.', retryable: true };
    await worker.finish(await worker.claim(taskId), { state: 'failed', error });
    await expect(result).rejects.toMatchObject({ code: -32603, message: expect.stringContaining('id 1') });
  });

  it('are listed page by page, those of visible tools only', async () => {
    const job = await test.db.job.findUniqueOrThrow({ where: { id: await start() } });
    const { tasks } = client.experimental;
    const copies = Array.from({ length: 60 }, () => ({
      ...job,
      id: newId(),
      slot: null,
      slotIndex: null,
      payload: {},
      // The database computes it.
      queue: undefined,
    }));
    await test.db.job.createMany({ data: copies.map(plain) as never });
    const first = await tasks.listTasks();
    expect(first.tasks).toHaveLength(50);
    const second = await tasks.listTasks(first.nextCursor);
    const ids = new Set([...first.tasks, ...second.tasks].map(({ taskId }) => taskId));
    expect(ids).toEqual(new Set([job.id, ...copies.map(({ id }) => id)]));
    expect(second.nextCursor).toBeUndefined();
    await expect(tasks.listTasks('nothing')).rejects.toMatchObject({ code: -32602 });

    const narrow = await connectOlder(new URL('/mcp/x/jobs', url()), token);
    expect((await narrow.experimental.tasks.listTasks()).tasks).toEqual([]);
    await expect(narrow.experimental.tasks.getTask(job.id)).rejects.toMatchObject({ code: -32602 });
    await narrow.close();
  });

  it('are cancelled once, and not after their end', async () => {
    const taskId = await start();
    const { tasks } = client.experimental;
    expect(await tasks.cancelTask(taskId)).toMatchObject({ taskId, status: 'cancelled' });
    await expect(tasks.cancelTask(taskId)).rejects.toMatchObject({ code: -32602 });
    const running = await start();
    const ref = await worker.claim(running);
    const cancelled = tasks.cancelTask(running);
    await eventually(
      async () => (await test.db.job.findUnique({ where: { id: running } }))?.cancelRequestedAt,
    );
    await worker.finish(ref, { state: 'cancelled' });
    expect(await cancelled).toMatchObject({ status: 'cancelled' });
    const result = await tasks.getTaskResult(running, CallToolResultSchema);
    expect(result).toMatchObject({ isError: true, structuredContent: { status: 'cancelled' } });
  });

  it('do not exist for others', async () => {
    const taskId = await start();
    const other = await connectOlder(url(), (await makeUser(test.db)).token);
    const { tasks } = other.experimental;
    for (const id of [taskId, 'nothing'])
      for (const attempt of [
        tasks.getTask(id),
        tasks.cancelTask(id),
        tasks.getTaskResult(id, CallToolResultSchema),
      ])
        await expect(attempt).rejects.toMatchObject({ code: -32602 });
    expect((await tasks.listTasks()).tasks).toEqual([]);
    expect(
      await test.db.auditEvent.findFirst({ where: { tool: 'tasks/cancel', code: 'job_not_found' } }),
    ).not.toBeNull();
    await other.close();
  });

  it('are made by whom they suit', async () => {
    const whoami = { name: 'whoami', arguments: {}, task: {} };
    await expect(ask('tools/call', whoami)).rejects.toMatchObject({ code: -32601 });
    const failing = { name: 'failing_job', arguments: {} };
    await expect(ask('tools/call', failing)).rejects.toMatchObject({ code: -32601 });
    expect(await ask('tools/call', { ...failing, task: {} })).toMatchObject({ task: { status: 'working' } });
    const refused = await test.db.auditEvent.findMany({ where: { tool: { in: ['whoami', 'failing_job'] } } });
    expect(refused.map(({ result }) => result).sort()).toEqual(expect.arrayContaining(['ok', 'refused']));
  });

  it('suit the tasks client', async () => {
    const newer = new Client(
      { name: 'newer', version: '2' },
      { versionNegotiation: { mode: 'legacy' }, capabilities: {} },
    );
    const requestInit = { headers: { authorization: `Bearer ${token}` } };
    await newer.connect(new StreamableHTTPClientTransport(url(), { requestInit, fetch: fetchHere }));
    const session = createTaskSessionFromClient(newer, { endpointId: 'longhaul-test' });
    const execution = await session.callTool('start_vm_command', { vm_id: vm.id, command: 'make' });
    const { id } = await eventually(() => test.db.job.findFirst({ where: { vmId: vm.id } }));
    await worker.finish(await worker.claim(id), {
      state: 'succeeded',
      result: { exit_code: 0, duration_ms: 5 },
    });
    const { outcome } = await execution.settle();
    expect(resultFromTaskOutcome(outcome)).toMatchObject({ structuredContent: { command_id: id } });
    await session.close();
    await newer.close();
  });
});

describe('a question of a task', () => {
  const question = {
    message: 'Go on?',
    schema: { type: 'object' as const, properties: { sure: { type: 'boolean' } }, required: ['sure'] },
  };

  it('is put to the client that waits for the result, in a session', async () => {
    api = await startTestApi(test.url, { MCP_SESSIONS: 'true' });
    const asked: unknown[] = [];
    client = await connectOlder(url(), token, {
      elicit(params) {
        asked.push(params);
        return { action: 'accept', content: { sure: true } };
      },
    });
    const taskId = await start();
    await worker.ask(await worker.claim(taskId), { go: question });
    expect(await client.experimental.tasks.getTask(taskId)).toMatchObject({ status: 'input_required' });
    const result = client.experimental.tasks.getTaskResult(taskId, CallToolResultSchema);
    await eventually(
      async () => (await test.db.job.findUnique({ where: { id: taskId } }))?.state === 'queued',
    );
    expect(asked).toMatchObject([{ message: 'Go on?', _meta: related(taskId) }]);
    const ref = await worker.claim(taskId);
    expect(await worker.ask(ref, { go: question })).toEqual({
      go: { action: 'accept', content: { sure: true } },
    });
    await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 1 } });
    expect(await result).toMatchObject({ structuredContent: { status: 'succeeded' } });
    await client.close();
    await api.close();
  });

  it('is taken back when someone else has answered it', async () => {
    api = await startTestApi(test.url, { MCP_SESSIONS: 'true' });
    let isAsked = false;
    client = await connectOlder(url(), token, {
      elicit: () => {
        isAsked = true;
        return new Promise(() => undefined);
      },
    });
    const taskId = await start();
    await worker.ask(await worker.claim(taskId), { go: question });
    const result = client.experimental.tasks.getTaskResult(taskId, CallToolResultSchema);
    await eventually(() => isAsked);
    const answers = [{ key: 'go', action: 'decline' }];
    await client.callTool({ name: 'answer_job', arguments: { job_id: taskId, answers } });
    await worker.finish(await worker.claim(taskId), { state: 'cancelled' });
    expect(await result).toMatchObject({ structuredContent: { status: 'cancelled' } });
    await client.close();
    await api.close();
  });

  it('waits for someone else without a session', async () => {
    api = await startTestApi(test.url);
    client = await connectOlder(url(), token, { elicit: () => ({ action: 'decline' }) });
    const taskId = await start();
    await worker.ask(await worker.claim(taskId), { go: question });
    const result = client.experimental.tasks.getTaskResult(taskId, CallToolResultSchema);
    const answers = [{ key: 'go', action: 'accept', content: { sure: true } }];
    await client.callTool({ name: 'answer_job', arguments: { job_id: taskId, answers } });
    await worker.finish(await worker.claim(taskId), {
      state: 'succeeded',
      result: { exit_code: 0, duration_ms: 1 },
    });
    expect(await result).toMatchObject({ structuredContent: { status: 'succeeded' } });
    await client.close();
    await api.close();
  });
});

/** Prisma takes no null for JSON; what is not set need not be given. */
const plain = (row: object) => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null));
