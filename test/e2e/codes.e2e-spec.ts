import { randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createToken } from '@longhaul/access';
import { newId, type Vm } from '@longhaul/persistence';
import { Client } from 'ssh2';
import { fingerprintOf } from '../../libs/guest/ssh/target.js';
import { withQmp } from '../../libs/vm-providers/qemu/qmp.js';
import { vmFiles } from '../../libs/vm-providers/qemu/vm-files.js';
import { eventually } from '../support/eventually.js';
import { makeSshKey } from '../support/ssh-key.js';
import { Stack, readToEnd, sha256, type Call } from './stack.js';

// Every code and status of the tools for one VM, provoked for real: by its guest agent, and as a machine by SSH.

const LONG = { withinMs: 240_000, everyMs: 100 };

let stack: Stack;
let call: Call;
let made: Vm;
/** The same machine, as an operator has adopted it. */
let adopted: Vm;
let sshPort: number;

beforeAll(async () => {
  stack = await Stack.start();
  await stack.startWorker();
  made = await stack.createVm();
  call = await stack.clientV2(stack.token, '/x/all');
  adopted = await adoptBySsh();
});
afterAll(() => stack?.stop());

const SSHD = 'mkdir -p /run/sshd; ssh-keygen -A >/dev/null; setsid /usr/sbin/sshd';

async function adoptBySsh(): Promise<Vm> {
  const key = makeSshKey();
  const letIn = `mkdir -p -m 700 /root/.ssh; echo '${key.public}' >/root/.ssh/authorized_keys`;
  const hostKey = await inGuest(made, `${letIn}; ${SSHD}; cat /etc/ssh/ssh_host_ed25519_key.pub`);
  const forward = { 'command-line': 'hostfwd_add net0 tcp:127.0.0.1:0-:22' };
  await withQmp(vmFiles(stack.home, made.id), (qmp) => qmp.execute('human-monitor-command', forward));
  const ports = (await stack.provider.addresses(made.id)).flatMap((address) => address.ports ?? []);
  sshPort = ports.find(({ guest }) => guest === 22)!.host;
  const file = join(stack.home, 'key');
  writeFileSync(file, key.private, { mode: 0o600 });
  const pin = fingerprintOf(Buffer.from(hostKey.split(' ')[1]!, 'base64'));
  const options = ['--ssh', `root@127.0.0.1:${sshPort}`, '--host-key', pin, '--key', file];
  // A login takes an emulated guest long on a busy machine, and an operator would try again.
  await eventually(async () => {
    const { err } = await stack.adopt('by-ssh', ...options);
    if (err) throw new Error(err);
    return true;
  }, LONG);
  return stack.database.db.vm.findFirstOrThrow({ where: { hostname: 'by-ssh' } });
}

/** Past Longhaul, for which commands of the adopted machine would make a new boot of the other. */
const byHand = (command: string) =>
  new Promise<void>((resolve, reject) => {
    const client = new Client().on('error', reject).on('close', resolve);
    client.on('ready', () =>
      client.exec(command, (error, stream) => {
        if (error) return reject(error);
        stream.on('close', () => client.end()).resume();
      }),
    );
    const privateKey = readFileSync(join(stack.home, 'key'));
    client.connect({ host: '127.0.0.1', port: sshPort, username: 'root', privateKey });
  });

async function inGuest(vm: Vm, command: string): Promise<string> {
  const answer = await call('exec_vm_command', { vm_id: vm.id, command, timeout_seconds: 60 });
  if (answer.status !== 'succeeded') throw new Error(`${command}: ${JSON.stringify(answer)}`);
  return String(answer.stdout).trim();
}

const upload = (vm: Vm, bytes = randomBytes(100_000)) => stack.upload(call, vm.id, bytes);

/** How an installation ended, or what it was refused with. */
async function install(vm: Vm, artifactId: string, path: string): Promise<unknown> {
  const args = { vm_id: vm.id, artifact_id: artifactId, destination_path: path };
  const answer = await call('install_artifact', args);
  if (answer.code) return answer.code;
  const job = await stack.ended(answer.job_id as string);
  return job.error ? (job.error as { code: string }).code : job.state;
}

