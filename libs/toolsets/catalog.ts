import type { Tool } from '@longhaul/mcp';
import { whoami } from './account/whoami.tool.js';
import { cancelVmCommand } from './commands/cancel-vm-command.tool.js';
import { execVmCommand } from './commands/exec-vm-command.tool.js';
import { getVmCommandOutput } from './commands/get-vm-command-output.tool.js';
import { readVmCommandLogs } from './commands/read-vm-command-logs.tool.js';
import { startVmCommand } from './commands/start-vm-command.tool.js';
import { answerJob } from './jobs/answer-job.tool.js';
import { cancelJob } from './jobs/cancel-job.tool.js';
import { getJob } from './jobs/get-job.tool.js';
import { listJobs } from './jobs/list-jobs.tool.js';
import { readJobLogs } from './jobs/read-job-logs.tool.js';
import { waitForJob } from './jobs/wait-for-job.tool.js';
import { getVm } from './vms/get-vm.tool.js';
import { listVms } from './vms/list-vms.tool.js';
import { setVmExecEnabled } from './vms/set-vm-exec-enabled.tool.js';

/** Every toolset, and whether a request sees it that names none. One that is not here fails catalog.spec.ts. */
export const toolsets = {
  account: { default: true },
  vms: { default: true },
  commands: { default: true },
  jobs: { default: true },
} as const;

/** Every tool, in the order in which tools/list shows them. A tool that is not here fails catalog.spec.ts. */
export const catalog: readonly Tool[] = [
  whoami,
  listVms,
  getVm,
  setVmExecEnabled,
  execVmCommand,
  startVmCommand,
  getVmCommandOutput,
  readVmCommandLogs,
  cancelVmCommand,
  listJobs,
  getJob,
  waitForJob,
  readJobLogs,
  cancelJob,
  answerJob,
];
