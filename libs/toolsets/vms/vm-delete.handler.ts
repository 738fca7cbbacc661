import { failpoint } from '@longhaul/config/failpoint';
import { defineHandler } from '../handler.js';
import { forgetVm } from './forget-vm.js';
import { vmDelete } from './vm-delete.job.js';

/** A row that is gone is the last thing that an attempt does: one that finds none has nothing left to do. */
export const vmDeleteHandler = defineHandler({
  kind: vmDelete,
  async run(context) {
    const { attempts, db, job, ref } = context;
    const id = job.vmId!;
    const vm = await db.vm.findUnique({ where: { id } });
    if (vm) {
      const provider = context.vmProvider(vm);
      await attempts.intend(ref, 'delete');
      failpoint('deleting');
      if (provider.abilities.has('create')) await provider.delete(id);
      failpoint('deleted');
      await attempts.fenced(ref, (tx) => forgetVm(tx, id));
    }
    return { state: 'succeeded', result: { deleted: true } };
  },
});
