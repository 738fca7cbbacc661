import { artifactNotFound } from '@longhaul/artifacts';
import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { idempotencyKey, vmId } from '../arguments.js';
import { errorOf, errorShape, jobStatus } from '../jobs/job-fields.js';
import { PURPOSES, artifactId } from './artifact-fields.js';
import { destinationPath, fileMode, owner } from './file-arguments.js';
import { vmInstall, type VmInstallPayload, type VmInstallResult } from './vm-install.job.js';

const ANSWER_WITHIN_MS = 30_000;

export const installArtifact = defineJobTool({
  name: 'install_artifact',
  title: 'Install an uploaded file in a VM',
  description:
    'Puts an uploaded artifact at a path in its VM: checked by SHA-256 there, then moved into place at once, so that the old or the new file is there, never a part. Repeating it is harmless. System paths such as /proc, /boot or /etc/shadow are denied. When it takes over 30 s the status is running: use wait_for_job.',
  toolset: 'files',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
  vm: { running: true, exec: true, slot: 'files' },
  input: z.strictObject({
    vm_id: vmId,
    artifact_id: artifactId,
    destination_path: destinationPath,
    mode: fileMode.optional().describe('Octal; by default 0640, 0750 or 0644 for config, script or file'),
    owner: owner.default('root:root').describe('user:group'),
    backup: z
      .boolean()
      .default(false)
      .describe('Keeps what is replaced as <destination_path>.longhaul-backup'),
    idempotency_key: idempotencyKey,
  }),
  output: z.object({
    job_id: z.string(),
    vm_id: z.string(),
    status: jobStatus,
    destination_path: z.string(),
    changed: z.boolean().optional().describe('False: it was there already, just so'),
    size_bytes: z.int().optional(),
    sha256: z.string().optional().describe('Of the file, as computed in the VM'),
    error: errorShape.optional(),
  }),
  answerWithinMs: ANSWER_WITHIN_MS,
  async submit(
    call,
    { artifact_id, destination_path, mode, owner, backup, idempotency_key: idempotencyKey },
  ) {
    const { artifacts } = call.services;
    const found = await artifacts.find(call.caller, artifact_id);
    if (found.vmId !== call.vm.id) throw artifactNotFound();
    const artifact = await artifacts.confirmUploaded(found, { requestId: call.request.requestId });
    await artifacts.keep(artifact);
    const payload = {
      artifact_id: artifact.id,
      destination_path,
      mode: parseInt(mode ?? PURPOSES[artifact.purpose].mode, 8).toString(8),
      owner,
      backup,
    };
    return call.submit(vmInstall, payload, { label: destination_path.slice(0, 128), idempotencyKey });
  },
  async answer(job) {
    const { destination_path } = job.payload as VmInstallPayload;
    return {
      job_id: job.id,
      vm_id: job.vmId!,
      status: job.state,
      destination_path,
      ...(job.result as VmInstallResult | null),
      error: errorOf(job),
    };
  },
});
