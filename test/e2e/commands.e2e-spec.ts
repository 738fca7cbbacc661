import type { Vm } from '@longhaul/persistence';
import { eventually } from '../support/eventually.js';
import { makeUser } from '../support/database.js';
import { Stack, readToEnd, sha256, type Call } from './stack.js';

let stack: Stack;
let vm: Vm;
let v1: Call;
let v2: Call;

beforeAll(async () => {
  stack = await Stack.start();
  await stack.startWorker();
  vm = await stack.createVm();
  [v1, v2] = await Promise.all([stack.clientV1(), stack.clientV2()]);
});
afterAll(() => stack.stop());

const start = (call: Call, command: string, more: object = {}) =>
  call('start_vm_command', { vm_id: vm.id, command, ...more });
const exec = (command: string, more: object = {}) =>
  v2('exec_vm_command', { vm_id: vm.id, command, ...more });

describe.each([
  ['v1', () => v1],
  ['v2', () => v2],
])('the official %s client', (_name, client) => {
  it('gets an id at once and reads 20 MB of binary output by offset while it comes, no byte missing or twice', async () => {
    // Random bytes in pieces over 20 seconds; the guest keeps a copy of its own to compare with.
    const command = `for i in $(seq 20); do head -c 1048576 /dev/urandom; sleep 0.6; done | tee /root/copy; sha256sum /root/copy | cut -d' ' -f1 >&2`;
    const started = await start(client(), command);
    expect(started).toMatchObject({ isError: false, status: 'queued' });
    const seen = new Set<number>();
    const log = await readToEnd(client(), started.command_id as string, (bytes, status) => {
      if (status === 'running') seen.add(bytes);
    });
    expect(log.status).toBe('succeeded');
    expect(log.stdout).toHaveLength(20 * 1024 * 1024);
    expect(sha256(log.stdout)).toBe(log.stderr.toString().trim());
    expect(seen.size).toBeGreaterThan(10);
    const shown = await client()('get_vm_command_output', {
      command_id: started.command_id,
      stdout_tail_bytes: 100,
    });
    expect(shown).toMatchObject({
      exit_code: 0,
      timed_out: false,
      next_stdout_offset: log.stdout.length,
      stdout_eof: true,
    });
    expect(shown.duration_ms).toBeGreaterThan(12_000);
  });
});

describe('exec_vm_command', () => {
  it('answers exit code and both streams', async () => {
    expect(await exec('echo out; echo err >&2; exit 3')).toMatchObject({
      isError: true,
      status: 'failed',
      exit_code: 3,
      stdout: 'out\n',
      stderr: 'err\n',
      stdout_encoding: 'utf-8',
      stdout_eof: true,
      stdout_truncated: false,
      timed_out: false,
    });
  });

  it('runs where it is told, and says so when there is no such folder', async () => {
    expect(await exec('pwd', { working_directory: '/var/log' })).toMatchObject({ stdout: '/var/log\n' });
    expect(await exec('pwd', { working_directory: '/absent' })).toMatchObject({
      status: 'failed',
      error: { code: 'invalid_arguments' },
    });
  });

  it('ends a command whose time is over, with what it had said', async () => {
    expect(await exec('echo begun; sleep 1000', { timeout_seconds: 1 })).toMatchObject({
      isError: true,
      status: 'timed_out',
      timed_out: true,
      stdout: 'begun\n',
    });
  });

  it('answers the first 64 KiB of a longer output and how to go on', async () => {
    const answer = await exec('head -c 100000 /dev/zero');
    expect(answer).toMatchObject({
      status: 'succeeded',
      stdout_truncated: true,
      next_stdout_offset: 65_536,
      stdout_eof: false,
    });
  });

  it('gives bytes that are no text as base64', async () => {
    expect(await exec(String.raw`printf '\377\376'`)).toMatchObject({
      stdout: '//4=',
      stdout_encoding: 'base64',
    });
  });

  it('reports a command that a signal has killed', async () => {
    expect(await exec('kill -9 $$')).toMatchObject({ status: 'failed', exit_code: 137, signal: 9 });
  });
});

