import {
  type NamespaceAgentOptions,
  namespaceAgentLacks,
  startNamespaceAgent,
} from '../../test/support/namespace-agent.js';
import {
  namespaceSshdLacks,
  startNamespaceSshd,
  startNamespaceSshdForOperator,
} from '../../test/support/namespace-sshd.js';
import type { CommandGuestUnderTest } from './command.contract.js';
import { describeFiles } from './files.contract.js';
import { describeInstall } from './install.contract.js';

const ofAgent = (options: NamespaceAgentOptions) => () => startNamespaceAgent(options);
const [whole, busybox] = [{ cgroups: true }, { busybox: true }];
const serves = namespaceAgentLacks(busybox) === undefined;
describeOf('guest agent in a namespace', namespaceAgentLacks(whole), ofAgent(whole), { serves });
describeOf('with the tools of busybox', namespaceAgentLacks(busybox), ofAgent(busybox), { lacks: false });
describeOf('SSH as root', namespaceSshdLacks(), startNamespaceSshd);
describeOf('SSH as somebody who may use sudo', namespaceSshdLacks(), startNamespaceSshdForOperator);

function describeOf(
  name: string,
  missing: string | undefined,
  make: () => Promise<CommandGuestUnderTest>,
  { serves = true, lacks = true } = {},
) {
  if (missing) return it.skip(`${name}: not tested here, as that needs ${missing}`, () => {});
  describeInstall(name, make, { serves, lacks });
  describeFiles(name, make);
}
