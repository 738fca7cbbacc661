import { join } from 'node:path';
import { AppError } from '@longhaul/errors';
import { GuestChannel, type GuestSession, type SessionOptions } from '@longhaul/guest';
import {
  VmProvider,
  type VmAbility,
  type VmAddress,
  type VmMetrics,
  type VmObservation,
} from '../provider.js';
import { vmNotFound } from '../qemu/vm-files.js';
import type { Machines } from './connections.js';

export interface AdoptedOptions<Connection> {
  machines: Machines<Connection>;
  /** Folder of this host's VMs; the locks are below it. */
  home: string;
}

/**
 * What providers of machines that others made have in common: they can do little, and what they cannot is
 * `vm_state_blocked`. No machine is ever touched more than is said at each method.
 */
export abstract class AdoptedProvider<Connection> extends VmProvider {
  override readonly abilities: ReadonlySet<VmAbility> = new Set();
  override readonly guestApiUrl = undefined;
  /** By id: how the machine is reached, as text, and the channel to it. */
  private readonly channels = new Map<string, { connection: string; channel: GuestChannel }>();

  constructor(protected readonly options: AdoptedOptions<Connection>) {
    super();
  }

  protected abstract open(id: string, connection: Connection): GuestChannel;
  /** Ends what a channel holds, when it is replaced. */
  protected abstract leave(channel: GuestChannel): void;

  /** Where there is only a channel, nobody knows more than that it is there: were it said to be off, its commands would be given up. */
  async observe(id: string): Promise<VmObservation> {
    return { power: (await this.options.machines.find(id)) ? 'running' : 'absent' };
  }

  create(): Promise<void> {
    return Promise.reject(
      new AppError('vm_state_blocked', 'Machines of this kind are adopted, not made: longhaul vm adopt.'),
    );
  }

  start(id: string): Promise<void> {
    return this.refuse(id, 'be switched on');
  }

  stop(id: string): Promise<void> {
    return this.refuse(id, 'be switched off');
  }

  shutdown(id: string, _timeoutMs: number): Promise<boolean> {
    return this.refuse(id, 'be shut down');
  }

  reset(id: string): Promise<void> {
    return this.refuse(id, 'be reset');
  }

  suspend(id: string): Promise<void> {
    return this.refuse(id, 'be suspended');
  }

  delete(id: string): Promise<void> {
    return this.refuse(id, 'be deleted');
  }

  reinstall(id: string): Promise<void> {
    return this.refuse(id, 'be installed anew');
  }

  resize(id: string): Promise<void> {
    return this.refuse(id, 'get another size');
  }

  growDisk(id: string): Promise<void> {
    return this.refuse(id, 'get a larger disk');
  }

  /** The name is in the row only. */
  async rename(id: string): Promise<void> {
    await this.found(id);
  }

  async addresses(id: string): Promise<VmAddress[]> {
    await this.found(id);
    return [];
  }

  async metrics(id: string): Promise<VmMetrics> {
    await this.found(id);
    return {};
  }

  list(): Promise<string[]> {
    return this.options.machines.ids();
  }

  guest(id: string): GuestChannel {
    return new LateChannel(() => this.channel(id));
  }

  protected async found(id: string): Promise<Connection> {
    const connection = await this.options.machines.find(id);
    if (!connection) throw vmNotFound(id);
    return connection;
  }

  protected lockDirectory(id: string): string {
    return join(this.options.home, 'locks', id);
  }

  /** Nothing happens to an id that nobody has adopted, as with every provider. */
  private async refuse<T>(id: string, what: string): Promise<T> {
    await this.found(id);
    throw new AppError(
      'vm_state_blocked',
      `This machine cannot ${what} from here, as it was adopted: use what it was made with.`,
    );
  }

  /** One channel a machine, so that a login can be kept. */
  private async channel(id: string): Promise<GuestChannel> {
    const found = await this.options.machines.find(id);
    if (!found) throw new AppError('guest_unreachable', 'The VM is not there any more.');
    const connection = JSON.stringify(found);
    const known = this.channels.get(id);
    if (known?.connection === connection) return known.channel;
    if (known) this.leave(known.channel);
    const channel = this.open(id, found);
    this.channels.set(id, { connection, channel });
    return channel;
  }
}

/** A channel whose way is looked up when it is used. */
class LateChannel extends GuestChannel {
  constructor(private readonly channel: () => Promise<GuestChannel>) {
    super();
  }

  async session<T>(use: (guest: GuestSession) => Promise<T>, options?: SessionOptions): Promise<T> {
    return (await this.channel()).session(use, options);
  }
}
