import { once } from 'node:events';
import type { Vm } from '@longhaul/persistence';
import { eventually } from '../support/eventually.js';
import { LEASE_SECONDS, Stack, readToEnd, sha256, type Call } from './stack.js';

// One VM with room for several commands; each test kills the only worker somewhere and starts another one.
let stack: Stack;
let vm: Vm;
let call: Call;
let serial = 0;

beforeAll(async () => {
  stack = await Stack.start({ redis: true });
  const worker = await stack.startWorker();
  vm = await stack.createVm({ commandSlots: 4 });
  call = await stack.clientV2();
  await killed(worker, 'SIGTERM');
});
// A test leaves its workers behind: what it wanted of them is over.
afterEach(() => stack.killWorkers());
afterAll(() => stack.stop());

async function killed(worker: Awaited<ReturnType<Stack['startWorker']>>, signal: NodeJS.Signals = 'SIGKILL') {
  const exit = once(worker, 'exit');
  worker.kill(signal);
  await exit;
}

/** Counts its runs in the guest, then prints for some seconds in pieces, and ends with exit code 7. */
async function startCounted(pieces: number): Promise<{ id: string; counter: string }> {
  const counter = `/root/count-${++serial}`;
  const command = `echo run >> ${counter}; for i in $(seq ${pieces}); do head -c 50000 /dev/urandom | tee -a ${counter}.out; sleep 0.3; done; sha256sum ${counter}.out | cut -d' ' -f1 >&2; exit 7`;
  const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command });
  return { id: id as string, counter };
}

async function expectOneRun({ id, counter }: { id: string; counter: string }, pieces: number) {
  const log = await readToEnd(call, id);
  const job = await stack.job(id);
  expect(job).toMatchObject({ state: 'failed', result: { exit_code: 7 } });
  expect(log.stdout).toHaveLength(pieces * 50_000);
  expect(sha256(log.stdout)).toBe(log.stderr.toString().trim());
  expect(await call('exec_vm_command', { vm_id: vm.id, command: `wc -l < ${counter}` })).toMatchObject({
    stdout: '1\n',
  });
  return job;
}

describe('a worker killed', () => {
  it.each(['before-dispatch', 'dispatched', 'appended', 'before-finish'])(
    'at %s: the command runs once, its log is whole, its exit code right',
    async (point) => {
      const worker = await stack.startWorker(`${point}:SIGKILL`);
      const exit = once(worker, 'exit');
      const command = await startCounted(5);
      await exit;
      await stack.startWorker();
      expect(await expectOneRun(command, 5)).toMatchObject({ attempt: 2 });
    },
  );

  it('three times while it tails one command', async () => {
    const command = await startCounted(60);
    for (let kill = 1; kill <= 3; kill++) {
      const worker = await stack.startWorker();
      const size = async () =>
        Number((await call('get_vm_command_output', { command_id: command.id })).next_stdout_offset);
      await eventually(async () => (await stack.job(command.id)).attempt === kill, { withinMs: 30_000 });
      const before = await size();
      await eventually(async () => (await size()) > before, { withinMs: 30_000 });
      await killed(worker);
    }
    await stack.startWorker();
    expect(await expectOneRun(command, 60)).toMatchObject({ attempt: 4 });
  });

  it('and its VM reset before the next one comes: unknown, not run again', async () => {
    const worker = await stack.startWorker('dispatched:SIGKILL');
    const exit = once(worker, 'exit');
    const command = await startCounted(5);
    await exit;
    await stack.provider.reset(vm.id);
    await stack.startWorker();
    expect(await stack.ended(command.id)).toMatchObject({
      state: 'unknown',
      error: { code: 'guest_rebooted' },
    });
    const count = `cat ${command.counter} | wc -l`;
    const { stdout } = await call('exec_vm_command', { vm_id: vm.id, command: count });
    expect(Number(stdout)).toBeLessThanOrEqual(1);
  });
});

it('a worker stopped for longer than its lease takes nothing over and writes nothing once it goes on', async () => {
  const stopped = await stack.startWorker('appended:SIGSTOP');
  const command = await startCounted(20);
  await eventually(
    async () => (await call('read_vm_command_logs', { command_id: command.id })).next_stdout_offset,
    {
      withinMs: 30_000,
    },
  );
  await stack.startWorker();
  await eventually(async () => (await stack.job(command.id)).attempt === 2, {
    withinMs: LEASE_SECONDS * 5_000,
  });
  stopped.kill('SIGCONT');
  expect(await expectOneRun(command, 20)).toMatchObject({ attempt: 2 });
});

it('a worker stopped in the middle of a session with the guest is cut off, so that another one can go on', async () => {
  const stopped = await stack.startWorker('dispatched:SIGSTOP');
  const command = await startCounted(5);
  await eventually(async () => (await stack.job(command.id)).attempt === 1, { withinMs: 30_000 });
  await stack.startWorker();
  expect(await expectOneRun(command, 5)).toMatchObject({ attempt: 2 });
  stopped.kill('SIGCONT');
});

it('a worker told to end hands its commands over at once', async () => {
  const first = await stack.startWorker();
  const command = await startCounted(20);
  await eventually(
    async () => (await call('read_vm_command_logs', { command_id: command.id })).next_stdout_offset,
  );
  await stack.startWorker();
  await killed(first, 'SIGTERM');
  expect(await expectOneRun(command, 20)).toMatchObject({ attempt: 2 });
});

it('the API killed: a waiting client asks again and misses nothing', async () => {
  await stack.startWorker();
  const command = await startCounted(10);
  const api = [...stack.processes].find((child) => child.spawnargs.some((arg) => arg.includes('/api/')))!;
  await killed(api);
  await stack.startApi();
  call = await stack.clientV2();
  expect(await expectOneRun(command, 10)).toMatchObject({ attempt: 1 });
});
