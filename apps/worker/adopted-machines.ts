import type { SshTarget } from '@longhaul/guest';
import { parseId, type Database, type Vm } from '@longhaul/persistence';
import type { StoredSecrets } from '@longhaul/secrets';
import {
  guestAgentConnection,
  qemuConnection,
  sshConnection,
  sshCredential,
  type GuestAgentConnection,
  type Machines,
  type QemuConnection,
} from '@longhaul/vm-providers';

/** The rows of the machines that `longhaul vm adopt` has made, as their providers ask for them. */
export class AdoptedMachines {
  constructor(
    private readonly db: Database,
    private readonly stored: StoredSecrets,
    private readonly hosts: string[],
  ) {}

  qemu(): Machines<QemuConnection> {
    return this.of('adopted-qemu', (vm) => qemuConnection.parse(vm.connection));
  }

  guestAgent(): Machines<GuestAgentConnection> {
    return this.of('guest-agent', (vm) => guestAgentConnection.parse(vm.connection));
  }

  ssh(): Machines<SshTarget> {
    return this.of('ssh', (vm) => {
      const credential = this.stored.open('vms', vm.id, vm.credential ?? '');
      return {
        ...sshConnection.parse(vm.connection),
        ...sshCredential.parse(JSON.parse(credential.toString('utf8'))),
      };
    });
  }

  private of<T>(provider: string, read: (vm: Vm) => T): Machines<T> {
    const where = { provider, host: { in: this.hosts } };
    return {
      find: async (text) => {
        const id = parseId(text);
        const vm = id && (await this.db.vm.findFirst({ where: { ...where, id } }));
        return vm ? read(vm) : undefined;
      },
      ids: async () => (await this.db.vm.findMany({ where, select: { id: true } })).map(({ id }) => id),
    };
  }
}
