import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { call, connect, mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { TASKS, connectTasks, rpc } from '../../test/support/tasks.js';
import { createToken } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { newId, type Vm } from '@longhaul/persistence';
import type { TaskId } from '@modelcontextprotocol/ext-tasks/core';
import { isCreateTaskResultV2, isDetailedTaskV2 } from '@modelcontextprotocol/ext-tasks/core/v2';
import type { ApiServer } from './server.js';

let test: TestDatabase;
let api: ApiServer;
let worker: HandWorker;
let token: string;
let userId: string;
let vm: Vm;

beforeAll(async () => {
  test = await testDatabase();
  worker = new HandWorker(test);
  api = await startTestApi(test.url);
});
afterAll(async () => {
  await api.close();
  await test.drop();
});
beforeEach(async () => {
  const user = await makeUser(test.db);
  token = user.token;
  userId = user.caller.userId;
  vm = await makeVm(test.db, user.caller);
});

const url = () => mcpUrl(api.port);
const ask = (method: string, params: object, capabilities?: object, as = token) =>
  rpc(url(), as, method, params as Record<string, unknown>, capabilities);
const command = () => ({ name: 'start_vm_command', arguments: { vm_id: vm.id, command: 'make' } });

async function startTask(): Promise<string> {
  const { result } = await ask('tools/call', command());
  return result!.taskId as string;
}

async function ended(outcome: Parameters<HandWorker['finish']>[1]): Promise<Record<string, unknown>> {
  const taskId = await startTask();
  await worker.finish(await worker.claim(taskId), outcome);
  return (await ask('tasks/get', { taskId })).result!;
}

describe('a call of a tool whose work is a job', () => {
  it('answers a task at once, which can be asked for at once', async () => {
    const { result } = await ask('tools/call', command());
    expect(isCreateTaskResultV2(result)).toBe(true);
    expect(result).toMatchObject({ resultType: 'task', status: 'working', pollIntervalMs: 250 });
    expect(result).not.toHaveProperty('content');
    expect(result!.ttlMs).toBe(30 * 86_400_000);
    const task = (await ask('tasks/get', { taskId: result!.taskId })).result!;
    expect(isDetailedTaskV2(task)).toBe(true);
    expect(task).toMatchObject({ resultType: 'complete', status: 'working', taskId: result!.taskId });
  });

  it('shows how far it is', async () => {
    const taskId = await startTask();
    const ref = await worker.claim(taskId);
    await worker.progress(ref, { progress: 3, total: 60, message: '3 s, 12 kB of output' });
    const { result } = await ask('tasks/get', { taskId });
    expect(result).toMatchObject({ status: 'working', statusMessage: '3 s, 12 kB of output' });
  });

  it('has as its result what who waits is answered, in both directions', async () => {
    const args = { vm_id: vm.id, command: 'make', idempotency_key: 'once' };
    const { result: created } = await ask('tools/call', { name: 'exec_vm_command', arguments: args });
    const ref = await worker.claim(created!.taskId as string);
    await worker.write(ref, 'stdout', Buffer.from('done\n'));
    await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 5 } });
    const { result: task } = await ask('tasks/get', { taskId: created!.taskId });
    expect(isDetailedTaskV2(task)).toBe(true);
    const { _meta: identity, ...waited } = (
      await ask('tools/call', { name: 'exec_vm_command', arguments: args }, {})
    ).result!;
    expect(identity).toBeDefined();
    expect(waited).toMatchObject({ resultType: 'complete', structuredContent: { stdout: 'done\n' } });
    expect(task).toMatchObject({ status: 'completed', result: waited });
  });

  it('is the same job for clients that poll', async () => {
    const taskId = await startTask();
    const client = await connect(url(), token);
    expect(await call(client, 'get_job', { job_id: taskId })).toMatchObject({ status: 'queued' });
    await call(client, 'cancel_job', { job_id: taskId });
    expect((await ask('tasks/get', { taskId })).result).toMatchObject({ status: 'cancelled' });
    const { command_id } = await call(client, 'start_vm_command', command().arguments);
    expect((await ask('tasks/get', { taskId: command_id })).result).toMatchObject({ status: 'working' });
    await client.close();
  });

  it('ignores the hint of the older revision on a tool that makes no job', async () => {
    const params = { name: 'whoami', arguments: {}, task: { ttl: 60_000 } };
    expect((await ask('tools/call', params)).result).toMatchObject({ resultType: 'complete' });
  });
});

