import { join } from 'node:path';
import { Inject, Injectable } from '@nestjs/common';
import { CONFIG } from '@longhaul/config';
import { AppError } from '@longhaul/errors';
import { Database, type Vm } from '@longhaul/persistence';
import { StoredSecrets } from '@longhaul/secrets';
import type { Check } from '@longhaul/telemetry';
import {
  AdoptedQemuProvider,
  GuestAgentProvider,
  LibvirtProvider,
  QemuProvider,
  SshProvider,
  type VmProvider,
} from '@longhaul/vm-providers';
import { AdoptedMachines } from './adopted-machines.js';
import type { WorkerConfig } from './config.js';

/** The back ends that this worker reaches, by the name that rows of VMs carry. */
@Injectable()
export class VmProviders {
  private readonly providers: Map<string, VmProvider>;

  constructor(@Inject(CONFIG) config: WorkerConfig, db: Database, stored: StoredSecrets) {
    const home = config.LONGHAUL_HOME;
    const machines = new AdoptedMachines(db, stored, config.WORKER_HOSTS);
    const shared = {
      home,
      imagesDirectory: config.LONGHAUL_IMAGES ?? join(home, 'images'),
      imageCatalog: config.IMAGE_CATALOG,
      accelerator: config.VM_ACCELERATOR,
      runAsUser: config.VM_USER,
    };
    const qemu = new QemuProvider({
      ...shared,
      guestGateway: config.LONGHAUL_GUEST_GATEWAY,
      bridge: config.VM_NETWORK
        ? { bridge: config.VM_NETWORK, range: config.VM_ADDRESS_RANGE, gateway: config.VM_GATEWAY }
        : undefined,
    });
    const libvirt = config.LIBVIRT_URI
      ? new LibvirtProvider({ ...shared, uri: config.LIBVIRT_URI, network: config.LIBVIRT_NETWORK })
      : undefined;
    const providers = [
      qemu,
      ...(libvirt ? [libvirt] : []),
      new AdoptedQemuProvider({ home, machines: machines.qemu() }),
      new GuestAgentProvider({ home, machines: machines.guestAgent() }),
      new SshProvider({ home, machines: machines.ssh() }),
    ];
    this.providers = new Map(providers.map((provider) => [provider.name, provider]));
  }

  /** What asks each of them whether it could do its work. */
  get checks(): Record<string, Check> {
    return Object.fromEntries(
      [...this.providers].map(([name, provider]) => [
        `vm_provider.${name}`,
        (signal) => provider.check(signal),
      ]),
    );
  }

  of(vm: Pick<Vm, 'provider'>): VmProvider {
    const provider = this.providers.get(vm.provider);
    if (!provider) throw new AppError('unavailable', `No worker here knows the VM provider ${vm.provider}.`);
    return provider;
  }
}
