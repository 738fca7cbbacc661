import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { qemuPidsOf } from '../../../test/support/processes.js';
import { describeVmProvider } from '../provider.contract.js';
import { IMAGE_DISK_GB, TRANSLATIONS_MB } from './machine.js';
import { launch, swapAgentSocket } from './process.js';
import { ensureSystemUser } from './programs.js';
import { QemuProvider, type QemuOptions } from './qemu-provider.js';
import { TEMPLATE_SHAPE } from './template.js';
import { vmFiles } from './vm-files.js';

const isRoot = process.getuid?.() === 0;
const home = mkdtempSync(join(tmpdir(), 'lh-'));
// Building the image takes a minute, so it outlives the run.
const imagesDirectory = process.env.TEST_IMAGES || join(tmpdir(), 'longhaul-images');
const options: QemuOptions = {
  home,
  imagesDirectory,
  accelerator: 'auto',
  ...(isRoot && { runAsUser: 'longhaul' }),
};
const spec = { ...TEMPLATE_SHAPE, hostname: 'web-1', diskGb: IMAGE_DISK_GB, image: 'default' };

async function prepare() {
  if (isRoot) {
    ensureSystemUser('longhaul');
    // mkdtemp closes its folders to others; QEMU has to pass through.
    chmodSync(home, 0o755);
  }
  // Here, as tests have less time than builds.
  for (const image of ['default', 'busybox']) await new QemuProvider(options).ensureImage(image);
  return { provider: () => new QemuProvider(options), spec, otherImage: 'busybox', close: async () => {} };
}

afterAll(() => rmSync(home, { recursive: true, force: true }));

describeVmProvider('qemu', prepare);

describe('QEMU processes', () => {
  const id = randomUUID();
  const files = vmFiles(home, id);
  const provider = new QemuProvider(options);
  const sh = (script: string) =>
    provider
      .guest(id)
      .session((guest) => guest.run({ path: '/bin/sh', args: ['-c', script] }, 20_000))
      .then((result) => result.stdout.toString().trim());
  const processes = () => qemuPidsOf(id);

  beforeAll(async () => {
    await prepare();
    await provider.create({ ...spec, id });
  }, 600_000);
  afterAll(() => provider.delete(id), 60_000);

  it('are never two for one VM', async () => {
    const image = join(imagesDirectory, (await provider.ensureImage('default')).name);
    const boot = { kernel: join(image, 'vmlinuz'), initrd: join(image, 'initrd') };
    const machine = { ...TEMPLATE_SHAPE, ...boot, accelerator: 'tcg' as const };
    await launch(files, machine, { user: options.runAsUser, incoming: false });
    expect(processes()).toHaveLength(1);
    expect(await sh('hostname')).toBe(spec.hostname);
  }, 60_000);

  it('are reached although somebody is stuck on a QMP socket, or on the agent', async () => {
    const stuck = [connect(files.qmp[0]), connect(files.agent)];
    await Promise.all(stuck.map((socket) => new Promise((resolve) => socket.on('connect', resolve))));
    try {
      expect((await provider.observe(id)).power).toBe('running');
      await swapAgentSocket(files);
      expect(await sh('hostname')).toBe(spec.hostname);
      await provider.start(id);
    } finally {
      stuck.forEach((socket) => socket.destroy());
    }
  }, 60_000);

  it('keep little of what they translate for the programs of an emulated guest', async () => {
    const [pid] = processes();
    const hostMb = () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
    const runPrograms = () => sh('for number in $(seq 100); do /bin/true; done');
    await runPrograms();
    const before = hostMb();
    for (let round = 0; round < 4; round++) await runPrograms();
    expect(hostMb() - before).toBeLessThan(TRANSLATIONS_MB);
  }, 120_000);

  it('that were killed show as crashed, and the VM boots again', async () => {
    for (const pid of processes()) process.kill(pid, 'SIGKILL');
    expect((await provider.observe(id)).power).toBe('crashed');
    await provider.start(id);
    expect(await sh('hostname')).toBe(spec.hostname);
  }, 240_000);

  it('that are stopped can still be ended', async () => {
    for (const pid of processes()) process.kill(pid, 'SIGSTOP');
    await provider.stop(id);
    expect(processes()).toHaveLength(0);
    await provider.start(id);
  }, 240_000);

  it('keep a VM whole while workers are killed in the middle of suspending and resuming it', async () => {
    await sh('echo kept >/run/mark');
    const expected = { suspend: 'suspended', start: 'running' };
    for (const [call, afterMs] of [
      ...[150, 300, 450].map((ms) => ['suspend', ms] as const),
      ...[150, 300, 450].map((ms) => ['start', ms] as const),
      ['suspend', 600] as const,
      ['start', 600] as const,
    ]) {
      await killedWorker(call, afterMs);
      await provider[call](id);
      expect((await provider.observe(id)).power).toBe(expected[call]);
      if (call === 'start') {
        expect(await sh('cat /run/mark')).toBe('kept');
        expect(processes()).toHaveLength(1);
        await provider.suspend(id);
      }
    }
  }, 240_000);

  it('boot when the memory that was saved cannot be read', async () => {
    await provider.start(id);
    await provider.suspend(id);
    writeFileSync(files.memory, readFileSync(files.memory).subarray(0, 100_000));
    await provider.start(id);
    expect(await sh('hostname')).toBe(spec.hostname);
  }, 240_000);

  it('refuse a home whose sockets would not fit into an address', () => {
    expect(() => vmFiles(`/${'x'.repeat(46)}`, id)).toThrow(/LONGHAUL_HOME/);
    expect(() => vmFiles(`/${'x'.repeat(40)}`, id)).not.toThrow();
  });

  /** A process that makes the call and is killed `afterMs` after it began. */
  async function killedWorker(call: 'suspend' | 'start', afterMs: number): Promise<void> {
    const code = `
      import { QemuProvider } from '@longhaul/vm-providers';
      const provider = new QemuProvider(${JSON.stringify(options)});
      console.log('ready');
      await provider.${call}('${id}');`;
    const flags = ['--import', './test/support/register-typescript.mjs', '--input-type=module', '-e', code];
    const worker = spawn(process.execPath, flags, { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => worker.on('close', resolve));
    await new Promise((resolve) => worker.stdout.once('data', resolve));
    const timer = setTimeout(() => worker.kill('SIGKILL'), afterMs);
    await ended;
    clearTimeout(timer);
  }
});
