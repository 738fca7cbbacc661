import { join } from 'node:path';
import { IMAGE_DISK_GB, QemuProvider, TEMPLATE_SHAPE, type VmObservation } from '@longhaul/vm-providers';
import { fromEnvironment } from './environment.js';
import type { Home } from './home.js';

/** Of a VM for which nobody says otherwise. `host` is the name that the worker of `up` serves. */
export const VM_DEFAULTS = {
  provider: 'qemu',
  host: fromEnvironment('WORKER_HOSTS')?.split(',')[0] || 'local',
  image: 'default',
  diskGb: IMAGE_DISK_GB,
  ...TEMPLATE_SHAPE,
};

export interface Vms {
  /** For the worker, so that it finds the same VMs and images. */
  env: NodeJS.ProcessEnv;
  /** Memory of all running VMs to disk; commands in them go on at the next start. */
  suspendAll(): Promise<void>;
  /** Ids of the VMs that wait on disk to go on. */
  suspended(): Promise<string[]>;
}

/** Sees to the guest image and its warm template, which takes minutes the first time, and opens this machine's VMs. */
export async function openVms({ directory, systemUser }: Home, say: (message: string) => void): Promise<Vms> {
  const imagesDirectory = fromEnvironment('LONGHAUL_IMAGES') ?? join(directory, 'images');
  const accelerator = (fromEnvironment('VM_ACCELERATOR') ?? 'auto') as 'auto' | 'kvm' | 'tcg';
  const imageCatalog = fromEnvironment('IMAGE_CATALOG');
  const options = { home: directory, imagesDirectory, imageCatalog, accelerator, runAsUser: systemUser };
  const provider = new QemuProvider(options);
  await provider.ensureImage('default', say);
  const idsIn = async (...states: VmObservation['power'][]) => {
    const ids = await provider.list();
    const powers = await Promise.all(ids.map(async (id) => (await provider.observe(id)).power));
    return ids.filter((_id, index) => states.includes(powers[index]!));
  };
  return {
    env: { LONGHAUL_IMAGES: imagesDirectory, VM_USER: systemUser },
    suspendAll: async () => {
      for (const id of await idsIn('running', 'paused')) await provider.suspend(id);
    },
    suspended: () => idsIn('suspended'),
  };
}
