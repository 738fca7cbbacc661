import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { idempotencyKey, vmId } from '../arguments.js';
import { commandArguments } from './command-arguments.js';
import { commandFields, commandShape } from './command-fields.js';
import { vmCommand } from './vm-command.job.js';

export const startVmCommand = defineJobTool({
  name: 'start_vm_command',
  title: 'Start a long command',
  description:
    'Starts a shell command in a VM and answers its command_id at once; it goes on whatever happens to this connection. Read its output with read_vm_command_logs, wait with wait_for_job, stop it with cancel_vm_command. A VM runs one command at a time by default.',
  toolset: 'commands',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
  vm: { running: true, exec: true, slot: 'command' },
  input: z.strictObject({
    vm_id: vmId,
    ...commandArguments,
    timeout_seconds: z.int().min(60).max(7200).default(1800).describe('After this it is killed: timed_out'),
    idempotency_key: idempotencyKey,
  }),
  output: z.object({
    ...commandShape,
    vm_id: z.string(),
    label: z.string().optional(),
    created_at: z.string(),
  }),
  answerWithinMs: 0,
  submit(call, { command, timeout_seconds, working_directory, label, idempotency_key: idempotencyKey }) {
    const payload = { command, timeout_seconds, working_directory };
    return call.submit(vmCommand, payload, { label, idempotencyKey });
  },
  async answer(job) {
    return {
      ...commandFields(job),
      vm_id: job.vmId!,
      label: job.label ?? undefined,
      created_at: job.createdAt.toISOString(),
    };
  },
});
