import type { GuestChannel } from '@longhaul/guest';

/** What a VM is made of. `id` is a UUID in lower case; sizes are whole numbers in the unit of their name. */
export interface VmSpec {
  id: string;
  /** A DNS label: lower-case letters, digits and inner hyphens, at most 63. */
  hostname: string;
  cpus: number;
  memoryMb: number;
  diskGb: number;
  /** Name of an image that the provider knows; every provider knows `default`. */
  image: string;
}

export interface VmObservation {
  /**
   * `paused`: there but not executing, `start` continues it. `suspended`: memory on disk, `start` resumes it.
   * `crashed`: ended without having been told to. `absent`: never created, or deleted.
   */
  power: 'running' | 'paused' | 'stopped' | 'suspended' | 'crashed' | 'absent';
  accelerator?: 'kvm' | 'tcg';
}

/** Whether nothing of the guest's memory is left: what ran in it runs no more. */
export const isOff = ({ power }: VmObservation) =>
  power === 'stopped' || power === 'crashed' || power === 'absent';

/**
 * A back end that makes VMs. Whatever the worker dies in, the same call repeated by another worker completes it: every
 * call is idempotent, and none of them keeps state in the process. Calls that change one VM are serialised by the
 * caller. Errors: `vm_not_found` for an id that was never created (but not from observe, stop and delete),
 * `vm_state_blocked` when the VM's power state does not allow the call, `guest_unreachable` when the guest does not
 * answer in time, `unavailable` when the hypervisor does not.
 */
export abstract class VmProvider {
  abstract readonly name: string;

  /** Afterwards the VM runs and its guest answers. A second call with the same id does not look at the rest of the spec. */
  abstract create(spec: VmSpec): Promise<void>;

  /** Boots a stopped VM, resumes a suspended one, continues a paused one. Returns when the guest answers. */
  abstract start(id: string): Promise<void>;

  /** Pulls the plug; a suspended VM loses its memory. */
  abstract stop(id: string): Promise<void>;

  /** Asks the guest to power off. False when it has not done so within `timeoutMs`: then it runs on. */
  abstract shutdown(id: string, timeoutMs: number): Promise<boolean>;

  /** The reset button. Returns when the guest answers from its new boot. */
  abstract reset(id: string): Promise<void>;

  /** Memory to disk, process gone. The next start resumes it, exactly once; commands inside go on. */
  abstract suspend(id: string): Promise<void>;

  /** Ends the VM and removes all of its data. */
  abstract delete(id: string): Promise<void>;

  /** Changes nothing and does not throw for an unknown id. */
  abstract observe(id: string): Promise<VmObservation>;

  /** Ids of all VMs of this provider on this host. */
  abstract list(): Promise<string[]>;

  /** The way into a VM. Does not check that the VM exists: its sessions fail with `guest_unreachable`. */
  abstract guest(id: string): GuestChannel;
}
