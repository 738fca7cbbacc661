import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { SLICE_MAX_BYTES, commandId, offset } from '../arguments.js';
import { jobBeside, requireOffset, streamFields } from '../jobs/stream-fields.js';
import { commandStatus, commandText, outputShape, readBoth, requireCommand } from './command-fields.js';

export const readVmCommandLogs = defineTool({
  name: 'read_vm_command_logs',
  title: 'Read the output of a command',
  description:
    'Reads stdout and stderr of a command from byte offsets, while it runs or later. Pass next_stdout_offset and next_stderr_offset back to read on; stop when both stdout_eof and stderr_eof are true. Bytes that are no text come as base64.',
  toolset: 'commands',
  scope: 'vms:exec',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    command_id: commandId,
    stdout_offset: offset.default(0),
    stderr_offset: offset.default(0),
    max_bytes: z.int().min(1).max(SLICE_MAX_BYTES).default(16_384).describe('Of each stream'),
  }),
  output: z.object({ command_id: z.string(), status: commandStatus, ...outputShape }),
  content: commandText,
  async handle(call, { stdout_offset, stderr_offset, max_bytes: maxBytes }) {
    requireCommand(call.job);
    const from = { stdout: stdout_offset, stderr: stderr_offset };
    const { stdout, stderr } = await readBoth((stream) =>
      call.services.jobLog.read(call.job.id, stream, from[stream], maxBytes),
    );
    requireOffset('stdout_offset', from.stdout, stdout);
    requireOffset('stderr_offset', from.stderr, stderr);
    const { id, state } = await jobBeside(call, stdout, stderr);
    return {
      command_id: id,
      status: commandStatus.parse(state),
      ...streamFields('stdout', stdout, from.stdout),
      ...streamFields('stderr', stderr, from.stderr),
    };
  },
});
