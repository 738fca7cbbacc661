import { execFileSync, type ChildProcess } from 'node:child_process';
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { open, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Vm } from '@longhaul/persistence';
import { eventually } from '../support/eventually.js';
import { Stack, type Answer, type Call } from './stack.js';

const MIB = 1024 * 1024;
const LONG = { withinMs: 600_000, everyMs: 200 };

let stack: Stack;
let api: ChildProcess;
let worker: ChildProcess;
let vm: Vm;
let call: Call;

beforeAll(async () => {
  stack = await Stack.start();
  api = [...stack.processes][0]!;
  worker = await stack.startWorker();
  vm = await stack.createVm();
  call = await stack.clientV2(stack.token, '/x/all');
});
afterAll(() => stack?.stop());

/** The same bytes each time, without keeping them: a key stream. */
function* content(key: Buffer, bytes: number) {
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  const zeros = Buffer.alloc(MIB);
  for (let left = bytes; left > 0; left -= MIB) yield cipher.update(zeros.subarray(0, Math.min(left, MIB)));
}

function digestOf(chunks: Iterable<Buffer>): string {
  const hash = createHash('sha256');
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest('hex');
}

async function upload(bytes: number): Promise<{ artifactId: string; sha256: string }> {
  const key = randomBytes(32);
  const sha256 = digestOf(content(key, bytes));
  const announced = await call('create_artifact_upload', {
    vm_id: vm.id,
    filename: 'blob',
    size_bytes: bytes,
    sha256,
    purpose: 'file',
  });
  const {
    url,
    method,
    headers,
    artifact_id: artifactId,
  } = announced as unknown as {
    url: string;
    method: string;
    headers: Record<string, string>;
    artifact_id: string;
  };
  const { pathname, search } = new URL(url);
  const put = request(new URL(pathname + search, stack.url), { method, headers });
  const answered = once(put, 'response');
  await pipeline(Readable.from(content(key, bytes)), put);
  const [response] = (await answered) as [{ statusCode: number; resume(): void }];
  response.resume();
  expect(response.statusCode).toBeLessThan(300);
  return { artifactId, sha256 };
}

const install = (artifactId: string, path: string, more: object = {}) =>
  call('install_artifact', { vm_id: vm.id, artifact_id: artifactId, destination_path: path, ...more });
const endOf = (answer: Answer) =>
  eventually(async () => {
    const job = await call('wait_for_job', { job_id: answer.job_id, timeout_seconds: 20 });
    return job.status !== 'queued' && job.status !== 'running' && job;
  }, LONG);
const stdout = async (command: string) => {
  const args = { vm_id: vm.id, command, timeout_seconds: 60 };
  const { stdout, status } = await call('exec_vm_command', args);
  if (status !== 'succeeded') throw new Error(`${command}: ${String(status)}`);
  return String(stdout).trim();
};
const digestInGuest = async (path: string) => {
  const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command: `sha256sum '${path}'` });
  await endOf({ job_id: id, isError: false });
  return String((await call('get_vm_command_output', { command_id: id })).stdout).slice(0, 64);
};

/** In bytes: what the process has at present, and the most that it had since it was last asked. */
async function memory({ pid }: ChildProcess): Promise<{ now: number; peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const kilobytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)![1]) * 1024;
  const [now, peak] = [kilobytes('VmRSS'), kilobytes('VmHWM')];
  await writeFile(`/proc/${pid}/clear_refs`, '5');
  return { now, peak };
}

it('256 MiB are uploaded and installed, digest equal, in little memory of API and worker', async () => {
  // What a process loads once, at its first file, is not what a large one costs.
  const first = await upload(MIB);
  await endOf(await install(first.artifactId, '/srv/first'));
  const before = await Promise.all([api, worker].map(memory));
  const { artifactId, sha256 } = await upload(256 * MIB);
  const end = await endOf(
    await install(artifactId, '/srv/new folder/blob', { owner: 'nobody:nogroup', mode: '0600' }),
  );
  const after = await Promise.all([api, worker].map(memory));
  expect(end).toMatchObject({
    status: 'succeeded',
    result: { changed: true, sha256, size_bytes: 256 * MIB },
  });
  expect(await stdout(`stat -c '%a %U:%G %s' '/srv/new folder/blob'`)).toBe(
    `600 nobody:nogroup ${256 * MIB}`,
  );
  expect(await digestInGuest('/srv/new folder/blob')).toBe(sha256);
  const grown = after.map(({ peak }, index) => peak - before[index]!.now);
  console.log(
    `256 MiB: the API grew by ${(grown[0]! / 1e6).toFixed(1)} MB, the worker by ${(grown[1]! / 1e6).toFixed(1)} MB`,
  );
  for (const bytes of grown) expect(bytes).toBeLessThan(50e6);
  // Downloaded by the guest itself, not pushed.
  const downloads = await stack.database.db.auditEvent.count({
    where: { event: { startsWith: 'artifact.download' }, result: 'ok' },
  });
  expect(downloads).toBeGreaterThanOrEqual(2);
});

