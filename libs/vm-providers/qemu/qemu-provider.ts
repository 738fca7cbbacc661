import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { AppError } from '@longhaul/errors';
import { AgentChannel, type GuestChannel } from '@longhaul/guest';
import {
  isOff,
  VmProvider,
  type VmAbility,
  type VmAddress,
  type VmMetrics,
  type VmObservation,
  type VmSpec,
} from '../provider.js';
import { personalise, setClock, waitForAgent, waitForPowerOff } from './boot.js';
import { GATEWAY_URL, socatAddress } from './gateway.js';
import { ImageCache, TEMPLATE_SHAPE, type Image } from './image-cache.js';
import { IMAGE_DISK_GB } from './machine.js';
import { letRun, loadMemory, rejectMemory, saveMemory } from './memory.js';
import { launch, runState, swapAgentSocket, terminate } from './process.js';
import { asUser, makeOwnedDirectory, run } from './programs.js';
import { withQmp } from './qmp.js';
import { readAddresses, readMetrics } from './readings.js';
import {
  exists,
  filesIn,
  isVmId,
  readRecord,
  removeDurably,
  sync,
  vmFiles,
  vmNotFound,
  writeRecord,
  type Accelerator,
  type VmFiles,
  type VmRecord,
} from './vm-files.js';

export interface QemuOptions {
  /** LONGHAUL_HOME, absolute. Everything of a VM is below `vms/<id>`. */
  home: string;
  /** The image cache. Disks refer to it by a path relative to theirs: move both or none. */
  imagesDirectory: string;
  accelerator: 'auto' | Accelerator;
  /** The user that QEMU runs as when we are root. */
  runAsUser?: string;
  /** How long a guest may take from power-on to its first answer, milliseconds. Default 180 s. */
  bootTimeoutMs?: number;
  /**
   * The one server that guests reach, as `http://10.0.2.100`: an http or https URL without path, by default none. For
   * VMs that are started from then on.
   */
  guestGateway?: string;
}

/** Run states that a start cannot continue from. */
const ENDED = ['shutdown', 'internal-error', 'guest-panicked'];

/** VMs as QEMU processes of this host, which outlive ours and are found again by their uuid. */
export class QemuProvider extends VmProvider {
  readonly name = 'qemu';
  readonly abilities = new Set<VmAbility>(['create', 'power', 'suspend', 'reinstall', 'resize']);
  readonly guestApiUrl?: string;
  private readonly images: ImageCache;
  private readonly bootMs: number;

  constructor(private readonly options: QemuOptions) {
    super();
    const { imagesDirectory: directory, accelerator, runAsUser: user } = options;
    this.images = new ImageCache({ directory, accelerator, user });
    if (options.guestGateway) {
      socatAddress(options.guestGateway);
      this.guestApiUrl = GATEWAY_URL;
    }
    this.bootMs = options.bootTimeoutMs ?? 180_000;
  }

  /** Builds the guest image and its warm template where they are missing; `create` does so too, but silently. */
  async ensureImage(progress: { onProgress?: (line: string) => void } = {}): Promise<Image> {
    return this.images.ensure(progress.onProgress);
  }

  async create(spec: VmSpec): Promise<void> {
    checkSpec(spec);
    const files = vmFiles(this.options.home, spec.id);
    if (!(await readRecord(files))) await this.prepare(files, spec);
    await this.start(spec.id);
  }

  async start(id: string): Promise<void> {
    const { files, record } = await this.find(id);
    let state = await runState(files);
    if (state && ENDED.includes(state)) {
      await terminate(files);
      state = undefined;
    }
    if (state === 'inmigrate' || state === undefined) state = await this.powerOn(files, record);
    if (state !== 'running') {
      if (state !== 'prelaunch') await writeFile(files.clockStale, '');
      // While its memory is being saved, the process has let go of the disk.
      const hasDisk = state !== 'postmigrate';
      if (hasDisk) await matchDiskSize(files, record);
      await letRun(files);
      if (!hasDisk) await matchDiskSize(files, record);
    }
    const isClockStale = await exists(files.clockStale);
    await waitForAgent(files, this.guest(id), this.bootMs, (session) => {
      if (!record.personalised) return personalise(session, record.spec);
      return isClockStale ? setClock(session) : session.ping();
    });
    await rm(files.clockStale, { force: true });
    if (!record.personalised) await writeRecord(files, { ...record, personalised: true });
  }

  async stop(id: string): Promise<void> {
    const files = vmFiles(this.options.home, id);
    if (!(await readRecord(files))) return;
    await rm(files.running, { force: true });
    await terminate(files);
    await removeDurably(files.directory, [files.memory]);
  }

  async shutdown(id: string, timeoutMs: number): Promise<boolean> {
    const { files } = await this.find(id);
    const state = await runState(files);
    if (state === 'running') await withQmp(files, (qmp) => qmp.execute('system_powerdown'));
    else if (state !== undefined && state !== 'shutdown') throw blocked(id, `is ${state}`, 'Start it first.');
    if (state === undefined && (await exists(files.memory)))
      throw blocked(id, 'is suspended', 'Start it first.');
    if (!(await waitForPowerOff(files, timeoutMs))) return false;
    await this.stop(id);
    return true;
  }

