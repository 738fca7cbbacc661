import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newId } from '@longhaul/persistence';
import { fingerprintOf } from '../../libs/guest/ssh/target.js';
import { withQmp } from '../../libs/vm-providers/qemu/qmp.js';
import { eventually } from '../support/eventually.js';
import { namespaceSshdLacks, startNamespaceSshd, type NamespaceSshd } from '../support/namespace-sshd.js';
import { IMAGES, Stack, readToEnd, type Call } from './stack.js';

let stack: Stack;
let call: Call;

beforeAll(async () => {
  stack = await Stack.start();
  await stack.startWorker();
  call = await stack.clientV2();
});
afterAll(() => stack?.stop());

const longhaul = (...args: string[]) => stack.longhaul(...args);
const adopt = (...args: string[]) => stack.adopt(...args);

const vmNamed = (hostname: string) => stack.database.db.vm.findFirstOrThrow({ where: { hostname } });

async function runCommand(vmId: string, command: string) {
  const started = await call('start_vm_command', { vm_id: vmId, command });
  if (started.isError) throw new Error(JSON.stringify(started));
  const { stdout, status } = await readToEnd(call, started.command_id as string);
  return { text: stdout.toString().trim(), status };
}

const ssh = namespaceSshdLacks() ? describe.skip : describe;
ssh('a machine by SSH', () => {
  let sshd: NamespaceSshd;
  let key: string;
  let fingerprint: string;

  beforeAll(async () => {
    sshd = await startNamespaceSshd();
    key = join(stack.home, 'key');
    writeFileSync(key, sshd.target.privateKey, { mode: 0o600 });
    fingerprint = fingerprintOf(Buffer.from(sshd.target.hostKey.split(' ')[1]!, 'base64'));
  });
  afterAll(() => sshd?.stop());

  const address = () => `root@127.0.0.1:${sshd.target.port}`;

  it.each([
    ['no host key', [], /--host-key is missing/],
    ['another host key', ['--host-key', `SHA256:${'A'.repeat(43)}`, '--key', 'KEY'], /another host key/],
    ['a key that is not there', ['--host-key', 'PIN', '--key', '/no/such'], /no file/],
  ])('is not adopted with %s', async (_what, options, message) => {
    const given = options.map((word) => ({ KEY: key, PIN: fingerprint })[word] ?? word);
    const { code, err } = await adopt('by-ssh', '--ssh', address(), ...given);
    expect(code).toBe(1);
    expect(err).toMatch(message);
    expect(await stack.database.db.vm.count()).toBe(0);
  });

  it('is adopted, runs commands like any VM, and is forgotten without being touched', async () => {
    const options = ['--ssh', address(), '--host-key', fingerprint, '--key', key];
    const { out, err } = await adopt('by-ssh', ...options);
    expect(err).toBe('');
    expect(out).toMatch(/Reached .*Debian GNU\/Linux 12.*\nby-ssh \(.*\) is adopted/);
    const vm = await vmNamed('by-ssh');
    expect(vm).toMatchObject({ provider: 'ssh', connection: { hostKey: sshd.target.hostKey } });
    expect(vm.credential).not.toContain('PRIVATE KEY');
    expect((await adopt('again', ...options)).err).toMatch(/is VM by-ssh .* already/);

    expect(await runCommand(vm.id, 'id -un; echo "$LONGHAUL_COMMAND_ID" | wc -c')).toEqual({
      text: 'root\n37',
      status: 'succeeded',
    });
    const failed = await call('start_vm_command', { vm_id: vm.id, command: 'exit 7' });
    const ended = { state: 'failed', result: { exit_code: 7 } };
    expect(await stack.ended(failed.command_id as string)).toMatchObject(ended);
    // The worker dies meanwhile: nothing of the output is lost or repeated.
    const long = await call('start_vm_command', {
      vm_id: vm.id,
      command: 'for i in $(seq 1 40); do echo line $i; sleep 0.1; done',
    });
    const died = { worker: false };
    const { stdout } = await readToEnd(call, long.command_id as string, (bytes) => {
      if (bytes === 0 || died.worker) return;
      died.worker = true;
      void stack.killWorkers().then(() => stack.startWorker());
    });
    expect(stdout.toString()).toBe(Array.from({ length: 40 }, (_, i) => `line ${i + 1}\n`).join(''));

    await eventually(
      async () => ((await call('get_vm', { vm_id: vm.id })).power_controls_supported as []).length === 0,
      { withinMs: 60_000 },
    );
    const phrase = { confirm: true, confirmation_phrase: `STOP VM by-ssh` };
    const power = await call('power_vm', { vm_id: vm.id, action: 'stop', ...phrase });
    expect(power).toMatchObject({ isError: true });

    expect((await longhaul('vm', 'forget', 'by-ssh')).out).toMatch(/goes on as it was/);
    expect(await stack.database.db.vm.count()).toBe(0);
    await sshd.channel.session((guest) => guest.ping());
  }, 400_000);
});

