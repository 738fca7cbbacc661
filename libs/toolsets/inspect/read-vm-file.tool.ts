import { encodeSlice } from '@longhaul/job-log';
import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { ANSWER_WITHIN_MS, SLICE_MAX_BYTES, offset, vmId } from '../arguments.js';
import { errorOf, errorShape, jobStatus } from '../jobs/job-fields.js';
import { path } from './path-argument.js';
import { vmReadFile, type VmReadFilePayload, type VmReadFileResult } from './vm-read-file.job.js';

export const readVmFile = defineJobTool({
  name: 'read_vm_file',
  title: 'Read a file of a VM',
  description:
    'Reads up to 64 KiB of a regular file in a VM from a byte offset, as root. Pass next_offset back to read on until eof. Bytes that are no text come as base64. Known secrets (/etc/shadow, private keys, ~/.ssh) and /proc, /sys and /dev are denied.',
  toolset: 'inspect',
  scope: 'vms:files',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  vm: { running: true },
  input: z.strictObject({
    vm_id: vmId,
    path,
    offset: offset.default(0),
    max_bytes: z.int().min(1).max(SLICE_MAX_BYTES).default(16_384),
  }),
  output: z.object({
    job_id: z.string(),
    status: jobStatus,
    content: z.string().optional(),
    encoding: z.enum(['utf-8', 'base64']).optional(),
    next_offset: z.int().optional(),
    eof: z.boolean().optional().describe('Nothing follows now'),
    size_bytes: z.int().optional().describe('Of the whole file'),
    modified_at: z.string().optional(),
    error: errorShape.optional(),
  }),
  content({ status, content, encoding, next_offset, eof, size_bytes, error }) {
    if (content === undefined) return error ? `${error.code}: ${error.message}` : `The job is ${status}.`;
    const state = eof ? 'complete' : `next_offset ${next_offset}`;
    return `--- ${encoding === 'base64' ? 'base64, ' : ''}${state}, ${size_bytes} bytes in all\n${content}`;
  },
  answerWithinMs: ANSWER_WITHIN_MS,
  submit: (call, { path, offset, max_bytes }) => call.submit(vmReadFile, { path, offset, max_bytes }),
  async answer(job) {
    const { id: job_id, state: status } = job;
    const result = job.result as VmReadFileResult | null;
    if (!result) return { job_id, status, error: errorOf(job) };
    const { offset } = job.payload as VmReadFilePayload;
    const { data_base64, size_bytes, modified_at } = result;
    const data = Buffer.from(data_base64, 'base64');
    const { text, encoding, bytes } = encodeSlice(data, offset + data.length < size_bytes);
    const next_offset = offset + bytes;
    const eof = next_offset >= size_bytes;
    return { job_id, status, content: text, encoding, next_offset, eof, size_bytes, modified_at };
  },
});
