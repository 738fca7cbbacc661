import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { confirmationPhrase, exactVmId, idempotencyKey } from '../arguments.js';
import { chosenKey, keyArguments } from '../ssh/key-arguments.js';
import { requireAbility } from './abilities.js';
import { force, makeWay } from './make-way.js';
import { observedOf } from './observed.js';
import { vmJobAnswer, vmJobShape } from './vm-job.js';
import { vmReinstall } from './vm-reinstall.job.js';

export const reinstallVm = defineJobTool({
  name: 'reinstall_vm',
  title: 'Reinstall a VM',
  description:
    'Erases the disk of a VM for good and installs an image on it (list_images); commands are off afterwards. Needs a confirmation: a person is asked where the client can do that, else the error names the phrase to send. When it has succeeded, wait_for_job tells a new root password, once.',
  toolset: 'vms',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false },
  vm: { slot: 'lifecycle', alone: true },
  input: z.strictObject({
    vm_id: exactVmId,
    image: z.string().min(1).max(64),
    ...keyArguments,
    force,
    confirmation: confirmationPhrase,
    idempotency_key: idempotencyKey,
  }),
  output: z.object(vmJobShape),
  confirmation: {
    phrase: ({ vm }, { image }) => `REINSTALL ${vm.id} TO TEMPLATE ${image}`,
    message: ({ vm }, { image }) =>
      `Erase the disk of the VM ${vm.hostname} (${vm.id}) for good and install ${image} on it?`,
  },
  answerWithinMs: 0,
  async submit(call, { image, force, idempotency_key: idempotencyKey, ...keys }) {
    const { vm, caller, services } = call;
    requireAbility(observedOf(vm).abilities, 'reinstall');
    (await services.images()).find(image);
    const key = await chosenKey(services.db, caller.userId, keys);
    if (force) await makeWay(call);
    return call.submit(vmReinstall, { image, ssh_public_key: key }, { label: image, idempotencyKey });
  },
  answer: vmJobAnswer,
});
