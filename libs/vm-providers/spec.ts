import { AppError } from '@longhaul/errors';
import type { VmSpec } from './provider.js';

/** Throws `invalid_arguments`, with all that is wrong, for what no VM can be made of. The image is for the catalogue to judge. */
export function checkSpec(spec: VmSpec): void {
  const faults = [
    !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(spec.hostname) && 'hostname must be a DNS label',
    !isWithin(spec.cpus, 1, 64) && 'cpus must be 1 to 64',
    !isWithin(spec.memoryMb, 256, 1 << 20) && 'memoryMb must be 256 to 1048576',
    !isWithin(spec.diskGb, 1, 16_384) && 'diskGb must be 1 to 16384',
  ].filter((fault) => fault !== false);
  if (faults.length > 0) throw new AppError('invalid_arguments', `${faults.join('; ')}.`);
}

/** The spec with a larger disk. Errors: `invalid_arguments`, for a smaller one too. */
export function grown(spec: VmSpec, diskGb: number): VmSpec {
  const larger = { ...spec, diskGb };
  checkSpec(larger);
  if (diskGb >= spec.diskGb) return larger;
  throw new AppError('invalid_arguments', `The disk has ${spec.diskGb} GB and cannot shrink.`);
}

const isWithin = (value: number, least: number, most: number) =>
  Number.isInteger(value) && value >= least && value <= most;

/** `what` ends the sentence that begins with the VM; `advice` is one of its own. */
export const blocked = (id: string, what: string, advice: string) =>
  new AppError('vm_state_blocked', `VM ${id} ${what}. ${advice}`);
