import {
  type NamespaceAgentOptions,
  namespaceAgentLacks,
  startNamespaceAgent,
} from '../../test/support/namespace-agent.js';
import { describeFiles } from './files.contract.js';
import { describeInstall } from './install.contract.js';

describeOf('guest agent in a namespace', { cgroups: true }, { serves: true, lacks: true });
describeOf('with the tools of busybox', { busybox: true }, { serves: true });

function describeOf(
  name: string,
  options: NamespaceAgentOptions,
  more: { serves?: boolean; lacks?: boolean },
) {
  const lacks = namespaceAgentLacks(options);
  if (lacks) return it.skip(`${name}: not tested here, as that needs ${lacks}`, () => {});
  describeInstall(name, () => startNamespaceAgent(options), more);
  describeFiles(name, () => startNamespaceAgent(options));
}
