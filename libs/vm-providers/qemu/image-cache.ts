import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AgentChannel } from '@longhaul/guest';
import { waitForAgent } from './boot.js';
import { machineArguments, type Machine } from './machine.js';
import { letRun, saveMemory } from './memory.js';
import { launch, terminate } from './process.js';
import { asUser, makeOwnedDirectory, run, runWithProgress } from './programs.js';
import { checkSocketPath, exists, filesIn, type Accelerator } from './vm-files.js';

/** The machine that the warm template is saved from: VMs of this size start in half a second, others boot. */
export const TEMPLATE_SHAPE = { cpus: 1, memoryMb: 1024 };

const KVM_BOOT_MS = 20_000;
const BOOT_MS = 180_000;

export interface ImageCacheOptions {
  directory: string;
  accelerator: 'auto' | Accelerator;
  user: string | undefined;
}

export interface Image {
  /** Folder name below the cache's directory. */
  name: string;
  accelerator: Accelerator;
  /** Directory with disk.qcow2 and memory.zst, which belong together and never change. */
  template: string;
}

type Progress = (line: string) => void;

/**
 * The guest image and its warm template: a VM that has booted once, its memory saved, its disk frozen. Each is built in
 * a temporary folder and appears by a rename; several processes may do so at once, the first one wins.
 */
export class ImageCache {
  private ensured?: Promise<Image>;

  constructor(private readonly options: ImageCacheOptions) {}

  /** Builds what is missing: minutes the first time, milliseconds later. `onProgress` gets a line for each step. */
  ensure(onProgress: Progress = () => {}): Promise<Image> {
    this.ensured ??= this.build(onProgress).catch((error: unknown) => {
      this.ensured = undefined;
      throw error;
    });
    return this.ensured;
  }

  kernelOf(image: string): Pick<Machine, 'kernel' | 'initrd'> {
    const directory = join(this.options.directory, image);
    return { kernel: join(directory, 'vmlinuz'), initrd: join(directory, 'initrd') };
  }

  /** `kvm` only where a guest has really booted with it: on some nested machines it exists and guests hang. */
  async accelerator(): Promise<Accelerator> {
    return (await this.ensure()).accelerator;
  }

  private async build(onProgress: Progress): Promise<Image> {
    const recipe = findRecipe();
    const name = await hashOfTree(recipe);
    await mkdir(this.options.directory, { recursive: true });
    const image = join(this.options.directory, name);
    if (!(await exists(image))) await runWithProgress([join(recipe, 'build.sh'), image], onProgress);

    const version = (await run(['qemu-system-x86_64', '--version'])).split('\n')[0]!;
    const accelerator = await this.chooseAccelerator(name, version, onProgress);
    const template = await this.ensureTemplate(name, version, accelerator, BOOT_MS, onProgress);
    return { name, accelerator, template };
  }

  private async chooseAccelerator(name: string, version: string, onProgress: Progress): Promise<Accelerator> {
    if (this.options.accelerator !== 'auto') return this.options.accelerator;
    const device = await stat('/dev/kvm').catch(() => undefined);
    if (!device) return 'tcg';
    // All that the verdict depends on; somebody who repairs KVM in another way removes the file.
    const dependsOn = [
      version,
      release(),
      cpus()[0]?.model,
      this.options.user,
      device.mode,
      device.uid,
      device.gid,
    ];
    const verdict = join(this.options.directory, `accelerator-${hash(JSON.stringify(dependsOn))}`);
    const known = await readFile(verdict, 'utf8').catch(() => undefined);
    if (known) return known.startsWith('kvm') ? 'kvm' : 'tcg';

    onProgress('Trying whether a guest boots with KVM');
    const works = await this.ensureTemplate(name, version, 'kvm', KVM_BOOT_MS, onProgress).then(
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

  private async ensureTemplate(
    name: string,
    version: string,
    accelerator: Accelerator,
    bootMs: number,
    onProgress: Progress,
  ): Promise<string> {
    const image = join(this.options.directory, name);
    const machine: Machine = { ...TEMPLATE_SHAPE, accelerator, ...this.kernelOf(name) };
    const id = randomUUID();
    const layout = machineArguments(filesIn('/', '-'), { ...machine, kernel: '', initrd: '' });
    const model = accelerator === 'kvm' ? cpus()[0]?.model : '';
    const template = join(image, `warm-${hash(JSON.stringify([version, layout, model]))}`);
    if (await exists(template)) return template;

    onProgress(`Booting the image once to make the warm template (${accelerator})`);
    const work = join(image, `.warm-${randomUUID().slice(0, 8)}`);
    checkSocketPath(work);
    const files = filesIn(work, id);
    await makeOwnedDirectory(work, this.options.user);
    try {
      const { user } = this.options;
      await run(
        asUser(user, [
          'qemu-img',
          'create',
          '-q',
          '-f',
          'qcow2',
          '-b',
          '../root.qcow2',
          '-F',
          'qcow2',
          files.disk,
        ]),
      );
      await launch(files, machine, { user, incoming: false, attached: true });
      await letRun(files);
      const guest = new AgentChannel({ socketPath: files.agent, lockDirectory: files.locks });
      await waitForAgent(files, guest, bootMs);
      // What every VM runs first is read into the page cache, and so comes with the memory.
      const warm = 'setsid true; hostname; ip link; perl -e 1; dd </dev/null; stat /; sync';
      await guest.session((session) => session.run({ path: '/bin/sh', args: ['-c', warm] }, 10_000));
      await saveMemory(files);
      await terminate(files);
      const parts = (await readdir(work)).filter((file) => !['disk.qcow2', 'memory.zst'].includes(file));
      for (const part of parts) await rm(join(work, part), { recursive: true });
      await run(['chmod', '-R', 'a+rX,a-w', work]);
      await rename(work, template).catch(async (error: NodeJS.ErrnoException) => {
        // Another process was faster.
        if (!(await exists(template))) throw error;
      });
    } finally {
      await terminate(files);
      await rm(work, { recursive: true, force: true });
    }
    return template;
  }
}

/** The `images` folder of this source tree, seen from the sources or from `dist`. */
function findRecipe(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'images', 'build.sh'))) {
    if (directory === dirname(directory)) throw new Error('images/build.sh is missing from the installation');
    directory = dirname(directory);
  }
  return join(directory, 'images');
}

async function hashOfTree(directory: string): Promise<string> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const contents = await Promise.all(
    files.sort().map(async (file) => [file.slice(directory.length), await readFile(file, 'utf8')]),
  );
  return hash(JSON.stringify(contents));
}

const hash = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 16);
