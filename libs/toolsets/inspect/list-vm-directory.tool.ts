import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { ANSWER_WITHIN_MS, vmId } from '../arguments.js';
import { errorOf, errorShape, jobStatus } from '../jobs/job-fields.js';
import { path } from './path-argument.js';
import { entryShape, vmListDirectory, type VmListDirectoryResult } from './vm-list-directory.job.js';

export const listVmDirectory = defineJobTool({
  name: 'list_vm_directory',
  title: 'List a directory of a VM',
  description:
    'Lists a directory in a VM, as root, by name: type, size, mode, owner, time and what symlinks lead to. next_cursor is there when more follow: pass it back as cursor. Places of secrets such as ~/.ssh, and /proc, /sys and /dev are denied.',
  toolset: 'inspect',
  scope: 'vms:files',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  vm: { running: true },
  input: z.strictObject({
    vm_id: vmId,
    path,
    limit: z.int().min(1).max(200).default(100),
    cursor: z
      .string()
      .regex(/^[\w-]{1,400}$/, 'expected a next_cursor')
      .optional(),
  }),
  output: z.object({
    job_id: z.string(),
    status: jobStatus,
    entries: z.array(entryShape).optional(),
    next_cursor: z.string().optional(),
    error: errorShape.optional(),
  }),
  answerWithinMs: ANSWER_WITHIN_MS,
  submit: (call, { path, limit, cursor }) => call.submit(vmListDirectory, { path, limit, cursor }),
  async answer(job) {
    const result = job.result as VmListDirectoryResult | null;
    return { job_id: job.id, status: job.state, ...result, error: errorOf(job) };
  },
});
