import type { Caller } from '@longhaul/access';
import { newId, type AuditEvent, type Vm } from '@longhaul/persistence';
import { makeUser, makeVm } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { call, connect, mcpUrl, refusal, testApi, type McpClient } from '../../test/support/mcp.js';

const { test, api } = testApi();
let caller: Caller;
let client: McpClient;
let vm: Vm;

beforeEach(async () => {
  const user = await makeUser(test.db);
  caller = user.caller;
  client = await connect(mcpUrl(api.port), user.token);
  vm = await makeVm(test.db, caller);
});
afterEach(() => client.close());

const start = (more: object) =>
  refusal(client, 'start_vm_command', { vm_id: vm.id, command: 'true', ...more });
const jobCount = () => test.db.job.count({ where: { userId: caller.userId } });
const lastCall = (): Promise<AuditEvent> =>
  test.db.auditEvent.findFirstOrThrow({
    where: { userId: caller.userId, event: 'call' },
    orderBy: { id: 'desc' },
  });

describe('arguments', () => {
  const refused: [string, object, RegExp][] = [
    ['unknown', { commmand: 'x' }, /commmand.*takes vm_id, command/],
    ['of the wrong type', { timeout_seconds: '60' }, /timeout_seconds: .*number/],
    ['below their bounds', { timeout_seconds: 59 }, /timeout_seconds: .*>=60/],
    ['above their bounds', { timeout_seconds: 7201 }, /timeout_seconds: .*<=7200/],
    ['that are no whole number', { timeout_seconds: 60.5 }, /timeout_seconds: .*int/],
    ['missing', { command: undefined }, /command: missing/],
    ['empty', { command: '' }, /command: /],
    ['of 1 MB', { command: 'x'.repeat(1_000_000) }, /command: .*65536/],
    ['too long in bytes only', { command: 'ü'.repeat(40_000) }, /command: .*65536 bytes/],
    ['with NUL', { command: 'echo \0' }, /command: .*NUL/],
    ['with half a surrogate pair', { command: 'echo \ud83d' }, /command: .*Unicode/],
    ['with NUL where something is looked up', { vm_id: 'a\0b' }, /vm_id: .*NUL/],
    ['that are a relative path', { working_directory: 'tmp' }, /working_directory: .*absolute/],
    ['that are no printable key', { idempotency_key: 'a\nb' }, /idempotency_key: .*ASCII/],
  ];

  it.each(refused)('%s are refused, named, and leave nothing behind', async (_what, more, message) => {
    const error = await start(more);
    expect(error).toMatchObject({ code: 'invalid_arguments', retryable: false });
    expect(error.message).toMatch(message);
    expect(await jobCount()).toBe(0);
    expect(await lastCall()).toMatchObject({
      tool: 'start_vm_command',
      result: 'refused',
      code: error.code,
      jobId: null,
    });
  });
});

