import { readEpoch } from '@longhaul/guest';
import { defineHandler, vmOf } from '../handler.js';
import { currentEpoch, notePower } from './epoch.js';
import { vmPower } from './vm-power.job.js';

export const vmPowerHandler = defineHandler({
  kind: vmPower,
  async run(context, { action }) {
    const { attempts, db, job, ref } = context;
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    const guest = provider.guest(vm.id);
    const [earlier] = await attempts.intents(job.id);
    if (earlier && action === 'reset') {
      // A lost attempt may have pressed the button: only a guest that still has the old epoch is pressed again.
      await provider.start(vm.id);
      const epoch = await guest.session(readEpoch);
      if (epoch === earlier.epoch) await provider.reset(vm.id);
    } else {
      await attempts.intend(ref, action, vm.epoch ?? undefined);
      await provider[action](vm.id);
    }
    if (action !== 'stop') await guest.session((session) => currentEpoch(db, vm.id, session));
    const { power } = await provider.observe(vm.id);
    await notePower(db, vm.id, power);
    return { state: 'succeeded', result: { power_state: power } };
  },
});
