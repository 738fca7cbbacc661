import { randomUUID } from 'node:crypto';
import { access, constants, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentChannel, type GuestChannel, type GuestSession } from '@longhaul/guest';
import {
  isOff,
  VmProvider,
  type VmAbility,
  type VmAddress,
  type VmMetrics,
  type VmObservation,
  type VmSpec,
} from '../provider.js';
import { blocked, checkSpec, grown } from '../spec.js';
import { personalise, pressReset, setClock, waitForAgent, waitForPowerOff } from './boot.js';
import { linkMemory, makeDisk, matchDiskSize, removeOtherDisks, type DiskOptions } from './disk.js';
import { GATEWAY_URL, socatAddress } from './gateway.js';
import { ImageCache, type Image } from './image-cache.js';
import { letRun, saveMemory } from './memory.js';
import { ENDED, powerOf, powerOn } from './power.js';
import { runState, swapAgentSocket, terminate } from './process.js';
import { findProgram, makeOwnedDirectory } from './programs.js';
import { BridgeNetwork, type BridgeOptions } from './network.js';
import { withQmp } from './qmp.js';
import { readAddresses, readMetrics } from './readings.js';
import {
  exists,
  filesIn,
  isVmId,
  listVms,
  readRecord,
  removeDurably,
  removeRemains,
  removeVm,
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
  /** File of the operator's own images (see libs/images). */
  imageCatalog?: string;
  accelerator: 'auto' | Accelerator;
  /** The user that QEMU runs as when we are root. */
  runAsUser?: string;
  /** How long a guest may take from power-on to its first answer, milliseconds. Default 180 s, with cloud-init 480 s. */
  bootTimeoutMs?: number;
  /**
   * The one server that guests reach, as `http://10.0.2.100`: an http or https URL without path, by default none. For
   * VMs that are started from then on.
   */
  guestGateway?: string;
  /** The bridge that VMs are on, instead of each in a network of its own; needs root. */
  bridge?: Omit<BridgeOptions, 'home' | 'user'>;
}

const BOOT_MS = 180_000;
/** cloud-init works in every boot, most in the first, and may wait for a network. */
const CLOUD_BOOT_MS = 480_000;

/** VMs as QEMU processes of this host, which outlive ours and are found again by their uuid. */
export class QemuProvider extends VmProvider {
  readonly name = 'qemu';
  readonly abilities = new Set<VmAbility>(['create', 'power', 'suspend', 'reinstall', 'resize']);
  readonly guestApiUrl?: string;
  private readonly images: ImageCache;
  private readonly network?: BridgeNetwork;

  constructor(private readonly options: QemuOptions) {
    super();
    const { imagesDirectory: directory, imageCatalog: catalog, accelerator, runAsUser: user } = options;
    this.images = new ImageCache({ directory, catalog, accelerator, user });
    const { home, bridge } = options;
    this.network = bridge && new BridgeNetwork({ ...bridge, home, user });
    if (options.guestGateway && !bridge) {
      socatAddress(options.guestGateway);
      this.guestApiUrl = GATEWAY_URL;
    }
  }

  /** Makes an image ready where it is not; `create` and `reinstall` do so too, but silently. */
  async ensureImage(image: string, onProgress?: (line: string) => void): Promise<Image> {
    return this.images.ensure(image, onProgress);
  }

  override async check(): Promise<void> {
    await Promise.all([access(this.options.home, constants.W_OK), findProgram('qemu-system-x86_64')]);
  }

  async create(spec: VmSpec): Promise<void> {
    checkSpec(spec);
    const files = vmFiles(this.options.home, spec.id);
    if (!(await readRecord(files))) await this.prepare(files, spec);
    await removeRemains(this.options.home, `.new-${spec.id}-`);
    await this.start(spec.id);
  }

