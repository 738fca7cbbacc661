import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Recovery } from '@longhaul/jobs';
import { eventually } from '../support/eventually.js';
import { Stack, sha256, type Answer, type Call } from './stack.js';

// The life of one VM in the order in which it stands here. Of each job every worker but the last one is killed at some point.

const LONG = { withinMs: 240_000, everyMs: 100 };

let stack: Stack;
let call: Call;
let vmId: string;

beforeAll(async () => {
  stack = await Stack.start();
  call = await stack.clientV2(stack.token, '/x/all');
});
afterEach(() => stack.killWorkers());
afterAll(() => stack?.stop());

/** Ends the job that `submit` makes with one worker killed at each of `points` and a last one; `between` comes before that one. */
async function through(
  points: string[],
  submit: () => Promise<Answer>,
  {
    afterFirst,
    beforeLast,
  }: { afterFirst?: (id: string) => Promise<void>; beforeLast?: () => Promise<void> } = {},
): Promise<Answer> {
  await stack.killWorkers();
  let id = '';
  for (const point of points) {
    const worker = await stack.startWorker(`${point}:SIGKILL`);
    const exit = once(worker, 'exit');
    if (!id) await Promise.race([exit, submitted(submit, exit)]);
    await exit;
    const mine = { where: { userId: stack.caller.userId }, orderBy: { createdAt: 'desc' } } as const;
    id ||= (await stack.database.db.job.findFirstOrThrow(mine)).id;
    if (point === points.at(-1) && beforeLast) {
      await stack.startWorker();
      await beforeLast();
    }
    // As if the dead worker's lease had run out.
    await stack.database.db.job.update({ where: { id }, data: { leaseUntil: new Date(0) } });
    if (point === points[0]) await afterFirst?.(id);
  }
  if (!beforeLast) await stack.startWorker();
  const end = await eventually(async () => {
    const job = await call('wait_for_job', { job_id: id, timeout_seconds: 20 });
    return job.status !== 'queued' && job.status !== 'running' && job;
  }, LONG);
  expect(end).toMatchObject({ attempt: points.length + 1 });
  return end;
}

/** Some tools wait for the end of their job: theirs is an answer at once only when they refuse. */
async function submitted(submit: () => Promise<Answer>, exit: Promise<unknown>): Promise<unknown> {
  const answer = await submit();
  if (answer.code) throw new Error(JSON.stringify(answer));
  return exit;
}

const stdout = async (command: string) =>
  String((await call('exec_vm_command', { vm_id: vmId, command })).stdout).trim();
const letCommandsIn = () =>
  call('set_vm_exec_enabled', { vm_id: vmId, enabled: true, confirmation: `ENABLE MCP EXEC ${vmId}` });
const power = (action: string) => () => call('power_vm', { vm_id: vmId, action });
const boots = async () => Number(await stdout('wc -l </root/boots'));
const filesOfVm = () => readdirSync(join(stack.home, 'vms', vmId));
const vmsOnDisk = () => readdirSync(join(stack.home, 'vms'));

it('create_vm makes one VM, and leaves nothing half-made', async () => {
  const made = await through(['creating', 'disk-made', 'created'], async () => {
    const answer = await call('create_vm', { hostname: 'first' });
    stack.vms.push((vmId = answer.vm_id as string));
    return answer;
  });
  expect(made).toMatchObject({ status: 'succeeded', result: { power_state: 'running' } });
  expect(made.root_password).toMatch(/^\w{24}$/);
  expect(vmsOnDisk()).toEqual([vmId]);
  // A command may run beside what the tests ask.
  await stack.database.db.vm.update({ where: { id: vmId }, data: { commandSlots: 2 } });
  await letCommandsIn();
  // Counts its boots from now on.
  await stdout("sed -i '/remount,rw/a echo boot >>/root/boots' /etc/longhaul/boot; touch /root/boots; sync");
});

it('rename_vm gives one name everywhere, even when it is cancelled in between', async () => {
  const confirmation = `RENAME ${vmId} TO second`;
  const renamed = await through(
    ['named', 'renamed'],
    () => call('rename_vm', { vm_id: vmId, hostname: 'second', confirmation }),
    {
      async afterFirst(id) {
        await new Recovery(stack.database.db, stack.jobs).sweep();
        expect(await call('cancel_job', { job_id: id })).toMatchObject({ status: 'queued' });
      },
    },
  );
  expect(renamed).toMatchObject({ status: 'succeeded', result: { hostname: 'second' } });
  expect(await call('get_vm', { vm_id: vmId })).toMatchObject({ hostname: 'second' });
  expect(await stdout('hostname; cat /etc/hostname')).toBe('second\nsecond');
});

