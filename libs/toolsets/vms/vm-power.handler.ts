import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import { readEpoch } from '@longhaul/guest';
import type { Database, JobIntent, Vm } from '@longhaul/persistence';
import type { VmProvider } from '@longhaul/vm-providers';
import { defineHandler, vmOf } from '../handler.js';
import { requireAbility } from './abilities.js';
import { currentEpoch, notePower } from './epoch.js';
import { SHUTDOWN_SECONDS, vmPower } from './vm-power.job.js';

/** Checkpoint of a reboot. */
const POWERED_OFF = 'powered_off';

export const vmPowerHandler = defineHandler({
  kind: vmPower,
  async run(context, { action, timeout_seconds: seconds = SHUTDOWN_SECONDS.default }) {
    const { attempts, db, job, ref } = context;
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    requireAbility(provider.abilities, 'power');
    const [earlier] = await attempts.intents(job.id);
    const epoch = action === 'reset' && !earlier ? await epochOf(db, vm, provider) : vm.epoch;
    await attempts.intend(ref, action, epoch ?? undefined);
    failpoint('powering');

    const isAsked = action === 'shutdown' || action === 'reboot';
    let isOffNow = true;
    if (action === 'start' || action === 'stop') await provider[action](vm.id);
    else if (action === 'reset') {
      if (!(earlier && (await wasReset(vm, provider, earlier)))) await provider.reset(vm.id);
    } else {
      if (job.checkpoint !== POWERED_OFF) isOffNow = await provider.shutdown(vm.id, seconds * 1000);
      if (action === 'reboot' && isOffNow) {
        // A guest that boots is as silent as one on its way down: the next attempt must not ask it once more.
        await attempts.checkpoint(ref, POWERED_OFF);
        await provider.start(vm.id);
      }
    }
    failpoint('powered');
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

/** Of the boot that a reset will end: what booted by itself has none yet. The row's, where the guest does not answer. */
async function epochOf(db: Database, vm: Vm, provider: VmProvider): Promise<string | null> {
  try {
    return await provider.guest(vm.id).session((session) => currentEpoch(db, vm.id, provider, session));
  } catch (error) {
    if (error instanceof AppError) return vm.epoch;
    throw error;
  }
}

/** Whether a lost attempt has come as far as the new boot, which is waited for: only a guest of the old epoch is cut again. */
async function wasReset(vm: Vm, provider: VmProvider, { epoch }: JobIntent): Promise<boolean> {
  const { power } = await provider.observe(vm.id);
  if (power !== 'running' && power !== 'paused') return false;
  try {
    await provider.start(vm.id);
    return ((await provider.guest(vm.id).session(readEpoch)) ?? null) !== epoch;
  } catch (error) {
    // A guest that hangs is what resets are for.
    if (error instanceof AppError) return false;
    throw error;
  }
}