/** Calls a tool until the VM has no other command: the slot is free a moment after the status is known. */
const startCommand = (vm: Vm, command: string) =>
  eventually(async () => {
    const started = await call('start_vm_command', { vm_id: vm.id, command });
    return started.code === 'vm_command_in_progress' ? false : (started.command_id as string);
  }, LONG);

const cases: [string, () => Vm][] = [
  ['by its agent', () => made],
  ['by SSH', () => adopted],
];

describe.each(cases)('%s', (_way, vm) => {
  it('unauthenticated, forbidden_scope, vm_not_found', async () => {
    const refused = await fetch(stack.url, { method: 'POST', headers: { authorization: 'Bearer lh_no' } });
    expect(refused.status).toBe(401);
    const { token } = await createToken(stack.database.db, stack.caller.userId, ['vms:read']);
    const reader = await stack.clientV2(token, '/x/all');
    const wanted = { vm_id: vm().id, command: 'true' };
    expect(await reader('exec_vm_command', wanted)).toMatchObject({ code: 'forbidden_scope' });
    expect(await call('exec_vm_command', { ...wanted, vm_id: newId() })).toMatchObject({
      code: 'vm_not_found',
    });
  });

  it('confirmation_required, mcp_exec_disabled', async () => {
    const off = { vm_id: vm().id, enabled: false };
    const confirmation = `DISABLE MCP EXEC ${vm().id}`;
    for (const wrong of [undefined, confirmation.slice(0, -1), `${confirmation} `])
      expect(await call('set_vm_exec_enabled', { ...off, confirmation: wrong })).toMatchObject({
        code: 'confirmation_required',
      });
    expect(await call('set_vm_exec_enabled', { ...off, confirmation })).toMatchObject({ isError: false });
    expect(await call('exec_vm_command', { vm_id: vm().id, command: 'true' })).toMatchObject({
      code: 'mcp_exec_disabled',
    });
    const on = { vm_id: vm().id, enabled: true, confirmation: `ENABLE MCP EXEC ${vm().id}` };
    await call('set_vm_exec_enabled', on);
    expect(await inGuest(vm(), 'id -u')).toBe('0');
  });

  it('failed, timed_out, cancelled, vm_command_in_progress', async () => {
    const failed = await stack.ended(await startCommand(vm(), 'exit 3'));
    expect(failed).toMatchObject({ state: 'failed', result: { exit_code: 3 } });
    const slow = { vm_id: vm().id, command: 'sleep 600', timeout_seconds: 1 };
    expect(await call('exec_vm_command', slow)).toMatchObject({ status: 'timed_out' });
    const id = await startCommand(vm(), 'sleep 600');
    expect(await call('start_vm_command', { vm_id: vm().id, command: 'true' })).toMatchObject({
      code: 'vm_command_in_progress',
    });
    await call('cancel_vm_command', { command_id: id });
    expect(await stack.ended(id)).toMatchObject({ state: 'cancelled' });
  });

  it('artifact_not_uploaded, artifact_not_found, artifact_sha_mismatch', async () => {
    const bytes = randomBytes(100_000);
    const { artifact_id: pending } = await stack.announce(call, vm().id, bytes);
    expect(await install(vm(), pending as string, '/srv/x')).toBe('artifact_not_uploaded');
    const other = vm() === made ? adopted : made;
    const id = await upload(vm(), bytes);
    expect(await install(other, id, '/srv/x')).toBe('artifact_not_found');
    expect(await call('get_artifact', { artifact_id: id })).toMatchObject({ state: 'uploaded' });
    const stored = ['-type', 'f', '-name', `*${id}*`];
    const [file] = execFileSync('find', [join(stack.home, 'artifacts'), ...stored])
      .toString()
      .split('\n');
    bytes[50_000]! ^= 1;
    writeFileSync(file!, bytes);
    expect(await install(vm(), id, '/srv/x')).toBe('artifact_sha_mismatch');
    expect(await inGuest(vm(), 'ls -A /srv | grep -c longhaul || true')).toBe('0');
  });

  it('guest_missing_dependency, guest_out_of_space, guest_read_only, path_denied, path_is_directory', async () => {
    const id = await upload(vm());
    await inGuest(vm(), 'chmod -x /usr/bin/sha256sum');
    expect(await install(vm(), id, '/srv/x')).toBe('guest_missing_dependency');
    await inGuest(
      vm(),
      'chmod +x /usr/bin/sha256sum; mkdir -p /srv/small /srv/fixed; ' +
        'mount -t tmpfs -o size=64k tmpfs /srv/small; mount -t tmpfs -o ro tmpfs /srv/fixed; ln -sf /etc /srv/away',
    );
    expect(await install(vm(), id, '/srv/small/x')).toBe('guest_out_of_space');
    expect(await install(vm(), id, '/srv/fixed/x')).toBe('guest_read_only');
    expect(await install(vm(), id, '/srv/away/shadow')).toBe('path_denied');
    expect(await install(vm(), id, '/srv/small')).toBe('path_is_directory');
    expect(await install(vm(), id, '/srv/x')).toBe('succeeded');
    const read = await call('read_vm_file', { vm_id: vm().id, path: '/etc/hostname' });
    expect(read).toMatchObject({ content: `${made.hostname}\n`, eof: true });
    const { entries } = await call('list_vm_directory', { vm_id: vm().id, path: '/srv' });
    expect(entries).toContainEqual(expect.objectContaining({ name: 'x', type: 'file', size_bytes: 100_000 }));
    await inGuest(vm(), 'umount /srv/small /srv/fixed; rm -r /srv/away /srv/x');
  });
});

