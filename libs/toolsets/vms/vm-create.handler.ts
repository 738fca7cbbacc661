import { defineHandler, vmOf } from '../handler.js';
import { currentEpoch, notePower } from './epoch.js';
import { welcomeOwner } from './guest-setup.js';
import { vmCreate } from './vm-create.job.js';

export const vmCreateHandler = defineHandler({
  kind: vmCreate,
  async run(context, { root_password: wantsPassword, ssh_public_key: publicKey }) {
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    await context.attempts.intend(context.ref, 'create');
    await provider.create(vm);
    const guest = provider.guest(vm.id);
    if (wantsPassword) await welcomeOwner(context, vm.id, guest, publicKey);
    else await guest.session((session) => currentEpoch(context.db, vm.id, session));
    const { power } = await provider.observe(vm.id);
    await notePower(context.db, vm.id, power);
    return { state: 'succeeded', result: { power_state: power } };
  },
});
