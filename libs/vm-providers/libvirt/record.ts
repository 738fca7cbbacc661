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
