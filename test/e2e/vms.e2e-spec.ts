import { once } from 'node:events';
import { newId } from '@longhaul/persistence';
import { eventually } from '../support/eventually.js';
import { endOf, isHashOf, Stack, type Call } from './stack.js';

// The life of one VM by the tools that change VMs, in the order in which they stand here.

let stack: Stack;
let call: Call;
let vmId: string;

beforeAll(async () => {
  stack = await Stack.start();
  await stack.startWorker();
  call = await stack.clientV2(stack.token, '/x/all');
});
afterAll(() => stack.stop());

const LONG = { withinMs: 300_000 };
const tool = async (name: string, args: object = {}) =>
  endOf(call, await call(name, { vm_id: vmId, ...args }));
const exec = (command: string) => call('exec_vm_command', { vm_id: vmId, command });
const stdout = async (command: string) => String((await exec(command)).stdout).trim();
const letCommandsIn = () =>
  call('set_vm_exec_enabled', { vm_id: vmId, enabled: true, confirmation: `ENABLE MCP EXEC ${vmId}` });

const rootHash = () => stdout('grep ^root: /etc/shadow | cut -d: -f2');

const PUBLIC_KEY =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody@example.test';

it('create_vm makes one, whose root password is told once', async () => {
  const args = { hostname: 'first', ssh_public_key: PUBLIC_KEY };
  const submitted = await call('create_vm', args);
  vmId = submitted.vm_id as string;
  stack.vms.push(vmId);
  const made = await endOf(call, submitted);
  expect(made).toMatchObject({ status: 'succeeded', result: { power_state: 'running' } });
  expect(made.root_password).toMatch(/^\w{24}$/);
  expect(await exec('true')).toMatchObject({ code: 'mcp_exec_disabled' });
  await letCommandsIn();
  expect(isHashOf(await rootHash(), made.root_password)).toBe(true);
  expect(await stdout('cat /root/.ssh/authorized_keys')).toBe(PUBLIC_KEY);
  expect(await call('get_job', { job_id: submitted.job_id })).not.toHaveProperty('root_password');
});

it('rename_vm renames it here and inside', async () => {
  const confirmation = `RENAME ${vmId} TO second`;
  const renamed = await call('rename_vm', { vm_id: vmId, hostname: 'second', confirmation });
  expect(renamed).toMatchObject({ status: 'succeeded', result: { hostname: 'second' } });
  expect(await call('get_vm', { vm_id: 'second' })).toMatchObject({ id: vmId, hostname: 'second' });
  expect(
    await stdout('hostname; cat /etc/hostname; grep -c first /etc/hosts; grep -c second /etc/hosts'),
  ).toBe('second\nsecond\n0\n1');
});

it('get_vm_metrics measures it from both sides', async () => {
  const { result } = (await call('get_vm_metrics', { vm_id: vmId })) as unknown as {
    result: Record<'hypervisor' | 'guest', Record<string, number>>;
  };
  expect(result.hypervisor.memory_bytes).toBe(1024 * 2 ** 20);
  expect(result.guest.memory_bytes).toBeGreaterThan(800 * 2 ** 20);
  expect(result.guest.disk_used_bytes).toBeGreaterThan(0);
  for (const name of ['cpu_percent', 'load_1_minute', 'uptime_seconds', 'network_sent_bytes'])
    expect(result.guest).toHaveProperty(name);
});

describe('power_vm', () => {
  const bootId = () => stdout('cat /proc/sys/kernel/random/boot_id');

  it('reset cuts a running command, and the guest boots anew', async () => {
    const before = await bootId();
    const { command_id } = await call('start_vm_command', { vm_id: vmId, command: 'echo begun; sleep 1000' });
    await eventually(async () => (await call('read_vm_command_logs', { command_id })).stdout, LONG);
    expect(await tool('power_vm', { action: 'reset' })).toMatchObject({ status: 'succeeded' });
    expect(await endOf(call, { job_id: command_id, isError: false })).toMatchObject({ status: 'unknown' });
    expect(await bootId()).not.toBe(before);
  });

  it('reboot goes through the guest', async () => {
    await exec('echo kept > /root/kept');
    const before = await bootId();
    expect(await tool('power_vm', { action: 'reboot' })).toMatchObject({
      status: 'succeeded',
      result: { power_state: 'running', powered_off: true },
    });
    expect(await bootId()).not.toBe(before);
    expect(await stdout('cat /root/kept')).toBe('kept');
  });

  it('shutdown tells of a guest that does not power off, and leaves it running', async () => {
    // What waits for the power button.
    await exec("kill -STOP $(pgrep -f '[d]d if=/dev/input')");
    expect(await tool('power_vm', { action: 'shutdown', timeout_seconds: 2 })).toMatchObject({
      status: 'timed_out',
      result: { power_state: 'running', powered_off: false, message: expect.stringContaining('runs on') },
    });
    expect(await exec("kill -CONT $(pgrep -f '[d]d if=/dev/input')")).toMatchObject({ status: 'succeeded' });
    // The button that was pressed counts once it is looked at.
    await eventually(async () => (await call('get_vm', { vm_id: vmId })).power_state === 'stopped', LONG);
  });

  it('start, shutdown and stop', async () => {
    expect(await tool('power_vm', { action: 'start' })).toMatchObject({ status: 'succeeded' });
    expect(await tool('power_vm', { action: 'shutdown' })).toMatchObject({
      status: 'succeeded',
      result: { power_state: 'stopped', powered_off: true },
    });
    await tool('power_vm', { action: 'start' });
    expect(await tool('power_vm', { action: 'stop' })).toMatchObject({ result: { power_state: 'stopped' } });
  });
});

