import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { idempotencyKey, vmId } from '../arguments.js';
import { commandArguments } from './command-arguments.js';
import { commandStatus } from './command-fields.js';
import { vmCommand } from './vm-command.job.js';

export const startVmCommand = defineTool({
  name: 'start_vm_command',
  title: 'Start a long command',
  description:
    'Starts a shell command in a VM and answers its command_id at once; it goes on whatever happens to this connection. Read its output with read_vm_command_logs, wait with wait_for_job, stop it with cancel_vm_command. A VM runs one command at a time by default.',
  toolset: 'commands',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
  vm: { running: true, exec: true },
  input: z.strictObject({
    vm_id: vmId,
    ...commandArguments,
    timeout_seconds: z.int().min(60).max(7200).default(1800).describe('After this it is killed: timed_out'),
    idempotency_key: idempotencyKey,
  }),
  output: z.object({
    command_id: z.string(),
    status: commandStatus,
    vm_id: z.string(),
    label: z.string().optional(),
    created_at: z.string(),
  }),
  async handle(
    call,
    { command, timeout_seconds, working_directory, label, idempotency_key: idempotencyKey },
  ) {
    const payload = { command, timeout_seconds, working_directory };
    const job = await call.submit(vmCommand, payload, { label, idempotencyKey });
    return {
      command_id: job.id,
      status: commandStatus.parse(job.state),
      vm_id: call.vm.id,
      label,
      created_at: job.createdAt.toISOString(),
    };
  },
});
