import { AppError } from '@longhaul/errors';
import type { VmSpec } from '../provider.js';
import type { Image } from '../qemu/image-cache.js';
import type { Accelerator } from '../qemu/vm-files.js';

/** What is kept beside the disk of a domain that we made. */
export interface DomainRecord {
  spec: VmSpec;
  /** Folder name in the image cache. */
  image: string;
  accelerator: Accelerator;
  isLarger: boolean;
  personalised: boolean;
  /** Of the last one that was completed. */
  reinstallation?: string;
}

export const recordOf = (spec: VmSpec, image: Image): DomainRecord => ({
  spec,
  image: image.name,
  accelerator: image.accelerator,
  isLarger: spec.diskGb > image.diskGb,
  personalised: false,
});

/** Throws `invalid_arguments` for what no VM can be. */
export function checkSpec(spec: VmSpec): void {
  const isWithin = (value: number, least: number, most: number) =>
    Number.isInteger(value) && value >= least && value <= most;
  const faults = [
    !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(spec.hostname) && 'hostname must be a DNS label',
    !isWithin(spec.cpus, 1, 64) && 'cpus must be 1 to 64',
    !isWithin(spec.memoryMb, 256, 1 << 20) && 'memoryMb must be 256 to 1048576',
    !isWithin(spec.diskGb, 1, 16_384) && 'diskGb must be 1 to 16384',
  ].filter((fault) => fault !== false);
  if (faults.length > 0) throw new AppError('invalid_arguments', `${faults.join('; ')}.`);
}
