import { AppError } from '@longhaul/errors';
import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { vmId } from '../arguments.js';
import { FILE_MAX_BYTES, PURPOSES, artifactFields, artifactShape } from './artifact-fields.js';

export const createArtifactUpload = defineTool({
  name: 'create_artifact_upload',
  title: 'Upload a file for a VM',
  description:
    'Answers an address to which to send a file within 15 minutes, once, as one request of that method with those headers: curl --upload-file FILE -H "name: value" … "url". Then install_artifact puts it into the VM. The address is a secret.',
  toolset: 'files',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false },
  input: z.strictObject({
    vm_id: vmId,
    filename: z
      .string()
      .regex(/^[A-Za-z0-9._-]{1,200}$/, 'expected 1 to 200 of A–Z a–z 0–9 . _ -')
      .describe('For people only'),
    size_bytes: z.int().min(0).max(FILE_MAX_BYTES).describe('Exact'),
    sha256: z
      .string()
      .regex(/^[0-9A-Fa-f]{64}$/, 'expected 64 hexadecimal digits')
      .describe('Of the content, in hexadecimal'),
    purpose: z
      .enum(['config', 'script', 'file'])
      .describe('config ≤ 1 MiB, script ≤ 5 MiB, file ≤ 256 MiB; installed with mode 0640, 0750, 0644'),
  }),
  output: z.object({
    ...artifactShape,
    url: z.string(),
    method: z.literal('PUT'),
    headers: z.record(z.string(), z.string()).describe('To be sent exactly so'),
    expires_at: z.string().describe('The upload must have begun by then'),
  }),
  async handle({ vm, caller, services }, { filename, size_bytes: sizeBytes, sha256, purpose }) {
    const { maxBytes } = PURPOSES[purpose];
    if (sizeBytes > maxBytes)
      throw new AppError('invalid_arguments', `size_bytes: a ${purpose} has at most ${maxBytes} bytes.`);
    const { artifacts } = services;
    const announced = { filename, purpose, sizeBytes, sha256: Buffer.from(sha256, 'hex') };
    const artifact = await artifacts.announce(vm, caller.userId, announced);
    const { url, method, headers, expiresAt } = await artifacts.store.uploadUrl(artifact);
    return { ...artifactFields(artifact), url, method, headers, expires_at: expiresAt.toISOString() };
  },
});
