import { once } from 'node:events';
import type { Vm } from '@longhaul/persistence';
import type { TaskEnabledSession } from '@modelcontextprotocol/ext-tasks/client';
import { connectTasks } from '../support/tasks.js';
import { Stack, type Call } from './stack.js';

type Session = TaskEnabledSession & { end(): Promise<void> };

let stack: Stack;
let vm: Vm;
let session: Session;
let v1: Call;
let v2: Call;
let answers = 0;

const connect = () =>
  connectTasks(new URL(stack.url), stack.token, () => {
    answers++;
    return { action: 'accept', content: { confirm: true } };
  });

beforeAll(async () => {
  stack = await Stack.start();
  await stack.startWorker();
  vm = await stack.createVm();
  [v1, v2, session] = await Promise.all([stack.clientV1(), stack.clientV2(), connect()]);
});
afterAll(async () => {
  await session.end();
  await stack.stop();
});

const exec = async (command: string) =>
  session.callTool('exec_vm_command', { vm_id: vm.id, command, timeout_seconds: 60 });

it('gives who follows a task the result that who waits is given', async () => {
  const command = 'echo out; echo err >&2';
  const waited = await v2('exec_vm_command', { vm_id: vm.id, command });
  expect(waited).toMatchObject({ isError: false, stdout: 'out\n', stderr: 'err\n', exit_code: 0 });
  const execution = await exec(command);
  expect(execution.kind).toBe('task');
  const { outcome } = await execution.settle();
  const { command_id: id, duration_ms, isError, ...same } = waited;
  expect({ id, duration_ms, isError }).toBeDefined();
  expect(outcome).toMatchObject({ status: 'completed', result: { structuredContent: same } });
});

it('tells how far a task is, and is one job with what pollers see', async () => {
  const execution = await session.callTool('start_vm_command', {
    vm_id: vm.id,
    command: 'for i in $(seq 12); do echo $i; sleep 1; done',
  });
  const id = execution.handle!.taskId;
  const messages = new Set<string>();
  const settled = execution.settle({
    onEvent: (event) => {
      if (event.type === 'task' && event.task.statusMessage) messages.add(event.task.statusMessage);
    },
  });
  await v1('wait_for_job', { job_id: id, timeout_seconds: 5 });
  expect(await v1('get_vm_command_output', { command_id: id })).toMatchObject({ status: 'running' });
  expect((await settled).outcome).toMatchObject({ status: 'completed' });
  expect(await v1('get_vm_command_output', { command_id: id })).toMatchObject({ status: 'succeeded' });
  expect([...messages].some((message) => /^\d+ s, .*output$/.test(message))).toBe(true);
});

it('shows a command that failed as a completed task with an error result', async () => {
  const { outcome } = await (await exec('echo no >&2; exit 7')).settle();
  expect(outcome).toMatchObject({
    status: 'completed',
    result: { isError: true, structuredContent: { status: 'failed', exit_code: 7, stderr: 'no\n' } },
  });
  expect(await v1('exec_vm_command', { vm_id: vm.id, command: 'exit 7' })).toMatchObject({
    isError: true,
    exit_code: 7,
  });
});

it('cancels the work of a task', async () => {
  const execution = await exec('sleep 1000 & wait');
  await v2('wait_for_job', { job_id: execution.handle!.taskId, timeout_seconds: 1 });
  await execution.cancel();
  expect((await stack.ended(execution.handle!.taskId)).state).toBe('cancelled');
  expect((await session.task(execution.handle!.taskId).snapshot()).status).toBe('cancelled');
});

it('asks a person before it lets commands into a VM', async () => {
  await stack.database.db.vm.update({ where: { id: vm.id }, data: { execEnabled: false } });
  expect(await v1('exec_vm_command', { vm_id: vm.id, command: 'true' })).toMatchObject({
    code: 'mcp_exec_disabled',
  });
  const execution = await session.callTool('set_vm_exec_enabled', { vm_id: vm.id, enabled: true });
  expect((await execution.settle()).outcome).toMatchObject({
    result: { structuredContent: { mcp_exec_enabled: true } },
  });
  expect(answers).toBe(1);
  expect(await v1('exec_vm_command', { vm_id: vm.id, command: 'true' })).toMatchObject({ exit_code: 0 });
});

it('finds its task again after client, API and worker were killed and started anew', async () => {
  const execution = await session.callTool('start_vm_command', {
    vm_id: vm.id,
    command: 'sleep 15; echo survived',
  });
  if (execution.kind !== 'task') throw new Error('no task');
  const reference = execution.serializeReference();
  await execution.detach();
  await session.end();
  const processes = [...stack.processes];
  const ends = processes.map((child) => once(child, 'exit'));
  for (const child of processes) child.kill('SIGKILL');
  await Promise.all(ends);
  await stack.startApi();
  await stack.startWorker();
  session = await connect();
  const resumed = await session.resumeTask(reference);
  expect((await resumed.settle()).outcome).toMatchObject({
    status: 'completed',
    result: { structuredContent: { command_id: reference.taskId, status: 'succeeded', exit_code: 0 } },
  });
});