  async reset(id: string): Promise<void> {
    const { files } = await this.find(id);
    const state = await runState(files);
    if (state === undefined) throw blocked(id, 'does not run', 'Start it instead.');
    await withQmp(files, async (qmp) => {
      await qmp.execute('system_reset');
      // From this event on the old guest is gone: whatever answers is the new one.
      await qmp.event('RESET', 5_000);
    });
    if (state !== 'running') await letRun(files);
    await waitForAgent(files, this.guest(id), this.bootMs);
  }

  async suspend(id: string): Promise<void> {
    const { files } = await this.find(id);
    const state = await runState(files);
    if (state === undefined) {
      if (await exists(files.memory)) return;
      throw blocked(id, 'does not run', 'Only a running VM has a memory to keep.');
    }
    if (ENDED.includes(state)) throw blocked(id, `is ${state}`, 'Only a running VM has a memory to keep.');
    // A start that was cut off before the guest executed: its memory image is still the right one.
    if (!(await exists(files.memory))) await saveMemory(files);
    await terminate(files);
    await rm(files.running, { force: true });
  }

  async delete(id: string): Promise<void> {
    const files = vmFiles(this.options.home, id);
    await terminate(files);
    const vms = join(this.options.home, 'vms');
    // Out of the list at once; what a crash leaves behind goes with the repeated call.
    if (await exists(files.directory))
      await rename(files.directory, join(vms, `.gone-${id}-${randomUUID()}`));
    for (const name of await namesIn(vms)) {
      if (name.includes(id)) await rm(join(vms, name), { recursive: true, force: true });
    }
    await rm(files.locks, { recursive: true, force: true });
  }

  async reinstall(id: string, image: string, token: string): Promise<void> {
    const { files, record } = await this.find(id);
    if (record.reinstallation !== token) {
      const spec = { ...record.spec, image };
      checkSpec(spec);
      const fresh = await this.images.ensure();
      await this.stop(id);
      const disk = join(files.directory, `disk-${randomUUID().slice(0, 8)}.qcow2`);
      const replaced = await this.makeDisk(files, disk, fresh, spec);
      await sync(disk);
      // From here on it is the new VM.
      await writeRecord(files, { ...replaced, reinstallation: token });
      if (isWarm(spec)) await linkMemory(files, fresh);
    }
    await removeOtherDisks(await this.find(id));
    await this.start(id);
  }

  async resize(id: string, { cpus, memoryMb }: { cpus: number; memoryMb: number }): Promise<void> {
    const { files, record } = await this.find(id);
    if (cpus === record.spec.cpus && memoryMb === record.spec.memoryMb) return;
    const spec = { ...record.spec, cpus, memoryMb };
    checkSpec(spec);
    const observed = await this.observe(id);
    if (!isOff(observed)) throw blocked(id, `is ${observed.power}`, 'Stop it first.');
    await removeDurably(files.directory, [files.memory]);
    await writeRecord(files, { ...record, spec });
  }

  async growDisk(id: string, diskGb: number): Promise<void> {
    const { files, record } = await this.find(id);
    const spec = { ...record.spec, diskGb };
    checkSpec(spec);
    if (diskGb < record.spec.diskGb)
      throw new AppError('invalid_arguments', `The disk has ${record.spec.diskGb} GB and cannot shrink.`);
    // First, so that no crash in between leaves a disk that is larger than its record, which the next start would shrink.
    await writeRecord(files, { ...record, spec });
    const state = await runState(files);
    if (state && !['inmigrate', 'postmigrate'].includes(state))
      await matchDiskSize(files, { ...record, spec });
  }

  async rename(id: string, hostname: string): Promise<void> {
    const { files, record } = await this.find(id);
    const spec = { ...record.spec, hostname };
    checkSpec(spec);
    await writeRecord(files, { ...record, spec });
  }

  async addresses(id: string): Promise<VmAddress[]> {
    const { files } = await this.find(id);
    return readAddresses(files);
  }

  async metrics(id: string): Promise<VmMetrics> {
    const { files, record } = await this.find(id);
    return readMetrics(files, record);
  }

  async observe(id: string): Promise<VmObservation> {
    if (!isVmId(id)) return { power: 'absent' };
    const files = vmFiles(this.options.home, id);
    const record = await readRecord(files);
    if (!record) return { power: 'absent' };
    const state = await runState(files);
    return { power: await powerOf(files, state), accelerator: record.accelerator };
  }

  async list(): Promise<string[]> {
    return (await namesIn(join(this.options.home, 'vms'))).filter(isVmId);
  }

  guest(id: string): GuestChannel {
    const files = vmFiles(this.options.home, id);
    const evict = () => swapAgentSocket(files);
    return new AgentChannel({ socketPath: files.agent, lockDirectory: files.locks, evict });
  }

  private async find(id: string): Promise<{ files: VmFiles; record: VmRecord }> {
    const files = vmFiles(this.options.home, id);
    const record = await readRecord(files);
    if (!record) throw vmNotFound(id);
    return { files: { ...files, disk: join(files.directory, record.disk) }, record };
  }

