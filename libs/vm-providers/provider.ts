import type { GuestChannel, GuestSession } from '@longhaul/guest';

/** What a VM is made of. `id` is a UUID in lower case; sizes are whole numbers in the unit of their name. */
export interface VmSpec {
  id: string;
  /** A DNS label: lower-case letters, digits and inner hyphens, at most 63. */
  hostname: string;
  cpus: number;
  memoryMb: number;
  diskGb: number;
  /** Name or alias of an image in the catalogue (libs/images); there is always a `default`. */
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

/** One way to reach a VM by IP. */
export interface VmAddress {
  family: 4 | 6;
  address: string;
  /**
   * `direct`: whoever routes to it reaches all ports. `forward`: an address of the host, reachable at `ports` only.
   * `private`: the VM's own, which nobody outside of it reaches.
   */
  kind: 'direct' | 'forward' | 'private';
  /** Of a `forward`: which port of the host leads to which one of the guest. */
  ports?: { protocol: 'tcp' | 'udp'; guest: number; host: number }[];
}

/** What the hypervisor knows of a VM; what it does not is left out. Counters run since the VM's process started. */
export interface VmMetrics {
  /** Share of its virtual CPUs' time that it used while being looked at (a moment), 0 to 100. */
  cpuPercent?: number;
  /** Memory that the guest was given. */
  memoryBytes?: number;
  /** Memory of the host that it takes at present. */
  hostMemoryBytes?: number;
  /** Size of the disk as the guest sees it. */
  diskBytes?: number;
  /** What the disk takes on the host, without what it shares with its image. */
  hostDiskBytes?: number;
  diskReadBytes?: number;
  diskWrittenBytes?: number;
  networkReceivedBytes?: number;
  networkSentBytes?: number;
}

/**
 * `create`: create, delete. `power`: start, stop, shutdown, reset. `suspend`. `reinstall`. `resize`: resize, growDisk.
 * A provider without an ability throws `vm_state_blocked` from its methods. The others every provider has.
 */
export type VmAbility = 'create' | 'power' | 'suspend' | 'reinstall' | 'resize';

/**
 * A back end that makes VMs. Whatever the worker dies in, the same call repeated by another worker completes it: every
 * call is idempotent, and none of them keeps state in the process. Calls that change one VM are serialised by the
 * caller. Errors: `vm_not_found` for an id that was never created (but not from observe, stop and delete),
 * `vm_state_blocked` when the VM's power state does not allow the call, `guest_unreachable` when the guest does not
 * answer in time, `unavailable` when the hypervisor does not.
 */
export abstract class VmProvider {
  abstract readonly name: string;

  abstract readonly abilities: ReadonlySet<VmAbility>;

  /** Address of our API (scheme and authority) as the guests of this provider see it; undefined where they do not reach it. */
  abstract readonly guestApiUrl?: string;

  /** Rejects when the back end is away, so that no VM could be made. Where there is nothing to ask, all is well. */
  async check(_signal: AbortSignal): Promise<void> {}

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

  /**
   * A new disk from an image instead of the old one, which is gone for good; afterwards the VM runs and its guest answers,
   * with the hostname, CPUs, memory and disk size that it had. In whatever power state it was; its memory is lost.
   * `token` names this one reinstallation (the job's id, at most 100 characters): repeated with the token of the last
   * one that was completed, it only starts the VM, and what was written since stays. A failure before the new disk is
   * complete leaves the VM switched off, with its old disk. Errors: `image_not_found`; `invalid_arguments` when the
   * disk is too small for the image; `unavailable` when the image cannot be fetched; `guest_unreachable` when the new disk is
   * there and its guest does not answer.
   */
  abstract reinstall(id: string, image: string, token: string): Promise<void>;

  /** CPUs (1 to 64) and memory (256 to 1048576 MiB) from the next start on. Unless they are so already, only while the VM is off (`isOff`); else `vm_state_blocked`. */
  abstract resize(id: string, size: { cpus: number; memoryMb: number }): Promise<void>;

  /**
   * Grows the disk, in any power state: a guest that runs sees it at once. Partition and file system are the guest's own
   * affair. The present size changes nothing; a smaller one is `invalid_arguments`.
   */
  abstract growDisk(id: string, diskGb: number): Promise<void>;

  /** The name that a reinstalled guest gets. What the guest calls itself now does not change. */
  abstract rename(id: string, hostname: string): Promise<void>;

  /** Where the VM is reached while it runs; none while it does not. */
  abstract addresses(id: string): Promise<VmAddress[]>;

  /** Takes a moment, as CPU time is measured over one. Of a VM that does not run: sizes only. */
  abstract metrics(id: string): Promise<VmMetrics>;

  /** Changes nothing and does not throw for an unknown id. */
  abstract observe(id: string): Promise<VmObservation>;

  /** Ids of all VMs of this provider on this host. */
  abstract list(): Promise<string[]>;

  /**
   * Tells a guest that has booted what it cannot know: its address, say. `create`, `start` and `reset` have done so; it is for
   * a guest that rebooted by itself. Repeatable.
   */
  async greet(_id: string, _guest: GuestSession): Promise<void> {}

  /** The way into a VM. Does not check that the VM exists: its sessions fail with `guest_unreachable`. */
  abstract guest(id: string): GuestChannel;
}
