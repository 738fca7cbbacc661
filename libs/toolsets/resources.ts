import { STREAMS } from '@longhaul/job-log';
import { defineResource, type Completion, type Resource } from '@longhaul/mcp';
import { SLICE_MAX_BYTES } from './arguments.js';
import { getJob } from './jobs/get-job.tool.js';
import { listJobs } from './jobs/list-jobs.tool.js';
import { readJobLogs } from './jobs/read-job-logs.tool.js';
import { getVm } from './vms/get-vm.tool.js';
import { listVms } from './vms/list-vms.tool.js';

type Ids = Record<string, { id: string }[]>;
type JobIds = Record<string, { job_id: string }[]>;

const jobIds: Completion = {
  tool: listJobs,
  args: { limit: 100 },
  values: (output) => (output as JobIds).jobs!.map((job) => job.job_id),
};
const vmIds: Completion = {
  tool: listVms,
  args: { limit: 100 },
  values: (output) => (output as Ids).vms!.map((vm) => vm.id),
};

/** Every resource, each read by a tool. */
export const resources: readonly Resource[] = [
  defineResource({
    name: 'vm',
    title: 'VM',
    description: 'A VM as get_vm shows it',
    mimeType: 'application/json',
    uriTemplate: 'longhaul://vms/{vm_id}',
    tool: getVm,
    enumerated: true,
    complete: { vm_id: vmIds },
  }),
  defineResource({
    name: 'job',
    title: 'Job',
    description: 'A job as get_job shows it',
    mimeType: 'application/json',
    uriTemplate: 'longhaul://jobs/{job_id}',
    tool: getJob,
    complete: { job_id: jobIds },
  }),
  defineResource({
    name: 'job-log',
    title: 'Log of a job',
    description: 'The first 64 KiB of a stream of a job; read_job_logs reads on from there',
    mimeType: 'text/plain',
    uriTemplate: 'longhaul://jobs/{job_id}/logs/{stream}',
    tool: readJobLogs,
    args: { max_bytes: SLICE_MAX_BYTES },
    contents(output, { stream }) {
      const data = output[stream!] as string;
      return output[`${stream}_encoding`] === 'base64' ? { blob: data } : { text: data };
    },
    complete: { job_id: jobIds, stream: [...STREAMS] },
  }),
];
