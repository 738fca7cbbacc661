import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { SLICE_MAX_BYTES, commandId } from '../arguments.js';
import { jobBeside, streamFields } from '../jobs/stream-fields.js';
import {
  commandFields,
  commandShape,
  commandText,
  outputShape,
  readBoth,
  requireCommand,
} from './command-fields.js';

const tailBytes = z.int().min(0).max(SLICE_MAX_BYTES).default(8192);

export const getVmCommandOutput = defineTool({
  name: 'get_vm_command_output',
  title: 'Show how a command stands',
  description:
    'Shows status, exit code, duration and the ends of stdout and stderr. For all of the output use read_vm_command_logs; next_stdout_offset and next_stderr_offset follow what is shown here.',
  toolset: 'commands',
  scope: 'vms:exec',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    command_id: commandId,
    stdout_tail_bytes: tailBytes,
    stderr_tail_bytes: tailBytes,
  }),
  output: z.object({
    ...commandShape,
    ...outputShape,
    stdout_tail_offset: z.int().describe('Where the shown part begins'),
    stderr_tail_offset: z.int(),
  }),
  content: commandText,
  async handle(call, { stdout_tail_bytes, stderr_tail_bytes }) {
    requireCommand(call.job);
    const bytes = { stdout: stdout_tail_bytes, stderr: stderr_tail_bytes };
    const { stdout, stderr } = await readBoth((stream) =>
      call.services.jobLog.tail(call.job.id, stream, bytes[stream]),
    );
    return {
      ...commandFields(await jobBeside(call, stdout, stderr)),
      ...streamFields('stdout', stdout, stdout.offset),
      ...streamFields('stderr', stderr, stderr.offset),
      stdout_tail_offset: stdout.offset,
      stderr_tail_offset: stderr.offset,
    };
  },
});