  async start(id: string): Promise<void> {
    const { files, record } = await this.find(id);
    let state = await runState(files);
    if (state && ENDED.includes(state)) {
      await terminate(files);
      state = undefined;
    }
    if (state === 'inmigrate' || state === undefined) {
      const tap = (await this.network?.prepare(id))?.tap;
      const { runAsUser: user, guestGateway: gateway, bridge } = this.options;
      const { images } = this;
      state = await powerOn(files, record, { images, user, gateway, tap, within: bridge?.within });
    }
    if (state !== 'running') {
      if (state !== 'prelaunch') await writeFile(files.clockStale, '');
      // While its memory is being saved, the process has let go of the disk.
      const hasDisk = state !== 'postmigrate';
      if (hasDisk) await matchDiskSize(files, record);
      await letRun(files);
      if (!hasDisk) await matchDiskSize(files, record);
    }
    const isClockStale = await exists(files.clockStale);
    await waitForAgent(files, this.guest(id), this.bootMs(record), async (session) => {
      if (!record.personalised && !record.seed) await personalise(session, record);
      else if (isClockStale) await setClock(session);
      await this.greet(id, session);
    });
    await rm(files.clockStale, { force: true });
    if (!record.personalised) await writeRecord(files, { ...record, personalised: true });
  }

  async stop(id: string): Promise<void> {
    const files = vmFiles(this.options.home, id);
    if (!(await readRecord(files))) return;
    await rm(files.running, { force: true });
    await terminate(files);
    await this.network?.detach(id);
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
    const { files, record } = await this.find(id);
    const state = await runState(files);
    if (state === undefined) throw blocked(id, 'does not run', 'Start it instead.');
    await withQmp(files, pressReset);
    if (state !== 'running') await letRun(files);
    await waitForAgent(files, this.guest(id), this.bootMs(record), (session) => this.greet(id, session));
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
    await this.network?.detach(id);
    await rm(files.running, { force: true });
  }

  async delete(id: string): Promise<void> {
    const files = vmFiles(this.options.home, id);
    await terminate(files);
    await removeVm(this.options.home, files);
    await this.network?.remove(id);
  }

  async reinstall(id: string, image: string, token: string): Promise<void> {
    const { files, record } = await this.find(id);
    if (record.reinstallation !== token) {
      const spec = { ...record.spec, image };
      await removeOtherDisks(files, record);
      const fresh = await this.images.ensure(image);
      const disk = join(files.directory, `disk-${randomUUID().slice(0, 8)}.qcow2`);
      const replaced = await makeDisk(files, this.diskOptions(disk, fresh, spec));
      await this.stop(id);
      // From here on it is the new VM.
      await writeRecord(files, { ...replaced, reinstallation: token });
      await linkMemory(files, fresh, spec);
    }
    const reinstalled = await this.find(id);
    await removeOtherDisks(reinstalled.files, reinstalled.record);
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
    const spec = grown(record.spec, diskGb);
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
    if (!this.network) return readAddresses(files);
    return (await runState(files)) === undefined ? [] : this.network.addresses(id);
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
    return listVms(this.options.home);
  }

  override async greet(id: string, guest: GuestSession): Promise<void> {
    await this.network?.configure(id, guest);
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

  private bootMs({ seed }: VmRecord): number {
    return this.options.bootTimeoutMs ?? (seed ? CLOUD_BOOT_MS : BOOT_MS);
  }

  private diskOptions(disk: string, image: Image, spec: VmSpec): DiskOptions {
    return { disk, image, spec, user: this.options.runAsUser, agent: () => this.images.agentBundle() };
  }

  /** Makes the VM's directory, complete at once: an overlay on the template and, where the machine fits, its memory. */
  private async prepare(files: VmFiles, spec: VmSpec): Promise<void> {
    const image = await this.images.ensure(spec.image);
    const vms = join(this.options.home, 'vms');
    await mkdir(vms, { recursive: true });
    const work = filesIn(join(vms, `.new-${spec.id}-${randomUUID().slice(0, 8)}`), spec.id);
    await makeOwnedDirectory(work.directory, this.options.runAsUser);
    try {
      await writeRecord(work, await makeDisk(work, this.diskOptions(work.disk, image, spec)));
      await linkMemory(work, image, spec);
      await rename(work.directory, files.directory);
    } catch (error) {
      await rm(work.directory, { recursive: true, force: true });
      // Unless the same call, in another worker, was faster.
      if (!(await readRecord(files))) throw error;
    }
  }
}
