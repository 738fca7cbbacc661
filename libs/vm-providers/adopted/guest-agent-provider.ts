import { AgentChannel, type GuestChannel } from '@longhaul/guest';
import { AdoptedProvider } from './adopted-provider.js';
import type { GuestAgentConnection } from './connections.js';

/** VMs of any hypervisor that are reached by the socket of their guest agent, and by nothing else. */
export class GuestAgentProvider extends AdoptedProvider<GuestAgentConnection> {
  override readonly name = 'guest-agent';

  protected open(id: string, { agent }: GuestAgentConnection): GuestChannel {
    return new AgentChannel({ socketPath: agent, lockDirectory: this.lockDirectory(id) });
  }

  protected leave(): void {}
}
