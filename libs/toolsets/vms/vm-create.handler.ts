import { failpoint } from '@longhaul/config/failpoint';
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
    failpoint('creating');
    await provider.create(vm);
    failpoint('created');
    if (wantsPassword) await welcomeOwner(context, vm.id, provider, publicKey);
    else await provider.guest(vm.id).session((guest) => currentEpoch(context.db, vm.id, provider, guest));
    const { power } = await provider.observe(vm.id);
    await notePower(context.db, vm.id, power);
    return { state: 'succeeded', result: { power_state: power } };
  },
});
