import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { AppError } from '@longhaul/errors';
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
import { GREETING_MS, personalise, setClock, tryGreeting } from '../qemu/boot.js';
import { ImageCache, type Image } from '../qemu/image-cache.js';
import { GUEST_ADDRESS } from '../qemu/machine.js';
import { asUser, makeOwnedDirectory, poll, run } from '../qemu/programs.js';
import { exists, isVmId, vmNotFound, type Accelerator } from '../qemu/vm-files.js';
import { blocked, checkSpec, grown } from '../spec.js';
import { LibvirtAgent } from './agent.js';
import { domainXml, type LibvirtNetwork } from './domain.js';
import { parseAddresses, readMetrics, readState } from './readings.js';
import { recordOf, type DomainRecord } from './record.js';
import { NoDomain, Virsh, VirshRefusal } from './virsh.js';

export interface LibvirtOptions {
  /** As virsh takes it, of this host: disks are files here. */
  uri: string;
  /** LONGHAUL_HOME, absolute. Disks are below `libvirt/<id>`. */
  home: string;
  imagesDirectory: string;
  /** File of the operator's own images. */
  imageCatalog?: string;
  accelerator: 'auto' | Accelerator;
  /** Whom a session URI belongs to, when we are root. */
  runAsUser?: string;
  network?: LibvirtNetwork;
  /** How long a guest may take from power-on to its first answer, milliseconds. Default 180 s. */
  bootTimeoutMs?: number;
}

const SAVE_MS = 10 * 60_000;

/**
 * VMs as domains of libvirt, known by their uuid. A domain that somebody else has made can be looked at, switched and
 * entered by its uuid too; to change what it is made of is for those that we have made.
 */
export class LibvirtProvider extends VmProvider {
  readonly name = 'libvirt';
  readonly abilities = new Set<VmAbility>(['create', 'power', 'suspend', 'reinstall', 'resize']);
  /** Nothing leads guests to the API: files are pushed to them. */
  readonly guestApiUrl?: string;
  private readonly virsh: Virsh;
  private readonly images: ImageCache;
  private readonly user: string | undefined;
  private readonly bootMs: number;

  constructor(private readonly options: LibvirtOptions) {
    super();
    this.user = /\/session\b/.test(options.uri) ? options.runAsUser : undefined;
    this.virsh = new Virsh(options.uri, this.user);
    const { imagesDirectory: directory, imageCatalog: catalog, accelerator, runAsUser: user } = options;
    this.images = new ImageCache({ directory, catalog, accelerator, user });
    this.bootMs = options.bootTimeoutMs ?? 180_000;
  }

  override async check(signal: AbortSignal): Promise<void> {
    await this.virsh.run(['version'], { signal });
  }

  async create(spec: VmSpec): Promise<void> {
    checkSpec(spec);
    if (!isVmId(spec.id)) throw vmNotFound(spec.id);
    const directory = this.directory(spec.id);
    if (!(await this.record(spec.id))) {
      const image = await this.imageOf(spec);
      await mkdir(join(this.options.home, 'libvirt'), { recursive: true });
      await makeOwnedDirectory(directory, this.user);
      await this.makeDisk(spec, image, 'disk.qcow2');
      await this.writeRecord(spec.id, recordOf(spec, image));
    }
    await this.define(spec.id);
    await this.start(spec.id);
  }

  async start(id: string): Promise<void> {
    const state = await this.state(id);
    if (state.power === 'absent') throw vmNotFound(id);
    const resumes = state.power === 'suspended' || state.power === 'paused';
    if (state.power === 'paused') await this.virsh.run(['resume', id]);
    else if (state.power !== 'running') {
      await this.virsh.run(['start', id], { timeoutMs: SAVE_MS });
      if ((await this.state(id)).power === 'paused') await this.virsh.run(['resume', id]);
    }
    const record = await this.record(id);
    const isNew = record && !record.personalised;
    await this.waitForAgent(id, (session) => {
      if (isNew) return personalise(session, record);
      return resumes ? setClock(session) : session.ping();
    });
    if (isNew) await this.writeRecord(id, { ...record, personalised: true });
  }

  async stop(id: string): Promise<void> {
    const { power } = await this.state(id);
    if (power === 'suspended') await this.virsh.run(['managedsave-remove', id]);
    if (power === 'running' || power === 'paused') {
      await this.virsh.run(['destroy', id]).catch(async (error: unknown) => {
        // It ended by itself meanwhile.
        if (!(error instanceof VirshRefusal) || !isOff(await this.state(id))) throw error;
      });
    }
  }