  /** A disk over the image's, and the record of a VM that has it. */
  private async makeDisk(files: VmFiles, disk: string, image: Image, spec: VmSpec): Promise<VmRecord> {
    const base = join(relative(files.directory, image.template), 'disk.qcow2');
    const create = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, disk];
    await run(asUser(this.options.runAsUser, [...create, `${spec.diskGb}G`]));
    const { name, accelerator } = image;
    return { spec, image: name, accelerator, disk: basename(disk), personalised: false };
  }

  /** Makes the VM's directory, complete at once: an overlay on the template and, where the machine fits, its memory. */
  private async prepare(files: VmFiles, spec: VmSpec): Promise<void> {
    const image = await this.images.ensure();
    const vms = join(this.options.home, 'vms');
    await mkdir(vms, { recursive: true });
    const user = this.options.runAsUser;
    const work = filesIn(join(vms, `.new-${spec.id}-${randomUUID().slice(0, 8)}`), spec.id);
    await makeOwnedDirectory(work.directory, user);
    await writeRecord(work, await this.makeDisk(work, work.disk, image, spec));
    if (isWarm(spec)) await linkMemory(work, image);
    await rename(work.directory, files.directory).catch(async (error: NodeJS.ErrnoException) => {
      // The same call, in another worker, was faster.
      if (!(await readRecord(files))) throw error;
      await rm(work.directory, { recursive: true });
    });
  }

  /** Launches the process; with its memory, unless there is none or no process takes it twice. Returns its state. */
  private async powerOn(files: VmFiles, record: VmRecord): Promise<string> {
    const { cpus, memoryMb } = record.spec;
    const { runAsUser: user, guestGateway: gateway } = this.options;
    const shape = { cpus, memoryMb, gateway, ...this.images.kernelOf(record.image) };
    for (let attempt = 0; attempt < 2 && (await exists(files.memory)); attempt++) {
      const { accelerator } = record;
      try {
        await launch(files, { ...shape, accelerator }, { user, incoming: true });
        await loadMemory(files);
        return (await runState(files)) ?? 'ended';
      } catch (error) {
        // Only a process that died has judged the image; another trouble is not the image's fault.
        if ((await runState(files)) !== undefined) throw error;
        if (attempt === 1) await rejectMemory(files);
      }
    }
    const accelerator = await this.images.accelerator();
    if (accelerator !== record.accelerator) await writeRecord(files, Object.assign(record, { accelerator }));
    await launch(files, { ...shape, accelerator }, { user, incoming: false });
    return 'prelaunch';
  }
}

/** Whether the template's memory fits the machine. */
const isWarm = ({ cpus, memoryMb }: VmSpec) =>
  cpus === TEMPLATE_SHAPE.cpus && memoryMb === TEMPLATE_SHAPE.memoryMb;

const linkMemory = (files: VmFiles, image: Image) =>
  symlink(join(relative(files.directory, image.template), 'memory.zst'), files.memory);

/** Gives the disk of a VM that has a process the size of its record. Changes nothing where it has that size. */
async function matchDiskSize(files: VmFiles, { spec }: VmRecord): Promise<void> {
  const size = spec.diskGb * 2 ** 30;
  await withQmp(files, (qmp) => qmp.execute('block_resize', { device: 'root', size }));
}

async function removeOtherDisks({ files, record }: { files: VmFiles; record: VmRecord }): Promise<void> {
  const disks = (await namesIn(files.directory)).filter((name) => /^disk.*\.qcow2$/.test(name));
  for (const disk of disks) if (disk !== record.disk) await rm(join(files.directory, disk));
}

async function powerOf(files: VmFiles, state: string | undefined): Promise<VmObservation['power']> {
  if (state === 'running') return 'running';
  if (state === 'shutdown') return 'stopped';
  if (state && ENDED.includes(state)) return 'crashed';
  if (await exists(files.memory)) return 'suspended';
  if (state) return 'paused';
  return (await exists(files.running)) ? 'crashed' : 'stopped';
}

function checkSpec(spec: VmSpec): void {
  const faults = [
    !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(spec.hostname) && 'hostname must be a DNS label',
    !isWithin(spec.cpus, 1, 64) && 'cpus must be 1 to 64',
    !isWithin(spec.memoryMb, 256, 1 << 20) && 'memoryMb must be 256 to 1048576',
    !isWithin(spec.diskGb, IMAGE_DISK_GB, 16_384) && `diskGb must be ${IMAGE_DISK_GB} to 16384`,
    spec.image !== 'default' && 'image must be "default"',
  ].filter((fault) => fault !== false);
  if (faults.length > 0) throw new AppError('invalid_arguments', `${faults.join('; ')}.`);
}

const isWithin = (value: number, least: number, most: number) =>
  Number.isInteger(value) && value >= least && value <= most;

const blocked = (id: string, what: string, advice: string) =>
  new AppError('vm_state_blocked', `VM ${id} ${what}. ${advice}`);

const namesIn = (directory: string) =>
  readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