/** What the guest's agent lets read, or the code of why it does not. */
async function read(): Promise<unknown> {
  const answer = await call('read_vm_file', { vm_id: made.id, path: '/etc/hostname' });
  return (answer.error as { code: string } | undefined)?.code ?? answer.content;
}

it('guest_unreachable: an agent that stands still, until it is woken by SSH', async () => {
  await inGuest(made, `setsid sh -c 'sleep 3; kill -STOP $(pidof qemu-ga)' >/dev/null 2>&1 &`);
  await eventually(async () => (await read()) === 'guest_unreachable', LONG);
  await inGuest(adopted, 'kill -CONT $(pidof qemu-ga)');
  await eventually(async () => (await read()) === `${made.hostname}\n`, LONG);
});

describe('an agent that is killed', () => {
  const seen = (agent: string) =>
    eventually(async () => {
      const vm = await call('get_vm', { vm_id: made.id });
      return vm.guest_agent === agent && vm;
    }, LONG);
  const KILL = 'kill -KILL $(pidof qemu-ga)';

  it('under exec_vm_command, and started again by init: the answer is whole', async () => {
    const args = { vm_id: made.id, command: `echo one; ${KILL}; echo two; exit 5`, timeout_seconds: 60 };
    expect(await call('exec_vm_command', args)).toMatchObject({
      status: 'failed',
      exit_code: 5,
      stdout: 'one\ntwo\n',
    });
  });

  it('under start_vm_command, and away: silent, and since when; nothing of the log is missing once it is back', async () => {
    await inGuest(made, "sed -i '2i while [ -e /run/no-agent ]; do sleep 0.2; done' /etc/longhaul/agent");
    const { guest_agent_seen_at: answeredAt } = await seen('answers');
    const print = 'n=0; until [ -e /run/enough ]; do n=$((n + 1)); echo $n; sleep 0.05; done';
    const id = await startCommand(made, `touch /run/no-agent; ${KILL}; ${print}; touch /run/over; exit 6`);
    const silent = await seen('silent');
    expect(silent.power_state).toBe('running');
    expect(Date.parse(silent.guest_agent_seen_at as string)).toBeGreaterThanOrEqual(
      Date.parse(answeredAt as string),
    );
    expect(await read()).toBe('guest_unreachable');
    expect(await call('read_vm_command_logs', { command_id: id })).toMatchObject({ status: 'running' });
    // It ends while nobody can see that.
    await byHand('touch /run/enough; until [ -e /run/over ]; do sleep 0.1; done; rm /run/no-agent');
    const { stdout, status } = await readToEnd(call, id);
    expect(status).toBe('failed');
    expect(await stack.job(id)).toMatchObject({ attempt: 1, result: { exit_code: 6 } });
    const lines = stdout.toString().trim().split('\n');
    expect(lines.length).toBeGreaterThan(1);
    expect(lines).toEqual(lines.map((_, index) => String(index + 1)));
    await seen('answers');
  });

  it('under install_artifact: the file is whole', async () => {
    const once = `until ls /srv/.longhaul-install.*; do sleep 0.05; done; ${KILL} && touch /run/killed`;
    await inGuest(made, `setsid sh -c '${once}' >/dev/null 2>&1 &`);
    const bytes = randomBytes(20_000_000);
    expect(await install(made, await upload(made, bytes), '/srv/large')).toBe('succeeded');
    const left = 'ls /run/killed; sha256sum </srv/large; ls -A /srv | grep -c longhaul || true';
    expect(await inGuest(made, left)).toBe(`/run/killed\n${sha256(bytes)}  -\n0`);
  });
});

