import type { GuestChannel } from '@longhaul/guest';
import type { Vm } from '@longhaul/persistence';
import { Cluster } from '../support/cluster.js';
import type { Call } from '../e2e/stack.js';

export interface BenchGuest {
  name: 'agent' | 'vm';
  call: Call;
  vm: Vm;
  /** Past Longhaul. */
  channel: GuestChannel;
}

/**
 * Runs `use` with a guest agent in a namespace, where Longhaul's own share shows best, then with a VM of QEMU, whose
 * figures count; each behind one API and one worker. BENCH_GUESTS=agent leaves the VM out.
 */
export async function onGuests(use: (guest: BenchGuest) => Promise<void>): Promise<void> {
  const cluster = await Cluster.start({ apis: 1, workers: 1, swift: false, relays: false });
  try {
    const { stack } = cluster;
    const call = await stack.clientV2();
    const { vm, agent } = await cluster.addAgentVm();
    await use({ name: 'agent', call, vm, channel: agent.channel });
    if (process.env.BENCH_GUESTS === 'agent') return;
    const machine = await stack.createVm();
    await use({ name: 'vm', call, vm: machine, channel: stack.provider.guest(machine.id) });
  } finally {
    await cluster.stop();
  }
}
