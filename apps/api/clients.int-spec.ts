import { CLIENTS, call, mcpUrl, refusal, testApi, type McpClient } from '../../test/support/mcp.js';
import { makeUser, makeVm } from '../../test/support/database.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { type Caller } from '@longhaul/access';
import { newId, type Vm } from '@longhaul/persistence';
import { catalog, toolsets } from '../../libs/toolsets/catalog.js';
import { eventually } from '../../test/support/eventually.js';

const { test, api } = testApi();
let worker: HandWorker;
let caller: Caller;
let token: string;
let vm: Vm;

beforeAll(() => {
  worker = new HandWorker(test);
});
beforeEach(async () => {
  ({ caller, token } = await makeUser(test.db));
  vm = await makeVm(test.db, caller);
});

describe.each(Object.entries(CLIENTS))('%s', (_name, connectTo) => {
  let client: McpClient;
  beforeEach(async () => {
    client = await connectTo(mcpUrl(api.port), token);
  });
  afterEach(() => client.close());

  it('lists every tool in a fixed order, with schemas and annotations', async () => {
    const tools = await client.tools();
    const shown = catalog.filter(({ toolset }) => toolsets[toolset as keyof typeof toolsets].default);
    expect(tools.map(({ name }) => name)).toEqual(shown.map(({ name }) => name));
    for (const tool of tools) {
      expect(tool).toMatchObject({
        title: expect.any(String),
        description: expect.any(String),
        inputSchema: { type: 'object', additionalProperties: false },
        outputSchema: { type: 'object' },
        annotations: { readOnlyHint: expect.any(Boolean), openWorldHint: expect.any(Boolean) },
      });
    }
  });

  it('starts a command, reads its output while it runs and after, and sees it end', async () => {
    await client.tools(); // from here on the client checks each answer against the output schema
    const started = await call(client, 'start_vm_command', {
      vm_id: vm.hostname,
      command: 'make',
      label: 'build',
    });
    expect(started).toMatchObject({ status: 'queued', vm_id: vm.id, label: 'build' });
    const command_id = started.command_id as string;

    const ref = await worker.claim(command_id);
    await worker.write(ref, 'stdout', Buffer.from('grüße\n').subarray(0, 3));
    const first = await call(client, 'read_vm_command_logs', { command_id });
    expect(first).toMatchObject({
      status: 'running',
      stdout: 'gr',
      stdout_encoding: 'utf-8',
      next_stdout_offset: 2,
      stdout_eof: false,
      stderr: '',
      next_stderr_offset: 0,
      stderr_eof: false,
    });

    await worker.write(ref, 'stdout', Buffer.from('grüße\n').subarray(3));
    await worker.finish(ref, { state: 'failed', result: { exit_code: 3, duration_ms: 1200 } });
    const stdout_offset = first.next_stdout_offset;
    expect(await call(client, 'read_vm_command_logs', { command_id, stdout_offset })).toMatchObject({
      status: 'failed',
      stdout: 'üße\n',
      next_stdout_offset: 8,
      stdout_eof: true,
      stderr_eof: true,
    });
    expect(await call(client, 'get_vm_command_output', { command_id, stdout_tail_bytes: 4 })).toMatchObject({
      status: 'failed',
      exit_code: 3,
      duration_ms: 1200,
      timed_out: false,
      stdout: 'ße\n',
      stdout_tail_offset: 4,
      next_stdout_offset: 8,
    });
    expect(await call(client, 'wait_for_job', { job_id: command_id })).toMatchObject({ status: 'failed' });
  });

  it('answers errors that the client lets through', async () => {
    await client.tools();
    expect(await refusal(client, 'get_vm', { vm_id: 'nobody' })).toMatchObject({ code: 'vm_not_found' });
    await expect(client.callRaw('no_such_tool')).rejects.toMatchObject({ code: -32602 });
  });

  it('answers every tool with structured content of its output schema', async () => {
    await client.tools();
    const job = await call(client, 'start_vm_command', { vm_id: vm.id, command: 'true' });
    const command_id = job.command_id as string;
    expect(await call(client, 'whoami')).toMatchObject({ user_id: caller.userId, scopes: caller.scopes });
    expect(await call(client, 'list_vms')).toMatchObject({
      vms: [{ id: vm.id, status: 'host_unreachable' }],
    });
    expect(await call(client, 'get_vm', { vm_id: vm.id.slice(0, 9) })).toMatchObject({
      hostname: vm.hostname,
    });
    expect(await call(client, 'list_jobs', { vm_id: vm.id, status: ['queued'] })).toMatchObject({
      jobs: [{ job_id: command_id }],
    });
    expect(await call(client, 'get_job', { job_id: command_id })).toMatchObject({ kind: 'vm.command' });
    expect(await call(client, 'wait_for_job', { job_id: command_id, timeout_seconds: 0 })).toMatchObject({
      status: 'queued',
    });
    expect(await call(client, 'read_job_logs', { job_id: command_id, stream: 'system' })).toEqual({
      job_id: command_id,
      status: 'queued',
      system: '',
      system_encoding: 'utf-8',
      next_system_offset: 0,
      system_eof: false,
    });
    expect(await call(client, 'cancel_vm_command', { command_id })).toMatchObject({ status: 'cancelled' });
    expect(await call(client, 'cancel_job', { job_id: command_id })).toMatchObject({ status: 'cancelled' });
  });

  it('runs a short command and shows both streams', async () => {
    await client.tools();
    const answer = call(client, 'exec_vm_command', {
      vm_id: vm.id,
      command: 'true',
      idempotency_key: newId(),
    });
    const { id, lane } = await eventually(() => test.db.job.findFirst({ where: { vmId: vm.id } }));
    expect(lane).toBe('interactive');
    const ref = await worker.claim(id);
    await worker.write(ref, 'stderr', Buffer.from([0xff, 0xfe]));
    await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 7 } });
    expect(await answer).toMatchObject({
      command_id: id,
      status: 'succeeded',
      exit_code: 0,
      stdout: '',
      stdout_eof: true,
      stdout_truncated: false,
      stderr: Buffer.from([0xff, 0xfe]).toString('base64'),
      stderr_encoding: 'base64',
      next_stderr_offset: 2,
    });
  });
});
