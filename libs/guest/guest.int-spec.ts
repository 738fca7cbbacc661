import { namespaceAgentLacks, startNamespaceAgent } from '../../test/support/namespace-agent.js';
import { describeGuestChannel } from './channel.contract.js';

const lacks = namespaceAgentLacks();
if (lacks) it.skip(`guest agent in a namespace: not tested, needs ${lacks}`, () => {});
else describeGuestChannel('QEMU guest agent in a namespace', () => startNamespaceAgent());