describe('gates', () => {
  it('a tool that does not exist is a protocol error, and audited', async () => {
    await expect(client.callRaw('rm_rf', { a: 1 })).rejects.toMatchObject({ code: -32602 });
    expect(await lastCall()).toMatchObject({ tool: 'rm_rf', code: 'unknown_tool', result: 'refused' });
  });

  it("someone else's VM answers like one that does not exist, byte for byte", async () => {
    const { caller: other } = await makeUser(test.db);
    const theirs = await makeVm(test.db, other, { powerState: 'stopped', execEnabled: false });
    const tools = ['get_vm', 'start_vm_command', 'exec_vm_command', 'list_jobs'];
    for (const tool of tools) {
      const args = tool.endsWith('command') ? { command: 'id' } : {};
      const absent = await client.callRaw(tool, { ...args, vm_id: newId() });
      for (const vm_id of [theirs.id, theirs.hostname, theirs.id.slice(0, 12)]) {
        expect(JSON.stringify(await client.callRaw(tool, { ...args, vm_id }))).toBe(JSON.stringify(absent));
      }
    }
    expect(await refusal(client, 'get_vm', { vm_id: theirs.id })).toMatchObject({ code: 'vm_not_found' });
    expect(await lastCall()).toMatchObject({ vmId: null, code: 'vm_not_found' });
  });

  it('an ambiguous prefix names the matches', async () => {
    const twins = [
      await makeVm(test.db, caller, { hostname: 'web-1' }),
      await makeVm(test.db, caller, { hostname: 'web-2' }),
    ];
    const error = await refusal(client, 'get_vm', { vm_id: 'web' });
    expect(error).toMatchObject({
      code: 'vm_ambiguous',
      details: { matches: twins.map(({ id, hostname }) => ({ id, hostname })) },
    });
  });

  it('a stopped VM takes no command', async () => {
    await test.db.vm.update({ where: { id: vm.id }, data: { powerState: 'stopped' } });
    expect(await start({})).toMatchObject({
      code: 'vm_state_blocked',
      retryable: true,
      details: { power_state: 'stopped' },
    });
    expect(await jobCount()).toBe(0);
    expect(await lastCall()).toMatchObject({
      vmId: vm.id,
      projectId: vm.projectId,
      code: 'vm_state_blocked',
    });
  });

  it('a VM whose owner has not switched commands on takes none', async () => {
    await test.db.vm.update({ where: { id: vm.id }, data: { execEnabled: false } });
    expect(await start({})).toMatchObject({ code: 'mcp_exec_disabled' });
    expect(await jobCount()).toBe(0);
  });

  it('a token sees and may call only what its scopes allow', async () => {
    const reader = await makeUser(test.db, ['vms:read']);
    const readers = await connect(mcpUrl(api.port), reader.token);
    const names = (await readers.tools()).map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['whoami', 'list_vms', 'get_job']));
    expect(names).not.toContain('start_vm_command');
    expect(await refusal(readers, 'start_vm_command', {})).toMatchObject({
      code: 'forbidden_scope',
      details: { required_scope: 'vms:exec' },
    });
    await readers.close();
  });
});

describe('a busy VM', () => {
  it('answers the job that holds it, and takes the next command once that is gone', async () => {
    const { command_id } = await call(client, 'start_vm_command', { vm_id: vm.id, command: 'sleep 60' });
    expect(await start({})).toMatchObject({
      code: 'vm_command_in_progress',
      details: { job_id: command_id },
    });
    expect(await jobCount()).toBe(1);
    await call(client, 'cancel_vm_command', { command_id });
    await call(client, 'start_vm_command', { vm_id: vm.id, command: 'true' });
  });

  it('answers the same job to the same key, and refuses the key with other arguments', async () => {
    const args = { vm_id: vm.id, command: 'true', idempotency_key: 'deploy 42' };
    const { command_id } = await call(client, 'start_vm_command', args);
    expect(await call(client, 'start_vm_command', args)).toMatchObject({ command_id });
    expect(await start({ ...args, command: 'false' })).toMatchObject({
      code: 'idempotency_key_reused',
      details: { job_id: command_id },
    });
    expect(await jobCount()).toBe(1);
  });
});

