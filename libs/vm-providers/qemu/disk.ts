import { readdir, rm, symlink } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import type { VmSpec } from '../provider.js';
import type { Image } from './image-cache.js';
import { asUser, run } from './programs.js';
import { withQmp } from './qmp.js';
import { makeSeed } from './seed.js';
import { TEMPLATE_SHAPE } from './template.js';
import { sync, type VmFiles, type VmRecord } from './vm-files.js';

export interface DiskOptions {
  /** Path of the disk to be, in the VM's folder. What goes with it has the same name with another ending. */
  disk: string;
  image: Image;
  spec: VmSpec;
  /** The user that QEMU runs as. */
  user: string | undefined;
  /** Path of the agent that a cloud image gets. */
  agent: () => Promise<string>;
}

/** A disk over the image's, on disk for good, and the record of a VM that has it. Errors: `invalid_arguments` for one that is too small. */
export async function makeDisk(files: VmFiles, options: DiskOptions): Promise<VmRecord> {
  const { disk, image, spec, user } = options;
  const { name, accelerator, diskGb } = image;
  if (spec.diskGb < diskGb)
    throw new AppError('invalid_arguments', `diskGb must be at least ${diskGb} for the image ${spec.image}.`);
  const base = relative(files.directory, image.disk);
  const create = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, disk];
  await run(asUser(user, [...create, `${spec.diskGb}G`]));
  await sync(disk);
  const isLarger = spec.diskGb > diskGb;
  const record = { spec, image: name, accelerator, disk: basename(disk), isLarger, personalised: false };
  failpoint('disk-made');
  if (!image.isCloud) return record;
  const seed = disk.replace(/qcow2$/, 'iso');
  await makeSeed(seed, { spec, agent: await options.agent(), user });
  await sync(seed);
  return { ...record, seed: basename(seed) };
}

/** Gives a VM that never ran the memory of its image's template, where the machine fits. */
export async function linkMemory(
  files: VmFiles,
  { memory }: Image,
  { cpus, memoryMb }: VmSpec,
): Promise<void> {
  if (!memory || cpus !== TEMPLATE_SHAPE.cpus || memoryMb !== TEMPLATE_SHAPE.memoryMb) return;
  await symlink(relative(files.directory, memory), files.memory);
}

/** Gives the disk of a VM that has a process the size of its record. Changes nothing where it has that size. */
export async function matchDiskSize(files: VmFiles, { spec }: VmRecord): Promise<void> {
  const size = spec.diskGb * 2 ** 30;
  await withQmp(files, (qmp) => qmp.execute('block_resize', { device: 'root', size }));
}

/** Removes the disks that were replaced, and those that were never finished. */
export async function removeOtherDisks(files: VmFiles, { disk, seed }: VmRecord): Promise<void> {
  const names = await readdir(files.directory);
  const others = names.filter((name) => /^disk.*\.(qcow2|iso)/.test(name) && ![disk, seed].includes(name));
  for (const name of others) await rm(join(files.directory, name), { recursive: true, force: true });
}
