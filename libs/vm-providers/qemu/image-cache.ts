import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { imagesFolder, loadCatalog, type ImageEntry } from '@longhaul/images';
import { ensureCloudImage, nameOfCloudImage } from './cloud-image.js';
import { hash, hashOfFiles } from './hash.js';
import type { Machine } from './machine.js';
import { run, runWithProgress } from './programs.js';
import { ensureTemplate, TEMPLATE_SHAPE } from './template.js';
import { exists, type Accelerator } from './vm-files.js';

const KVM_BOOT_MS = 20_000;
const BOOT_MS = 180_000;

export interface ImageCacheOptions {
  directory: string;
  /** File of the operator's own images. */
  catalog: string | undefined;
  accelerator: 'auto' | Accelerator;
  user: string | undefined;
}

export interface Image {
  /** Folder name below the cache's directory. */
  name: string;
  accelerator: Accelerator;
  /** What the disks of VMs lie on. It never changes. */
  disk: string;
  /** Memory of a machine of TEMPLATE_SHAPE that has booted from that very disk. */
  memory?: string;
  /** Size of the disk. */
  diskGb: number;
  /** Set up by cloud-init; else by us (see personalise). */
  isCloud: boolean;
}

type Progress = (line: string) => void;

/** The images of the catalogue on this host: built or fetched when they are first asked for. */
export class ImageCache {
  private readonly ensured = new Map<string, Promise<Image>>();

  constructor(private readonly options: ImageCacheOptions) {}

  /**
   * Makes what is missing of an image, given by name or alias: minutes the first time, milliseconds later. `onProgress`
   * gets a line for each step. Errors: `image_not_found`; `unavailable` for one that cannot be fetched.
   */
  async ensure(wanted: string, onProgress: Progress = () => {}): Promise<Image> {
    const entry = (await loadCatalog(this.options.catalog)).find(wanted);
    const key = JSON.stringify(entry);
    const known = this.ensured.get(key);
    if (known) return known;
    const ensuring = this.make(entry, onProgress).catch((error: unknown) => {
      this.ensured.delete(key);
      throw error;
    });
    this.ensured.set(key, ensuring);
    return ensuring;
  }

  /** How an image is booted: a cloud image by what its disk says. */
  async kernelOf(image: string): Promise<Pick<Machine, 'kernel' | 'initrd'>> {
    const directory = join(this.options.directory, image);
    const kernel = join(directory, 'vmlinuz');
    return (await exists(kernel)) ? { kernel, initrd: join(directory, 'initrd') } : {};
  }

  /** A guest agent for images without one, as tar: its path. */
  async agentBundle(): Promise<string> {
    const busybox = (await loadCatalog()).find('busybox');
    return join(this.options.directory, await this.build(busybox, () => {}), 'agent.tar.gz');
  }

  /** `kvm` only where a guest has really booted with it: on some nested machines it exists and guests hang. */
  async accelerator(onProgress: Progress = () => {}): Promise<Accelerator> {
    if (this.options.accelerator !== 'auto') return this.options.accelerator;
    const device = await stat('/dev/kvm').catch(() => undefined);
    if (!device) return 'tcg';
    const { mode, uid, gid } = device;
    // All that the verdict depends on; somebody who repairs KVM in another way removes the file.
    const dependsOn = [await qemuVersion(), release(), cpus()[0]?.model, this.options.user, mode, uid, gid];
    const verdict = join(this.options.directory, `accelerator-${hash(JSON.stringify(dependsOn))}`);
    const known = await readFile(verdict, 'utf8').catch(() => undefined);
    if (known) return known.startsWith('kvm') ? 'kvm' : 'tcg';

    const image = await this.build((await loadCatalog()).find('default'), onProgress);
    onProgress('Trying whether a guest boots with KVM');
    const works = await this.template(image, 'kvm', KVM_BOOT_MS, onProgress).then(
      () => true,
      (error: Error) => {
        onProgress(`KVM does not work here, guests are emulated (${error.message.slice(0, 200)})`);
        return false;
      },
    );
    await writeFile(`${verdict}.${process.pid}`, works ? 'kvm\n' : 'tcg\n');
    await rename(`${verdict}.${process.pid}`, verdict);
    return works ? 'kvm' : 'tcg';
  }

  private async make({ source, ...entry }: ImageEntry, onProgress: Progress): Promise<Image> {
    await mkdir(this.options.directory, { recursive: true });
    const isCloud = !('recipe' in source);
    const name = await (isCloud ? nameOfCloudImage(source) : this.build({ source, ...entry }, onProgress));
    const folder = join(this.options.directory, name);
    if (isCloud) await ensureCloudImage(folder, source, onProgress);
    const accelerator = await this.accelerator(onProgress);
    const disk = join(folder, 'root.qcow2');
    const image = { name, accelerator, isCloud, disk, diskGb: Math.max(entry.disk_gb, await sizeGb(disk)) };
    if (isCloud || !source.warm) return image;
    const template = await this.template(name, accelerator, BOOT_MS, onProgress);
    return { ...image, disk: join(template, 'disk.qcow2'), memory: join(template, 'memory.zst') };
  }

  /** Runs an image's recipe, unless it was run before in its present form; returns the name of the folder. */
  private async build({ name, source }: ImageEntry, onProgress: Progress): Promise<string> {
    if (!('recipe' in source)) throw new Error(`${name} is not built here`);
    const recipes = imagesFolder();
    const words = [source.recipe, ...source.arguments];
    const folder = await hashOfFiles(recipes, ['build.sh', 'rootfs', source.recipe], words);
    await mkdir(this.options.directory, { recursive: true });
    const image = join(this.options.directory, folder);
    if (!(await exists(image)))
      await runWithProgress([join(recipes, 'build.sh'), image, ...words], onProgress);
    return folder;
  }

  private async template(name: string, accelerator: Accelerator, bootMs: number, onProgress: Progress) {
    const machine = { ...TEMPLATE_SHAPE, accelerator, ...(await this.kernelOf(name)) };
    const image = join(this.options.directory, name);
    const { user } = this.options;
    return ensureTemplate({ image, machine, version: await qemuVersion(), user, bootMs, onProgress });
  }
}

const qemuVersion = async () => (await run(['qemu-system-x86_64', '--version'])).split('\n')[0]!;

async function sizeGb(disk: string): Promise<number> {
  const info = JSON.parse(await run(['qemu-img', 'info', '--output=json', disk])) as {
    'virtual-size': number;
  };
  return Math.ceil(info['virtual-size'] / 2 ** 30);
}