it('unknown: what ran by SSH when the machine was reset', async () => {
  const id = await startCommand(adopted, 'echo on; sleep 600');
  await eventually(
    async () => (await call('get_vm_command_output', { command_id: id })).stdout === 'on\n',
    LONG,
  );
  await stack.power(made, 'reset');
  await inGuest(made, SSHD);
  expect(await stack.ended(id)).toMatchObject({ state: 'unknown' });
  expect(await inGuest(adopted, 'id -u')).toBe('0');
});

it('vm_state_blocked: what a machine by SSH cannot do, and what a VM that is off cannot', async () => {
  const blocked = { code: 'vm_state_blocked' };
  expect(await call('power_vm', { vm_id: adopted.id, action: 'stop' })).toMatchObject(blocked);
  await stack.power(made, 'stop');
  expect(await call('exec_vm_command', { vm_id: made.id, command: 'true' })).toMatchObject(blocked);
});

it('rate_limited: more files announced than anybody needs', async () => {
  const refused = async () => (await stack.announce(call, made.id, randomBytes(16))).code === 'rate_limited';
  await eventually(refused, { ...LONG, everyMs: 0 });
});

it('a reinstallation lets a registered key in', async () => {
  const { images } = (await call('list_images')) as unknown as { images: { image: string }[] };
  expect(images.map(({ image }) => image)).toEqual(expect.arrayContaining(['debian-12', 'busybox']));
  const { public: key } = makeSshKey({ comment: 'laptop' });
  const { ssh_key_id: id } = await call('add_ssh_key', { name: 'laptop', public_key: key });
  const { ssh_keys: keys } = await call('list_ssh_keys');
  expect(keys).toEqual([expect.objectContaining({ ssh_key_id: id, name: 'laptop' })]);
  const args = { vm_id: made.id, image: 'busybox', ssh_key_id: id };
  const confirmation = `REINSTALL ${made.id} TO TEMPLATE busybox`;
  const { job_id: job } = await call('reinstall_vm', { ...args, confirmation });
  expect(await stack.ended(job as string)).toMatchObject({ state: 'succeeded' });
  expect(await call('remove_ssh_key', { ssh_key_id: id })).toMatchObject({ removed: true });
  const on = { vm_id: made.id, enabled: true, confirmation: `ENABLE MCP EXEC ${made.id}` };
  await call('set_vm_exec_enabled', on);
  expect(await inGuest(made, 'cat /root/.ssh/authorized_keys')).toBe(key);
  expect(await inGuest(made, 'readlink /bin/sh')).toContain('busybox');
}, 600_000);