  async shutdown(id: string, timeoutMs: number): Promise<boolean> {
    const { power } = await this.state(id);
    if (power === 'absent') throw vmNotFound(id);
    if (isOff({ power })) return true;
    if (power !== 'running') throw blocked(id, `is ${power}`, 'Start it first.');
    await this.virsh.run(['shutdown', id, '--mode', 'acpi']);
    const off = await poll(async () => isOff(await this.state(id)) || undefined, timeoutMs, 200);
    return off ?? false;
  }

  async reset(id: string): Promise<void> {
    const { power } = await this.state(id);
    if (power === 'absent') throw vmNotFound(id);
    if (power !== 'running' && power !== 'paused') throw blocked(id, 'does not run', 'Start it instead.');
    const bootId = (session: GuestSession) => session.readFile('/proc/sys/kernel/random/boot_id', 0, 100);
    const before = await this.guest(id)
      .session(bootId)
      .catch(() => undefined);
    await this.virsh.run(['reset', id]);
    if (power === 'paused') await this.virsh.run(['resume', id]);
    await this.waitForAgent(id, async (session) => {
      const now = await bootId(session);
      if (before && now?.data.equals(before.data))
        throw new AppError('guest_unreachable', `The guest of VM ${id} has not been reset yet.`);
    });
  }

  async suspend(id: string): Promise<void> {
    const { power } = await this.state(id);
    if (power === 'suspended') return;
    if (power === 'absent') throw vmNotFound(id);
    if (power !== 'running' && power !== 'paused')
      throw blocked(id, 'does not run', 'Only a running VM has a memory to keep.');
    await this.virsh.run(['managedsave', id, '--running'], { timeoutMs: SAVE_MS });
  }

  async delete(id: string): Promise<void> {
    if (!isVmId(id) || !(await exists(this.directory(id)))) return;
    await this.stop(id);
    await this.virsh.run(['undefine', id, '--managed-save', '--nvram']).catch((error: unknown) => {
      if (!(error instanceof NoDomain)) throw error;
    });
    await rm(this.directory(id), { recursive: true, force: true });
    await rm(this.locks(id), { recursive: true, force: true });
  }

  async reinstall(id: string, image: string, token: string): Promise<void> {
    const record = await this.ours(id);
    if (record.reinstallation !== token) {
      const spec = { ...record.spec, image };
      checkSpec(spec);
      const source = await this.imageOf(spec);
      const disk = await this.makeDisk(spec, source, 'disk.new');
      await this.stop(id);
      await rename(disk, this.disk(id));
      await this.writeRecord(id, { ...recordOf(spec, source), reinstallation: token });
    }
    await this.define(id);
    await this.start(id);
  }

  async resize(id: string, { cpus, memoryMb }: { cpus: number; memoryMb: number }): Promise<void> {
    const record = await this.ours(id);
    const spec = { ...record.spec, cpus, memoryMb };
    checkSpec(spec);
    if (cpus !== record.spec.cpus || memoryMb !== record.spec.memoryMb) {
      const { power } = await this.state(id);
      if (!isOff({ power })) throw blocked(id, `is ${power}`, 'Stop it first.');
      await this.writeRecord(id, { ...record, spec });
    }
    await this.define(id);
  }

  async growDisk(id: string, diskGb: number): Promise<void> {
    const record = await this.ours(id);
    const spec = grown(record.spec, diskGb);
    const { power } = await this.state(id);
    if (power === 'running' || power === 'paused')
      await this.virsh.run(['blockresize', id, 'vda', `${diskGb}G`]);
    else await run(asUser(this.user, ['qemu-img', 'resize', '-q', this.disk(id), `${diskGb}G`]));
    await this.writeRecord(id, { ...record, spec });
  }

  async rename(id: string, hostname: string): Promise<void> {
    const record = await this.ours(id);
    const spec = { ...record.spec, hostname };
    checkSpec(spec);
    await this.writeRecord(id, { ...record, spec });
    await this.define(id);
  }

  async addresses(id: string): Promise<VmAddress[]> {
    const { power } = await this.state(id);
    if (power === 'absent') throw vmNotFound(id);
    if (power !== 'running') return [];
    const isOurs = (await this.record(id)) !== undefined;
    if (isOurs && this.network.kind === 'user')
      return [{ family: 4, address: GUEST_ADDRESS, kind: 'private' }];
    // Who leases them knows better than the guest; without one, only the guest knows.
    const source = isOurs && this.network.kind === 'network' ? 'lease' : 'agent';
    return parseAddresses(await this.virsh.run(['domifaddr', id, '--full', '--source', source]));
  }

