import {
  type NamespaceAgentOptions,
  namespaceAgentLacks,
  startNamespaceAgent,
} from '../../test/support/namespace-agent.js';
import { describeGuestChannel } from './channel.contract.js';
import { describeCommands } from './command.contract.js';

function inNamespace(name: string, options: NamespaceAgentOptions, suite: typeof describeCommands): void {
  const lacks = namespaceAgentLacks(options);
  if (lacks) it.skip(`${name}: not tested here, as that needs ${lacks}`, () => {});
  else suite(name, () => startNamespaceAgent(options));
}

inNamespace('guest agent in a namespace', {}, describeGuestChannel);
inNamespace('with control groups', { cgroups: true }, describeCommands);
inNamespace('without control groups', {}, describeCommands);
inNamespace('with the tools of busybox', { busybox: true, cgroups: true }, describeCommands);