describe('jobs and their logs', () => {
  it('that are unknown, foreign or no id at all answer the same', async () => {
    const { caller: other, token } = await makeUser(test.db);
    const theirVm = await makeVm(test.db, other);
    const theirs = await connect(mcpUrl(api.port), token);
    const { command_id } = await call(theirs, 'start_vm_command', { vm_id: theirVm.id, command: 'true' });
    await theirs.close();
    for (const tool of ['get_job', 'wait_for_job', 'cancel_job']) {
      const absent = await client.callRaw(tool, { job_id: newId() });
      for (const job_id of [command_id, 'x', "' OR 1=1"]) {
        expect(await client.callRaw(tool, { job_id })).toEqual(absent);
      }
    }
    const error = { code: 'job_not_found' };
    expect(await refusal(client, 'read_vm_command_logs', { command_id })).toMatchObject(error);
    expect(await refusal(client, 'cancel_vm_command', { command_id })).toMatchObject(error);
    expect(await refusal(client, 'list_jobs', { cursor: command_id })).toMatchObject(error);
    expect(await test.db.job.findUnique({ where: { id: command_id as string } })).toMatchObject({
      state: 'queued',
      cancelRequestedAt: null,
    });
  });

  it('of a kind whose scope the token lacks stay closed', async () => {
    const { command_id: job_id } = await call(client, 'start_vm_command', { vm_id: vm.id, command: 'true' });
    await test.db.token.updateMany({ where: { userId: caller.userId }, data: { scopes: ['vms:read'] } });
    for (const tool of ['get_job', 'wait_for_job', 'cancel_job']) {
      expect(await refusal(client, tool, { job_id })).toMatchObject({ code: 'forbidden_scope' });
    }
    expect(await refusal(client, 'read_job_logs', { job_id, stream: 'stdout' })).toMatchObject({
      code: 'forbidden_scope',
    });
    expect(await call(client, 'list_jobs')).toEqual({ jobs: [] });
  });

  it('refuse an offset beyond the end and say where the end is', async () => {
    const { command_id } = await call(client, 'start_vm_command', { vm_id: vm.id, command: 'echo hi' });
    const worker = new HandWorker(test);
    const ref = await worker.claim(command_id as string);
    await worker.write(ref, 'stdout', Buffer.from('hi\n'));
    const read = (more: object) => refusal(client, 'read_vm_command_logs', { command_id, ...more });
    expect(await read({ stdout_offset: 4 })).toMatchObject({
      code: 'invalid_arguments',
      details: { argument: 'stdout_offset', size: 3 },
    });
    expect(await read({ stderr_offset: 1 })).toMatchObject({
      details: { argument: 'stderr_offset', size: 0 },
    });
    expect(await read({ stdout_offset: -1 })).toMatchObject({ code: 'invalid_arguments' });
    expect(await read({ max_bytes: 65_537 })).toMatchObject({ code: 'invalid_arguments' });
    const atEnd = await call(client, 'read_vm_command_logs', { command_id, stdout_offset: 3 });
    expect(atEnd).toMatchObject({ stdout: '', next_stdout_offset: 3, stdout_eof: false });
  });
});

it('a call that cannot be audited is not answered', async () => {
  await test.db
    .$executeRaw`ALTER TABLE audit_events ADD CONSTRAINT closed CHECK (tool <> 'whoami') NOT VALID`;
  try {
    expect(await refusal(client, 'whoami')).toMatchObject({ code: 'unavailable', retryable: true });
    await call(client, 'list_vms');
  } finally {
    await test.db.$executeRaw`ALTER TABLE audit_events DROP CONSTRAINT closed`;
  }
});

it('audits who called what with which arguments from where', async () => {
  const { command_id } = await call(client, 'start_vm_command', {
    vm_id: vm.hostname,
    command: 'echo lh_abcdefgh12345678',
  });
  expect(await lastCall()).toMatchObject({
    tool: 'start_vm_command',
    result: 'ok',
    code: null,
    userId: caller.userId,
    tokenId: caller.tokenId,
    projectId: vm.projectId,
    vmId: vm.id,
    jobId: command_id,
    arguments: { vm_id: vm.hostname, command: 'echo lh_abcdefgh[redacted]' },
    clientName: 'newer',
    clientVersion: '4.5.6',
    ip: '127.0.0.1',
    userAgent: expect.any(String),
  });
  const events = await eventually(() =>
    test.db.auditEvent.findMany({ where: { jobId: command_id as string } }),
  );
  expect(new Set(events.map(({ requestId }) => requestId)).size).toBe(1);
});