describe('a VM of somebody else’s QEMU', () => {
  let directory: string;
  let qemu: ChildProcess;
  const uuid = newId();
  const [qmp, agent, owners] = ['qmp.sock', 'agent.sock', 'owners.sock'];

  const boot = () => {
    const folder = readdirSync(IMAGES)
      .map((name) => join(IMAGES, name))
      .find((path) => existsSync(join(path, 'vmlinuz')) && existsSync(join(path, 'root.qcow2')))!;
    const disk = join(directory, 'disk.qcow2');
    const create = ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', join(folder, 'root.qcow2'), disk];
    if (!existsSync(disk)) execFileSync('qemu-img', create);
    const socket = (id: string, name: string) => [
      '-chardev',
      `socket,id=${id},path=${join(directory, name)},server=on,wait=off`,
    ];
    qemu = spawn(
      'qemu-system-x86_64',
      [
        ...['-uuid', uuid, '-m', '512', '-accel', 'tcg', '-nodefaults', '-display', 'none'],
        ...['-kernel', join(folder, 'vmlinuz'), '-initrd', join(folder, 'initrd')],
        ...[
          '-append',
          'console=ttyS0 quiet net.ifnames=0',
          '-serial',
          'null',
          '-drive',
          `if=virtio,format=qcow2,file=${disk}`,
        ],
        ...['-device', 'virtio-serial-pci', ...socket('ga', agent)],
        ...['-device', 'virtserialport,chardev=ga,name=org.qemu.guest_agent.0'],
        ...['-nic', 'user,model=virtio-net-pci,restrict=on'],
        ...[...socket('monitor', qmp), '-mon', 'chardev=monitor,mode=control'],
        ...[...socket('second', owners), '-mon', 'chardev=second,mode=control', '-no-shutdown'],
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
  };

  /** What the owner of the machine does to it. */
  const tell = (command: string, args?: Record<string, unknown>) =>
    withQmp({ id: uuid, qmp: [join(directory, owners)], locks: directory }, (session) =>
      session.execute(command, args),
    );
  const isShown = (powerState: string) =>
    eventually(async () => (await vmNamed('foreign')).powerState === powerState, { withinMs: 60_000 });

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'lh-adopt-'));
    boot();
  });
  afterAll(async () => {
    if (qemu.exitCode === null && qemu.signalCode === null) {
      const ended = once(qemu, 'exit');
      qemu.kill('SIGKILL');
      await ended;
    }
    rmSync(directory, { recursive: true });
  });

  it('is adopted, runs commands, obeys while its process is there, and cannot be started by us afterwards', async () => {
    const sockets = ['--qmp', join(directory, qmp), '--agent', join(directory, agent)];
    expect((await adopt('foreign', '--qmp', '/no/such', '--agent', '/no/such')).err).toMatch(
      /does not answer on \/no\/such/,
    );
    // Until its guest has booted.
    let last = '';
    const tryIt = async () => (last = (await adopt('foreign', ...sockets)).err) === '';
    await eventually(tryIt, { withinMs: 240_000 }).catch(() => Promise.reject(new Error(last)));
    const vm = await vmNamed('foreign');
    expect(vm).toMatchObject({ provider: 'adopted-qemu', cpus: 1, powerState: 'running' });

    const bootId = 'cat /proc/sys/kernel/random/boot_id';
    const first = await runCommand(vm.id, bootId);
    expect(first.status).toBe('succeeded');

    // Its owner halts it: it is shown, it is not asked to power off in vain, and it goes on where it was.
    await tell('stop');
    await isShown('paused');
    await expect(stack.power(vm, 'shutdown')).rejects.toThrow(/vm_state_blocked.*is paused/s);
    await stack.power(vm, 'start');
    expect(await vmNamed('foreign')).toMatchObject({ powerState: 'running' });
    expect((await runCommand(vm.id, bootId)).text).toBe(first.text);

    await stack.power(vm, 'reset');
    const second = (await runCommand(vm.id, bootId)).text;
    expect(second).not.toBe(first.text);

    // QEMU keeps its process with -no-shutdown; without it, the process ends with the guest.
    await stack.power(vm, 'shutdown');
    expect(await vmNamed('foreign')).toMatchObject({ powerState: 'stopped' });
    expect(qemu.exitCode).toBeNull();
    await stack.power(vm, 'start');
    expect((await runCommand(vm.id, bootId)).text).not.toBe(second);
    await tell('set-action', { shutdown: 'poweroff' });
    const off = once(qemu, 'exit');
    await stack.power(vm, 'shutdown');
    await off;
    expect(await vmNamed('foreign')).toMatchObject({ powerState: 'stopped' });
    await expect(stack.power(vm, 'start')).rejects.toThrow(/vm_state_blocked.*start it as it was before/s);

    boot();
    await isShown('running');
    const ended = once(qemu, 'exit');
    await stack.power(vm, 'stop');
    await ended;
    expect(await vmNamed('foreign')).toMatchObject({ powerState: 'stopped' });

    expect((await longhaul('vm', 'forget', vm.id)).code).toBe(0);
  }, 900_000);
});