describe('the end of a job', () => {
  const exit = (code: number) => ({ exit_code: code, duration_ms: 5 });
  const error = new AppError('guest_rebooted', 'The VM was reset.').toBody();

  it.each([
    ['failed', { state: 'failed', result: exit(7) }, { exit_code: 7 }],
    ['timed_out', { state: 'timed_out', result: exit(137) }, { timed_out: true }],
    ['unknown', { state: 'unknown', error }, { error: { code: 'guest_rebooted' } }],
  ] as const)('%s is a completed task whose result says so', async (_state, outcome, content) => {
    const task = await ended(outcome);
    expect(isDetailedTaskV2(task)).toBe(true);
    expect(task).toMatchObject({
      status: 'completed',
      result: { isError: true, structuredContent: content },
    });
  });

  it('by a fault of ours is a failed task, which tells nothing of the inside', async () => {
    const fault = new AppError('internal', 'Something went wrong.', { error_id: 'e-1' }).toBody();
    const task = await ended({ state: 'failed', error: fault });
    expect(isDetailedTaskV2(task)).toBe(true);
    expect(task).toMatchObject({ status: 'failed', error: { code: -32603, data: { code: 'internal' } } });
    expect(task).not.toHaveProperty('result');
  });

  it('by a cancel is a cancelled task; another cancel changes nothing', async () => {
    const taskId = await startTask();
    const ref = await worker.claim(taskId);
    for (let times = 0; times < 2; times++) {
      const { result } = await ask('tasks/cancel', { taskId });
      expect(Object.keys(result!).filter((key) => key !== '_meta')).toEqual(['resultType']);
    }
    expect((await ask('tasks/get', { taskId })).result).toMatchObject({
      status: 'working',
      statusMessage: 'Being cancelled',
    });
    await worker.finish(ref, { state: 'cancelled' });
    expect((await ask('tasks/cancel', { taskId })).result).toMatchObject({ resultType: 'complete' });
    expect((await ask('tasks/get', { taskId })).result).toMatchObject({ status: 'cancelled' });
  });
});

describe('a question of a job', () => {
  const schema = {
    type: 'object' as const,
    properties: { sure: { type: 'boolean' } },
    required: ['sure'],
  };
  const questions = { first: { message: 'Sure?', schema }, second: { message: 'Really?', schema } };
  const yes = { action: 'accept', content: { sure: true } };

  async function asking(): Promise<string> {
    const taskId = await startTask();
    expect(await worker.ask(await worker.claim(taskId), questions)).toBeUndefined();
    return taskId;
  }

  it('is shown until it is answered; then the job goes on with the answers, in another worker too', async () => {
    const taskId = await asking();
    const { result } = await ask('tasks/get', { taskId });
    expect(isDetailedTaskV2(result)).toBe(true);
    expect(result).toMatchObject({ status: 'input_required' });
    expect(result!.inputRequests).toMatchObject({
      first: { method: 'elicitation/create', params: { message: 'Sure?', requestedSchema: schema } },
      second: { params: { message: 'Really?' } },
    });
    const ack = await ask('tasks/update', { taskId, inputResponses: { second: yes, never: yes } });
    expect(ack.result).toMatchObject({ resultType: 'complete' });
    const after = (await ask('tasks/get', { taskId })).result!;
    expect(Object.keys(after.inputRequests as object)).toEqual(['first']);
    await ask('tasks/update', { taskId, inputResponses: { first: { action: 'decline' }, second: yes } });
    expect((await ask('tasks/get', { taskId })).result).toMatchObject({ status: 'working' });
    const other = new HandWorker(test);
    expect(await other.ask(await other.claim(taskId), questions)).toEqual({
      first: { action: 'decline' },
      second: yes,
    });
  });

  it.each([
    ['of another form', { first: { action: 'accept', content: { sure: 'yes' } } }],
    ['of no form at all', { first: 7 }],
  ])('takes no answer %s', async (_what, inputResponses) => {
    const taskId = await asking();
    const { error } = await ask('tasks/update', { taskId, inputResponses });
    expect(error).toMatchObject({ code: -32602 });
    const { result } = await ask('tasks/get', { taskId });
    expect(Object.keys(result!.inputRequests as object)).toEqual(['first', 'second']);
  });

  it('is answered by a tool where the client knows no tasks', async () => {
    const taskId = await asking();
    const client = await connect(url(), token);
    const job = await call(client, 'get_job', { job_id: taskId });
    expect(job).toMatchObject({ status: 'awaiting_input', questions: [{ key: 'first' }, { key: 'second' }] });
    const answers = [
      { key: 'first', action: 'accept', content: { sure: false } },
      { key: 'second', action: 'cancel' },
    ];
    expect(await call(client, 'answer_job', { job_id: taskId, answers })).toMatchObject({ status: 'queued' });
    await client.close();
  });

  it('wants answers', async () => {
    const taskId = await asking();
    expect((await ask('tasks/update', { taskId })).error).toMatchObject({ code: -32602 });
  });
});

