import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import { defineHandler, vmOf } from '../handler.js';
import { requireAbility } from './abilities.js';
import { notePower } from './epoch.js';
import { welcomeOwner } from './guest-setup.js';
import { vmReinstall } from './vm-reinstall.job.js';

/** The provider knows by the job's id what it has done already; all that follows may be repeated. */
export const vmReinstallHandler = defineHandler({
  kind: vmReinstall,
  async run(context, { image, ssh_public_key: publicKey }) {
    const { attempts, db, job, ref } = context;
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    requireAbility(provider.abilities, 'reinstall');
    await attempts.intend(ref, 'reinstall', vm.epoch ?? undefined);
    failpoint('reinstalling');
    let silent: AppError | undefined;
    await provider.reinstall(vm.id, image, job.id).catch((error: unknown) => {
      if (!(error instanceof AppError && error.code === 'guest_unreachable')) throw error;
      silent = error;
    });
    failpoint('reinstalled');
    await attempts.fenced(ref, (tx) =>
      tx.vm.update({ where: { id: vm.id }, data: { image, execEnabled: false } }),
    );
    // It has the new disk all the same.
    if (silent) throw silent;
    await welcomeOwner(context, vm.id, provider, publicKey);
    failpoint('password-set');
    const { power } = await provider.observe(vm.id);
    await notePower(db, vm.id, power);
    return { state: 'succeeded', result: { power_state: power, image } };
  },
});
