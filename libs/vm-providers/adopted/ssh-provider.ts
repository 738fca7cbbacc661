import { lookup } from 'node:dns/promises';
import { SshChannel, type GuestChannel, type SshTarget } from '@longhaul/guest';
import type { VmAddress } from '../provider.js';
import { AdoptedProvider } from './adopted-provider.js';

/** Machines of any kind that are reached by SSH, and by nothing else. */
export class SshProvider extends AdoptedProvider<SshTarget> {
  override readonly name = 'ssh';

  override async addresses(id: string): Promise<VmAddress[]> {
    const { host } = await this.found(id);
    const found = await lookup(host, { all: true }).catch(() => []);
    return found.map(({ address, family }) => ({ family: family === 6 ? 6 : 4, address, kind: 'direct' }));
  }

  protected open(id: string, target: SshTarget): GuestChannel {
    return new SshChannel({ ...target, lockDirectory: this.lockDirectory(id) });
  }

  protected leave(channel: GuestChannel): void {
    (channel as SshChannel).close();
  }
}
