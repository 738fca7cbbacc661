import { AppError } from '@longhaul/errors';
import { readEpoch } from '@longhaul/guest';
import { isOff, type VmProvider } from '@longhaul/vm-providers';
import type { JobIntent, Vm } from '@longhaul/persistence';
import { defineHandler, vmOf } from '../handler.js';
import { failpoint } from '../failpoint.js';
import { requireAbility } from './abilities.js';
import { currentEpoch, notePower } from './epoch.js';
import { SHUTDOWN_SECONDS, vmPower } from './vm-power.job.js';

export const vmPowerHandler = defineHandler({
  kind: vmPower,
  async run(context, { action, timeout_seconds: seconds = SHUTDOWN_SECONDS.default }) {
    const { attempts, db, job, ref } = context;
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    requireAbility(provider.abilities, 'power');
    const [earlier] = await attempts.intents(job.id);
    await attempts.intend(ref, action, vm.epoch ?? undefined);

    const isAsked = action === 'shutdown' || action === 'reboot';
    let isOffNow = true;
    if (action === 'start' || action === 'stop') await provider[action](vm.id);
    else if (!(earlier && (await isDone(vm, provider, action, earlier)))) {
      if (action === 'reset') await provider.reset(vm.id);
      else isOffNow = await provider.shutdown(vm.id, seconds * 1000);
    }
    failpoint('powered');
    if (action === 'reboot' && isOffNow) await provider.start(vm.id);
    if (action !== 'stop' && action !== 'shutdown' && isOffNow)
      await provider.guest(vm.id).session((session) => currentEpoch(db, vm.id, provider, session));

    const { power } = await provider.observe(vm.id);
    await notePower(db, vm.id, power);
    if (!isAsked) return { state: 'succeeded', result: { power_state: power } };
    const result = { power_state: power, powered_off: isOffNow };
    if (isOffNow) return { state: 'succeeded', result };
    const message = `The guest did not power off within ${seconds} s, and the VM runs on. stop or reset cut its power.`;
    return { state: 'timed_out', result: { ...result, message } };
  },
});

/**
 * Whether a lost attempt has come as far as the new boot: only a guest that still has the old epoch is cut again, or one that
 * is on its way down.
 */
async function isDone(vm: Vm, provider: VmProvider, action: string, earlier: JobIntent): Promise<boolean> {
  if (action === 'shutdown') return false;
  if (action === 'reset' || isOff(await provider.observe(vm.id))) await provider.start(vm.id);
  const now = await provider
    .guest(vm.id)
    .session(readEpoch)
    .catch((error: unknown) => {
      if (error instanceof AppError) return earlier.epoch;
      throw error;
    });
  return (now ?? null) !== earlier.epoch;
}
