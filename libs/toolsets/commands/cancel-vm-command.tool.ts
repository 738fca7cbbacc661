import { isFinal } from '@longhaul/jobs';
import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { commandId } from '../arguments.js';
import { commandFields, commandShape, requireCommand } from './command-fields.js';

/** The guest is given 5 s to end politely; this leaves room for a worker that is busy. */
const ANSWER_WITHIN_MS = 30_000;

export const cancelVmCommand = defineTool({
  name: 'cancel_vm_command',
  title: 'Cancel a command',
  description:
    'Kills a command with all its processes and answers its final status. One that has ended stays as it is, and what ends before the kill keeps its real end. Should the status still be running, wait with wait_for_job.',
  toolset: 'commands',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({ command_id: commandId }),
  output: z.object({ ...commandShape, cancel_requested: z.boolean() }),
  async handle(call) {
    requireCommand(call.job);
    const { id } = await call.cancel(call.job.id);
    const job = await call.waitFor(id, ({ state }) => isFinal(state), ANSWER_WITHIN_MS);
    return { ...commandFields(job), cancel_requested: job.cancelRequestedAt !== null };
  },
});