describe('resize_vm', () => {
  it('changes CPUs and memory while the VM is off', async () => {
    const size = { cpus: 2, memory_mb: 768 };
    expect(await tool('resize_vm', size)).toMatchObject({ status: 'succeeded', result: size });
    await tool('power_vm', { action: 'start' });
    expect(await stdout('nproc')).toBe('2');
    expect(await call('resize_vm', { vm_id: vmId, cpus: 1 })).toMatchObject({ code: 'vm_state_blocked' });
  });

  it('grows the disk online, with the file system', async () => {
    const size = async () => Number(await stdout("df -Pk / | awk 'END { print $2 }'"));
    const before = await size();
    expect(await tool('resize_vm', { disk_gb: 12 })).toMatchObject({
      status: 'succeeded',
      result: { disk_gb: 12, file_system: 'grown' },
    });
    expect((await size()) - before).toBeGreaterThan(1.5 * 2 ** 20);
    expect(await call('resize_vm', { vm_id: vmId, disk_gb: 11 })).toMatchObject({
      code: 'invalid_arguments',
    });
  });
});

describe('reinstall_vm', () => {
  const reinstall = (image: string, more: object = {}) =>
    call('reinstall_vm', {
      vm_id: vmId,
      image,
      confirmation: `REINSTALL ${vmId} TO TEMPLATE ${image}`,
      ...more,
    });

  it('is refused while a command runs, and leaves the VM as it is', async () => {
    const { command_id } = await call('start_vm_command', { vm_id: vmId, command: 'sleep 1000' });
    expect(await reinstall('busybox')).toMatchObject({
      code: 'vm_command_in_progress',
      details: { job_id: command_id },
    });
    expect(await call('cancel_vm_command', { command_id })).toMatchObject({ status: 'cancelled' });
    expect(await stdout('cat /root/kept')).toBe('kept');
  });

  it.each([
    ['reinstalled', 'busybox', 'BusyBox'],
    ['password-set', 'default', 'Debian'],
  ])(
    'a worker killed at %s: installs %s once, and the password that is told is right',
    async (point, image, name) => {
      await stack.killWorkers();
      const worker = await stack.startWorker(`${point}:SIGKILL`);
      const exit = once(worker, 'exit');
      const submitted = await reinstall(image, { ssh_public_key: PUBLIC_KEY });
      await exit;
      await stack.startWorker();
      const done = await endOf(call, submitted);
      expect(done).toMatchObject({ status: 'succeeded', attempt: 2, result: { image } });
      expect(await exec('true')).toMatchObject({ code: 'mcp_exec_disabled' });
      expect(await call('get_vm', { vm_id: vmId })).toMatchObject({ image, hostname: 'second' });
      await letCommandsIn();
      expect(isHashOf(await rootHash(), done.root_password)).toBe(true);
      expect(await stdout('hostname; ls /root; cat /root/.ssh/authorized_keys')).toBe(
        `second\n${PUBLIC_KEY}`,
      );
      expect(await stdout('grep ^NAME= /etc/os-release')).toContain(name);
    },
  );
});

it('delete_vm removes VM, row and artifacts', async () => {
  const expiresAt = new Date(Date.now() + 3_600_000);
  const { db } = stack.database;
  const { projectId } = await db.vm.findUniqueOrThrow({ where: { id: vmId } });
  const sha256 = Buffer.alloc(32);
  const of = { projectId, vmId, userId: stack.caller.userId };
  const what = { filename: 'a', purpose: 'config' as const, sizeBytes: 1, sha256 };
  await db.artifact.create({ data: { id: newId(), ...of, ...what, uploadUntil: expiresAt, expiresAt } });
  const deleted = await tool('delete_vm', { confirmation: `DELETE ${vmId}` });
  expect(deleted).toMatchObject({ status: 'succeeded', vm_id: vmId, result: { deleted: true } });
  expect(await call('get_vm', { vm_id: vmId })).toMatchObject({ code: 'vm_not_found' });
  expect(await stack.provider.observe(vmId)).toEqual({ power: 'absent' });
  expect(await db.artifact.count({ where: { vmId, expiresAt: { gt: new Date() } } })).toBe(0);
});
