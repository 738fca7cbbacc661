import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import { isOff } from '@longhaul/vm-providers';
import { defineHandler, vmOf, type JobContext } from '../handler.js';
import { setHostname } from './guest-setup.js';
import { hostnameTaken } from './hostname.js';
import { vmRename } from './vm-rename.job.js';

/** The row first, as it keeps names apart. */
export const vmRenameHandler = defineHandler({
  kind: vmRename,
  async run(context, { hostname, from }) {
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    await context.attempts.intend(context.ref, 'rename');
    await takeName(context, vm.id, hostname);
    failpoint('named');
    try {
      // Not sooner: what an earlier attempt has named is named back.
      if (isOff(await provider.observe(vm.id)))
        throw new AppError(
          'vm_state_blocked',
          'The VM is off, and its guest must be renamed, too. Start it.',
        );
      await provider.rename(vm.id, hostname);
      await provider.guest(vm.id).session((session) => setHostname(session, hostname));
      failpoint('renamed');
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      await provider.rename(vm.id, from);
      await takeName(context, vm.id, from);
      throw error;
    }
    return { state: 'succeeded', result: { hostname } };
  },
});

/** Errors: `conflict`, when another VM of the project has it. */
async function takeName({ attempts, ref }: JobContext, id: string, hostname: string): Promise<void> {
  const taken = await attempts.fenced(
    ref,
    (tx) => tx.$executeRaw`
      UPDATE vms SET hostname = ${hostname} WHERE id = ${id}::uuid AND NOT EXISTS (
        SELECT FROM vms AS other WHERE other.id <> vms.id AND other.hostname = ${hostname}
          AND other.project_id = vms.project_id)`,
  );
  if (taken === 0) throw hostnameTaken(hostname);
}
