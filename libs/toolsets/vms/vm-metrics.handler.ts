import { AppError } from '@longhaul/errors';
import type { GuestChannel } from '@longhaul/guest';
import { isOff } from '@longhaul/vm-providers';
import { defineHandler, vmOf } from '../handler.js';
import { readUsage, USAGE } from './guest-usage.js';
import { runScript } from './guest-script.js';
import { vmMetrics } from './vm-metrics.job.js';

export const vmMetricsHandler = defineHandler({
  kind: vmMetrics,
  async run(context) {
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    const isDown = isOff(await provider.observe(vm.id));
    const [known, guest] = await Promise.all([
      provider.metrics(vm.id),
      isDown ? {} : usageOf(provider.guest(vm.id)),
    ]);
    const hypervisor = Object.fromEntries(
      Object.entries(known).map(([name, value]) => [
        name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
        value as number,
      ]),
    );
    return { state: 'succeeded', result: { hypervisor, guest, measured_at: new Date().toISOString() } };
  },
});

/** Nothing of a guest that does not answer: what the hypervisor knows is worth telling all the same. */
async function usageOf(guest: GuestChannel): Promise<Record<string, number>> {
  try {
    return readUsage(await guest.session((session) => runScript(session, USAGE)));
  } catch (error) {
    if (error instanceof AppError) return {};
    throw error;
  }
}
