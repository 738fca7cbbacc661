import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../libs/vm-providers/qemu/programs.js';
import { endOf, IMAGES, isHashOf, Stack, type Answer, type Call } from './stack.js';
import { makeSshKey } from '../support/ssh-key.js';

// One VM of a cloud image, by the tools: Debian's own cloud-init, GRUB and systemd. Run by hand, `npm run test:cloud-image`.

/** A boot under emulation takes minutes while the machine is busy. */
const BOOT_MS = 900_000;
const folder = mkdtempSync(join(tmpdir(), 'lh-'));
const mirror = createServer((_request, response) => void createReadStream(built).pipe(response));
const built = join(IMAGES, 'test-cloud-image.qcow2');
const { private: privateKey, public: publicKey } = makeSshKey();

let stack: Stack;
let call: Call;
let vmId: string;
let made: Answer;

const stdout = async (command: string) =>
  String((await call('exec_vm_command', { vm_id: vmId, command, timeout_seconds: 60 })).stdout).trim();
const tool = async (name: string, args: object) =>
  endOf(call, await call(name, { vm_id: vmId, ...args }), BOOT_MS);
const letCommandsIn = () =>
  call('set_vm_exec_enabled', { vm_id: vmId, enabled: true, confirmation: `ENABLE MCP EXEC ${vmId}` });
const reinstall = (image: string, more: object = {}) =>
  tool('reinstall_vm', { image, confirmation: `REINSTALL ${vmId} TO TEMPLATE ${image}`, ...more });

beforeAll(async () => {
  await run([join(import.meta.dirname, '../support/cloud-image.sh'), built], BOOT_MS);
  await new Promise<void>((resolve) => mirror.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(mirror.address() as AddressInfo).port}/cloud.qcow2`;
  const sha512 = createHash('sha512')
    .update(await readFile(built))
    .digest('hex');
  const silent = join(folder, 'silent.raw');
  writeFileSync(silent, '');
  truncateSync(silent, 1 << 20);
  const entry = { title: 'Cloud image', description: 'Of this test.', disk_gb: 3 };
  const images = [
    { ...entry, name: 'cloud', source: { url, sha512 } },
    { ...entry, name: 'silent', source: { path: silent } },
  ];
  const imageCatalog = join(folder, 'catalog.yaml');
  writeFileSync(imageCatalog, JSON.stringify({ images }));
  stack = await Stack.start({ env: { IMAGE_CATALOG: imageCatalog } });
  await stack.startWorker();
  call = await stack.clientV2(stack.token, '/x/all');
}, BOOT_MS);

afterAll(async () => {
  await stack?.stop();
  mirror.close();
  rmSync(folder, { recursive: true, force: true });
});

it(
  'create_vm makes one: fetched, booted, and set up by cloud-init with name, agent, key and password',
  async () => {
    const size = { cpus: 2, memory_mb: 1024, disk_gb: 5 };
    const submitted = await call('create_vm', {
      hostname: 'first',
      image: 'cloud',
      ssh_public_key: publicKey,
      ...size,
    });
    vmId = submitted.vm_id as string;
    stack.vms.push(vmId);
    made = await endOf(call, submitted, BOOT_MS);
    expect(made).toMatchObject({ status: 'succeeded', result: { power_state: 'running' } });
    await letCommandsIn();
    expect(await stdout('hostname; cat /etc/hostname; getent hosts first | grep -c first')).toBe(
      'first\nfirst\n1',
    );
    expect(isHashOf(await stdout('grep ^root: /etc/shadow | cut -d: -f2'), made.root_password)).toBe(true);
    const { epoch } = await stack.database.db.vm.findUniqueOrThrow({ where: { id: vmId } });
    expect(await stdout('cat /run/longhaul/epoch')).toBe(epoch);
  },
  BOOT_MS,
);

it('cloud-init ended without an error, after it gave the root file system all of the disk', async () => {
  expect(
    JSON.parse(await stdout('cloud-init status --wait >&2; cat /run/cloud-init/result.json')),
  ).toMatchObject({
    v1: { datasource: expect.stringMatching(/NoCloud.*vdb/), errors: [] },
  });
  expect(Number(await stdout("df -BM / | awk 'END { print $2 + 0 }'"))).toBeGreaterThan(4500);
  expect(await stdout('systemctl --failed --no-legend')).toBe('');
});

it('sshd lets the owner of the key in as root, and nobody by a password', async () => {
  const encoded = Buffer.from(privateKey).toString('base64');
  const key = `umask 077; echo ${encoded} | base64 -d >/run/key`;
  const options = '-i /run/key -o BatchMode=yes -o StrictHostKeyChecking=no';
  expect(await stdout(`${key}; ssh ${options} root@127.0.0.1 id -un; rm /run/key`)).toBe('root');
  expect(await stdout('sshd -T | grep ^passwordauthentication')).toBe('passwordauthentication no');
});

it('a command outlives the agent that started it', async () => {
  const begun = await call('start_vm_command', {
    vm_id: vmId,
    command: 'systemctl restart longhaul-agent; sleep 5; echo done',
  });
  const ended = await endOf(call, { job_id: begun.command_id, isError: false });
  expect(ended).toMatchObject({ status: 'succeeded' });
});

it(
  'a name that it was given stays after a reboot, in /etc/hosts too',
  async () => {
    await call('rename_vm', { vm_id: vmId, hostname: 'second', confirmation: `RENAME ${vmId} TO second` });
    expect(await tool('power_vm', { action: 'reboot' })).toMatchObject({
      status: 'succeeded',
      result: { power_state: 'running', powered_off: true },
    });
    expect(await stdout('hostname; grep -c first /etc/hosts; getent hosts second | grep -c second')).toBe(
      'second\n0\n1',
    );
  },
  BOOT_MS,
);

it(
  'reinstall_vm makes another machine with the same name, which has its own keys and password',
  async () => {
    const identity = 'cat /etc/ssh/ssh_host_ed25519_key.pub; grep ^root: /etc/shadow';
    const before = (await stdout(`touch /root/old; ${identity}`)).split('\n');
    const again = await reinstall('cloud');
    expect(again).toMatchObject({ status: 'succeeded', result: { image: 'cloud' } });
    await letCommandsIn();
    const after = (await stdout(identity)).split('\n');
    expect(after[0]).toMatch(/^ssh-ed25519 /);
    expect(after[0]).not.toBe(before[0]);
    expect(isHashOf(after[1]!.split(':')[1]!, again.root_password)).toBe(true);
    // cloud-init leaves a file of keys in any case.
    expect(await stdout('hostname; ls /root; cat /root/.ssh/authorized_keys')).toBe('second');
  },
  BOOT_MS,
);

it(
  'an image that never gets an agent is guest_unreachable; the VM has it, and is reinstalled as any other',
  async () => {
    expect(await reinstall('silent')).toMatchObject({
      status: 'failed',
      error: { code: 'guest_unreachable' },
    });
    expect(await call('get_vm', { vm_id: vmId })).toMatchObject({ image: 'silent', mcp_exec_enabled: false });
    expect(await reinstall('busybox')).toMatchObject({ status: 'succeeded', result: { image: 'busybox' } });
  },
  BOOT_MS,
);
