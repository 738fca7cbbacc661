import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { confirmationPhrase, exactVmId, idempotencyKey } from '../arguments.js';
import { force, makeWay } from '../vms/make-way.js';
import { vmDelete } from '../vms/vm-delete.job.js';
import { vmJobAnswer, vmJobShape } from '../vms/vm-job.js';

export const deleteVm = defineJobTool({
  name: 'delete_vm',
  title: 'Delete a VM',
  description:
    'Removes a VM for good, with its disk and its artifacts; a machine that was adopted is only forgotten here. Needs a confirmation: a person is asked where the client can do that, else the error names the phrase to send.',
  toolset: 'fleet',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
  vm: { slot: 'lifecycle', alone: true },
  input: z.strictObject({
    vm_id: exactVmId,
    force,
    confirmation: confirmationPhrase,
    idempotency_key: idempotencyKey,
  }),
  output: z.object(vmJobShape),
  confirmation: {
    phrase: ({ vm }) => `DELETE ${vm.id}`,
    message: ({ vm }) => `Delete the VM ${vm.hostname} (${vm.id}) with all of its data, for good?`,
  },
  answerWithinMs: 0,
  async submit(call, { force, idempotency_key: idempotencyKey }) {
    if (force) await makeWay(call);
    return call.submit(vmDelete, {}, { label: call.vm.hostname, idempotencyKey });
  },
  answer: vmJobAnswer,
});