it('install_artifact installs the file whole, and leaves nothing else', async () => {
  const bytes = randomBytes(300_000);
  const artifact = await stack.upload(call, vmId, bytes);
  const args = { vm_id: vmId, artifact_id: artifact, destination_path: '/srv/app/file' };
  const end = await through(['installing', 'installed'], () => call('install_artifact', args));
  expect(end).toMatchObject({ status: 'succeeded', result: { changed: true } });
  expect(await stdout('sha256sum </srv/app/file; ls -A /srv/app')).toBe(`${sha256(bytes)}  -\nfile`);
  expect(await stdout('ls -A /run/longhaul/files /var/lib/longhaul/files | grep -v :')).toBe('');
});

describe('power_vm', () => {
  it('reset cuts a guest once, also one that has just booted by itself: what runs then survives', async () => {
    await stack.startWorker();
    // What every boot does.
    await stdout('rm /run/longhaul/epoch');
    await stack.killWorkers();
    let command = '';
    const end = await through(['powering', 'reset', 'powered'], power('reset'), {
      async beforeLast() {
        const wait = 'echo begun; until [ -e /run/go ]; do sleep 0.2; done; exit 7';
        ({ command_id: command } = (await call('start_vm_command', { vm_id: vmId, command: wait })) as never);
        const output = () => call('get_vm_command_output', { command_id: command });
        await eventually(async () => (await output()).stdout === 'begun\n', LONG);
      },
    });
    expect(end).toMatchObject({ status: 'succeeded', result: { power_state: 'running' } });
    expect(await boots()).toBe(1);
    await stdout('touch /run/go');
    expect(await stack.ended(command)).toMatchObject({ state: 'failed', result: { exit_code: 7 } });
  });

  it('reboot asks a guest once', async () => {
    const end = await through(['powering', 'let-run'], power('reboot'));
    expect(end).toMatchObject({
      status: 'succeeded',
      result: { power_state: 'running', powered_off: true },
    });
    expect(await boots()).toBe(2);
  });
});

it('reinstall_vm leaves one disk, an empty one', async () => {
  const confirmation = `REINSTALL ${vmId} TO TEMPLATE default`;
  const end = await through(['reinstalling', 'disk-made'], () =>
    call('reinstall_vm', { vm_id: vmId, image: 'default', confirmation }),
  );
  expect(end).toMatchObject({ status: 'succeeded', result: { power_state: 'running' } });
  expect(filesOfVm().filter((name) => name.startsWith('disk'))).toHaveLength(1);
  expect(await call('exec_vm_command', { vm_id: vmId, command: 'true' })).toMatchObject({
    code: 'mcp_exec_disabled',
  });
  await letCommandsIn();
  expect(await stdout('hostname; ls /root')).toBe('second');
});

it('shutdown, resize_vm and start do what they say', async () => {
  expect(await through(['powered'], power('shutdown'))).toMatchObject({
    status: 'succeeded',
    result: { power_state: 'stopped', powered_off: true },
  });
  const size = { memory_mb: 768, disk_gb: 11 };
  const resized = await through(['sized', 'resized'], () => call('resize_vm', { vm_id: vmId, ...size }));
  expect(resized).toMatchObject({ status: 'succeeded', result: { ...size, file_system: 'to_be_grown' } });
  expect(await call('get_vm', { vm_id: vmId })).toMatchObject({ plan: '1 vCPU, 768 MB, 11 GB' });
  expect(await through(['powering', 'let-run'], power('start'))).toMatchObject({
    status: 'succeeded',
    result: { power_state: 'running' },
  });
  expect(Number(await stdout("awk '/MemTotal/ { print $2 }' /proc/meminfo"))).toBeLessThan(768 * 1024);
  expect(await stdout('cat /sys/class/block/vda/size')).toBe(String(11 * 2 ** 21));
});

it('delete_vm leaves nothing', async () => {
  // The sockets and files of a VM that runs, and of nothing that was cut off. Where it has reached the API, there is more.
  const files = filesOfVm().filter((name) => !name.startsWith('gateway-'));
  expect(files.sort()).toEqual([
    ...['agent-0.sock', 'agent.sock', expect.stringMatching(/^disk-\w+\.qcow2$/), 'process.lock'],
    ...['qmp-0.sock', 'qmp-1.sock', 'running', 'vm.json'],
  ]);
  const deleted = await through(['deleting', 'moved-away', 'deleted'], () =>
    call('delete_vm', { vm_id: vmId, confirmation: `DELETE ${vmId}` }),
  );
  expect(deleted).toMatchObject({ status: 'succeeded', result: { deleted: true } });
  expect(await call('get_vm', { vm_id: vmId })).toMatchObject({ code: 'vm_not_found' });
  expect(vmsOnDisk()).toEqual([]);
  expect(readdirSync(join(stack.home, 'locks'))).toEqual([]);
  expect(spawnSync('pgrep', ['-f', `uuid ${vmId}`]).status).toBe(1);
});