describe('cancel_vm_command', () => {
  it('kills forked, detached and stubborn children with the command', async () => {
    const { command_id: id } = await start(
      v2,
      `trap '' TERM; (trap '' TERM; sleep 7001) & setsid sleep 7002 & (setsid sh -c 'sleep 7003 & sleep 7004') & echo ready; sleep 7005`,
    );
    await eventually(
      async () => ((await v2('read_vm_command_logs', { command_id: id })).stdout as string) === 'ready\n',
      {
        withinMs: 20_000,
      },
    );
    expect(await v2('cancel_vm_command', { command_id: id })).toMatchObject({
      status: 'cancelled',
      cancel_requested: true,
    });
    expect(await exec(`ps -eo args | grep -c '[s]leep 700'`)).toMatchObject({ stdout: '0\n' });
    expect(await v2('cancel_vm_command', { command_id: id })).toMatchObject({ status: 'cancelled' });
  });

  it('leaves the real end of what has ended', async () => {
    const { command_id: id } = await exec('exit 4');
    expect(await v2('cancel_vm_command', { command_id: id })).toMatchObject({
      status: 'failed',
      exit_code: 4,
    });
  });
});

describe('a busy VM', () => {
  it('refuses a second command and names the first; another reader sees the same bytes', async () => {
    const { command_id: id } = await start(v2, 'echo once; sleep 1000');
    expect(await start(v1, 'true')).toMatchObject({
      isError: true,
      code: 'vm_command_in_progress',
      details: { job_id: id },
    });
    const [one, two] = await Promise.all(
      [v1, v2].map((client) =>
        eventually(async () => {
          const log = await client('read_vm_command_logs', { command_id: id });
          return log.stdout && log;
        }),
      ),
    );
    expect(one).toEqual(two);
    expect(await v2('wait_for_job', { job_id: id, timeout_seconds: 0 })).toMatchObject({ status: 'running' });
    expect(await v2('cancel_job', { job_id: id })).toMatchObject({ isError: false });
    expect(await v2('wait_for_job', { job_id: id })).toMatchObject({ status: 'cancelled' });
  });

  it('is no business of a stranger', async () => {
    const stranger = await stack.clientV2((await makeUser(stack.database.db)).token);
    const absent = await stranger('get_vm', { vm_id: 'ffffffff-ffff-ffff-ffff-ffffffffffff' });
    expect(await stranger('get_vm', { vm_id: vm.id })).toEqual(absent);
    expect(await stranger('exec_vm_command', { vm_id: vm.id, command: 'id' })).toEqual(absent);
  });
});

describe('a VM that is reset', () => {
  it('ends the command as unknown, and takes the next one', async () => {
    const { command_id: id } = await start(v2, 'echo begun; sleep 1000');
    await eventually(async () => (await v2('read_vm_command_logs', { command_id: id })).stdout);
    await stack.power(vm, 'reset');
    expect(await v2('wait_for_job', { job_id: id })).toMatchObject({
      status: 'unknown',
      error: { code: 'guest_rebooted' },
    });
    expect(await exec('echo alive')).toMatchObject({ status: 'succeeded', stdout: 'alive\n' });
  });
});

describe('a VM that reboots by itself', () => {
  it('gets a new epoch, ends the command as unknown, and takes the next one', async () => {
    const epoch = async () => (await stack.database.db.vm.findUniqueOrThrow({ where: { id: vm.id } })).epoch;
    const before = await epoch();
    const { command_id: id } = await start(v2, 'echo begun; reboot; sleep 1000');
    expect(await stack.ended(id as string)).toMatchObject({
      state: 'unknown',
      error: { code: 'guest_rebooted' },
    });
    expect(await exec('echo alive')).toMatchObject({ status: 'succeeded', stdout: 'alive\n' });
    expect(await epoch()).not.toBe(before);
  });
});

describe('a VM that is stopped', () => {
  it('ends the command as unknown, refuses others, and runs again when started', async () => {
    const { command_id: id } = await start(v2, 'echo begun; sleep 1000');
    await eventually(async () => (await v2('read_vm_command_logs', { command_id: id })).stdout);
    await stack.power(vm, 'stop');
    expect(await v2('wait_for_job', { job_id: id })).toMatchObject({
      status: 'unknown',
      error: { code: 'outcome_unknown' },
    });
    const mine = { where: { userId: stack.caller.userId } };
    const before = await stack.database.db.job.count(mine);
    expect(await exec('true')).toMatchObject({ isError: true, code: 'vm_state_blocked' });
    expect(await stack.database.db.job.count(mine)).toBe(before);
    await stack.power(vm, 'start');
    expect(await exec('echo alive')).toMatchObject({ stdout: 'alive\n' });
  });
});
