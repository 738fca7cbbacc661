import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { ANSWER_WITHIN_MS, SLICE_MAX_BYTES, idempotencyKey, vmId } from '../arguments.js';
import { streamFields } from '../jobs/stream-fields.js';
import { commandArguments } from './command-arguments.js';
import { commandFields, commandShape, commandText, outputShape, readBoth } from './command-fields.js';
import { vmCommand } from './vm-command.job.js';

/** Nobody waits for a command that found no worker by then. */
const QUEUE_SECONDS = 45;

export const execVmCommand = defineJobTool({
  name: 'exec_vm_command',
  title: 'Run a short command',
  description:
    'Runs a shell command of up to a minute in a VM and answers exit code and the first 64 KiB of each stream. When it takes over 50 s the status is running: go on with read_vm_command_logs from next_stdout_offset and next_stderr_offset.',
  toolset: 'commands',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
  vm: { running: true, exec: true, slot: 'command' },
  input: z.strictObject({
    vm_id: vmId,
    ...commandArguments,
    timeout_seconds: z.int().min(1).max(60).default(30).describe('After this it is killed: timed_out'),
    idempotency_key: idempotencyKey,
  }),
  output: z.object({
    ...commandShape,
    ...outputShape,
    stdout_truncated: z.boolean().describe('There is more than this answer shows'),
    stderr_truncated: z.boolean(),
  }),
  content: commandText,
  answerWithinMs: ANSWER_WITHIN_MS,
  submit(call, { command, timeout_seconds, working_directory, label, idempotency_key: idempotencyKey }) {
    const payload = { command, timeout_seconds, working_directory };
    return call.submit(vmCommand, payload, {
      label,
      idempotencyKey,
      lane: 'interactive',
      queueSeconds: QUEUE_SECONDS,
    });
  },
  async answer(job, { jobLog }) {
    const { stdout, stderr } = await readBoth((stream) => jobLog.read(job.id, stream, 0, SLICE_MAX_BYTES));
    return {
      ...commandFields(job),
      ...streamFields('stdout', stdout, 0),
      ...streamFields('stderr', stderr, 0),
      stdout_truncated: stdout.size + stdout.dropped > stdout.data.length,
      stderr_truncated: stderr.size + stderr.dropped > stderr.data.length,
    };
  },
});