  async metrics(id: string): Promise<VmMetrics> {
    if (!isVmId(id)) throw vmNotFound(id);
    return readMetrics(this.virsh, id).catch((error: unknown) => {
      throw error instanceof NoDomain ? vmNotFound(id) : error;
    });
  }

  async observe(id: string): Promise<VmObservation> {
    return this.state(id);
  }

  async list(): Promise<string[]> {
    const names = await readdir(join(this.options.home, 'libvirt')).catch(() => []);
    return names.filter(isVmId);
  }

  guest(id: string): GuestChannel {
    const open = async (answerMs: number, over: AbortSignal) => {
      if (!isVmId(id)) throw vmNotFound(id);
      const agent = new LibvirtAgent(this.virsh, id, answerMs, over);
      await agent.call('guest-ping');
      return agent;
    };
    return new AgentChannel({ open, lockDirectory: this.locks(id) });
  }

  private get network(): LibvirtNetwork {
    return this.options.network ?? { kind: 'user' };
  }

  private state = (id: string) => readState(this.virsh, id);
  private directory = (id: string) => join(this.options.home, 'libvirt', id);
  private disk = (id: string) => join(this.directory(id), 'disk.qcow2');
  private locks = (id: string) => join(this.options.home, 'locks', isVmId(id) ? id : 'none');

  private async record(id: string): Promise<DomainRecord | undefined> {
    const path = join(this.directory(id), 'vm.json');
    if (!isVmId(id) || !(await exists(path))) return undefined;
    return JSON.parse(await readFile(path, 'utf8')) as DomainRecord;
  }

  private async ours(id: string): Promise<DomainRecord> {
    const record = await this.record(id);
    if (record) return record;
    if ((await this.state(id)).power === 'absent') throw vmNotFound(id);
    throw blocked(id, 'was not made by Longhaul', 'Change it with the tools that it was made with.');
  }

  private async writeRecord(id: string, record: DomainRecord): Promise<void> {
    const path = join(this.directory(id), 'vm.json');
    await writeFile(`${path}.new`, JSON.stringify(record, undefined, 2));
    await rename(`${path}.new`, path);
  }

  private async imageOf(spec: VmSpec): Promise<Image> {
    const image = await this.images.ensure(spec.image);
    if (image.isCloud)
      throw new AppError(
        'invalid_arguments',
        `VMs of libvirt are made from images that are built here, not from ${spec.image}.`,
      );
    if (spec.diskGb >= image.diskGb) return image;
    throw new AppError('invalid_arguments', `The image ${spec.image} needs a disk of ${image.diskGb} GB.`);
  }

  /** An empty overlay on the image's disk. */
  private async makeDisk(spec: VmSpec, image: Image, name: string): Promise<string> {
    const directory = this.directory(spec.id);
    const disk = join(directory, name);
    const backing = relative(directory, image.disk);
    const words = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', backing, disk];
    await run(asUser(this.user, [...words, `${spec.diskGb}G`]));
    return disk;
  }

  /** Tells libvirt what the domain is now; to one that runs it applies from its next start on. */
  private async define(id: string): Promise<void> {
    const { spec, image, accelerator } = await this.ours(id);
    const { kernel = '', initrd = '' } = await this.images.kernelOf(image);
    const { network } = this;
    const xml = domainXml({ spec, accelerator, disk: this.disk(id), network, kernel, initrd });
    const file = join(this.directory(id), 'domain.xml');
    await writeFile(file, xml);
    await this.virsh.run(['define', '--validate', file]);
  }

  /** Waits until the agent answers, then does `greet`, which may be repeated. */
  private async waitForAgent(id: string, greet: (session: GuestSession) => Promise<void>): Promise<void> {
    const look = async () =>
      (await tryGreeting(this.guest(id), greet, { holdMs: GREETING_MS })) ??
      (isOff(await this.state(id)) ? false : undefined);
    if (await poll(look, this.bootMs, 500)) return;
    const seconds = Math.round(this.bootMs / 1000);
    const message = `The guest of VM ${id} did not answer within ${seconds} s of being started, or has ended.`;
    throw new AppError('guest_unreachable', message);
  }
}
