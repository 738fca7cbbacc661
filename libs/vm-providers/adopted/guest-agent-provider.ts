import { AgentChannel, type GuestChannel } from '@longhaul/guest';
import type { VmObservation } from '../provider.js';
import { AdoptedProvider } from './adopted-provider.js';
import type { GuestAgentConnection } from './connections.js';

/** VMs of any hypervisor that are reached by the socket of their guest agent, and by nothing else. */
export class GuestAgentProvider extends AdoptedProvider<GuestAgentConnection> {
  override readonly name = 'guest-agent';

  /** Nobody here knows more than that it is there, as with SSH. */
  async observe(id: string): Promise<VmObservation> {
    return { power: (await this.options.machines.find(id)) ? 'running' : 'absent' };
  }

  protected open(id: string, { agent }: GuestAgentConnection): GuestChannel {
    return new AgentChannel({ socketPath: agent, lockDirectory: this.lockDirectory(id) });
  }

  protected leave(): void {}
}