it('one wrong byte in the store is caught in the guest, and the old file stays', async () => {
  await stdout('echo old >/srv/file');
  const { artifactId } = await upload(4 * MIB);
  const path = execFileSync('find', [
    join(stack.home, 'artifacts'),
    '-type',
    'f',
    '-name',
    `*${artifactId}*`,
  ]);
  const file = await open(path.toString().trim().split('\n')[0]!, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, 1_234_567);
  await file.write(Buffer.from([byte[0]! ^ 1]), 0, 1, 1_234_567);
  await file.close();
  const end = await endOf(await install(artifactId, '/srv/file'));
  expect(end).toMatchObject({ status: 'failed', error: { code: 'artifact_sha_mismatch' } });
  expect(await stdout('cat /srv/file; ls -A /srv | grep longhaul || true')).toBe('old');
});

it('a guest without curl gets the file pushed', async () => {
  const { artifactId, sha256 } = await upload(3 * MIB + 1);
  await stdout('chmod -x /usr/bin/curl');
  expect(await endOf(await install(artifactId, '/srv/pushed'))).toMatchObject({ status: 'succeeded' });
  await stdout('chmod +x /usr/bin/curl');
  expect(await digestInGuest('/srv/pushed')).toBe(sha256);
});

it('a VM that is reset under an installation has the old file or the new one, and the installation goes on', async () => {
  const old = await stdout('echo old >/srv/reset; sync; sha256sum </srv/reset | cut -c 1-64');
  const { artifactId, sha256 } = await upload(64 * MIB);
  const installing = install(artifactId, '/srv/reset', { backup: true });
  const job = await eventually(async () => {
    const found = await stack.database.db.job.findFirst({
      where: { vmId: vm.id, kind: 'vm.install', state: 'running' },
    });
    return (found?.progress as { progress?: number } | null)?.progress && found;
  }, LONG);
  await stack.power(vm, 'reset');
  expect([old, sha256]).toContain(await digestInGuest('/srv/reset'));
  expect(await endOf({ job_id: job.id, isError: false })).toMatchObject({ status: 'succeeded' });
  await installing;
  expect(await digestInGuest('/srv/reset')).toBe(sha256);
  expect(await stdout('ls -A /srv | grep longhaul-install || true')).toBe('');
});

it('a program is replaced while it runs: what runs goes on, what is there is the new one', async () => {
  const { artifactId, sha256 } = await upload(MIB);
  await stdout('cp /usr/bin/sleep /srv/program; setsid /srv/program 600 >/dev/null 2>&1 & sleep 0.2');
  expect(await endOf(await install(artifactId, '/srv/program'))).toMatchObject({ status: 'succeeded' });
  expect(await digestInGuest('/srv/program')).toBe(sha256);
  expect(await stdout('readlink /proc/$(pgrep -f "^/srv/program 600")/exe')).toBe('/srv/program (deleted)');
});

it('a command that prints 1 GB ends well, in bounded memory of the worker', async () => {
  const before = await memory(worker);
  const printing = { vm_id: vm.id, command: 'dd if=/dev/zero bs=1M count=1000 status=none' };
  const { command_id: id } = await call('start_vm_command', printing);
  const end = await endOf({ job_id: id, isError: false });
  expect(end).toMatchObject({ status: 'succeeded', result: { exit_code: 0 } });
  const { peak } = await memory(worker);
  console.log(`1 GB printed: the worker grew by ${((peak - before.now) / 1e6).toFixed(1)} MB`);
  // Pieces that were stored wait for their collection.
  expect(peak - before.now).toBeLessThan(250e6);
});

it('files and directories are read', async () => {
  expect(await call('read_vm_file', { vm_id: vm.id, path: '/srv/file' })).toMatchObject({
    content: 'old\n',
    eof: true,
  });
  const { entries } = await call('list_vm_directory', { vm_id: vm.id, path: '/srv' });
  expect(entries).toEqual(
    expect.arrayContaining([expect.objectContaining({ name: 'new folder', type: 'directory' })]),
  );
  for (const path of ['/etc/shadow', '/proc/kmsg'])
    expect(await call('read_vm_file', { vm_id: vm.id, path })).toMatchObject({
      error: { code: 'path_denied' },
    });
});