describe('the gates of a task', () => {
  const METHODS = ['tasks/get', 'tasks/update', 'tasks/cancel'];
  const params = (method: string, taskId: string) => ({
    taskId,
    ...(method === 'tasks/update' && { inputResponses: {} }),
  });

  it.each(METHODS)('%s of a foreign task is like that of none', async (method) => {
    const taskId = await startTask();
    const stranger = await makeUser(test.db);
    const foreign = await ask(method, params(method, taskId), TASKS, stranger.token);
    const absent = await ask(method, params(method, newId()), TASKS, stranger.token);
    const nonsense = await ask(method, params(method, "'; DROP"), TASKS, stranger.token);
    expect(foreign.error).toMatchObject({ code: -32602 });
    expect(foreign).toEqual(absent);
    expect(nonsense).toEqual(absent);
    expect((await ask('tasks/get', { taskId })).result).toMatchObject({ status: 'working' });
  });

  it.each(METHODS)('%s needs the scope of the job', async (method) => {
    const taskId = await startTask();
    const weak = (await createToken(test.db, userId, ['vms:read'])).token;
    const { error } = await ask(method, params(method, taskId), TASKS, weak);
    expect(error).toMatchObject({ code: -32602, data: { code: 'forbidden_scope' } });
  });

  it.each(METHODS)('%s is for clients that declare the extension', async (method) => {
    const { error, status } = await ask(method, params(method, await startTask()), {});
    expect(status).toBe(400);
    expect(error).toMatchObject({ code: -32021, data: { requiredCapabilities: TASKS } });
  });

  it('cannot be got round by an address that shows less', async () => {
    const taskId = await startTask();
    for (const path of ['/mcp/readonly', '/mcp/x/vms']) {
      const { error } = await rpc(new URL(path, url()), token, 'tasks/cancel', { taskId });
      expect(error).toMatchObject({ code: -32602 });
    }
    expect((await ask('tasks/get', { taskId })).result).toMatchObject({ status: 'working' });
  });

  it.each(['tasks/result', 'tasks/list'])('%s is gone', async (method) => {
    expect((await ask(method, { taskId: 'x' })).error).toMatchObject({ code: -32601 });
  });

  it('are audited', async () => {
    const taskId = await startTask();
    await ask('tasks/get', { taskId });
    const events = await test.db.auditEvent.findMany({ where: { tool: 'tasks/get', jobId: taskId } });
    expect(events).toEqual([expect.objectContaining({ event: 'call', result: 'ok', vmId: vm.id })]);
  });
});

describe('the official tasks client', () => {
  const sure = {
    type: 'object' as const,
    properties: { sure: { type: 'boolean' } },
    required: ['sure'],
  };

  it('follows a task to its result, and answers what it asks', async () => {
    const session = await connectTasks(url(), token, () => ({ action: 'accept', content: { sure: true } }));
    const execution = await session.callTool('start_vm_command', command().arguments);
    const settled = execution.settle();
    const taskId = execution.handle!.taskId;
    await worker.ask(await worker.claim(taskId), { q: { message: 'Sure?', schema: sure } });
    const job = await eventually(async () => {
      const row = await test.db.job.findUniqueOrThrow({ where: { id: taskId } });
      return row.state === 'queued' ? row : undefined;
    });
    expect(job.attempt).toBe(1);
    await worker.finish(await worker.claim(taskId), {
      state: 'succeeded',
      result: { exit_code: 0, duration_ms: 5 },
    });
    expect((await settled).outcome).toMatchObject({
      status: 'completed',
      result: { structuredContent: { command_id: taskId, status: 'succeeded', exit_code: 0 } },
    });
    await session.end();
  });

  it('cancels a task', async () => {
    const session = await connectTasks(url(), token);
    const execution = await session.callTool('start_vm_command', command().arguments);
    await execution.cancel();
    expect((await ask('tasks/get', { taskId: execution.handle!.taskId })).result).toMatchObject({
      status: 'cancelled',
    });
    await session.end();
  });

  it('finds its task again after it and the API were started anew', async () => {
    const before = await connectTasks(url(), token);
    const execution = await before.callTool('start_vm_command', command().arguments);
    if (execution.kind !== 'task') throw new Error('no task');
    const reference = execution.serializeReference();
    await execution.detach();
    await before.end();
    await api.close();
    api = await startTestApi(test.url);
    const after = await connectTasks(url(), token);
    const resumed = await after.resumeTask(reference);
    await worker.finish(await worker.claim(reference.taskId), {
      state: 'failed',
      result: { exit_code: 3, duration_ms: 5 },
    });
    expect((await resumed.settle()).outcome).toMatchObject({
      status: 'completed',
      result: { isError: true, structuredContent: { exit_code: 3 } },
    });
    expect((await after.task(reference.taskId as TaskId).snapshot()).status).toBe('completed');
    await after.end();
  });
});
