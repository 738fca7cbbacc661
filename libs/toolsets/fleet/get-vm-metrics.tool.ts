import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { vmId } from '../arguments.js';
import { vmJobAnswer, vmJobShape } from '../vms/vm-job.js';
import { vmMetrics } from '../vms/vm-metrics.job.js';

const { job_id, vm_id, status, error } = vmJobShape;

export const getVmMetrics = defineJobTool({
  name: 'get_vm_metrics',
  title: 'Measure a VM',
  description:
    'Measures what a VM uses now: CPU, memory, disk and network, as its hypervisor and as its guest see it. Counters run since the VM or the guest started; what nobody knows is left out.',
  toolset: 'fleet',
  scope: 'vms:read',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({ vm_id: vmId }),
  output: z.object({ job_id, vm_id, status, error, result: vmMetrics.result.optional() }),
  answerWithinMs: 30_000,
  submit: (call) => call.submit(vmMetrics, {}),
  async answer(job, services) {
    const { result, ...rest } = await vmJobAnswer(job, services);
    return { ...rest, result: result as z.output<typeof vmMetrics.result> | undefined };
  },
});
