import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { ANSWER_WITHIN_MS, confirmationPhrase, exactVmId, idempotencyKey } from '../arguments.js';
import { hostname, hostnameTaken } from './hostname.js';
import { vmJobAnswer, vmJobShape } from './vm-job.js';
import { vmRename } from './vm-rename.job.js';

export const renameVm = defineJobTool({
  name: 'rename_vm',
  title: 'Rename a VM',
  description:
    'Gives a running VM another hostname, here and inside its guest. Needs a confirmation: a person is asked where the client can do that, else the error names the phrase to send.',
  toolset: 'vms',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  vm: { running: true, slot: 'lifecycle' },
  input: z.strictObject({
    vm_id: exactVmId,
    hostname,
    confirmation: confirmationPhrase,
    idempotency_key: idempotencyKey,
  }),
  output: z.object(vmJobShape),
  confirmation: {
    phrase: ({ vm }, args) => `RENAME ${vm.id} TO ${args.hostname}`,
    message: ({ vm }, args) => `Rename the VM ${vm.hostname} (${vm.id}) to ${args.hostname}?`,
  },
  answerWithinMs: ANSWER_WITHIN_MS,
  async submit(call, { hostname, idempotency_key: idempotencyKey }) {
    const { id, projectId, hostname: from } = call.vm;
    const where = { projectId, hostname, id: { not: id } };
    if (await call.services.db.vm.findFirst({ where, select: { id: true } })) throw hostnameTaken(hostname);
    return call.submit(vmRename, { hostname, from }, { label: hostname, idempotencyKey });
  },
  answer: vmJobAnswer,
});
