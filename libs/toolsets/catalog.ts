import type { Tool } from '@longhaul/mcp';
import { whoami } from './account/whoami.tool.js';
import { cancelVmCommand } from './commands/cancel-vm-command.tool.js';
import { execVmCommand } from './commands/exec-vm-command.tool.js';
import { getVmCommandOutput } from './commands/get-vm-command-output.tool.js';
import { readVmCommandLogs } from './commands/read-vm-command-logs.tool.js';
import { startVmCommand } from './commands/start-vm-command.tool.js';
import { createArtifactUpload } from './files/create-artifact-upload.tool.js';
import { getArtifact } from './files/get-artifact.tool.js';
import { installArtifact } from './files/install-artifact.tool.js';
import { listVmDirectory } from './inspect/list-vm-directory.tool.js';
import { readVmFile } from './inspect/read-vm-file.tool.js';
import { answerJob } from './jobs/answer-job.tool.js';
import { cancelJob } from './jobs/cancel-job.tool.js';
import { getJob } from './jobs/get-job.tool.js';
import { listJobs } from './jobs/list-jobs.tool.js';
import { readJobLogs } from './jobs/read-job-logs.tool.js';
import { waitForJob } from './jobs/wait-for-job.tool.js';
import { createVm } from './fleet/create-vm.tool.js';
import { deleteVm } from './fleet/delete-vm.tool.js';
import { resizeVm } from './fleet/resize-vm.tool.js';
import { addSshKey } from './ssh/add-ssh-key.tool.js';
import { listSshKeys } from './ssh/list-ssh-keys.tool.js';
import { removeSshKey } from './ssh/remove-ssh-key.tool.js';
import { getVmMetrics } from './fleet/get-vm-metrics.tool.js';
import { getVm } from './vms/get-vm.tool.js';
import { listImages } from './vms/list-images.tool.js';
import { listVms } from './vms/list-vms.tool.js';
import { powerVm } from './vms/power-vm.tool.js';
import { reinstallVm } from './vms/reinstall-vm.tool.js';
import { renameVm } from './vms/rename-vm.tool.js';
import { setVmExecEnabled } from './vms/set-vm-exec-enabled.tool.js';

/** Every toolset, and whether a request sees it that names none. One that is not here fails catalog.spec.ts. */
export const toolsets = {
  account: { default: true },
  vms: { default: true },
  commands: { default: true },
  files: { default: true },
  jobs: { default: true },
  fleet: { default: false },
  ssh: { default: false },
  inspect: { default: false },
} as const;

/** Every tool, in the order in which tools/list shows them. A tool that is not here fails catalog.spec.ts. */
export const catalog: readonly Tool[] = [
  whoami,
  listVms,
  getVm,
  listImages,
  powerVm,
  renameVm,
  reinstallVm,
  setVmExecEnabled,
  execVmCommand,
  startVmCommand,
  getVmCommandOutput,
  readVmCommandLogs,
  cancelVmCommand,
  createArtifactUpload,
  getArtifact,
  installArtifact,
  listJobs,
  getJob,
  waitForJob,
  readJobLogs,
  cancelJob,
  answerJob,
  getVmMetrics,
  createVm,
  resizeVm,
  deleteVm,
  listSshKeys,
  addSshKey,
  removeSshKey,
  readVmFile,
  listVmDirectory,
];
