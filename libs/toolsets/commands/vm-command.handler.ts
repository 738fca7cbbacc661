import { killLeftovers, readEpoch } from '@longhaul/guest';
import { isOff } from '@longhaul/vm-providers';
import { defineHandler, vmOf } from '../handler.js';
import { followCommand } from './follow-command.js';
import { vmCommand } from './vm-command.job.js';

/**
 * Starts a command in the guest once, whatever happens to workers meanwhile, and follows it to its end. The intent with
 * the VM's epoch is committed first; an attempt that finds one goes on from there and lets the guest decide.
 */
export const vmCommandHandler = defineHandler({
  kind: vmCommand,
  goesOn: true,

  async run(context, payload) {
    const [vm, [earlier], stdout, stderr] = await Promise.all([
      vmOf(context),
      context.attempts.intents(context.job.id),
      context.openLog('stdout'),
      context.openLog('stderr'),
    ]);
    if (!earlier && context.cancel.aborted) return { state: 'cancelled' };
    const dispatch = {
      epoch: earlier?.epoch ?? undefined,
      confirmed: !!earlier?.confirmedAt,
      firstSentAt: earlier ? performance.now() : Infinity,
    };
    return followCommand(context, payload, context.vmProvider(vm), dispatch, { stdout, stderr });
  },

  async cleanUp(context) {
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    if (isOff(await provider.observe(vm.id))) return;
    const [intent] = await context.attempts.intents(context.job.id);
    await provider.guest(vm.id).session(async (guest) => {
      if ((await readEpoch(guest)) === intent?.epoch) await killLeftovers(guest, context.job.id);
    });
  },
});
